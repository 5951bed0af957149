//! What `wherry up` shows of what it applied: the pods, and the addresses to reach them at.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use wherry_runtime::network::HostPorts;

use crate::client::{Client, TABLE};
use crate::commands::Applied;
use crate::ready;
use crate::table::Table;

/// How long a node port may take to be opened before it is said that it is not: a process that ended a moment ago may hold
/// it still.
const OPENED: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);

/// The lines of one table of all pods that the applied workloads select, and of the applied pods.
pub async fn pods(client: &Client, applied: &[Applied]) -> anyhow::Result<Vec<String>> {
    let namespaces: BTreeSet<&str> =
        applied.iter().filter_map(|one| one.object.pointer("/metadata/namespace")?.as_str()).collect();
    let mut all = Table::default();
    for path in applied.iter().filter_map(ready::pods_path) {
        all.append(Table::from_server(&client.read_as(&path, TABLE).await?, false, namespaces.len() > 1));
    }
    Ok(if all.is_empty() { Vec::new() } else { all.lines(true) })
}

/// A node port of a Service, and what became of it on this machine.
#[derive(Debug, PartialEq, Eq)]
pub enum Reached {
    /// The URL that it is served at.
    At(String),
    /// What stands in the way, and what to do about it.
    Not(String),
}

/// Each node port of the applied Services: a URL only if this cluster has the port.
pub async fn urls(client: &Client, applied: &[Applied], ports: &HostPorts) -> anyhow::Result<Vec<Reached>> {
    let mut urls = Vec::new();
    for one in applied.iter().filter(|one| one.resource.api.kind == "Service") {
        let path = ready::path(one);
        let service = client.read(&path).await?;
        for port in node_ports(&service) {
            urls.push(reached(&service, ports.own_address(port), opened(ports, port).await));
        }
    }
    Ok(urls)
}

/// The node ports of TCP, which are those that the host is served on.
fn node_ports(service: &Value) -> Vec<u16> {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
    let tcp = ports.filter(|port| port.get("protocol").and_then(Value::as_str).is_none_or(|name| name == "TCP"));
    tcp.filter_map(|port| port.get("nodePort")?.as_u64()).filter_map(|port| u16::try_from(port).ok()).collect()
}

async fn opened(ports: &HostPorts, port: u16) -> Option<Result<(), ErrorKind>> {
    let deadline = tokio::time::Instant::now() + OPENED;
    loop {
        let outcome = ports.node_port(port);
        if outcome == Some(Ok(())) || tokio::time::Instant::now() >= deadline {
            return outcome;
        }
        tokio::time::sleep(POLL).await;
    }
}

fn reached(service: &Value, at: SocketAddr, outcome: Option<Result<(), ErrorKind>>) -> Reached {
    let field = |name: &str| service.get("metadata").and_then(|m| m.get(name)?.as_str()).unwrap_or_default();
    let why = match outcome {
        Some(Ok(())) => return Reached::At(format!("http://{at}/  ({})", field("name"))),
        Some(Err(kind)) => kind.to_string(),
        None => "it is not served yet".to_owned(),
    };
    Reached::Not(format!(
        "Service {}/{} cannot be reached at port {} of this machine: {why}. Give it another nodePort, or stop what has \
         that port: it is served as soon as the port is free",
        field("namespace"),
        field("name"),
        at.port(),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service() -> Value {
        json!({"metadata": {"namespace": "ns", "name": "web"}, "spec": {"ports": [
            {"port": 80, "nodePort": 30080}, {"port": 53, "nodePort": 30053, "protocol": "UDP"}, {"port": 81}]}})
    }

    #[test]
    fn only_a_port_that_is_served_has_a_url() {
        let service = service();
        assert_eq!(node_ports(&service), [30080]);
        let at = "127.0.0.1:30080".parse().unwrap();
        assert_eq!(reached(&service, at, Some(Ok(()))), Reached::At("http://127.0.0.1:30080/  (web)".to_owned()));
        for outcome in [Some(Err(ErrorKind::AddrInUse)), None] {
            let Reached::Not(said) = reached(&service, at, outcome) else { panic!("{outcome:?} has a URL") };
            for part in ["ns/web", "30080", "another nodePort", "stop what has"] {
                assert!(said.contains(part), "{said}");
            }
        }
    }
}
