//! Which requests a FlowSchema is about: of whom, to do what.

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::check::strings;
use crate::kinds::tree::{is_true, list, some, text};
use crate::meta::{names, push_all};

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
/// Kinds of subjects, and the field of each.
const SUBJECTS: [(&str, &str); 3] = [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];

pub(super) fn validate(rule: &Value, path: &Path, errors: &mut ErrorList) {
    let subjects = list(rule, "/subjects");
    if subjects.is_empty() {
        errors.required(&path.child("subjects"), "subjects must contain at least one value");
    }
    for (index, subject) in subjects.iter().enumerate() {
        validate_subject(subject, &path.child("subjects").index(index), errors);
    }
    let (resources, others) = (list(rule, "/resourceRules"), list(rule, "/nonResourceRules"));
    if resources.is_empty() && others.is_empty() {
        errors.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for (index, rule) in resources.iter().enumerate() {
        validate_resources(rule, &path.child("resourceRules").index(index), errors);
    }
    for (index, rule) in others.iter().enumerate() {
        let path = path.child("nonResourceRules").index(index);
        verbs(rule, &path, errors);
        let what = ("non-resource URLs", "nonResourceURLs must contain at least one value");
        if members(rule, "nonResourceURLs", what, &path, errors) {
            for (index, url) in strings(rule, "/nonResourceURLs").iter().enumerate() {
                validate_url(url, &path.child("nonResourceURLs").index(index), errors);
            }
        }
    }
}

fn validate_subject(subject: &Value, path: &Path, errors: &mut ErrorList) {
    let kind = text(subject, "/kind");
    let Some((_, own)) = SUBJECTS.iter().find(|(known, _)| *known == kind) else {
        return errors.not_supported(&path.child("kind"), kind, &SUBJECTS.map(|(known, _)| known));
    };
    match some(subject, &format!("/{own}")) {
        None => errors.required(&path.child(own), &format!("{own} is required when subject kind is '{kind}'")),
        Some(named) => validate_named(named, kind, &path.child(own), errors),
    }
    for (other, field) in SUBJECTS.iter().filter(|(other, _)| *other != kind) {
        if some(subject, &format!("/{field}")).is_some() {
            errors.forbidden(&path.child(field), &format!("{field} is forbidden when subject kind is not '{other}'"));
        }
    }
}

fn validate_named(subject: &Value, kind: &str, path: &Path, errors: &mut ErrorList) {
    let name = text(subject, "/name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    if kind != "ServiceAccount" {
        return;
    }
    if !matches!(name, "" | "*") {
        push_all(errors, &path.child("name"), name, names::dns1123_subdomain(name));
    }
    match text(subject, "/namespace") {
        "" => errors.required(&path.child("namespace"), "must specify namespace for service account"),
        namespace => push_all(errors, &path.child("namespace"), namespace, names::dns1123_label(namespace)),
    }
}

fn validate_resources(rule: &Value, path: &Path, errors: &mut ErrorList) {
    verbs(rule, path, errors);
    members(rule, "apiGroups", ("api groups", "resource rules must supply at least one api group"), path, errors);
    members(rule, "resources", ("resources", "resource rules must supply at least one resource"), path, errors);
    let namespaces = strings(rule, "/namespaces");
    let required = "resource rules that are not cluster scoped must supply at least one namespace";
    if namespaces.is_empty() && is_true(rule, "/clusterScope") {
        return;
    }
    if members(rule, "namespaces", ("namespaces", required), path, errors) {
        for (index, namespace) in namespaces.iter().enumerate() {
            for complaint in names::dns1123_label(namespace) {
                let why = format!("each member of this list must be '*' or a DNS-1123 label; {complaint}");
                errors.invalid(&path.child("namespaces").index(index), &json!(namespace), &why);
            }
        }
    }
}

fn verbs(rule: &Value, path: &Path, errors: &mut ErrorList) {
    let unknown = strings(rule, "/verbs").iter().any(|v| !VERBS.contains(v));
    if members(rule, "verbs", ("verbs", "verbs must contain at least one value"), path, errors) && unknown {
        let listed = rule.get("verbs").unwrap_or(&Value::Null).to_string();
        errors.not_supported(&path.child("verbs"), &listed, VERBS);
    }
}

/// Judges a list that is not empty and in which `*` stands alone; whether its members are left to judge.
fn members(rule: &Value, field: &str, (what, required): (&str, &str), path: &Path, errors: &mut ErrorList) -> bool {
    let values = strings(rule, &format!("/{field}"));
    let path = path.child(field);
    if values.is_empty() {
        errors.required(&path, required);
    } else if values.contains(&"*") && values.len() > 1 {
        let why = format!("if '*' is present, must not specify other {what}");
        errors.invalid(&path, rule.get(field).unwrap_or(&Value::Null), &why);
    }
    !values.contains(&"*")
}

fn validate_url(url: &str, path: &Path, errors: &mut ErrorList) {
    let why = match url {
        "" => "must not be empty",
        "/" => return,
        _ if !url.starts_with('/') => "must start with slash",
        _ if url.contains(' ') => "must not contain white-space",
        _ if url.contains("//") => "must not contain double slash",
        _ if url.contains('*') && (url.matches('*').count() > 1 || !url.ends_with("/*")) => {
            "wildcard can only do suffix matching"
        }
        _ => return,
    };
    errors.invalid(path, &json!(url), why);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn rule(change: &Value) -> Vec<String> {
        let rule = json!({"subjects": [{"kind": "User", "user": {"name": "*"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}]});
        let rule = crate::patch::merge::apply(&rule, change);
        complaints(|errors| validate(&rule, &Path::new("r"), errors))
    }

    #[test]
    fn a_subject_has_the_field_of_its_kind() {
        for (subject, count) in [
            (json!({"kind": "Group", "group": {"name": "g"}}), 0),
            (json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "n"}}), 0),
            (json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*"}}), 1),
            (json!({"kind": "Group"}), 1),
            (json!({"kind": "Group", "group": {"name": "g"}, "user": {"name": "u"}}), 1),
            (json!({"kind": "Dog"}), 1),
        ] {
            assert_eq!(rule(&json!({"subjects": [subject]})).len(), count, "{subject}");
        }
        assert_eq!(
            rule(&json!({"subjects": []})),
            ["r.subjects: Required value: subjects must contain at least one value"]
        );
    }

    #[test]
    fn a_star_stands_alone_and_urls_are_paths() {
        assert_eq!(
            rule(
                &json!({"resourceRules": [{"verbs": ["get", "*"], "apiGroups": [""], "resources": ["x"], "clusterScope": true}]})
            ),
            [
                "r.resourceRules[0].verbs: Invalid value: [\"get\",\"*\"]: if '*' is present, must not specify other verbs"
            ]
        );
        for (url, count) in [("/", 0), ("/a/*", 0), ("*", 0), ("a", 1), ("/a//b", 1), ("/a*", 1), ("/*/a", 1)] {
            let others = json!([{"verbs": ["get"], "nonResourceURLs": [url]}]);
            assert_eq!(rule(&json!({"resourceRules": null, "nonResourceRules": others})).len(), count, "{url}");
        }
    }
}
