//! A pod that names a RuntimeClass takes over what the class demands: what it costs beside its containers, and where it may
//! run.

use async_trait::async_trait;
use serde_json::Value;
use wherry_api::object;
use wherry_api::resource::GroupResource;
use wherry_api::status::ApiError;

use super::{Plugin, Request};
use crate::cache::Cache;
use crate::quota;

static CLASSES: GroupResource = GroupResource::new("node.k8s.io", "runtimeclasses");

/// Kubernetes' plugin of that name.
#[derive(Debug)]
pub struct RuntimeClass {
    cache: Cache,
}

impl RuntimeClass {
    pub fn new(cache: Cache) -> Self {
        Self { cache }
    }
}

#[async_trait]
impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    async fn mutate(&self, request: &Request<'_>, pod: &mut Value) -> Result<(), ApiError> {
        if !request.creates("", "pods") {
            return Ok(());
        }
        let name = object::text_at(pod, "spec.runtimeClassName");
        let class = match self.cache.get(&CLASSES, "", &name).filter(|_| !name.is_empty()) {
            Some(entry) => entry.read::<Value>().ok(),
            None if name.is_empty() => None,
            None => return Err(refuse(request, format!("RuntimeClass {name:?} not found"))),
        };
        settle(pod, class.as_ref()).map_err(|why| refuse(request, why))
    }
}

fn refuse(request: &Request<'_>, why: String) -> ApiError {
    request.forbidden(format!("pod rejected: {why}"))
}

fn settle(pod: &mut Value, class: Option<&Value>) -> Result<(), String> {
    settle_overhead(pod, class)?;
    let Some(scheduling) = class.and_then(|class| class.get("scheduling")) else { return Ok(()) };
    let mut nodes = object::at(pod, "spec.nodeSelector").and_then(Value::as_object).cloned().unwrap_or_default();
    for (key, value) in scheduling.get("nodeSelector").and_then(Value::as_object).into_iter().flatten() {
        match nodes.get(key).filter(|own| *own != value) {
            Some(own) => {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    text(value),
                    text(own)
                ));
            }
            None => drop(nodes.insert(key.clone(), value.clone())),
        }
    }
    if !nodes.is_empty() {
        object::set_at(pod, "spec.nodeSelector", Value::Object(nodes));
    }
    let mut tolerations = object::at(pod, "spec.tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    for toleration in scheduling.get("tolerations").and_then(Value::as_array).into_iter().flatten() {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    if !tolerations.is_empty() {
        object::set_at(pod, "spec.tolerations", tolerations);
    }
    Ok(())
}

fn settle_overhead(pod: &mut Value, class: Option<&Value>) -> Result<(), String> {
    let fixed = class.and_then(|class| object::at(class, "overhead.podFixed")).filter(|map| !map.is_null());
    let given = object::at(pod, "spec.overhead").filter(|map| map.as_object().is_some_and(|map| !map.is_empty()));
    match (fixed, given) {
        (None, None) => {}
        (None, Some(_)) => {
            return Err("Pod Overhead set without corresponding RuntimeClass defined Overhead".to_owned());
        }
        (Some(fixed), Some(given)) if quota::amounts(Some(fixed)) != quota::amounts(Some(given)) => {
            return Err("Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned());
        }
        (Some(fixed), _) => object::set_at(pod, "spec.overhead", fixed.clone()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_takes_over_what_its_class_demands() {
        let class = json!({"overhead": {"podFixed": {"cpu": "10m"}},
            "scheduling": {"nodeSelector": {"kind": "vm"}, "tolerations": [{"key": "vm"}]}});
        let mut pod = json!({"spec": {"nodeSelector": {"zone": "a"}}});
        assert_eq!(settle(&mut pod, Some(&class)), Ok(()));
        assert_eq!(
            pod["spec"],
            json!({"nodeSelector": {"kind": "vm", "zone": "a"}, "tolerations": [{"key": "vm"}], "overhead": {"cpu": "10m"}})
        );
        pod["spec"]["nodeSelector"]["kind"] = json!("metal");
        assert_eq!(
            settle(&mut pod, Some(&class)),
            Err("conflict: runtimeClass.scheduling.nodeSelector[kind] = vm; pod.spec.nodeSelector[kind] = metal".into())
        );
    }

    #[test]
    fn overhead_is_the_class_s_to_say() {
        let mut pod = json!({"spec": {"overhead": {"cpu": "0.01"}}});
        assert!(settle(&mut pod, None).is_err());
        assert_eq!(settle(&mut pod, Some(&json!({"overhead": {"podFixed": {"cpu": "10m"}}}))), Ok(()));
        assert!(settle(&mut pod, Some(&json!({"overhead": {"podFixed": {"cpu": "20m"}}}))).is_err());
    }
}
