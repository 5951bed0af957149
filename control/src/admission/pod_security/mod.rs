//! Kubernetes' `PodSecurity`: pods keep to the standard that their namespace's labels name.
//!
//! What must stay true: `enforce` refuses pods and nothing else; workloads whose pods would be refused are only told
//! (`warn`, `audit`), because a controller would make those pods long after whoever could read an answer has gone. Nobody is
//! exempt.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::Value;
use wherry_api::resource::{Descriptor, GroupResource};
use wherry_api::status::ApiError;
use wherry_api::{kinds, object};

use self::checks::{Pod, Violation, violations};
use self::policy::{Policy, Standard};
use super::{Operation, Plugin, Request};
use crate::cache::{At, Cache, Filter};

mod checks;
mod policy;

/// Paths below a pod that do not change what it may do.
const HARMLESS: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];
/// Kinds with pods in them, and where.
const TEMPLATES: [(&str, &str, &str); 8] = [
    ("", "podtemplates", "/template"),
    ("", "replicationcontrollers", "/spec/template"),
    ("apps", "daemonsets", "/spec/template"),
    ("apps", "deployments", "/spec/template"),
    ("apps", "replicasets", "/spec/template"),
    ("apps", "statefulsets", "/spec/template"),
    ("batch", "cronjobs", "/spec/jobTemplate/spec/template"),
    ("batch", "jobs", "/spec/template"),
];
/// Existing pods that are looked at when a namespace's standard gets stricter, and for how long.
const PODS_CHECKED: usize = 3000;
const TIME_TO_CHECK: Duration = Duration::from_secs(1);
/// Pods between two moments at which other requests may go on.
const PODS_AT_ONCE: usize = 64;

static NAMESPACES: GroupResource = GroupResource::new("", "namespaces");

#[derive(Debug)]
pub struct PodSecurity {
    cache: Cache,
    pods: Arc<Descriptor>,
}

impl PodSecurity {
    pub fn new(cache: Cache) -> Self {
        Self { cache, pods: Arc::new(kinds::core::pod::descriptor()) }
    }
}

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    async fn validate(&self, request: &Request<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError> {
        let (Some(new), Operation::Create | Operation::Update) = (new, request.operation) else { return Ok(()) };
        let resource = request.resource;
        match (&*resource.group, &*resource.plural) {
            ("", "namespaces") if request.subresource.is_empty() => self.namespace(request, new, old).await,
            ("", "pods") if HARMLESS.contains(&request.subresource) => Ok(()),
            ("", "pods") if old.is_some_and(|old| !is_significant(new, old)) => Ok(()),
            ("", "pods") => {
                let pod = Pod { metadata: part(new, "/metadata"), spec: part(new, "/spec") };
                self.pod(request, pod, true)
            }
            (group, plural) if request.subresource.is_empty() => {
                let template = TEMPLATES.iter().find(|(g, p, _)| *g == group && *p == plural);
                let Some(template) = template.and_then(|(.., pointer)| new.pointer(pointer)) else { return Ok(()) };
                let pod = Pod { metadata: part(template, "/metadata"), spec: part(template, "/spec") };
                self.pod(request, pod, false)
            }
            _ => Ok(()),
        }
    }
}

fn part<'a>(object: &'a Value, pointer: &str) -> &'a Value {
    object.pointer(pointer).unwrap_or(&Value::Null)
}

impl PodSecurity {
    /// Judges a pod, or (without `enforce`) the template of one.
    fn pod(&self, request: &Request<'_>, pod: Pod<'_>, enforce: bool) -> Result<(), ApiError> {
        let Some(namespace) = self.cache.get(&NAMESPACES, "", request.namespace) else { return Ok(()) };
        let (policy, _) = Policy::of(|key| namespace.meta.label(key));
        if enforce {
            let found = violations(policy.enforce, pod);
            request.notes.audit("pod-security.kubernetes.io/enforce-policy", policy.enforce.to_string());
            if !found.is_empty() {
                let why = format!("violates {}", told(policy.enforce, &found));
                return Err(request.forbidden(why));
            }
        }
        let audited = violations(policy.audit, pod);
        if !audited.is_empty() {
            let why = format!("would violate {}", told(policy.audit, &audited));
            request.notes.audit("pod-security.kubernetes.io/audit-violations", why);
        }
        let warned = violations(policy.warn, pod);
        if !warned.is_empty() {
            request.notes.warn(format!("would violate {}", told(policy.warn, &warned)));
        }
        Ok(())
    }

