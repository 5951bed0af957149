//! Disks and file systems of machines, networks and clouds, as a pod names them itself and as PersistentVolumes offer them.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use super::volumes::steps_back;
use crate::field::{ErrorList, Path};
use crate::kinds::check::one_of;
use crate::kinds::storage;
use crate::kinds::tree::{fill, int, is_true, list, map, set, some, text};
use crate::meta::{names, push_all, same};

/// Who names a source.
#[derive(Clone, Copy, Debug)]
pub(in crate::kinds::core) enum Of<'a> {
    Pod,
    /// A PersistentVolume, by its name. It refers to Secrets of any namespace.
    Volume(&'a str),
}

impl Of<'_> {
    fn is_volume(self) -> bool {
        matches!(self, Self::Volume(_))
    }
}

/// What each sort must say.
const REQUIRED: [(&str, &[&str]); 18] = [
    ("awsElasticBlockStore", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("azureFile", &["secretName", "shareName"]),
    ("cephfs", &["monitors"]),
    ("cinder", &["volumeID"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("glusterfs", &["endpoints", "path"]),
    ("hostPath", &["path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("local", &["path"]),
    ("nfs", &["server", "path"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("rbd", &["monitors", "image"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("storageos", &["volumeName"]),
    ("vsphereVolume", &["volumePath"]),
];
/// What each sort says if its author does not.
const DEFAULTS: [(&str, &str, &str); 9] = [
    ("azureDisk", "cachingMode", "ReadWrite"),
    ("azureDisk", "fsType", "ext4"),
    ("azureDisk", "kind", "Shared"),
    ("iscsi", "iscsiInterface", "default"),
    ("rbd", "pool", "rbd"),
    ("rbd", "user", "admin"),
    ("rbd", "keyring", "/etc/ceph/keyring"),
    ("scaleIO", "storageMode", "ThinProvisioned"),
    ("scaleIO", "fsType", "xfs"),
];
const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const CACHING: &[&str] = &["None", "ReadOnly", "ReadWrite"];
const AZURE_KINDS: &[&str] = &["Dedicated", "Managed", "Shared"];
const MANAGED_DISK: &str =
    "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
const BLOB_DISK: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
const REGISTRY: &str = "must be a host:port pair or multiple pairs separated by commas";
const TENANT_MAX: usize = 64;
/// Domains of drivers' options that only Kubernetes sets.
const RESERVED: [&str; 2] = [".kubernetes.io", ".k8s.io"];
/// Bytes of a volume's name and its portal, if the initiator has a name.
const ISCSI_NAME_MAX: usize = 64;

/// Where what is wrong with a source of the sort `kind` is told, in the volume at `path`: one of them is spelt as Kubernetes does.
pub(in crate::kinds::core) fn place(kind: &str, path: &Path) -> Path {
    path.child(if kind == "gcePersistentDisk" { "persistentDisk" } else { kind })
}

/// Where a source of the sort `kind` is told to be one too many: two of them are spelt as Kubernetes does.
pub(in crate::kinds::core) fn place_of_extra(kind: &str, path: &Path) -> Path {
    path.child(match kind {
        "cephfs" => "cephFS",
        "downwardAPI" => "downwarAPI",
        other => other,
    })
}

/// Fills the defaults of the source that `volume` has.
pub(in crate::kinds::core) fn default(volume: &mut Value) {
    for (kind, field, value) in DEFAULTS {
        if let Some(source) = volume.get_mut(kind).filter(|source| source.is_object()) {
            fill(source, field, value);
        }
    }
    for (kind, field, value) in [("azureDisk", "readOnly", json!(false)), ("hostPath", "type", json!(""))] {
        if let Some(source) = volume.get_mut(kind).filter(|source| source.is_object())
            && source.get(field).is_none_or(Value::is_null)
        {
            set(source, field, value);
        }
    }
}

/// Judges a source of the sort `kind`; one of another sort than these is good.
pub(in crate::kinds::core) fn validate(kind: &str, source: &Value, of: Of<'_>, path: &Path, errors: &mut ErrorList) {
    let mut complete = true;
    let required = REQUIRED.iter().find(|(sort, _)| *sort == kind).map_or(&[][..], |(_, fields)| fields);
    for field in required.iter().filter(|field| same(source.get(field), None)) {
        errors.required(&path.child(field), "");
        complete = false;
    }
    match kind {
        "hostPath" | "local" if complete => validate_path(kind, source, path, errors),
        "nfs" if !text(source, "/path").starts_with('/') => {
            errors.invalid(&path.child("path"), &json!(text(source, "/path")), "must be an absolute path");
        }
        "awsElasticBlockStore" | "gcePersistentDisk" => validate_partition(source, path, errors),
        "azureDisk" => validate_azure_disk(source, path, errors),
        "azureFile" if of.is_volume() && some(source, "/secretNamespace") == Some(&json!("")) => {
            errors.required(&path.child("secretNamespace"), "");
        }
        "cinder" => validate_secret(source, of, path, errors),
        "csi" if of.is_volume() => validate_csi(source, path, errors),
        "fc" => validate_fc(source, path, errors),
        "flexVolume" => validate_options(source, &path.child("options"), errors),
        "flocker" => validate_flocker(source, path, errors),
        "glusterfs" if of.is_volume() => validate_endpoints(source, &path.child("endpointsNamespace"), errors),
        "iscsi" => validate_iscsi(source, of, path, errors),
        "quobyte" => validate_quobyte(source, path, errors),
        "storageos" => {
            for field in ["volumeName", "volumeNamespace"] {
                let name = text(source, &format!("/{field}"));
                if !name.is_empty() {
                    push_all(errors, &path.child(field), name, names::dns1123_label(name));
                }
            }
            validate_secret(source, of, path, errors);
        }
        _ => {}
    }
}

fn validate_path(kind: &str, source: &Value, path: &Path, errors: &mut ErrorList) {
    let host = text(source, "/path");
    if steps_back(host) {
        errors.invalid(&path.child("path"), &json!(host), "must not contain '..'");
    }
    if kind == "hostPath" {
        one_of(source, "type", path, HOST_PATH_TYPES, errors);
    }
}

fn validate_partition(source: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(partition) = int(source, "/partition").filter(|partition| !(0..=255).contains(partition)) {
        errors.invalid(&path.child("partition"), &json!(partition), "must be between 1 and 255, inclusive");
    }
}

fn validate_azure_disk(source: &Value, path: &Path, errors: &mut ErrorList) {
    one_of(source, "cachingMode", path, CACHING, errors);
    one_of(source, "kind", path, AZURE_KINDS, errors);
    let uri = text(source, "/diskURI");
    let (start, form) = match some(source, "/kind").and_then(Value::as_str) {
        None => return,
        Some("Managed") => ("/subscriptions/", MANAGED_DISK),
        Some(_) => ("https://", BLOB_DISK),
    };
    if !uri.starts_with(start) {
        errors.not_supported(&path.child("diskURI"), uri, &[form]);
    }
}

/// The Secret that a source may name: a PersistentVolume says of which namespace.
fn validate_secret(source: &Value, of: Of<'_>, path: &Path, errors: &mut ErrorList) {
    let Some(secret) = some(source, "/secretRef") else { return };
    let fields: &[&str] = if of.is_volume() { &["name", "namespace"] } else { &["name"] };
    for field in fields.iter().filter(|field| text(secret, &format!("/{field}")).is_empty()) {
        errors.required(&path.child("secretRef").child(field), "");
    }
}

/// A volume of a driver, as a PersistentVolume names it.
fn validate_csi(source: &Value, path: &Path, errors: &mut ErrorList) {
    storage::names::driver(text(source, "/driver"), &path.child("driver"), errors);
    if text(source, "/volumeHandle").is_empty() {
        errors.required(&path.child("volumeHandle"), "");
    }
    for field in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        let Some(secret) = some(source, &format!("/{field}")) else { continue };
        let path = path.child(field);
        for field in ["name", "namespace"] {
            let (name, path) = (text(secret, &format!("/{field}")), path.child(field));
            match field {
                _ if name.is_empty() => errors.required(&path, ""),
                "name" => push_all(errors, &path, name, names::dns1123_subdomain(name)),
                _ => push_all(errors, &path, name, names::dns1123_label(name)),
            }
        }
    }
}

fn validate_fc(source: &Value, path: &Path, errors: &mut ErrorList) {
    let (names, ids) = (list(source, "/targetWWNs"), list(source, "/wwids"));
    let names_path = path.child("targetWWNs");
    match (names.is_empty(), ids.is_empty()) {
        (true, true) => errors.required(&names_path, "must specify either targetWWNs or wwids, but not both"),
        (false, false) => {
            errors.invalid(&names_path, &json!(names), "targetWWNs and wwids can not be specified simultaneously");
        }
        _ => {}
    }
    if names.is_empty() {
        return;
    }
    match int(source, "/lun") {
        None => errors.required(&path.child("lun"), "lun is required if targetWWNs is specified"),
        Some(lun) => validate_lun(lun, path, errors),
    }
}

fn validate_lun(lun: i64, path: &Path, errors: &mut ErrorList) {
    if !(0..=255).contains(&lun) {
        errors.invalid(&path.child("lun"), &json!(lun), "must be between 0 and 255, inclusive");
    }
}

fn validate_options(source: &Value, path: &Path, errors: &mut ErrorList) {
    for (key, _) in map(source, "/options") {
        let domain = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if RESERVED.iter().any(|reserved| domain.ends_with(reserved)) {
            errors.invalid(&path.key(key), &json!(key), "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

fn validate_flocker(source: &Value, path: &Path, errors: &mut ErrorList) {
    let (name, uuid) = (text(source, "/datasetName"), text(source, "/datasetUUID"));
    match (name.is_empty(), uuid.is_empty()) {
        (true, true) => errors.required(path, "one of datasetName and datasetUUID is required"),
        (false, false) => {
            let why = "datasetName and datasetUUID can not be specified simultaneously";
            errors.invalid(path, &json!("resource"), why);
        }
        _ => {}
    }
    if name.contains('/') {
        errors.invalid(&path.child("datasetName"), &json!(name), "must not contain '/'");
    }
}

fn validate_endpoints(source: &Value, path: &Path, errors: &mut ErrorList) {
    match some(source, "/endpointsNamespace").and_then(Value::as_str) {
        None => {}
        Some("") => {
            errors.invalid(path, &json!(""), "if the endpointnamespace is set, it must be a valid namespace name");
        }
        Some(namespace) => push_all(errors, path, namespace, names::dns1123_label(namespace)),
    }
}

fn validate_quobyte(source: &Value, path: &Path, errors: &mut ErrorList) {
    let registry = text(source, "/registry");
    if registry.is_empty() {
        errors.required(&path.child("registry"), REGISTRY);
    } else if text(source, "/tenant").len() > TENANT_MAX {
        errors.required(&path.child("tenant"), "must be a UUID and may not exceed a length of 64 characters");
    } else {
        for _ in registry.split(',').filter(|pair| !is_host_and_port(pair)) {
            errors.invalid(&path.child("registry"), &json!(registry), REGISTRY);
        }
    }
    if text(source, "/volume").is_empty() {
        errors.required(&path.child("volume"), "");
    }
}

/// `host:port`, an IPv6 host in brackets.
fn is_host_and_port(pair: &str) -> bool {
    let Some((host, port)) = pair.rsplit_once(':') else { return false };
    let bare = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']'),
        None => Some(host).filter(|host| !host.contains(':')),
    };
    !port.contains(['[', ']']) && bare.is_some_and(|host| !host.contains(['[', ']']))
}

fn validate_iscsi(source: &Value, of: Of<'_>, path: &Path, errors: &mut ErrorList) {
    let initiator = some(source, "/initiatorName").and_then(Value::as_str);
    if let (Of::Volume(name), Some(_)) = (of, initiator) {
        let portal = text(source, "/targetPortal");
        validate_iscsi_length(name, portal, portal, &path.child("targetportal"), errors);
    }
    let name = Some(text(source, "/iqn")).filter(|name| !name.is_empty());
    validate_iscsi_name(name, of, &path.child("iqn"), errors);
    validate_lun(int(source, "/lun").unwrap_or_default(), path, errors);
    let asks = ["/chapAuthDiscovery", "/chapAuthSession"].iter().any(|field| is_true(source, field));
    let secret = some(source, "/secretRef");
    if asks && secret.is_none() {
        errors.required(&path.child("secretRef"), "");
    }
    if of.is_volume() && secret.is_some_and(|secret| text(secret, "/name").is_empty()) {
        errors.required(&path.child("secretRef").child("name"), "");
    }
    validate_iscsi_name(initiator, of, &path.child("initiatorname"), errors);
}

/// A volume and its portal together name something on the node, if the initiator has a name. `value`: the one of them that is
/// blamed, at `path`.
pub(super) fn validate_iscsi_length(volume: &str, portal: &str, value: &str, path: &Path, errors: &mut ErrorList) {
    if volume.len() + 1 + portal.len() > ISCSI_NAME_MAX {
        let why = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is \
                   specified.";
        errors.invalid(path, &json!(value), why);
    }
}

static IQN: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"iqn\.[0-9]{4}-[0-9]{2}\.([[:alnum:]\-.]+)(:[^,;*&$|\s]+)$").ok());

fn validate_iscsi_name(name: Option<&str>, of: Of<'_>, path: &Path, errors: &mut ErrorList) {
    let Some(name) = name else { return };
    let digits = |count: usize| {
        let rest = name.get(4..).unwrap_or_default();
        rest.len() == count && rest.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let good = match name.get(..3) {
        Some("iqn") => IQN.as_ref().is_some_and(|iqn| iqn.is_match(name)),
        Some("eui") => digits(16),
        Some("naa") => digits(32),
        _ if of.is_volume() => false,
        _ => return errors.invalid(path, &json!(name), "must be valid format starting with iqn, eui, or naa"),
    };
    if !good {
        errors.invalid(path, &json!(name), "must be valid format");
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_volumes_refused;
    use super::*;

    #[test]
    fn a_disk_is_named_completely() {
        assert_volumes_refused(&[
            (json!({"nfs": {"server": "a", "path": "b"}}), "nfs.path: Invalid value: \"b\": must be an absolute path"),
            (json!({"hostPath": {"path": ""}}), "hostPath.path: Required value"),
            (
                json!({"hostPath": {"path": "/a", "type": "Socks"}}),
                "hostPath.type: Unsupported value: \"Socks\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \
                 \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
            ),
            (json!({"rbd": {"image": "a", "monitors": []}}), "rbd.monitors: Required value"),
            (
                json!({"fc": {"targetWWNs": ["a"]}}),
                "fc.lun: Required value: lun is required if targetWWNs is specified",
            ),
            (
                json!({"gcePersistentDisk": {"pdName": "a", "partition": 256}}),
                "persistentDisk.partition: Invalid value: 256: must be between 1 and 255, inclusive",
            ),
            (
                json!({"azureDisk": {"diskName": "a", "diskURI": "/b", "kind": "Managed"}}),
                "azureDisk.diskURI: Unsupported value: \"/b\": supported values: \
                 \"/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}\"",
            ),
            (
                json!({"azureDisk": {"diskName": "a", "diskURI": "https://b", "cachingMode": "X"}}),
                "azureDisk.cachingMode: Unsupported value: \"X\": supported values: \"None\", \"ReadOnly\", \"ReadWrite\"",
            ),
            (
                json!({"flexVolume": {"driver": "a", "options": {"a.K8s.io/b": "c"}}}),
                "flexVolume.options[a.K8s.io/b]: Invalid value: \"a.K8s.io/b\": kubernetes.io and k8s.io namespaces are \
                 reserved",
            ),
            (json!({"flocker": {}}), "flocker: Required value: one of datasetName and datasetUUID is required"),
            (
                json!({"quobyte": {"registry": "a:1,b", "volume": "c"}}),
                "quobyte.registry: Invalid value: \"a:1,b\": must be a host:port pair or multiple pairs separated by commas",
            ),
            (json!({"cinder": {"volumeID": "a", "secretRef": {}}}), "cinder.secretRef.name: Required value"),
        ]);
    }

    #[test]
    fn a_portal_has_a_name_that_others_understand() {
        assert_volumes_refused(&[
            (
                json!({"iscsi": {"targetPortal": "a", "iqn": "x", "lun": 0}}),
                "iscsi.iqn: Invalid value: \"x\": must be valid format starting with iqn, eui, or naa",
            ),
            (
                json!({"iscsi": {"targetPortal": "a", "iqn": "iqn.x", "lun": 0}}),
                "iscsi.iqn: Invalid value: \"iqn.x\": must be valid format",
            ),
            (
                json!({"iscsi": {"targetPortal": "a", "iqn": "iqn.2015-02.example.com:test", "lun": 256}}),
                "iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive",
            ),
            (
                json!({"iscsi": {"targetPortal": "a", "iqn": "eui.0123456789abcdef", "lun": 0, "chapAuthSession": true}}),
                "iscsi.secretRef: Required value",
            ),
            (
                json!({"iscsi": {"targetPortal": "a".repeat(63), "iqn": "eui.0123456789abcdef", "lun": 0,
                    "initiatorName": "eui.0123456789abcdef"}}),
                "name: Invalid value: \"v\": Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters \
                 if iscsi.initiatorName is specified.",
            ),
        ]);
    }

    #[test]
    fn what_a_disk_does_not_say_is_said_once() {
        let mut volume = json!({"azureDisk": {"diskName": "a", "diskURI": "https://b"}, "iscsi": {}, "rbd": {"user": "u"},
            "scaleIO": {}, "hostPath": {}});
        default(&mut volume);
        let wanted = json!({
            "azureDisk": {"diskName": "a", "diskURI": "https://b", "cachingMode": "ReadWrite", "fsType": "ext4",
                "kind": "Shared", "readOnly": false},
            "iscsi": {"iscsiInterface": "default"},
            "rbd": {"user": "u", "pool": "rbd", "keyring": "/etc/ceph/keyring"},
            "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
            "hostPath": {"type": ""},
        });
        assert_eq!(volume, wanted);
        default(&mut volume);
        assert_eq!(volume, wanted);
    }

    #[test]
    fn a_host_and_its_port_are_told_apart() {
        for (pair, good) in
            [("a:1", true), ("a", false), ("a:1:2", false), ("[::1]:2", true), ("::1:2", false), ("[a:1", false)]
        {
            assert_eq!(is_host_and_port(pair), good, "{pair}");
        }
    }
}
