//! CertificateSigningRequest: somebody asks for a certificate, somebody else approves, a signer signs.
//!
//! Each of the three writes its own part: the spec is written once; `/approval` writes the conditions; `/status` writes the
//! certificate and every condition but the approval's.

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::{Value, json};

use crate::field::ErrorList;
use crate::kinds::cells::{self, NONE, column};
use crate::kinds::tree::{carry, int, list, list_mut, object, remove, set, some, text};
use crate::object::format_time;
use crate::resource::{Column, Descriptor};
use crate::strategy::{NameRule, Part, Strategy};
use crate::table::human_duration;

mod pem;
mod status;
mod validation;

pub(in crate::kinds) use self::validation::validate_signer;

/// The path that approves or denies.
const APPROVAL: Part = Part::Named("approval");
/// Conditions that only `/approval` writes.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

pub fn descriptor() -> Descriptor {
    Descriptor::of::<CertificateSigningRequest>()
        .short(&["csr"])
        .part("approval")
        .status()
        .columns(columns())
        .selectable(&["spec.signerName"])
        .no_generation()
        .strategy(CertificateSigningRequestStrategy)
}

fn columns() -> Vec<Column> {
    vec![
        cells::name(),
        cells::age(),
        column("SignerName", "string", "The signer that is asked.", |o, _| json!(text(o, "/spec/signerName"))),
        column("Requestor", "string", "Who asks.", |o, _| json!(text(o, "/spec/username"))),
        column("RequestedDuration", "string", "How long the certificate shall be good.", |o, _| {
            json!(int(o, "/spec/expirationSeconds").map_or(NONE.to_owned(), human_duration))
        }),
        column("Condition", "string", "What became of the request.", |o, _| json!(condition(o))),
    ]
}

/// `Pending`, or its decision, its failure and whether there is a certificate.
fn condition(request: &Value) -> String {
    let has = |kind: &str| list(request, "/status/conditions").iter().any(|c| text(c, "/type") == kind);
    let mut parts: Vec<&str> = Vec::new();
    match (has("Denied"), has("Approved")) {
        (true, _) => parts.push("Denied"),
        (false, true) => parts.push("Approved"),
        (false, false) => parts.push("Pending"),
    }
    if has("Failed") {
        parts.push("Failed");
    }
    if !text(request, "/status/certificate").is_empty() {
        parts.push("Issued");
    }
    parts.join(",")
}

#[derive(Debug)]
struct CertificateSigningRequestStrategy;

impl Strategy for CertificateSigningRequestStrategy {
    fn prepare_create(&self, request: &mut Value) {
        set(request, "status", json!({}));
    }

    fn validate(&self, request: &Value, errors: &mut ErrorList) {
        validation::validate(request, errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        carry(new, old, "spec");
        let conditions = new.pointer("/status/conditions").cloned();
        match part {
            Part::Main => carry(new, old, "status"),
            APPROVAL => {
                carry(new, old, "status");
                set_conditions(new, conditions);
            }
            _ => keep_decisions(new, old),
        }
        if part != Part::Main {
            stamp(new, old, Timestamp::now());
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Main {
            validation::validate(new, errors);
        }
        status::validate_update(new, old, part, errors);
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }
}

fn set_conditions(request: &mut Value, conditions: Option<Value>) {
    let Some(status) = object(request, "status") else { return };
    match conditions {
        Some(conditions) => set(status, "conditions", conditions),
        None => drop(remove(status, "conditions")),
    }
}

/// A signer that read the request before it was decided must not undo the decision: it is carried over.
fn keep_decisions(new: &mut Value, old: &Value) {
    let decided = |c: &&Value| DECISIONS.contains(&text(c, "/type"));
    let kept: Vec<Value> = list(old, "/status/conditions").iter().filter(decided).cloned().collect();
    if kept.is_empty() {
        return;
    }
    let missing = |k: &Value| !list(new, "/status/conditions").iter().any(|c| text(c, "/type") == text(k, "/type"));
    let missing: Vec<Value> = kept.into_iter().filter(|k| missing(k)).collect();
    let mut all = list(new, "/status/conditions").to_vec();
    all.splice(0..0, missing);
    set_conditions(new, Some(all.into()));
}

/// Writes when a condition was last updated and when it last changed, where the client did not.
fn stamp(new: &mut Value, old: &Value, now: Timestamp) {
    let before = list(old, "/status/conditions").to_vec();
    let Some(status) = object(new, "status") else { return };
    for condition in list_mut(status, "conditions") {
        if some(condition, "/lastUpdateTime").is_none() {
            set(condition, "lastUpdateTime", format_time(now));
        }
        if some(condition, "/lastTransitionTime").is_some() {
            continue;
        }
        let same = |c: &&Value| {
            ["/type", "/status"].iter().all(|p| text(c, p) == text(condition, p))
                && some(c, "/lastTransitionTime").is_some()
        };
        let since = before.iter().find(same).map(|c| text(c, "/lastTransitionTime").to_owned());
        set(condition, "lastTransitionTime", since.unwrap_or_else(|| format_time(now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(old: &Value, status: &Value, part: Part) -> Value {
        let mut new = json!({"spec": {"signerName": "other.example/x"}, "status": status});
        CertificateSigningRequestStrategy.prepare_update(&mut new, old, part);
        assert_eq!(new["spec"], old["spec"], "the spec is written once");
        new["status"].clone()
    }

    #[test]
    fn each_path_writes_its_own_part() {
        let old = json!({"spec": {"signerName": "example.com/a"}, "status": {"certificate": "b2xk"}});
        let wanted = json!({"certificate": "bmV3", "conditions": [{"type": "Approved", "status": "True"}]});
        assert_eq!(update(&old, &wanted, Part::Main), old["status"]);
        let approved = update(&old, &wanted, APPROVAL);
        assert_eq!(approved["certificate"], "b2xk");
        assert_eq!(approved["conditions"][0]["type"], "Approved");
        for field in ["lastUpdateTime", "lastTransitionTime"] {
            assert!(approved["conditions"][0][field].is_string(), "{field}");
        }
        assert_eq!(update(&old, &wanted, Part::Status)["certificate"], "bmV3");
    }

    #[test]
    fn a_signer_that_has_not_seen_the_decision_keeps_it() {
        let condition = json!({"type": "Approved", "status": "True", "lastUpdateTime": "2026-01-01T00:00:00Z",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let old = json!({"spec": {}, "status": {"conditions": [condition]}});
        let status = update(&old, &json!({"certificate": "bmV3"}), Part::Status);
        assert_eq!(status, json!({"certificate": "bmV3", "conditions": [condition]}));
    }

    #[test]
    fn a_row_says_what_became_of_it() {
        let with = |types: &[&str], certificate: &str| {
            let conditions: Vec<Value> = types.iter().map(|t| json!({"type": t})).collect();
            condition(&json!({"status": {"conditions": conditions, "certificate": certificate}}))
        };
        assert_eq!(with(&[], ""), "Pending");
        assert_eq!(with(&["Approved"], "x"), "Approved,Issued");
        assert_eq!(with(&["Approved", "Failed"], ""), "Approved,Failed");
        assert_eq!(with(&["Denied"], ""), "Denied");
    }
}
