//! Pod: containers that share a node, an address and a fate.

pub(in crate::kinds) mod annotations;
mod columns;
mod parts;
mod resize;
mod status;
mod update;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

pub use self::annotations::MIRROR;
use super::podspec::{self, resources, scheduling};
use crate::field::{ErrorList, Path};
use crate::kinds::apps::template;
use crate::kinds::tree::{carry, fill, int, list, object, set, some, text};
use crate::resource::{CONNECT, Descriptor, PROXY};
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<Pod>()
        .short(&["po"])
        .categories(&["all"])
        .status()
        .status_keeps(&["ownerReferences"])
        .named("log", "Pod", &["get"])
        .named("binding", "Binding", &["create"])
        .named_of("eviction", ("policy", "v1"), "Eviction", &["create"])
        .part(parts::EPHEMERAL)
        .part(parts::RESIZE)
        .named("attach", "PodAttachOptions", CONNECT)
        .named("exec", "PodExecOptions", CONNECT)
        .named("portforward", "PodPortForwardOptions", CONNECT)
        .named("proxy", "PodProxyOptions", PROXY)
        .columns(columns::columns())
        .selectable(&[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork=false",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ])
        .selectable_at("spec.host", "spec.nodeName", "")
        .returns_deleted()
        .strategy(PodStrategy)
}

#[derive(Debug)]
struct PodStrategy;

impl Strategy for PodStrategy {
    fn prepare_create(&self, pod: &mut Value) {
        let class = quality(pod.get("spec").unwrap_or(&Value::Null));
        set(pod, "status", json!({"phase": "Pending", "qosClass": class}));
        scheduling::gate(pod);
        let labels = pod.pointer("/metadata/labels").cloned().unwrap_or_default();
        let mirrors = annotations::is_mirror(pod);
        annotations::sync_app_armor(pod);
        let Some(spec) = object(pod, "spec") else { return };
        podspec::merge_label_keys(spec, &labels);
        // What a node runs by itself runs as nobody.
        if !mirrors && text(spec, "/serviceAccount").is_empty() {
            fill(spec, "serviceAccountName", "default");
        }
        scheduling::default_tolerations(spec);
    }

    fn default(&self, pod: &mut Value) {
        if let Some(spec) = object(pod, "spec") {
            podspec::default(spec);
            podspec::default_pod(spec);
        }
        if let Some(status) = pod.get_mut("status") {
            status::mirror_addresses(status);
        }
    }

    fn validate(&self, pod: &Value, errors: &mut ErrorList) {
        let path = Path::new("spec");
        annotations::validate(pod, errors);
        podspec::validate_pod(pod, errors);
        if !list(pod, "/spec/ephemeralContainers").is_empty() {
            errors.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
        }
        if !text(pod, "/spec/nodeName").is_empty() && !list(pod, "/spec/schedulingGates").is_empty() {
            errors.forbidden(&path.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
        }
        annotations::validate_fields(pod, errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        match part {
            Part::Main => carry(new, old, "status"),
            Part::Status => {
                carry(new, old, "spec");
                status::keep_generations(new, old);
                if let (Some(status), Some(class)) = (object(new, "status"), some(old, "/status/qosClass")) {
                    fill(status, "qosClass", class.clone());
                }
            }
            Part::Named(part) => parts::prepare(new, old, part),
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        match part {
            Part::Main => {
                annotations::validate_update(new, old, errors);
                podspec::validate_change(new, old, errors);
                update::validate(new, old, errors);
            }
            Part::Status => status::validate(new, old, errors),
            Part::Named(part) => parts::validate(new, old, part, errors),
        }
    }

    /// A pod that no node runs, or that has ended, goes at once.
    fn grace_period(&self, pod: &Value, requested: Option<i64>) -> Option<i64> {
        let ended = matches!(text(pod, "/status/phase"), "Failed" | "Succeeded");
        if ended || text(pod, "/spec/nodeName").is_empty() {
            return Some(0);
        }
        let seconds = requested.or_else(|| int(pod, "/spec/terminationGracePeriodSeconds")).unwrap_or_default();
        Some(if seconds < 0 { 1 } else { seconds })
    }

    fn warnings(&self, pod: &Value) -> Vec<String> {
        podspec::warnings(pod, &Path::default())
    }

    /// It was programs that changed it, and often.
    fn update_warnings(&self, _new: &Value, _old: &Value) -> Vec<String> {
        Vec::new()
    }

    fn new_warnings(&self, pod: &Value) -> Vec<String> {
        template::warn_of_name(pod, "the Pod's hostname").into_iter().collect()
    }
}

/// The quality of service of a new pod.
fn quality(spec: &Value) -> &'static str {
    if some(spec, "/resources").is_none() {
        return resources::qos_class(spec);
    }
    let mut spec = spec.clone();
    podspec::default_pod(&mut spec);
    resources::qos_class(&spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_pod_is_pending_has_a_class_an_account_and_default_tolerations() {
        let mut pod = json!({"spec": {"containers": [{"name": "a", "image": "x:1", "resources": {"limits": {"cpu": "1"}}}]},
            "status": {"phase": "Running"}});
        PodStrategy.prepare_create(&mut pod);
        PodStrategy.default(&mut pod);
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "Burstable"}));
        let spec = &pod["spec"];
        assert_eq!((&spec["serviceAccountName"], &spec["serviceAccount"]), (&json!("default"), &json!("default")));
        assert_eq!(spec["tolerations"].as_array().map(Vec::len), Some(2));
        let mut errors = ErrorList::default();
        PodStrategy.validate(&pod, &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
    }

    #[test]
    fn a_status_update_touches_status_alone() {
        let old = json!({"spec": {"a": 1}, "status": {"qosClass": "BestEffort"}});
        let mut new = json!({"spec": {"a": 2}, "status": {"phase": "Running"}});
        PodStrategy.prepare_update(&mut new, &old, Part::Status);
        assert_eq!(new, json!({"spec": {"a": 1}, "status": {"phase": "Running", "qosClass": "BestEffort"}}));
    }

    #[test]
    fn grace_is_for_pods_that_run() {
        let running =
            json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"}});
        assert_eq!(PodStrategy.grace_period(&running, None), Some(30));
        assert_eq!(PodStrategy.grace_period(&running, Some(5)), Some(5));
        assert_eq!(PodStrategy.grace_period(&running, Some(-1)), Some(1));
        assert_eq!(PodStrategy.grace_period(&json!({"spec": {"terminationGracePeriodSeconds": 30}}), None), Some(0));
    }

    #[test]
    fn a_pod_from_before_a_rule_may_still_be_changed_elsewhere() {
        let spec = json!({"containers": [{"name": "a", "image": "x"}], "nodeName": "n", "os": {"name": "dos"}});
        let mut old = json!({"metadata": {"name": "p"}, "spec": spec, "status": {"phase": "Running"}});
        PodStrategy.default(&mut old);
        let said = |change: &dyn Fn(&mut Value)| {
            let mut new = old.clone();
            change(&mut new);
            let mut errors = ErrorList::default();
            PodStrategy.validate_update(&new, &old, Part::Main, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(said(&|pod| pod["metadata"]["labels"] = json!({"a": "b"})), Vec::<String>::new());
        assert_eq!(said(&|pod| pod["spec"]["containers"][0]["image"] = json!("y")), Vec::<String>::new());
        assert_eq!(
            said(&|pod| pod["spec"]["containers"][0]["image"] = json!("")),
            ["spec.containers[0].image: Required value"]
        );
        let mut errors = ErrorList::default();
        PodStrategy.validate(&old, &mut errors);
        assert_eq!(errors.iter().count(), 1);
    }
}
