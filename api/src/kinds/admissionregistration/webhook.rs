//! One webhook of a Mutating- or ValidatingWebhookConfiguration.
//!
//! An update of a configuration that was stored under older rules may keep what they allowed: [`Lenient`] says what.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::expressions::Scope;
use super::{matching, rules};
use crate::field::{ErrorList, Path};
use crate::kinds::apps::template::validate_selector;
use crate::kinds::cells::{self, column};
use crate::kinds::check::{fully_qualified, one_of, strings, webhook_service, webhook_url};
use crate::kinds::tree::{fill, int, list, list_mut, object, some, text};
use crate::meta::{names, push_all};
use crate::resource::Column;

const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
const REINVOCATION_POLICIES: &[&str] = &["IfNeeded", "Never"];
/// Side effects that a webhook may have: those that a dry run does not.
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
/// Versions of AdmissionReview that the API server speaks.
const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];

pub(super) fn columns() -> Vec<Column> {
    vec![
        cells::name(),
        column(
            "Webhooks",
            "integer",
            "Webhooks indicates the number of webhooks registered in this configuration",
            |o, _| json!(list(o, "/webhooks").len()),
        ),
        cells::age(),
    ]
}

pub(super) fn default(configuration: &mut Value, mutating: bool) {
    for webhook in list_mut(configuration, "webhooks") {
        fill(webhook, "failurePolicy", "Fail");
        fill(webhook, "matchPolicy", "Equivalent");
        object(webhook, "namespaceSelector");
        object(webhook, "objectSelector");
        fill(webhook, "timeoutSeconds", 10);
        if mutating {
            fill(webhook, "reinvocationPolicy", "Never");
        }
        if let Some(service) = webhook.pointer_mut("/clientConfig/service").filter(|s| s.is_object()) {
            fill(service, "port", 443);
        }
        rules::default(webhook, "rules");
    }
}

/// What a stored configuration has that a new one may not.
#[derive(Clone, Copy, Debug, Default)]
struct Lenient {
    side_effects: bool,
    review_versions: bool,
    names: bool,
}

impl Lenient {
    fn of(old: &Value) -> Self {
        let webhooks = list(old, "/webhooks");
        let names: Vec<&str> = webhooks.iter().map(|w| text(w, "/name")).collect();
        Self {
            side_effects: webhooks.iter().any(|w| !SIDE_EFFECTS.contains(&text(w, "/sideEffects"))),
            review_versions: webhooks.iter().any(|w| !speaks(&strings(w, "/admissionReviewVersions"))),
            names: names.iter().collect::<HashSet<_>>().len() < names.len(),
        }
    }
}

fn speaks(versions: &[&str]) -> bool {
    versions.iter().any(|v| REVIEW_VERSIONS.contains(v))
}

pub(super) fn validate(configuration: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    let lenient = old.map_or_else(Lenient::default, Lenient::of);
    let all = list(configuration, "/webhooks");
    let mut seen = HashSet::new();
    for (index, webhook) in all.iter().enumerate() {
        let path = Path::new("webhooks").index(index);
        validate_one(webhook, lenient, &path, errors);
        let name = text(webhook, "/name");
        let taken = !seen.insert(name);
        if taken && !name.is_empty() && !lenient.names {
            errors.duplicate(&path.child("name"), &json!(name));
        }
    }
}

fn validate_one(webhook: &Value, lenient: Lenient, path: &Path, errors: &mut ErrorList) {
    fully_qualified(text(webhook, "/name"), &path.child("name"), errors);
    for (index, rule) in list(webhook, "/rules").iter().enumerate() {
        rules::validate(rule, &path.child("rules").index(index), errors);
    }
    one_of(webhook, "failurePolicy", path, FAILURE_POLICIES, errors);
    one_of(webhook, "matchPolicy", path, matching::MATCH_POLICIES, errors);
    one_of(webhook, "reinvocationPolicy", path, REINVOCATION_POLICIES, errors);
    side_effects(text(webhook, "/sideEffects"), lenient, &path.child("sideEffects"), errors);
    if let Some(seconds) = int(webhook, "/timeoutSeconds").filter(|s| !(1..=30).contains(s)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        errors.invalid(&path.child("timeoutSeconds"), &json!(seconds), why);
    }
    for field in ["namespaceSelector", "objectSelector"] {
        if let Some(selector) = some(webhook, &format!("/{field}")) {
            validate_selector(selector, &path.child(field), errors);
        }
    }
    client(webhook.get("clientConfig").unwrap_or(&Value::Null), &path.child("clientConfig"), errors);
    matching::validate_conditions(webhook, &Scope::webhook(), path, errors);
    review_versions(webhook, lenient, &path.child("admissionReviewVersions"), errors);
}

