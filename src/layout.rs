//! Lays an object's fields out for a person: names and values in two columns, deeper levels indented.
//!
//! Names are the API's own, so that what is read can be written into a manifest.

use serde_json::{Map, Value};

/// Spaces that a deeper level begins with.
const INDENT: &str = "  ";
/// A list longer than this has a line per item.
const LINE: usize = 100;

/// Lines that show pairs in two columns; a value of several lines has its further ones below the first.
pub fn pairs(pairs: &[(String, String)]) -> Vec<String> {
    let width = pairs.iter().map(|(name, _)| name.chars().count() + 1).max().unwrap_or(0);
    let mut lines = Vec::new();
    for (name, value) in pairs {
        let name = format!("{name}:");
        for (index, part) in value.split('\n').enumerate() {
            let first = if index == 0 { name.as_str() } else { "" };
            lines.push(format!("{first:<width$}{INDENT}{part}").trim_end().to_owned());
        }
    }
    lines
}

/// The lines one level deeper.
pub fn indented(lines: Vec<String>) -> impl Iterator<Item = String> {
    lines.into_iter().map(|line| format!("{INDENT}{line}"))
}

/// An object's fields: plain ones aligned, then those that have fields of their own. What is null is not shown.
pub fn fields(object: &Map<String, Value>) -> Vec<String> {
    fields_after(Vec::new(), object)
}

/// Like [`fields`], with others before the plain ones, all aligned.
pub fn fields_after(first: Vec<(String, String)>, object: &Map<String, Value>) -> Vec<String> {
    let mut plain = first;
    let mut deep = Vec::new();
    for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
        match short(value) {
            Some(text) => plain.push((name.clone(), text)),
            None => {
                deep.push(format!("{name}:"));
                deep.extend(indented(below(value)));
            }
        }
    }
    let mut lines = pairs(&plain);
    lines.extend(deep);
    lines
}

/// A value on one line, if it is that short.
fn short(value: &Value) -> Option<String> {
    match value {
        Value::Object(object) => object.is_empty().then(|| "{}".to_owned()),
        Value::Array(items) => {
            let texts: Option<Vec<String>> = items.iter().map(scalar).collect();
            let text = texts?.join(", ");
            let text = if items.is_empty() { "[]".to_owned() } else { text };
            (text.chars().count() <= LINE).then_some(text)
        }
        other => scalar(other),
    }
}

/// A string without line breaks, a number or a boolean.
pub fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => (!text.contains('\n')).then(|| text.clone()),
        Value::Object(_) | Value::Array(_) => None,
        other => Some(other.to_string()),
    }
}

/// The lines of a value that stands below its name.
pub fn below(value: &Value) -> Vec<String> {
    match value {
        Value::Object(object) => fields(object),
        Value::Array(items) => items.iter().flat_map(item).collect(),
        Value::String(text) => text.lines().map(str::to_owned).collect(),
        other => vec![other.to_string()],
    }
}

/// An item of a list: its first line is marked.
fn item(value: &Value) -> Vec<String> {
    let lines = short(value).map_or_else(|| below(value), |text| vec![text]);
    let mark = |(index, line): (usize, String)| if index == 0 { format!("- {line}") } else { format!("  {line}") };
    lines.into_iter().enumerate().map(mark).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_fields_are_aligned_and_deep_ones_indented() {
        let value = json!({
            "replicas": 3, "selector": {"matchLabels": {"app": "x"}}, "paused": false, "none": null, "empty": {},
            "args": ["a", "b"], "ports": [{"name": "http", "port": 80}, {"port": 81}], "text": "one\ntwo\n",
        });
        let lines = below(&value).join("\n");
        let deep = &lines;
        // Plain fields come first, in whatever order the object has.
        let mut plain: Vec<&str> = lines.lines().take(4).collect();
        plain.sort_unstable();
        assert_eq!(plain, ["args:      a, b", "empty:     {}", "paused:    false", "replicas:  3"]);
        assert!(deep.contains("selector:\n  matchLabels:\n    app:  x"), "{deep}");
        assert!(deep.contains("ports:\n  - name:  http\n    port:  80\n  - port:  81"), "{deep}");
        assert!(deep.contains("text:\n  one\n  two"), "{deep}");
    }

    #[test]
    fn a_value_of_several_lines_stays_in_its_column() {
        let shown =
            pairs(&[("Name".into(), "a".into()), ("Labels".into(), "x=1\ny=2".into()), ("None".into(), String::new())]);
        assert_eq!(shown, ["Name:    a", "Labels:  x=1", "         y=2", "None:"]);
    }
}
