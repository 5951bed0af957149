//! Who may approve, sign and ask for certificates: Kubernetes' admission plugins CertificateApproval, CertificateSigning and
//! CertificateSubjectRestriction.

use serde_json::Value;
use wherry_api::object;

use super::signing::Asked;
use super::{Attributes, Authorizer, MASTERS, Refusal, UserInfo};

pub const GROUP: &str = "certificates.k8s.io";
/// Client certificates of people and programs.
pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Client certificates of nodes.
pub const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Certificates of nodes' own servers.
pub const NODE_SERVING: &str = "kubernetes.io/kubelet-serving";

/// Judges a write of a CertificateSigningRequest; anything else passes.
pub async fn check(
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    attributes: &Attributes,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Refusal> {
    let Some(new) = new.filter(|_| attributes.group == GROUP && attributes.resource == "certificatesigningrequests")
    else {
        return Ok(());
    };
    match (attributes.subresource.as_str(), old) {
        ("approval", Some(old)) => {
            may(authorizer, user, attributes, &object::text_at(old, "spec.signerName"), "approve").await
        }
        ("status", Some(old)) if signs(new, old) => {
            may(authorizer, user, attributes, &object::text_at(old, "spec.signerName"), "sign").await
        }
        ("", None) => {
            is_asked_by(new, user)?;
            no_administrators(new)
        }
        _ => Ok(()),
    }
}

/// Admission may not put another requester's name in.
fn is_asked_by(new: &Value, user: &UserInfo) -> Result<(), Refusal> {
    let groups = object::at(new, "spec.groups").and_then(Value::as_array);
    let groups: Vec<&str> = groups.into_iter().flatten().filter_map(Value::as_str).collect();
    let same = object::text_at(new, "spec.username") == user.name
        && object::text_at(new, "spec.uid") == user.uid
        && user.groups.iter().eq(&groups);
    if same {
        Ok(())
    } else {
        Err(Refusal::Forbidden("spec.username, spec.uid and spec.groups are the requester's".to_owned()))
    }
}

/// Whether an update of the status does what a signer does.
fn signs(new: &Value, old: &Value) -> bool {
    let part = |request: &Value, path: &str| request.pointer(path).cloned().unwrap_or_default();
    ["/status/certificate", "/status/conditions"].iter().any(|path| part(new, path) != part(old, path))
}

/// Verbs on `signers` are given for one signer or for all of a domain (`example.com/*`).
async fn may(
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    attributes: &Attributes,
    signer: &str,
    verb: &str,
) -> Result<(), Refusal> {
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    for name in [signer.to_owned(), format!("{domain}/*")] {
        let asked = Attributes {
            verb: verb.to_owned(),
            group: GROUP.to_owned(),
            version: "*".to_owned(),
            resource: "signers".to_owned(),
            name,
            ..Attributes::default()
        };
        if authorizer.authorize(user, &asked).await.allowed() {
            return Ok(());
        }
    }
    tracing::debug!(user = user.name, request = attributes.name, verb, "a certificate request was not touched");
    Err(Refusal::Forbidden(format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

/// Nobody becomes an administrator by a certificate that somebody else approves without looking.
fn no_administrators(new: &Value) -> Result<(), Refusal> {
    if object::text_at(new, "spec.signerName") != CLIENT {
        return Ok(());
    }
    match asked(new) {
        Some(asked) if asked.organizations.iter().any(|group| group == MASTERS) => {
            Err(Refusal::Forbidden(format!("use of {CLIENT} signer with {MASTERS} group is not allowed")))
        }
        _ => Ok(()),
    }
}

/// What the PEM in a request object asks for; `None` if it cannot be read, which the signer will say.
pub(super) fn asked(request: &Value) -> Option<Asked> {
    use base64::Engine;
    let text = object::text_at(request, "spec.request");
    Asked::parse(&base64::engine::general_purpose::STANDARD.decode(text).ok()?).ok()
}
