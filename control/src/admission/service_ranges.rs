//! A ServiceCIDR may have any addresses but those that the nodes' network uses for something else: a Service with the address
//! of a pod, or of the host, would take its connections.

use async_trait::async_trait;
use serde_json::{Value, json};
use wherry_api::field::{ErrorList, Path};
use wherry_api::object;
use wherry_api::status::ApiError;

use super::{Operation, Plugin, Request};
use crate::cidr::Cidr;

/// What the nodes' network has to say of ServiceCIDRs.
#[derive(Debug)]
pub struct ServiceRanges {
    own: Cidr,
    others: Vec<Cidr>,
}

impl ServiceRanges {
    /// `own` is for Services, also where it is part of `others`.
    pub fn new(own: Cidr, others: Vec<Cidr>) -> Self {
        Self { own, others }
    }

    /// Ranges that `old` has stay: what was stored before must not keep its own labels and finalizers from being written.
    fn judge(&self, object: &Value, old: Option<&Value>, errors: &mut ErrorList) {
        let path = Path::new("spec").child("cidrs");
        let kept: Vec<&str> = old.map(ranges).into_iter().flatten().collect();
        for (index, text) in ranges(object).enumerate().filter(|(_, text)| !kept.contains(text)) {
            let Some(range) = Cidr::parse(text).filter(|range| !self.own.covers(*range)) else { continue };
            if let Some(other) = self.others.iter().find(|other| other.overlaps(range)) {
                let why = format!("overlaps {other}, which the nodes' network uses itself");
                errors.invalid(&path.index(index), &json!(text), &why);
            }
        }
    }
}

fn ranges(object: &Value) -> impl Iterator<Item = &str> {
    let ranges = object::at(object, "spec.cidrs").and_then(Value::as_array);
    ranges.map(Vec::as_slice).unwrap_or_default().iter().filter_map(Value::as_str)
}

#[async_trait]
impl Plugin for ServiceRanges {
    fn name(&self) -> &'static str {
        "ServiceRanges"
    }

    async fn validate(&self, request: &Request<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError> {
        let concerns = request.resource.is("networking.k8s.io", "servicecidrs")
            && request.operation != Operation::Delete
            && request.subresource.is_empty();
        let Some(object) = new.filter(|object| concerns && !object::is_deleting(object)) else { return Ok(()) };
        let mut errors = ErrorList::default();
        self.judge(object, old, &mut errors);
        if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(request.resource, object::name(object), &errors)) }
    }
}
