//! Server-printed tables: `meta.k8s.io/v1` Table.
//!
//! A row is made from one object at a time; nothing here sees a list.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object;
use crate::resource::{Cell, Column, Descriptor};

mod jsonpath;

/// `includeObject` of table options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    #[default]
    Metadata,
    Object,
    None,
}

impl IncludeObject {
    /// The query parameter's value; `None` if it is not one of them.
    pub fn from_query(text: &str) -> Option<Self> {
        match text {
            "" | "Metadata" => Some(Self::Metadata),
            "Object" => Some(Self::Object),
            "None" => Some(Self::None),
            _ => None,
        }
    }
}

const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources \
may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation \
idempotence and configuration definition. Cannot be updated.";
const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created.";

/// The columns of a kind that names none.
fn default_columns() -> Vec<Column> {
    let created = |o: &Value, _: Timestamp| json!(object::meta_str(o, "creationTimestamp"));
    vec![
        Column::new("Name", "string", |o, _| json!(object::name(o))).format("name").describe(NAME),
        Column::new("Created At", "date", created).describe(CREATED),
    ]
}

/// The Table's `columnDefinitions`.
pub fn columns(resource: &Descriptor) -> Value {
    let define = |c: &Column| json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority});
    if resource.columns.is_empty() {
        return default_columns().iter().map(define).collect();
    }
    resource.columns.iter().map(define).collect()
}

/// One row of the Table for one object.
pub fn row(resource: &Descriptor, object: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let cells: Value = if resource.columns.is_empty() {
        default_columns().iter().map(|column| cell(column, object, now)).collect()
    } else {
        resource.columns.iter().map(|column| cell(column, object, now)).collect()
    };
    let shown = match include {
        IncludeObject::Metadata => partial(object),
        IncludeObject::Object => object.clone(),
        IncludeObject::None => Value::Null,
    };
    json!({"cells": cells, "object": shown})
}

/// An object's `PartialObjectMetadata`.
pub fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").unwrap_or(&Value::Null),
    })
}

fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    match &column.cell {
        Cell::Of(make) => make(object, now),
        Cell::Path(path) => typed(column.kind, &jsonpath::find(object, path), now),
    }
}

/// What a JSONPath found, as a value of the column's type; null if there is none.
fn typed(kind: &str, found: &[&Value], now: Timestamp) -> Value {
    let Some(first) = found.first().copied().filter(|v| !v.is_null()) else { return Value::Null };
    match kind {
        "integer" => first.as_i64().map_or(Value::Null, Value::from),
        "number" => first.as_f64().map_or(Value::Null, Value::from),
        "boolean" => first.as_bool().map_or(Value::Null, Value::from),
        "date" => first.as_str().map_or(Value::Null, |text| since(object::parse_time(text), now).into()),
        _ => {
            let texts: Vec<String> =
                found.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
            texts.join(" ").into()
        }
    }
}

/// The `Age` cell: time since creation.
pub fn age(object: &Value, now: Timestamp) -> Value {
    since(object::creation_timestamp(object), now).into()
}

/// Time since `then` as Kubernetes prints it; `<unknown>` if there is none.
pub fn since(then: Option<Timestamp>, now: Timestamp) -> String {
    then.map_or_else(|| "<unknown>".to_owned(), |then| human_duration(now.as_second() - then.as_second()))
}

/// A number of seconds as `duration.HumanDuration` prints it: two units while the first is small, then one.
pub fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s, MINUTE, "m", 1, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s, HOUR, "h", MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s, DAY, "d", HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(s, YEAR, "y", DAY, "d"),
        s => format!("{}y", s / YEAR),
    }
}

/// `seconds` in a unit and the rest in a smaller one, which is left out at zero.
fn two(seconds: i64, unit: i64, name: &str, small: i64, small_name: &str) -> String {
    match seconds % unit / small {
        0 => format!("{}{name}", seconds / unit),
        rest => format!("{}{name}{rest}{small_name}", seconds / unit),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    #[test]
    fn durations_are_printed_as_kubectl_shows_them() {
        for (seconds, wanted) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (10_860, "3h1m"),
            (28_799, "7h59m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (691_200, "8d"),
            (63_071_999, "729d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(human_duration(seconds), wanted, "{seconds}");
        }
    }

    #[test]
    fn a_kind_without_columns_shows_name_and_creation() {
        let resource = Descriptor::of::<ConfigMap>();
        let object =
            json!({"metadata": {"name": "a", "creationTimestamp": "2024-01-01T00:00:00Z"}, "data": {"k": "v"}});
        let row = row(&resource, &object, IncludeObject::Metadata, Timestamp::UNIX_EPOCH);
        assert_eq!(row["cells"], json!(["a", "2024-01-01T00:00:00Z"]));
        assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
        assert!(row["object"].get("data").is_none());
    }

    #[test]
    fn columns_by_path_are_typed() {
        let resource = Descriptor::of::<ConfigMap>().columns(vec![
            Column::path("Replicas", "integer", ".spec.replicas"),
            Column::path("Ready", "string", r#".status.conditions[?(@.type=="Ready")].status"#),
            Column::path("Since", "date", ".metadata.creationTimestamp"),
            Column::path("Absent", "string", ".spec.nothing"),
        ]);
        let object = json!({"spec": {"replicas": 3}, "metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"},
            "status": {"conditions": [{"type": "Other", "status": "a"}, {"type": "Ready", "status": "True"}]}});
        let now = "2024-01-01T01:00:00Z".parse().unwrap();
        let row = row(&resource, &object, IncludeObject::None, now);
        assert_eq!(row["cells"], json!([3, "True", "60m", null]));
        assert!(row["object"].is_null());
    }
}
