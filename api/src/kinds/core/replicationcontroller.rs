//! ReplicationController: what a ReplicaSet was before it had label selectors.

use k8s_openapi::api::core::v1::ReplicationController;
use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::apps::template;
use crate::kinds::cells::{self, wide};
use crate::kinds::tree::{fill, map, object, set, some, split_status};
use crate::resource::Descriptor;
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    let mut columns = template::replica_columns();
    columns.extend(cells::containers());
    columns.push(wide("Selector", "A label query over pods.", |o, _| json!(cells::labels(o, "/spec/selector"))));
    Descriptor::of::<ReplicationController>()
        .short(&["rc"])
        .categories(&["all"])
        .status()
        .scale(".spec.replicas", ".status.replicas", Some(".spec.selector"))
        .columns(columns)
        .selectable(&["status.replicas=0"])
        .strategy(ReplicationControllerStrategy)
}

#[derive(Debug)]
struct ReplicationControllerStrategy;

impl Strategy for ReplicationControllerStrategy {
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"replicas": 0}));
    }

    /// The selector and the labels are the template's, unless they are given.
    fn default(&self, controller: &mut Value) {
        let labels = some(controller, "/spec/template/metadata/labels").filter(|l| l.is_object()).cloned();
        if let Some(labels) = labels.filter(|_| map(controller, "/metadata/labels").next().is_none())
            && let Some(metadata) = object(controller, "metadata")
        {
            set(metadata, "labels", labels);
        }
        let labels = some(controller, "/spec/template/metadata/labels").filter(|l| l.is_object()).cloned();
        let selects = map(controller, "/spec/selector").next().is_some();
        let Some(spec) = object(controller, "spec") else { return };
        if let Some(labels) = labels.filter(|_| !selects) {
            set(spec, "selector", labels);
        }
        fill(spec, "replicas", 1);
        template::default(spec);
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        let spec = Path::new("spec");
        template::non_negative(object, &spec, "minReadySeconds", errors);
        let selects = map(object, "/spec/selector").next().is_some();
        if !selects {
            errors.required(&spec.child("selector"), "");
        }
        template::non_negative(object, &spec, "replicas", errors);
        let path = spec.child("template");
        let Some(pod) = some(object, "/spec/template") else {
            return errors.required(&path, "");
        };
        let labels = pod.pointer("/metadata/labels");
        if !map(object, "/spec/selector").all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value)) {
            template::mismatch(labels, errors);
        }
        template::validate_template(pod, &path, errors);
        template::validate_endless(pod, "ReplicationController", &path, errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        match part {
            Part::Main => errors.judge_change(new, old, |controller, errors| self.validate(controller, errors)),
            Part::Status => template::validate_replica_status(new, errors),
            Part::Named(_) => {}
        }
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn new_warnings(&self, object: &Value) -> Vec<String> {
        template::name_warning(object).into_iter().collect()
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        template::warnings(object)
    }

    fn update_warnings(&self, new: &Value, old: &Value) -> Vec<String> {
        if template::is_new(new, old) { self.warnings(new) } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(spec: &Value) -> (Value, Vec<String>) {
        let mut controller = json!({"metadata": {"name": "rc"}, "spec": spec});
        ReplicationControllerStrategy.default(&mut controller);
        let mut errors = ErrorList::default();
        ReplicationControllerStrategy.validate(&controller, &mut errors);
        (controller, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn selector_and_labels_come_from_the_template() {
        let template =
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let (controller, complaints) = made(&json!({ "template": template }));
        assert_eq!((&controller["spec"]["selector"], complaints.len()), (&json!({"a": "b"}), 0));
        assert_eq!(controller["metadata"]["labels"], json!({"a": "b"}));
        let (_, complaints) = made(&json!({"selector": {"a": "c"}, "template": template}));
        assert_eq!(
            complaints,
            [
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"
            ]
        );
    }

    #[test]
    fn what_selects_nothing_is_refused() {
        let (_, complaints) = made(&json!({}));
        assert!(complaints.contains(&"spec.selector: Required value".to_owned()), "{complaints:?}");
    }
}
