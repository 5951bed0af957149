//! What fills a volume, a rule or more for each sort.

use std::collections::HashSet;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use super::volumes::{steps_back, validate_local, validate_unreserved};
use super::{env, resources};
use crate::field::{ErrorList, Path};
use crate::kinds::apps::template::validate_selector;
use crate::kinds::check::required_one_of;
use crate::kinds::core::persistentvolumeclaim;
use crate::kinds::tree::{int, is_true, list, map, some, text};
use crate::meta::{self, names, push_all};
use crate::quantity::Quantity;

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
/// What each sort must say.
const REQUIRED: [(&str, &[&str]); 20] = [
    ("awsElasticBlockStore", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("azureFile", &["secretName", "shareName"]),
    ("cephfs", &["monitors"]),
    ("cinder", &["volumeID"]),
    ("configMap", &["name"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("gitRepo", &["repository"]),
    ("glusterfs", &["endpoints", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("nfs", &["server", "path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("rbd", &["monitors", "image"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("secret", &["secretName"]),
    ("storageos", &["volumeName"]),
    ("vsphereVolume", &["volumePath"]),
];
/// Fields of the pod that a file may hold, besides single labels and annotations.
const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const CSI_NAME_MAX: usize = 63;
/// Seconds for which a token is good.
const TOKEN_SECONDS: std::ops::RangeInclusive<i64> = 600..=1 << 32;
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];

/// Judges the source of the sort `kind`.
pub(super) fn validate(kind: &str, source: &Value, path: &Path, errors: &mut ErrorList) {
    let fields = REQUIRED.iter().find(|(of, _)| *of == kind).map(|(_, fields)| *fields);
    for field in fields.unwrap_or_default() {
        if meta::same(source.get(field), None) {
            errors.required(&path.child(field), "");
        }
    }
    match kind {
        "emptyDir" => {
            let size = some(source, "/sizeLimit").and_then(|size| resources::parse(size).ok());
            if size.is_some_and(|size| size < Quantity::ZERO) {
                errors.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
            }
        }
        "hostPath" => validate_host_path(source, path, errors),
        "secret" | "configMap" => validate_files(source, path, errors),
        "downwardAPI" => {
            validate_mode(source, "defaultMode", path, errors);
            for file in list(source, "/items") {
                validate_downward(file, path, errors);
            }
        }
        "projected" => validate_projected(source, path, errors),
        "nfs" if !text(source, "/path").starts_with('/') => {
            errors.invalid(&path.child("path"), &json!(text(source, "/path")), "must be an absolute path");
        }
        "gitRepo" => validate_local(text(source, "/directory"), &path.child("directory"), errors),
        "iscsi" => validate_iscsi(source, path, errors),
        "csi" => validate_csi(source, path, errors),
        "image" => required_one_of(source, "pullPolicy", path, PULL_POLICIES, errors),
        "ephemeral" => validate_ephemeral(source, path, errors),
        "fc" => validate_fc(source, path, errors),
        _ => {}
    }
}

fn validate_host_path(source: &Value, path: &Path, errors: &mut ErrorList) {
    let host = text(source, "/path");
    if host.is_empty() {
        return errors.required(&path.child("path"), "");
    }
    if steps_back(host) {
        errors.invalid(&path.child("path"), &json!(host), "must not contain '..'");
    }
    let kind = text(source, "/type");
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, HOST_PATH_TYPES);
    }
}

fn validate_mode(source: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    if let Some(mode) = int(source, &format!("/{field}")).filter(|m| !(0..=0o777).contains(m)) {
        let why = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.invalid(&path.child(field), &json!(mode), why);
    }
}

/// Modes and keys of a volume made of files.
fn validate_files(source: &Value, path: &Path, errors: &mut ErrorList) {
    validate_mode(source, "defaultMode", path, errors);
    for (index, item) in list(source, "/items").iter().enumerate() {
        let path = path.child("items").index(index);
        if text(item, "/key").is_empty() {
            errors.required(&path.child("key"), "");
        }
        validate_file_path(item, &path, errors);
        validate_mode(item, "mode", &path, errors);
    }
}

fn validate_file_path(item: &Value, path: &Path, errors: &mut ErrorList) {
    let (file, path) = (text(item, "/path"), path.child("path"));
    if file.is_empty() {
        errors.required(&path, "");
    } else {
        validate_unreserved(file, &path, errors);
    }
}

/// A file about the pod itself. What is wrong with it is said of the whole volume.
fn validate_downward(file: &Value, path: &Path, errors: &mut ErrorList) {
    validate_file_path(file, path, errors);
    match (some(file, "/fieldRef"), some(file, "/resourceFieldRef")) {
        (Some(field), resource) => {
            env::validate_field(field, FILE_FIELDS, &path.child("fieldRef"), errors);
            if resource.is_some() {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(path, &json!("resource"), why);
            }
        }
        (None, Some(resource)) => {
            let path = path.child("resourceFieldRef");
            if text(resource, "/containerName").is_empty() {
                errors.required(&path.child("containerName"), "");
            } else {
                env::validate_resource(resource, &path, errors);
            }
        }
        (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    validate_mode(file, "mode", path, errors);
}

fn validate_projected(source: &Value, path: &Path, errors: &mut ErrorList) {
    validate_mode(source, "defaultMode", path, errors);
    let mut taken = HashSet::new();
    let mut claim = |file: &str, shown: &str, errors: &mut ErrorList| {
        if !file.is_empty() && !taken.insert(file.to_owned()) {
            errors.invalid(path, &json!(shown), "conflicting duplicate paths");
        }
    };
    for (index, part) in list(source, "/sources").iter().enumerate() {
        let path = path.child("sources").index(index);
        let given: Vec<_> = map(part, "").filter(|(_, value)| !value.is_null()).collect();
        for (kind, part) in &given {
            let path = path.child(kind);
            match kind.as_str() {
                "secret" | "configMap" => {
                    if text(part, "/name").is_empty() {
                        errors.required(&path.child("name"), "");
                    }
                    validate_files(part, &path, errors);
                    for item in list(part, "/items") {
                        claim(text(item, "/path"), text(part, "/name"), errors);
                    }
                }
                "downwardAPI" => {
                    for item in list(part, "/items") {
                        validate_downward(item, &path, errors);
                        claim(text(item, "/path"), text(item, "/path"), errors);
                    }
                }
                "serviceAccountToken" => validate_token(part, &path, errors),
                "clusterTrustBundle" => {
                    validate_bundle(part, &path, errors);
                    claim(text(part, "/path"), text(part, "/path"), errors);
                }
                _ => {}
            }
        }
        match given.len() {
            0 => errors.required(&path, "must specify a volume type"),
            1 => {}
            _ => errors.forbidden(&path, "may not specify more than 1 volume type per source"),
        }
    }
}

fn validate_token(token: &Value, path: &Path, errors: &mut ErrorList) {
    let seconds = int(token, "/expirationSeconds").unwrap_or_default();
    if !TOKEN_SECONDS.contains(&seconds) {
        let less = seconds < *TOKEN_SECONDS.start();
        let why = if less { "less than 10 minutes" } else { "larger than 2^32 seconds" };
        let why = format!("may not specify a duration {why}");
        errors.invalid(&path.child("expirationSeconds"), &json!(seconds), &why);
    }
    validate_file_path(token, path, errors);
}

fn validate_bundle(bundle: &Value, path: &Path, errors: &mut ErrorList) {
    match (some(bundle, "/name"), some(bundle, "/signerName")) {
        (Some(_), Some(_)) => errors.invalid(path, bundle, "only one of name and signerName may be used"),
        (None, None) => errors.required(path, "either name or signerName must be specified"),
        (Some(name), None) => {
            if name == "" {
                errors.required(&path.child("name"), "must be a valid object name");
            }
            if let Some(selector) = some(bundle, "/labelSelector") {
                let why = "labelSelector must be unset if name is specified";
                errors.invalid(&path.child("labelSelector"), selector, why);
            }
        }
        (None, Some(signer)) => {
            if signer == "" {
                errors.required(&path.child("signerName"), "must be a valid signer name");
            }
            if let Some(selector) = some(bundle, "/labelSelector") {
                validate_selector(selector, &path.child("labelSelector"), errors);
            }
        }
    }
    validate_file_path(bundle, path, errors);
}

fn validate_iscsi(source: &Value, path: &Path, errors: &mut ErrorList) {
    for (field, shown) in [("iqn", "iqn"), ("initiatorName", "initiatorname")] {
        let name = text(source, &format!("/{field}"));
        if !name.is_empty()
            && let Some(why) = bad_iscsi_name(name)
        {
            errors.invalid(&path.child(shown), &json!(name), why);
        }
    }
    let lun = int(source, "/lun").unwrap_or_default();
    if !(0..=255).contains(&lun) {
        errors.invalid(&path.child("lun"), &json!(lun), "must be between 0 and 255, inclusive");
    }
    let asks = ["/chapAuthDiscovery", "/chapAuthSession"].iter().any(|field| is_true(source, field));
    if asks && some(source, "/secretRef").is_none() {
        errors.required(&path.child("secretRef"), "");
    }
}

static IQN: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"iqn\.[0-9]{4}-[0-9]{2}\.([[:alnum:]\-.]+)(:[^,;*&$|\s]+)$").ok());

fn bad_iscsi_name(name: &str) -> Option<&'static str> {
    let digits = |count: usize| {
        let rest = name.get(4..).unwrap_or_default();
        rest.len() == count && rest.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let good = match name.get(..3) {
        Some("iqn") => IQN.as_ref().is_some_and(|iqn| iqn.is_match(name)),
        Some("eui") => digits(16),
        Some("naa") => digits(32),
        _ => return Some("must be valid format starting with iqn, eui, or naa"),
    };
    (!good).then_some("must be valid format")
}

fn validate_csi(source: &Value, path: &Path, errors: &mut ErrorList) {
    let (driver, driver_path) = (text(source, "/driver"), path.child("driver"));
    if driver.is_empty() {
        errors.required(&driver_path, "");
    } else {
        if driver.len() > CSI_NAME_MAX {
            errors.too_long(&driver_path, CSI_NAME_MAX);
        }
        push_all(errors, &driver_path, driver, names::dns1123_subdomain(&driver.to_lowercase()));
    }
    if let Some(secret) = some(source, "/nodePublishSecretRef") {
        let name = text(secret, "/name");
        if name.is_empty() {
            errors.required(&path.child("nodePublishSecretRef").child("name"), "");
        } else {
            push_all(errors, &path.child("name"), name, names::dns1123_subdomain(name));
        }
    }
}

/// A claim that is made with the pod.
fn validate_ephemeral(source: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("volumeClaimTemplate");
    let Some(template) = some(source, "/volumeClaimTemplate") else { return errors.required(&path, "") };
    let of_meta = path.child("metadata");
    meta::labels(template.pointer("/metadata/labels"), &of_meta.child("labels"), errors);
    meta::annotations(template.pointer("/metadata/annotations"), &of_meta.child("annotations"), errors);
    let spec = template.get("spec").unwrap_or(&Value::Null);
    persistentvolumeclaim::validate_spec(spec, &path.child("spec"), errors);
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
        Some(lun) if !(0..=255).contains(&lun) => {
            errors.invalid(&path.child("lun"), &json!(lun), "must be between 0 and 255, inclusive");
        }
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_refused, complaints};
    use super::*;

    fn refuse(rows: &[(Value, &str)]) {
        for (source, why) in rows {
            let mut volume = source.clone();
            volume["name"] = json!("v");
            assert_refused(json!({ "volumes": [volume] }), &json!({}), &format!("spec.volumes[0].{why}"));
        }
    }

    #[test]
    fn a_source_is_complete_and_well_formed() {
        refuse(&[
            (
                json!({"emptyDir": {"sizeLimit": "-1"}}),
                "emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
            ),
            (json!({"nfs": {"server": "a", "path": "b"}}), "nfs.path: Invalid value: \"b\": must be an absolute path"),
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
            (json!({"gitRepo": {"repository": ""}}), "gitRepo.repository: Required value"),
            (
                json!({"gitRepo": {"repository": "a", "directory": "../a"}}),
                "gitRepo.directory: Invalid value: \"../a\": must not contain '..'",
            ),
            (json!({"csi": {"driver": ""}}), "csi.driver: Required value"),
            (json!({"ephemeral": {}}), "ephemeral.volumeClaimTemplate: Required value"),
            (
                json!({"ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}}),
                "ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value",
            ),
            (json!({"image": {}}), "image.reference: Required value"),
            (
                json!({"image": {"reference": "a", "pullPolicy": "X"}}),
                "image.pullPolicy: Unsupported value: \"X\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            ),
            (json!({"rbd": {"image": "a", "monitors": []}}), "rbd.monitors: Required value"),
            (
                json!({"fc": {"targetWWNs": ["a"]}}),
                "fc.lun: Required value: lun is required if targetWWNs is specified",
            ),
        ]);
        let iscsi = json!({"targetPortal": "a", "iqn": "iqn.2015-02.example.com:test", "lun": 0});
        let spec = json!({"containers": [{"name": "a", "image": "x"}], "volumes": [{"name": "v", "iscsi": iscsi},
            {"name": "i", "image": {"reference": "a"}}]});
        assert_eq!(complaints(&spec), Vec::<String>::new());
    }

    #[test]
    fn a_file_about_the_pod_says_something_known() {
        refuse(&[
            (
                json!({"downwardAPI": {"items": [{"path": "a"}]}}),
                "downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
            ),
            (
                json!({"downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "status.podIP"}}]}}),
                "downwardAPI.fieldRef.fieldPath: Unsupported value: \"status.podIP\": supported values: \
                 \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\"",
            ),
            (
                json!({"downwardAPI": {"items": [{"path": "a", "resourceFieldRef": {"resource": "limits.cpu"}}]}}),
                "downwardAPI.resourceFieldRef.containerName: Required value",
            ),
            (
                json!({"downwardAPI": {"items": [{"path": "/a", "fieldRef": {"fieldPath": "metadata.labels"}}]}}),
                "downwardAPI.path: Invalid value: \"/a\": must be a relative path",
            ),
        ]);
    }

    #[test]
    fn what_is_projected_does_not_collide() {
        let of = |kind: &str| json!({kind: {"name": "n", "items": [{"key": "a", "path": "x"}]}});
        let sources = |sources: Value| json!({"projected": {"sources": sources}});
        let token =
            |seconds: i64| sources(json!([{"serviceAccountToken": {"path": "a", "expirationSeconds": seconds}}]));
        refuse(&[
            (
                sources(json!([of("configMap"), of("secret")])),
                "projected: Invalid value: \"n\": conflicting duplicate paths",
            ),
            (
                sources(json!([{"configMap": {"name": "a"}, "secret": {"name": "b"}}])),
                "projected.sources[0]: Forbidden: may not specify more than 1 volume type per source",
            ),
            (
                token(599),
                "projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 599: may not specify a \
                 duration less than 10 minutes",
            ),
            (
                token((1 << 32) + 1),
                "projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 4294967297: may not specify \
                 a duration larger than 2^32 seconds",
            ),
            (
                sources(json!([{"serviceAccountToken": {"path": "../a"}}])),
                "projected.sources[0].serviceAccountToken.path: Invalid value: \"../a\": must not contain '..'",
            ),
            (
                sources(json!([{"clusterTrustBundle": {"path": "a"}}])),
                "projected.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified",
            ),
        ]);
    }
}
