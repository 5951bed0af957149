//! Lease: a heartbeat or a leadership. Acknowledged from memory: a lost one is renewed in seconds.

use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::tree::{int, some, text};
use crate::resource::Descriptor;
use crate::strategy::Strategy;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<Lease>()
        .columns(vec![
            cells::name(),
            column("Holder", "string", "The identity of the holder of a current lease.", |o, _| {
                json!(text(o, "/spec/holderIdentity"))
            }),
            cells::age(),
        ])
        .relaxed()
        .create_on_update()
        .no_generation()
        .conditional()
        .strategy(LeaseStrategy)
}

#[derive(Debug)]
struct LeaseStrategy;

impl Strategy for LeaseStrategy {
    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        let spec = Path::new("spec");
        if let Some(seconds) = int(object, "/spec/leaseDurationSeconds").filter(|s| *s <= 0) {
            errors.invalid(&spec.child("leaseDurationSeconds"), &json!(seconds), "must be greater than 0");
        }
        if let Some(count) = int(object, "/spec/leaseTransitions").filter(|c| *c < 0) {
            errors.invalid(&spec.child("leaseTransitions"), &json!(count), "must be greater than or equal to 0");
        }
        let strategy = some(object, "/spec/strategy").is_some();
        if !strategy && !text(object, "/spec/preferredHolder").is_empty() {
            errors.forbidden(&spec.child("preferredHolder"), "may only be specified if `strategy` is defined");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lasts_some_time() {
        let mut errors = ErrorList::default();
        LeaseStrategy.validate(&json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}), &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"
            ]
        );
        let mut errors = ErrorList::default();
        LeaseStrategy.validate(&json!({"spec": {"leaseDurationSeconds": 40}}), &mut errors);
        assert!(errors.is_empty());
    }
}