    /// Judges the labels of a namespace, and tells which of its pods a new standard would not have let in.
    async fn namespace(&self, request: &Request<'_>, new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
        let (policy, errors) = Policy::of_namespace(new);
        let before = old.map(Policy::of_namespace);
        // Labels that were wrong before do not keep a namespace from changing otherwise.
        if !errors.is_empty() && before.as_ref().is_none_or(|(_, known)| *known != errors) {
            return Err(ApiError::invalid(request.resource, request.name, &errors));
        }
        if let Some((before, _)) = before
            && policy.enforce.is_stricter_than(before.enforce)
        {
            self.warn_of_pods(request, policy.enforce).await;
        }
        Ok(())
    }

    async fn warn_of_pods(&self, request: &Request<'_>, standard: Standard) {
        let filter = Filter { namespace: Some(request.name.to_owned()), ..Filter::default() };
        let Ok(list) = self.cache.list(&self.pods, &filter, At::Latest, None, 0).await else {
            return request.notes.warn("failed to list pods while checking new PodSecurity enforce level");
        };
        let (total, deadline) = (list.entries.len(), Instant::now() + TIME_TO_CHECK);
        let mut bad: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut checked = 0;
        for entry in list.entries.iter().take(PODS_CHECKED) {
            if Instant::now() > deadline {
                break;
            }
            checked += 1;
            if checked % PODS_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            let Ok(pod) = entry.read::<Value>() else { continue };
            let found = violations(standard, Pod { metadata: part(&pod, "/metadata"), spec: part(&pod, "/spec") });
            if !found.is_empty() {
                let reasons: Vec<&str> = found.iter().map(|violation| violation.reason).collect();
                bad.entry(reasons.join(", ")).or_default().push(object::name(&pod).to_owned());
            }
        }
        if checked < total {
            request.notes.warn(format!(
                "new PodSecurity enforce level only checked against the first {checked} of {total} existing pods"
            ));
        }
        if !bad.is_empty() {
            let namespace = request.name;
            request.notes.warn(format!(
                "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\""
            ));
        }
        let mut lines: Vec<String> = bad.iter().map(|(reasons, pods)| line(reasons, pods)).collect();
        lines.sort();
        for line in lines {
            request.notes.warn(line);
        }
    }
}

/// One pod by name, and how many more there are.
fn line(reasons: &str, pods: &[String]) -> String {
    let first = pods.iter().min().map(String::as_str).unwrap_or_default();
    match pods.len() {
        0 | 1 => format!("{first}: {reasons}"),
        2 => format!("{first} (and 1 other pod): {reasons}"),
        many => format!("{first} (and {} other pods): {reasons}", many - 1),
    }
}

/// `PodSecurity "restricted:latest": reason (detail), reason (detail)`.
fn told(standard: Standard, violations: &[Violation]) -> String {
    let all: Vec<String> = violations.iter().map(|v| format!("{} ({})", v.reason, v.detail)).collect();
    format!("PodSecurity \"{standard}\": {}", all.join(", "))
}

/// Whether an update of a pod changes what runs in it.
fn is_significant(new: &Value, old: &Value) -> bool {
    let images = |pod: &Value, list: &str| -> Vec<(String, String)> {
        let containers = pod.pointer(list).and_then(Value::as_array).into_iter().flatten();
        containers.map(|c| (object::text_at(c, "name"), object::text_at(c, "image"))).collect()
    };
    ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"]
        .iter()
        .any(|list| images(new, list) != images(old, list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_named_for_many() {
        let pods = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(line("privileged", &pods(&["b"])), "b: privileged");
        assert_eq!(line("privileged", &pods(&["b", "a"])), "a (and 1 other pod): privileged");
        assert_eq!(line("privileged", &pods(&["c", "b", "a"])), "a (and 2 other pods): privileged");
    }

    #[test]
    fn an_image_is_significant_and_a_toleration_is_not() {
        let pod = |image: &str, more: Value| serde_json::json!({"spec": {"containers": [{"name": "a", "image": image}], "tolerations": more}});
        let none = Value::Null;
        assert!(!is_significant(&pod("x", serde_json::json!([{}])), &pod("x", none.clone())));
        assert!(is_significant(&pod("y", none.clone()), &pod("x", none)));
    }
}
