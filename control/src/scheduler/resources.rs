//! Amounts of resources: what a node offers, what a pod asks for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use wherry_api::kinds::core::podspec::busiest::{self, Amounts};

/// A container without a request counts as this much when nodes are compared, as in Kubernetes.
const DEFAULT_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// CPU in thousandths of a core, memory and ephemeral storage in bytes, the rest in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu: i64,
    pub memory: i64,
    pub ephemeral: i64,
    pub pods: i64,
    /// Extended resources and huge pages.
    pub other: BTreeMap<Box<str>, i64>,
}

type List = BTreeMap<String, Quantity>;

impl Resources {
    /// Reads a resource list; an unreadable quantity counts as 0 (the API server lets none in).
    pub fn of(list: Option<&List>) -> Self {
        let mut all = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            let quantity: wherry_api::quantity::Quantity = quantity.0.parse().unwrap_or_default();
            match name.as_str() {
                "cpu" => all.cpu = quantity.milli(),
                "memory" => all.memory = quantity.value(),
                "ephemeral-storage" => all.ephemeral = quantity.value(),
                "pods" => all.pods = quantity.value(),
                _ => drop(all.other.insert(name.as_str().into(), quantity.value())),
            }
        }
        all
    }

    pub fn subtract(&mut self, less: &Self) {
        self.combine(less, i64::saturating_sub);
    }

    fn combine(&mut self, with: &Self, op: impl Fn(i64, i64) -> i64) {
        self.cpu = op(self.cpu, with.cpu);
        self.memory = op(self.memory, with.memory);
        self.ephemeral = op(self.ephemeral, with.ephemeral);
        self.pods = op(self.pods, with.pods);
        for (name, amount) in &with.other {
            let present = self.other.entry(name.clone()).or_default();
            *present = op(*present, *amount);
        }
    }
}

impl Amounts for Resources {
    fn add(&mut self, more: &Self) {
        self.combine(more, i64::saturating_add);
    }

    fn raise(&mut self, to: &Self) {
        self.combine(to, i64::max);
    }
}

fn requests(container: &Container) -> Resources {
    Resources::of(container.resources.as_ref().and_then(|r| r.requests.as_ref()))
}

/// A request with the defaults by which nodes are compared.
fn compared(container: &Container) -> Resources {
    let present = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let mut amount = requests(container);
    if !present.is_some_and(|r| r.contains_key("cpu")) {
        amount.cpu = DEFAULT_CPU;
    }
    if !present.is_some_and(|r| r.contains_key("memory")) {
        amount.memory = DEFAULT_MEMORY;
    }
    amount
}

/// What a pod takes from its node: the larger of what its containers need together and what any init container needs next to
/// the sidecars that were started before it; plus overhead, plus one pod.
pub fn pod_requests(pod: &Pod) -> Resources {
    pod.spec.as_ref().map(|spec| total(spec, requests)).unwrap_or_default()
}

/// The same, with defaults for containers that ask for nothing.
pub fn pod_compared(pod: &Pod) -> Resources {
    pod.spec.as_ref().map(|spec| total(spec, compared)).unwrap_or_default()
}

fn total(spec: &PodSpec, requests: impl Fn(&Container) -> Resources) -> Resources {
    let is_sidecar = |container: &Container| container.restart_policy.as_deref() == Some("Always");
    let init = spec.init_containers.iter().flatten();
    let mut running = busiest::sum(
        spec.containers.iter().map(&requests),
        init.map(|container| (requests(container), is_sidecar(container))),
    );
    if let Some(list) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let whole = Resources::of(Some(list));
        running.cpu = if list.contains_key("cpu") { whole.cpu } else { running.cpu };
        running.memory = if list.contains_key("memory") { whole.memory } else { running.memory };
    }
    running.add(&Resources::of(spec.overhead.as_ref()));
    running.pods = 1;
    running
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn init_containers_count_only_as_far_as_they_need_more() {
        let container = |cpu: &str, policy: Option<&str>| json!({"name": "c", "restartPolicy": policy, "resources": {"requests": {"cpu": cpu, "example.com/gpu": "1"}}});
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "overhead": {"cpu": "10m"},
            "initContainers": [container("100m", Some("Always")), container("700m", None)],
            "containers": [container("200m", None), container("300m", None)]}}))
        .expect("a pod");
        let all = pod_requests(&pod);
        assert_eq!((all.cpu, all.pods, all.other.get("example.com/gpu")), (810, 1, Some(&3)));
    }

    #[test]
    fn a_pod_without_requests_takes_nothing_but_is_compared_with_a_default() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c"}]}})).expect("a pod");
        assert_eq!(pod_requests(&pod), Resources { pods: 1, ..Resources::default() });
        assert_eq!(pod_compared(&pod).cpu, DEFAULT_CPU);
    }
}
