//! What fills a volume of a pod, besides disks and file systems of others: files of the API, claims, images, a driver's work.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::volumes::{validate_local, validate_unreserved};
use super::{env, resources};
use crate::field::{ErrorList, Path};
use crate::kinds::apps::template::validate_selector;
use crate::kinds::certificates::certificatesigningrequest::validate_signer;
use crate::kinds::check::required_one_of;
use crate::kinds::core::persistentvolumeclaim;
use crate::kinds::storage;
use crate::kinds::tree::{int, list, map, some, text};
use crate::meta::{self, names, push_all};
use crate::quantity::Quantity;

/// What each sort must say.
const REQUIRED: [(&str, &str); 4] = [
    ("configMap", "name"),
    ("gitRepo", "repository"),
    ("persistentVolumeClaim", "claimName"),
    ("secret", "secretName"),
];
/// Fields of the pod that a file may hold, besides single labels and annotations.
const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Of its metadata, the template of a claim has these alone.
const TEMPLATE_METADATA: [&str; 2] = ["annotations", "labels"];
/// Seconds for which a token is good.
const TOKEN_SECONDS: std::ops::RangeInclusive<i64> = 600..=1 << 32;
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];

/// Judges the source of the sort `kind`; one of another sort than these is good.
pub(super) fn validate(kind: &str, source: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some((_, field)) = REQUIRED.iter().find(|(of, field)| *of == kind && meta::same(source.get(field), None)) {
        errors.required(&path.child(field), "");
    }
    match kind {
        "emptyDir" => {
            let size = some(source, "/sizeLimit").and_then(|size| resources::parse(size).ok());
            if size.is_some_and(|size| size < Quantity::ZERO) {
                errors.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
            }
        }
        "secret" | "configMap" => validate_files(source, path, errors),
        "downwardAPI" => {
            validate_mode(source, "defaultMode", path, errors);
            for file in list(source, "/items") {
                validate_downward(file, path, errors);
            }
        }
        "projected" => validate_projected(source, path, errors),
        "gitRepo" => validate_local(text(source, "/directory"), &path.child("directory"), errors),
        "csi" => validate_csi(source, path, errors),
        "image" => required_one_of(source, "pullPolicy", path, PULL_POLICIES, errors),
        "ephemeral" => validate_ephemeral(source, path, errors),
        _ => {}
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
        (None, Some(resource)) => env::validate_resource(resource, true, &path.child("resourceFieldRef"), errors),
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
        let place = path.child("sources").index(index);
        let given: Vec<_> = map(part, "").filter(|(_, value)| !value.is_null()).collect();
        for (kind, part) in &given {
            let place = place.child(kind);
            match kind.as_str() {
                "secret" | "configMap" => {
                    if text(part, "/name").is_empty() {
                        errors.required(&place.child("name"), "");
                    }
                    validate_files(part, &place, errors);
                    for item in list(part, "/items") {
                        claim(text(item, "/path"), text(part, "/name"), errors);
                    }
                }
                "downwardAPI" => {
                    for item in list(part, "/items") {
                        validate_downward(item, &place, errors);
                        claim(text(item, "/path"), text(item, "/path"), errors);
                    }
                }
                "serviceAccountToken" => {
                    validate_token_life(part, &place, errors);
                    // Told of the whole volume, as in Kubernetes.
                    validate_file_path(part, path, errors);
                }
                "clusterTrustBundle" => {
                    validate_bundle(part, &place, errors);
                    claim(text(part, "/path"), text(part, "/path"), errors);
                }
                _ => {}
            }
        }
        if given.len() > 1 {
            errors.forbidden(&place, "may not specify more than 1 volume type per source");
        }
    }
}

fn validate_token_life(token: &Value, path: &Path, errors: &mut ErrorList) {
    let seconds = int(token, "/expirationSeconds").unwrap_or_default();
    if !TOKEN_SECONDS.contains(&seconds) {
        let less = seconds < *TOKEN_SECONDS.start();
        let why = if less { "less than 10 minutes" } else { "larger than 2^32 seconds" };
        let why = format!("may not specify a duration {why}");
        errors.invalid(&path.child("expirationSeconds"), &json!(seconds), &why);
    }
}

