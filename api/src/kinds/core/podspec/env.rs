//! Environment variables and where their values come from.

use serde_json::{Value, json};

use super::resources;
use super::volumes::{VolumeNames, validate_unreserved};
use crate::field::{ErrorList, Path};
use crate::kinds::tree::{fill, list, list_mut, some, text};
use crate::meta::{names, push_all};

/// Fields of the pod that a variable may take, besides single labels and annotations.
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields that the API knows but gives to no variable.
const OTHER_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"];
/// Of whose entries each can be asked for.
const MAPS: [&str; 2] = ["metadata.annotations", "metadata.labels"];
const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

pub(super) fn default(container: &mut Value) {
    for variable in list_mut(container, "env") {
        if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
            fill(field, "apiVersion", "v1");
        }
        if let Some(resource) = variable.pointer_mut("/valueFrom/resourceFieldRef") {
            fill(resource, "divisor", "0");
        }
    }
}

pub(super) fn validate(container: &Value, volumes: &VolumeNames<'_>, path: &Path, errors: &mut ErrorList) {
    for (index, variable) in list(container, "/env").iter().enumerate() {
        let path = path.child("env").index(index);
        let name = text(variable, "/name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            push_all(errors, &path.child("name"), name, names::env_var_name(name));
        }
        if let Some(from) = some(variable, "/valueFrom") {
            validate_from(from, !text(variable, "/value").is_empty(), volumes, &path.child("valueFrom"), errors);
        }
    }
    for (index, from) in list(container, "/envFrom").iter().enumerate() {
        validate_env_from(from, index, &path.child("envFrom"), errors);
    }
}

fn validate_from(from: &Value, has_value: bool, volumes: &VolumeNames<'_>, path: &Path, errors: &mut ErrorList) {
    let sources: Vec<(&str, &Value)> =
        SOURCES.iter().filter_map(|s| from.get(s).filter(|v| !v.is_null()).map(|v| (*s, v))).collect();
    for (name, source) in &sources {
        let path = path.child(name);
        match *name {
            "fieldRef" => validate_field(source, FIELDS, &path, errors),
            "resourceFieldRef" => validate_resource(source, false, &path, errors),
            "configMapKeyRef" | "secretKeyRef" => validate_key(source, &path, errors),
            "fileKeyRef" => validate_file_key(source, volumes, &path, errors),
            _ => {}
        }
    }
    let why = match (sources.len(), has_value) {
        (0, _) => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        (_, true) => "may not be specified when `value` is not empty",
        (1, false) => return,
        (_, false) => "may not have more than one field specified at a time",
    };
    errors.invalid(path, &json!(""), why);
}

/// Judges a reference to a field of the pod, of which only `allowed` and single labels and annotations are good.
pub(super) fn validate_field(source: &Value, allowed: &[&str], path: &Path, errors: &mut ErrorList) {
    let (version, field) = (text(source, "/apiVersion"), text(source, "/fieldPath"));
    let field_path = path.child("fieldPath");
    if version.is_empty() {
        return errors.required(&path.child("apiVersion"), "");
    }
    if field.is_empty() {
        return errors.required(&field_path, "");
    }
    let label = match known_field(version, field) {
        Ok(label) => label,
        Err(why) => return errors.invalid(&field_path, &json!(field), &format!("error converting fieldPath: {why}")),
    };
    match subscript(label) {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            push_all(errors, path, &key, names::qualified_name(&key));
        }
        Some((_, key)) => push_all(errors, path, key, names::qualified_name(key)),
        None if !allowed.contains(&label) => errors.not_supported(&field_path, label, allowed),
        None => {}
    }
}

/// The name of a field of the pod. Error: there is no such field in this version.
fn known_field<'a>(version: &str, field: &'a str) -> Result<&'a str, String> {
    if version != "v1" {
        return Err(format!("unsupported pod version: {version}"));
    }
    match subscript(field) {
        Some((map, _)) if MAPS.contains(&map) => Ok(field),
        Some(_) => Err(format!("field label does not support subscript: {field}")),
        // What it was called long ago.
        None if field == "spec.host" => Ok("spec.nodeName"),
        None if FIELDS.contains(&field) || OTHER_FIELDS.contains(&field) => Ok(field),
        None => Err(format!("field label not supported: {field}")),
    }
}

