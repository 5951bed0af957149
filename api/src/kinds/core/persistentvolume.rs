//! PersistentVolume: storage that outlives pods.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolume;
use serde_json::{Map, Value, json};

use super::podspec::disks::{self, Of};
use super::podspec::{resources, scheduling};
use super::storage;
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column, wide};
use crate::kinds::deprecated;
use crate::kinds::tree::{fill, list, list_mut, map, object, remove, set, some, split_status, text};
use crate::meta::{immutable, same};
use crate::object::{format_time, name};
use crate::quantity::Quantity;
use crate::resource::{Column, Descriptor, Idle};
use crate::strategy::{Part, Strategy};

/// Sorts of volumes in the order in which they are judged.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];
/// Labels of nodes as they were called, and are.
const RENAMED: [(&str, &str); 5] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
];
const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];

pub fn descriptor() -> Descriptor {
    Descriptor::of::<PersistentVolume>()
        .idle(Idle::Yet)
        .short(&["pv"])
        .status()
        .columns(columns())
        .no_generation()
        .strategy(PersistentVolumeStrategy)
}

fn columns() -> Vec<Column> {
    vec![
        cells::name(),
        column("Capacity", "string", "The storage that the volume has.", |o, _| {
            json!(text(o, "/spec/capacity/storage"))
        }),
        column("Access Modes", "string", "All ways in which the volume can be mounted.", |o, _| {
            json!(storage::access_modes(o, "/spec/accessModes"))
        }),
        column("Reclaim Policy", "string", "What happens to the volume when its claim is gone.", |o, _| {
            json!(text(o, "/spec/persistentVolumeReclaimPolicy"))
        }),
        column("Status", "string", "Whether the volume is available, bound to a claim, or released by one.", |o, _| {
            storage::phase(o)
        }),
        column("Claim", "string", "The claim that the volume is bound to.", |o, _| json!(claim(o))),
        column("StorageClass", "string", "The class that the volume belongs to.", |o, _| json!(storage::class(o))),
        column("VolumeAttributesClass", "string", "The class of the volume's attributes.", |o, _| {
            storage::or_unset(o, "/spec/volumeAttributesClassName")
        }),
        column("Reason", "string", "Why the volume is in its phase.", |o, _| json!(text(o, "/status/reason"))),
        cells::age(),
        wide("VolumeMode", "Whether the volume is a file system or a block device.", |o, _| {
            storage::or_unset(o, "/spec/volumeMode")
        }),
    ]
}

fn claim(volume: &Value) -> String {
    match some(volume, "/spec/claimRef") {
        Some(claim) => format!("{}/{}", text(claim, "/namespace"), text(claim, "/name")),
        None => String::new(),
    }
}

#[derive(Debug)]
struct PersistentVolumeStrategy;

impl Strategy for PersistentVolumeStrategy {
    fn warnings(&self, object: &Value) -> Vec<String> {
        deprecated::of_volume(object)
    }

    fn prepare_create(&self, volume: &mut Value) {
        let now = format_time(Timestamp::now());
        set(volume, "status", json!({"phase": "Pending", "lastPhaseTransitionTime": now}));
    }

    fn default(&self, volume: &mut Value) {
        if let Some(status) = object(volume, "status") {
            fill(status, "phase", "Pending");
        }
        if let Some(spec) = object(volume, "spec") {
            fill(spec, "persistentVolumeReclaimPolicy", "Retain");
            fill(spec, "volumeMode", "Filesystem");
            disks::default(spec);
        }
    }

