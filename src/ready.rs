//! Waiting until what was applied is ready, and why it is not.

mod why;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use self::why::Reason;
use crate::client::Client;
use crate::commands::Applied;
use crate::progress::Step;
use crate::selector;

/// How often readiness is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How long a Service may take to learn its endpoints before it is shown without.
const ENDPOINTS: Duration = Duration::from_secs(5);
/// How long pods without ports must run before they count: a command that fails does so at once, and is ready until then.
const SETTLE: Duration = Duration::from_secs(1);
/// Pods whose reason is shown at once on a line.
const SHOWN: usize = 3;

/// Returns when every workload and pod of `applied` is ready, with what failed for good. `step` tells what is being waited
/// for; what does not pass by itself is told at once, and once.
pub async fn wait(client: &Client, applied: &[Applied], step: &mut Step) -> anyhow::Result<Vec<String>> {
    let mut told = BTreeSet::new();
    let mut settled = None;
    loop {
        let (mut waiting, mut reasons) = (Vec::new(), Vec::new());
        for one in applied {
            let object = client.read(&path(one)).await?;
            if let Some(detail) = unready(one.resource.api.kind.as_str(), &object) {
                waiting.push(format!("{} {detail}", text(&object, "/metadata/name")));
                reasons.extend(pods(client, one).await?.iter().filter_map(Reason::of));
            }
        }
        if waiting.is_empty() {
            let mut all = Vec::new();
            for one in applied {
                all.extend(pods(client, one).await?);
            }
            let restarts: i64 = all.iter().map(why::restarts).sum();
            if settled == Some(restarts) || !all.iter().any(why::may_end_at_once) {
                return Ok(all.iter().filter_map(why::failure).collect());
            }
            settled = Some(restarts);
            tokio::time::sleep(SETTLE).await;
            continue;
        }
        step.update(&summary(&waiting, &reasons));
        for reason in reasons.iter().filter(|reason| !reason.passes) {
            if told.insert((reason.group.clone(), reason.class)) {
                step.note(&format!("! pod {}: {}", reason.pod, reason.text));
                last_lines(client, reason).await.iter().for_each(|line| step.note(line));
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What is waited for, and why, on a line.
fn summary(waiting: &[String], reasons: &[Reason]) -> String {
    let mut parts: Vec<String> =
        reasons.iter().take(SHOWN).map(|reason| format!("pod {}: {}", reason.pod, reason.text)).collect();
    if reasons.len() > SHOWN {
        parts.push(format!("and {} more", reasons.len() - SHOWN));
    }
    if parts.is_empty() { waiting.join(", ") } else { format!("{} ({})", waiting.join(", "), parts.join("; ")) }
}

/// The last lines of the container that is the reason, if it is one that ended; none if they cannot be had.
async fn last_lines(client: &Client, reason: &Reason) -> Vec<String> {
    let Some(path) = &reason.log else { return Vec::new() };
    let log = client.request(http::Method::GET, path, "*/*", None).await.unwrap_or_default();
    String::from_utf8_lossy(&log).lines().map(|line| format!("    {line}")).collect()
}

/// Where an applied object's pods are listed: itself if it is one, or what it selects.
pub fn pods_path(one: &Applied) -> Option<String> {
    let (namespace, name) = (text(&one.object, "/metadata/namespace"), text(&one.object, "/metadata/name"));
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let query = match one.resource.api.kind.as_str() {
        "Pod" => format!("fieldSelector={}", encoded(&format!("metadata.name={name}"))),
        "Deployment" | "ReplicaSet" => format!("labelSelector={}", encoded(&selector::of(&one.object)?)),
        _ => return None,
    };
    Some(format!("/api/v1/namespaces/{namespace}/pods?{query}"))
}

async fn pods(client: &Client, one: &Applied) -> anyhow::Result<Vec<Value>> {
    let Some(path) = pods_path(one) else { return Ok(Vec::new()) };
    match client.read(&path).await?.get_mut("items").map(Value::take) {
        Some(Value::Array(pods)) => Ok(pods),
        _ => Ok(Vec::new()),
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
            let slices = client.read(&path).await?;
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

/// Where an applied object is.
pub fn path(applied: &Applied) -> String {
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
