//! ControllerRevision: a snapshot of a workload's template.

use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, NONE, column};
use crate::kinds::tree::{int, is_true, list, text};
use crate::meta;
use crate::resource::{Descriptor, Idle};
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<ControllerRevision>()
        .idle(Idle::Yet)
        .columns(vec![
            cells::name(),
            column("Controller", "string", "Controller of the object", |o, _| json!(controller(o))),
            column(
                "Revision",
                "string",
                "Revision indicates the revision of the state represented by Data.",
                |o, _| json!(int(o, "/revision").unwrap_or_default()),
            ),
            cells::age(),
        ])
        .no_generation()
        .strategy(ControllerRevisionStrategy)
}

/// `statefulset.apps/web`.
fn controller(revision: &Value) -> String {
    let Some(owner) = list(revision, "/metadata/ownerReferences").iter().find(|o| is_true(o, "/controller")) else {
        return NONE.to_owned();
    };
    let (kind, name) = (text(owner, "/kind").to_lowercase(), text(owner, "/name"));
    match text(owner, "/apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

#[derive(Debug)]
struct ControllerRevisionStrategy;

impl Strategy for ControllerRevisionStrategy {
    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        match object.get("data") {
            None | Some(Value::Null) => errors.required(&Path::new("data"), "data is mandatory"),
            Some(Value::Object(_)) => {}
            Some(other) => errors.invalid(&Path::new("data"), other, "data should be a valid JSON object"),
        }
        match int(object, "/revision") {
            Some(revision) if revision < 0 => {
                let why = "must be greater than or equal to 0";
                errors.invalid(&Path::new("revision"), &json!(revision), why);
            }
            _ => {}
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        self.validate(new, errors);
        meta::immutable(new.get("data"), old.get("data"), &Path::new("data"), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_is_named_with_its_group() {
        let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true});
        assert_eq!(controller(&json!({"metadata": {"ownerReferences": [owner]}})), "statefulset.apps/web");
        assert_eq!(controller(&json!({})), NONE);
    }

    #[test]
    fn data_is_written_once() {
        let mut errors = ErrorList::default();
        let (old, new) = (json!({"data": {"a": 1}}), json!({"data": {"a": 2}}));
        ControllerRevisionStrategy.validate_update(&new, &old, Part::Main, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["data: Invalid value: {\"a\":2}: field is immutable"]
        );
    }
}
