//! Pods and claims of a namespace keep to its LimitRanges; a container that does not say how large it is gets the default.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::{Value, json};
use wherry_api::kinds::core::podspec::busiest;
use wherry_api::object;
use wherry_api::quantity::Quantity;
use wherry_api::resource::GroupResource;
use wherry_api::status::ApiError;

use super::{Operation, Plugin, Request};
use crate::cache::Cache;
use crate::quota::{self, Usage};

/// Says what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";
const LISTS: [(&str, &str); 2] = [("containers", "container"), ("initContainers", "init container")];

static RANGES: GroupResource = GroupResource::new("", "limitranges");

/// Kubernetes' plugin of that name.
#[derive(Debug)]
pub struct LimitRanger {
    cache: Cache,
}

impl LimitRanger {
    pub fn new(cache: Cache) -> Self {
        Self { cache }
    }

    /// All items of the namespace's ranges.
    fn items(&self, namespace: &str) -> Vec<Value> {
        let entries = self.cache.all(&RANGES, namespace);
        let trees = entries.iter().filter_map(|entry| entry.read::<Value>().ok());
        trees
            .flat_map(|tree| object::at(&tree, "spec.limits").and_then(Value::as_array).cloned().unwrap_or_default())
            .collect()
    }
}

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    async fn mutate(&self, request: &Request<'_>, pod: &mut Value) -> Result<(), ApiError> {
        if request.creates("", "pods") {
            let items = self.items(request.namespace);
            fill(pod, &items);
        }
        Ok(())
    }

    async fn validate(&self, request: &Request<'_>, new: Option<&Value>, _: Option<&Value>) -> Result<(), ApiError> {
        let Some(object) = new.filter(|object| !object::is_deleting(object)) else { return Ok(()) };
        let claim = request.operation != Operation::Delete
            && request.subresource.is_empty()
            && request.resource.is("", "persistentvolumeclaims");
        let is_pod = request.resource.is("", "pods");
        let resized = is_pod && request.operation == Operation::Update && request.subresource == "resize";
        let complaints: Vec<String> = if resized || request.creates("", "pods") {
            self.items(request.namespace).iter().flat_map(|item| of_pod(item, object)).collect()
        } else if claim {
            self.items(request.namespace).iter().flat_map(|item| of_claim(item, object)).collect()
        } else {
            return Ok(());
        };
        match complaints.as_slice() {
            [] => Ok(()),
            [one] => Err(request.forbidden(one)),
            all => Err(request.forbidden(format!("[{}]", all.join(", ")))),
        }
    }
}

fn is_of(item: &Value, kind: &str) -> bool {
    item.get("type").and_then(Value::as_str) == Some(kind)
}

/// Fills in defaults, and says so.
fn fill(pod: &mut Value, items: &[Value]) {
    let mut defaults = (Usage::new(), Usage::new());
    for item in items.iter().filter(|item| is_of(item, "Container")) {
        defaults.0.extend(quota::amounts(item.get("defaultRequest")));
        defaults.1.extend(quota::amounts(item.get("default")));
    }
    let mut notes = Vec::new();
    for (list, kind) in LISTS {
        let containers = pod.get_mut("spec").and_then(|spec| spec.get_mut(list)).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            fill_container(container, kind, &defaults.0, &defaults.1, &mut notes);
        }
    }
    if !notes.is_empty() {
        object::set_annotation(pod, ANNOTATION, &format!("LimitRanger plugin set: {}", notes.join("; ")));
    }
}

fn fill_container(container: &mut Value, kind: &str, requests: &Usage, limits: &Usage, notes: &mut Vec<String>) {
    let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    // What is limited and not requested will be requested at its limit: nothing is missing then.
    let own = object::at(container, "resources.limits").cloned().unwrap_or_default();
    for (field, defaults, given) in [("requests", requests, &own), ("limits", limits, &Value::Null)] {
        let mut set = Vec::new();
        for (resource, amount) in defaults {
            let is_there = |map: Option<&Value>| map.and_then(|map| map.get(resource)).is_some_and(|v| !v.is_null());
            if is_there(Some(given)) || is_there(object::at(container, "resources").and_then(|r| r.get(field))) {
                continue;
            }
            let mut amounts =
                object::at(container, "resources").and_then(|r| r.get(field)).cloned().unwrap_or_else(|| json!({}));
            if let Some(map) = amounts.as_object_mut() {
                map.insert(resource.clone(), json!(amount.to_string()));
            }
            object::set_at(container, &format!("resources.{field}"), amounts);
            set.push(resource.as_str());
        }
        if !set.is_empty() {
            let what = field.trim_end_matches('s');
            notes.push(format!("{} {what} for {kind} {name}", set.join(", ")));
        }
    }
}

/// What a range demands of a pod and its containers.
fn of_pod(item: &Value, pod: &Value) -> Vec<String> {
    if is_of(item, "Pod") {
        // As in Kubernetes, what its runtime class takes beside its containers is no fault of the pod's.
        let of = |field| busiest::without_overhead(pod, field);
        return judge(item, "Pod", &of("requests"), &of("limits"));
    }
    if !is_of(item, "Container") {
        return Vec::new();
    }
    let containers = LISTS.iter().filter_map(|(list, _)| object::at(pod, "spec")?.get(list)?.as_array()).flatten();
    let amounts =
        |container: &Value, field: &str| quota::amounts(object::at(container, "resources").and_then(|r| r.get(field)));
    containers
        .flat_map(|container| judge(item, "Container", &amounts(container, "requests"), &amounts(container, "limits")))
        .collect()
}

