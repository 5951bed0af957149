//! Endpoints: the addresses behind a Service, in the old form.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::Endpoints;
use serde_json::{Value, json};

use super::addresses::{self, join_host_port};
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, NONE, column};
use crate::kinds::tree::{fill, int, list, list_mut, map, set, text};
use crate::meta::{names, push_all};
use crate::resource::Descriptor;
use crate::strategy::Strategy;

/// How many addresses a table shows.
const SHOWN: usize = 3;

const ADDRESSES: [&str; 2] = ["addresses", "notReadyAddresses"];
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Addresses, counted once for each of their ports, beyond which subsets are left as they are written.
const MOST: usize = 100_000;
/// Bytes of addresses beyond which their one form is larger than an object may be: what is written once may have to stand beside
/// each of many ports.
const MOST_BYTES: usize = 3 * 1024 * 1024;
/// Who writes addresses in their canonical form anyway.
const CONTROLLER: &str = "endpoint-controller";

pub fn descriptor() -> Descriptor {
    Descriptor::of::<Endpoints>()
        .short(&["ep"])
        .create_on_update()
        .columns(vec![
            cells::name(),
            column("Endpoints", "string", "The set of all endpoints is the union of all subsets.", |o, _| {
                json!(shown(o))
            }),
            cells::age(),
        ])
        .no_generation()
        .deprecated("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        .strategy(EndpointsStrategy)
}

fn shown(endpoints: &Value) -> String {
    let subsets = list(endpoints, "/subsets");
    if subsets.is_empty() {
        return NONE.to_owned();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let addresses: Vec<&str> = list(subset, "/addresses").iter().map(|a| text(a, "/ip")).collect();
        let ports = list(subset, "/ports");
        if ports.is_empty() {
            all.extend(addresses.iter().map(|a| (*a).to_owned()));
        }
        for port in ports {
            let port = int(port, "/port").unwrap_or_default();
            all.extend(addresses.iter().map(|a| join_host_port(a, port)));
        }
    }
    let total = all.len();
    all.truncate(SHOWN);
    if total == 0 { String::new() } else { cells::with_more(&all, total) }
}

#[derive(Debug)]
struct EndpointsStrategy;

impl Strategy for EndpointsStrategy {
    fn default(&self, object: &mut Value) {
        for port in list_mut(object, "subsets").flat_map(|s| list_mut(s, "ports")) {
            fill(port, "protocol", "TCP");
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let manager = map(object, "/metadata/labels").find(|(key, _)| *key == MANAGED_BY);
        if manager.is_some_and(|(_, manager)| manager == CONTROLLER) {
            return Vec::new();
        }
        let mut all = Vec::new();
        for (index, subset) in list(object, "/subsets").iter().enumerate() {
            for field in ADDRESSES {
                for (at, address) in list(subset, &format!("/{field}")).iter().enumerate() {
                    let path = Path::new("subsets").index(index).child(field).index(at).child("ip");
                    all.extend(addresses::warn_of_ip(text(address, "/ip"), &path));
                }
            }
        }
        all
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        for (index, subset) in list(object, "/subsets").iter().enumerate() {
            let path = Path::new("subsets").index(index);
            if list(subset, "/addresses").is_empty() && list(subset, "/notReadyAddresses").is_empty() {
                errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
            }
            for field in ADDRESSES {
                for (index, address) in list(subset, &format!("/{field}")).iter().enumerate() {
                    validate_address(address, &path.child(field).index(index), errors);
                }
            }
            let ports = list(subset, "/ports");
            for (index, port) in ports.iter().enumerate() {
                validate_port(port, ports.len() > 1, &path.child("ports").index(index), errors);
            }
        }
    }
}

/// An address and the pod that has it: what Kubernetes takes for one endpoint.
type Who<'a> = (&'a str, &'a str);
/// Addresses, and whether they are ready.
type Addresses<'a> = BTreeMap<Who<'a>, bool>;
/// Addresses as they are written, and how many bytes they take.
type Known<'a> = HashMap<Who<'a>, (&'a Value, usize)>;

/// The one form of subsets, which controllers make and read (what others write is stored as they write it): one for each set of
/// addresses, with all ports that they have in common; addresses are sorted, and ready only where nobody says that they are not.
/// Ports and subsets keep their order (Kubernetes' is of hashes), so that what has this form stays as it is.
pub fn repack(subsets: &[Value]) -> Vec<Value> {
    let count = |subset: &Value, field: &str| list(subset, field).len();
    let size = |s: &Value| (count(s, "/addresses") + count(s, "/notReadyAddresses")) * count(s, "/ports").max(1);
    if subsets.iter().map(size).sum::<usize>() > MOST {
        return subsets.to_vec();
    }
    let mut known: Known<'_> = HashMap::new();
    let mut offers: Vec<(Option<&Value>, Addresses<'_>)> = Vec::new();
    let mut places: HashMap<Option<&Value>, usize> = HashMap::new();
    for subset in subsets {
        let ports = list(subset, "/ports");
        // Addresses without a port are endpoints as well.
        let none = ports.is_empty().then_some(None);
        for port in ports.iter().map(Some).chain(none) {
            let place = *places.entry(port).or_insert(offers.len());
            if place == offers.len() {
                offers.push((port, BTreeMap::new()));
            }
            let Some((_, who)) = offers.get_mut(place) else { continue };
            for (field, ready) in ADDRESSES.into_iter().zip([true, false]) {
                for address in list(subset, &format!("/{field}")) {
                    let key = (text(address, "/ip"), text(address, "/targetRef/uid"));
                    known.entry(key).or_insert_with(|| (address, address.to_string().len()));
                    *who.entry(key).or_insert(ready) &= ready;
                }
            }
        }
    }
    let mut groups: Vec<(Addresses<'_>, Vec<&Value>)> = Vec::new();
    let mut places: HashMap<Addresses<'_>, usize> = HashMap::new();
    for (port, who) in offers {
        let place = *places.entry(who.clone()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, ports)) => ports.extend(port),
            None => groups.push((who, port.into_iter().collect())),
        }
    }
    let sizes = groups.iter().flat_map(|(who, _)| who.keys()).filter_map(|key| known.get(key)).map(|(_, size)| size);
    if sizes.sum::<usize>() > MOST_BYTES {
        return subsets.to_vec();
    }
    groups.into_iter().map(|(who, ports)| subset_of(&who, &ports, &known)).collect()
}

fn subset_of(who: &Addresses<'_>, ports: &[&Value], known: &Known<'_>) -> Value {
    let mut subset = json!({});
    for (field, wanted) in ADDRESSES.into_iter().zip([true, false]) {
        let of = who.iter().filter(|(_, ready)| **ready == wanted).filter_map(|(key, _)| known.get(key));
        let of: Vec<Value> = of.map(|(address, _)| (*address).clone()).collect();
        if !of.is_empty() {
            set(&mut subset, field, of);
        }
    }
    if !ports.is_empty() {
        set(&mut subset, "ports", ports.iter().copied().cloned().collect::<Vec<_>>());
    }
    subset
}

fn validate_address(address: &Value, path: &Path, errors: &mut ErrorList) {
    let host = text(address, "/hostname");
    if !host.is_empty() {
        push_all(errors, &path.child("hostname"), host, names::dns1123_label(host));
    }
    let node = text(address, "/nodeName");
    if !node.is_empty() {
        push_all(errors, &path.child("nodeName"), node, names::dns1123_subdomain(node));
    }
    addresses::validate(text(address, "/ip"), &path.child("ip"), errors);
}

fn validate_port(port: &Value, name_required: bool, path: &Path, errors: &mut ErrorList) {
    let name = text(port, "/name");
    if !name.is_empty() {
        push_all(errors, &path.child("name"), name, names::dns1123_label(name));
    } else if name_required {
        errors.required(&path.child("name"), "");
    }
    let number = int(port, "/port").unwrap_or_default();
    if let Some(why) = names::port_number(number) {
        errors.invalid(&path.child("port"), &json!(number), why);
    }
    addresses::validate_protocol(port, path, errors);
    let protocol = text(port, "/appProtocol");
    if !protocol.is_empty() {
        push_all(errors, &path.child("appProtocol"), protocol, names::qualified_name(protocol));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_addresses_are_shown_and_the_rest_counted() {
        let many = json!({"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}], "ports": [{"port": 80}, {"port": 81}]}]});
        assert_eq!(shown(&many), "1.1.1.1:80,1.1.1.2:80,1.1.1.1:81 + 1 more...");
        assert_eq!(shown(&json!({})), NONE);
        assert_eq!(shown(&json!({"subsets": [{"notReadyAddresses": [{"ip": "1.1.1.1"}]}]})), "");
    }

    #[test]
    fn subsets_are_repacked_as_kubernetes_does() {
        let at = |ip: &str| json!({"ip": ip});
        let port = |number: i64| json!({"name": format!("p{number}"), "port": number, "protocol": "TCP"});
        let repacked = |subsets: Value| {
            let once = repack(subsets.as_array().unwrap());
            assert_eq!(repack(&once), once, "a second time changes nothing");
            json!(once)
        };
        let pod = |uid: &str| json!({"ip": "10.0.0.1", "targetRef": {"kind": "Pod", "uid": uid}});
        for (given, wanted) in [
            // The same address twice, and out of order.
            (
                json!([{"addresses": [at("10.0.0.2"), at("10.0.0.1"), at("10.0.0.2")], "ports": [port(2), port(1)]}]),
                json!([{"addresses": [at("10.0.0.1"), at("10.0.0.2")], "ports": [port(2), port(1)]}]),
            ),
            // The same addresses with other ports, and the same port with other addresses.
            (
                json!([{"addresses": [at("10.0.0.1")], "ports": [port(1)]}, {"addresses": [at("10.0.0.1")], "ports": [port(2)]}]),
                json!([{"addresses": [at("10.0.0.1")], "ports": [port(1), port(2)]}]),
            ),
            (
                json!([{"addresses": [at("10.0.0.1")], "ports": [port(1)]}, {"addresses": [at("10.0.0.2")], "ports": [port(1)]}]),
                json!([{"addresses": [at("10.0.0.1"), at("10.0.0.2")], "ports": [port(1)]}]),
            ),
            // Who is not ready anywhere, is not; without ports as well.
            (
                json!([{"addresses": [at("10.0.0.1")]}, {"notReadyAddresses": [at("10.0.0.1")]}]),
                json!([{"notReadyAddresses": [at("10.0.0.1")]}]),
            ),
            // Several pods may have one address.
            (json!([{"addresses": [pod("b"), pod("a")]}]), json!([{"addresses": [pod("a"), pod("b")]}])),
        ] {
            assert_eq!(repacked(given), wanted);
        }
    }

    #[test]
    fn what_would_grow_without_bound_stays_as_it_is() {
        let many: Vec<Value> = (0..400).map(|n| json!({"ip": format!("10.0.{}.{}", 255 - n / 256, n % 256)})).collect();
        let ports: Vec<Value> =
            (1..=400).map(|n| json!({"name": format!("p{n}"), "port": n, "protocol": "TCP"})).collect();
        let subsets = json!([{"addresses": many, "ports": ports}]);
        assert_eq!(json!(repack(subsets.as_array().unwrap())), subsets);
        // Few, of which one is large and would stand beside every port.
        let named = json!({"ip": "10.1.0.1", "targetRef": {"kind": "Pod", "name": "x".repeat(MOST_BYTES / 4)}});
        let one = |port: &Value| json!({"addresses": [{"ip": format!("10.0.0.{}", port["port"])}], "ports": [port]});
        let repacked = |ports: &[Value]| {
            let mut subsets = vec![json!({"addresses": [named], "ports": ports})];
            subsets.extend(ports.iter().map(one));
            (repack(&subsets).len(), subsets.len())
        };
        assert_eq!(repacked(&ports[..3]), (3, 4), "repacked");
        assert_eq!(repacked(&ports[..4]), (5, 5), "as it is");
    }

    #[test]
    fn a_subset_has_addresses_and_named_ports() {
        let mut errors = ErrorList::default();
        let bad = json!({"subsets": [{"ports": [{"port": 0}, {"port": 1, "name": "a", "appProtocol": "a b"}]}]});
        let mut object = bad;
        EndpointsStrategy.default(&mut object);
        EndpointsStrategy.validate(&object, &mut errors);
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            said[..3],
            [
                "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
                "subsets[0].ports[0].name: Required value",
                "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"
            ]
        );
        assert!(
            said.len() == 4 && said[3].starts_with("subsets[0].ports[1].appProtocol: Invalid value: \"a b\""),
            "{said:?}"
        );
    }
}
