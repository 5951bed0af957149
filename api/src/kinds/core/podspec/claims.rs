//! Claims of devices: what a pod claims, and what of it its containers use.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Value, json};

use crate::field::{ErrorKind, ErrorList, FieldError, Path};
use crate::kinds::tree::{list, some, text};
use crate::meta::{names, push_all};

/// Names of a pod's claims, in order.
pub(super) type ClaimNames<'a> = BTreeSet<&'a str>;

/// Judges `resourceClaims` and says their names.
pub(super) fn validate<'a>(spec: &'a Value, path: &Path, errors: &mut ErrorList) -> ClaimNames<'a> {
    let mut known = ClaimNames::new();
    for (index, claim) in list(spec, "/resourceClaims").iter().enumerate() {
        let (name, path) = (text(claim, "/name"), path.index(index));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if known.insert(name) {
            push_all(errors, &path.child("name"), name, names::dns1123_label(name));
        } else {
            errors.duplicate(&path.child("name"), &json!(name));
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        let given = sources.map(|field| some(claim, &format!("/{field}")).and_then(Value::as_str));
        match given.iter().flatten().count() {
            0 => {
                let why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.invalid(&path, claim, why);
            }
            1 => {}
            _ => {
                let why = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.invalid(&path, claim, why);
            }
        }
        for (field, name) in sources.iter().zip(given) {
            if let Some(name) = name {
                push_all(errors, &path.child(field), name, names::dns1123_subdomain(name));
            }
        }
    }
    known
}

/// Judges the claims that a container uses: each of the pod's, and none twice.
pub(super) fn validate_used(claims: &[Value], known: &ClaimNames<'_>, path: &Path, errors: &mut ErrorList) {
    // Claims that are used as a whole, and requests of claims.
    let (mut whole, mut parts, mut in_part) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut all = None;
    for (index, claim) in claims.iter().enumerate() {
        let (name, request, path) = (text(claim, "/name"), text(claim, "/request"), path.index(index));
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        if whole.contains(name) {
            errors.duplicate(&path, &json!(name));
        } else if request.is_empty() {
            if in_part.contains(name) {
                errors.duplicate(&path, &json!(name));
            }
            whole.insert(name);
        } else {
            push_all(errors, &path.child("request"), request, names::dns1123_label(request));
            in_part.insert(name);
            if !parts.insert((name, request)) {
                errors.duplicate(&path, &json!(format!("{name}/{request}")));
            }
        }
        if !known.contains(name) && !errors.is_full() {
            let which = all.get_or_insert_with(|| {
                if known.is_empty() {
                    return " which is empty".to_owned();
                }
                format!(": {}", known.iter().copied().collect::<Vec<_>>().join(", "))
            });
            let message = format!("Not found: {name:?}: must be one of the names in pod.spec.resourceClaims{which}");
            errors.push(FieldError { kind: ErrorKind::NotFound, path, message });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_refused;
    use super::*;

    #[test]
    fn a_claim_has_a_name_of_its_own_and_one_source() {
        let claim = json!({"name": "a", "resourceClaimName": "b"});
        for (claims, why) in [
            (
                json!([{"name": "a"}]),
                "spec.resourceClaims[0]: Invalid value: {\"name\":\"a\"}: must specify one of: `resourceClaimName`, \
                 `resourceClaimTemplateName`",
            ),
            (
                json!([{"name": "a", "resourceClaimName": "b", "resourceClaimTemplateName": "c"}]),
                "spec.resourceClaims[0]: Invalid value: \
                 {\"name\":\"a\",\"resourceClaimName\":\"b\",\"resourceClaimTemplateName\":\"c\"}: at most one of \
                 `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
            (json!([claim, claim]), "spec.resourceClaims[1].name: Duplicate value: \"a\""),
            (json!([{"resourceClaimName": "b"}]), "spec.resourceClaims[0].name: Required value"),
        ] {
            assert_refused(json!({"resourceClaims": claims}), &json!({}), why);
        }
    }

    #[test]
    fn a_container_uses_its_pods_claims_once_each() {
        let claims = json!([{"name": "a", "resourceClaimName": "b"}, {"name": "c", "resourceClaimName": "d"}]);
        let place = "spec.containers[0].resources.claims";
        let used = |claims: Value| json!({"resources": {"claims": claims}});
        assert_refused(
            json!({}),
            &used(json!([{"name": "q"}])),
            &format!(
                "{place}[0]: Not found: \"q\": must be one of the names in pod.spec.resourceClaims which is empty"
            ),
        );
        for (these, why) in [
            (
                json!([{"name": "q"}]),
                "[0]: Not found: \"q\": must be one of the names in pod.spec.resourceClaims: a, c",
            ),
            (json!([{"name": "a"}, {"name": "a", "request": "x"}]), "[1]: Duplicate value: \"a\""),
            (json!([{"name": "a", "request": "x"}, {"name": "a"}]), "[1]: Duplicate value: \"a\""),
            (json!([{"name": "a", "request": "x"}, {"name": "a", "request": "x"}]), "[1]: Duplicate value: \"a/x\""),
            (json!([{}]), "[0]: Required value"),
        ] {
            assert_refused(json!({ "resourceClaims": claims }), &used(these), &format!("{place}{why}"));
        }
    }
}