/// `metadata.labels['app']` as its map and key.
fn subscript(field: &str) -> Option<(&str, &str)> {
    field.strip_suffix("']")?.split_once("['").filter(|(map, _)| !map.is_empty())
}

/// Judges a reference to what a container asks for or may use. A file in a volume must say whose; a variable may.
pub(super) fn validate_resource(source: &Value, in_volume: bool, path: &Path, errors: &mut ErrorList) {
    let resource = text(source, "/resource");
    if in_volume && text(source, "/containerName").is_empty() {
        errors.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !resources::is_field(resource) {
        errors.not_supported(&path.child("resource"), resource, resources::FIELDS);
    }
    resources::validate_divisor(source, resource, path, errors);
}

fn validate_key(source: &Value, path: &Path, errors: &mut ErrorList) {
    let name = text(source, "/name");
    push_all(errors, &path.child("name"), name, names::dns1123_subdomain(name));
    let key = text(source, "/key");
    if key.is_empty() {
        errors.required(&path.child("key"), "");
    } else {
        push_all(errors, &path.child("key"), key, names::config_map_key(key));
    }
}

/// A key of a file in a volume of the pod.
fn validate_file_key(source: &Value, volumes: &VolumeNames<'_>, path: &Path, errors: &mut ErrorList) {
    let (volume, file, key) = (text(source, "/volumeName"), text(source, "/path"), text(source, "/key"));
    if volume.is_empty() {
        errors.required(&path.child("volumeName"), "");
    } else if !volumes.contains_key(volume) {
        errors.not_found(&path.child("volumeName"), &json!(volume));
    }
    if file.is_empty() {
        errors.required(&path.child("path"), "");
    } else {
        validate_unreserved(file, &path.child("path"), errors);
    }
    if key.is_empty() {
        errors.required(&path.child("key"), "");
    } else {
        push_all(errors, &path.child("key"), key, names::env_var_name(key));
    }
}

/// A prefix and a name are reported at their own path, the number of sources at the list's, as Kubernetes does.
fn validate_env_from(from: &Value, index: usize, path: &Path, errors: &mut ErrorList) {
    let item = path.index(index);
    let prefix = text(from, "/prefix");
    if !prefix.is_empty() {
        push_all(errors, &item.child("prefix"), prefix, names::env_var_name(prefix));
    }
    let mut count = 0;
    for source in ["configMapRef", "secretRef"] {
        let Some(reference) = from.get(source).filter(|v| !v.is_null()) else { continue };
        count += 1;
        let (name, path) = (text(reference, "/name"), item.child(source).child("name"));
        if name.is_empty() {
            errors.required(&path, "");
        } else {
            push_all(errors, &path, name, names::dns1123_subdomain(name));
        }
    }
    match count {
        0 => errors.invalid(path, &json!(""), "must specify one of: `configMapRef` or `secretRef`"),
        1 => {}
        _ => errors.invalid(path, &json!(""), "may not have more than one field specified at a time"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::complaints;
    use super::*;

    fn with(container: Value) -> Vec<String> {
        let mut container = container;
        container["name"] = json!("a");
        container["image"] = json!("x");
        complaints(&json!({"containers": [container]}))
    }

    #[test]
    fn a_variable_has_one_source() {
        let env = json!([{"name": "A", "valueFrom": {}}, {"name": "B", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "C=", "value": "x"}, {"value": "y"}]);
        assert_eq!(
            with(json!({ "env": env })),
            [
                "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, \
                 `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
                "spec.containers[0].env[1].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
                "spec.containers[0].env[2].name: Invalid value: \"C=\": a valid environment variable name must consist \
                 only of printable ASCII characters other than '='",
                "spec.containers[0].env[3].name: Required value"
            ]
        );
    }

    #[test]
    fn a_field_is_one_that_the_pod_has() {
        let field = |source: Value| with(json!({"env": [{"name": "A", "valueFrom": {"fieldRef": source}}]}));
        for good in [
            "metadata.name",
            "spec.host",
            "spec.nodeName",
            "status.hostIPs",
            "status.podIP",
            "status.podIPs",
            "metadata.labels['app.kubernetes.io/name']",
            "metadata.annotations['Some-Key']",
        ] {
            assert!(field(json!({ "fieldPath": good })).is_empty(), "{good}");
        }
        let place = "spec.containers[0].env[0].valueFrom.fieldRef";
        let converting = "error converting fieldPath";
        for (path, why) in [
            (
                "spec.x",
                format!(".fieldPath: Invalid value: \"spec.x\": {converting}: field label not supported: spec.x"),
            ),
            (
                "spec.x['a']",
                format!(
                    ".fieldPath: Invalid value: \"spec.x['a']\": {converting}: field label does not support subscript: \
                     spec.x['a']"
                ),
            ),
            ("['a']", format!(".fieldPath: Invalid value: \"['a']\": {converting}: field label not supported: ['a']")),
        ] {
            assert_eq!(field(json!({ "fieldPath": path })), [format!("{place}{why}")]);
        }
        assert_eq!(
            field(json!({"apiVersion": "v2", "fieldPath": "metadata.name"})),
            [format!("{place}.fieldPath: Invalid value: \"metadata.name\": {converting}: unsupported pod version: v2")]
        );
        assert!(field(json!({"fieldPath": "metadata.labels"}))[0].contains("Unsupported value: \"metadata.labels\""));
        let odd = field(json!({"fieldPath": "metadata.annotations['A B']"}));
        assert!(odd[0].starts_with(&format!("{place}: Invalid value: \"a b\": ")), "{odd:?}");
    }

    #[test]
    fn a_divisor_fits_what_it_divides() {
        let resource = |source: Value| with(json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": source}}]}));
        let place = "spec.containers[0].env[0].valueFrom.resourceFieldRef";
        for (name, divisor) in
            [("limits.cpu", "1m"), ("requests.cpu", "1"), ("limits.memory", "1Gi"), ("requests.hugepages-2Mi", "1M")]
        {
            assert_eq!(resource(json!({"resource": name, "divisor": divisor})), Vec::<String>::new(), "{name}");
        }
        let bytes = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";
        for (name, values, kind) in [
            ("limits.cpu", "1m and 1", "cpu"),
            ("requests.memory", bytes, "memory"),
            ("limits.ephemeral-storage", bytes, "local ephemeral storage"),
            ("limits.hugepages-2Mi", bytes, "hugepages"),
        ] {
            let why = format!("only divisor's values {values} are supported with the {kind} resource");
            assert_eq!(
                resource(json!({"resource": name, "divisor": "2"})),
                [format!("{place}.divisor: Invalid value: {name:?}: {why}")]
            );
        }
        let unknown = resource(json!({"resource": "limits.gpu", "divisor": "2"}));
        assert!(
            unknown.len() == 1 && unknown[0].starts_with(&format!("{place}.resource: Unsupported value:")),
            "{unknown:?}"
        );
    }

    #[test]
    fn a_whole_map_is_named() {
        assert_eq!(
            with(json!({"envFrom": [{}, {"configMapRef": {}}]})),
            [
                "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
                "spec.containers[0].envFrom[1].configMapRef.name: Required value"
            ]
        );
    }

    #[test]
    fn references_are_completed() {
        let mut container = json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]});
        default(&mut container);
        assert_eq!(container.pointer("/env/0/valueFrom/fieldRef/apiVersion"), Some(&json!("v1")));
    }

    #[test]
    fn a_key_of_a_file_is_in_a_volume_of_the_pod() {
        let volumes = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
        let place = "spec.containers[0].env[0].valueFrom.fileKeyRef";
        for (volume, path, key, why) in [
            ("q", "p", "k", "volumeName: Not found: \"q\""),
            ("", "p", "k", "volumeName: Required value"),
            ("v", "", "k", "path: Required value"),
            ("v", "/p", "k", "path: Invalid value: \"/p\": must be a relative path"),
            ("v", "p", "", "key: Required value"),
        ] {
            let source = json!({"fileKeyRef": {"volumeName": volume, "path": path, "key": key}});
            let container = json!({"env": [{"name": "A", "valueFrom": source}]});
            super::super::tests::assert_refused(volumes.clone(), &container, &format!("{place}.{why}"));
        }
    }
}
