//! The roles and bindings that every cluster has, and how those that are stored are brought up to them.
//!
//! They are data: `defaults.txt` beside this file.
//! As in Kubernetes, what is missing in a stored one comes back at every start and what was added stays, unless its
//! annotation `rbac.authorization.kubernetes.io/autoupdate` says `false`.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use serde_json::{Value, json};
use wherry_api::object;
use wherry_api::strategy::view;

use super::{GROUP, aggregate, cover};

const TEXT: &str = include_str!("defaults.txt");
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const CONTROLLER: &str = "system:controller:";
const SYSTEM: &str = "kube-system";

/// All of them, roles before bindings.
pub fn all() -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    let mut bindings: Vec<Value> = Vec::new();
    for line in TEXT.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty()) {
        if line.starts_with(' ') {
            if let Some(role) = objects.last_mut() {
                add_rule(role, line.trim());
            }
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["clusterrole", name, labels @ ..] => objects.push(role("ClusterRole", "", name, labels)),
            ["role", namespace, name] => objects.push(role("Role", namespace, name, &[])),
            ["controller", name] => {
                let full = format!("{CONTROLLER}{name}");
                objects.push(role("ClusterRole", "", &full, &[]));
                let account = format!("sa:{SYSTEM}/{name}");
                bindings.push(binding("", &full, &full, &[&account, "user:system:kube-controller-manager"]));
            }
            ["bind", name, role, subjects @ ..] => bindings.push(binding("", name, role, subjects)),
            ["rolebind", namespace, name, role, subjects @ ..] => {
                bindings.push(binding(namespace, name, role, subjects));
            }
            _ => {}
        }
    }
    aggregate_all(&mut objects);
    objects.append(&mut bindings);
    objects
}

/// Gives the aggregated roles their rules at once; later the controller does. What aggregates aggregated roles comes last.
fn aggregate_all(objects: &mut [Value]) {
    for name in ["view", "edit", "admin"] {
        let roles: Vec<ClusterRole> =
            objects.iter().filter(|o| object::kind(o) == "ClusterRole").filter_map(view).collect();
        let Some(role) = roles.iter().find(|role| role.metadata.name.as_deref() == Some(name)) else { continue };
        let rules = aggregate::rules(role, roles.iter());
        if let Some(target) = objects.iter_mut().find(|o| object::name(o) == name) {
            object::set_at(target, "rules", json!(rules));
        }
    }
}

fn metadata(namespace: &str, name: &str, labels: &[&str]) -> Value {
    let mut metadata = json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {AUTOUPDATE: "true"},
    });
    if let Some(all) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
        all.extend(labels.iter().map(|label| (format!("rbac.authorization.k8s.io/{label}"), "true".into())));
    }
    if !namespace.is_empty() {
        object::set_at(&mut metadata, "namespace", namespace);
    }
    metadata
}

fn role(kind: &str, namespace: &str, name: &str, labels: &[&str]) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata(namespace, name, labels), "rules": [],
    })
}

fn binding(namespace: &str, name: &str, role: &str, subjects: &[&str]) -> Value {
    let (kind, role_kind) =
        if namespace.is_empty() { ("ClusterRoleBinding", "ClusterRole") } else { ("RoleBinding", "Role") };
    let subjects: Vec<Value> = subjects.iter().filter_map(|text| subject(text)).collect();
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata(namespace, name, &[]),
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role}, "subjects": subjects,
    })
}

fn subject(text: &str) -> Option<Value> {
    match text.split_once(':')? {
        ("group", name) => Some(json!({"apiGroup": GROUP, "kind": "Group", "name": name})),
        ("user", name) => Some(json!({"apiGroup": GROUP, "kind": "User", "name": name})),
        ("sa", place) => {
            let (namespace, name) = place.split_once('/')?;
            Some(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}))
        }
        _ => None,
    }
}

fn add_rule(role: &mut Value, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let list = |text: &str| -> Vec<String> { text.split(',').map(str::to_owned).collect() };
    let rule = match words.as_slice() {
        ["from", label] => {
            let selector = json!({"matchLabels": {format!("rbac.authorization.k8s.io/{label}"): "true"}});
            object::set_at(role, "aggregationRule.clusterRoleSelectors", json!([selector]));
            return;
        }
        ["url", verbs, paths] => json!({"verbs": list(verbs), "nonResourceURLs": list(paths)}),
        [verb, groups, resources, names @ ..] => {
            let groups: Vec<&str> = groups.split(',').map(|group| if group == "core" { "" } else { group }).collect();
            let mut rule = json!({"verbs": verbs(verb), "apiGroups": groups, "resources": list(resources)});
            if let [names] = names {
                object::set_at(&mut rule, "resourceNames", list(names));
            }
            rule
        }
        _ => return,
    };
    if let Some(rules) = role.get_mut("rules").and_then(Value::as_array_mut) {
        rules.push(rule);
    }
}