    fn validate(&self, volume: &Value, errors: &mut ErrorList) {
        let path = Path::new("spec");
        let spec = volume.get("spec").unwrap_or(&Value::Null);
        storage::validate_access_modes(spec, "", &path, errors);
        validate_capacity(spec, &path.child("capacity"), errors);
        let policy = text(spec, "/persistentVolumeReclaimPolicy");
        if !policy.is_empty() && !RECLAIM_POLICIES.contains(&policy) {
            errors.not_supported(&path.child("persistentVolumeReclaimPolicy"), policy, &RECLAIM_POLICIES);
        }
        validate_affinity(spec, &path.child("nodeAffinity"), errors);
        validate_source(spec, name(volume), &path, errors);
        storage::validate_classes(spec, &path, errors);
        if some(spec, "/volumeAttributesClassName").is_some() {
            if text(spec, "/volumeAttributesClassName").is_empty() {
                errors.required(&path.child("volumeAttributesClassName"), "an empty string is disallowed");
            }
            if some(spec, "/csi").is_none() {
                errors.required(&path.child("csi"), "has to be specified when using volumeAttributesClassName");
            }
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
        let changed = text(new, "/status/phase") != text(old, "/status/phase");
        let time = "/status/lastPhaseTransitionTime";
        if part == Part::Status
            && changed
            && text(new, time) == text(old, time)
            && let Some(status) = object(new, "status")
        {
            set(status, "lastPhaseTransitionTime", format_time(Timestamp::now()));
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Status {
            return;
        }
        errors.judge_change(new, old, |volume, errors| self.validate(volume, errors));
        let null = Value::Null;
        let (spec, old_spec) = (new.get("spec").unwrap_or(&null), old.get("spec").unwrap_or(&null));
        if !same(Some(&source(spec, old_spec)), Some(&source(old_spec, old_spec))) {
            let why = "spec.persistentvolumesource is immutable after creation";
            errors.forbidden(&Path::new("spec").child("persistentvolumesource"), why);
        }
        immutable(spec.get("volumeMode"), old_spec.get("volumeMode"), &Path::new("volumeMode"), errors);
        if let Some(before) = some(old_spec, "/nodeAffinity") {
            let now = spec.get("nodeAffinity").unwrap_or(&null);
            immutable(Some(now), Some(&renamed(before, now)), &Path::new("nodeAffinity"), errors);
        }
        if some(old_spec, "/volumeAttributesClassName").is_some() && some(spec, "/volumeAttributesClassName").is_none()
        {
            let path = Path::new("spec").child("volumeAttributesClassName");
            errors.forbidden(&path, "update from non-nil value to nil is forbidden");
        }
    }
}

/// The affinity before, with the names that `now` gives to labels that were renamed.
fn renamed(before: &Value, now: &Value) -> Value {
    let mut before = before.clone();
    let terms = before.pointer_mut("/required/nodeSelectorTerms").and_then(Value::as_array_mut);
    for (term, given) in terms.into_iter().flatten().zip(list(now, "/required/nodeSelectorTerms")) {
        for (expression, given) in list_mut(term, "matchExpressions").zip(list(given, "/matchExpressions")) {
            let name = text(given, "/key");
            if RENAMED.iter().any(|(old, new)| text(expression, "/key") == *old && name == *new) {
                set(expression, "key", name);
            }
        }
    }
    before
}

/// The source of a volume; a secret for expansion that `old` has not named yet may be added.
fn source(spec: &Value, old: &Value) -> Value {
    let mut source: Map<String, Value> = map(spec, "")
        .filter(|(key, value)| SOURCES.contains(&key.as_str()) && !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if some(old, "/csi").is_some()
        && some(old, "/csi/controllerExpandSecretRef").is_none()
        && let Some(csi) = source.get_mut("csi")
    {
        remove(csi, "controllerExpandSecretRef");
    }
    Value::Object(source)
}

fn validate_capacity(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let capacity = spec.get("capacity").unwrap_or(&Value::Null);
    match map(capacity, "").count() {
        0 => errors.required(path, ""),
        1 if some(capacity, "/storage").is_some() => {}
        _ => errors.not_supported(path, &capacity.to_string(), &["storage"]),
    }
    for (name, amount) in map(capacity, "") {
        match resources::parse(amount) {
            Err(why) => errors.invalid(&path.key(name), amount, why),
            Ok(quantity) if quantity <= Quantity::ZERO => {
                errors.invalid(&path.key(name), &json!(quantity.to_string()), "must be greater than zero");
            }
            Ok(_) => {}
        }
    }
}

fn validate_affinity(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(affinity) = some(spec, "/nodeAffinity") else { return };
    match some(affinity, "/required") {
        None => errors.required(&path.child("required"), "must specify required node constraints"),
        Some(required) => scheduling::validate_node_selector(required, &path.child("required"), errors),
    }
}

fn validate_source(spec: &Value, name: &str, path: &Path, errors: &mut ErrorList) {
    let source = |kind| Some((kind, spec.get(kind).filter(|source| !source.is_null())?));
    let mut given = SOURCES.into_iter().filter_map(source);
    let Some((kind, source)) = given.next() else {
        return errors.required(path, "must specify a volume type");
    };
    disks::validate(kind, source, Of::Volume(name), &disks::place(kind, path), errors);
    for (extra, _) in given {
        errors.forbidden(&disks::place_of_extra(extra, path), "may not specify more than 1 volume type");
    }
    if kind == "local" && some(spec, "/nodeAffinity").is_none() {
        errors.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
    }
    let host = text(source, "/path");
    let root = !host.is_empty() && host.chars().all(|c| c == '/');
    if kind == "hostPath" && root && text(spec, "/persistentVolumeReclaimPolicy") == "Recycle" {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        errors.forbidden(&path.child("persistentVolumeReclaimPolicy"), why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Value {
        let mut volume = json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "csi": {"driver": "d", "volumeHandle": "v"}}});
        PersistentVolumeStrategy.default(&mut volume);
        volume
    }

    fn complaints(volume: &Value) -> Vec<String> {
        let mut errors = ErrorList::default();
        PersistentVolumeStrategy.validate(volume, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_volume_is_kept_and_is_a_file_system_by_default() {
        let volume = disk();
        assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Retain");
        assert_eq!(volume["spec"]["volumeMode"], "Filesystem");
        assert_eq!(complaints(&volume), Vec::<String>::new());
    }

    #[test]
    fn a_volume_has_one_source_and_a_size() {
        let mut volume = disk();
        volume["spec"]["nfs"] = json!({"server": "s", "path": "/p"});
        volume["spec"]["capacity"] = json!({"storage": "0"});
        volume["spec"]["accessModes"] = json!(["ReadWriteOncePod", "ReadWriteOnce"]);
        assert_eq!(
            complaints(&volume),
            [
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
                "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
                "spec.csi: Forbidden: may not specify more than 1 volume type"
            ]
        );
    }

    #[test]
    fn the_source_never_changes() {
        let old = disk();
        let mut new = old.clone();
        new["spec"]["csi"]["controllerExpandSecretRef"] = json!({"name": "s", "namespace": "n"});
        let mut errors = ErrorList::default();
        PersistentVolumeStrategy.validate_update(&new, &old, Part::Main, &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        new["spec"]["csi"]["volumeHandle"] = json!("other");
        PersistentVolumeStrategy.validate_update(&new, &old, Part::Main, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"]
        );
    }
    #[test]
    fn a_volume_names_its_disk_completely() {
        let with = |source: Value| {
            let mut volume = json!({"metadata": {"name": "pv"}, "spec": {"accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": "1Gi"}}});
            source.as_object().into_iter().flatten().for_each(|(key, value)| volume["spec"][key] = value.clone());
            PersistentVolumeStrategy.default(&mut volume);
            volume
        };
        let iscsi = |initiator: &str| {
            json!({"iscsi": {"targetPortal": "a".repeat(62), "iqn": "iqn.2015-02.example.com:test", "lun": 0,
                "initiatorName": initiator}})
        };
        for (source, why) in [
            (json!({"flexVolume": {}}), "flexVolume.driver: Required value"),
            (json!({"fc": {}}), "fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not both"),
            (json!({"cephfs": {}}), "cephfs.monitors: Required value"),
            (
                json!({"cinder": {"volumeID": "a", "secretRef": {"name": "b"}}}),
                "cinder.secretRef.namespace: Required value",
            ),
            (
                json!({"csi": {"driver": "d", "volumeHandle": "v", "nodeExpandSecretRef": {"name": "s"}}}),
                "csi.nodeExpandSecretRef.namespace: Required value",
            ),
            (
                json!({"glusterfs": {"endpoints": "a", "path": "b", "endpointsNamespace": ""}}),
                "glusterfs.endpointsNamespace: Invalid value: \"\": if the endpointnamespace is set, it must be a valid \
                 namespace name",
            ),
            (
                json!({"azureFile": {"secretName": "a", "shareName": "b", "secretNamespace": ""}}),
                "azureFile.secretNamespace: Required value",
            ),
        ] {
            assert_eq!(complaints(&with(source)), [format!("spec.{why}")]);
        }
        let long = complaints(&with(iscsi("iqn.2015-02.example.com:test")));
        assert!(long.len() == 1 && long[0].starts_with("spec.iscsi.targetportal: Invalid value: \"aaa"), "{long:?}");
        let rbd = with(json!({"rbd": {"image": "a", "monitors": ["m"]}}));
        assert_eq!(rbd["spec"]["rbd"]["keyring"], "/etc/ceph/keyring");
        assert_eq!(complaints(&rbd), Vec::<String>::new());
    }

    #[test]
    fn an_affinity_changes_only_the_names_of_renamed_labels() {
        let on = |key: &str, value: &str| {
            let mut volume = disk();
            let term = json!({"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]});
            volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [term]}});
            volume
        };
        let old = on("failure-domain.beta.kubernetes.io/zone", "a");
        for (new, count) in [
            (old.clone(), 0),
            (on("topology.kubernetes.io/zone", "a"), 0),
            (on("topology.kubernetes.io/zone", "b"), 1),
            (on("topology.kubernetes.io/region", "a"), 1),
            (disk(), 1),
        ] {
            let mut errors = ErrorList::default();
            PersistentVolumeStrategy.validate_update(&new, &old, Part::Main, &mut errors);
            assert_eq!(errors.iter().count(), count, "{new}");
            assert!(errors.iter().all(|error| error.path.to_string() == "nodeAffinity"), "{errors:?}");
        }
        let mut errors = ErrorList::default();
        PersistentVolumeStrategy.validate_update(&old, &disk(), Part::Main, &mut errors);
        assert!(errors.is_empty(), "one that was missing may be added: {errors:?}");
    }
}
