//! What a Service may say.

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::{externally_accessible, has_address, headless, is_balanced, needs_health_check, needs_node_ports};
use crate::field::{ErrorList, Path};
use crate::kinds::check::one_of;
use crate::kinds::core::addresses;
use crate::kinds::core::podspec::validate_port_reference;
use crate::kinds::networking::cidr;
use crate::kinds::tree::{int, list, some, text};
use crate::meta::{self, names, push_all};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// Where each node's kubelet listens.
const KUBELET_PORT: i64 = 10250;
const MAX_AFFINITY_SECONDS: i64 = 86400;

pub(super) fn validate(service: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let null = Value::Null;
    let spec = service.get("spec").unwrap_or(&null);
    let kind = text(spec, "/type");
    if list(spec, "/ports").is_empty() && !headless(spec) && kind != "ExternalName" {
        errors.required(&path.child("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless(spec) => {
            let why = format!("may not be set to 'None' for {kind} services");
            errors.invalid(&path.child("clusterIPs").index(0), &json!("None"), &why);
        }
        "ExternalName" => validate_external_name(spec, &path, errors),
        _ => {}
    }
    validate_ports(spec, &path.child("ports"), errors);
    meta::labels(spec.get("selector"), &path.child("selector"), errors);
    validate_affinity(spec, &path, errors);
    if !TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, TYPES);
    }
    validate_addresses(spec, &path, errors);
    validate_source_ranges(service, spec, errors);
    validate_policies(spec, &path, errors);
    validate_load_balancer(service, errors);
}

fn validate_external_name(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let address = !text(spec, "/clusterIP").is_empty() || !list(spec, "/clusterIPs").is_empty();
    let families = !list(spec, "/ipFamilies").is_empty();
    let policy = !text(spec, "/ipFamilyPolicy").is_empty();
    for (field, given) in [("clusterIPs", address), ("ipFamilies", families), ("ipFamilyPolicy", policy)] {
        if given {
            errors.forbidden(&path.child(field), "may not be set for ExternalName services");
        }
    }
    let name = text(spec, "/externalName");
    let bare = name.strip_suffix('.').unwrap_or(name);
    if bare.is_empty() {
        errors.required(&path.child("externalName"), "");
    } else {
        push_all(errors, &path.child("externalName"), bare, names::dns1123_subdomain(bare));
    }
}

fn validate_ports(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let ports = list(spec, "/ports");
    let (mut named, mut numbered, mut opened) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "/name");
        if name.is_empty() && ports.len() > 1 {
            errors.required(&path.child("name"), "");
        } else if !name.is_empty() {
            push_all(errors, &path.child("name"), name, names::dns1123_label(name));
            if !named.insert(name) {
                errors.duplicate(&path.child("name"), &json!(name));
            }
        }
        let number = int(port, "/port").unwrap_or_default();
        if let Some(why) = names::port_number(number) {
            errors.invalid(&path.child("port"), &json!(number), why);
        }
        if number == KUBELET_PORT && is_balanced(spec) {
            let why = "may not expose port 10250 externally since it is used by kubelet";
            errors.invalid(&path, &json!(number), why);
        }
        addresses::validate_protocol(port, &path, errors);
        if let Some(target) = some(port, "/targetPort") {
            validate_port_reference(target, &path.child("targetPort"), errors);
        }
        let protocol = text(port, "/appProtocol");
        if !protocol.is_empty() {
            push_all(errors, &path.child("appProtocol"), protocol, names::qualified_name(protocol));
        }
        let protocol = text(port, "/protocol");
        if !numbered.insert((protocol, number)) {
            errors.duplicate(&path, &json!({"protocol": text(port, "/protocol"), "port": number}));
        }
        let taken = |number: i64| !opened.insert((protocol, number));
        validate_node_port(port, spec, taken, &path.child("nodePort"), errors);
    }
}

