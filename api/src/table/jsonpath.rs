//! The JSONPath of printer columns: fields, quoted fields, indexes, `[*]` and one comparison as a filter.
//!
//! What it does not know finds nothing, so a wrong path is an empty cell.

use serde_json::Value;

/// One step of a path.
#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// `[?(@.field == "value")]`, or `!=`.
    Filter {
        path: Vec<Step>,
        equal: bool,
        value: Value,
    },
}

/// All values that `path` (`.a.b[0]`, `{.a}`) leads to, in document order.
pub(super) fn find<'a>(root: &'a Value, path: &str) -> Vec<&'a Value> {
    let path = path.trim();
    let path = path.strip_prefix('{').and_then(|p| p.strip_suffix('}')).unwrap_or(path);
    let path = path.strip_prefix('$').unwrap_or(path);
    match parse(path) {
        Some(steps) => walk(root, &steps),
        None => Vec::new(),
    }
}

fn walk<'a>(root: &'a Value, steps: &[Step]) -> Vec<&'a Value> {
    let mut found = vec![root];
    for step in steps {
        found = found.into_iter().flat_map(|value| apply(value, step)).collect();
    }
    found
}

fn apply<'a>(value: &'a Value, step: &Step) -> Vec<&'a Value> {
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Index(index) => {
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            let index = if *index < 0 { i64::try_from(items.len()).unwrap_or(0) + index } else { *index };
            usize::try_from(index).ok().and_then(|i| items.get(i)).into_iter().collect()
        }
        Step::All => children(value),
        Step::Filter { path, equal, value: wanted } => {
            let holds = |item: &&'a Value| {
                let found = walk(item, path);
                found.first().is_some_and(|v| same(v, wanted) == *equal)
            };
            children(value).into_iter().filter(holds).collect()
        }
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

/// Equality that does not tell 1 from 1.0.
fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a.total_cmp(&b).is_eq())
}

fn parse(mut text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    while !text.is_empty() {
        if let Some(rest) = text.strip_prefix('[') {
            let end = closing(rest)?;
            let (inside, rest) = rest.split_at(end);
            steps.push(bracket(inside.trim())?);
            text = rest.get(1..)?;
        } else {
            let rest = text.strip_prefix('.').unwrap_or(text);
            let (name, rest) = field(rest)?;
            match name.as_str() {
                "" => {}
                "*" => steps.push(Step::All),
                _ => steps.push(Step::Field(name)),
            }
            if rest.len() == text.len() {
                return None;
            }
            text = rest;
        }
    }
    Some(steps)
}

/// A field name up to a dot or bracket; a backslash keeps the character that follows (`.a\.b`).
fn field(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next()?.1),
            '.' | '[' => return Some((name, text.get(at..)?)),
            other => name.push(other),
        }
    }
    Some((name, ""))
}

/// Where the bracket closes, quotes and inner brackets skipped.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0_usize, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(inside: &str) -> Option<Step> {
    if inside == "*" {
        return Some(Step::All);
    }
    if let Some(Value::String(name)) = literal(inside) {
        return Some(Step::Field(name));
    }
    let Some(filter) = inside.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) else {
        return inside.parse().ok().map(Step::Index);
    };
    let (left, right, equal) = match filter.split_once("!=") {
        Some((left, right)) => (left, right, false),
        None => filter.split_once("==").map(|(left, right)| (left, right, true))?,
    };
    let path = parse(left.trim().strip_prefix('@')?)?;
    Some(Step::Filter { path, equal, value: literal(right.trim())? })
}

/// A quoted text, a number, or a boolean.
fn literal(text: &str) -> Option<Value> {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote)) {
            return Some(Value::String(inner.to_owned()));
        }
    }
    serde_json::from_str(text).ok().filter(|v: &Value| !v.is_object() && !v.is_array())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_find_what_kubernetes_columns_use() {
        let object = json!({"a": {"b.c": 1, "d": [10, 20, 30]}, "l": [{"n": "x", "v": 1}, {"n": "y", "v": 2}]});
        for (path, wanted) in [
            (".a.d[1]", json!([20])),
            (".a.d[-1]", json!([30])),
            (".a.d[*]", json!([10, 20, 30])),
            (".a['b.c']", json!([1])),
            (r".a.b\.c", json!([1])),
            ("{.l[?(@.n=='y')].v}", json!([2])),
            (r#".l[?(@.n != "y")].v"#, json!([1])),
            (".l[*].n", json!(["x", "y"])),
            (".nothing.here", json!([])),
            (".l[", json!([])),
            (".a.d[x]", json!([])),
        ] {
            let found: Value = find(&object, path).into_iter().cloned().collect();
            assert_eq!(found, wanted, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_path_ends(path in "[.a-c\\[\\]?()@='\"*0-9\\\\-]{0,30}") {
            let object = json!({"a": [{"b": 1}], "b": {"c": "x"}});
            prop_assert!(find(&object, &path).len() <= 8);
        }
    }
}
