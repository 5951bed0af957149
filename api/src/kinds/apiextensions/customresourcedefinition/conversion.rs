//! How a definition's versions convert: not at all, or through a webhook.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::check::{strings, webhook_service, webhook_url};
use crate::kinds::tree::{some, text};
use crate::meta::names::dns1035_label;

/// Versions of ConversionReview that are spoken.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

pub(super) fn validate(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let conversion = spec.get("conversion").unwrap_or(&Value::Null);
    let webhook = some(conversion, "/webhook");
    let client = webhook.and_then(|webhook| some(webhook, "/clientConfig"));
    let client_path = path.child("webhookClientConfig");
    let reviews = webhook.map(|webhook| strings(webhook, "/conversionReviewVersions")).unwrap_or_default();
    match text(conversion, "/strategy") {
        "" => errors.required(&path.child("strategy"), ""),
        "Webhook" => {
            match client {
                None => errors.required(&client_path, "required when strategy is set to Webhook"),
                Some(client) => validate_client(client, &client_path, errors),
            }
            review_versions(&reviews, &path.child("conversionReviewVersions"), errors);
        }
        "None" => {
            let why = "should not be set when strategy is not set to Webhook";
            if client.is_some() {
                errors.forbidden(&client_path, why);
            }
            if !reviews.is_empty() {
                errors.forbidden(&path.child("conversionReviewVersions"), why);
            }
        }
        other => errors.not_supported(&path.child("strategy"), other, &["None", "Webhook"]),
    }
}

fn validate_client(client: &Value, path: &Path, errors: &mut ErrorList) {
    match (some(client, "/url"), some(client, "/service")) {
        (Some(url), None) => webhook_url(url.as_str().unwrap_or_default(), &path.child("url"), errors),
        (None, Some(service)) => webhook_service(service, &path.child("service"), errors),
        _ => errors.required(path, "exactly one of url or service is required"),
    }
}

fn review_versions(versions: &[&str], path: &Path, errors: &mut ErrorList) {
    if versions.is_empty() {
        return errors.required(path, "");
    }
    let mut seen = HashSet::new();
    for (index, version) in versions.iter().enumerate() {
        let complaints = dns1035_label(version);
        if !seen.insert(version) {
            errors.invalid(&path.index(index), &json!(version), "duplicate version");
        } else if !complaints.is_empty() {
            errors.invalid(&path.index(index), &json!(version), &complaints.join(","));
        }
    }
    if !versions.iter().any(|version| REVIEWS.contains(version)) {
        errors.invalid(path, &json!(versions), &format!("must include at least one of {}", REVIEWS.join(", ")));
    }
}
