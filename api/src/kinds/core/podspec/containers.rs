//! Containers, of all three sorts: names, images, policies; the rest has a file per topic.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::claims::ClaimNames;
use super::volumes::VolumeNames;
use super::{env, handlers, image, mounts, ports, resources, restarts, security};
use crate::field::{ErrorList, Path};
use crate::kinds::check::required_one_of;
use crate::kinds::tree::{fill, list, object, some, text};
use crate::meta::{names, push_all};

/// Fills one container's defaults.
pub(super) fn default(container: &mut Value) {
    let policy = image::default_pull_policy(text(container, "/image"));
    fill(container, "imagePullPolicy", policy);
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    object(container, "resources");
    resources::round(container);
    ports::default(container);
    env::default(container);
    handlers::default(container);
}

/// What containers refer to.
pub(super) struct Known<'a> {
    pub spec: &'a Value,
    /// Whether they are a pod's, and not a template's.
    pub in_pod: bool,
    pub volumes: VolumeNames<'a>,
    pub claims: ClaimNames<'a>,
}

/// Judges every container of a pod spec.
pub(super) fn validate_all(known: &Known<'_>, path: &Path, errors: &mut ErrorList) {
    let spec = known.spec;
    let containers = list(spec, "/containers");
    if containers.is_empty() {
        errors.required(&path.child("containers"), "");
    }
    let mut seen = HashSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.child("containers").index(index);
        validate(container, known, &path, errors);
        unique(container, &mut seen, &path, errors);
        handlers::validate(container, spec, &path, errors);
        restarts::validate(container, &path, errors);
    }
    ports::validate_host_ports(spec, path, errors);
    for (index, container) in list(spec, "/initContainers").iter().enumerate() {
        let path = path.child("initContainers").index(index);
        validate(container, known, &path, errors);
        unique(container, &mut seen, &path, errors);
        ports::validate_own_host_ports(container, &path.child("ports"), errors);
        validate_init(container, spec, &path, errors);
    }
    for (index, container) in list(spec, "/ephemeralContainers").iter().enumerate() {
        let path = path.child("ephemeralContainers").index(index);
        validate(container, known, &path, errors);
        unique(container, &mut seen, &path, errors);
    }
}

fn unique<'a>(container: &'a Value, seen: &mut HashSet<&'a str>, path: &Path, errors: &mut ErrorList) {
    let name = text(container, "/name");
    if !name.is_empty() && !seen.insert(name) {
        errors.duplicate(&path.child("name"), &json!(name));
    }
}

fn validate(container: &Value, known: &Known<'_>, path: &Path, errors: &mut ErrorList) {
    let name = text(container, "/name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        push_all(errors, &path.child("name"), name, names::dns1123_label(name));
    }
    validate_image(text(container, "/image"), known.in_pod, &path.child("image"), errors);
    required_one_of(container, "terminationMessagePolicy", path, &["File", "FallbackToLogsOnError"], errors);
    ports::validate(container, &path.child("ports"), errors);
    env::validate(container, &known.volumes, path, errors);
    mounts::validate(container, &known.volumes, path, errors);
    required_one_of(container, "imagePullPolicy", path, &["Always", "IfNotPresent", "Never"], errors);
    resources::validate(container, &known.claims, &path.child("resources"), errors);
    let pod_policy = text(known.spec, "/restartPolicy");
    restarts::validate_resize(container, pod_policy, &path.child("resizePolicy"), errors);
    let host_users = known.spec.get("hostUsers") != Some(&Value::Bool(false));
    security::validate_container(container, host_users, &path.child("securityContext"), errors);
}

/// A template's image may be padded: what makes pods of it may put another in its place.
fn validate_image(name: &str, in_pod: bool, path: &Path, errors: &mut ErrorList) {
    if in_pod && name.trim() != name {
        errors.invalid(path, &json!(name), "must not have leading or trailing whitespace");
    } else {
        image::validate(name, path, errors);
    }
}

/// An init container is judged like any other if it is a sidecar; else it has no life to hook into or to probe.
fn validate_init(container: &Value, spec: &Value, path: &Path, errors: &mut ErrorList) {
    restarts::validate(container, path, errors);
    if text(container, "/restartPolicy") == "Always" {
        return handlers::validate(container, spec, path, errors);
    }
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if some(container, &format!("/{field}")).is_some() {
            errors.forbidden(&path.child(field), "may not be set for init containers without restartPolicy=Always");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::complaints;
    use super::*;

    #[test]
    fn a_container_has_a_name_and_an_image() {
        assert_eq!(
            complaints(&json!({"containers": [{}, {"name": "A", "image": " x"}]}))
                .iter()
                .map(|c| c.split(" (e.g").next().unwrap_or_default().to_owned())
                .collect::<Vec<_>>(),
            [
                "spec.containers[0].name: Required value",
                "spec.containers[0].image: Required value",
                "spec.containers[1].name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case \
                 alphanumeric characters or '-', and must start and end with an alphanumeric character",
                "spec.containers[1].image: Invalid value: \" x\": must not have leading or trailing whitespace"
            ]
        );
        assert_eq!(complaints(&json!({})), ["spec.containers: Required value"]);
    }

    #[test]
    fn a_template_may_hold_a_place_for_an_image() {
        let mut spec = json!({"containers": [{"name": "a", "image": " "}]});
        super::super::default(&mut spec);
        let said = |path: Path| {
            let mut errors = ErrorList::default();
            super::super::validate(&spec, &path, &mut errors);
            errors.iter().count()
        };
        assert_eq!((said(Path::new("spec").child("template").child("spec")), said(Path::new("spec"))), (0, 1));
    }

    #[test]
    fn names_are_unique_among_all_containers() {
        let one = json!({"name": "a", "image": "x"});
        assert_eq!(
            complaints(&json!({"containers": [one, one], "initContainers": [one]})),
            ["spec.containers[1].name: Duplicate value: \"a\"", "spec.initContainers[0].name: Duplicate value: \"a\""]
        );
    }

    #[test]
    fn an_init_container_has_probes_only_as_a_sidecar() {
        let probe = json!({"tcpSocket": {"port": 1}});
        let mut init = json!({"name": "i", "image": "x", "readinessProbe": probe});
        let spec = |init: &Value| json!({"containers": [{"name": "a", "image": "x"}], "initContainers": [init]});
        assert_eq!(
            complaints(&spec(&init)),
            ["spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without \
                 restartPolicy=Always"]
        );
        init["restartPolicy"] = json!("Always");
        assert!(complaints(&spec(&init)).is_empty());
    }
}
