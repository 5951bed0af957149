//! EndpointSlice: up to a thousand addresses behind a Service.

use std::collections::HashSet;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::core::addresses::{self, PROTOCOLS};
use crate::kinds::tree::{fill, int, list, list_mut, map, remove, some, text};
use crate::meta::{self, names, push_all};
use crate::resource::Descriptor;
use crate::strategy::{Part, Strategy};

/// How many ports or addresses a table shows.
const SHOWN: usize = 3;
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20000;
/// Zones, and nodes, that an endpoint is meant for.
const MAX_HINTS: usize = 8;
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Who writes addresses in their canonical form anyway.
const CONTROLLERS: [&str; 2] = ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];
const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];

pub fn descriptor() -> Descriptor {
    Descriptor::of::<EndpointSlice>()
        .columns(vec![
            cells::name(),
            column("AddressType", "string", "The type of address carried by this EndpointSlice.", |o, _| {
                json!(text(o, "/addressType"))
            }),
            column("Ports", "string", "The list of network ports exposed by each endpoint in this slice.", |o, _| {
                json!(ports(o))
            }),
            column("Endpoints", "string", "The list of unique endpoints in this slice.", |o, _| json!(endpoints(o))),
            cells::age(),
        ])
        .strategy(EndpointSliceStrategy)
}

fn ports(slice: &Value) -> String {
    let ports = list(slice, "/ports");
    if ports.is_empty() {
        return "<unset>".to_owned();
    }
    let shown: Vec<String> = ports
        .iter()
        .take(SHOWN)
        .map(|port| match int(port, "/port") {
            Some(number) => number.to_string(),
            None if text(port, "/name").is_empty() => "*".to_owned(),
            None => text(port, "/name").to_owned(),
        })
        .collect();
    cells::with_more(&shown, ports.len())
}

fn endpoints(slice: &Value) -> String {
    let endpoints = list(slice, "/endpoints");
    if endpoints.is_empty() {
        return "<unset>".to_owned();
    }
    let addresses = || endpoints.iter().flat_map(|e| list(e, "/addresses")).filter_map(Value::as_str);
    let shown: Vec<String> = addresses().take(SHOWN).map(str::to_owned).collect();
    cells::with_more(&shown, addresses().count())
}

#[derive(Debug)]
struct EndpointSliceStrategy;

impl Strategy for EndpointSliceStrategy {
    fn prepare_create(&self, slice: &mut Value) {
        drop_topology(slice);
    }

    fn prepare_update(&self, slice: &mut Value, _old: &Value, _part: Part) {
        drop_topology(slice);
    }

    fn warnings(&self, slice: &Value) -> Vec<String> {
        let mut all = Vec::new();
        if text(slice, "/addressType") == "FQDN" {
            // The path is Kubernetes' own.
            all.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
        }
        let manager = map(slice, "/metadata/labels").find(|(key, _)| *key == MANAGED_BY);
        if !manager.is_some_and(|(_, manager)| CONTROLLERS.iter().any(|own| manager == own)) {
            for (index, endpoint) in list(slice, "/endpoints").iter().enumerate() {
                let path = Path::new("endpoints").index(index).child("addresses");
                all.extend(addresses::warn_of_ips(list(endpoint, "/addresses"), &path));
            }
        }
        all
    }

