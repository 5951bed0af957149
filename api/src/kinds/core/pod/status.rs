//! What a node may say about a pod.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::core::addresses::validate_ip;
use crate::kinds::core::podspec::CONTAINER_LISTS;
use crate::kinds::tree::{int, list, list_mut, set, some, text};
use crate::meta::{self, names, push_all};

/// Conditions that need no name of a domain.
const OWN_CONDITIONS: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];
/// Where the containers of each list of the spec are reported.
const STATUSES: [(&str, &str); 3] = [
    ("containers", "containerStatuses"),
    ("initContainers", "initContainerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
];

/// The first of the addresses stands alone as well: whoever gives one form gets both. The single address of the pod is the one
/// that counts, since there was a time when it was the only one.
pub(super) fn mirror_addresses(status: &mut Value) {
    for (one, many) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
        let single = text(status, &format!("/{one}")).to_owned();
        let first = text(status, &format!("/{many}/0/ip")).to_owned();
        let other = one == "podIP" && first != single;
        if !single.is_empty() && (first.is_empty() || other) {
            set(status, many, json!([{ "ip": single }]));
        } else if single.is_empty() && !first.is_empty() {
            set(status, one, first);
        }
    }
}

/// A report that does not say which generation of the pod it goes by goes by the one of the report before; so does each of its
/// conditions.
pub(super) fn keep_generations(new: &mut Value, old: &Value) {
    const FIELD: &str = "observedGeneration";
    let said = |of: &Value| int(of, &format!("/{FIELD}")).filter(|generation| *generation != 0);
    let (Some(status), Some(before)) = (new.get_mut("status"), old.get("status")) else { return };
    if let (None, Some(generation)) = (said(status), said(before)) {
        set(status, FIELD, generation);
    }
    // Of one type there may be several, which are told apart by their order.
    let mut known: HashMap<&str, VecDeque<&Value>> = HashMap::new();
    for condition in list(before, "/conditions") {
        known.entry(text(condition, "/type")).or_default().push_back(condition);
    }
    for condition in list_mut(status, "conditions") {
        let Some(same) = known.get_mut(text(condition, "/type")).and_then(VecDeque::pop_front) else { continue };
        if let (None, Some(generation)) = (said(condition), said(same)) {
            set(condition, FIELD, generation);
        }
    }
}

pub(super) fn validate(new: &Value, old: &Value, errors: &mut ErrorList) {
    let path = Path::new("status");
    for (index, condition) in list(new, "/status/conditions").iter().enumerate() {
        let kind = text(condition, "/type");
        if !OWN_CONDITIONS.contains(&kind) {
            // Kubernetes tells this place.
            let path = Path::new("metadata").child("conditions").index(index).child("Type");
            push_all(errors, &path, kind, names::qualified_name(kind));
        }
    }
    let nominated = text(new, "/status/nominatedNodeName");
    if !nominated.is_empty() && nominated != text(old, "/status/nominatedNodeName") {
        push_all(errors, &path.child("nominatedNodeName"), nominated, names::dns1123_subdomain(nominated));
    }
    if some(old, "/status/qosClass").is_some() {
        let classes = (new.pointer("/status/qosClass"), old.pointer("/status/qosClass"));
        meta::immutable(classes.0, classes.1, &path.child("qosClass"), errors);
    }
    validate_transitions(new, old, &path, errors);
    validate_claims(new, &path.child("resourceClaimStatuses"), errors);
    validate_addresses(new, old, "podIPs", &path, errors);
    let (host, first) = (text(new, "/status/hostIP"), text(new, "/status/hostIPs/0/ip"));
    if !list(new, "/status/hostIPs").is_empty() && host != first {
        let path = path.child("hostIPs").index(0).child("ip");
        errors.invalid(&path, &json!(first), "must be equal to `hostIP`");
    }
    validate_addresses(new, old, "hostIPs", &path, errors);
}

/// One address of each family at most, each of them good unless it was there before.
fn validate_addresses(new: &Value, old: &Value, field: &str, status: &Path, errors: &mut ErrorList) {
    let (pointer, path) = (format!("/status/{field}"), status.child(field));
    let addresses = list(new, &pointer);
    let known: HashSet<&str> = list(old, &pointer).iter().map(|before| text(before, "/ip")).collect();
    for (index, address) in addresses.iter().enumerate() {
        let ip = text(address, "/ip");
        if !known.contains(ip) {
            validate_ip(ip, &path.index(index), errors);
        }
    }
    if addresses.len() < 2 {
        return;
    }
    let families: HashSet<bool> = addresses.iter().map(|address| text(address, "/ip").contains(':')).collect();
    if families.len() < 2 || addresses.len() > 2 {
        errors.invalid(&path, &json!(addresses), "may specify no more than one IP for each IP family");
    }
    let mut seen = HashSet::new();
    for (index, address) in addresses.iter().enumerate() {
        if !seen.insert(text(address, "/ip")) {
            errors.duplicate(&path.index(index), address);
        }
    }
}

