//! RuntimeClass: what runs a pod's containers, and what that costs.

use std::collections::HashSet;

use k8s_openapi::api::node::v1::RuntimeClass;
use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::core::podspec;
use crate::kinds::deprecated;
use crate::kinds::tree::{list, some, text};
use crate::meta::{self, names, push_all};
use crate::resource::Descriptor;
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<RuntimeClass>()
        .columns(vec![
            cells::name(),
            column("Handler", "string", "The runtime that handles pods of this class.", |o, _| {
                json!(text(o, "/handler"))
            }),
            cells::age(),
        ])
        .no_generation()
        .create_on_update()
        .conditional()
        .strategy(RuntimeClassStrategy)
}

#[derive(Debug)]
struct RuntimeClassStrategy;

impl Strategy for RuntimeClassStrategy {
    fn warnings(&self, object: &Value) -> Vec<String> {
        deprecated::of_runtime_class(object)
    }

    fn validate(&self, class: &Value, errors: &mut ErrorList) {
        let handler = text(class, "/handler");
        push_all(errors, &Path::new("handler"), handler, names::dns1123_label(handler));
        if let Some(fixed) = some(class, "/overhead/podFixed") {
            // Told as Kubernetes tells it, which judges it as a container's limits.
            podspec::resources::validate_list(fixed, &Path::new("overhead").child("limits"), errors);
        }
        let path = Path::new("scheduling");
        meta::labels(class.pointer("/scheduling/nodeSelector"), &path.child("nodeSelector"), errors);
        let tolerations = list(class, "/scheduling/tolerations");
        podspec::scheduling::validate_tolerations(tolerations, &path.child("tolerations"), errors);
        let mut seen = HashSet::new();
        for (index, toleration) in tolerations.iter().enumerate() {
            if !seen.insert(toleration) {
                errors.duplicate(&path.child("tolerations").index(index), toleration);
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        meta::immutable(new.get("handler"), old.get("handler"), &Path::new("handler"), errors);
        self.validate(new, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn a_handler_is_a_label_and_never_changes() {
        let judge =
            |handler: &str| complaints(|e| RuntimeClassStrategy.validate(&json!({ "handler": handler }), e)).len();
        assert_eq!((judge("wasm"), judge("Wasm"), judge("")), (0, 1, 1));
        let (old, new) = (json!({"handler": "a"}), json!({"handler": "b"}));
        assert_eq!(
            complaints(|e| RuntimeClassStrategy.validate_update(&new, &old, Part::Main, e)),
            ["handler: Invalid value: \"b\": field is immutable"]
        );
    }

    #[test]
    fn overhead_and_place_are_judged_as_a_pods() {
        let class = json!({"handler": "a", "overhead": {"podFixed": {"memory": "-1"}},
            "scheduling": {"nodeSelector": {"a b": "c"}, "tolerations": [{"operator": "Sometimes", "key": "k"}]}});
        assert_eq!(complaints(|errors| RuntimeClassStrategy.validate(&class, errors)).len(), 3);
    }
}
