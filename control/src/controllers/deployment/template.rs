//! From a Deployment's template to its ReplicaSet: which one it is, what it is called, which annotations it carries.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::sizes;
use crate::controllers::claim::reference;
use crate::reconcile::kinds::LAST_APPLIED;

pub const HASH_LABEL: &str = "pod-template-hash";
pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
const ROLLBACK: &str = "deprecated.deployment.rollback.to";
/// The revision history annotation is cut to this length.
const HISTORY_BYTES: usize = 2000;
/// Letters that make no words.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A short name for a template: FNV-1a of its canonical JSON, and of the number of collisions so far.
pub fn hash(template: &PodTemplateSpec, collisions: i32) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string(&serde_json::to_value(template)?)?;
    let salt = collisions.to_string();
    let bytes = text.bytes().chain(salt.bytes().filter(|_| collisions != 0));
    let sum = bytes.fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let letter = |digit: u8| ALPHABET.get(usize::from(digit) % ALPHABET.len()).map_or('x', |b| char::from(*b));
    Ok(sum.to_string().bytes().map(letter).collect())
}

/// Whether two templates differ at most in the hash label.
pub fn same(one: &PodTemplateSpec, other: &PodTemplateSpec) -> bool {
    let plain = |template: &PodTemplateSpec| {
        let mut meta = template.metadata.clone().unwrap_or_default();
        if let Some(labels) = &mut meta.labels {
            labels.remove(HASH_LABEL);
        }
        meta.labels = meta.labels.filter(|l| !l.is_empty());
        meta.annotations = meta.annotations.filter(|a| !a.is_empty());
        meta
    };
    plain(one) == plain(other) && one.spec == other.spec
}

/// The set that runs the Deployment's present template: the oldest, should there be several.
pub fn current(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Option<Arc<ReplicaSet>> {
    let template = &deployment.spec.as_ref()?.template;
    let runs = |set: &&Arc<ReplicaSet>| {
        let own = set.spec.as_ref().and_then(|s| s.template.as_ref());
        own.is_some_and(|own| same(own, template))
    };
    sets.iter().filter(runs).min_by_key(|set| sizes::age(set)).cloned()
}

/// The revision that an object's annotation names; 0 without one.
pub fn revision(meta: &ObjectMeta) -> i64 {
    let text = meta.annotations.as_ref().and_then(|a| a.get(REVISION));
    text.and_then(|t| t.parse().ok()).unwrap_or_default()
}

/// What the set's annotations lack of what the Deployment and `revision` give it.
pub fn missing_annotations(deployment: &Deployment, set: &ReplicaSet, revision_now: i64) -> BTreeMap<String, String> {
    let skipped = |key: &str| matches!(key, LAST_APPLIED | REVISION | REVISION_HISTORY | DESIRED | MAX | ROLLBACK);
    let present = set.annotations();
    let mut missing: BTreeMap<String, String> = deployment
        .annotations()
        .iter()
        .filter(|(key, value)| !skipped(key) && present.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let before = revision(&set.metadata);
    if before < revision_now {
        missing.insert(REVISION.to_owned(), revision_now.to_string());
        if before > 0 {
            missing.insert(REVISION_HISTORY.to_owned(), history(present.get(REVISION_HISTORY), before));
        }
    }
    missing
}

fn history(present: Option<&String>, revision: i64) -> String {
    let mut text =
        present.filter(|p| !p.is_empty()).map_or_else(|| revision.to_string(), |p| format!("{p},{revision}"));
    while text.len() > HISTORY_BYTES {
        let Some((_, rest)) = text.split_once(',') else { break };
        text = rest.to_owned();
    }
    text
}

/// The annotations that say how large the Deployment was when the set was last scaled.
pub fn size_annotations(deployment: &Deployment) -> BTreeMap<String, String> {
    let replicas = sizes::replicas(deployment);
    let max = replicas.saturating_add(sizes::max_surge(deployment));
    [(DESIRED.to_owned(), replicas.to_string()), (MAX.to_owned(), max.to_string())].into()
}

/// The set for the present template, not scaled yet.
pub fn new_set(deployment: &Deployment, revision_now: i64) -> Result<Option<ReplicaSet>, serde_json::Error> {
    let Some(spec) = &deployment.spec else { return Ok(None) };
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or_default();
    let hash = hash(&spec.template, collisions)?;
    let mut template = spec.template.clone();
    let meta = template.metadata.get_or_insert_default();
    meta.labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            namespace: deployment.namespace(),
            name: Some(format!("{}-{hash}", deployment.name_any())),
            labels: meta.labels.clone(),
            owner_references: Some(vec![reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    };
    let mut annotations = missing_annotations(deployment, &set, revision_now);
    annotations.extend(size_annotations(deployment));
    set.metadata.annotations = Some(annotations);
    Ok(Some(set))
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn template(image: &str, labels: Value) -> PodTemplateSpec {
        serde_json::from_value(json!({"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": image}]}}))
        .expect("a template")
    }

    #[test]
    fn the_hash_is_stable_and_speaks_no_words() {
        let one = template("a", json!({"app": "x"}));
        let name = hash(&one, 0).expect("a hash");
        assert_eq!(name, hash(&one.clone(), 0).expect("a hash"));
        assert_ne!(name, hash(&one, 1).expect("a hash"));
        assert_ne!(name, hash(&template("b", json!({"app": "x"})), 0).expect("a hash"));
        assert!(name.bytes().all(|b| ALPHABET.contains(&b)), "{name}");
    }

    #[test]
    fn templates_are_compared_without_the_hash_label() {
        let one = template("a", json!({"app": "x"}));
        assert!(same(&one, &template("a", json!({"app": "x", "pod-template-hash": "bcd"}))));
        assert!(!same(&one, &template("a", json!({"app": "y"}))));
        assert!(!same(&one, &template("b", json!({"app": "x"}))));
    }

    #[test]
    fn a_set_that_is_current_again_gets_a_new_revision_and_remembers_the_old() {
        let deployment: Deployment = serde_json::from_value(json!({"metadata": {"name": "d", "annotations": {
            "kubernetes.io/change-cause": "because", "deployment.kubernetes.io/revision": "3"}}}))
        .expect("a deployment");
        let set: ReplicaSet =
            serde_json::from_value(json!({"metadata": {"annotations": {REVISION: "1"}}})).expect("a set");
        let missing = missing_annotations(&deployment, &set, 4);
        let expected = [("kubernetes.io/change-cause", "because"), (REVISION, "4"), (REVISION_HISTORY, "1")];
        assert_eq!(missing, expected.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
    }
}