fn of_claim(item: &Value, claim: &Value) -> Vec<String> {
    const KIND: &str = "PersistentVolumeClaim";
    if !is_of(item, KIND) {
        return Vec::new();
    }
    let asked = quota::amounts(object::at(claim, "spec.resources.requests"));
    let mut complaints = Vec::new();
    for (name, min) in sorted(item, "min") {
        let start = format!("minimum {name} usage per {KIND} is {min}");
        match asked.get(&name) {
            None => complaints.push(format!("{start}.  No request is specified")),
            Some(request) if *request < min => complaints.push(format!("{start}, but request is {request}")),
            Some(_) => {}
        }
    }
    for (name, max) in sorted(item, "max") {
        let start = format!("maximum {name} usage per {KIND} is {max}");
        match asked.get(&name) {
            None => complaints.push(format!("{start}.  No request is specified")),
            Some(request) if *request > max => complaints.push(format!("{start}, but request is {request}")),
            Some(_) => {}
        }
    }
    complaints
}

fn sorted(item: &Value, field: &str) -> BTreeMap<String, Quantity> {
    quota::amounts(item.get(field))
}

/// Minimum, maximum and ratio of one pod or container.
fn judge(item: &Value, kind: &str, requests: &Usage, limits: &Usage) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, min) in sorted(item, "min") {
        let start = format!("minimum {name} usage per {kind} is {min}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => complaints.push(format!("{start}.  No request is specified")),
            (Some(request), _) if *request < min => complaints.push(format!("{start}, but request is {request}")),
            (_, Some(limit)) if *limit < min => complaints.push(format!("{start}, but limit is {limit}")),
            _ => {}
        }
    }
    for (name, max) in sorted(item, "max") {
        let start = format!("maximum {name} usage per {kind} is {max}");
        match (requests.get(&name), limits.get(&name)) {
            (_, None) => complaints.push(format!("{start}.  No limit is specified")),
            (_, Some(limit)) if *limit > max => complaints.push(format!("{start}, but limit is {limit}")),
            (Some(request), _) if *request > max => complaints.push(format!("{start}, but request is {request}")),
            _ => {}
        }
    }
    for (name, ratio) in sorted(item, "maxLimitRequestRatio") {
        let start = format!("{name} max limit to request ratio per {kind} is {ratio}");
        let given = |of: &Usage| of.get(&name).copied().filter(|amount| !amount.is_zero());
        match (given(requests), given(limits)) {
            (None, _) => complaints.push(format!("{start}, but no request is specified or request is 0")),
            (_, None) => complaints.push(format!("{start}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let is = limit.as_f64() / request.as_f64();
                if is > ratio.as_f64() {
                    complaints.push(format!("{start}, but provided ratio is {is:.6}"));
                }
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_filled_in_and_noted() {
        let mut pod =
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "300m"}}}]}});
        let item = json!({"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m", "memory": "1Mi"}});
        fill(&mut pod, &[item]);
        let containers = &pod["spec"]["containers"];
        assert_eq!(
            containers[0]["resources"],
            json!({"requests": {"cpu": "100m", "memory": "1Mi"}, "limits": {"cpu": "500m"}})
        );
        assert_eq!(containers[1]["resources"], json!({"requests": {"memory": "1Mi"}, "limits": {"cpu": "300m"}}));
        assert_eq!(
            object::annotation(&pod, ANNOTATION),
            Some(
                "LimitRanger plugin set: cpu, memory request for container a; cpu limit for container a; memory request \
                 for container b"
            )
        );
    }

    #[test]
    fn a_container_keeps_to_minimum_maximum_and_ratio() {
        let pod = |requests: Value, limits: Value| json!({"spec": {"containers": [{"name": "a", "resources": {"requests": requests, "limits": limits}}]}});
        let item = json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "2"}});
        assert!(of_pod(&item, &pod(json!({"cpu": "500m"}), json!({"cpu": "1"}))).is_empty());
        assert_eq!(
            of_pod(&item, &pod(json!({"cpu": "50m"}), json!({"cpu": "2"}))),
            [
                "minimum cpu usage per Container is 100m, but request is 50m",
                "maximum cpu usage per Container is 1, but limit is 2",
                "cpu max limit to request ratio per Container is 2, but provided ratio is 40.000000"
            ]
        );
        assert_eq!(
            of_pod(&item, &pod(json!({}), json!({}))),
            [
                "minimum cpu usage per Container is 100m.  No request is specified",
                "maximum cpu usage per Container is 1.  No limit is specified",
                "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0"
            ]
        );
    }

    #[test]
    fn a_pod_is_judged_as_a_whole_and_a_claim_by_its_size() {
        let container = json!({"name": "a", "resources": {"limits": {"memory": "1Gi"}, "requests": {"memory": "1Gi"}}});
        let pod = json!({"spec": {"containers": [container, container]}});
        assert_eq!(
            of_pod(&json!({"type": "Pod", "max": {"memory": "1Gi"}}), &pod),
            ["maximum memory usage per Pod is 1Gi, but limit is 2Gi"]
        );
        let mut carried = pod.clone();
        carried["spec"]["overhead"] = json!({"memory": "1Mi"});
        assert!(
            of_pod(&json!({"type": "Pod", "max": {"memory": "2Gi"}}), &carried).is_empty(),
            "overhead does not count"
        );
        let claim = json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}});
        assert_eq!(
            of_claim(&json!({"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}}), &claim),
            ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"]
        );
    }
}