fn verbs(text: &str) -> Vec<&str> {
    let mut verbs: Vec<&str> = text
        .split(',')
        .flat_map(|verb| match verb {
            "read" => vec!["get", "list", "watch"],
            "write" => vec!["create", "delete", "deletecollection", "patch", "update"],
            one => vec![one],
        })
        .collect();
    verbs.sort_unstable();
    verbs
}

/// A stored role or binding with what it lacks; `None` if it lacks nothing, or wants to be left alone.
pub fn completed(stored: &Value, wanted: &Value) -> Option<Value> {
    if object::annotation(stored, AUTOUPDATE) == Some("false") {
        return None;
    }
    let mut complete = stored.clone();
    for (key, value) in object::labels(wanted) {
        object::set_label(&mut complete, key, value);
    }
    for (key, value) in object::annotations(wanted) {
        if object::annotation(stored, key).is_none() {
            object::set_annotation(&mut complete, key, value);
        }
    }
    if wanted.get("aggregationRule").is_some() {
        append_missing(&mut complete, wanted, "aggregationRule.clusterRoleSelectors");
    } else if wanted.get("rules").is_some() {
        complete_rules(&mut complete, wanted);
    } else {
        append_missing(&mut complete, wanted, "subjects");
    }
    (complete != *stored).then_some(complete)
}

/// Whether a stored binding is for another role: that cannot be changed, only made anew.
pub fn other_role(stored: &Value, wanted: &Value) -> bool {
    wanted.get("roleRef").is_some() && stored.get("roleRef") != wanted.get("roleRef")
}

fn complete_rules(complete: &mut Value, wanted: &Value) {
    let rules = |role: &Value| -> Vec<PolicyRule> { role.get("rules").and_then(view).unwrap_or_default() };
    let mut all = rules(complete);
    let missing = cover::missing(&all, &rules(wanted));
    if !missing.is_empty() {
        all.extend(missing);
        object::set_at(complete, "rules", json!(all));
    }
}

fn append_missing(complete: &mut Value, wanted: &Value, path: &str) {
    let items = |object: &Value| object::at(object, path).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut all = items(complete);
    let before = all.len();
    for item in items(wanted) {
        if !all.contains(&item) {
            all.push(item);
        }
    }
    if all.len() > before {
        object::set_at(complete, path, all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let objects = all();
        let known = |line: &&str| {
            let first = line.split_whitespace().next().unwrap_or("#");
            !line.starts_with(' ') && !first.starts_with('#')
        };
        let controllers = TEXT.lines().filter(|line| line.starts_with("controller ")).count();
        assert_eq!(objects.len(), TEXT.lines().filter(|l| !l.is_empty()).filter(known).count() + controllers);
        for role in objects.iter().filter(|o| object::kind(o).ends_with("Role")) {
            let rules: Vec<PolicyRule> = role.get("rules").and_then(view).unwrap();
            assert!(!rules.is_empty(), "{}", object::name(role));
            assert!(rules.iter().all(|rule| !rule.verbs.is_empty()), "{}", object::name(role));
        }
        let names: Vec<_> = objects.iter().map(|o| (object::kind(o), object::namespace(o), object::name(o))).collect();
        for binding in objects.iter().filter(|o| o.get("roleRef").is_some()) {
            let role = (
                binding["roleRef"]["kind"].as_str().unwrap(),
                object::namespace(binding),
                binding["roleRef"]["name"].as_str().unwrap(),
            );
            assert!(names.contains(&role), "{role:?}");
        }
    }

    #[test]
    fn admin_includes_edit_which_includes_view() {
        let objects = all();
        let rules = |name: &str| -> Vec<PolicyRule> {
            let role = objects.iter().find(|o| object::kind(o) == "ClusterRole" && object::name(o) == name).unwrap();
            role.get("rules").and_then(view).unwrap()
        };
        assert!(cover::missing(&rules("edit"), &rules("view")).is_empty());
        assert!(cover::missing(&rules("admin"), &rules("edit")).is_empty());
        assert!(!cover::missing(&rules("edit"), &rules("admin")).is_empty());
        assert!(!cover::missing(&rules("view"), &rules("edit")).is_empty());
    }

    #[test]
    fn what_is_missing_comes_back_and_what_was_added_stays() {
        let objects = all();
        let wanted = objects.iter().find(|o| object::name(o) == "system:discovery").unwrap();
        let mut stored = wanted.clone();
        assert_eq!(completed(&stored, wanted), None);
        let extra = json!({"verbs": ["get"], "nonResourceURLs": ["/extra"]});
        stored["rules"] = json!([extra]);
        let complete = completed(&stored, wanted).unwrap();
        assert!(complete["rules"].as_array().unwrap().contains(&extra));
        assert_eq!(completed(&complete, wanted), None);
        object::set_annotation(&mut stored, AUTOUPDATE, "false");
        assert_eq!(completed(&stored, wanted), None);
    }
}
