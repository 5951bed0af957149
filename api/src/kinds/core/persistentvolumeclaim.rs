//! PersistentVolumeClaim: a pod's wish for storage.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};

use super::podspec::resources::parse;
use super::storage::{self, CLASS_ANNOTATION};
use crate::field::{ErrorList, Path};
use crate::kinds::apps::template::validate_selector;
use crate::kinds::cells::{self, column, wide};
use crate::kinds::deprecated;
use crate::kinds::tree::{carry, fill, map, object, remove, set, some, split_status, text};
use crate::meta::{IMMUTABLE, immutable, names, push_all, same};
use crate::object::{annotation, at, set_at};
use crate::quantity::Quantity;
use crate::resource::{Column, Descriptor, Idle};
use crate::strategy::{Part, Strategy};

const CLAIM: &str = "PersistentVolumeClaim";
const RESIZE_STATES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

pub fn descriptor() -> Descriptor {
    Descriptor::of::<PersistentVolumeClaim>()
        .idle(Idle::Yet)
        .short(&["pvc"])
        .status()
        .columns(columns())
        .no_generation()
        .strategy(PersistentVolumeClaimStrategy)
}

fn columns() -> Vec<Column> {
    vec![
        cells::name(),
        column("Status", "string", "Whether the claim is bound to a volume.", |o, _| storage::phase(o)),
        column("Volume", "string", "The volume that the claim is bound to.", |o, _| json!(text(o, "/spec/volumeName"))),
        column("Capacity", "string", "The storage of the volume.", |o, _| {
            json!(if is_bound(o) { text(o, "/status/capacity/storage") } else { "" })
        }),
        column("Access Modes", "string", "The ways in which the volume can be mounted.", |o, _| {
            json!(if is_bound(o) { storage::access_modes(o, "/status/accessModes") } else { String::new() })
        }),
        column("StorageClass", "string", "The class that the claim asks for.", |o, _| json!(storage::class(o))),
        column("VolumeAttributesClass", "string", "The class of the volume's attributes.", |o, _| {
            storage::or_unset(o, "/spec/volumeAttributesClassName")
        }),
        cells::age(),
        wide("VolumeMode", "Whether the volume is a file system or a block device.", |o, _| {
            storage::or_unset(o, "/spec/volumeMode")
        }),
    ]
}

fn is_bound(claim: &Value) -> bool {
    !text(claim, "/spec/volumeName").is_empty()
}

/// Fills a claim's defaults, also those of a claim in a StatefulSet's template.
pub(crate) fn default(claim: &mut Value) {
    if let Some(status) = object(claim, "status") {
        fill(status, "phase", "Pending");
    }
    if let Some(spec) = object(claim, "spec") {
        fill(spec, "volumeMode", "Filesystem");
    }
}

#[derive(Debug)]
struct PersistentVolumeClaimStrategy;

impl Strategy for PersistentVolumeClaimStrategy {
    fn warnings(&self, object: &Value) -> Vec<String> {
        deprecated::of_volume_claim(object)
    }

    fn prepare_create(&self, claim: &mut Value) {
        set(claim, "status", json!({"phase": "Pending"}));
        if let Some(spec) = object(claim, "spec") {
            settle_source(spec, &Value::Null);
        }
    }

    fn default(&self, claim: &mut Value) {
        default(claim);
    }

