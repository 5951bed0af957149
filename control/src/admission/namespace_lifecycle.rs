//! Nothing is created in a namespace that does not exist or is being deleted, and the namespaces that the system needs
//! are never deleted.

use async_trait::async_trait;
use serde_json::Value;
use wherry_api::resource::GroupResource;
use wherry_api::status::{ApiError, Cause};

use super::{Operation, Plugin, Request};
use crate::cache::Cache;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

static NAMESPACES: GroupResource = GroupResource::new("", "namespaces");

/// Kubernetes' plugin of that name.
#[derive(Debug)]
pub struct NamespaceLifecycle {
    cache: Cache,
}

impl NamespaceLifecycle {
    pub fn new(cache: Cache) -> Self {
        Self { cache }
    }
}

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    async fn mutate(&self, request: &Request<'_>, _object: &mut Value) -> Result<(), ApiError> {
        // Also a subresource's: no pod of such a namespace is bound or evicted.
        let creates = request.operation == Operation::Create;
        if !(creates || request.operation == Operation::Connect) || !request.resource.namespaced() {
            return Ok(());
        }
        let namespace = request.namespace;
        match self.cache.get(&NAMESPACES, "", namespace) {
            None => Err(ApiError::missing(&NAMESPACES, namespace)),
            Some(entry) if creates && entry.meta.deleting => Err(terminating(request)),
            Some(_) => Ok(()),
        }
    }

    async fn validate(
        &self,
        request: &Request<'_>,
        _new: Option<&Value>,
        _old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let concerns = request.operation == Operation::Delete && request.resource.is("", "namespaces");
        if concerns && IMMORTAL.contains(&request.name) {
            return Err(request.forbidden("this namespace may not be deleted"));
        }
        Ok(())
    }
}

fn terminating(request: &Request<'_>) -> ApiError {
    let namespace = request.namespace;
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut error = request.forbidden(why);
    error.details.causes.push(Cause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".into(),
    });
    error
}
