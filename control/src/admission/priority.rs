//! A pod's priority is the number of its PriorityClass, which no client gives by itself; there is one default class at most.

use async_trait::async_trait;
use serde_json::{Value, json};
use wherry_api::object;
use wherry_api::resource::GroupResource;
use wherry_api::status::ApiError;

use super::{Operation, Plugin, Request};
use crate::cache::Cache;

const PREEMPTS: &str = "PreemptLowerPriority";

static CLASSES: GroupResource = GroupResource::new("scheduling.k8s.io", "priorityclasses");

/// Kubernetes' plugin of that name.
#[derive(Debug)]
pub struct Priority {
    cache: Cache,
}

impl Priority {
    pub fn new(cache: Cache) -> Self {
        Self { cache }
    }

    fn class(&self, name: &str) -> Option<Value> {
        self.cache.get(&CLASSES, "", name)?.read().ok()
    }

    /// The default class: the least of them, should there be several.
    fn default_class(&self) -> Option<Value> {
        let all = self.cache.all(&CLASSES, "");
        let trees = all.iter().filter_map(|entry| entry.read::<Value>().ok());
        trees.filter(|class| class.get("globalDefault") == Some(&Value::Bool(true))).min_by_key(value)
    }

    fn settle(&self, request: &Request<'_>, pod: &mut Value) -> Result<(), ApiError> {
        let refuse = |why: String| Err(request.forbidden(why));
        let name = object::text_at(pod, "spec.priorityClassName");
        let class = if name.is_empty() { self.default_class() } else { self.class(&name) };
        if class.is_none() && !name.is_empty() {
            return refuse(format!("no PriorityClass with name {name} was found"));
        }
        let class = class.unwrap_or_else(|| json!({}));
        if name.is_empty() && !object::name(&class).is_empty() {
            object::set_at(pod, "spec.priorityClassName", object::name(&class));
        }
        let (priority, policy) = (value(&class), policy(&class));
        if let Some(given) = object::at(pod, "spec.priority").and_then(Value::as_i64).filter(|given| *given != priority)
        {
            return refuse(format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
                 computed {priority} from the given PriorityClass name"
            ));
        }
        let given = object::text_at(pod, "spec.preemptionPolicy");
        if !given.is_empty() && given != policy {
            return refuse(format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name"
            ));
        }
        object::set_at(pod, "spec.priority", priority);
        object::set_at(pod, "spec.preemptionPolicy", policy);
        Ok(())
    }
}

fn value(class: &Value) -> i64 {
    class.get("value").and_then(Value::as_i64).unwrap_or_default()
}

fn policy(class: &Value) -> String {
    class.get("preemptionPolicy").and_then(Value::as_str).unwrap_or(PREEMPTS).to_owned()
}

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    async fn mutate(&self, request: &Request<'_>, pod: &mut Value) -> Result<(), ApiError> {
        if request.creates("", "pods") { self.settle(request, pod) } else { Ok(()) }
    }

    async fn validate(&self, request: &Request<'_>, new: Option<&Value>, _: Option<&Value>) -> Result<(), ApiError> {
        let concerns = request.operation != Operation::Delete && request.resource.group_resource() == CLASSES;
        let Some(class) = new.filter(|class| concerns && class.get("globalDefault") == Some(&Value::Bool(true))) else {
            return Ok(());
        };
        match self.default_class() {
            Some(other) if object::name(&other) != object::name(class) => {
                let why = format!(
                    "PriorityClass {} is already marked as default. Only one default can exist",
                    object::name(&other)
                );
                Err(request.forbidden(why))
            }
            _ => Ok(()),
        }
    }
}
