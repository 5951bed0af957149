//! FlowSchema: which requests belong to which priority level, and which of them are one flow.

use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use serde_json::{Value, json};

use super::{mandatory, rules, status};
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, NONE, column};
use crate::kinds::check::{required_one_of, subdomain};
use crate::kinds::tree::{int, list, object, set, some, split_status, text};
use crate::resource::{Column, Descriptor, WRITABLE_METADATA};
use crate::strategy::{Part, Strategy};

const MAX_PRECEDENCE: i64 = 10_000;
const DEFAULT_PRECEDENCE: i64 = 1000;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<FlowSchema>()
        .status()
        .status_keeps(WRITABLE_METADATA)
        .columns(columns())
        .strategy(FlowSchemaStrategy)
}

fn columns() -> Vec<Column> {
    vec![
        cells::name(),
        column("PriorityLevel", "string", "The priority level of the requests.", |o, _| {
            json!(text(o, "/spec/priorityLevelConfiguration/name"))
        }),
        column("MatchingPrecedence", "string", "Which schema is tried first.", |o, _| {
            json!(int(o, "/spec/matchingPrecedence").unwrap_or_default())
        }),
        column("DistinguisherMethod", "string", "What makes requests one flow.", |o, _| {
            let method = text(o, "/spec/distinguisherMethod/type");
            json!(if method.is_empty() { NONE } else { method })
        }),
        cells::age(),
        column("MissingPL", "string", "Whether the priority level is missing.", |o, _| json!(missing(o))),
    ]
}

fn missing(schema: &Value) -> &str {
    let dangling = list(schema, "/status/conditions").iter().find(|c| text(c, "/type") == "Dangling");
    dangling.map_or("?", |condition| text(condition, "/status"))
}

#[derive(Debug)]
struct FlowSchemaStrategy;

impl Strategy for FlowSchemaStrategy {
    fn default(&self, schema: &mut Value) {
        let Some(spec) = object(schema, "spec") else { return };
        if int(spec, "/matchingPrecedence").is_none_or(|p| p == 0) {
            set(spec, "matchingPrecedence", DEFAULT_PRECEDENCE);
        }
    }

    fn validate(&self, schema: &Value, errors: &mut ErrorList) {
        let (spec, path) = (schema.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
        let precedence = int(spec, "/matchingPrecedence").unwrap_or_default();
        let mut refuse = |why: &str| errors.invalid(&path.child("matchingPrecedence"), &json!(precedence), why);
        if precedence <= 0 {
            refuse("must be a positive value");
        }
        if precedence > MAX_PRECEDENCE {
            refuse(&format!("must not be greater than {MAX_PRECEDENCE}"));
        }
        if precedence == 1 && text(schema, "/metadata/name") != "exempt" {
            refuse("only the schema named 'exempt' may have matchingPrecedence 1");
        }
        if let Some(method) = some(spec, "/distinguisherMethod") {
            required_one_of(method, "type", &path.child("distinguisherMethod"), &["ByNamespace", "ByUser"], errors);
        }
        let level = path.child("priorityLevelConfiguration");
        match text(spec, "/priorityLevelConfiguration/name") {
            "" => errors.required(&level.child("name"), "must reference a priority level"),
            _ => {
                subdomain(spec.get("priorityLevelConfiguration").unwrap_or(&Value::Null), "name", &level, errors);
            }
        }
        for (index, rule) in list(spec, "/rules").iter().enumerate() {
            rules::validate(rule, &path.child("rules").index(index), errors);
        }
        mandatory::validate_schema(schema, errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
    }

    fn validate_update(&self, new: &Value, _old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Main {
            self.validate(new, errors);
        }
        status::validate(new, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn a_schema_has_a_place_and_a_level() {
        let judge = |name: &str, spec: Value| {
            let mut schema = json!({"metadata": {"name": name}, "spec": spec});
            FlowSchemaStrategy.default(&mut schema);
            complaints(|errors| FlowSchemaStrategy.validate(&schema, errors))
        };
        let level = json!({"name": "workload-low"});
        assert!(judge("a", json!({"priorityLevelConfiguration": level})).is_empty());
        assert_eq!(
            judge("a", json!({"matchingPrecedence": 1})),
            [
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
            ]
        );
        assert_eq!(judge("a", json!({"priorityLevelConfiguration": level, "matchingPrecedence": 10_001})).len(), 1);
        assert_eq!(
            judge("a", json!({"priorityLevelConfiguration": level, "distinguisherMethod": {"type": "ByDay"}})).len(),
            1
        );
    }
}
