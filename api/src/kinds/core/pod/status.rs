//! What a node may say about a pod.

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::tree::{list, set, some, text};
use crate::meta::{self, names, push_all};

/// The first of the addresses stands alone as well: whoever gives one form gets both.
pub(super) fn mirror_addresses(status: &mut Value) {
    for (one, many) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
        let single = text(status, &format!("/{one}")).to_owned();
        let first = text(status, &format!("/{many}/0/ip")).to_owned();
        if first.is_empty() && !single.is_empty() {
            set(status, many, json!([{ "ip": single }]));
        } else if single.is_empty() && !first.is_empty() {
            set(status, one, first);
        }
    }
}

pub(super) fn validate(new: &Value, old: &Value, errors: &mut ErrorList) {
    let path = Path::new("status");
    let nominated = text(new, "/status/nominatedNodeName");
    if !nominated.is_empty() {
        push_all(errors, &path.child("nominatedNodeName"), nominated, names::dns1123_subdomain(nominated));
    }
    if some(old, "/status/qosClass").is_some() {
        let classes = (new.pointer("/status/qosClass"), old.pointer("/status/qosClass"));
        meta::immutable(classes.0, classes.1, &path.child("qosClass"), errors);
    }
    for field in ["podIPs", "hostIPs"] {
        for (index, address) in list(new, &format!("/status/{field}")).iter().enumerate() {
            let ip = text(address, "/ip");
            if ip.parse::<std::net::IpAddr>().is_err() {
                let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                errors.invalid(&path.child(field).index(index).child("ip"), &json!(ip), why);
            }
        }
    }
    let policy = text(new, "/spec/restartPolicy");
    if policy != "Always" {
        validate_transitions(new, old, policy, errors);
    }
}

/// A container that has ended for good does not come back.
fn validate_transitions(new: &Value, old: &Value, policy: &str, errors: &mut ErrorList) {
    const FIELD: &str = "containerStatuses";
    let pointer = format!("/status/{FIELD}");
    for before in list(old, &pointer) {
        let Some(ended) = some(before, "/state/terminated") else { continue };
        let failed = ended.get("exitCode").and_then(Value::as_i64).unwrap_or_default() != 0;
        if policy == "OnFailure" && failed {
            continue;
        }
        let same = |status: &&Value| text(status, "/name") == text(before, "/name");
        let Some((index, _)) =
            list(new, &pointer).iter().enumerate().find(|(_, s)| same(s) && some(s, "/state/terminated").is_none())
        else {
            continue;
        };
        let path = Path::new("status").child(FIELD).index(index).child("state");
        errors.forbidden(&path, "may not be transitioned to non-terminated state");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_is_also_the_first_of_many() {
        let mut status = json!({"podIP": "1.1.1.1", "hostIPs": [{"ip": "2.2.2.2"}]});
        mirror_addresses(&mut status);
        assert_eq!(
            status,
            json!({"podIP": "1.1.1.1", "podIPs": [{"ip": "1.1.1.1"}], "hostIP": "2.2.2.2", "hostIPs": [{"ip": "2.2.2.2"}]})
        );
    }

    #[test]
    fn what_ended_for_good_stays_ended() {
        let pod = |policy: &str, state: Value| json!({"spec": {"restartPolicy": policy}, "status": {"containerStatuses": [{"name": "a", "state": state}]}});
        for (policy, code, allowed) in
            [("Always", 0, true), ("Never", 1, false), ("OnFailure", 1, true), ("OnFailure", 0, false)]
        {
            let old = pod(policy, json!({"terminated": {"exitCode": code}}));
            let mut errors = ErrorList::default();
            validate(&pod(policy, json!({"running": {}})), &old, &mut errors);
            assert_eq!(errors.is_empty(), allowed, "{policy} {code}");
        }
    }
}
