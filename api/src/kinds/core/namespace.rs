//! Namespace. It is removed only when `spec.finalizers` is empty, which `/finalize` alone may change.

use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::tree::{self, fill, list, set, split_status, text};
use crate::meta::{names, push_all};
use crate::resource::Descriptor;
use crate::strategy::{NameRule, Part, Strategy};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub fn descriptor() -> Descriptor {
    Descriptor::of::<Namespace>()
        .short(&["ns"])
        .verbs(&["create", "delete", "get", "list", "patch", "update", "watch"])
        .status()
        .named("finalize", "Namespace", &["update"])
        .columns(vec![
            cells::name(),
            column("Status", "string", "The status of the namespace", |o, _| json!(text(o, "/status/phase"))),
            cells::age(),
        ])
        .selectable(&["status.phase"])
        .no_generation()
        .strategy(NamespaceStrategy)
}

#[derive(Debug)]
struct NamespaceStrategy;

impl Strategy for NamespaceStrategy {
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"phase": "Active"}));
        if let Some(spec) = tree::object(object, "spec") {
            let ours = Value::from("kubernetes");
            let mut finalizers = list(spec, "/finalizers").to_vec();
            if !finalizers.contains(&ours) {
                finalizers.push(ours);
            }
            set(spec, "finalizers", finalizers);
        }
    }

    fn default(&self, object: &mut Value) {
        let name = text(object, "/metadata/name").to_owned();
        if !name.is_empty()
            && let Some(labels) = tree::object(object, "metadata").and_then(|meta| tree::object(meta, "labels"))
        {
            set(labels, NAME_LABEL, name);
        }
        if let Some(status) = tree::object(object, "status") {
            fill(status, "phase", "Active");
        }
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        let path = Path::new("spec").child("finalizers");
        for finalizer in list(object, "/spec/finalizers").iter().filter_map(Value::as_str) {
            push_all(errors, &path, finalizer, names::qualified_name(finalizer));
            if !finalizer.contains('/') && finalizer != "kubernetes" {
                errors.invalid(
                    &path,
                    &json!(finalizer),
                    "name is neither a standard finalizer name nor is it fully qualified",
                );
            }
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        if part == Part::Main {
            // Only /finalize changes them.
            tree::carry(new, old, "spec");
        }
        split_status(new, old, part);
    }

    fn validate_update(&self, new: &Value, _old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Main {
            return self.validate(new, errors);
        }
        let (phase, path) = (text(new, "/status/phase"), Path::new("status").child("Phase"));
        let deleting = !text(new, "/metadata/deletionTimestamp").is_empty();
        if deleting && phase != "Terminating" {
            errors.invalid(&path, &json!(phase), "may only be 'Terminating' if `deletionTimestamp` is not empty");
        } else if !deleting && phase != "Active" {
            errors.invalid(&path, &json!(phase), "may only be 'Active' if `deletionTimestamp` is empty");
        }
    }

    fn begin_deletion(&self, object: &mut Value) {
        if let Some(status) = tree::object(object, "status") {
            set(status, "phase", "Terminating");
        }
    }

    fn blocks_deletion(&self, object: &Value) -> bool {
        !list(object, "/spec/finalizers").is_empty()
    }

    fn name_rule(&self) -> NameRule {
        NameRule::DnsLabel
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_namespace_is_active_labelled_and_kept_by_a_finalizer() {
        let mut namespace = json!({"metadata": {"name": "a", "labels": {"x": "y"}}});
        NamespaceStrategy.prepare_create(&mut namespace);
        NamespaceStrategy.default(&mut namespace);
        assert_eq!(
            namespace,
            json!({"metadata": {"name": "a", "labels": {"x": "y", "kubernetes.io/metadata.name": "a"}},
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
        );
        assert!(NamespaceStrategy.blocks_deletion(&namespace));
    }

    #[test]
    fn an_update_keeps_the_finalizers() {
        let old = json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let mut new = json!({"spec": {"finalizers": []}});
        NamespaceStrategy.prepare_update(&mut new, &old, Part::Main);
        assert_eq!(new, old);
    }

    #[test]
    fn a_finalizer_is_standard_or_qualified() {
        let mut errors = ErrorList::default();
        NamespaceStrategy.validate(&json!({"spec": {"finalizers": ["kubernetes", "a.b/c", "mine"]}}), &mut errors);
        assert_eq!(errors.iter().count(), 1);
    }
}
