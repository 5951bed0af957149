//! What a pod's annotations may say: some of them are trusted, as marks of what a pod is.

use std::cell::LazyCell;
use std::collections::HashSet;

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::core::podspec::{self, CONTAINER_LISTS, PROFILE_MAX};
use crate::kinds::tree::{list, list_mut, map, object, set, some, text};

/// The mark of a pod that a node runs by itself and only shows here.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

const ALL: &str = "/metadata/annotations";
/// What a profile of each sort is called in an annotation, and in a field.
const PROFILES: [(&str, &str); 2] = [("unconfined", "Unconfined"), ("runtime/default", "RuntimeDefault")];
/// What an annotation calls a profile that lies on the node begins with.
const LOCALHOST: &str = "localhost/";

pub(super) fn is_mirror(pod: &Value) -> bool {
    map(pod, ALL).any(|(key, _)| key == MIRROR)
}

/// Judges a pod's annotations.
pub(super) fn validate(pod: &Value, errors: &mut ErrorList) {
    validate_at(pod, &Path::new("metadata").child("annotations"), errors);
}

/// Judges a new pod's annotations beside the fields that took their place.
pub(super) fn validate_fields(pod: &Value, errors: &mut ErrorList) {
    let spec = Path::new("spec");
    validate_same_seccomp(pod, &spec, errors);
    validate_same_app_armor(pod, &spec, errors);
}

/// Judges that a pod, or a template whose spec is at `spec`, says the same about system calls in annotations and in fields.
pub(in crate::kinds) fn validate_same_seccomp(pod: &Value, spec: &Path, errors: &mut ErrorList) {
    if !map(pod, ALL).any(|(key, _)| key == SECCOMP_POD || key.starts_with(SECCOMP)) {
        return;
    }
    let compare = |profile: Option<&Value>, key: &str, path: &Path, errors: &mut ErrorList| {
        if let (Some(profile), Some(noted)) = (profile, annotation(pod, key)) {
            let noted = if noted == "docker/default" { "runtime/default" } else { noted };
            validate_same(profile, noted, "seccomp", &path.child("seccompProfile"), errors);
        }
    };
    let profile = some(pod, "/spec/securityContext/seccompProfile");
    compare(profile, SECCOMP_POD, &spec.child("securityContext"), errors);
    for (container, path) in containers(pod, spec) {
        let profile = some(container, "/securityContext/seccompProfile");
        let key = format!("{SECCOMP}{}", text(container, "/name"));
        compare(profile, &key, &path.child("securityContext"), errors);
    }
}

fn validate_same_app_armor(pod: &Value, spec: &Path, errors: &mut ErrorList) {
    if !names_app_armor(pod) {
        return;
    }
    let of_pod = some(pod, "/spec/securityContext/appArmorProfile");
    for (container, path) in containers(pod, spec) {
        let profile = some(container, "/securityContext/appArmorProfile").or(of_pod);
        if let (Some(profile), Some(noted)) = (profile, app_armor_of(pod, container)) {
            validate_same(profile, noted, "apparmor", &path.child("securityContext").child("appArmorProfile"), errors);
        }
    }
}

/// Judges that the field `profile` and the annotation `noted` mean the same.
fn validate_same(profile: &Value, noted: &str, what: &str, path: &Path, errors: &mut ErrorList) {
    let kind = text(profile, "/type");
    let same_kind = match PROFILES.iter().find(|(_, field)| *field == kind) {
        Some((annotation, _)) => *annotation == noted,
        None => kind != "Localhost" || noted.starts_with(LOCALHOST),
    };
    if !same_kind {
        errors.forbidden(&path.child("type"), &format!("{what} type in annotation and field must match"));
    } else if kind == "Localhost" && noted.strip_prefix(LOCALHOST) != Some(text(profile, "/localhostProfile")) {
        let why = format!("{what} profile in annotation and field must match");
        errors.forbidden(&path.child("localhostProfile"), &why);
    }
}

/// Writes what annotations say of containers' AppArmor profiles into the fields that took their place, where these say nothing:
/// nodes look at the fields alone.
pub(super) fn sync_app_armor(pod: &mut Value) {
    if !names_app_armor(pod) {
        return;
    }
    let of_pod = some(pod, "/spec/securityContext/appArmorProfile").cloned();
    for field in CONTAINER_LISTS {
        let profiles: Vec<Option<Value>> = list(pod, &format!("/spec/{field}"))
            .iter()
            .map(|container| {
                let unsaid = some(container, "/securityContext/appArmorProfile").is_none();
                let noted = app_armor_of(pod, container).filter(|_| unsaid)?;
                app_armor_field(noted).filter(|profile| Some(profile) != of_pod.as_ref())
            })
            .collect();
        let Some(spec) = pod.get_mut("spec") else { return };
        for (container, profile) in list_mut(spec, field).zip(profiles) {
            if let (Some(profile), Some(context)) = (profile, object(container, "securityContext")) {
                set(context, "appArmorProfile", profile);
            }
        }
    }
}