fn side_effects(value: &str, lenient: Lenient, path: &Path, errors: &mut ErrorList) {
    let allowed: &[&str] =
        if lenient.side_effects { &["None", "NoneOnDryRun", "Some", "Unknown"] } else { SIDE_EFFECTS };
    if value.is_empty() {
        errors.required(path, &format!("must specify one of {}", allowed.join(", ")));
    } else if !allowed.contains(&value) {
        errors.not_supported(path, value, allowed);
    }
}

fn client(client: &Value, path: &Path, errors: &mut ErrorList) {
    match (some(client, "/url"), some(client, "/service")) {
        (Some(url), None) => webhook_url(url.as_str().unwrap_or_default(), &path.child("url"), errors),
        (None, Some(service)) => webhook_service(service, &path.child("service"), errors),
        _ => errors.required(path, "exactly one of url or service is required"),
    }
}

fn review_versions(webhook: &Value, lenient: Lenient, path: &Path, errors: &mut ErrorList) {
    let versions = strings(webhook, "/admissionReviewVersions");
    let known = REVIEW_VERSIONS.join(", ");
    if versions.is_empty() {
        return errors.required(path, &format!("must specify one of {known}"));
    }
    let mut seen = HashSet::new();
    for (index, version) in versions.iter().enumerate() {
        if seen.insert(version) {
            push_all(errors, &path.index(index), version, names::dns1035_label(version));
        } else {
            errors.invalid(&path.index(index), &json!(version), "duplicate version");
        }
    }
    if !speaks(&versions) && !lenient.review_versions {
        errors.invalid(path, &json!(versions), &format!("must include at least one of {known}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;
    use crate::patch::merge;

    fn configuration(change: &Value) -> Value {
        let webhook = json!({"name": "a.example.com", "clientConfig": {"url": "https://a.example"},
            "sideEffects": "None", "admissionReviewVersions": ["v1"]});
        let mut configuration = json!({"webhooks": [merge::apply(&webhook, change)]});
        default(&mut configuration, true);
        configuration
    }

    #[test]
    fn a_webhook_is_complete() {
        for (change, expected) in [
            (json!({}), None),
            (
                json!({"name": "short"}),
                Some(
                    "webhooks[0].name: Invalid value: \"short\": should be a domain with at least three segments separated by dots",
                ),
            ),
            (
                json!({"sideEffects": null}),
                Some("webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"),
            ),
            (
                json!({"sideEffects": "Some"}),
                Some(
                    "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
                ),
            ),
            (
                json!({"timeoutSeconds": 31}),
                Some(
                    "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
                ),
            ),
            (
                json!({"clientConfig": {"url": null}}),
                Some("webhooks[0].clientConfig: Required value: exactly one of url or service is required"),
            ),
            (json!({"clientConfig": {"url": null, "service": {"name": "s", "namespace": "n"}}}), None),
            (
                json!({"admissionReviewVersions": ["v2"]}),
                Some(
                    "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
                ),
            ),
            (
                json!({"admissionReviewVersions": null}),
                Some("webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1"),
            ),
            (
                json!({"failurePolicy": "Retry"}),
                Some("webhooks[0].failurePolicy: Unsupported value: \"Retry\": supported values: \"Fail\", \"Ignore\""),
            ),
            (
                json!({"reinvocationPolicy": "Always"}),
                Some(
                    "webhooks[0].reinvocationPolicy: Unsupported value: \"Always\": supported values: \"IfNeeded\", \"Never\"",
                ),
            ),
        ] {
            let all = complaints(|errors| validate(&configuration(&change), None, errors));
            assert_eq!(all.iter().map(String::as_str).collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_was_stored_under_older_rules_may_stay() {
        let old = configuration(&json!({"sideEffects": "Some", "admissionReviewVersions": ["v2"]}));
        assert_eq!(complaints(|errors| validate(&old, None, errors)).len(), 2);
        assert!(complaints(|errors| validate(&old, Some(&old), errors)).is_empty());
    }

    #[test]
    fn names_are_distinct() {
        let mut twice = configuration(&json!({}));
        let webhook = twice["webhooks"][0].clone();
        twice["webhooks"].as_array_mut().unwrap().push(webhook);
        assert_eq!(
            complaints(|errors| validate(&twice, None, errors)),
            ["webhooks[1].name: Duplicate value: \"a.example.com\""]
        );
    }

    #[test]
    fn defaults_are_kubernetes() {
        let webhook = configuration(&json!({"rules": [{"operations": ["*"]}]}))["webhooks"][0].clone();
        for (field, value) in [
            ("failurePolicy", json!("Fail")),
            ("matchPolicy", json!("Equivalent")),
            ("namespaceSelector", json!({})),
            ("objectSelector", json!({})),
            ("timeoutSeconds", json!(10)),
            ("reinvocationPolicy", json!("Never")),
            ("rules", json!([{"operations": ["*"], "scope": "*"}])),
        ] {
            assert_eq!(webhook[field], value, "{field}");
        }
    }
}
