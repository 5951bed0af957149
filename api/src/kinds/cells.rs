//! Columns and cells that several kinds share. What a cell shows is exactly what Kubernetes' API server prints.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::{list, map, text};
use crate::resource::Column;

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
    column("Age", "string", description, |o, now| json!(since(o, "/metadata/creationTimestamp", now)))
}

/// Names, images and selector of a workload whose pods come from `spec.template`.
pub(crate) fn workload() -> [Column; 3] {
    [
        wide("Containers", "Names of each container in the template.", |o, _| json!(joined(o, "name"))),
        wide("Images", "Images referenced by each container in the template.", |o, _| json!(joined(o, "image"))),
        wide("Selector", "A label query over pods.", |o, _| json!(selector(o, "/spec/selector"))),
    ]
}

fn joined(object: &Value, field: &str) -> String {
    let values = list(object, "/spec/template/spec/containers").iter();
    let values: Vec<&str> = values.map(|c| c.get(field).and_then(Value::as_str).unwrap_or_default()).collect();
    values.join(",")
}

/// Time since the timestamp at `pointer`; `<unknown>` if there is none.
pub(crate) fn since(object: &Value, pointer: &str, now: Timestamp) -> String {
    match text(object, pointer).parse::<Timestamp>() {
        Ok(then) => human(now.as_second() - then.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
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

/// Seconds as `kubectl` prints an age: `45s`, `3m20s`, `5h`, `12d`.
pub(crate) fn human(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => two(days, "d", hours % 24, "h"),
        _ if years < 2 => format!("{days}d"),
        _ if years < 8 => two(years, "y", days % 365, "d"),
        _ => format!("{years}y"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_at_most_two_units() {
        for (seconds, shown) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (660, "11m"),
            (3 * 3600 + 60, "3h1m"),
            (8 * 3600, "8h"),
            (48 * 3600, "2d"),
            (49 * 3600, "2d1h"),
            (10 * 86400, "10d"),
            (800 * 86400, "2y70d"),
        ] {
            assert_eq!(human(seconds), shown);
        }
    }

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
