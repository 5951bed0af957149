//! Columns and cells that several kinds share. What a cell shows is exactly what Kubernetes' API server prints.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::{int, list, map, text};
use crate::object::parse_time;
use crate::resource::Column;
use crate::table;

/// How a cell is made.
pub(crate) type CellFn = fn(&Value, Timestamp) -> Value;

/// What is shown for nothing.
pub(crate) const NONE: &str = "<none>";

/// A column that is always shown.
pub(crate) fn column(name: &'static str, kind: &'static str, description: &'static str, cell: CellFn) -> Column {
    Column::new(name, kind, cell).describe(description)
}

/// A string column that `-o wide` adds.
pub(crate) fn wide(name: &'static str, description: &'static str, cell: CellFn) -> Column {
    column(name, "string", description, cell).wide()
}

/// The first column.
pub(crate) fn name() -> Column {
    let description = "Name must be unique within a namespace. Is required when creating resources, although some \
                       resources may allow a client to request the generation of an appropriate name automatically. \
                       Name is primarily intended for creation idempotence and configuration definition. Cannot be \
                       updated.";
    column("Name", "string", description, |o, _| json!(text(o, "/metadata/name"))).format("name")
}

/// Time since creation.
pub(crate) fn age() -> Column {
    let description = "CreationTimestamp is a timestamp representing the server time when this object was created.";
    column("Age", "string", description, table::age)
}

/// When it was created.
pub(crate) fn created_at() -> Column {
    let description = "CreationTimestamp is a timestamp representing the server time when this object was created.";
    column("Created At", "date", description, |o, _| json!(text(o, "/metadata/creationTimestamp")))
}

/// Time since creation, as a custom resource's table has it.
pub(crate) fn age_date() -> Column {
    Column { kind: "date", ..age() }
}

/// Names, images and selector of a workload whose pods come from `spec.template`.
pub(crate) fn workload() -> [Column; 3] {
    let [containers, images] = containers();
    [containers, images, wide("Selector", "A label query over pods.", |o, _| json!(selector(o, "/spec/selector")))]
}

/// Names and images of a workload whose pods come from `spec.template`.
pub(crate) fn containers() -> [Column; 2] {
    const POD: &str = "/spec/template/spec/containers";
    [
        wide("Containers", "Names of each container in the template.", |o, _| json!(joined(o, POD, "name"))),
        wide("Images", "Images referenced by each container in the template.", |o, _| json!(joined(o, POD, "image"))),
    ]
}

/// One field of each container in the list at `pointer`.
pub(crate) fn joined(object: &Value, pointer: &str, field: &str) -> String {
    let values = list(object, pointer).iter();
    let values: Vec<&str> = values.map(|c| c.get(field).and_then(Value::as_str).unwrap_or_default()).collect();
    values.join(",")
}

/// A number that is absent at zero.
pub(crate) fn count(object: &Value, pointer: &str) -> Value {
    json!(int(object, pointer).unwrap_or_default())
}

/// Time since the timestamp at `pointer`; `<unknown>` if there is none.
pub(crate) fn since(object: &Value, pointer: &str, now: Timestamp) -> String {
    table::since(parse_time(text(object, pointer)), now)
}

/// A map as `k=v,k2=v2`.
pub(crate) fn labels(object: &Value, pointer: &str) -> String {
    let all: Vec<String> =
        map(object, pointer).map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    if all.is_empty() { NONE.to_owned() } else { all.join(",") }
}

/// A `metav1.LabelSelector` in its string form, sorted by key.
pub(crate) fn selector(object: &Value, pointer: &str) -> String {
    let mut parts: Vec<(String, String)> = map(object, &format!("{pointer}/matchLabels"))
        .map(|(k, v)| (k.clone(), format!("{k}={}", v.as_str().unwrap_or_default())))
        .collect();
    for expression in list(object, &format!("{pointer}/matchExpressions")) {
        let key = text(expression, "/key");
        let mut values: Vec<&str> = list(expression, "/values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let part = match text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        };
        parts.push((key.to_owned(), part));
    }
    parts.sort();
    let parts: Vec<String> = parts.into_iter().map(|(_, part)| part).collect();
    if parts.is_empty() { NONE.to_owned() } else { parts.join(",") }
}

/// `a,b,c + 2 more...` of `total` things.
pub(crate) fn with_more(shown: &[String], total: usize) -> String {
    let joined = shown.join(",");
    match total.saturating_sub(shown.len()) {
        0 if joined.is_empty() => NONE.to_owned(),
        0 => joined,
        more => format!("{joined} + {more} more..."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_sorted_by_key() {
        let object = json!({"s": {"matchLabels": {"z": "1"}, "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "b", "operator": "DoesNotExist"}]}});
        assert_eq!(selector(&object, "/s"), "a in (x,y),!b,z=1");
        assert_eq!(selector(&object, "/none"), NONE);
    }

    #[test]
    fn a_long_list_says_how_many_more() {
        let shown: Vec<String> = ["a", "b"].map(str::to_owned).into();
        assert_eq!(with_more(&shown, 2), "a,b");
        assert_eq!(with_more(&shown, 5), "a,b + 3 more...");
        assert_eq!(with_more(&[], 0), NONE);
    }
}