    fn default(&self, object: &mut Value) {
        for port in list_mut(object, "ports") {
            fill(port, "protocol", "TCP");
            // An absent name is the empty one.
            if port.get("name").is_none_or(Value::is_null) {
                crate::kinds::tree::set(port, "name", "");
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        let kind = text(object, "/addressType");
        if kind.is_empty() {
            errors.required(&Path::new("addressType"), "");
        } else if !ADDRESS_TYPES.contains(&kind) {
            errors.not_supported(&Path::new("addressType"), kind, ADDRESS_TYPES);
        }
        let all = list(object, "/endpoints");
        if all.len() > MAX_ENDPOINTS {
            return errors.too_many(&Path::new("endpoints"), all.len(), MAX_ENDPOINTS);
        }
        for (index, endpoint) in all.iter().enumerate() {
            validate_endpoint(endpoint, kind, &Path::new("endpoints").index(index), errors);
        }
        validate_ports(list(object, "/ports"), &Path::new("ports"), errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        self.validate(new, errors);
        meta::immutable(new.get("addressType"), old.get("addressType"), &Path::new("addressType"), errors);
    }
}

/// What only the version before `v1` could write.
fn drop_topology(slice: &mut Value) {
    for endpoint in list_mut(slice, "endpoints") {
        remove(endpoint, "deprecatedTopology");
    }
}

fn validate_endpoint(endpoint: &Value, kind: &str, path: &Path, errors: &mut ErrorList) {
    let addresses = list(endpoint, "/addresses");
    let path_of = path.child("addresses");
    if addresses.is_empty() {
        errors.required(&path_of, "must contain at least 1 address");
    } else if addresses.len() > MAX_ADDRESSES {
        errors.too_many(&path_of, addresses.len(), MAX_ADDRESSES);
    }
    for (index, address) in addresses.iter().enumerate() {
        validate_address(address.as_str().unwrap_or_default(), kind, &path_of.index(index), errors);
    }
    let host = text(endpoint, "/hostname");
    if !host.is_empty() {
        push_all(errors, &path.child("hostname"), host, names::dns1123_label(host));
    }
    let node = text(endpoint, "/nodeName");
    if !node.is_empty() {
        push_all(errors, &path.child("nodeName"), node, names::dns1123_subdomain(node));
    }
    let path = path.child("hints");
    validate_hints(endpoint, "forZones", names::label_value, &path, errors);
    validate_hints(endpoint, "forNodes", names::dns1123_subdomain, &path, errors);
}

/// Judges the zones or nodes that an endpoint is meant for by a rule for their names.
fn validate_hints(
    endpoint: &Value,
    field: &str,
    rule: impl Fn(&str) -> Vec<String>,
    path: &Path,
    errors: &mut ErrorList,
) {
    let (hints, path) = (list(endpoint, &format!("/hints/{field}")), path.child(field));
    if hints.len() > MAX_HINTS {
        return errors.too_many(&path, hints.len(), MAX_HINTS);
    }
    let mut seen = HashSet::new();
    for (index, hint) in hints.iter().enumerate() {
        let (name, path) = (text(hint, "/name"), path.index(index).child("name"));
        if !seen.insert(name) {
            errors.duplicate(&path, &json!(name));
        }
        push_all(errors, &path, name, rule(name));
    }
}

fn validate_address(address: &str, kind: &str, path: &Path, errors: &mut ErrorList) {
    match kind {
        "IPv4" if address.parse::<std::net::Ipv4Addr>().is_err() => {
            errors.invalid(path, &json!(address), "must be an IPv4 address");
        }
        "IPv6" if address.parse::<std::net::Ipv6Addr>().is_err() => {
            errors.invalid(path, &json!(address), "must be an IPv6 address");
        }
        "FQDN" => push_all(errors, path, address, names::dns1123_subdomain(address)),
        _ => addresses::validate(address, path, errors),
    }
}

fn validate_ports(ports: &[Value], path: &Path, errors: &mut ErrorList) {
    if ports.len() > MAX_PORTS {
        return errors.too_many(path, ports.len(), MAX_PORTS);
    }
    let mut seen = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "/name");
        if !name.is_empty() {
            push_all(errors, &path.child("name"), name, names::dns1123_label(name));
        }
        if !seen.insert(name) {
            errors.duplicate(&path.child("name"), &json!(name));
        }
        let protocol = text(port, "/protocol");
        if !PROTOCOLS.contains(&protocol) {
            errors.not_supported(&path.child("protocol"), protocol, PROTOCOLS);
        }
        if let Some(number) = some(port, "/port").and_then(Value::as_i64)
            && let Some(why) = names::port_number(number)
        {
            errors.invalid(&path.child("port"), &json!(number), why);
        }
        if let Some(protocol) = some(port, "/appProtocol").and_then(Value::as_str) {
            push_all(errors, &path.child("appProtocol"), protocol, names::qualified_name(protocol));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn unset_is_said_and_long_lists_are_cut() {
        assert_eq!((ports(&json!({})), endpoints(&json!({}))), ("<unset>".into(), "<unset>".into()));
        let slice = json!({"ports": [{"port": 80}, {"name": "x"}, {}, {"port": 1}],
            "endpoints": [{"addresses": ["1.1.1.1"]}, {"addresses": ["1.1.1.2"]}]});
        assert_eq!(ports(&slice), "80,x,* + 1 more...");
        assert_eq!(endpoints(&slice), "1.1.1.1,1.1.1.2");
    }

    #[test]
    fn addresses_are_of_the_slice_s_type() {
        let mut errors = ErrorList::default();
        let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["::2"]}, {"addresses": []}]});
        EndpointSliceStrategy.validate(&slice, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "endpoints[0].addresses[0]: Invalid value: \"::2\": must be an IPv4 address",
                "endpoints[1].addresses: Required value: must contain at least 1 address"
            ]
        );
    }

    #[test]
    fn hints_and_protocols_are_names() {
        let slice = |hints: Value, port: Value| {
            let endpoint = json!({"addresses": ["10.0.0.1"], "hints": hints});
            let mut slice = json!({"addressType": "IPv4", "endpoints": [endpoint], "ports": [port]});
            EndpointSliceStrategy.default(&mut slice);
            complaints(|errors| EndpointSliceStrategy.validate(&slice, errors))
        };
        let zones = |names: &[&str]| names.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>();
        let at = "endpoints[0].hints";
        assert_eq!(
            slice(json!({"forZones": zones(&["a", "b"]), "forNodes": zones(&["n.x"])}), json!({"port": 1})),
            [""; 0]
        );
        for (field, names, said) in [
            ("forZones", &["a", "a"][..], "[1].name: Duplicate value: \"a\""),
            ("forNodes", &["n", "n"], "[1].name: Duplicate value: \"n\""),
            ("forZones", &["1", "2", "3", "4", "5", "6", "7", "8", "9"], ": Too many: 9: must have at most 8 items"),
        ] {
            assert_eq!(slice(json!({ field: zones(names) }), json!({})), [format!("{at}.{field}{said}")]);
        }
        for (field, name) in [("forZones", "a b"), ("forNodes", "A")] {
            let said = slice(json!({ field: zones(&[name]) }), json!({}));
            assert!(
                said.len() == 1 && said[0].starts_with(&format!("{at}.{field}[0].name: Invalid value: {name:?}")),
                "{said:?}"
            );
        }
        assert_eq!(slice(json!({}), json!({"appProtocol": "kubernetes.io/h2c"})), [""; 0]);
        let said = slice(json!({}), json!({"appProtocol": "a b"}));
        assert!(said.len() == 1 && said[0].starts_with("ports[0].appProtocol: Invalid value: \"a b\""), "{said:?}");
    }

    #[test]
    fn what_is_of_the_version_before_is_dropped_or_warned_of() {
        let given = json!({"addressType": "FQDN", "endpoints": [{"deprecatedTopology": {"zone": "a"}}]});
        let (mut created, mut updated) = (given.clone(), given.clone());
        EndpointSliceStrategy.prepare_create(&mut created);
        EndpointSliceStrategy.prepare_update(&mut updated, &given, Part::Main);
        assert_eq!((&created["endpoints"], &updated["endpoints"]), (&json!([{}]), &json!([{}])));
        assert_eq!(EndpointSliceStrategy.warnings(&given), ["spec.addressType: FQDN endpoints are deprecated"]);
        assert!(EndpointSliceStrategy.warnings(&json!({"addressType": "IPv4"})).is_empty());
    }
}
