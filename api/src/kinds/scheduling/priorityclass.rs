//! PriorityClass: a name for a pod's priority. What it stands for never changes.

use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::check::one_of;
use crate::kinds::tree::{drop_false, fill, int, is_true, object, set, text};
use crate::meta;
use crate::resource::Descriptor;
use crate::strategy::{Part, Strategy};

const SYSTEM_PREFIX: &str = "system-";
/// The classes that Kubernetes makes itself.
const SYSTEM: [(&str, i64); 2] = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
/// What is above is the system's.
const HIGHEST: i64 = 1_000_000_000;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<PriorityClass>()
        .short(&["pc"])
        .columns(vec![
            cells::name(),
            column("Value", "integer", "The value of this priority class.", |o, _| {
                json!(int(o, "/value").unwrap_or_default())
            }),
            column("Global-Default", "boolean", "Whether this class is that of pods that name none.", |o, _| {
                json!(is_true(o, "/globalDefault"))
            }),
            cells::age(),
            column("PreemptionPolicy", "string", "Whether pods of this class preempt others.", |o, _| {
                json!(text(o, "/preemptionPolicy"))
            }),
        ])
        .no_generation()
        .strategy(PriorityClassStrategy)
}

#[derive(Debug)]
struct PriorityClassStrategy;

impl Strategy for PriorityClassStrategy {
    fn prepare_create(&self, class: &mut Value) {
        // It is 1 for ever: nothing that counts may change.
        if let Some(metadata) = object(class, "metadata") {
            set(metadata, "generation", 1);
        }
    }

    fn kept_because(&self, name: &str) -> Option<&'static str> {
        let own = SYSTEM.iter().any(|(known, _)| *known == name);
        own.then_some("this is a system priority class and cannot be deleted")
    }

    fn default(&self, class: &mut Value) {
        fill(class, "value", 0);
        drop_false(class, "globalDefault");
        fill(class, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn validate(&self, class: &Value, errors: &mut ErrorList) {
        let (name, value) = (text(class, "/metadata/name"), int(class, "/value").unwrap_or_default());
        if name.starts_with(SYSTEM_PREFIX) {
            if let Err(why) = system(name, value, is_true(class, "/globalDefault")) {
                let detail = format!(
                    "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {why}"
                );
                errors.forbidden(&Path::new("metadata").child("name"), &detail);
            }
        } else if value > HIGHEST {
            let detail = format!("maximum allowed value of a user defined priority is {HIGHEST}");
            errors.forbidden(&Path::new("value"), &detail);
        }
        one_of(class, "preemptionPolicy", &Path::default(), &["Never", "PreemptLowerPriority"], errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        if int(new, "/value") != int(old, "/value") {
            errors.forbidden(&Path::new("value"), "may not be changed in an update.");
        }
        let policy = Path::new("preemptionPolicy");
        meta::immutable(new.get("preemptionPolicy"), old.get("preemptionPolicy"), &policy, errors);
    }
}

/// Whether this is one of the system's own classes, as the system makes it.
fn system(name: &str, value: i64, global_default: bool) -> Result<(), String> {
    match SYSTEM.iter().find(|(known, _)| *known == name) {
        None => Err(format!("{name} is not a known system priority class")),
        Some((_, known)) if *known != value => Err(format!("value of {name} PriorityClass must be {known}")),
        Some(_) if global_default => Err(format!("globalDefault of {name} PriorityClass must be false")),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn a_users_class_is_below_the_systems() {
        let judge = |name: &str, value: i64| {
            let class = json!({"metadata": {"name": name}, "value": value});
            complaints(|errors| PriorityClassStrategy.validate(&class, errors))
        };
        assert!(judge("high", HIGHEST).is_empty());
        assert_eq!(
            judge("high", HIGHEST + 1),
            ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]
        );
        assert!(judge("system-node-critical", 2_000_001_000).is_empty());
        assert_eq!(
            judge("system-mine", 1),
            ["metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. \
              error: system-mine is not a known system priority class"]
        );
    }

    #[test]
    fn value_and_policy_never_change() {
        let old = json!({"value": 1, "preemptionPolicy": "Never", "description": "x"});
        let judge = |new: Value| complaints(|e| PriorityClassStrategy.validate_update(&new, &old, Part::Main, e));
        assert!(judge(json!({"value": 1, "preemptionPolicy": "Never", "description": "y"})).is_empty());
        assert_eq!(
            judge(json!({"value": 2, "preemptionPolicy": "PreemptLowerPriority"})),
            [
                "value: Forbidden: may not be changed in an update.",
                "preemptionPolicy: Invalid value: \"PreemptLowerPriority\": field is immutable"
            ]
        );
    }
}
