//! What an update may do to conditions and certificate, and through which path.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{APPROVAL, DECISIONS, pem};
use crate::field::{ErrorList, Path};
use crate::kinds::tree::{list, text};
use crate::strategy::Part;

pub(super) fn validate_update(new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
    let status = Path::new("status");
    conditions(list(new, "/status/conditions"), &status.child("conditions"), errors);
    for kind in ["Approved", "Denied", "Failed"] {
        let may_add = if DECISIONS.contains(&kind) { part == APPROVAL } else { part != Part::Main };
        keeps(new, old, kind, may_add, &status.child("conditions"), errors);
    }
    let (before, after) = (text(old, "/status/certificate"), text(new, "/status/certificate"));
    let path = status.child("certificate");
    if before.is_empty() && !after.is_empty() {
        if let Err(why) = check_certificate(after) {
            errors.invalid(&path, &json!("<certificate data>"), &why);
        }
    } else if before != after {
        errors.forbidden(&path, "updates may not modify existing certificate content");
    }
}

fn conditions(all: &[Value], path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (index, condition) in all.iter().enumerate() {
        let (path, kind) = (path.index(index), text(condition, "/type"));
        if kind.is_empty() {
            errors.required(&path.child("type"), "");
        }
        let decides = DECISIONS.contains(&kind) || kind == "Failed";
        let allowed: &[&str] = if decides { &["True"] } else { &["False", "True", "Unknown"] };
        match text(condition, "/status") {
            "" => errors.required(&path.child("status"), ""),
            other if !allowed.contains(&other) => errors.not_supported(&path.child("status"), other, allowed),
            _ => {}
        }
        let other = DECISIONS.iter().find(|d| DECISIONS.contains(&kind) && **d != kind);
        if other.is_some_and(|other| seen.contains(other)) {
            let why = "Approved and Denied conditions are mutually exclusive";
            errors.invalid(&path.child("type"), &json!(kind), why);
        }
        if !seen.insert(kind) {
            errors.duplicate(&path.child("type"), &json!(kind));
        }
    }
}

/// Conditions of these types, once there, stay as they are.
fn keeps(new: &Value, old: &Value, kind: &str, may_add: bool, path: &Path, errors: &mut ErrorList) {
    let of = |request: &Value| -> Vec<Value> {
        list(request, "/status/conditions").iter().filter(|c| text(c, "/type") == kind).cloned().collect()
    };
    let (before, after) = (of(old), of(new));
    let mut forbid =
        |what: &str| errors.forbidden(path, &format!("updates may not {what} a condition of type {kind:?}"));
    if after.len() < before.len() {
        forbid("remove");
    } else if after.len() > before.len() && !may_add {
        forbid("add");
    } else if after.len() == before.len() && after != before && !may_add {
        forbid("modify");
    }
}

fn check_certificate(encoded: &str) -> Result<(), String> {
    let text = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let blocks = pem::blocks(&text).unwrap_or_default();
    if blocks.is_empty() {
        return Err("must contain at least one CERTIFICATE PEM block".to_owned());
    }
    for (label, der) in blocks {
        if label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {label:?}"));
        }
        if !pem::is_sequence(&der) {
            return Err("found CERTIFICATE PEM block that is not one DER sequence".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn judge(new: &Value, old: &Value, part: Part) -> Vec<String> {
        let (new, old) = (json!({ "status": new }), json!({ "status": old }));
        complaints(|errors| validate_update(&new, &old, part, errors))
    }

    #[test]
    fn only_approval_decides_and_no_decision_is_taken_back() {
        let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        assert!(judge(&approved, &json!({}), APPROVAL).is_empty());
        assert_eq!(
            judge(&approved, &json!({}), Part::Status),
            ["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""]
        );
        assert_eq!(
            judge(&json!({}), &approved, APPROVAL),
            ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
        );
        let both =
            json!({"conditions": [{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]});
        assert_eq!(
            judge(&both, &approved, APPROVAL),
            [
                "status.conditions[1].type: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"
            ]
        );
        let failed = json!({"conditions": [{"type": "Failed", "status": "False"}]});
        assert_eq!(
            judge(&failed, &json!({}), Part::Status),
            ["status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\""]
        );
    }

    #[test]
    fn a_certificate_is_pem_and_written_once() {
        let pem = |label: &str| {
            let text = format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n");
            json!({"certificate": STANDARD.encode(text)})
        };
        assert!(judge(&pem("CERTIFICATE"), &json!({}), Part::Status).is_empty());
        assert_eq!(
            judge(&pem("KEY"), &json!({}), Part::Status),
            [
                "status.certificate: Invalid value: \"<certificate data>\": only CERTIFICATE PEM blocks are allowed, found \
              \"KEY\""
            ]
        );
        assert_eq!(
            judge(&pem("CERTIFICATE"), &json!({"certificate": "eA=="}), Part::Status),
            ["status.certificate: Forbidden: updates may not modify existing certificate content"]
        );
    }
}