/// Whether an annotation names a profile for a pod that can have one.
fn names_app_armor(pod: &Value) -> bool {
    map(pod, ALL).any(|(key, _)| key.starts_with(APPARMOR)) && text(pod, "/spec/os/name") != "windows"
}

/// The profile that an annotation names, unless no field could name it.
fn app_armor_field(noted: &str) -> Option<Value> {
    if let Some((_, kind)) = PROFILES.iter().find(|(annotation, _)| *annotation == noted) {
        return Some(json!({ "type": kind }));
    }
    let name = noted.strip_prefix(LOCALHOST)?;
    let good = !name.is_empty() && name.trim() == name && name.len() <= PROFILE_MAX;
    good.then(|| json!({"type": "Localhost", "localhostProfile": name}))
}

fn annotation<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    pod.pointer(ALL)?.get(key)?.as_str()
}

fn app_armor_of<'a>(pod: &'a Value, container: &Value) -> Option<&'a str> {
    annotation(pod, &format!("{APPARMOR}{}", text(container, "/name")))
}

/// All containers of a pod or template with their places; `spec` is its spec's.
fn containers<'a>(pod: &'a Value, spec: &Path) -> impl Iterator<Item = (&'a Value, Path)> {
    CONTAINER_LISTS.into_iter().flat_map(move |field| {
        let path = spec.child(field);
        let all = list(pod, &format!("/spec/{field}")).iter().enumerate();
        all.map(move |(index, container)| (container, path.index(index)))
    })
}

/// Judges the annotations of a pod or a template, which are at `at`.
pub(in crate::kinds) fn validate_at(pod: &Value, at: &Path, errors: &mut ErrorList) {
    let names = LazyCell::new(|| {
        let containers = CONTAINER_LISTS.iter().flat_map(|field| list(pod, &format!("/spec/{field}")));
        containers.map(|container| text(container, "/name")).collect::<HashSet<_>>()
    });
    for (key, value) in map(pod, ALL) {
        let value = value.as_str().unwrap_or_default();
        if key == MIRROR && text(pod, "/spec/nodeName").is_empty() {
            let why = "must set spec.nodeName if mirror pod annotation is set";
            errors.invalid(&at.key(key), &json!(value), why);
        } else if key == DELETION_COST && !is_cost(value) {
            errors.invalid(&at.key(key), &json!(value), "must be a 32bit integer");
        } else if key == SECCOMP_POD || key.starts_with(SECCOMP) {
            validate_seccomp(value, &at.child(key), errors);
        } else if let Some(container) = key.strip_prefix(APPARMOR) {
            let path = at.key(key);
            if !names.contains(container) {
                errors.invalid(&path, &json!(container), "container not found");
            }
            validate_app_armor(value, &path, errors);
        }
    }
}

fn path(key: &str) -> Path {
    Path::new("metadata").child("annotations").key(key)
}

/// A number without a plus or leading noughts.
fn is_cost(value: &str) -> bool {
    value.parse::<i32>().is_ok() && !value.starts_with('+') && (value == "0" || !value.starts_with('0'))
}

fn validate_seccomp(profile: &str, path: &Path, errors: &mut ErrorList) {
    let known = ["runtime/default", "docker/default", "unconfined"].contains(&profile);
    match profile.strip_prefix(LOCALHOST) {
        Some(file) => podspec::validate_local(file, path, errors),
        None if !known => errors.invalid(path, &json!(profile), "must be a valid seccomp profile"),
        None => {}
    }
}

fn validate_app_armor(profile: &str, path: &Path, errors: &mut ErrorList) {
    let known = profile.is_empty() || PROFILES.iter().any(|(annotation, _)| *annotation == profile);
    if !known && !profile.starts_with(LOCALHOST) {
        errors.invalid(path, &json!(profile), &format!("invalid AppArmor profile name: {profile:?}"));
    }
}

