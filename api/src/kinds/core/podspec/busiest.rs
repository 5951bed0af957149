//! What a pod asks for at its busiest moment: its containers together with the sidecars, or one init container with the
//! sidecars that were started before it. Whoever counts pods, in whatever form, counts them so.

use std::collections::BTreeMap;

use serde_json::Value;

use super::resources;
use crate::kinds::tree::{list, map, text};
use crate::quantity::Quantity;

/// Amounts of resources, by name.
pub type ByName = BTreeMap<String, Quantity>;

/// Amounts that can be added up and compared, resource by resource.
pub trait Amounts: Clone + Default {
    fn add(&mut self, more: &Self);

    /// Makes each amount at least what it is in `to`.
    fn raise(&mut self, to: &Self);
}

impl Amounts for ByName {
    fn add(&mut self, more: &Self) {
        for (name, amount) in more {
            let sum = self.get(name).map_or(*amount, |there| *there + *amount);
            self.insert(name.clone(), sum);
        }
    }

    fn raise(&mut self, to: &Self) {
        for (name, amount) in to {
            let larger = self.get(name).map_or(*amount, |there| (*there).max(*amount));
            self.insert(name.clone(), larger);
        }
    }
}

/// The moment's amounts, from those of each container and, in their order, of each init container and whether that is a
/// sidecar.
pub fn sum<A: Amounts>(containers: impl Iterator<Item = A>, init: impl Iterator<Item = (A, bool)>) -> A {
    let (mut running, mut sidecars, mut peak) = (A::default(), A::default(), A::default());
    containers.for_each(|own| running.add(&own));
    for (mut own, sidecar) in init {
        if sidecar {
            running.add(&own);
            sidecars.add(&own);
        } else {
            own.add(&sidecars);
            peak.raise(&own);
        }
    }
    running.raise(&peak);
    running
}

/// The moment's `requests` or `limits` of a pod spec.
pub fn of_spec(spec: &Value, field: &str) -> ByName {
    let pointer = format!("/resources/{field}");
    let own = |container: &Value| amounts(container, &pointer);
    let is_sidecar = |container: &Value| text(container, "/restartPolicy") == "Always";
    sum(
        list(spec, "/containers").iter().map(&own),
        list(spec, "/initContainers").iter().map(|container| (own(container), is_sidecar(container))),
    )
}

/// The moment's `requests` or `limits` of a pod as it was written: what it says for all its containers counts before theirs.
pub fn without_overhead(pod: &Value, field: &str) -> ByName {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let mut running = of_spec(spec, field);
    running.extend(amounts(spec, &format!("/resources/{field}")));
    running
}

/// The moment's `requests` or `limits` of a pod as a whole: its overhead comes on top.
pub fn of_pod(pod: &Value, field: &str) -> ByName {
    let mut running = without_overhead(pod, field);
    for (name, amount) in amounts(pod, "/spec/overhead") {
        // Overhead adds to a limit, it makes none.
        if field == "requests" || running.get(&name).is_some_and(|limit| !limit.is_zero()) {
            running.add(&ByName::from([(name, amount)]));
        }
    }
    running
}

/// The amounts in the map at a pointer.
fn amounts(of: &Value, pointer: &str) -> ByName {
    map(of, pointer).filter_map(|(name, amount)| Some((name.clone(), resources::parse(amount).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_init_container_counts_with_the_sidecars_before_it() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar = |cpu: &str| {
            let mut container = container(cpu);
            container["restartPolicy"] = json!("Always");
            container
        };
        for (containers, init, busiest) in [
            (vec!["1", "2"], vec![], "3"),
            (vec!["1"], vec![container("2")], "2"),
            (vec!["1"], vec![container("500m")], "1"),
            (vec!["1"], vec![sidecar("1"), container("2")], "3"),
            (vec!["1"], vec![container("2"), sidecar("2")], "3"),
            (vec!["1"], vec![sidecar("1"), sidecar("1"), container("500m")], "3"),
        ] {
            let containers: Vec<Value> = containers.into_iter().map(container).collect();
            let spec = json!({ "containers": containers, "initContainers": init });
            assert_eq!(of_spec(&spec, "requests")["cpu"].to_string(), busiest, "{spec}");
            assert!(of_spec(&spec, "limits").is_empty());
        }
    }
}
