//! What a node has to give, what of it its pods ask for, and which these are.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;
use wherry_api::kinds::core::podspec::busiest::{self, Amounts, ByName};
use wherry_api::object;
use wherry_api::quantity::Quantity;
use wherry_api::table::{human_duration, since};

use super::related::{encoded, items, section};
use crate::client::Client;
use crate::table::Table;

/// What of a pod is shown beside its name.
const SHOWN: [&str; 2] = ["cpu", "memory"];

/// Removes what the sections tell, and the list of images, which is long.
pub fn tidy(node: &mut Value) {
    if let Some(status) = node.get_mut("status").and_then(Value::as_object_mut) {
        status.retain(|field, _| !matches!(field.as_str(), "allocatable" | "capacity" | "images"));
    }
}

/// How long ago the node was heard of; `None` if that cannot be read.
pub async fn heartbeat(client: &Client, node: &Value, now: Timestamp) -> Option<String> {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{}", object::name(node));
    let renewed = object::parse_time(&object::text_at(&client.read(&path).await.ok()?, "spec.renewTime"))?;
    Some(format!("{} ago", human_duration(now.as_second() - renewed.as_second())))
}

/// Resources and pods.
pub async fn sections(client: &Client, node: &Value, now: Timestamp) -> Vec<String> {
    let running = format!("spec.nodeName={},status.phase!=Succeeded,status.phase!=Failed", object::name(node));
    let pods = client.read(&format!("/api/v1/pods?fieldSelector={}", encoded(&running))).await;
    let resources = resources(node, pods.as_ref().ok().map(items));
    let title =
        pods.as_ref().map_or_else(|_| "Pods".to_owned(), |list| format!("Pods ({} not ended)", items(list).len()));
    let pods = pods.map(|list| table(node, items(&list), now));
    [section("Resources", Ok(resources)), section(&title, pods)].concat()
}

fn amounts(node: &Value, field: &str) -> ByName {
    let amounts = node.pointer(&format!("/status/{field}")).and_then(Value::as_object).into_iter().flatten();
    amounts.filter_map(|(name, amount)| Some((name.clone(), amount.as_str()?.parse().ok()?))).collect()
}

/// An amount, and how much of what there is it is.
fn part(amount: Quantity, of: Option<&Quantity>) -> String {
    let percent = of.and_then(|of| (i128::from(amount.milli()) * 100).checked_div(i128::from(of.milli())));
    percent.map_or_else(|| amount.to_string(), |percent| format!("{amount} ({percent}%)"))
}

/// A row for each resource; what pods ask for only if they are known.
fn resources(node: &Value, pods: Option<&[Value]>) -> Table {
    let (capacity, allocatable) = (amounts(node, "capacity"), amounts(node, "allocatable"));
    let asked = pods.map(|pods| {
        let mut sums = ["requests", "limits"].map(|field| {
            let mut sum = ByName::default();
            for pod in pods {
                sum.add(&busiest::of_pod(pod, field));
            }
            sum
        });
        let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
        sums[0].insert("pods".to_owned(), Quantity::from_units(count));
        sums
    });
    let asked = asked.as_ref().map_or(&[][..], |sums| sums);
    let known = [&capacity, &allocatable].into_iter().chain(asked);
    let names: BTreeSet<&String> = known.flat_map(ByName::keys).collect();
    let row = |name: &String| {
        let plain = [&capacity, &allocatable].map(|all| all.get(name).map(Quantity::to_string).unwrap_or_default());
        let sums = asked
            .iter()
            .map(|sum| sum.get(name).map(|amount| part(*amount, allocatable.get(name))).unwrap_or_default());
        std::iter::once(name.clone()).chain(plain).chain(sums).collect()
    };
    let header = ["RESOURCE", "CAPACITY", "ALLOCATABLE", "REQUESTED", "LIMITS"];
    Table::new(header.get(..3 + asked.len()).unwrap_or(&header), names.into_iter().map(row).collect())
}

fn table(node: &Value, pods: &[Value], now: Timestamp) -> Table {
    let allocatable = amounts(node, "allocatable");
    let row = |pod: &Value| {
        let mut row = vec![object::namespace(pod).to_owned(), object::name(pod).to_owned()];
        let asked = ["requests", "limits"].map(|field| busiest::of_pod(pod, field));
        for name in SHOWN {
            row.extend(asked.iter().map(|amounts| match amounts.get(name) {
                Some(amount) => part(*amount, allocatable.get(name)),
                None => "0".to_owned(),
            }));
        }
        row.push(since(object::creation_timestamp(pod), now));
        row
    };
    let header = ["NAMESPACE", "NAME", "CPU REQUESTS", "CPU LIMITS", "MEMORY REQUESTS", "MEMORY LIMITS", "AGE"];
    Table::new(&header, pods.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(table: &Table) -> Vec<String> {
        table.lines(true).iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn a_node_tells_what_its_pods_ask_for() {
        let node = json!({"status": {"capacity": {"cpu": "2", "memory": "4Gi", "pods": "110"},
            "allocatable": {"cpu": "2", "memory": "2Gi", "pods": "110"}}});
        let pod = |requests: Value, limits: Value| {
            json!({"metadata": {"name": "p", "namespace": "ns"},
            "spec": {"containers": [{"resources": {"requests": requests, "limits": limits}}]}})
        };
        let pods = [
            pod(json!({"cpu": "500m", "memory": "1Gi"}), json!({"memory": "3Gi"})),
            pod(json!({"x/gpu": "1"}), json!({})),
        ];
        assert_eq!(
            words(&resources(&node, Some(&pods))),
            [
                "RESOURCE CAPACITY ALLOCATABLE REQUESTED LIMITS",
                "cpu 2 2 500m (25%)",
                "memory 4Gi 2Gi 1Gi (50%) 3Gi (150%)",
                "pods 110 110 2 (1%)",
                "x/gpu 1",
            ]
        );
        assert_eq!(words(&resources(&node, None))[1], "cpu 2 2");
        let shown = words(&table(&node, &pods[..1], Timestamp::UNIX_EPOCH));
        assert_eq!(shown[1], "ns p 500m (25%) 0 1Gi (50%) 3Gi (150%) <unknown>");
        let mut tidied = json!({"status": {"capacity": {}, "images": [], "nodeInfo": {}}});
        tidy(&mut tidied);
        assert_eq!(tidied, json!({"status": {"nodeInfo": {}}}));
    }
}
