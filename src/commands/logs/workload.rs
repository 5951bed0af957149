//! Whose log is shown where a workload, or a pod of several containers, is named, as `kubectl logs` chooses: the pod whose
//! log says most, and its first container.

use std::cmp::Reverse;

use anyhow::bail;
use serde_json::Value;
use wherry_api::object;

use crate::client::Client;
use crate::{output, selector};

/// The name of the pod that a target means: `NAME`, `pod/NAME` or `KIND/NAME`. Which one of several is told.
pub(super) async fn pod(client: &Client, target: &str) -> anyhow::Result<String> {
    let Some((kind, name)) = target.split_once('/') else { return Ok(target.to_owned()) };
    let resource = client.resource(kind).await?;
    if resource.is("", "pods") {
        return Ok(name.to_owned());
    }
    let path = resource.path(Some(&client.namespace), Some(name));
    let workload = client.read(&path).await?;
    let Some(selector) = selector::of(&workload) else {
        bail!("{} selects no pods, so it has no logs", resource.named(name));
    };
    let pods = client.resource("pods").await?;
    let path = pods.paths(Some(&client.namespace), &[], Some(&selector)).concat();
    let mut found = match client.read(&path).await?.get_mut("items").map(Value::take) {
        Some(Value::Array(found)) => found,
        _ => Vec::new(),
    };
    found.sort_by_key(order);
    let Some(first) = found.first() else { bail!("{} has no pods", resource.named(name)) };
    let chosen = object::name(first).to_owned();
    let several = if found.len() == 1 { "1 pod".to_owned() } else { format!("{} pods", found.len()) };
    output::note(format!("Found {several}, using pod/{chosen}"));
    Ok(chosen)
}

/// The container of a pod that is meant if none is named: what the pod's annotation says, else the first. `None`: it has only
/// one, or cannot be read, which the log's own answer will say.
pub(super) async fn container(client: &Client, pod: &str) -> Option<String> {
    let pods = client.resource("pods").await.ok()?;
    let pod = client.read(&pods.path(Some(&client.namespace), Some(pod))).await.ok()?;
    let (chosen, all) = default_container(&pod)?;
    output::note(format!("Defaulted container \"{chosen}\" out of: {}", all.join(", ")));
    Some(chosen)
}

/// Which of several containers is meant, and all of them.
fn default_container(pod: &Value) -> Option<(String, Vec<String>)> {
    let named = |list: &str| -> Vec<String> {
        let containers = object::at(pod, list).and_then(Value::as_array).into_iter().flatten();
        containers.map(|container| object::text_at(container, "name")).collect()
    };
    let containers = named("spec.containers");
    let asked = pod.pointer("/metadata/annotations/kubectl.kubernetes.io~1default-container").and_then(Value::as_str);
    let asked = asked.filter(|name| containers.iter().any(|container| container == name));
    let chosen = asked.or(containers.first().map(String::as_str))?.to_owned();
    let others = named("spec.initContainers").into_iter().map(|name| format!("{name} (init)"));
    let all: Vec<String> = containers.into_iter().chain(others).collect();
    (all.len() > 1).then_some((chosen, all))
}

/// Kubernetes' order: on a node before not, running before pending, ready before not and the longer the earlier, then by
/// restarts, then the older before the newer.
fn order(pod: &Value) -> impl Ord + use<> {
    let conditions = object::at(pod, "status.conditions").and_then(Value::as_array).into_iter().flatten();
    let ready = conditions.into_iter().find(|c| object::text_at(c, "type") == "Ready");
    let ready = ready.filter(|c| object::text_at(c, "status") == "True");
    let since = ready.map(|c| object::text_at(c, "lastTransitionTime")).unwrap_or_default();
    let phase = match object::text_at(pod, "status.phase").as_str() {
        "Pending" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let statuses = object::at(pod, "status.containerStatuses").and_then(Value::as_array).into_iter().flatten();
    let restarts = statuses.filter_map(|status| status.get("restartCount")?.as_i64()).max().unwrap_or_default();
    let created = object::creation_timestamp(pod);
    (
        object::text_at(pod, "spec.nodeName").is_empty(),
        phase,
        ready.is_none(),
        since,
        Reverse(restarts),
        (created.is_none(), created),
        object::name(pod).to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_of_several_containers_is_meant_or_the_one_that_the_pod_names() {
        let pod = |names: &[&str], annotation: &str| {
            let containers: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
            json!({"metadata": {"annotations": {"kubectl.kubernetes.io/default-container": annotation}},
                "spec": {"containers": containers}})
        };
        let chosen =
            |names: &[&str], annotation: &str| default_container(&pod(names, annotation)).map(|(name, _)| name);
        assert_eq!(chosen(&["only"], ""), None);
        assert_eq!(chosen(&["front", "filter"], "").as_deref(), Some("front"));
        assert_eq!(chosen(&["front", "filter"], "filter").as_deref(), Some("filter"));
        assert_eq!(chosen(&["front", "filter"], "gone").as_deref(), Some("front"));
    }

    #[test]
    fn the_pod_whose_log_says_most_comes_first() {
        let pod = |name: &str, node: &str, phase: &str, ready: Option<&str>, restarts: i64| {
            let conditions =
                ready.map(|since| json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]));
            json!({"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"nodeName": node},
                "status": {"phase": phase, "conditions": conditions.unwrap_or_else(|| json!([])),
                    "containerStatuses": [{"restartCount": restarts}]}})
        };
        let mut pods = [
            pod("nowhere", "", "Pending", None, 0),
            pod("starting", "n", "Pending", None, 0),
            pod("fresh", "n", "Running", None, 0),
            pod("crashing", "n", "Running", None, 5),
            pod("young", "n", "Running", Some("2026-01-02T00:00:00Z"), 0),
            pod("old", "n", "Running", Some("2026-01-01T00:00:00Z"), 0),
        ];
        pods.sort_by_key(order);
        let names: Vec<&str> = pods.iter().map(object::name).collect();
        assert_eq!(names, ["old", "young", "crashing", "fresh", "starting", "nowhere"]);
    }
}
