//! A pod runs as a service account: `default` unless it names one, and that one must exist. Pull secrets of the account
//! are the pod's, unless it has its own; the account's token is mounted into its containers, unless it or the account does
//! not want that.

use async_trait::async_trait;
use serde_json::{Value, json};
use wherry_api::kinds::core::pod::MIRROR;
use wherry_api::kinds::core::podspec::access;
use wherry_api::object;
use wherry_api::resource::GroupResource;
use wherry_api::status::ApiError;

use super::{Plugin, Request, mountable_secrets};
use crate::auth::references::{self, Referenced};
use crate::cache::Cache;

const DEFAULT: &str = "default";

static ACCOUNTS: GroupResource = GroupResource::new("", "serviceaccounts");

/// Kubernetes' plugin of that name.
#[derive(Debug)]
pub struct ServiceAccount {
    cache: Cache,
}

impl ServiceAccount {
    pub fn new(cache: Cache) -> Self {
        Self { cache }
    }

    /// The account, if it is there; the default one need not be. Error: 403.
    fn account(&self, request: &Request<'_>, name: &str) -> Result<Option<Value>, ApiError> {
        let found = self.cache.get(&ACCOUNTS, request.namespace, name);
        // The default account is made shortly after its namespace; a pod need not wait for it.
        if found.is_none() && name != DEFAULT {
            let place = format!("{}/{name}", request.namespace);
            let why = format!("error looking up service account {place}: serviceaccount {name:?} not found");
            return Err(request.forbidden(why));
        }
        Ok(found.and_then(|entry| entry.read().ok()))
    }
}

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    async fn mutate(&self, request: &Request<'_>, pod: &mut Value) -> Result<(), ApiError> {
        if !request.creates("", "pods") || object::annotation(pod, MIRROR).is_some() {
            return Ok(());
        }
        let named = match object::text_at(pod, "spec.serviceAccountName") {
            name if name.is_empty() => object::text_at(pod, "spec.serviceAccount"),
            name => name,
        };
        let name = if named.is_empty() { DEFAULT } else { &named };
        let account = self.account(request, name)?;
        object::set_at(pod, "spec.serviceAccountName", name);
        let own = object::at(pod, "spec.imagePullSecrets").and_then(Value::as_array).is_some_and(|l| !l.is_empty());
        if let (Some(account), false) = (&account, own)
            && let Some(secrets) = account.get("imagePullSecrets").filter(|s| !s.is_null())
        {
            object::set_at(pod, "spec.imagePullSecrets", secrets.clone());
        }
        let wish = |of: Option<&Value>| of.and_then(Value::as_bool);
        let of_account = || wish(account.as_ref().and_then(|a| a.get("automountServiceAccountToken")));
        let mounts = wish(object::at(pod, "spec.automountServiceAccountToken")).or_else(of_account).unwrap_or(true);
        if let (true, Some(spec)) = (mounts, pod.get_mut("spec")) {
            mount(spec, |below| rand::random_range(0..below.max(1)));
        }
        Ok(())
    }

    async fn validate(&self, request: &Request<'_>, new: Option<&Value>, _: Option<&Value>) -> Result<(), ApiError> {
        let is_pod = request.resource.is("", "pods");
        let concerns = request.creates("", "pods") || (is_pod && request.subresource == "ephemeralcontainers");
        let Some(pod) = new.filter(|_| concerns) else { return Ok(()) };
        if object::annotation(pod, MIRROR).is_some() {
            return mirrored(pod).map_err(|why| request.forbidden(why));
        }
        let account = self.account(request, &object::text_at(pod, "spec.serviceAccountName"))?;
        match account.filter(mountable_secrets::limits) {
            Some(account) => mountable_secrets::check(&account, pod).map_err(|why| request.forbidden(why)),
            None => Ok(()),
        }
    }
}

/// A pod that says that a node runs it by itself has no account, and so nothing that an account gives or limits.
fn mirrored(pod: &Value) -> Result<(), &'static str> {
    let named = references::all(pod.to_string().as_bytes());
    let names = |kind| named.iter().any(|(referenced, _)| *referenced == kind);
    if names(Referenced::ServiceAccount) {
        return Err("a mirror pod may not reference service accounts");
    }
    if names(Referenced::Secret) {
        return Err("a mirror pod may not reference secrets");
    }
    if references::tokens(pod).next().is_some() {
        return Err("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

/// Mounts the account's token, with the authority's certificate and the namespace beside it, where clients look for it, in
/// each container that has not mounted something else there.
fn mount(spec: &mut Value, random: impl FnMut(usize) -> usize) {
    let present = access::volume(spec).map(str::to_owned);
    let name = present.clone().unwrap_or_else(|| wherry_api::meta::generate_name(access::VOLUME_PREFIX, random));
    let mut mounted = false;
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter(|container| container.is_object()) {
            let mut mounts = container.get("volumeMounts").and_then(Value::as_array).cloned().unwrap_or_default();
            if !mounts.iter().any(|mount| mount.get("mountPath").and_then(Value::as_str) == Some(access::MOUNT_PATH)) {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": access::MOUNT_PATH}));
                object::set_at(container, "volumeMounts", mounts);
                mounted = true;
            }
        }
    }
    if mounted && present.is_none() {
        let mut volumes = spec.get("volumes").and_then(Value::as_array).cloned().unwrap_or_default();
        volumes.push(access::new_volume(&name));
        object::set_at(spec, "volumes", volumes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_pod_has_nothing_of_an_account() {
        let pod = |spec: Value| json!({"metadata": {"name": "p"}, "spec": spec});
        let token = json!([{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]);
        let env =
            json!([{"name": "c", "env": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]);
        for (spec, why) in [
            (json!({"serviceAccountName": "robot"}), "may not reference service accounts"),
            (json!({"containers": env}), "may not reference secrets"),
            (json!({"volumes": [{"name": "s", "secret": {"secretName": "s"}}]}), "may not reference secrets"),
            (json!({"volumes": token}), "may not use ServiceAccountToken volume projections"),
        ] {
            assert!(mirrored(&pod(spec)).unwrap_err().ends_with(why));
        }
        assert!(mirrored(&pod(json!({"containers": [{"name": "c", "image": "i"}]}))).is_ok());
    }

    #[test]
    fn the_token_is_mounted_where_nothing_else_is() {
        let other = json!({"name": "own", "mountPath": access::MOUNT_PATH});
        let mut spec = json!({"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [other]}]});
        mount(&mut spec, |_| 0);
        assert_eq!(spec["volumes"].as_array().map(Vec::len), Some(1));
        assert_eq!(access::volume(&spec), Some("kube-api-access-bbbbb"));
        assert_eq!(
            spec["containers"][0]["volumeMounts"],
            json!([{"name": "kube-api-access-bbbbb", "readOnly": true, "mountPath": access::MOUNT_PATH}])
        );
        assert_eq!(spec["containers"][1]["volumeMounts"], json!([other]));
        let once = spec.clone();
        mount(&mut spec, |_| 1);
        assert_eq!(spec, once, "what is mounted is not mounted again");
    }
}