    fn validate(&self, claim: &Value, errors: &mut ErrorList) {
        validate_spec(claim.get("spec").unwrap_or(&Value::Null), &Path::new("spec"), errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
        if part == Part::Main
            && let Some(spec) = object(new, "spec")
        {
            settle_source(spec, old.get("spec").unwrap_or(&Value::Null));
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Status {
            return validate_status(new, errors);
        }
        self.validate(new, errors);
        validate_spec_update(new, old, errors);
        validate_size_update(new, old, errors);
        let (mode, old_mode) = (new.pointer("/spec/volumeMode"), old.pointer("/spec/volumeMode"));
        immutable(mode, old_mode, &Path::new("volumeMode"), errors);
        let class = |claim: &Value| some(claim, "/spec/volumeAttributesClassName").cloned();
        let path = Path::new("spec").child("volumeAttributesClassName");
        match (class(old), class(new)) {
            (Some(_), None) => errors.forbidden(&path, "update from non-nil value to nil is forbidden"),
            (Some(before), Some(now)) if now == json!("") && before != now => {
                errors.forbidden(&path, "update from non-nil value to an empty string is forbidden");
            }
            _ => {}
        }
    }
}

/// Judges the spec of a claim, also of one that is to be made from a template.
pub(in crate::kinds) fn validate_spec(spec: &Value, path: &Path, errors: &mut ErrorList) {
    storage::validate_access_modes(spec, "at least 1 access mode is required", path, errors);
    if let Some(selector) = some(spec, "/selector") {
        validate_selector(selector, &path.child("selector"), errors);
    }
    let size_path = path.child("resources").key("storage");
    match some(spec, "/resources/requests/storage").map(|size| (parse(size), size)) {
        None => errors.required(&size_path, ""),
        Some((Err(why), size)) => errors.invalid(&size_path, size, why),
        Some((Ok(quantity), _)) if quantity <= Quantity::ZERO => {
            errors.invalid(&size_path, &json!(quantity.to_string()), "must be greater than zero");
        }
        Some(_) => {}
    }
    storage::validate_classes(spec, path, errors);
    validate_sources(spec, path, errors);
}

/// `dataSource` and `dataSourceRef` say the same where they can: the old field knows claims and snapshots only. In an update of
/// a client that does not know the new one it is filled in again; `old` is the spec before.
fn settle_source(spec: &mut Value, old: &Value) {
    let had = ["dataSource", "dataSourceRef"].iter().any(|field| some(old, &format!("/{field}")).is_some());
    if let Some(source) = some(spec, "/dataSource").filter(|_| !had) {
        let known = match (text(source, "/apiGroup"), text(source, "/kind")) {
            ("", kind) => kind == CLAIM,
            (group, kind) => (group, kind) == ("snapshot.storage.k8s.io", "VolumeSnapshot"),
        };
        if !known {
            remove(spec, "dataSource");
        }
    }
    let reference = some(spec, "/dataSourceRef").cloned();
    match (some(spec, "/dataSource").cloned(), reference) {
        (Some(source), None) => set(spec, "dataSourceRef", source),
        (None, Some(reference)) if text(&reference, "/namespace").is_empty() => set(spec, "dataSource", reference),
        _ => {}
    }
}

fn validate_sources(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let (source, reference) = (some(spec, "/dataSource"), some(spec, "/dataSourceRef"));
    for (field, value) in [("dataSource", source), ("dataSourceRef", reference)] {
        if let Some(value) = value {
            validate_source(value, &path.child(field), errors);
        }
    }
    let (Some(source), Some(reference)) = (source, reference) else { return };
    let field = json!(path.child("dataSource").to_string());
    if !text(reference, "/namespace").is_empty() {
        errors.invalid(path, &field, "may not be specified when dataSourceRef.namespace is specified");
    } else if ["apiGroup", "kind", "name"].iter().any(|part| !same(source.get(part), reference.get(part))) {
        errors.invalid(path, &field, "must match dataSourceRef");
    }
}

fn validate_source(source: &Value, path: &Path, errors: &mut ErrorList) {
    for field in ["name", "kind"] {
        if text(source, &format!("/{field}")).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
    let (group, kind, namespace) = (text(source, "/apiGroup"), text(source, "/kind"), text(source, "/namespace"));
    if group.is_empty() && kind != CLAIM {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.invalid(path, &json!(kind), why);
    }
    if !group.is_empty() {
        push_all(errors, &path.child("apiGroup"), group, names::dns1123_subdomain(group));
    }
    if !namespace.is_empty() {
        push_all(errors, &path.child("namespace"), namespace, names::dns1123_label(namespace));
    }
}

/// A claim is what it was, except that it is bound once, may get the class that it did not name, and may grow.
fn validate_spec_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let null = Value::Null;
    let (mut as_if, before) = (new.get("spec").cloned().unwrap_or_default(), old.get("spec").unwrap_or(&null));
    if !is_bound(old) {
        carry(&mut as_if, before, "volumeName");
    }
    let (noted, old_noted) = (annotation(new, CLASS_ANNOTATION), annotation(old, CLASS_ANNOTATION));
    if noted != old_noted && !(noted.is_none() && old_noted == Some(text(new, "/spec/storageClassName"))) {
        let path = Path::new("metadata").child("annotations").child(CLASS_ANNOTATION);
        errors.invalid(&path, &json!(noted.unwrap_or_default()), IMMUTABLE);
    }
    let unnamed = some(old, "/spec/storageClassName").is_none();
    if unnamed && old_noted.is_none_or(|class| class == text(new, "/spec/storageClassName")) {
        carry(&mut as_if, before, "storageClassName");
    }
    if text(new, "/status/phase") == "Bound"
        && let Some(size) = at(before, "resources.requests.storage").cloned()
    {
        set_at(&mut as_if, "resources.requests.storage", size);
    }
    carry(&mut as_if, before, "volumeAttributesClassName");
    if !same(Some(&as_if), Some(before)) {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
                   claims";
        errors.forbidden(&Path::new("spec"), why);
    }
}

/// A claim that asks for less than before does not get below what it has.
fn validate_size_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let size =
        |claim: &Value, pointer| some(claim, pointer).and_then(|size| parse(size).ok()).unwrap_or(Quantity::ZERO);
    let now = size(new, "/spec/resources/requests/storage");
    if now < size(old, "/spec/resources/requests/storage") && now <= size(old, "/status/capacity/storage") {
        let path = Path::new("spec").child("resources").child("requests").child("storage");
        errors.forbidden(&path, "field can not be less than status.capacity");
    }
}

fn validate_status(claim: &Value, errors: &mut ErrorList) {
    let path = Path::new("status");
    for field in ["capacity", "allocatedResources"] {
        for (name, amount) in map(claim, &format!("/status/{field}")) {
            let path = path.child(field).key(name);
            match parse(amount) {
                Err(why) => errors.invalid(&path, amount, why),
                Ok(quantity) if quantity < Quantity::ZERO => {
                    errors.invalid(&path, &json!(quantity.to_string()), "must be a valid resource quantity");
                }
                Ok(_) => {}
            }
        }
    }
    for (name, state) in map(claim, "/status/allocatedResourceStatuses") {
        if !state.as_str().is_some_and(|state| RESIZE_STATES.contains(&state)) {
            errors.not_supported(&path.child("allocatedResourceStatus"), name, &RESIZE_STATES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Value {
        let mut claim =
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}});
        PersistentVolumeClaimStrategy.prepare_create(&mut claim);
        PersistentVolumeClaimStrategy.default(&mut claim);
        claim
    }

    fn update(old: &Value, change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut new = old.clone();
        change(&mut new);
        let mut errors = ErrorList::default();
        PersistentVolumeClaimStrategy.validate_update(&new, old, Part::Main, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_claim_asks_for_a_mode_and_a_size() {
        let mut errors = ErrorList::default();
        PersistentVolumeClaimStrategy.validate(&json!({"spec": {}}), &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value"
            ]
        );
        assert_eq!(update(&data(), |_| {}), Vec::<String>::new());
    }

    #[test]
    fn only_a_bound_claim_grows() {
        let grow = |claim: &mut Value| claim["spec"]["resources"]["requests"]["storage"] = json!("3Gi");
        assert_eq!(
            update(&data(), grow),
            [
                "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName \
              for bound claims"
            ]
        );
        let mut bound = data();
        bound["spec"]["volumeName"] = json!("v");
        bound["status"] = json!({"phase": "Bound", "capacity": {"storage": "2Gi"}});
        assert_eq!(update(&bound, grow), Vec::<String>::new());
        assert_eq!(
            update(&bound, |claim| claim["spec"]["resources"]["requests"]["storage"] = json!("1Gi")),
            ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]
        );
    }

    #[test]
    fn a_claim_is_bound_once_and_may_get_a_class_later() {
        let bind = |claim: &mut Value| claim["spec"]["volumeName"] = json!("v");
        assert_eq!(update(&data(), bind), Vec::<String>::new());
        assert_eq!(update(&data(), |claim| claim["spec"]["storageClassName"] = json!("fast")), Vec::<String>::new());
        let mut bound = data();
        bind(&mut bound);
        assert_eq!(update(&bound, |claim| claim["spec"]["volumeName"] = json!("w")).len(), 1);
    }

    #[test]
    fn both_names_of_a_source_agree() {
        let mut claim = data();
        claim["spec"]["dataSource"] = json!({"kind": CLAIM, "name": "other"});
        PersistentVolumeClaimStrategy.prepare_create(&mut claim);
        assert_eq!(claim["spec"]["dataSourceRef"], claim["spec"]["dataSource"]);
        claim["spec"]["dataSource"]["name"] = json!("third");
        let mut errors = ErrorList::default();
        PersistentVolumeClaimStrategy.validate(&claim, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["spec: Invalid value: \"spec.dataSource\": must match dataSourceRef"]
        );
    }

    #[test]
    fn a_client_that_knows_one_name_of_a_source_may_write_the_claim_again() {
        let mut old = data();
        old["spec"]["dataSource"] = json!({"kind": CLAIM, "name": "other"});
        PersistentVolumeClaimStrategy.prepare_create(&mut old);
        for dropped in ["dataSource", "dataSourceRef"] {
            let mut new = old.clone();
            new["spec"].as_object_mut().unwrap().remove(dropped);
            PersistentVolumeClaimStrategy.prepare_update(&mut new, &old, Part::Main);
            assert_eq!(new["spec"], old["spec"], "{dropped}");
        }
        let class = |claim: &mut Value| claim["metadata"]["annotations"][CLASS_ANNOTATION] = json!("fast");
        assert_eq!(
            update(&data(), class),
            [format!("metadata.annotations.{CLASS_ANNOTATION}: Invalid value: \"fast\": field is immutable")]
        );
    }
}