/// A container that has ended for good does not come back.
fn validate_transitions(new: &Value, old: &Value, status: &Path, errors: &mut ErrorList) {
    if restarts_all(old) {
        return;
    }
    for (of_spec, field) in STATUSES {
        let (pointer, path) = (format!("/status/{field}"), status.child(field));
        let lives = |now: &&Value| some(now, "/state/terminated").is_none();
        let living: HashSet<&str> = list(new, &pointer).iter().filter(lives).map(|now| text(now, "/name")).collect();
        let containers = list(old, &format!("/spec/{of_spec}")).iter().rev();
        let containers: HashMap<&str, &Value> = containers.map(|one| (text(one, "/name"), one)).collect();
        for (index, before) in list(old, &pointer).iter().enumerate() {
            let Some(ended) = some(before, "/state/terminated") else { continue };
            let (name, code) = (text(before, "/name"), int(ended, "/exitCode").unwrap_or_default());
            let container = containers.get(name).copied().unwrap_or(&Value::Null);
            let restarts = of_spec != "ephemeralContainers" && may_restart(old, container, code);
            if !restarts && living.contains(name) {
                let why = "may not be transitioned to non-terminated state";
                errors.forbidden(&path.index(index).child("state"), why);
            }
        }
    }
}

/// Whether the end of one container may start all others again.
fn restarts_all(pod: &Value) -> bool {
    let containers = CONTAINER_LISTS.iter().flat_map(|field| list(pod, &format!("/spec/{field}")));
    containers
        .flat_map(|container| list(container, "/restartPolicyRules"))
        .any(|rule| text(rule, "/action") == "RestartAllContainers")
}

/// Whether a container that ended so is started again: by its own rules, by its own policy, or else by the pod's.
fn may_restart(pod: &Value, container: &Value, code: i64) -> bool {
    let own = text(container, "/restartPolicy");
    let fits = |rule: &Value| {
        let listed = list(rule, "/exitCodes/values").iter().any(|value| value.as_i64() == Some(code));
        listed == (text(rule, "/exitCodes/operator") == "In")
    };
    if !own.is_empty() && list(container, "/restartPolicyRules").iter().any(fits) {
        return true;
    }
    match if own.is_empty() { text(pod, "/spec/restartPolicy") } else { own } {
        "OnFailure" => code != 0,
        policy => policy == "Always",
    }
}

