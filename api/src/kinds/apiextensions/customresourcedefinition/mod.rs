//! CustomResourceDefinition: a kind that users add. What it serves is made by [`crate::custom`].
//!
//! What must stay true: whatever passes here can be served; a definition that is being deleted stays until its finalizer,
//! which the deletion itself adds, is gone.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::custom::FINALIZER;
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::tree::{self, fill, is_true, list, set, split_status, text};
use crate::meta;
use crate::object;
use crate::resource::{Descriptor, WRITABLE_METADATA};
use crate::strategy::{Part, Strategy};

mod conversion;
mod names;
mod versions;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<CustomResourceDefinition>()
        .short(&["crd", "crds"])
        .categories(&["api-extensions"])
        .status()
        .status_keeps(WRITABLE_METADATA)
        .columns(vec![
            cells::name(),
            column(
                "Created At",
                "date",
                "CreationTimestamp is a timestamp representing the server time when this object was created.",
                |o, _| json!(text(o, "/metadata/creationTimestamp")),
            ),
        ])
        .conditional()
        .strategy(DefinitionStrategy)
}

#[derive(Debug)]
struct DefinitionStrategy;

impl Strategy for DefinitionStrategy {
    fn prepare_create(&self, crd: &mut Value) {
        let storage = storage_version(crd);
        set(crd, "status", json!({"storedVersions": storage.into_iter().collect::<Vec<_>>()}));
    }

    fn default(&self, crd: &mut Value) {
        let Some(spec) = tree::object(crd, "spec") else { return };
        if let Some(names) = tree::object(spec, "names") {
            let kind = text(names, "/kind").to_owned();
            if !kind.is_empty() {
                fill(names, "singular", kind.to_lowercase());
                fill(names, "listKind", format!("{kind}List"));
            }
        }
        if let Some(conversion) = tree::object(spec, "conversion") {
            fill(conversion, "strategy", "None");
            if let Some(service) = conversion.pointer_mut("/webhook/clientConfig/service").filter(|s| s.is_object()) {
                fill(service, "port", 443);
            }
        }
        tree::drop_false(spec, "preserveUnknownFields");
    }

