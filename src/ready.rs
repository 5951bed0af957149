//! Waiting until what was applied is ready, and why it is not.

mod why;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use self::why::{Reason, Stalled};
use crate::client::Client;
use crate::commands::Applied;
use crate::progress::Step;
use crate::{output, selector};

/// How often readiness is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How long a Service may take to learn its endpoints before it is shown without.
const ENDPOINTS: Duration = Duration::from_secs(5);
/// How long pods without ports must run before they count: a command that fails does so at once, and is ready until then.
const SETTLE: Duration = Duration::from_secs(1);
/// Reasons that are shown at once on a line.
const SHOWN: usize = 3;

/// Returns when every workload and pod of `applied` is ready, with what failed for good; or with the Deployments that exceeded
/// their progress deadlines, as soon as there is one. `step` tells what is being waited for; what does not pass by itself is
/// told at once, and once.
pub async fn wait(client: &Client, applied: &[Applied], step: &mut Step) -> anyhow::Result<Vec<String>> {
    let (mut told, mut settled, began) = (Told::default(), None, tokio::time::Instant::now());
    loop {
        let look = look(client, applied).await?;
        if look.waiting.is_empty() {
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
        for reason in look.reasons.iter().filter(|reason| !reason.passes) {
            if let Some(line) = told.tell(reason) {
                step.note(&line);
                last_lines(client, reason).await.iter().for_each(|line| step.note(line));
            }
        }
        // What was reported before this wait may be mended by what was applied: it has its time once more.
        let late: Vec<Stalled> =
            look.stalled.into_iter().filter(|stalled| began.elapsed() >= stalled.deadline).collect();
        if !late.is_empty() {
            return Ok(late.into_iter().map(|stalled| stalled.text).collect());
        }
        step.update(&summary(&look.waiting, &look.reasons));
        tokio::time::sleep(POLL).await;
    }
}

/// What was applied, as it is at a moment.
#[derive(Default)]
struct Look {
    /// What is not ready, and what it lacks.
    waiting: Vec<String>,
    /// Why it is not.
    reasons: Vec<Reason>,
    /// What of it has taken too long.
    stalled: Vec<Stalled>,
}

async fn look(client: &Client, applied: &[Applied]) -> anyhow::Result<Look> {
    let mut look = Look::default();
    for one in applied {
        let (kind, object) = (one.resource.api.kind.as_str(), client.read(&path(one)).await?);
        if let Some(detail) = unready(kind, &object) {
            look.waiting.push(format!("{} {detail}", text(&object, "/metadata/name")));
            let mut reasons: Vec<Reason> = pods(client, one).await?.iter().filter_map(Reason::of).collect();
            reasons.extend(Reason::of_workload(kind, &object));
            look.stalled.extend(Stalled::of(kind, &object, &detail, &reasons));
            look.reasons.append(&mut reasons);
        }
    }
    Ok(look)
}

/// What is not ready yet, on a line, for who no longer waits.
pub async fn lacking(client: &Client, applied: &[Applied]) -> anyhow::Result<String> {
    let look = look(client, applied).await?;
    Ok(summary(&look.waiting, &look.reasons))
}

/// What has been said of what does not become ready by itself.
#[derive(Default)]
struct Told {
    /// Of each group of pods, or workload, the kinds of trouble.
    groups: BTreeSet<(String, &'static str)>,
    /// Each cause, and who it was said of first.
    causes: BTreeMap<String, String>,
}

impl Told {
    /// What there is to say of who waits: its cause, or who has the same; `None`: it has been said.
    fn tell(&mut self, reason: &Reason) -> Option<String> {
        if !self.groups.insert((reason.group.clone(), reason.class)) {
            return None;
        }
        Some(match self.causes.entry(reason.text.clone()) {
            Entry::Occupied(first) => format!("! {}: the same as {}", reason.who, first.get()),
            Entry::Vacant(cause) => {
                cause.insert(reason.who.clone());
                format!("! {}: {}", reason.who, reason.text)
            }
        })
    }
}

/// What is waited for, and why, on a line: what passes by itself, since the rest has a line of its own.
fn summary(waiting: &[String], reasons: &[Reason]) -> String {
    let (passing, stuck): (Vec<&Reason>, Vec<&Reason>) = reasons.iter().partition(|reason| reason.passes);
    let mut alike: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for reason in passing {
        alike.entry(&reason.text).or_default().push(&reason.who);
    }
    let mut parts: Vec<String> =
        alike.iter().take(SHOWN).map(|(text, who)| format!("{}: {text}", all_of(who))).collect();
    let more: usize = alike.values().skip(SHOWN).map(Vec::len).sum();
    if more > 0 {
        parts.push(format!("and {more} more"));
    }
    let stuck = stuck.iter().filter(|reason| reason.is_of_pod()).count();
    if stuck > 0 {
        parts.push(format!("{} as said above", output::counted(stuck, "pod")));
    }
    if parts.is_empty() { waiting.join(", ") } else { format!("{} ({})", waiting.join(", "), parts.join("; ")) }
}

/// The one, or how many pods they are.
fn all_of(who: &[&str]) -> String {
    match who {
        [one] => (*one).to_owned(),
        several => output::counted(several.len(), "pod"),
    }
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
    fn a_cause_is_said_once_for_all_pods_that_have_it() {
        let reason = |group: &str, class, text: &str, passes| Reason {
            who: format!("pod {group}1"),
            group: group.to_owned(),
            class,
            text: text.to_owned(),
            passes,
            log: None,
        };
        let (mut told, long) = (Told::default(), "ErrImagePull: a long story");
        let reasons = [
            reason("web-", "image", long, false),
            reason("web-", "image", "ImagePullBackOff: the same story and more", false),
            reason("api-", "image", long, false),
            reason("new-", "", "ContainerCreating", true),
        ];
        let said: Vec<Option<String>> = reasons.iter().take(3).map(|reason| told.tell(reason)).collect();
        assert_eq!(
            said,
            [Some(format!("! pod web-1: {long}")), None, Some("! pod api-1: the same as pod web-1".into())]
        );
        let line = summary(&["web 0/2 ready".to_owned()], &reasons);
        assert_eq!(line, "web 0/2 ready (pod new-1: ContainerCreating; 3 pods as said above)");
        let coming = ["ContainerCreating", "ContainerCreating", "pending"].map(|text| reason("new-", "", text, true));
        assert_eq!(
            summary(&["new 0/3 ready".to_owned()], &coming),
            "new 0/3 ready (2 pods: ContainerCreating; pod new-1: pending)"
        );
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
