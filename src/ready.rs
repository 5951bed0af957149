//! Waiting until what was applied is ready, and showing it: its pods, and the addresses to reach it at.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::client::{Client, JSON};
use crate::commands::Applied;
use crate::table::Table;

/// How often readiness is looked at.
const POLL: Duration = Duration::from_millis(100);

/// How long a Service may take to learn its endpoints before it is shown without.
const ENDPOINTS: Duration = Duration::from_secs(5);

/// Returns when every workload and pod of `applied` is ready. `say` gets what is being waited for, with the reason that
/// its pods give.
pub async fn wait(client: &Client, applied: &[Applied], say: impl Fn(&str)) -> anyhow::Result<()> {
    let mut told = BTreeSet::new();
    loop {
        let mut waiting = Vec::new();
        for one in applied {
            let path = path(one);
            let object: Value = serde_json::from_slice(&client.request(http::Method::GET, &path, JSON, None).await?)?;
            if let Some(detail) = unready(one.resource.api.kind.as_str(), &object) {
                waiting.push(format!("{} {detail}", text(&object, "/metadata/name")));
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        let reasons = reasons(client, applied).await?;
        say(&[waiting.join(", "), reasons.iter().cloned().collect::<Vec<_>>().join("; ")].join("  "));
        for reason in reasons {
            if told.insert(reason.clone()) {
                tracing::warn!("{reason}");
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Returns when each applied Service that selects pods has a ready endpoint, or after [`ENDPOINTS`]: a Service may well be
/// applied before its pods.
pub async fn reachable(client: &Client, applied: &[Applied]) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + ENDPOINTS;
    let selects = |one: &&Applied| one.resource.api.kind == "Service" && one.object.pointer("/spec/selector").is_some();
    for one in applied.iter().filter(selects) {
        let (namespace, name) = (text(&one.object, "/metadata/namespace"), text(&one.object, "/metadata/name"));
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io/service-name%3D{name}"
        );
        while tokio::time::Instant::now() < deadline {
            let slices: Value = serde_json::from_slice(&client.request(http::Method::GET, &path, JSON, None).await?)?;
            if has_ready_endpoint(&slices) {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

fn has_ready_endpoint(slices: &Value) -> bool {
    let list = |value: &Value, field: &str| value.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let endpoints = list(slices, "items").into_iter().flat_map(|slice| list(&slice, "endpoints"));
    endpoints.into_iter().any(|endpoint| endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true))
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

fn path(applied: &Applied) -> String {
    let namespace = text(&applied.object, "/metadata/namespace");
    applied.resource.path(Some(namespace), Some(text(&applied.object, "/metadata/name")))
}

/// What a workload still lacks; `None`: nothing, or nothing to wait for.
fn unready(kind: &str, object: &Value) -> Option<String> {
    match kind {
        "Deployment" | "ReplicaSet" => {
            let wanted = number(object, "/spec/replicas").unwrap_or(1);
            let seen = number(object, "/status/observedGeneration") >= number(object, "/metadata/generation");
            let ready = number(object, "/status/readyReplicas").unwrap_or(0);
            let updated =
                if kind == "Deployment" { number(object, "/status/updatedReplicas").unwrap_or(0) } else { wanted };
            let total = number(object, "/status/replicas").unwrap_or(0);
            (!seen || ready < wanted || updated < wanted || total > wanted).then(|| format!("{ready}/{wanted} ready"))
        }
        "Pod" => {
            let phase = text(object, "/status/phase");
            let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
            let ready =
                conditions.into_iter().flatten().any(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True");
            (!ready && !matches!(phase, "Succeeded" | "Failed")).then(|| phase.to_lowercase())
        }
        _ => None,
    }
}

/// The namespaces that were applied to.
fn namespaces(applied: &[Applied]) -> BTreeSet<&str> {
    applied.iter().map(|one| text(&one.object, "/metadata/namespace")).filter(|ns| !ns.is_empty()).collect()
}

/// Why pods wait: their containers' waiting reasons and the scheduler's message, but for those that pass by themselves.
async fn reasons(client: &Client, applied: &[Applied]) -> anyhow::Result<BTreeSet<String>> {
    let mut reasons = BTreeSet::new();
    for namespace in namespaces(applied) {
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let pods: Value = serde_json::from_slice(&client.request(http::Method::GET, &path, JSON, None).await?)?;
        for pod in pods.get("items").and_then(Value::as_array).into_iter().flatten() {
            let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
            let unscheduled =
                conditions.filter(|c| text(c, "/type") == "PodScheduled" && text(c, "/status") == "False");
            reasons.extend(unscheduled.map(|c| text(c, "/message").to_owned()).filter(|message| !message.is_empty()));
            let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array).into_iter().flatten();
            let waiting = statuses.filter_map(|status| status.pointer("/state/waiting"));
            let stuck = waiting.filter(|w| !matches!(text(w, "/reason"), "" | "ContainerCreating" | "PodInitializing"));
            reasons.extend(stuck.map(|w| format!("{}: {}", text(w, "/reason"), text(w, "/message"))));
        }
    }
    Ok(reasons)
}

/// The lines of a table of the pods that the applied workloads select, and of the applied pods.
pub async fn pods(client: &Client, applied: &[Applied]) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    for one in applied {
        let namespace = text(&one.object, "/metadata/namespace");
        let query = match one.resource.api.kind.as_str() {
            "Pod" => format!("fieldSelector=metadata.name%3D{}", text(&one.object, "/metadata/name")),
            "Deployment" | "ReplicaSet" => {
                let labels = one.object.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
                let pairs = labels.into_iter().flatten().filter_map(|(k, v)| Some(format!("{k}={}", v.as_str()?)));
                let selector = pairs.collect::<Vec<_>>().join(",");
                format!(
                    "labelSelector={}",
                    url::form_urlencoded::byte_serialize(selector.as_bytes()).collect::<String>()
                )
            }
            _ => continue,
        };
        let path = format!("/api/v1/namespaces/{namespace}/pods?{query}");
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let answer = client.request(http::Method::GET, &path, accept, None).await?;
        let table = Table::from_server(&serde_json::from_slice(&answer)?, false, false);
        lines.extend(table.lines(lines.is_empty()));
    }
    Ok(lines)
}

/// A URL per node port of the applied Services.
pub async fn urls(client: &Client, applied: &[Applied]) -> anyhow::Result<Vec<String>> {
    let mut urls = Vec::new();
    for one in applied.iter().filter(|one| one.resource.api.kind == "Service") {
        let service: Value = serde_json::from_slice(&client.request(http::Method::GET, &path(one), JSON, None).await?)?;
        let ports = service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
        let node_ports = ports.filter_map(|port| port.get("nodePort").and_then(Value::as_u64));
        urls.extend(node_ports.map(|port| format!("http://127.0.0.1:{port}/  ({})", text(&service, "/metadata/name"))));
    }
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deployment_is_ready_when_all_its_new_pods_are_and_no_old_one_is_left() {
        let deployment = |generation, observed, ready, updated, total| {
            json!({"metadata": {"generation": generation}, "spec": {"replicas": 3},
                "status": {"observedGeneration": observed, "readyReplicas": ready, "updatedReplicas": updated, "replicas": total}})
        };
        assert_eq!(unready("Deployment", &deployment(2, 2, 3, 3, 3)), None);
        for (generation, observed, ready, updated, total) in
            [(2, 1, 3, 3, 3), (2, 2, 2, 3, 3), (2, 2, 3, 1, 4), (2, 2, 3, 3, 4)]
        {
            assert!(unready("Deployment", &deployment(generation, observed, ready, updated, total)).is_some());
        }
    }

    #[test]
    fn a_service_is_reachable_with_one_ready_endpoint() {
        let slices = |ready: bool| json!({"items": [{}, {"endpoints": [{"conditions": {"ready": ready}}]}]});
        assert!(has_ready_endpoint(&slices(true)) && !has_ready_endpoint(&slices(false)));
        assert!(!has_ready_endpoint(&json!({"items": []})));
    }

    #[test]
    fn a_pod_that_has_ended_is_not_waited_for() {
        assert_eq!(unready("Pod", &json!({"status": {"phase": "Succeeded"}})), None);
        assert_eq!(unready("Pod", &json!({"status": {"phase": "Pending"}})), Some("pending".into()));
        assert_eq!(unready("ConfigMap", &json!({})), None);
    }
}
