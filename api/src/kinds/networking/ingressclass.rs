//! IngressClass: which controller serves an Ingress.

use k8s_openapi::api::networking::v1::IngressClass;
use serde_json::{Value, json};

use super::ingress::validate_reference;
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, NONE, column};
use crate::kinds::check::{domain_prefixed, required_one_of};
use crate::kinds::tree::{fill, some, text};
use crate::meta::{self, names, push_all};
use crate::resource::Descriptor;
use crate::strategy::{Part, Strategy};

const MAX_CONTROLLER: usize = 250;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<IngressClass>()
        .columns(vec![
            cells::name(),
            column("Controller", "string", "Controller that is responsible for handling this class", |o, _| {
                json!(text(o, "/spec/controller"))
            }),
            column("Parameters", "string", "A reference to a resource with additional parameters", |o, _| {
                json!(some(o, "/spec/parameters").map_or(NONE.to_owned(), parameters))
            }),
            cells::age(),
        ])
        .strategy(IngressClassStrategy)
}

fn parameters(reference: &Value) -> String {
    let (kind, group, name) = (text(reference, "/kind"), text(reference, "/apiGroup"), text(reference, "/name"));
    if group.is_empty() { format!("{kind}/{name}") } else { format!("{kind}.{group}/{name}") }
}

#[derive(Debug)]
struct IngressClassStrategy;

impl Strategy for IngressClassStrategy {
    fn default(&self, class: &mut Value) {
        if let Some(parameters) = class.pointer_mut("/spec/parameters").filter(|p| p.is_object()) {
            fill(parameters, "scope", "Cluster");
        }
    }

    fn validate(&self, class: &Value, errors: &mut ErrorList) {
        let path = Path::new("spec");
        let controller = text(class, "/spec/controller");
        if controller.len() > MAX_CONTROLLER {
            errors.too_long(&path.child("controller"), MAX_CONTROLLER);
        }
        domain_prefixed(controller, &path.child("controller"), errors);
        if let Some(parameters) = some(class, "/spec/parameters") {
            validate_parameters(parameters, &path.child("parameters"), errors);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        let controller = Path::new("spec").child("controller");
        meta::immutable(new.pointer("/spec/controller"), old.pointer("/spec/controller"), &controller, errors);
        self.validate(new, errors);
    }
}

fn validate_parameters(parameters: &Value, path: &Path, errors: &mut ErrorList) {
    validate_reference(parameters, path, errors);
    required_one_of(parameters, "scope", path, &["Cluster", "Namespace"], errors);
    let namespace = some(parameters, "/namespace").and_then(Value::as_str);
    let path = path.child("namespace");
    match (text(parameters, "/scope"), namespace) {
        ("Namespace", None) => errors.required(&path, "`parameters.scope` is set to 'Namespace'"),
        ("Namespace", Some(namespace)) => push_all(errors, &path, namespace, names::dns1123_label(namespace)),
        ("Cluster", Some(_)) => errors.forbidden(&path, "`parameters.scope` is set to 'Cluster'"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn judge(spec: &Value) -> Vec<String> {
        let mut class = json!({ "spec": spec });
        IngressClassStrategy.default(&mut class);
        complaints(|errors| IngressClassStrategy.validate(&class, errors))
    }

    #[test]
    fn a_controller_is_a_domain_and_a_path() {
        assert!(judge(&json!({"controller": "example.com/a/b"})).is_empty());
        for bad in ["", "example.com", "example.com/", "/a", "Example.com/a"] {
            assert_eq!(judge(&json!({ "controller": bad })).len(), 1, "{bad}");
        }
    }

    #[test]
    fn parameters_are_in_a_namespace_only_if_they_say_so() {
        let with = |more: Value| {
            let parameters = crate::patch::merge::apply(&json!({"kind": "P", "name": "p"}), &more);
            judge(&json!({"controller": "a.b/c", "parameters": parameters}))
        };
        assert!(with(json!({})).is_empty());
        assert!(with(json!({"scope": "Namespace", "namespace": "n"})).is_empty());
        assert_eq!(
            with(json!({"scope": "Namespace"})),
            ["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"]
        );
        assert_eq!(
            with(json!({"namespace": "n"})),
            ["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"]
        );
    }
}
