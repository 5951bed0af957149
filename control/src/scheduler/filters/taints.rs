//! A tainted node takes only pods that tolerate it.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::{Filter, Rejection};
use crate::scheduler::pod::PodInfo;
use crate::scheduler::snapshot::NodeInfo;

/// Kubernetes' `TaintToleration`.
#[derive(Debug)]
pub struct Taints;

impl Filter for Taints {
    fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let binding = node.taints().iter().filter(|t| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute"));
        let Some(taint) = binding.into_iter().find(|taint| !is_tolerated(taint, pod.tolerations())) else {
            return Ok(());
        };
        let value = taint.value.as_deref().unwrap_or_default();
        Err(Rejection::never(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)))
    }
}

/// Whether one of the tolerations covers the taint.
pub fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

/// Whether the toleration covers the taint: an empty effect covers every effect, an empty key with `Exists` every key.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    let value = |value: &Option<String>| value.clone().unwrap_or_default();
    let number = |text: String| text.parse::<i64>().ok();
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => !key.is_empty() && value(&toleration.value) == value(&taint.value),
        "Gt" => number(value(&taint.value)) > number(value(&toleration.value)),
        "Lt" => number(value(&taint.value)).is_some_and(|n| Some(n) < number(value(&toleration.value))),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tolerations_cover_keys_values_and_effects() {
        let taint: Taint =
            serde_json::from_value(json!({"key": "k", "value": "v", "effect": "NoSchedule"})).expect("a taint");
        let cases = [
            (json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}), true),
            (json!({"key": "k", "value": "v"}), true),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "value": "w"}), false),
            (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
        ];
        for (toleration, expected) in cases {
            let toleration: Toleration = serde_json::from_value(toleration).expect("a toleration");
            assert_eq!(tolerates(&toleration, &taint), expected, "{toleration:?}");
        }
    }
}
