//! Event: what happened to an object, for an hour. Acknowledged from memory.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::cells::{column, since, wide};
use crate::kinds::tree::{fill, int, object, some, text};
use crate::resource::{Column, Descriptor};
use crate::strategy::{Part, Strategy};

const SECONDS_KEPT: u32 = 3600;

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
            "source",
            "type",
        ])
        .no_generation()
        .strategy(EventStrategy)
}

fn columns() -> Vec<Column> {
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
            json!(text(o, "/involvedObject/fieldPath"))
        }),
        wide("Source", "The component reporting this event.", |o, _| json!(source(o))),
        column("Message", "string", "A human-readable description of the status of this operation.", |o, _| {
            json!(text(o, "/message").trim())
        }),
        wide("First Seen", "The time at which the event was first recorded.", |o, now| json!(first_seen(o, now))),
        wide("Count", "The number of times this event has occurred.", |o, _| json!(count(o))),
        wide("Name", "Name must be unique within a namespace.", |o, _| json!(text(o, "/metadata/name"))),
    ]
}

fn first_seen(event: &Value, now: Timestamp) -> String {
    let pointer = if some(event, "/firstTimestamp").is_some() { "/firstTimestamp" } else { "/eventTime" };
    since(event, pointer, now)
}

fn last_seen(event: &Value, now: Timestamp) -> String {
    if some(event, "/series").is_some() {
        since(event, "/series/lastObservedTime", now)
    } else if some(event, "/lastTimestamp").is_some() {
        since(event, "/lastTimestamp", now)
    } else {
        first_seen(event, now)
    }
}

fn count(event: &Value) -> i64 {
    match some(event, "/series") {
        Some(series) => int(series, "/count").unwrap_or_default(),
        None => int(event, "/count").filter(|c| *c != 0).unwrap_or(1),
    }
}

fn target(event: &Value) -> String {
    let (kind, name) = (text(event, "/involvedObject/kind").to_lowercase(), text(event, "/involvedObject/name"));
    if name.is_empty() { kind } else { format!("{kind}/{name}") }
}

fn source(event: &Value) -> String {
    let first = |a, b| Some(text(event, a)).filter(|t| !t.is_empty()).unwrap_or_else(|| text(event, b));
    let component = first("/source/component", "/reportingComponent");
    let instance = first("/source/host", "/reportingInstance");
    if instance.is_empty() { component.to_owned() } else { format!("{component}, {instance}") }
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
        let involved = text(object, "/involvedObject/namespace");
        let namespace = text(object, "/metadata/namespace");
        let expected = if involved.is_empty() { "default" } else { involved };
        if namespace != expected && !(involved.is_empty() && namespace == "kube-system") {
            let path = Path::new("involvedObject").child("namespace");
            errors.invalid(&path, &json!(involved), "does not match event.namespace");
        }
        for (field, max) in
            [("reportingComponent", 128), ("reportingInstance", 128), ("reason", 128), ("message", 1024)]
        {
            let value = text(object, &format!("/{field}"));
            if value.len() > max && some(object, "/eventTime").is_some() {
                errors.invalid(&Path::new(field), &json!(""), &format!("can have at most {max} characters"));
            }
        }
    }

    fn validate_update(&self, new: &Value, _old: &Value, _part: Part, errors: &mut ErrorList) {
        self.validate(new, errors);
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
