//! What RoleBinding and ClusterRoleBinding share: a role, and who has it.

use serde_json::{Value, json};

use super::GROUP;
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column, wide};
use crate::kinds::tree::{fill, list, list_mut, object, text};
use crate::meta::{names, push_all, same};
use crate::resource::Column;

pub(super) fn columns() -> Vec<Column> {
    vec![
        cells::name(),
        column("Role", "string", "RoleRef can reference a Role in the current namespace or a ClusterRole.", |o, _| {
            json!(format!("{}/{}", text(o, "/roleRef/kind"), text(o, "/roleRef/name")))
        }),
        cells::age(),
        wide("Users", "Users in the roleBinding", |o, _| json!(subjects(o, "User"))),
        wide("Groups", "Groups in the roleBinding", |o, _| json!(subjects(o, "Group"))),
        wide("ServiceAccounts", "ServiceAccounts in the roleBinding", |o, _| json!(subjects(o, "ServiceAccount"))),
    ]
}

/// The subjects of a kind, a service account with its namespace.
fn subjects(binding: &Value, kind: &str) -> String {
    let names: Vec<String> = list(binding, "/subjects")
        .iter()
        .filter(|subject| text(subject, "/kind") == kind)
        .map(|subject| match (kind, text(subject, "/namespace")) {
            ("ServiceAccount", namespace) if !namespace.is_empty() => {
                format!("{namespace}/{}", text(subject, "/name"))
            }
            _ => text(subject, "/name").to_owned(),
        })
        .collect();
    names.join(", ")
}

pub(super) fn default(binding: &mut Value) {
    if let Some(role) = object(binding, "roleRef") {
        fill(role, "apiGroup", GROUP);
    }
    for subject in list_mut(binding, "subjects") {
        if matches!(text(subject, "/kind"), "User" | "Group") {
            fill(subject, "apiGroup", GROUP);
        }
    }
}

/// Judges a binding to a role of one of `kinds`.
pub(super) fn validate(binding: &Value, kinds: &[&str], errors: &mut ErrorList) {
    let role = binding.get("roleRef").unwrap_or(&Value::Null);
    let path = Path::new("roleRef");
    if text(role, "/apiGroup") != GROUP {
        errors.not_supported(&path.child("apiGroup"), text(role, "/apiGroup"), &[GROUP]);
    }
    if !kinds.contains(&text(role, "/kind")) {
        errors.not_supported(&path.child("kind"), text(role, "/kind"), kinds);
    }
    match text(role, "/name") {
        "" => errors.required(&path.child("name"), ""),
        name => push_all(errors, &path.child("name"), name, names::path_segment(name)),
    }
    let namespaced = kinds.contains(&"Role");
    for (index, subject) in list(binding, "/subjects").iter().enumerate() {
        validate_subject(subject, namespaced, &Path::new("subjects").index(index), errors);
    }
}

fn validate_subject(subject: &Value, namespaced: bool, path: &Path, errors: &mut ErrorList) {
    let (kind, group, name) = (text(subject, "/kind"), text(subject, "/apiGroup"), text(subject, "/name"));
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    match kind {
        "ServiceAccount" => {
            if !name.is_empty() {
                push_all(errors, &path.child("name"), name, names::dns1123_subdomain(name));
            }
            if !group.is_empty() {
                errors.not_supported(&path.child("apiGroup"), group, &[""]);
            }
            if !namespaced && text(subject, "/namespace").is_empty() {
                errors.required(&path.child("namespace"), "");
            }
        }
        "User" | "Group" => {
            if name.is_empty() {
                let why = format!("{} name cannot be empty", kind.to_lowercase());
                errors.invalid(&path.child("name"), &json!(""), &why);
            }
            if group != GROUP {
                errors.not_supported(&path.child("apiGroup"), group, &[GROUP]);
            }
        }
        other => errors.not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

/// A binding keeps its role: another role is another grant, and needs another binding.
pub(super) fn validate_update(new: &Value, old: &Value, kinds: &[&str], errors: &mut ErrorList) {
    validate(new, kinds, errors);
    if !same(new.get("roleRef"), old.get("roleRef")) {
        errors.invalid(&Path::new("roleRef"), new.get("roleRef").unwrap_or(&Value::Null), "cannot change roleRef");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn binding(subject: &Value) -> Value {
        json!({"roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [subject]})
    }

    #[test]
    fn groups_of_references_are_filled_in_but_for_service_accounts() {
        let mut object = binding(&json!({"kind": "User", "name": "jane"}));
        default(&mut object);
        assert_eq!(
            (&object["roleRef"]["apiGroup"], &object["subjects"][0]["apiGroup"]),
            (&json!(GROUP), &json!(GROUP))
        );
        let mut object = binding(&json!({"kind": "ServiceAccount", "name": "sa"}));
        default(&mut object);
        assert_eq!(object["subjects"][0], json!({"kind": "ServiceAccount", "name": "sa"}));
    }

    #[test]
    fn a_subject_is_a_user_a_group_or_an_account_in_a_namespace() {
        let account = json!({"kind": "ServiceAccount", "name": "sa"});
        for (subject, kinds, expected) in [
            (json!({"kind": "User", "name": "jane"}), &["ClusterRole"][..], vec![]),
            (account.clone(), &["ClusterRole"], vec!["subjects[0].namespace: Required value"]),
            (account, &["Role", "ClusterRole"], vec![]),
            (
                json!({"kind": "Group"}),
                &["ClusterRole"],
                vec![
                    "subjects[0].name: Required value",
                    "subjects[0].name: Invalid value: \"\": group name cannot be empty",
                ],
            ),
            (
                json!({"kind": "Dog", "name": "rex"}),
                &["ClusterRole"],
                vec![
                    "subjects[0].kind: Unsupported value: \"Dog\": supported values: \"ServiceAccount\", \"User\", \
                     \"Group\"",
                ],
            ),
        ] {
            let mut object = binding(&subject);
            default(&mut object);
            assert_eq!(complaints(|errors| validate(&object, kinds, errors)), expected, "{subject}");
        }
    }

    #[test]
    fn the_role_never_changes() {
        let mut old = binding(&json!({"kind": "User", "name": "jane"}));
        default(&mut old);
        let mut new = old.clone();
        new["roleRef"]["name"] = json!("admin");
        let all = complaints(|errors| validate_update(&new, &old, &["ClusterRole"], errors));
        assert_eq!(all.len(), 1);
        assert!(all[0].starts_with("roleRef: Invalid value: {") && all[0].ends_with(": cannot change roleRef"));
    }

    #[test]
    fn a_row_names_the_subjects_by_kind() {
        let object = json!({"subjects": [{"kind": "User", "name": "a"}, {"kind": "User", "name": "b"},
            {"kind": "ServiceAccount", "namespace": "ns", "name": "sa"}]});
        assert_eq!(["User", "Group", "ServiceAccount"].map(|k| subjects(&object, k)), ["a, b", "", "ns/sa"]);
    }
}
