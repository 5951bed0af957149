//! Why a pod or a workload is not ready, and whether it ever will be.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use wherry_api::object;

/// Why one pod waits, or a workload that has none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reason {
    /// `pod web-1`
    pub who: String,
    /// What its siblings have alike, so that a reason is told once for all of them.
    pub group: String,
    /// What is told once: the same trouble has other words later.
    pub class: &'static str,
    pub text: String,
    /// Whether it passes by itself, as far as one can see.
    pub passes: bool,
    /// Where the last lines of a container that ended are.
    pub log: Option<String>,
}

impl Reason {
    /// `None` for a pod that is ready or has ended.
    pub fn of(pod: &Value) -> Option<Self> {
        let phase = object::text_at(pod, "status.phase");
        if matches!(phase.as_str(), "Succeeded" | "Failed") || is_true(pod, "Ready") {
            return None;
        }
        let troubled = || statuses(pod).find_map(|status| Some((status, trouble(status)?)));
        let log = troubled().filter(|(_, (class, ..))| *class == ENDED).map(|(status, _)| log(pod, status));
        let (class, text, passes) = unscheduled(pod)
            .or_else(|| troubled().map(|(_, why)| why))
            .or_else(|| statuses(pod).find_map(waiting))
            .unwrap_or_else(|| ("", if phase == "Running" { "not ready" } else { "pending" }.to_owned(), true));
        let generated = object::text_at(pod, "metadata.generateName");
        let name = object::name(pod).to_owned();
        let who = format!("pod {name}");
        let group = if generated.is_empty() { name } else { generated };
        Some(Self { who, group, class, text, passes, log })
    }

    /// Why a Deployment or ReplicaSet cannot make its pods, a full quota say; `None`: it can.
    pub fn of_workload(kind: &str, object: &Value) -> Option<Self> {
        let condition = condition(object, "ReplicaFailure").filter(|c| object::text_at(c, "status") == "True")?;
        let (who, text) = (named(kind, object), object::text_at(condition, "message"));
        Some(Self { group: who.clone(), who, class: UNMADE, text, passes: false, log: None })
    }

    /// Whether it is about a pod.
    pub fn is_of_pod(&self) -> bool {
        self.class != UNMADE
    }
}

/// `deployment web`
fn named(kind: &str, object: &Value) -> String {
    format!("{} {}", kind.to_lowercase(), object::name(object))
}

/// A Deployment that has taken longer than it may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stalled {
    /// How long it may go without progress.
    pub deadline: Duration,
    pub text: String,
}

impl Stalled {
    /// From what its controller says of the present template; `detail` is what it lacks and `reasons` why.
    pub fn of(kind: &str, object: &Value, detail: &str, reasons: &[Reason]) -> Option<Self> {
        let whole = |field: &str| object::at(object, field).and_then(Value::as_u64);
        let seen = whole("status.observedGeneration") >= whole("metadata.generation");
        condition(object, "Progressing").filter(|condition| {
            seen && object::text_at(condition, "status") == "False"
                && object::text_at(condition, "reason") == "ProgressDeadlineExceeded"
        })?;
        let seconds = whole("spec.progressDeadlineSeconds").unwrap_or(600);
        let mut parts =
            vec![format!("{} exceeded its progress deadline of {seconds} s: {detail}", named(kind, object))];
        parts.extend(causes(reasons).map(|reason| format!("{}: {}", reason.who, reason.text)));
        Some(Self { deadline: Duration::from_secs(seconds), text: parts.join("; ") })
    }
}

/// Each cause once: those that do not pass by themselves, if there are any.
fn causes(reasons: &[Reason]) -> impl Iterator<Item = &Reason> {
    let stuck = reasons.iter().any(|reason| !reason.passes);
    let mut said = BTreeSet::new();
    reasons.iter().filter(move |reason| reason.passes != stuck && said.insert((&reason.group, reason.class)))
}

/// The class of what a container's end explains.
const ENDED: &str = "ended";
/// The class of pods that cannot be made.
const UNMADE: &str = "unmade";
/// What is shown of a container's log.
const LOG: &str = "tailLines=5&limitBytes=4096";

/// The path of what a container said last.
fn log(pod: &Value, status: &Value) -> String {
    let container: String = url::form_urlencoded::byte_serialize(object::text_at(status, "name").as_bytes()).collect();
    let (namespace, name) = (object::namespace(pod), object::name(pod));
    format!("/api/v1/namespaces/{namespace}/pods/{name}/log?container={container}&{LOG}")
}

type Why = (&'static str, String, bool);

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = object::at(object, "status.conditions").and_then(Value::as_array).into_iter().flatten();
    conditions.into_iter().find(|condition| object::text_at(condition, "type") == kind)
}

fn is_true(pod: &Value, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|condition| object::text_at(condition, "status") == "True")
}

