//! The patch that brings a pod's status to the API.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Map, Value, json};

/// What to send. `earlier` is the address that the API shows from an earlier life of the pod.
pub fn patch(uid: &str, status: &PodStatus, earlier: Option<&String>) -> Vec<u8> {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        // What an earlier status may have said and this one does not.
        forget_unsaid(fields);
        for condition in fields.get_mut("conditions").and_then(|c| c.as_array_mut()).into_iter().flatten() {
            condition.as_object_mut().map(forget_unsaid);
        }
        // `podIPs` merges by address: another one has to replace it.
        if earlier.is_some()
            && earlier != status.pod_ip.as_ref()
            && let Some(addresses) = fields.get_mut("podIPs").and_then(|ips| ips.as_array_mut())
        {
            addresses.insert(0, json!({"$patch": "replace"}));
        }
    }
    json!({"metadata": {"uid": uid}, "status": value}).to_string().into_bytes()
}

/// Merging keeps what is not mentioned.
fn forget_unsaid(fields: &mut Map<String, Value>) {
    for field in ["reason", "message"] {
        fields.entry(field).or_insert(Value::Null);
    }
}

/// Whether the API calls a pod unready that is ready, and did so after this node had called it ready.
pub fn overruled(pod: &Pod, status: &PodStatus) -> bool {
    let ready = |status: &PodStatus| {
        let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready")?;
        Some((condition.status == "True", condition.last_transition_time.as_ref().map(|time| time.0)))
    };
    let theirs = pod.status.as_ref().and_then(ready);
    matches!((theirs, ready(status)), (Some((false, theirs)), Some((true, ours))) if theirs > ours)
}
