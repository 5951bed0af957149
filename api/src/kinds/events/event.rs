//! Event of `events.k8s.io`: stored as `v1` Event, under other names and stricter rules.

use k8s_openapi::api::events::v1::Event;
use serde_json::{Map, Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::core::event as core;
use crate::kinds::tree::{int, object, remove, set, some, text};
use crate::meta;
use crate::resource::Descriptor;
use crate::strategy::{Part, Strategy};

/// Names of this version, and those of `v1`.
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];
/// What `v1` writes even when it is empty, and this version does not.
const EMPTY: [&str; 2] = ["reportingComponent", "reportingInstance"];
/// What is written once, by the names of `v1`, which errors carry; `series` alone moves.
const IMMUTABLE: [&str; 12] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingInstance",
];

pub fn descriptor() -> Descriptor {
    Descriptor::of::<Event>()
        .short(&["ev"])
        .relaxed()
        .expires(core::SECONDS_KEPT)
        .create_on_update()
        .columns(core::columns())
        .selectable_as(&[
            ("regarding.kind", "involvedObject.kind"),
            ("regarding.namespace", "involvedObject.namespace"),
            ("regarding.name", "involvedObject.name"),
            ("regarding.uid", "involvedObject.uid"),
            ("regarding.apiVersion", "involvedObject.apiVersion"),
            ("regarding.resourceVersion", "involvedObject.resourceVersion"),
            ("regarding.fieldPath", "involvedObject.fieldPath"),
            ("reason", "reason"),
            ("reportingController", "reportingComponent"),
            ("type", "type"),
        ])
        .no_generation()
        .stored_as(("", "v1"), "events", from_stored, to_stored)
        .strategy(EventStrategy)
}

fn renamed(event: Value, name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(fields) = event else { return event };
    let rename = |(key, value): (String, Value)| (name(&key).map_or(key, str::to_owned), value);
    Value::Object(fields.into_iter().map(rename).collect::<Map<_, _>>())
}

fn from_stored(mut event: Value) -> Value {
    for field in EMPTY {
        if event.get(field).and_then(Value::as_str) == Some("") {
            remove(&mut event, field);
        }
    }
    renamed(event, |key| NAMES.iter().find(|(_, stored)| *stored == key).map(|(ours, _)| *ours))
}

fn to_stored(event: Value) -> Value {
    let mut event = renamed(event, |key| NAMES.iter().find(|(ours, _)| *ours == key).map(|(_, stored)| *stored));
    for field in EMPTY {
        if event.get(field).is_none() {
            set(&mut event, field, "");
        }
    }
    event
}

#[derive(Debug)]
struct EventStrategy;

impl Strategy for EventStrategy {
    fn default(&self, event: &mut Value) {
        object(event, "deprecatedSource");
        object(event, "regarding");
    }

    fn validate(&self, event: &Value, errors: &mut ErrorList) {
        let event = to_stored(event.clone());
        core::validate(&event, errors);
        series(&event, errors);
        if some(&event, "/eventTime").is_none() {
            errors.required(&Path::new("eventTime"), "");
        }
        let kind = text(&event, "/type");
        if !matches!(kind, "Normal" | "Warning") {
            errors.invalid(&Path::new("type"), &json!(""), &format!("has invalid value: {kind}"));
        }
        let count = int(&event, "/count").is_some_and(|c| c != 0);
        let source = !text(&event, "/source/component").is_empty() || !text(&event, "/source/host").is_empty();
        let set = |field: &str| some(&event, &format!("/{field}")).is_some();
        for (field, is_set) in [
            ("firstTimestamp", set("firstTimestamp")),
            ("lastTimestamp", set("lastTimestamp")),
            ("count", count),
            ("source", source),
        ] {
            if is_set {
                errors.invalid(&Path::new(field), &json!(""), "needs to be unset");
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        let (new, old) = (to_stored(new.clone()), to_stored(old.clone()));
        core::validate(&new, errors);
        if new.get("series") != old.get("series") {
            series(&new, errors);
        }
        for field in IMMUTABLE {
            meta::immutable(new.get(field), old.get(field), &Path::new(field), errors);
        }
        let path = Path::new("reportingController");
        meta::immutable(new.get("reportingComponent"), old.get("reportingComponent"), &path, errors);
    }
}

fn series(event: &Value, errors: &mut ErrorList) {
    let Some(series) = some(event, "/series") else { return };
    if int(series, "/count").unwrap_or_default() < 2 {
        errors.invalid(&Path::new("series.count"), &json!(""), "should be at least 2");
    }
    if some(series, "/lastObservedTime").is_none() {
        errors.required(&Path::new("series.lastObservedTime"), "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn event() -> Value {
        json!({"metadata": {"name": "a", "namespace": "n"}, "eventTime": "2026-01-01T00:00:00.000000Z",
            "regarding": {"kind": "Pod", "namespace": "n", "name": "p"}, "deprecatedSource": {}, "note": "hello",
            "reason": "Why", "action": "Do", "type": "Normal", "reportingController": "c", "reportingInstance": "i"})
    }

    #[test]
    fn both_versions_say_the_same() {
        let stored = to_stored(event());
        assert_eq!(
            (&stored["involvedObject"]["name"], &stored["message"], &stored["reportingComponent"], &stored["source"]),
            (&json!("p"), &json!("hello"), &json!("c"), &json!({}))
        );
        assert_eq!(stored.get("regarding"), None);
        assert_eq!(from_stored(stored), event());
        let old = json!({"involvedObject": {}, "source": {"component": "kubelet"}, "reportingComponent": "",
            "reportingInstance": "", "count": 3, "firstTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(to_stored(from_stored(old.clone())), old);
    }

    #[test]
    fn a_new_event_is_complete_and_new() {
        assert!(complaints(|errors| EventStrategy.validate(&event(), errors)).is_empty());
        for (field, value, expected) in [
            ("type", json!("Odd"), "type: Invalid value: \"\": has invalid value: Odd"),
            ("deprecatedCount", json!(3), "count: Invalid value: \"\": needs to be unset"),
            ("action", json!(""), "action: Required value"),
            (
                "series",
                json!({"count": 1, "lastObservedTime": "x"}),
                "series.count: Invalid value: \"\": should be at least 2",
            ),
        ] {
            let mut event = event();
            event[field] = value;
            assert_eq!(complaints(|errors| EventStrategy.validate(&event, errors)), [expected]);
        }
    }

    #[test]
    fn only_its_series_moves() {
        let mut new = event();
        new["series"] = json!({"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"});
        assert!(complaints(|e| EventStrategy.validate_update(&new, &event(), Part::Main, e)).is_empty());
        new["note"] = json!("bye");
        assert_eq!(
            complaints(|e| EventStrategy.validate_update(&new, &event(), Part::Main, e)),
            ["message: Invalid value: \"bye\": field is immutable"]
        );
    }
}
