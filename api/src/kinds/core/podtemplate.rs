//! PodTemplate: a template that is kept for others to use.

use k8s_openapi::api::core::v1::PodTemplate;
use serde_json::{Value, json};

use super::podspec;
use crate::field::{ErrorList, Path};
use crate::kinds::apps::template;
use crate::kinds::cells::{self, column};
use crate::resource::Descriptor;
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    const POD: &str = "/template/spec/containers";
    Descriptor::of::<PodTemplate>()
        .columns(vec![
            cells::name(),
            column("Containers", "string", "Names of each container in the template.", |o, _| {
                json!(cells::joined(o, POD, "name"))
            }),
            column("Images", "string", "Images referenced by each container in the template.", |o, _| {
                json!(cells::joined(o, POD, "image"))
            }),
            column("Pod Labels", "string", "The labels for the pod template.", |o, _| {
                json!(cells::labels(o, "/template/metadata/labels"))
            }),
        ])
        .strategy(PodTemplateStrategy)
}

#[derive(Debug)]
struct PodTemplateStrategy;

impl Strategy for PodTemplateStrategy {
    fn default(&self, object: &mut Value) {
        template::default(object);
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        template::validate_template(object.get("template").unwrap_or(&Value::Null), &Path::new("template"), errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Main {
            errors.judge_change(new, old, |object, errors| self.validate(object, errors));
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        podspec::warnings(object.get("template").unwrap_or(&Value::Null), &Path::new("template"))
    }

    fn update_warnings(&self, new: &Value, old: &Value) -> Vec<String> {
        if template::is_new(new, old) { self.warnings(new) } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_judged_where_it_stands() {
        let mut errors = ErrorList::default();
        PodTemplateStrategy.validate(&json!({"template": {"spec": {"restartPolicy": "Always"}}}), &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(texts.contains(&"template.spec.containers: Required value".to_owned()), "{texts:?}");
    }
}
