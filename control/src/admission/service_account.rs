//! A pod runs as a service account: `default` unless it names one, and that one must exist. Pull secrets of the account
//! are the pod's, unless it has its own.

use async_trait::async_trait;
use serde_json::Value;
use wherry_api::object;
use wherry_api::resource::GroupResource;
use wherry_api::status::ApiError;

use super::{Plugin, Request};
use crate::cache::Cache;

const DEFAULT: &str = "default";

/// Kubernetes' plugin of that name, as far as names and pull secrets go.
#[derive(Debug)]
pub struct ServiceAccount {
    cache: Cache,
    accounts: GroupResource,
}

impl ServiceAccount {
    pub fn new(cache: Cache) -> Self {
        Self { cache, accounts: GroupResource { group: "".into(), resource: "serviceaccounts".into() } }
    }
}

#[async_trait]
impl Plugin for ServiceAccount {
    async fn mutate(&self, request: &Request<'_>, pod: &mut Value) -> Result<(), ApiError> {
        if !request.creates("", "pods") {
            return Ok(());
        }
        let named = match object::text_at(pod, "spec.serviceAccountName") {
            name if name.is_empty() => object::text_at(pod, "spec.serviceAccount"),
            name => name,
        };
        let name = if named.is_empty() { DEFAULT } else { &named };
        let account = self.cache.get(&self.accounts, request.namespace, name);
        // The default account is made shortly after its namespace; a pod need not wait for it.
        if account.is_none() && name != DEFAULT {
            let place = format!("{}/{name}", request.namespace);
            return Err(ApiError::forbidden(
                Some(request.resource),
                request.name,
                format!("error looking up service account {place}: serviceaccount {name:?} not found"),
            ));
        }
        object::set_at(pod, "spec.serviceAccountName", name);
        let own = object::at(pod, "spec.imagePullSecrets").and_then(Value::as_array).is_some_and(|l| !l.is_empty());
        if let (Some(account), false) = (account, own)
            && let Ok(account) = serde_json::from_slice::<Value>(&account.bytes)
            && let Some(secrets) = account.get("imagePullSecrets").filter(|s| !s.is_null())
        {
            object::set_at(pod, "spec.imagePullSecrets", secrets.clone());
        }
        Ok(())
    }
}
