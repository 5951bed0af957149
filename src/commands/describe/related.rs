//! What belongs to an object, as tables: who is behind a Service, what a Deployment rolled out, whose pods they are.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::Value;
use wherry_api::object;
use wherry_api::table::since;

use super::endpoints::endpoints;
use super::node;
use crate::client::{Client, Resource, TABLE};
use crate::layout::indented;
use crate::selector;
use crate::table::Table;

/// Pods of a workload that are shown at most.
const PODS: usize = 20;
const REVISION: &str = "deployment.kubernetes.io/revision";

/// The sections about what belongs to an object.
pub async fn related(client: &Client, resource: &Resource, object: &Value, now: Timestamp) -> Vec<String> {
    match (resource.api.group.as_str(), resource.api.plural.as_str()) {
        ("", "namespaces") => {
            let quotas = inside(client, object, "resourcequotas").await;
            [section("Quotas", quotas), section("Limit ranges", inside(client, object, "limitranges").await)].concat()
        }
        ("", "nodes") => node::sections(client, object, now).await,
        ("", "services") => section("Endpoints", endpoints(client, object).await),
        ("apps", "deployments") => rollout(client, object, now).await,
        ("apps", "daemonsets" | "replicasets" | "statefulsets")
        | ("", "replicationcontrollers")
        | ("batch", "jobs") => pods(client, object, &HashSet::from([object::uid(object)])).await,
        _ => Vec::new(),
    }
}

/// A table under its title.
pub fn section(title: &str, table: anyhow::Result<Table>) -> Vec<String> {
    match table {
        Ok(table) if table.is_empty() => vec![format!("{title}:  none")],
        Ok(table) => std::iter::once(format!("{title}:")).chain(indented(table.lines(true))).collect(),
        Err(error) => vec![format!("{title}:  cannot be read: {error:#}")],
    }
}

/// The objects of a list.
pub fn items(list: &Value) -> &[Value] {
    list.get("items").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A text as a query has it.
pub fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The objects of a core kind in a namespace.
async fn inside(client: &Client, namespace: &Value, plural: &str) -> anyhow::Result<Table> {
    let path = format!("/api/v1/namespaces/{}/{plural}", object::name(namespace));
    Ok(Table::from_server(&client.read_as(&path, TABLE).await?, false, false))
}

/// A Deployment's ReplicaSets and their pods.
async fn rollout(client: &Client, deployment: &Value, now: Timestamp) -> Vec<String> {
    let Some(selector) = selector::of(deployment) else { return Vec::new() };
    let namespace = object::namespace(deployment);
    let path = format!("/apis/apps/v1/namespaces/{namespace}/replicasets?labelSelector={}", encoded(&selector));
    let list = match client.read(&path).await {
        Ok(list) => list,
        Err(error) => return section("ReplicaSets", Err(error)),
    };
    let mut sets: Vec<&Value> = items(&list).iter().filter(|set| is_owned(set, object::uid(deployment))).collect();
    sets.sort_by_key(|set| std::cmp::Reverse(revision(set)));
    let rows = sets.iter().map(|set| replica_set(set, revision(deployment), now)).collect();
    let table = Table::new(&["REVISION", "NAME", "DESIRED", "READY", "AGE", "IMAGES"], rows);
    let owners = sets.iter().map(|set| object::uid(set)).collect();
    [section("ReplicaSets", Ok(table)), pods(client, deployment, &owners).await].concat()
}

fn revision(object: &Value) -> Option<i64> {
    object::annotation(object, REVISION)?.parse().ok()
}

fn replica_set(set: &Value, current: Option<i64>, now: Timestamp) -> Vec<String> {
    let number = |path: &str| object::at(set, path).and_then(Value::as_i64).unwrap_or_default().to_string();
    let revision = revision(set);
    let which = match revision {
        Some(number) if revision == current => format!("{number} (new)"),
        Some(number) => number.to_string(),
        None => String::new(),
    };
    let containers = object::at(set, "spec.template.spec.containers").and_then(Value::as_array).into_iter().flatten();
    let images: Vec<String> = containers.map(|container| object::text_at(container, "image")).collect();
    let age = since(object::creation_timestamp(set), now);
    vec![
        which,
        object::name(set).to_owned(),
        number("spec.replicas"),
        number("status.readyReplicas"),
        age,
        images.join(","),
    ]
}

fn is_owned(object: &Value, uid: &str) -> bool {
    object::owner_references(object).iter().any(|owner| owner.uid == uid)
}

/// The pods that a workload selects and that one of these owns.
async fn pods(client: &Client, workload: &Value, owners: &HashSet<&str>) -> Vec<String> {
    let Some(selector) = selector::of(workload) else { return Vec::new() };
    let namespace = object::namespace(workload);
    let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={}", encoded(&selector));
    match client.read_as(&path, TABLE).await {
        Ok(mut table) => {
            let all = cut(&mut table, owners);
            let title = if all > PODS { format!("Pods ({PODS} of {all})") } else { "Pods".to_owned() };
            section(&title, Ok(Table::from_server(&table, false, false)))
        }
        Err(error) => section("Pods", Err(error)),
    }
}

/// Leaves the first rows of what one of these owns. Returns how many there were.
fn cut(table: &mut Value, owners: &HashSet<&str>) -> usize {
    let Some(rows) = table.get_mut("rows").and_then(Value::as_array_mut) else { return 0 };
    let owned = |row: &Value| {
        let object = row.get("object").unwrap_or(&Value::Null);
        object::owner_references(object).iter().any(|owner| owners.contains(owner.uid.as_str()))
    };
    rows.retain(owned);
    let all = rows.len();
    rows.truncate(PODS);
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_workloads_pods_are_those_that_it_owns_and_only_some_are_shown() {
        let row = |owner: &str| {
            json!({"cells": [], "object": {"metadata": {"ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": owner}]}}})
        };
        let mut table = json!({"rows": [row("a"), row("b"), row("c")]});
        assert_eq!(cut(&mut table, &HashSet::from(["a", "c"])), 2);
        assert_eq!(table["rows"], json!([row("a"), row("c")]));
        let mut table = json!({"rows": vec![row("a"); PODS + 5]});
        assert_eq!(cut(&mut table, &HashSet::from(["a"])), PODS + 5);
        assert_eq!(table["rows"].as_array().unwrap().len(), PODS);
    }

    #[test]
    fn a_replica_set_says_which_revision_it_is() {
        let set = json!({"metadata": {"name": "web-1", "annotations": {REVISION: "3"}}, "spec": {"replicas": 2, "template": {
            "spec": {"containers": [{"image": "a"}, {"image": "b"}]}}}, "status": {"readyReplicas": 1}});
        let row = |current| replica_set(&set, current, Timestamp::UNIX_EPOCH);
        assert_eq!(row(Some(3)), ["3 (new)", "web-1", "2", "1", "<unknown>", "a,b"]);
        assert_eq!(row(Some(4))[0], "3");
    }
}
