//! Who is behind a Service, as a table.

use serde_json::Value;
use wherry_api::object;

use crate::client::Client;
use crate::table::Table;

/// A Service's endpoints: addresses with their ports, whether they are ready, and whose they are.
pub async fn endpoints(client: &Client, service: &Value) -> anyhow::Result<Table> {
    let slices = client.resource("endpointslices.discovery.k8s.io").await?;
    let selector = format!("kubernetes.io/service-name={}", object::name(service));
    let path = slices.paths(Some(object::namespace(service)), &[], Some(&selector)).concat();
    let list = client.read(&path).await?;
    Ok(Table::new(&["ADDRESS", "READY", "TARGET"], items(&list, "items").flat_map(rows).collect()))
}

fn items<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn rows(slice: &Value) -> Vec<Vec<String>> {
    let ports = items(slice, "ports").filter_map(|port| port.get("port")?.as_i64());
    let ports = ports.map(|port| port.to_string()).collect::<Vec<_>>().join(",");
    let row = |endpoint: &Value| {
        let address = items(endpoint, "addresses").next().and_then(Value::as_str).unwrap_or_default();
        // Who does not say is ready.
        let ready = endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
        let [kind, name] = ["kind", "name"].map(|field| object::text_at(endpoint, &format!("targetRef.{field}")));
        let target = if name.is_empty() { String::new() } else { format!("{}/{name}", kind.to_lowercase()) };
        vec![format!("{address}:{ports}"), if ready { "yes" } else { "no" }.to_owned(), target]
    };
    items(slice, "endpoints").map(row).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_endpoint_is_an_address_with_all_ports_and_whose_it_is() {
        let slice = json!({"ports": [{"port": 80}, {"name": "more", "port": 81}], "endpoints": [
            {"addresses": ["127.64.0.1"], "conditions": {"ready": false}, "targetRef": {"kind": "Pod", "name": "web-1"}},
            {"addresses": ["192.0.2.1"]},
        ]});
        assert_eq!(rows(&slice), [vec!["127.64.0.1:80,81", "no", "pod/web-1"], vec!["192.0.2.1:80,81", "yes", ""]]);
    }
}
