//! What a request must say: a PKCS#10 request in PEM, a signer, usages.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::pem;
use crate::field::{ErrorList, Path};
use crate::kinds::check::strings;
use crate::kinds::tree::{int, text};
use crate::meta::{names, push_all};

/// Sorted, as Kubernetes' message lists them.
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const SHORTEST: i64 = 600;
/// A domain, a slash, and a subdomain of a namespace's and a name's length.
const SIGNER_MAX: usize = 253 + 1 + 63 + 1 + 253;

pub(super) fn validate(request: &Value, errors: &mut ErrorList) {
    let spec = Path::new("spec");
    if let Err(why) = check_request(text(request, "/spec/request")) {
        errors.invalid(&spec.child("request"), request.pointer("/spec/request").unwrap_or(&Value::Null), why);
    }
    usages(&strings(request, "/spec/usages"), &spec.child("usages"), errors);
    signer(text(request, "/spec/signerName"), &spec.child("signerName"), errors);
    if let Some(seconds) = int(request, "/spec/expirationSeconds").filter(|s| *s < SHORTEST) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid(&spec.child("expirationSeconds"), &json!(seconds), why);
    }
}

fn check_request(encoded: &str) -> Result<(), &'static str> {
    const TYPE: &str = "PEM block type must be CERTIFICATE REQUEST";
    let bytes = STANDARD.decode(encoded).map_err(|_| TYPE)?;
    let text = String::from_utf8(bytes).map_err(|_| TYPE)?;
    let blocks = pem::blocks(&text).ok_or(TYPE)?;
    match blocks.first() {
        Some(("CERTIFICATE REQUEST", der)) if pem::is_sequence(der) => Ok(()),
        Some(("CERTIFICATE REQUEST", _)) => Err("asn1: structure error: the request is not one DER sequence"),
        _ => Err(TYPE),
    }
}

fn usages(usages: &[&str], path: &Path, errors: &mut ErrorList) {
    if usages.is_empty() {
        errors.required(path, "");
    }
    let mut seen = HashSet::new();
    for (index, usage) in usages.iter().enumerate() {
        if !USAGES.contains(usage) {
            errors.not_supported(&path.index(index), usage, USAGES);
        }
        if !seen.insert(usage) {
            errors.duplicate(&path.index(index), &json!(usage));
        }
    }
}

fn signer(name: &str, path: &Path, errors: &mut ErrorList) {
    if name == "kubernetes.io/legacy-unknown" {
        return errors.invalid(path, &json!(name), "the legacy signerName is not allowed via this API version");
    }
    validate_signer(name, path, errors);
}

/// Judges the name of a signer, `example.com/name`.
pub(in crate::kinds) fn validate_signer(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    let [domain, local] = *name.split('/').collect::<Vec<_>>() else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.invalid(path, &json!(name), why);
    };
    push_all(errors, path, domain, names::dns1123_subdomain(domain));
    if !domain.contains('.') {
        errors.invalid(path, &json!(domain), "should be a domain with at least two segments separated by dots");
    }
    push_all(errors, path, local, names::dns1123_subdomain(local));
    if name.len() > SIGNER_MAX {
        errors.too_long(path, SIGNER_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn judge(change: &Value) -> Vec<String> {
        let pem = "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n";
        let spec = json!({"request": STANDARD.encode(pem), "signerName": "example.com/a", "usages": ["client auth"]});
        let spec = crate::patch::merge::apply(&spec, change);
        complaints(|errors| validate(&json!({ "spec": spec }), errors))
    }

    #[test]
    fn a_request_names_signer_and_usages() {
        assert!(judge(&json!({})).is_empty());
        for (change, expected) in [
            (json!({"usages": null}), "spec.usages: Required value"),
            (json!({"usages": ["signing", "signing"]}), "spec.usages[1]: Duplicate value: \"signing\""),
            (json!({"signerName": null}), "spec.signerName: Required value"),
            (
                json!({"signerName": "kubernetes.io/legacy-unknown"}),
                "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not \
                 allowed via this API version",
            ),
            (
                json!({"signerName": "mine"}),
                "spec.signerName: Invalid value: \"mine\": must be a fully qualified domain and path of the form \
                 'example.com/signer-name'",
            ),
            (
                json!({"signerName": "mine/a"}),
                "spec.signerName: Invalid value: \"mine\": should be a domain with at least two segments separated by \
                 dots",
            ),
            (
                json!({"expirationSeconds": 599}),
                "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 \
                 minutes)",
            ),
            (
                json!({"request": "bm90IHBlbQ=="}),
                "spec.request: Invalid value: \"bm90IHBlbQ==\": PEM block type must be CERTIFICATE REQUEST",
            ),
        ] {
            assert_eq!(judge(&change), [expected], "{change}");
        }
        assert!(judge(&json!({"usages": ["flying"]}))[0].starts_with("spec.usages[0]: Unsupported value: \"flying\""));
    }
}
