//! What to do next about a certificate request. No I/O.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

use crate::auth::certificates::{CLIENT, NODE_CLIENT, NODE_SERVING};
use crate::auth::signing::{Asked, Terms, has_ended};
use crate::auth::{NODE_PREFIX, NODES};

/// The longest life of a certificate, and what is given when nothing is asked.
const LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);
/// For clocks that are behind.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// How long what is answered stays to be read, and what is not answered to be decided.
const ANSWERED: SignedDuration = SignedDuration::from_hours(1);
const PENDING: SignedDuration = SignedDuration::from_hours(24);

/// What to do.
#[derive(Debug)]
pub(super) enum Step {
    /// Look again after this time.
    Wait(Duration),
    Remove,
    /// Approve if the requestor may create one of these subresources; the message says which.
    Recognize(&'static [(&'static str, &'static str)]),
    Sign(Box<Asked>, Terms),
    Fail(String),
}

/// A node that renews its certificate, or a machine that becomes a node.
const SELF: (&str, &str) =
    ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.");
const ANY: (&str, &str) = ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");

pub(super) fn plan(request: &CertificateSigningRequest, now: Timestamp) -> Step {
    let remaining = end(request).map(|end| end.duration_since(now));
    let certificate = request.status.as_ref().and_then(|status| status.certificate.as_ref());
    if remaining.is_some_and(|left| !left.is_positive()) || certificate.is_some_and(|pem| has_ended(&pem.0)) {
        return Step::Remove;
    }
    let wait = Step::Wait(remaining.and_then(|left| left.unsigned_abs().into()).unwrap_or(Duration::from_hours(1)));
    if certificate.is_some() || condition(request, "Denied").is_some() || condition(request, "Failed").is_some() {
        return wait;
    }
    let signer = request.spec.signer_name.as_str();
    let approved = condition(request, "Approved").is_some();
    if !matches!(signer, CLIENT | NODE_CLIENT | NODE_SERVING) || (!approved && signer != NODE_CLIENT) {
        return wait;
    }
    let usages = request.spec.usages.clone().unwrap_or_default();
    let judged = match Asked::parse(&request.spec.request.0) {
        Ok(asked) => judge(signer, &asked, &usages).map(|()| asked),
        Err(error) => Err(error.to_string()),
    };
    match (judged, approved) {
        (Ok(asked), true) => Step::Sign(Box::new(asked), terms(request, usages, now)),
        (Ok(asked), false) if request.spec.username.as_deref() == Some(asked.common_name.as_str()) => {
            Step::Recognize(&[SELF, ANY])
        }
        (Ok(_), false) => Step::Recognize(&[ANY]),
        (Err(why), true) => Step::Fail(why),
        // A person may still look at it.
        (Err(_), false) => wait,
    }
}

fn condition<'a>(request: &'a CertificateSigningRequest, kind: &str) -> Option<&'a CertificateSigningRequestCondition> {
    request.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// When the request is over.
fn end(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let decided = |kind: &str| condition(request, kind).and_then(|c| c.last_update_time.as_ref()).map(|time| time.0);
    let issued = request.status.as_ref().is_some_and(|status| status.certificate.is_some());
    let answered = decided("Denied").or(decided("Failed")).or(decided("Approved").filter(|_| issued));
    match answered {
        Some(at) => at.checked_add(ANSWERED).ok(),
        // What is approved waits for its signer as long as that takes.
        None if condition(request, "Approved").is_some() => None,
        None => request.metadata.creation_timestamp.as_ref()?.0.checked_add(PENDING).ok(),
    }
}

fn terms(request: &CertificateSigningRequest, usages: Vec<String>, now: Timestamp) -> Terms {
    let asked = request.spec.expiration_seconds.map(|seconds| SignedDuration::from_secs(seconds.into()));
    let life = asked.unwrap_or(LIFE).clamp(SignedDuration::from_mins(10), LIFE);
    Terms { usages, from: now.saturating_sub(SKEW).unwrap_or(now), until: now.saturating_add(life).unwrap_or(now) }
}