fn validate_claims(new: &Value, path: &Path, errors: &mut ErrorList) {
    let claims: HashSet<&str> = list(new, "/spec/resourceClaims").iter().map(|claim| text(claim, "/name")).collect();
    let mut seen = HashSet::new();
    for (index, status) in list(new, "/status/resourceClaimStatuses").iter().enumerate() {
        let (name, path) = (text(status, "/name"), path.index(index).child("name"));
        if !claims.contains(name) {
            errors.invalid(&path, &json!(name), "must match the name of an entry in `spec.resourceClaims`");
        }
        if !seen.insert(name) {
            errors.duplicate(&path, &json!(name));
        }
        if let Some(claim) = some(status, "/resourceClaimName").and_then(Value::as_str) {
            push_all(errors, &path, claim, names::dns1123_subdomain(claim));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(new: &Value, old: &Value) -> Vec<String> {
        let mut errors = ErrorList::default();
        validate(new, old, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_address_is_also_the_first_of_many() {
        let mut status = json!({"podIP": "1.1.1.1", "hostIPs": [{"ip": "2.2.2.2"}]});
        mirror_addresses(&mut status);
        assert_eq!(
            status,
            json!({"podIP": "1.1.1.1", "podIPs": [{"ip": "1.1.1.1"}], "hostIP": "2.2.2.2", "hostIPs": [{"ip": "2.2.2.2"}]})
        );
        let mut status = json!({"podIP": "1.1.1.1", "podIPs": [{"ip": "3.3.3.3"}, {"ip": "::3"}]});
        mirror_addresses(&mut status);
        assert_eq!(status["podIPs"], json!([{"ip": "1.1.1.1"}]));
    }

    #[test]
    fn a_report_goes_by_the_generation_of_the_one_before_unless_it_says_so() {
        let condition = |kind: &str, generation: Value| json!({"type": kind, "observedGeneration": generation});
        let old = json!({"status": {"observedGeneration": 3, "conditions": [condition("A", json!(2)), condition("B", json!(3))]}});
        let mut new =
            json!({"status": {"conditions": [condition("B", json!(4)), condition("A", json!(0)), {"type": "C"}]}});
        keep_generations(&mut new, &old);
        let conditions = json!([condition("B", json!(4)), condition("A", json!(2)), {"type": "C"}]);
        assert_eq!(new["status"], json!({"observedGeneration": 3, "conditions": conditions}));
    }

    #[test]
    fn a_pod_has_one_good_address_of_each_family() {
        let pod = |field: &str, all: &[&str]| {
            let all: Vec<Value> = all.iter().map(|ip| json!({ "ip": ip })).collect();
            json!({"status": {field: all, "hostIP": "10.0.0.1"}})
        };
        let none = json!({});
        assert_eq!(said(&pod("podIPs", &["10.0.0.1", "fd00::1"]), &none), Vec::<String>::new());
        let (form, family) = (
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            "may specify no more than one IP for each IP family",
        );
        assert_eq!(said(&pod("podIPs", &["x"]), &none), [format!("status.podIPs[0]: Invalid value: \"x\": {form}")]);
        assert_eq!(said(&pod("podIPs", &["x"]), &pod("podIPs", &["x"])), Vec::<String>::new(), "it was there before");
        assert_eq!(
            said(&pod("podIPs", &["10.0.0.1", "10.0.0.1"]), &none),
            [
                format!("status.podIPs: Invalid value: [{{\"ip\":\"10.0.0.1\"}},{{\"ip\":\"10.0.0.1\"}}]: {family}"),
                "status.podIPs[1]: Duplicate value: {\"ip\":\"10.0.0.1\"}".to_owned(),
            ]
        );
        assert_eq!(
            said(&pod("hostIPs", &["10.0.0.2"]), &none),
            ["status.hostIPs[0].ip: Invalid value: \"10.0.0.2\": must be equal to `hostIP`"]
        );
    }

    #[test]
    fn what_ended_for_good_stays_ended() {
        let pod = |policy: &str, own: &Value, state: Value| {
            let mut container = json!({"name": "a"});
            own.as_object().into_iter().flatten().for_each(|(key, value)| container[key] = value.clone());
            let status = |state: &Value| json!([{"name": "a", "state": state}]);
            json!({"spec": {"restartPolicy": policy, "containers": [container], "initContainers": [container]},
                "status": {"containerStatuses": status(&state), "initContainerStatuses": status(&state)}})
        };
        let rule = json!({"action": "Restart", "exitCodes": {"operator": "In", "values": [3]}});
        for (policy, own, code, allowed) in [
            ("Always", json!({}), 0, true),
            ("Never", json!({}), 1, false),
            ("OnFailure", json!({}), 1, true),
            ("OnFailure", json!({}), 0, false),
            ("Never", json!({"restartPolicy": "Always"}), 0, true),
            ("Always", json!({"restartPolicy": "Never"}), 1, false),
            ("Always", json!({"restartPolicy": "Never", "restartPolicyRules": [rule]}), 3, true),
            ("Always", json!({"restartPolicy": "Never", "restartPolicyRules": [rule]}), 1, false),
        ] {
            let old = pod(policy, &own, json!({"terminated": {"exitCode": code}}));
            let why = "Forbidden: may not be transitioned to non-terminated state";
            let wanted: Vec<String> = ["containerStatuses", "initContainerStatuses"]
                .iter()
                .filter(|_| !allowed)
                .map(|field| format!("status.{field}[0].state: {why}"))
                .collect();
            assert_eq!(said(&pod(policy, &own, json!({"running": {}})), &old), wanted, "{policy} {own} {code}");
        }
    }

    #[test]
    fn a_status_speaks_of_what_the_pod_has() {
        let mut pod = json!({"spec": {"resourceClaims": [{"name": "a"}]}, "status": {}});
        pod["status"]["resourceClaimStatuses"] = json!([{"name": "a", "resourceClaimName": "x"}, {"name": "b"}]);
        pod["status"]["conditions"] = json!([{"type": "Ready"}, {"type": "a b"}]);
        let all = said(&pod, &json!({}));
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all[0].starts_with("metadata.conditions[1].Type: Invalid value: \"a b\": "), "{all:?}");
        assert_eq!(
            all[1],
            "status.resourceClaimStatuses[1].name: Invalid value: \"b\": must match the name of an entry in \
             `spec.resourceClaims`"
        );
    }
}