/// `taken`: whether an earlier port of the same protocol has a number.
fn validate_node_port(
    port: &Value,
    spec: &Value,
    taken: impl FnOnce(i64) -> bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    let Some(number) = int(port, "/nodePort").filter(|n| *n != 0) else { return };
    if let Some(why) = names::port_number(number) {
        errors.invalid(path, &json!(number), why);
    }
    let taken = taken(number);
    if text(spec, "/type") == "ClusterIP" {
        errors.forbidden(path, "may not be used when `type` is 'ClusterIP'");
    } else if taken && needs_node_ports(spec) {
        errors.duplicate(path, &json!(number));
    }
}

fn validate_affinity(spec: &Value, path: &Path, errors: &mut ErrorList) {
    match text(spec, "/sessionAffinity") {
        "" => errors.required(&path.child("sessionAffinity"), ""),
        "None" => {}
        "ClientIP" => {
            let path = path.child("sessionAffinityConfig").child("clientIP").child("timeoutSeconds");
            match int(spec, "/sessionAffinityConfig/clientIP/timeoutSeconds") {
                Some(seconds) if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds) => {
                    let why = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
                    errors.invalid(&path, &json!(seconds), &why);
                }
                _ => {}
            }
        }
        other => errors.not_supported(&path.child("sessionAffinity"), other, &["ClientIP", "None"]),
    }
}

fn validate_addresses(spec: &Value, path: &Path, errors: &mut ErrorList) {
    if !has_address(spec) {
        return;
    }
    let ips = list(spec, "/clusterIPs");
    let ips_path = path.child("clusterIPs");
    let (single, first) = (text(spec, "/clusterIP"), text(spec, "/clusterIPs/0"));
    if !ips.is_empty() && single != first {
        errors.invalid(&ips_path, &json!(ips), "first value must match `clusterIP`");
    }
    if ips.len() > 1 {
        errors.invalid(&ips_path, &json!(ips), "may only hold up to 1 value on a cluster with one IP family");
    }
    if !first.is_empty() && first != "None" {
        addresses::validate_ip(first, &ips_path.index(0), errors);
    }
    let mut seen = HashSet::new();
    for (index, family) in list(spec, "/ipFamilies").iter().enumerate() {
        let family_path = path.child("ipFamilies").index(index);
        if !seen.insert(family.as_str()) {
            errors.duplicate(&family_path, family);
        }
        match family.as_str().unwrap_or_default() {
            "IPv4" => {}
            "IPv6" => errors.invalid(&family_path, family, "not configured on this cluster"),
            other => errors.not_supported(&family_path, other, &["IPv4", "IPv6"]),
        }
    }
    match text(spec, "/ipFamilyPolicy") {
        "" | "SingleStack" | "PreferDualStack" => {}
        "RequireDualStack" => {
            let why = "this cluster is not configured for dual-stack services";
            errors.invalid(&path.child("ipFamilyPolicy"), &json!("RequireDualStack"), why);
        }
        other => {
            let good = &["SingleStack", "PreferDualStack", "RequireDualStack"];
            errors.not_supported(&path.child("ipFamilyPolicy"), other, good);
        }
    }
    for (index, ip) in list(spec, "/externalIPs").iter().enumerate() {
        addresses::validate(ip.as_str().unwrap_or_default(), &path.child("externalIPs").index(index), errors);
    }
}

/// Whose requests a load balancer takes: ranges in the spec, or in an annotation if there are none.
fn validate_source_ranges(service: &Value, spec: &Value, errors: &mut ErrorList) {
    let ranges = list(spec, "/loadBalancerSourceRanges");
    let annotation = service.pointer("/metadata/annotations").and_then(|all| all.get(SOURCE_RANGES));
    let of_annotation = Path::new("metadata").child("annotations").key(SOURCE_RANGES);
    let (path, ranges) = match annotation.and_then(Value::as_str) {
        Some(text) if ranges.is_empty() => {
            let parts = text.split(',').filter(|_| !text.trim().is_empty());
            (of_annotation.clone(), parts.map(|range| (of_annotation.clone(), range.trim())).collect::<Vec<_>>())
        }
        None if ranges.is_empty() => return,
        _ => {
            let path = Path::new("spec").child("LoadBalancerSourceRanges");
            let texts = ranges.iter().map(|range| range.as_str().unwrap_or_default().trim());
            (path.clone(), texts.enumerate().map(|(index, range)| (path.index(index), range)).collect())
        }
    };
    if !is_balanced(spec) {
        errors.forbidden(&path, "may only be used when `type` is 'LoadBalancer'");
    }
    for (path, range) in ranges {
        cidr::validate_strict(range, &path, errors);
    }
}