/// What each signer signs; the message is the condition's.
fn judge(signer: &str, asked: &Asked, usages: &[String]) -> Result<(), String> {
    let has = |usage: &str| usages.iter().any(|u| u == usage);
    let only = |allowed: &[&str]| usages.iter().all(|u| allowed.contains(&u.as_str()));
    let fits = |purpose: &str| has(purpose) && only(&["digital signature", "key encipherment", purpose]);
    if signer == CLIENT {
        let why =
            "usages must include \"client auth\" and otherwise only \"digital signature\" and \"key encipherment\"";
        return if fits("client auth") { Ok(()) } else { Err(why.to_owned()) };
    }
    if asked.organizations != [NODES] {
        return Err(format!("subject organization is not {NODES}"));
    }
    match asked.common_name.strip_prefix(NODE_PREFIX) {
        Some("") => return Err("subject common name has no node's name".to_owned()),
        Some(_) => {}
        None => return Err(format!("subject common name does not begin with {NODE_PREFIX}")),
    }
    if asked.emails > 0 {
        return Err("email subjectAltNames are not allowed".to_owned());
    }
    if asked.uris > 0 {
        return Err("URI subjectAltNames are not allowed".to_owned());
    }
    let purpose = if signer == NODE_CLIENT { "client auth" } else { "server auth" };
    match (signer, asked.dns_names, asked.addresses) {
        (NODE_CLIENT, 1.., _) => Err("DNS subjectAltNames are not allowed".to_owned()),
        (NODE_CLIENT, _, 1..) => Err("IP subjectAltNames are not allowed".to_owned()),
        (NODE_SERVING, 0, 0) => Err("DNS or IP subjectAltName is required".to_owned()),
        _ if has("digital signature") && fits(purpose) => Ok(()),
        _ => Err(format!("usages did not match: \"digital signature\", {purpose:?} and perhaps \"key encipherment\"")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(in super::super) fn request(organization: &str, name: &str) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.serialize_request(&key).unwrap().pem().unwrap().into_bytes()
    }

    pub(in super::super) fn object(
        signer: &str,
        user: &str,
        pem: Vec<u8>,
        conditions: Value,
    ) -> CertificateSigningRequest {
        serde_json::from_value(json!({
            "metadata": {"name": "r", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"signerName": signer, "username": user, "request": k8s_openapi::ByteString(pem),
                "usages": ["digital signature", "client auth"]},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn approved(at: &str) -> Value {
        json!([{"type": "Approved", "status": "True", "lastUpdateTime": at}])
    }

    #[test]
    fn a_nodes_own_request_is_recognized_and_a_strangers_is_not() {
        let now = at("2026-01-01T00:00:10Z");
        let pem = || request(NODES, "system:node:n1");
        let own = object(NODE_CLIENT, "system:node:n1", pem(), json!([]));
        assert!(matches!(plan(&own, now), Step::Recognize([SELF, ANY])));
        let new = object(NODE_CLIENT, "system:bootstrap:abcdef", pem(), json!([]));
        assert!(matches!(plan(&new, now), Step::Recognize([ANY])));
        let other = object(NODE_CLIENT, "jane", request("system:masters", "jane"), json!([]));
        assert!(matches!(plan(&other, now), Step::Wait(_)));
        let client = object(CLIENT, "jane", request("dev", "jane"), json!([]));
        assert!(matches!(plan(&client, now), Step::Wait(_)));
    }

    #[test]
    fn what_is_approved_is_signed_if_its_signer_signs_such() {
        let now = at("2026-01-01T00:00:10Z");
        let yes = || approved("2026-01-01T00:00:05Z");
        let client = object(CLIENT, "jane", request("dev", "jane"), yes());
        assert!(matches!(plan(&client, now), Step::Sign(..)));
        let foreign = object("example.com/mine", "jane", request("dev", "jane"), yes());
        assert!(matches!(plan(&foreign, now), Step::Wait(_)));
        let serving = object(NODE_SERVING, "system:node:n1", request(NODES, "system:node:n1"), yes());
        let Step::Fail(why) = plan(&serving, now) else { panic!("no names") };
        assert_eq!(why, "DNS or IP subjectAltName is required");
        let masters = object(NODE_CLIENT, "jane", request("system:masters", "jane"), yes());
        assert!(matches!(plan(&masters, now), Step::Fail(_)));
        let broken = object(CLIENT, "jane", b"no pem".to_vec(), yes());
        assert!(matches!(plan(&broken, now), Step::Fail(_)));
    }

    #[test]
    fn what_is_over_is_removed() {
        let pem = || request("dev", "jane");
        let denied = json!([{"type": "Denied", "status": "True", "lastUpdateTime": "2026-01-01T00:00:00Z"}]);
        let denied = object(CLIENT, "jane", pem(), denied);
        assert!(matches!(plan(&denied, at("2026-01-01T00:59:00Z")), Step::Wait(_)));
        assert!(matches!(plan(&denied, at("2026-01-01T01:00:01Z")), Step::Remove));
        let pending = object(CLIENT, "jane", pem(), json!([]));
        assert!(matches!(plan(&pending, at("2026-01-01T23:00:00Z")), Step::Wait(_)));
        assert!(matches!(plan(&pending, at("2026-01-02T00:00:01Z")), Step::Remove));
    }
}