fn unscheduled(pod: &Value) -> Option<Why> {
    let condition = condition(pod, "PodScheduled").filter(|c| object::text_at(c, "status") == "False")?;
    let message = object::text_at(condition, "message");
    // A node that has only just begun is ready soon.
    let passes = message.contains("node.kubernetes.io/not-ready");
    (!message.is_empty()).then_some(("scheduling", message, passes))
}

fn statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    let of = |field: &str| object::at(pod, field).and_then(Value::as_array).into_iter().flatten();
    of("status.initContainerStatuses").chain(of("status.containerStatuses"))
}

/// What does not pass by itself.
fn trouble(status: &Value) -> Option<Why> {
    let ended = exit(status, "state").or_else(|| exit(status, "lastState"));
    let Some(state) = object::at(status, "state.waiting") else {
        return exit(status, "state").map(|text| (ENDED, text, false));
    };
    let (reason, message) = (object::text_at(state, "reason"), object::text_at(state, "message"));
    let text = if message.is_empty() { reason.clone() } else { format!("{reason}: {message}") };
    match reason.as_str() {
        "" | "ContainerCreating" | "PodInitializing" => None,
        "CrashLoopBackOff" => Some((ENDED, ended.unwrap_or(text), false)),
        "ErrImagePull" | "ImagePullBackOff" => Some(("image", first_said(text), false)),
        _ => Some(("waiting", text, false)),
    }
}

/// Why an image cannot be had, as it was said at first: while pulling backs off, that is the end of what is said.
fn first_said(text: String) -> String {
    text.find("ErrImagePull: ").and_then(|at| text.get(at..)).map(str::to_owned).unwrap_or(text)
}

fn waiting(status: &Value) -> Option<Why> {
    let reason = object::text_at(status, "state.waiting.reason");
    (!reason.is_empty()).then_some(("", reason, true))
}

/// How a container ended, if not well.
fn exit(status: &Value, state: &str) -> Option<String> {
    let ended = object::at(status, &format!("{state}.terminated"))?;
    let code = ended.get("exitCode").and_then(Value::as_i64).filter(|code| *code != 0)?;
    // A message of several lines is the end of the log, which is shown below.
    let message = object::text_at(ended, "message");
    let message = Some(message.trim().to_owned()).filter(|message| !message.contains('\n')).unwrap_or_default();
    let why: Vec<String> =
        [object::text_at(ended, "reason"), message].into_iter().filter(|part| !part.is_empty()).collect();
    let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join(": ").trim()) };
    Some(format!("container {} ended with exit code {code}{why}", object::text_at(status, "name")))
}

/// What is said of a pod that has failed for good.
pub(super) fn failure(pod: &Value) -> Option<String> {
    if object::text_at(pod, "status.phase") != "Failed" {
        return None;
    }
    let how = statuses(pod).find_map(|status| exit(status, "state"));
    let how = how.unwrap_or_else(|| {
        let why = [object::text_at(pod, "status.reason"), object::text_at(pod, "status.message")];
        why.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
    });
    Some(format!("pod {} has failed: {how}", object::name(pod)))
}

/// How often a pod's containers have been started again.
pub(super) fn restarts(pod: &Value) -> i64 {
    statuses(pod).filter_map(|status| status.get("restartCount").and_then(Value::as_i64)).sum()
}

