//! Which objects belong to a controller: it adopts those that match its selector and have no controller, and releases those
//! of its own that no longer match.
//!
//! Before the first adoption the owner is read again from the server: one that is being deleted, or was replaced by another
//! of the same name, must not adopt.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::core::{Selector, SelectorExt};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::reconcile::kinds::Kind;
use crate::reconcile::{Error, Step, Store, absent_is_fine, code_of, controller_of, uid};

/// What is to be done with a candidate.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Keep,
    Adopt,
    Release,
    Ignore,
}

fn decide<D: Resource>(owner_uid: &str, owner_deleting: bool, selector: &Selector, candidate: &D) -> Decision {
    let matches = selector.matches(candidate.labels());
    let deleting = candidate.meta().deletion_timestamp.is_some();
    match controller_of(candidate.meta()) {
        Some(reference) if reference.uid != owner_uid => Decision::Ignore,
        Some(_) if matches => Decision::Keep,
        Some(_) if owner_deleting => Decision::Ignore,
        Some(_) => Decision::Release,
        None if matches && !owner_deleting && !deleting => Decision::Adopt,
        None => Decision::Ignore,
    }
}

/// Parses a selector; an empty one selects nothing here.
pub fn selector(selector: &LabelSelector) -> Result<Option<Selector>, Error> {
    let parsed = Selector::try_from(selector.clone()).map_err(Error::Selector)?;
    Ok(Some(parsed).filter(|s| !s.selects_all()))
}

/// The objects of `store` that belong to `owner`, after adoptions and releases.
pub async fn claim<O, D>(client: &Client, owner: &O, selects: &Selector, store: &Store<D>) -> Result<Vec<Arc<D>>, Error>
where
    O: Kind + Resource<Scope = NamespaceResourceScope>,
    D: Kind + Resource<Scope = NamespaceResourceScope> + DeserializeOwned + Debug,
{
    let namespace = owner.namespace().unwrap_or_default();
    let deleting = owner.meta().deletion_timestamp.is_some();
    let api: Api<D> = Api::namespaced(client.clone(), &namespace);
    let mut claimed = Vec::new();
    let mut may_adopt = false;
    let candidates = store.owned_by(uid(owner)).into_iter().chain(store.owned_by(""));
    for candidate in candidates.filter(|c| c.namespace().unwrap_or_default() == namespace) {
        match decide(uid(owner), deleting, selects, &*candidate) {
            Decision::Keep => claimed.push(candidate),
            Decision::Ignore => {}
            Decision::Release => release(&api, uid(owner), &*candidate, store).await?,
            Decision::Adopt => {
                if !may_adopt {
                    may_adopt = still_there(client, owner, &namespace).await?;
                }
                if may_adopt {
                    claimed.extend(adopt(&api, owner, &*candidate, store).await?);
                }
            }
        }
    }
    Ok(claimed)
}

async fn still_there<O>(client: &Client, owner: &O, namespace: &str) -> Result<bool, Error>
where
    O: Kind + Resource<Scope = NamespaceResourceScope>,
{
    let api: Api<O> = Api::namespaced(client.clone(), namespace);
    let fresh = api.get_metadata_opt(&owner.name_any()).await.step("read the owner before an adoption")?;
    Ok(fresh.is_some_and(|f| f.metadata.uid.as_deref() == Some(uid(owner)) && f.metadata.deletion_timestamp.is_none()))
}

/// The reference by which `owner` controls an object.
pub fn reference<O: Resource<DynamicType = ()>>(owner: &O) -> OwnerReference {
    OwnerReference {
        api_version: O::api_version(&()).into_owned(),
        kind: O::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: uid(owner).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

async fn adopt<O: Kind, D: Kind>(
    api: &Api<D>,
    owner: &O,
    object: &D,
    store: &Store<D>,
) -> Result<Option<Arc<D>>, Error> {
    let patch = json!({"metadata": {"uid": uid(object), "ownerReferences": [reference(owner)]}});
    let answer = api.patch(&object.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await;
    Ok(absent_is_fine(answer).step("adopt an object")?.map(|adopted| store.observe(adopted)))
}

async fn release<D: Kind>(api: &Api<D>, owner_uid: &str, object: &D, store: &Store<D>) -> Result<(), Error> {
    let patch = json!({"metadata": {"uid": uid(object), "ownerReferences": [{"$patch": "delete", "uid": owner_uid}]}});
    match api.patch(&object.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(released) => drop(store.observe(released)),
        // Gone, or already without this owner.
        Err(error) if matches!(code_of(&error), Some(404 | 422)) => {}
        Err(error) => return Err(error).step("release an object"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod(app: &str, owner: Option<&str>) -> Pod {
        let owners: Vec<_> = owner
            .map(|uid| json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": uid, "controller": true}))
            .into_iter()
            .collect();
        serde_json::from_value(json!({"metadata": {"labels": {"app": app}, "ownerReferences": owners}})).expect("a pod")
    }

    #[test]
    fn only_matching_orphans_are_adopted_and_only_own_objects_released() {
        let selector = Selector::from_iter([("app", "a")]);
        let cases = [
            ("a", Some("me"), false, Decision::Keep),
            ("b", Some("me"), false, Decision::Release),
            ("b", Some("me"), true, Decision::Ignore),
            ("a", Some("other"), false, Decision::Ignore),
            ("a", None, false, Decision::Adopt),
            ("a", None, true, Decision::Ignore),
            ("b", None, false, Decision::Ignore),
        ];
        for (app, owner, deleting, expected) in cases {
            assert_eq!(decide("me", deleting, &selector, &pod(app, owner)), expected, "{app} {owner:?} {deleting}");
        }
    }
}
