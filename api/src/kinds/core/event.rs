//! Event: what happened to an object, for an hour. Acknowledged from memory.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::cells::{column, since, wide};
use crate::kinds::tree::{fill, int, object, some, text};
use crate::meta::{names, push_all};
use crate::resource::{Column, Descriptor};
use crate::strategy::{Part, Strategy};

pub(crate) const SECONDS_KEPT: u32 = 3600;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<Event>()
        .short(&["ev"])
        .relaxed()
        .expires(SECONDS_KEPT)
        .create_on_update()
        .columns(columns())
        .selectable(&[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "type",
        ])
        .selectable_at("source", "source.component|reportingComponent", "")
        .no_generation()
        .strategy(EventStrategy)
}

/// Of both versions: a cell reads whichever names the event has.
pub(crate) fn columns() -> Vec<Column> {
    vec![
        column(
            "Last Seen",
            "string",
            "The time at which the most recent occurrence of this event was recorded.",
            |o, now| json!(last_seen(o, now)),
        ),
        column(
            "Type",
            "string",
            "Type of this event (Normal, Warning), new types could be added in the future",
            |o, _| json!(text(o, "/type")),
        ),
        column("Reason", "string", "A short, machine understandable string that gives the reason.", |o, _| {
            json!(text(o, "/reason"))
        }),
        column("Object", "string", "The object that this event is about.", |o, _| json!(target(o))),
        wide("Subobject", "The part of the object that this event is about.", |o, _| {
            json!(text(involved(o), "/fieldPath"))
        }),
        wide("Source", "The component reporting this event.", |o, _| json!(source(o))),
        column("Message", "string", "A human-readable description of the status of this operation.", |o, _| {
            json!(either(o, "message", "note").and_then(Value::as_str).unwrap_or_default().trim())
        }),
        wide("First Seen", "The time at which the event was first recorded.", |o, now| json!(first_seen(o, now))),
        wide("Count", "The number of times this event has occurred.", |o, _| json!(count(o))),
        wide("Name", "Name must be unique within a namespace.", |o, _| json!(text(o, "/metadata/name"))),
    ]
}

/// A field by its name in `v1` or in `events.k8s.io/v1`.
fn either<'a>(event: &'a Value, core: &str, other: &str) -> Option<&'a Value> {
    event.get(core).or_else(|| event.get(other)).filter(|v| !v.is_null())
}

fn involved(event: &Value) -> &Value {
    either(event, "involvedObject", "regarding").unwrap_or(&Value::Null)
}

fn first_seen(event: &Value, now: Timestamp) -> String {
    match either(event, "firstTimestamp", "deprecatedFirstTimestamp") {
        Some(first) => since(first, "", now),
        None => since(event, "/eventTime", now),
    }
}

fn last_seen(event: &Value, now: Timestamp) -> String {
    if some(event, "/series").is_some() {
        since(event, "/series/lastObservedTime", now)
    } else if let Some(last) = either(event, "lastTimestamp", "deprecatedLastTimestamp") {
        since(last, "", now)
    } else {
        first_seen(event, now)
    }
}

fn count(event: &Value) -> i64 {
    match some(event, "/series") {
        Some(series) => int(series, "/count").unwrap_or_default(),
        None => either(event, "count", "deprecatedCount").and_then(Value::as_i64).filter(|c| *c != 0).unwrap_or(1),
    }
}

fn target(event: &Value) -> String {
    let (kind, name) = (text(involved(event), "/kind").to_lowercase(), text(involved(event), "/name"));
    if name.is_empty() { kind } else { format!("{kind}/{name}") }
}

fn source(event: &Value) -> String {
    let source = either(event, "source", "deprecatedSource").unwrap_or(&Value::Null);
    let controller = either(event, "reportingComponent", "reportingController").and_then(Value::as_str);
    let first = |own: &'_ str, other: &'_ str| if own.is_empty() { other.to_owned() } else { own.to_owned() };
    let component = first(text(source, "/component"), controller.unwrap_or_default());
    let instance = first(text(source, "/host"), text(event, "/reportingInstance"));
    if instance.is_empty() { component } else { format!("{component}, {instance}") }
}

#[derive(Debug)]
struct EventStrategy;

impl Strategy for EventStrategy {
    fn default(&self, event: &mut Value) {
        object(event, "source");
        for field in ["reportingComponent", "reportingInstance"] {
            fill(event, field, "");
        }
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        validate(object, errors);
    }

    fn validate_update(&self, new: &Value, _old: &Value, _part: Part, errors: &mut ErrorList) {
        self.validate(new, errors);
    }
}

/// Judges what an Event of any version must be, by the names of `v1`. One with an `eventTime` is of the new style.
pub(crate) fn validate(event: &Value, errors: &mut ErrorList) {
    let new_style = some(event, "/eventTime").is_some();
    let (involved, namespace) = (text(event, "/involvedObject/namespace"), text(event, "/metadata/namespace"));
    let fits = match (new_style, involved) {
        (false, "") => matches!(namespace, "" | "default"),
        (false, involved) => involved == namespace,
        (true, "") => matches!(namespace, "default" | "kube-system"),
        (true, _) => true,
    };
    if !fits {
        let path = Path::new("involvedObject").child("namespace");
        errors.invalid(&path, &json!(involved), "does not match event.namespace");
    }
    if !new_style {
        return;
    }
    let controller = text(event, "/reportingComponent");
    if controller.is_empty() {
        errors.required(&Path::new("reportingController"), "");
    }
    push_all(errors, &Path::new("reportingController"), controller, names::qualified_name(controller));
    for (field, max) in [("reportingInstance", 128), ("action", 128), ("reason", 128), ("message", 1024)] {
        let value = text(event, &format!("/{field}"));
        if value.is_empty() && field != "message" {
            errors.required(&Path::new(field), "");
        }
        if value.len() > max {
            errors.invalid(&Path::new(field), &json!(""), &format!("can have at most {max} characters"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(event: &Value) -> Vec<Value> {
        let now = "2026-01-01T01:00:00Z".parse().unwrap_or_default();
        columns()
            .iter()
            .map(|c| match c.cell {
                crate::resource::Cell::Of(cell) => cell(event, now),
                crate::resource::Cell::Path(_) => Value::Null,
            })
            .collect()
    }

    #[test]
    fn a_row_says_what_happened_to_whom_and_when() {
        let event = json!({"metadata": {"name": "p.1"}, "type": "Normal", "reason": "Pulled", "message": "Pulled it\n",
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"},
            "source": {"component": "kubelet", "host": "n1"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:59:50Z", "count": 4});
        let shown = cells(&event);
        assert_eq!(
            Value::from(shown),
            json!([
                "10s",
                "Normal",
                "Pulled",
                "pod/p",
                "spec.containers{a}",
                "kubelet, n1",
                "Pulled it",
                "60m",
                4,
                "p.1"
            ])
        );
    }

    #[test]
    fn an_event_in_the_new_style_is_shown_alike() {
        let event = json!({"eventTime": "2026-01-01T00:59:00.000000Z", "reportingComponent": "scheduler",
            "involvedObject": {"kind": "Node"}});
        let shown = cells(&event);
        assert_eq!(shown[0], json!("60s"));
        assert_eq!((&shown[3], &shown[5], &shown[8]), (&json!("node"), &json!("scheduler"), &json!(1)));
    }

    #[test]
    fn an_event_lives_in_the_namespace_of_its_object() {
        let mut errors = ErrorList::default();
        let event = json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "b"}});
        EventStrategy.validate(&event, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"]
        );
    }
}
