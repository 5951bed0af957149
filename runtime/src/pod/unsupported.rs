//! What a Pod may ask that this node cannot give yet, by the rules of which its creator was warned. Nothing is ignored in
//! silence: what would make the pod wrong keeps it from starting, the rest is said in an event.

use k8s_openapi::api::core::v1::Pod;
use wherry_api::kinds::core::podspec;

/// What was found, as field paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unsupported {
    /// The pod must not run.
    pub blocking: Vec<String>,
    /// The pod runs without it.
    pub ignored: Vec<String>,
}

impl Unsupported {
    /// Looks through a Pod.
    pub fn of(pod: &Pod) -> Self {
        // A type that was read from JSON is written as JSON: this cannot fail.
        let spec = serde_json::to_value(&pod.spec).unwrap_or_default();
        let (blocking, ignored): (Vec<_>, Vec<_>) =
            podspec::unsupported(&spec).into_iter().partition(|found| found.blocking);
        let fields = |found: Vec<podspec::Unsupported>| found.iter().map(|u| format!("spec.{}", u.field)).collect();
        Self { blocking: fields(blocking), ignored: fields(ignored) }
    }

    /// The message with which the pod is refused.
    pub fn refusal(&self) -> Option<String> {
        (!self.blocking.is_empty()).then(|| format!("this node does not support {}", self.blocking.join(", ")))
    }

    /// The message of the event, if there is anything to say.
    pub fn notice(&self) -> Option<String> {
        let part =
            |fields: &[String], text: &str| (!fields.is_empty()).then(|| format!("{}: {text}", fields.join(", ")));
        let parts: Vec<String> = [
            part(&self.blocking, "not supported by this node, the pod is not started"),
            part(&self.ignored, "not supported by this node, the pod runs without"),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// The names of a pod's ephemeral containers.
pub fn ephemeral(pod: &Pod) -> impl Iterator<Item = &str> {
    let all = pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_ref());
    all.into_iter().flatten().map(|container| container.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap_or_default()
    }

    #[test]
    fn a_plain_pod_with_a_service_account_token_is_supported() {
        let plain = pod(&serde_json::json!({"containers": [{"name": "a", "image": "i", "volumeMounts": [
            {"name": "kube-api-access-x", "mountPath": podspec::access::MOUNT_PATH}]}],
            "volumes": [podspec::access::new_volume("kube-api-access-x")]}));
        assert_eq!(Unsupported::of(&plain), Unsupported::default());
        assert_eq!(Unsupported::of(&plain).notice(), None);
    }

    #[test]
    fn what_would_make_the_pod_wrong_blocks_it_and_the_rest_is_named() {
        let asks = pod(&serde_json::json!({"hostNetwork": true, "initContainers": [{"name": "i"}],
            "volumes": [{"name": "v", "emptyDir": {}}], "containers": [
            {"name": "a", "livenessProbe": {}, "volumeMounts": [{"name": "v", "mountPath": "/data"}]},
            {"name": "b", "securityContext": {"privileged": true}}]}));
        let found = Unsupported::of(&asks);
        assert_eq!(
            found.blocking,
            [
                "spec.hostNetwork",
                "spec.volumes[0]",
                "spec.initContainers",
                "spec.containers[1].securityContext.privileged"
            ]
        );
        assert!(found.refusal().is_some_and(|text| text.contains("spec.hostNetwork")));
    }
}
