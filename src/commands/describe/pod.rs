//! A pod's containers in words: what each is, and how it is and was; also of a pod that a template describes.

use jiff::Timestamp;
use serde_json::{Map, Value};
use wherry_api::object;
use wherry_api::table::{human_duration, since};

use super::words;
use crate::layout::{below, fields_after, indented, pairs};

/// The lists of containers, and the statuses of each.
const LISTS: [(&str, &str, &str); 3] = [
    ("Init containers", "initContainers", "initContainerStatuses"),
    ("Containers", "containers", "containerStatuses"),
    ("Ephemeral containers", "ephemeralContainers", "ephemeralContainerStatuses"),
];

/// Where a workload has its pods' template.
const TEMPLATES: [&str; 3] = ["/spec/template", "/spec/jobTemplate/spec/template", "/template"];

/// Takes a workload's template out of it. One of which [`template`] would not tell everything stays.
pub fn take_template(workload: &mut Value) -> Option<Value> {
    TEMPLATES.iter().find_map(|place| {
        let (parent, field) = place.rsplit_once('/')?;
        let parent = workload.pointer_mut(parent)?.as_object_mut()?;
        let template = parent.get(field)?;
        template.pointer("/spec/containers")?;
        let is_known = |name: &String| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "spec");
        template.as_object()?.keys().all(is_known).then(|| parent.remove(field))?
    })
}

/// The lines about a template.
pub fn template(mut template: Value, now: Timestamp) -> Vec<String> {
    let containers = containers(&mut template, now);
    drop_defaults(&mut template);
    words::shorten(&mut template);
    let part = |name: &str| template.get(name).map(below).unwrap_or_default();
    let lines = [part("metadata"), containers, part("spec")].concat();
    std::iter::once("Pod template:".to_owned()).chain(indented(lines)).collect()
}

/// Removes what a pod's spec says if nobody says otherwise.
pub fn drop_defaults(pod: &mut Value) {
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|name, value| !is_default(name, value));
    }
}

/// Whether a field of a pod or container says what it would say by itself.
fn is_default(name: &str, value: &Value) -> bool {
    match name {
        "dnsPolicy" => value == "ClusterFirst",
        "enableServiceLinks" => *value == true,
        "preemptionPolicy" => value == "PreemptLowerPriority",
        "priority" => *value == 0,
        "resources" | "securityContext" => value.as_object().is_some_and(Map::is_empty),
        "schedulerName" => value == "default-scheduler",
        // Says what `serviceAccountName` says.
        "serviceAccount" => true,
        "terminationGracePeriodSeconds" => *value == 30,
        "terminationMessagePath" => value == "/dev/termination-log",
        "terminationMessagePolicy" => value == "File",
        _ => false,
    }
}

/// The lines about a pod's containers; takes them out of the pod.
pub fn containers(pod: &mut Value, now: Timestamp) -> Vec<String> {
    let mut lines = Vec::new();
    for (title, list, statuses) in LISTS {
        let mut take =
            |part: &str, field: &str| match pod.get_mut(part).and_then(Value::as_object_mut)?.remove(field)? {
                Value::Array(items) => Some(items),
                _ => None,
            };
        let (containers, statuses) = (take("spec", list), take("status", statuses).unwrap_or_default());
        let Some(containers) = containers.filter(|containers| !containers.is_empty()) else { continue };
        lines.push(format!("{title}:"));
        for container in containers {
            let name = object::text_at(&container, "name");
            let status = statuses.iter().find(|status| object::text_at(status, "name") == name);
            lines.push(format!("  {name}:"));
            lines.extend(indented(indented(one(container, status, now)).collect()));
        }
    }
    lines
}

fn one(container: Value, status: Option<&Value>, now: Timestamp) -> Vec<String> {
    let mut known = Vec::new();
    if let Some(status) = status {
        let ready = status.get("ready") == Some(&Value::Bool(true));
        let restarts = status.get("restartCount").and_then(Value::as_i64).unwrap_or(0);
        known.push(("state", state(status.get("state"), now)));
        known.push(("last state", state(status.get("lastState"), now)));
        known.push(("ready", if ready { "yes" } else { "no" }.to_owned()));
        known.push(("restarts", restarts.to_string()));
        known.push(("image ID", object::text_at(status, "imageID")));
    }
    let known: Vec<(String, String)> =
        known.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name.to_owned(), text)).collect();
    let mut container = container;
    words::shorten(&mut container);
    let Value::Object(mut rest) = container else { return pairs(&known) };
    rest.retain(|name, value| name != "name" && !is_default(name, value));
    if let Some(Value::Array(items)) = rest.get("env") {
        let texts = environment(items);
        rest.insert("env".to_owned(), texts);
    }
    fields_after(known, &rest)
}

