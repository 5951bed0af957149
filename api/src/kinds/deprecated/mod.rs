//! What Kubernetes warns of because it is on its way out: labels of nodes, annotations, kinds of volumes, classes named by
//! annotation. Texts and paths are Kubernetes'.

mod kinds;

use serde_json::Value;

pub(crate) use self::kinds::{
    of_node, of_runtime_class, of_service, of_service_account, of_storage_capacity, of_storage_class, of_volume,
    of_volume_claim,
};
use super::tree::{list, map, some, text};
use crate::field::Path;
use crate::meta::names;

/// Labels of nodes that have other names now.
const NODE_LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

/// Annotations of pods that have become fields.
const POD_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR_CONTAINER: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const APPARMOR: &str = "deprecated since v1.30; use the \"appArmorProfile\" field instead";

/// Sources of volumes, of pods and of PersistentVolumes.
const VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// The annotation that named a class of storage before there was a field.
const STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// What is said of a node's label, if it is deprecated.
pub(crate) fn node_label(key: &str) -> Option<&'static str> {
    NODE_LABELS.iter().find(|(label, _)| *label == key).map(|(_, text)| *text)
}

/// Of a map of labels that nodes must have; `path` is the map's.
pub(crate) fn node_labels(labels: &Value, path: &Path, all: &mut Vec<String>) {
    let found = map(labels, "").filter_map(|(key, _)| Some((key, node_label(key)?)));
    all.extend(found.map(|(key, said)| format!("{}: {said}", path.key(key))));
}

/// Of a term that chooses nodes; `values`: also of values that no label can have.
pub(crate) fn node_term(term: &Value, path: &Path, values: bool, all: &mut Vec<String>) {
    for (index, expression) in list(term, "/matchExpressions").iter().enumerate() {
        let (path, key) = (path.child("matchExpressions").index(index), text(expression, "/key"));
        if let Some(said) = node_label(key) {
            all.push(format!("{}: {key} is {said}", path.child("key")));
        }
        for (index, value) in list(expression, "/values").iter().enumerate().filter(|_| values) {
            let value = value.as_str().unwrap_or_default();
            let complaints = names::label_value(value);
            let place = || path.child("values").index(index);
            all.extend(complaints.iter().map(|why| format!("{}: {value} is invalid, {why}", place())));
        }
    }
}

/// Of annotations of a pod (or a template at `path`) whose fields are not set.
pub(crate) fn pod_annotations(pod: &Value, path: &Path, is_template: bool, all: &mut Vec<String>) {
    let annotations = pod.pointer("/metadata/annotations").and_then(Value::as_object);
    let Some(annotations) = annotations.filter(|annotations| !annotations.is_empty()) else { return };
    let place = path.child("metadata").child("annotations");
    let mut warn = |key: &str, said: &str| {
        if annotations.contains_key(key) {
            all.push(format!("{}: {said}", place.key(key)));
        }
    };
    for (key, said) in POD_ANNOTATIONS {
        warn(key, said);
    }
    if some(pod, "/spec/securityContext/seccompProfile").is_none() {
        warn(SECCOMP_POD, SECCOMP);
    }
    let confined = some(pod, "/spec/securityContext/appArmorProfile").is_some();
    for container in ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .flat_map(|field| list(pod, &format!("/spec/{field}")))
    {
        let name = text(container, "/name");
        if some(container, "/securityContext/seccompProfile").is_none() {
            warn(&format!("{SECCOMP_CONTAINER}{name}"), SECCOMP);
        }
        let confined = confined || some(container, "/securityContext/appArmorProfile").is_some();
        if is_template && !confined {
            warn(&format!("{APPARMOR_CONTAINER}{name}"), APPARMOR);
        }
    }
}

/// Of a volume's source; `path` is the volume's, or that of a PersistentVolume's spec.
pub(crate) fn volume(volume: &Value, path: &Path, all: &mut Vec<String>) {
    let found = VOLUMES.iter().filter(|(source, _)| volume.get(source).is_some_and(|source| !source.is_null()));
    // Kubernetes writes this one as its Go field.
    let shown = |source: &'static str| if source == "storageos" { "storageOS" } else { source };
    all.extend(found.map(|(source, said)| format!("{}: {said}", path.child(shown(source)))));
}

/// Of a storage class that an annotation names.
pub(crate) fn storage_annotation(object: &Value, all: &mut Vec<String>) {
    if object.pointer("/metadata/annotations").is_some_and(|annotations| annotations.get(STORAGE_CLASS).is_some()) {
        let place = Path::new("metadata").child("annotations").key(STORAGE_CLASS);
        all.push(format!("{place}: deprecated since v1.8; use \"storageClassName\" attribute instead"));
    }
}

/// Of an amount of bytes that is no whole number of them; quantities are canonical, so it ends in `m`.
pub(crate) fn fractional(amounts: &Value, name: &str, path: &Path, all: &mut Vec<String>) {
    if let Some(amount) = amounts.get(name).and_then(Value::as_str).filter(|amount| amount.ends_with('m')) {
        all.push(format!("{}: fractional byte value {amount:?} is invalid, must be an integer", path.key(name)));
    }
}
