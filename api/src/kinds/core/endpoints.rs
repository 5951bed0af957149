//! Endpoints: the addresses behind a Service, in the old form.

use k8s_openapi::api::core::v1::Endpoints;
use serde_json::{Value, json};

use super::addresses::{self, join_host_port};
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, NONE, column};
use crate::kinds::tree::{fill, int, list, list_mut, map, text};
use crate::meta::{names, push_all};
use crate::resource::Descriptor;
use crate::strategy::Strategy;

/// How many addresses a table shows.
const SHOWN: usize = 3;

const ADDRESSES: [&str; 2] = ["addresses", "notReadyAddresses"];
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
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
    fn a_subset_has_addresses_and_named_ports() {
        let mut errors = ErrorList::default();
        let bad = json!({"subsets": [{"ports": [{"port": 0}, {"port": 1, "name": "a"}]}]});
        let mut object = bad;
        EndpointsStrategy.default(&mut object);
        EndpointsStrategy.validate(&object, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
                "subsets[0].ports[0].name: Required value",
                "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"
            ]
        );
    }
}
