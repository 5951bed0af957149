//! The scheduler's writes: bindings, and the condition of pods that found no node.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, Time};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::pod::PodInfo;
use crate::controllers::pods;

pub(super) const MANAGER: &str = "kube-scheduler";

/// Binds the pod to the node.
pub async fn bind(client: Client, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
    let binding = Binding {
        metadata: ObjectMeta {
            namespace: Some(pod.key.namespace.to_string()),
            name: Some(pod.key.name.to_string()),
            uid: pod.pod.metadata.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let api: Api<Pod> = Api::namespaced(client, &pod.key.namespace);
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    api.create_subresource::<_, Status>("binding", &pod.key.name, &params, &binding).await.map(drop)
}

/// Says in the pod's conditions why it is not scheduled, unless they say so already.
pub async fn tell(client: Client, pod: &PodInfo, message: &str) -> Result<(), kube::Error> {
    let shown = pods::condition(&pod.pod, "PodScheduled");
    if shown.is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(message)) {
        return Ok(());
    }
    let since = shown.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone());
    let condition = json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": since.unwrap_or_else(|| Time(Timestamp::now())),
    });
    // Of the version that was judged: the pod may have been bound since.
    let meta = json!({"uid": pod.pod.metadata.uid, "resourceVersion": pod.pod.metadata.resource_version});
    let patch = json!({"metadata": meta, "status": {"conditions": [condition]}});
    let api: Api<Pod> = Api::namespaced(client, &pod.key.namespace);
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    api.patch_status(&pod.key.name, &params, &Patch::Strategic(patch)).await.map(drop)
}