fn validate_policies(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let external = text(spec, "/externalTrafficPolicy");
    let external_path = path.child("externalTrafficPolicy");
    if externally_accessible(spec) {
        if external.is_empty() {
            errors.required(&external_path, "");
        } else if !["Cluster", "Local"].contains(&external) {
            errors.not_supported(&external_path, external, &["Cluster", "Local"]);
        }
    } else if !external.is_empty() {
        errors.invalid(&external_path, &json!(external), "may only be set for externally-accessible services");
    }
    let internal = text(spec, "/internalTrafficPolicy");
    if !["", "Cluster", "Local"].contains(&internal) {
        errors.not_supported(&path.child("internalTrafficPolicy"), internal, &["Cluster", "Local"]);
    }
    let health = int(spec, "/healthCheckNodePort").unwrap_or_default();
    if health != 0 && !needs_health_check(spec) {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&path.child("healthCheckNodePort"), &json!(health), why);
    }
    one_of(spec, "trafficDistribution", path, &["PreferClose", "PreferSameNode", "PreferSameZone"], errors);
    if is_balanced(spec) {
        if let Some(class) = some(spec, "/loadBalancerClass").and_then(Value::as_str) {
            push_all(errors, &path.child("loadBalancerClass"), class, names::qualified_name(class));
        }
    } else {
        for field in ["loadBalancerClass", "allocateLoadBalancerNodePorts"] {
            if some(spec, &format!("/{field}")).is_some() {
                errors.forbidden(&path.child(field), "may only be used when `type` is 'LoadBalancer'");
            }
        }
    }
}

