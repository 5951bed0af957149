//! A pod stays for five minutes on a node that is not ready or not reachable, unless it says otherwise.

use async_trait::async_trait;
use serde_json::{Value, json};
use wherry_api::object;
use wherry_api::status::ApiError;

use super::{Plugin, Request};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// Kubernetes' `DefaultTolerationSeconds`.
#[derive(Debug)]
pub struct DefaultTolerations;

#[async_trait]
impl Plugin for DefaultTolerations {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    async fn mutate(&self, request: &Request<'_>, pod: &mut Value) -> Result<(), ApiError> {
        if !request.creates("", "pods") {
            return Ok(());
        }
        let mut tolerations =
            object::at(pod, "spec.tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
        let missing: Vec<&str> =
            TAINTS.into_iter().filter(|taint| !tolerations.iter().any(|t| tolerates(t, taint))).collect();
        tolerations.extend(missing.into_iter().map(
            |taint| json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}),
        ));
        object::set_at(pod, "spec.tolerations", tolerations);
        Ok(())
    }
}

fn tolerates(toleration: &Value, taint: &str) -> bool {
    let text = |field: &str| toleration.get(field).and_then(Value::as_str).unwrap_or_default();
    matches!(text("key"), key if key.is_empty() || key == taint) && matches!(text("effect"), "" | "NoExecute")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toleration_of_everything_needs_no_other() {
        assert!(tolerates(&json!({"operator": "Exists"}), TAINTS[0]));
        assert!(tolerates(&json!({"key": TAINTS[0], "effect": "NoExecute"}), TAINTS[0]));
        assert!(!tolerates(&json!({"key": TAINTS[0], "effect": "NoSchedule"}), TAINTS[0]));
        assert!(!tolerates(&json!({"key": TAINTS[1]}), TAINTS[0]));
    }
}