fn validate_bundle(bundle: &Value, path: &Path, errors: &mut ErrorList) {
    let given = |field: &str| bundle.get(field).and_then(Value::as_str);
    match (given("name"), given("signerName")) {
        (Some(_), Some(_)) => errors.invalid(path, bundle, "only one of name and signerName may be used"),
        (None, None) => errors.required(path, "either name or signerName must be specified"),
        (Some(name), None) => {
            if name.is_empty() {
                errors.required(&path.child("name"), "must be a valid object name");
            }
            for why in complaints_of_bundle(name) {
                let why = format!("not a valid clustertrustbundlename: {why}");
                errors.invalid(&path.child("name"), &json!(name), &why);
            }
            if let Some(selector) = some(bundle, "/labelSelector") {
                let why = "labelSelector must be unset if name is specified";
                errors.invalid(&path.child("labelSelector"), selector, why);
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.required(&path.child("signerName"), "must be a valid signer name");
            }
            validate_signer(signer, &path.child("signerName"), errors);
            if let Some(selector) = some(bundle, "/labelSelector") {
                validate_selector(selector, &path.child("labelSelector"), errors);
            }
        }
    }
    validate_file_path(bundle, path, errors);
}

/// A bundle of a signer is named `example.com:signer:name`.
fn complaints_of_bundle(name: &str) -> Vec<String> {
    names::dns1123_subdomain(name.rsplit_once(':').map_or(name, |(_, last)| last))
}

fn validate_csi(source: &Value, path: &Path, errors: &mut ErrorList) {
    storage::names::driver(text(source, "/driver"), &path.child("driver"), errors);
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
    meta::annotations(template.pointer("/metadata/annotations"), &of_meta.child("annotations"), errors);
    meta::labels(template.pointer("/metadata/labels"), &of_meta.child("labels"), errors);
    for (field, value) in map(template, "/metadata") {
        if !TEMPLATE_METADATA.contains(&field.as_str()) && !meta::same(Some(value), None) {
            errors.forbidden(&of_meta.child(field), "cannot be set");
        }
    }
    let spec = template.get("spec").unwrap_or(&Value::Null);
    persistentvolumeclaim::validate_spec(spec, &path.child("spec"), errors);
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_volumes_refused, complaints};
    use super::*;

    #[test]
    fn a_source_is_complete_and_well_formed() {
        assert_volumes_refused(&[
            (
                json!({"emptyDir": {"sizeLimit": "-1"}}),
                "emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
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
            (
                json!({"ephemeral": {"volumeClaimTemplate": {"metadata": {"name": "a"}, "spec": {
                    "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}}}}}),
                "ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set",
            ),
            (
                json!({"configMap": {"name": "a", "items": [{"key": "b", "path": "..c"}]}}),
                "configMap.items[0].path: Invalid value: \"..c\": must not start with '..'",
            ),
        ]);
        let iscsi = json!({"targetPortal": "a", "iqn": "iqn.2015-02.example.com:test", "lun": 0});
        let spec = json!({"containers": [{"name": "a", "image": "x"}], "volumes": [{"name": "v", "iscsi": iscsi},
            {"name": "i", "image": {"reference": "a"}}]});
        assert_eq!(complaints(&spec), Vec::<String>::new());
    }

    #[test]
    fn a_file_about_the_pod_says_something_known() {
        assert_volumes_refused(&[
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
        assert_volumes_refused(&[
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
                "projected.path: Invalid value: \"../a\": must not contain '..'",
            ),
            (
                sources(json!([{"clusterTrustBundle": {"path": "a"}}])),
                "projected.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified",
            ),
            (
                sources(json!([{"clusterTrustBundle": {"path": "a", "name": "example.com:a:B"}}])),
                "projected.sources[0].clusterTrustBundle.name: Invalid value: \"example.com:a:B\": not a valid \
                 clustertrustbundlename: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
                 '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
                 validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ),
        ]);
    }
}
