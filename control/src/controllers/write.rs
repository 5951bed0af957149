//! How controllers write: as patches of just what they own, so that what the caches dropped is never lost.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::reconcile::kinds::Kind;
use crate::reconcile::{Error, Step, Store, absent_is_fine, uid};

/// The name under which the control plane's writes are recorded, as in Kubernetes.
pub const MANAGER: &str = "kube-controller-manager";

pub fn post() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

pub fn patching() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// A delete of exactly this object, not of a successor with its name.
pub fn delete_exactly<K: Resource>(object: &K) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions { uid: Some(uid(object).to_owned()), resource_version: None }),
        ..DeleteParams::background()
    }
}

/// Deletes exactly this object, and lets the store know. One that is gone already is as good.
pub async fn delete<K: Kind>(api: &Api<K>, store: &Store<K>, object: &K, step: &'static str) -> Result<(), Error> {
    let answer = api.delete(&object.name_any(), &delete_exactly(object)).await;
    match absent_is_fine(answer).step(step)? {
        Some(answer) => store.forget(object, answer),
        None => store.forget_now(object),
    }
    Ok(())
}

/// The finalizers that an object is to have, among them `own` until it is being deleted; `None`: it has them.
pub fn finalizers(meta: &ObjectMeta, own: &str) -> Option<Vec<String>> {
    let mut all = meta.finalizers.clone().unwrap_or_default();
    let has = all.iter().any(|known| known == own);
    match (meta.deletion_timestamp.is_some(), has) {
        (true, true) => all.retain(|known| known != own),
        (false, false) => all.push(own.to_owned()),
        _ => return None,
    }
    Some(all)
}

/// The merge patch that makes `old` into `new` at the top level of both: absent fields become null.
fn replace(old: &Value, new: Value) -> Value {
    let Value::Object(mut new) = new else { return new };
    if let Value::Object(old) = old {
        for key in old.keys().filter(|key| !new.contains_key(*key)).cloned().collect::<Vec<_>>() {
            new.insert(key, Value::Null);
        }
    }
    Value::Object(new)
}

/// Writes an object's status if nobody else wrote the object meanwhile, and lets the store know.
pub async fn status<K, S>(api: &Api<K>, store: &Store<K>, object: &K, old: &S, new: &S) -> Result<(), Error>
where
    K: Kind,
    S: Serialize,
{
    let old = serde_json::to_value(old).map_err(Error::Encode)?;
    let new = replace(&old, serde_json::to_value(new).map_err(Error::Encode)?);
    let patch = json!({"metadata": {"resourceVersion": object.resource_version()}, "status": new});
    let answer = api.patch_status(&object.name_any(), &patching(), &Patch::Merge(patch)).await;
    observe(store, answer, "update the status")
}

/// Merges `patch` into an object if nobody else wrote it meanwhile, and lets the store know.
pub async fn merge<K: Kind>(api: &Api<K>, store: &Store<K>, object: &K, mut patch: Value) -> Result<(), Error> {
    if let Value::Object(fields) = &mut patch {
        let meta = fields.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(meta) = meta {
            meta.insert("resourceVersion".to_owned(), json!(object.resource_version()));
        }
    }
    let answer = api.patch(&object.name_any(), &patching(), &Patch::Merge(patch)).await;
    observe(store, answer, "update an object")
}

fn observe<K: Kind>(store: &Store<K>, answer: kube::Result<K>, step: &'static str) -> Result<(), Error> {
    if let Some(object) = absent_is_fine(answer).step(step)? {
        store.observe(object);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_no_longer_set_is_removed() {
        let patch = replace(&json!({"replicas": 1, "readyReplicas": 1}), json!({"replicas": 1}));
        assert_eq!(patch, json!({"replicas": 1, "readyReplicas": null}));
    }

    #[test]
    fn a_finalizer_comes_with_life_and_goes_with_deletion() {
        let changed = |all: &[&str], deleted: bool| {
            let time = deleted.then_some("2026-01-01T00:00:00Z");
            let meta: ObjectMeta =
                serde_json::from_value(json!({"finalizers": all, "deletionTimestamp": time})).unwrap();
            finalizers(&meta, "f")
        };
        assert_eq!(changed(&["x"], false), Some(vec!["x".to_owned(), "f".to_owned()]));
        assert_eq!(changed(&["x", "f"], true), Some(vec!["x".to_owned()]));
        assert_eq!((changed(&["f"], false), changed(&[], true)), (None, None));
    }
}