    fn validate(&self, crd: &Value, errors: &mut ErrorList) {
        name(crd, errors);
        spec(crd, errors);
        if is_true(crd, "/spec/preserveUnknownFields") {
            keeps_nothing(errors);
        }
        approval(crd, None, errors);
        names::status(crd, errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
        if part == Part::Main
            && let Some(storage) = storage_version(new)
            && let Some(status) = tree::object(new, "status")
        {
            let mut stored = list(status, "/storedVersions").to_vec();
            if !stored.contains(&json!(storage)) {
                stored.push(json!(storage));
            }
            set(status, "storedVersions", stored);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        names::status(new, errors);
        stored_versions(new, errors);
        if part == Part::Status {
            return;
        }
        spec(new, errors);
        immutable(new, old, errors);
        if is_true(new, "/spec/preserveUnknownFields") && !is_true(old, "/spec/preserveUnknownFields") {
            keeps_nothing(errors);
        }
        approval(new, Some(old), errors);
    }

    /// Marks the definition for deletion: its objects go first.
    fn begin_deletion(&self, crd: &mut Value) {
        object::add_finalizer(crd, FINALIZER);
        let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        let now = object::meta_str(crd, "deletionTimestamp").to_owned();
        let condition = json!({"type": "Terminating", "status": "True", "reason": "InstanceDeletionPending",
            "message": message, "lastTransitionTime": now});
        if let Some(status) = tree::object(crd, "status") {
            let others = list(status, "/conditions").iter().filter(|c| text(c, "/type") != "Terminating");
            let conditions: Vec<Value> = others.cloned().chain([condition]).collect();
            set(status, "conditions", conditions);
        }
    }

    /// Until the deletion has been begun; then the finalizer does.
    fn blocks_deletion(&self, crd: &Value) -> bool {
        !list(crd, "/status/conditions").iter().any(|c| text(c, "/type") == "Terminating")
    }
}

/// The version that is written.
fn storage_version(crd: &Value) -> Option<String> {
    let found = list(crd, "/spec/versions").iter().find(|version| is_true(version, "/storage"))?;
    Some(text(found, "/name").to_owned())
}

fn name(crd: &Value, errors: &mut ErrorList) {
    let wanted = format!("{}.{}", text(crd, "/spec/names/plural"), text(crd, "/spec/group"));
    let name = object::name(crd);
    if name != wanted {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.invalid(&Path::new("metadata").child("name"), &json!(name), why);
    }
}

fn spec(crd: &Value, errors: &mut ErrorList) {
    let (spec, path) = (crd.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
    names::group(text(spec, "/group"), &path.child("group"), errors);
    match text(spec, "/scope") {
        "" => errors.required(&path.child("scope"), ""),
        "Cluster" | "Namespaced" => {}
        other => errors.not_supported(&path.child("scope"), other, &["Cluster", "Namespaced"]),
    }
    versions::validate(spec, &path, errors);
    names::required(spec.get("names").unwrap_or(&Value::Null), &path.child("names"), errors);
    conversion::validate(spec, &path.child("conversion"), errors);
}

fn keeps_nothing(errors: &mut ErrorList) {
    let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
    errors.invalid(&Path::new("spec").child("preserveUnknownFields"), &json!(true), why);
}

/// What a definition is about never changes once it is served; group and plural are its name.
fn immutable(new: &Value, old: &Value, errors: &mut ErrorList) {
    let conditions = list(old, "/status/conditions");
    let established = conditions.iter().any(|c| text(c, "/type") == "Established" && text(c, "/status") == "True");
    let path = Path::new("spec");
    let mut same = |pointer: &str, path: Path| {
        meta::immutable(new.pointer(pointer), old.pointer(pointer), &path, errors);
    };
    if established {
        same("/spec/scope", path.child("scope"));
        same("/spec/names/kind", path.child("names").child("kind"));
    }
    same("/spec/group", path.child("group"));
    same("/spec/names/plural", path.child("names").child("plural"));
}

/// Objects may be stored in each of `status.storedVersions`, so each must be known.
fn stored_versions(crd: &Value, errors: &mut ErrorList) {
    let path = Path::new("status").child("storedVersions");
    let stored = list(crd, "/status/storedVersions");
    let known = |name: &str| list(crd, "/spec/versions").iter().any(|version| text(version, "/name") == name);
    if stored.is_empty() {
        errors.invalid(&path, &json!([]), "must have at least one stored version");
    }
    for (index, version) in stored.iter().map(|v| v.as_str().unwrap_or_default()).enumerate() {
        if !known(version) {
            let why = format!(
                "missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {version} and removes {version} from \
                 status.storedVersions"
            );
            errors.invalid(&path.index(index), &json!(version), &why);
        }
    }
    if let Some(storage) = storage_version(crd).filter(|storage| !stored.contains(&json!(storage))) {
        errors.invalid(&path, &json!(stored), &format!("must have the storage version {storage}"));
    }
}

const APPROVED: &str = "api-approved.kubernetes.io";

/// Groups of Kubernetes' own need its approval.
fn approval(crd: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    let group = text(crd, "/spec/group");
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group == *domain || group.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')));
    let given = object::annotation(crd, APPROVED).unwrap_or_default();
    let unchanged = old.is_some_and(|old| object::annotation(old, APPROVED).unwrap_or_default() == given);
    if !protected || unchanged || given.starts_with("https://") || given.starts_with("unapproved") {
        return;
    }
    let path = Path::new("metadata").child("annotations").key(APPROVED);
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    if given.is_empty() {
        errors.required(&path, &format!("protected groups must have approval annotation \"{APPROVED}\", {see}"));
    } else {
        let why = format!(
            "protected groups must have approval annotation \"{APPROVED}\" with either a URL or a reason starting with \
             \"unapproved\", {see}"
        );
        errors.invalid(&path, &json!(given), &why);
    }
}

#[cfg(test)]
mod tests;