/// Whether a container runs that names no port and no probe: being started says little of it.
pub(super) fn may_end_at_once(pod: &Value) -> bool {
    let silent = |container: &Value| {
        ["ports", "readinessProbe"].iter().all(|field| container.get(field).is_none_or(Value::is_null))
    };
    let ended = matches!(object::text_at(pod, "status.phase").as_str(), "Succeeded" | "Failed");
    !ended && object::at(pod, "spec.containers").and_then(Value::as_array).is_some_and(|all| all.iter().any(silent))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: Value) -> Value {
        json!({"metadata": {"name": "web-1", "namespace": "default", "generateName": "web-"}, "spec": {"containers": [{"name": "c"}]}, "status": status})
    }

    fn with(state: Value, last: Value) -> Value {
        pod(json!({"phase": "Running", "containerStatuses": [
            {"name": "c", "restartCount": 2, "state": state, "lastState": last}]}))
    }

    #[test]
    fn a_reason_names_the_pod_and_what_it_waits_for() {
        let ended = json!({"terminated": {"exitCode": 3, "reason": "Error"}});
        for (given, class, text, passes) in [
            (pod(json!({"phase": "Pending"})), "", "pending", true),
            (with(json!({"running": {}}), json!({})), "", "not ready", true),
            (with(json!({"waiting": {"reason": "ContainerCreating"}}), json!({})), "", "ContainerCreating", true),
            (
                with(json!({"waiting": {"reason": "ErrImagePull", "message": "no such"}}), json!({})),
                "image",
                "ErrImagePull: no such",
                false,
            ),
            (
                with(
                    json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling: ErrImagePull: no such"}}),
                    json!({}),
                ),
                "image",
                "ErrImagePull: no such",
                false,
            ),
            (
                with(json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}), ended.clone()),
                "ended",
                "container c ended with exit code 3 (Error)",
                false,
            ),
            (with(ended, json!({})), "ended", "container c ended with exit code 3 (Error)", false),
            (
                pod(json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]})),
                "scheduling",
                "0/1 nodes",
                false,
            ),
            (
                pod(json!({"conditions": [{"type": "PodScheduled", "status": "False",
                    "message": "untolerated taint {node.kubernetes.io/not-ready: }"}]})),
                "scheduling",
                "untolerated taint {node.kubernetes.io/not-ready: }",
                true,
            ),
        ] {
            let reason = Reason::of(&given).unwrap();
            assert_eq!((reason.class, reason.text.as_str(), reason.passes), (class, text, passes));
            assert_eq!((reason.who.as_str(), reason.group.as_str()), ("pod web-1", "web-"));
            let log = (class == ENDED).then(|| format!("/api/v1/namespaces/default/pods/web-1/log?container=c&{LOG}"));
            assert_eq!(reason.log, log);
        }
        assert_eq!(Reason::of(&pod(json!({"conditions": [{"type": "Ready", "status": "True"}]}))), None);
        assert_eq!(Reason::of(&pod(json!({"phase": "Succeeded"}))), None);
    }

    #[test]
    fn a_deployment_that_exceeds_its_deadline_is_told_with_each_cause_once() {
        let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({"type": kind, "status": status, "reason": reason, "message": message});
        let deployment = |observed: u64, conditions: Value| {
            json!({"metadata": {"name": "web", "generation": 2}, "spec": {"progressDeadlineSeconds": 9},
                "status": {"observedGeneration": observed, "conditions": conditions}})
        };
        let late = condition("Progressing", "False", "ProgressDeadlineExceeded", "");
        let lost = with(json!({"waiting": {"reason": "ErrImagePull", "message": "no such"}}), json!({}));
        let mut twin = lost.clone();
        twin["metadata"]["name"] = json!("web-2");
        let coming = with(json!({"waiting": {"reason": "ContainerCreating"}}), json!({}));
        let reasons: Vec<Reason> = [&coming, &lost, &twin].into_iter().filter_map(Reason::of).collect();
        let stalled = |object: &Value, reasons: &[Reason]| Stalled::of("Deployment", object, "0/3 ready", reasons);
        let told = stalled(&deployment(2, json!([late])), &reasons).unwrap();
        let text = "deployment web exceeded its progress deadline of 9 s: 0/3 ready; pod web-1: ErrImagePull: no such";
        assert_eq!(told, Stalled { deadline: Duration::from_secs(9), text: text.to_owned() });
        let told = stalled(&deployment(2, json!([late])), &reasons[..1]).unwrap().text;
        assert!(told.ends_with("0/3 ready; pod web-1: ContainerCreating"), "{told}");
        for fine in [
            deployment(1, json!([late])),
            deployment(2, json!([condition("Progressing", "False", "DeploymentPaused", "")])),
            deployment(2, json!([condition("Progressing", "True", "NewReplicaSetAvailable", "")])),
            deployment(2, json!([])),
        ] {
            assert_eq!(stalled(&fine, &reasons), None, "{fine}");
        }
        let failed =
            deployment(2, json!([late, condition("ReplicaFailure", "True", "FailedCreate", "exceeded quota")]));
        let reason = Reason::of_workload("Deployment", &failed).unwrap();
        assert_eq!(
            (reason.who.as_str(), reason.text.as_str(), reason.passes),
            ("deployment web", "exceeded quota", false)
        );
        assert!(!reason.is_of_pod() && Reason::of_workload("Deployment", &deployment(2, json!([late]))).is_none());
    }

    #[test]
    fn a_pod_that_has_failed_is_told_with_its_exit_code() {
        let failed = pod(json!({"phase": "Failed", "containerStatuses": [
            {"name": "c", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}));
        assert_eq!(failure(&failed).unwrap(), "pod web-1 has failed: container c ended with exit code 1 (Error)");
        assert_eq!(failure(&pod(json!({"phase": "Succeeded"}))), None);
        assert!(!may_end_at_once(&failed));
    }

    #[test]
    fn only_what_names_no_port_may_end_at_once() {
        let mut pod = with(json!({"running": {}}), json!({}));
        assert!(may_end_at_once(&pod));
        assert_eq!(restarts(&pod), 2);
        pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80}]);
        assert!(!may_end_at_once(&pod));
    }
}
