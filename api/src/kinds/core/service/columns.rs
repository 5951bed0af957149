//! What `kubectl get services` shows.

use serde_json::{Value, json};

use crate::kinds::cells::{self, NONE, column, wide};
use crate::kinds::tree::{int, list, text};
use crate::resource::Column;

pub(super) fn columns() -> Vec<Column> {
    vec![
        cells::name(),
        column("Type", "string", "type determines how the Service is exposed.", |o, _| json!(text(o, "/spec/type"))),
        column("Cluster-IP", "string", "clusterIP is the IP address of the service.", |o, _| json!(cluster_ip(o))),
        column("External-IP", "string", "Addresses at which the service is reached from outside.", |o, _| {
            json!(external_ip(o))
        }),
        column("Port(s)", "string", "The list of ports that are exposed by this service.", |o, _| json!(ports(o))),
        cells::age(),
        wide("Selector", "Route service traffic to pods with label keys and values matching this selector.", |o, _| {
            json!(cells::labels(o, "/spec/selector"))
        }),
    ]
}

fn cluster_ip(service: &Value) -> &str {
    let ip = text(service, "/spec/clusterIPs/0");
    if ip.is_empty() { NONE } else { ip }
}

fn external_ip(service: &Value) -> String {
    let mut addresses: Vec<&str> = Vec::new();
    let external = || list(service, "/spec/externalIPs").iter().filter_map(Value::as_str);
    let nothing = match text(service, "/spec/type") {
        "ClusterIP" | "NodePort" => NONE,
        "LoadBalancer" => {
            for ingress in list(service, "/status/loadBalancer/ingress") {
                let ip = text(ingress, "/ip");
                addresses.push(if ip.is_empty() { text(ingress, "/hostname") } else { ip });
            }
            addresses.sort_unstable();
            addresses.dedup();
            "<pending>"
        }
        "ExternalName" => return text(service, "/spec/externalName").to_owned(),
        _ => return "<unknown>".to_owned(),
    };
    addresses.extend(external());
    if addresses.is_empty() { nothing.to_owned() } else { addresses.join(",") }
}

fn ports(service: &Value) -> String {
    let shown: Vec<String> = list(service, "/spec/ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (int(port, "/port").unwrap_or_default(), text(port, "/protocol"));
            match int(port, "/nodePort").filter(|n| *n > 0) {
                Some(node_port) => format!("{number}:{node_port}/{protocol}"),
                None => format!("{number}/{protocol}"),
            }
        })
        .collect();
    if shown.is_empty() { NONE.to_owned() } else { shown.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_port_stands_beside_its_port() {
        let service = json!({"spec": {"ports": [
            {"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}});
        assert_eq!(ports(&service), "80:30080/TCP,53/UDP");
        assert_eq!(ports(&json!({})), NONE);
    }

    #[test]
    fn a_load_balancer_is_pending_until_it_has_an_address() {
        let mut service = json!({"spec": {"type": "LoadBalancer"}});
        assert_eq!(external_ip(&service), "<pending>");
        service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}, {"hostname": "a.b"}]}});
        assert_eq!(external_ip(&service), "2.2.2.2,a.b");
        assert_eq!(external_ip(&json!({"spec": {"type": "ClusterIP", "externalIPs": ["1.1.1.1"]}})), "1.1.1.1");
        assert_eq!(external_ip(&json!({"spec": {"type": "ExternalName", "externalName": "x.y"}})), "x.y");
    }
}