/// Judges a change: marks stay as they are.
pub(super) fn validate_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let value = |pod: &Value, key: &str| pod.pointer(ALL).and_then(|all| all.get(key)).cloned();
    let mark = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        _ if key.starts_with(APPARMOR) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, before) in map(old, ALL) {
        if let Some(what) = mark(key).filter(|_| value(new, key).as_ref() != Some(before)) {
            errors.forbidden(&path(key), &format!("may not remove or update {what}"));
        }
    }
    for (key, _) in map(new, ALL) {
        if let Some(what) = mark(key).filter(|_| value(old, key).is_none()) {
            errors.forbidden(&path(key), &format!("may not add {what}"));
        }
    }
    errors.judge_change(new, old, validate);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(annotations: &Value) -> Value {
        json!({"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "a"}]}})
    }

    fn said(judge: impl FnOnce(&mut ErrorList)) -> Vec<String> {
        let mut errors = ErrorList::default();
        judge(&mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn annotations_that_mean_something_make_sense() {
        for (key, value, why) in [
            (MIRROR, "x", "Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set"),
            (DELETION_COST, "+1", "Invalid value: \"+1\": must be a 32bit integer"),
            (DELETION_COST, "3000000000", "Invalid value: \"3000000000\": must be a 32bit integer"),
            (SECCOMP_POD, "x", "Invalid value: \"x\": must be a valid seccomp profile"),
            (SECCOMP_POD, "localhost/../x", "Invalid value: \"../x\": must not contain '..'"),
        ] {
            let pod = pod(&json!({key: value}));
            let place = if key == SECCOMP_POD { format!(".{key}") } else { format!("[{key}]") };
            assert_eq!(said(|errors| validate(&pod, errors)), [format!("metadata.annotations{place}: {why}")]);
        }
        let of = |container: &str| format!("{APPARMOR}{container}");
        let odd = pod(&json!({of("a"): "x", of("b"): "unconfined"}));
        assert_eq!(
            said(|errors| validate(&odd, errors)),
            [
                format!(
                    "metadata.annotations[{}]: Invalid value: \"x\": invalid AppArmor profile name: \"x\"",
                    of("a")
                ),
                format!("metadata.annotations[{}]: Invalid value: \"b\": container not found", of("b")),
            ]
        );
        let good =
            pod(&json!({DELETION_COST: "-1", SECCOMP_POD: "localhost/a", of("a"): "runtime/default", "other": "x"}));
        assert_eq!(said(|errors| validate(&good, errors)), Vec::<String>::new());
    }

    #[test]
    fn an_annotation_and_the_field_that_took_its_place_say_the_same() {
        let (seccomp, app_armor) = (format!("{SECCOMP}a"), format!("{APPARMOR}a"));
        let localhost = json!({"type": "Localhost", "localhostProfile": "p"});
        for (key, noted, field, profile, why) in [
            (&seccomp, "unconfined", "seccompProfile", json!({"type": "Unconfined"}), ""),
            (&seccomp, "docker/default", "seccompProfile", json!({"type": "RuntimeDefault"}), ""),
            (&seccomp, "unconfined", "seccompProfile", json!({"type": "RuntimeDefault"}), "type"),
            (&seccomp, "localhost/p", "seccompProfile", localhost.clone(), ""),
            (&seccomp, "localhost/q", "seccompProfile", localhost.clone(), "localhostProfile"),
            (&app_armor, "runtime/default", "appArmorProfile", json!({"type": "RuntimeDefault"}), ""),
            (&app_armor, "runtime/default", "appArmorProfile", localhost.clone(), "type"),
            (&app_armor, "localhost/q", "appArmorProfile", localhost.clone(), "localhostProfile"),
        ] {
            let mut pod = pod(&json!({key.as_str(): noted}));
            pod["spec"]["containers"][0]["securityContext"] = json!({field: profile});
            let what = if field == "seccompProfile" { "seccomp" } else { "apparmor" };
            let part = if why == "type" { "type" } else { "profile" };
            let place = format!("spec.containers[0].securityContext.{field}.{why}");
            let wanted = format!("{place}: Forbidden: {what} {part} in annotation and field must match");
            let wanted: Vec<String> = Some(wanted).filter(|_| !why.is_empty()).into_iter().collect();
            assert_eq!(said(|errors| validate_fields(&pod, errors)), wanted, "{noted} {profile}");
        }
        let mut whole = pod(&json!({SECCOMP_POD: "unconfined"}));
        whole["spec"]["securityContext"] = json!({"seccompProfile": {"type": "RuntimeDefault"}});
        let place = Path::new("spec").child("template").child("spec");
        assert_eq!(
            said(|errors| validate_same_seccomp(&whole, &place, errors)),
            [
                "spec.template.spec.securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must \
              match"
            ]
        );
    }

    #[test]
    fn the_old_annotation_of_a_profile_becomes_the_field() {
        let synced = |noted: &str, context: Value| {
            let mut pod = pod(&json!({format!("{APPARMOR}a"): noted}));
            pod["spec"]["securityContext"] = context;
            sync_app_armor(&mut pod);
            pod["spec"]["containers"][0]["securityContext"]["appArmorProfile"].clone()
        };
        assert_eq!(synced("unconfined", json!({})), json!({"type": "Unconfined"}));
        assert_eq!(synced("localhost/p", json!({})), json!({"type": "Localhost", "localhostProfile": "p"}));
        assert_eq!(synced("localhost/", json!({})), Value::Null, "no field could say so");
        let of_pod = json!({"appArmorProfile": {"type": "Unconfined"}});
        assert_eq!(synced("unconfined", of_pod), Value::Null, "the pod says so already");
    }

    #[test]
    fn marks_stay_as_they_are() {
        let (bare, mut marked) = (pod(&json!({})), pod(&json!({MIRROR: "x"})));
        marked["spec"]["nodeName"] = json!("n");
        let place = format!("metadata.annotations[{MIRROR}]: Forbidden: may not");
        assert_eq!(
            said(|errors| validate_update(&bare, &marked, errors)),
            [format!("{place} remove or update mirror pod annotation")]
        );
        assert_eq!(
            said(|errors| validate_update(&marked, &bare, errors)),
            [format!("{place} add mirror pod annotation")]
        );
        assert_eq!(said(|errors| validate_update(&marked, &marked, errors)), Vec::<String>::new());
    }
}