/// A container's state in words; empty if there is none.
fn state(state: Option<&Value>, now: Timestamp) -> String {
    let Some((kind, of)) = state.and_then(Value::as_object).and_then(|state| state.iter().next()) else {
        return String::new();
    };
    let text = |field: &str| object::text_at(of, field);
    let time = |field: &str| object::parse_time(&text(field));
    let why =
        [text("reason"), text("message")].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
    match kind.as_str() {
        "running" => format!("running for {}", since(time("startedAt"), now)),
        "terminated" => {
            let code = of.get("exitCode").and_then(Value::as_i64).unwrap_or(0);
            let signal = of.get("signal").and_then(Value::as_i64).filter(|signal| *signal != 0);
            let signal = signal.map(|signal| format!(", signal {signal}")).unwrap_or_default();
            let ran = time("startedAt").zip(time("finishedAt"));
            let ran = ran.map(|(from, to)| format!(" after {}", human_duration(to.as_second() - from.as_second())));
            format!(
                "ended {} ago{} with exit code {code}{signal} ({why})",
                since(time("finishedAt"), now),
                ran.unwrap_or_default()
            )
        }
        other if why.is_empty() => other.to_owned(),
        other => format!("{other}: {why}"),
    }
}

/// `env` by names: a value, or where it comes from.
fn environment(items: &[Value]) -> Value {
    let source = |from: &Value| {
        let (kind, of) = from.as_object()?.iter().next()?;
        let what = ["name", "fieldPath", "resource", "key"].iter().map(|field| object::text_at(of, field));
        let what = what.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
        Some(format!("from {} {what}", kind.trim_end_matches("Ref").trim_end_matches("Key")))
    };
    let entry = |item: &Value| {
        let value = item.get("valueFrom").and_then(source).unwrap_or_else(|| object::text_at(item, "value"));
        (object::text_at(item, "name"), Value::String(value))
    };
    Value::Object(items.iter().map(entry).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_is_told_in_words() {
        let now: Timestamp = "2026-01-01T00:05:00Z".parse().unwrap();
        for (given, words) in [
            (json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}), "running for 5m"),
            (json!({"waiting": {"reason": "ContainerCreating"}}), "waiting: ContainerCreating"),
            (
                json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}),
                "waiting: CrashLoopBackOff: back-off 10s",
            ),
            (json!({"waiting": {}}), "waiting"),
            (
                json!({"terminated": {"exitCode": 137, "signal": 9, "reason": "OOMKilled",
                    "startedAt": "2026-01-01T00:04:00Z", "finishedAt": "2026-01-01T00:04:03Z"}}),
                "ended 57s ago after 3s with exit code 137, signal 9 (OOMKilled)",
            ),
            (json!({}), ""),
        ] {
            assert_eq!(state(Some(&given), now), words);
        }
    }

    #[test]
    fn a_template_is_told_like_a_pod_and_without_what_nobody_said() {
        let spec = json!({"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
            "securityContext": {}, "nodeSelector": {"disk": "ssd"}, "containers": [{"name": "main", "image": "i",
                "terminationMessagePolicy": "File", "resources": {}, "volumeMounts": [{"name": "v", "mountPath": "/m", "readOnly": true}]}]});
        let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": spec});
        for mut workload in [
            json!({"spec": {"replicas": 1, "template": template}}),
            json!({"spec": {"replicas": 1, "jobTemplate": {"spec": {"template": template}}}}),
        ] {
            let taken = take_template(&mut workload).unwrap();
            assert!(!workload.to_string().contains("containers") && take_template(&mut workload).is_none());
            let lines = super::template(taken, Timestamp::UNIX_EPOCH);
            assert_eq!(
                lines,
                [
                    "Pod template:",
                    "  labels:",
                    "    app:  x",
                    "  Containers:",
                    "    main:",
                    "      image:         i",
                    "      volumeMounts:  /m from v (ro)",
                    "  nodeSelector:   disk=ssd",
                    "  restartPolicy:  Always",
                ]
            );
        }
        let more = json!({"spec": {"containers": [{"name": "main"}]}, "status": {"address": "x"}});
        for other in [json!({"data": 1}), more] {
            assert!(take_template(&mut json!({"spec": {"template": other}})).is_none(), "of another kind");
        }
    }

    #[test]
    fn containers_are_taken_out_and_told() {
        let mut pod = json!({
            "spec": {"nodeName": "n", "containers": [{"name": "main", "image": "i", "terminationMessagePath": "/dev/termination-log",
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}, {"containerPort": 9, "protocol": "UDP"}],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
                    {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}]},
            "status": {"phase": "Running", "containerStatuses": [{"name": "main", "ready": true, "restartCount": 2,
                "state": {"waiting": {"reason": "X"}}, "lastState": {}}]},
        });
        let text = containers(&mut pod, Timestamp::UNIX_EPOCH).join("\n");
        assert_eq!(pod, json!({"spec": {"nodeName": "n"}, "status": {"phase": "Running"}}));
        for line in [
            "Containers:\n  main:",
            "state:     waiting: X",
            "ready:     yes",
            "restarts:  2",
            "ports:     http 8080/TCP, 9/UDP",
            "image:     i",
            "A:  1",
            "B:  from configMap c, k",
            "C:  from field metadata.name",
        ] {
            assert!(text.contains(line), "{line:?} is not in:\n{text}");
        }
    }
}