/// Judges what a load balancer reports.
pub(super) fn validate_load_balancer(service: &Value, errors: &mut ErrorList) {
    let path = Path::new("status").child("loadBalancer").child("ingress");
    for (index, ingress) in list(service, "/status/loadBalancer/ingress").iter().enumerate() {
        let path = path.index(index);
        let (ip, host) = (text(ingress, "/ip"), text(ingress, "/hostname"));
        if !ip.is_empty() {
            addresses::validate_ip(ip, &path.child("ip"), errors);
        }
        let mode = path.child("ipMode");
        match (ip, some(ingress, "/ipMode").and_then(Value::as_str)) {
            ("", None) => {}
            ("", Some(_)) => errors.forbidden(&mode, "may not be specified when `ip` is not set"),
            (_, None) => errors.required(&mode, ""),
            (_, Some("Proxy" | "VIP")) => {}
            (_, Some(other)) => errors.not_supported(&mode, other, &["Proxy", "VIP"]),
        }
        if host.parse::<IpAddr>().is_ok() {
            errors.invalid(&path.child("hostname"), &json!(host), "must be a DNS name, not an IP address");
        } else if !host.is_empty() {
            push_all(errors, &path.child("hostname"), host, names::dns1123_subdomain(host));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::Strategy;

    fn complaints(spec: &Value) -> Vec<String> {
        let mut service = json!({ "spec": spec });
        super::super::ServiceStrategy.default(&mut service);
        let mut errors = ErrorList::default();
        validate(&service, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_load_balancer_reports_says_how_it_sends() {
        let said = |ingress: Value| {
            let mut service =
                json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [ingress]}}});
            super::super::ServiceStrategy.default(&mut service);
            let mut errors = ErrorList::default();
            validate_load_balancer(&service, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(said(json!({"ip": "1.2.3.4"})), Vec::<String>::new());
        assert_eq!(said(json!({"hostname": "a.b"})), Vec::<String>::new());
        assert_eq!(
            said(json!({"ip": "1.2.3.4", "ipMode": "X"})),
            ["status.loadBalancer.ingress[0].ipMode: Unsupported value: \"X\": supported values: \"Proxy\", \"VIP\""]
        );
        assert_eq!(
            said(json!({"hostname": "a.b", "ipMode": "VIP"})),
            ["status.loadBalancer.ingress[0].ipMode: Forbidden: may not be specified when `ip` is not set"]
        );
    }

    #[test]
    fn a_load_balancer_does_not_expose_nodes() {
        assert_eq!(
            complaints(&json!({"type": "LoadBalancer", "ports": [{"port": 10250}]})),
            ["spec.ports[0]: Invalid value: 10250: may not expose port 10250 externally since it is used by kubelet"]
        );
    }

    #[test]
    fn good_services_are_good() {
        for spec in [
            json!({"ports": [{"port": 80}]}),
            json!({"clusterIP": "None"}),
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080, "targetPort": "http"}]}),
            json!({"type": "ExternalName", "externalName": "a.b."}),
            json!({"type": "LoadBalancer", "ports": [{"port": 53, "name": "a"}, {"port": 53, "name": "b", "protocol": "UDP"}]}),
        ] {
            assert_eq!(complaints(&spec), Vec::<String>::new(), "{spec}");
        }
    }

    #[test]
    fn ports_are_named_numbered_and_distinct() {
        assert_eq!(complaints(&json!({})), ["spec.ports: Required value"]);
        assert_eq!(
            complaints(&json!({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "a"}, {"port": 0}]})),
            [
                "spec.ports[1].name: Duplicate value: \"a\"",
                "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
                "spec.ports[2].name: Required value",
                "spec.ports[2].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[2].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive"
            ]
        );
        assert_eq!(
            complaints(&json!({"ports": [{"port": 80, "nodePort": 30080}]})),
            ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]
        );
    }

    #[test]
    fn a_type_has_its_own_demands() {
        assert_eq!(
            complaints(&json!({"type": "Magic", "ports": [{"port": 1}]})),
            ["spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \
                 \"LoadBalancer\", \"NodePort\""]
        );
        assert_eq!(complaints(&json!({"type": "ExternalName"})), ["spec.externalName: Required value"]);
        assert_eq!(
            complaints(&json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 1}]})),
            ["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"]
        );
    }

    #[test]
    fn a_service_says_nothing_that_its_type_has_not() {
        let external = |more: (&str, Value)| json!({"type": "ExternalName", "externalName": "a.b", more.0: more.1});
        let ports = json!([{"port": 1}]);
        for (spec, why) in [
            (
                external(("clusterIP", json!("10.0.0.1"))),
                "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
            ),
            (
                external(("ipFamilies", json!(["IPv4"]))),
                "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
            ),
            (
                external(("ipFamilyPolicy", json!("SingleStack"))),
                "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
            ),
            (
                json!({"ports": ports, "loadBalancerSourceRanges": ["1.0.0.0/8"]}),
                "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
            ),
            (
                json!({"ports": ports, "type": "LoadBalancer", "loadBalancerSourceRanges": [" 1.0.0.0/8 ", "x"]}),
                "spec.LoadBalancerSourceRanges[1]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or \
                 2001:db8::/64)",
            ),
            (json!({"ports": ports, "ipFamilies": ["IPv4", "IPv4"]}), "spec.ipFamilies[1]: Duplicate value: \"IPv4\""),
        ] {
            assert_eq!(complaints(&spec), [why], "{spec}");
        }
        let mut service =
            json!({"metadata": {"annotations": {SOURCE_RANGES: "10.0.0.0/8, x"}}, "spec": {"ports": ports}});
        super::super::ServiceStrategy.default(&mut service);
        let mut errors = ErrorList::default();
        validate(&service, &mut errors);
        let at = format!("metadata.annotations[{SOURCE_RANGES}]");
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                format!("{at}: Forbidden: may only be used when `type` is 'LoadBalancer'"),
                format!("{at}: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
            ]
        );
    }
}
