//! What a Pod may ask that this node cannot give yet. Nothing is ignored in silence: what would make the pod wrong keeps
//! it from starting, the rest is said in an event.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

/// Where Kubernetes' admission mounts the service account's token into every container.
const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

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
        let mut found = Self::default();
        if let Some(spec) = &pod.spec {
            found.spec(spec);
            for (index, container) in spec.containers.iter().enumerate() {
                found.container(index, container);
            }
        }
        found
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

    fn block(&mut self, asked: bool, field: impl Into<String>) {
        if asked {
            self.blocking.push(field.into());
        }
    }

    fn ignore(&mut self, asked: bool, field: impl Into<String>) {
        if asked {
            self.ignored.push(field.into());
        }
    }

    fn spec(&mut self, spec: &PodSpec) {
        let some = |list: Option<usize>| list.is_some_and(|len| len > 0);
        self.block(spec.host_network == Some(true), "spec.hostNetwork");
        self.block(spec.host_pid == Some(true), "spec.hostPID");
        self.block(spec.host_ipc == Some(true), "spec.hostIPC");
        self.block(some(spec.init_containers.as_ref().map(Vec::len)), "spec.initContainers");
        self.block(some(spec.resource_claims.as_ref().map(Vec::len)), "spec.resourceClaims");
        self.block(spec.os.as_ref().is_some_and(|os| os.name != "linux"), "spec.os");
        self.ignore(some(spec.ephemeral_containers.as_ref().map(Vec::len)), "spec.ephemeralContainers");
        self.ignore(spec.share_process_namespace == Some(true), "spec.shareProcessNamespace");
        self.ignore(spec.dns_config.is_some(), "spec.dnsConfig");
        self.ignore(some(spec.host_aliases.as_ref().map(Vec::len)), "spec.hostAliases");
        self.ignore(spec.set_hostname_as_fqdn == Some(true), "spec.setHostnameAsFQDN");
    }

    fn container(&mut self, index: usize, c: &Container) {
        let at = |field: &str| format!("spec.containers[{index}].{field}");
        let mounted = c.volume_mounts.iter().flatten().any(|mount| mount.mount_path != TOKEN_MOUNT);
        self.block(mounted, at("volumeMounts"));
        self.block(c.volume_devices.as_ref().is_some_and(|d| !d.is_empty()), at("volumeDevices"));
        let privileged = c.security_context.as_ref().and_then(|s| s.privileged) == Some(true);
        self.block(privileged, at("securityContext.privileged"));
        self.ignore(c.liveness_probe.is_some(), at("livenessProbe"));
        self.ignore(c.readiness_probe.is_some(), at("readinessProbe"));
        self.ignore(c.startup_probe.is_some(), at("startupProbe"));
        self.ignore(c.lifecycle.is_some(), at("lifecycle"));
        self.ignore(c.tty == Some(true), at("tty"));
        self.ignore(c.restart_policy.is_some(), at("restartPolicy"));
        let host_port = c.ports.iter().flatten().any(|port| port.host_port.is_some_and(|p| p > 0));
        self.ignore(host_port, at("ports.hostPort"));
    }
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
            {"name": "kube-api-access-x", "mountPath": TOKEN_MOUNT}]}]}));
        assert_eq!(Unsupported::of(&plain), Unsupported::default());
        assert_eq!(Unsupported::of(&plain).notice(), None);
    }

    #[test]
    fn what_would_make_the_pod_wrong_blocks_it_and_the_rest_is_named() {
        let asks = pod(&serde_json::json!({"hostNetwork": true, "initContainers": [{"name": "i"}], "containers": [
            {"name": "a", "livenessProbe": {}, "volumeMounts": [{"name": "v", "mountPath": "/data"}]},
            {"name": "b", "securityContext": {"privileged": true}}]}));
        let found = Unsupported::of(&asks);
        assert_eq!(
            found.blocking,
            [
                "spec.hostNetwork",
                "spec.initContainers",
                "spec.containers[0].volumeMounts",
                "spec.containers[1].securityContext.privileged"
            ]
        );
        assert_eq!(found.ignored, ["spec.containers[0].livenessProbe"]);
        assert!(found.refusal().is_some_and(|text| text.contains("spec.hostNetwork")));
    }
}
