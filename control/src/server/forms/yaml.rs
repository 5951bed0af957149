//! A tree as YAML that every parser reads as the same tree: those of YAML 1.1, which clients in Go and Python use, take
//! more words and digits for something else than text.

use std::fmt::Write as _;

use serde_json::Value;

/// Words that some version of YAML reads as a boolean or as null, in lower case.
const WORDS: [&str; 10] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~"];
/// Bytes of a key from which it is written as an explicit one: parsers look only so far for the colon.
const LONG_KEY: usize = 128;
/// Spaces per level.
const INDENT: usize = 2;

/// The document.
pub(super) fn document(tree: &Value) -> String {
    let mut out = String::new();
    if is_block(tree) {
        block(tree, 0, &mut out);
    } else {
        scalar(tree, 0, &mut out);
        out.push('\n');
    }
    out
}

/// Whether a value takes lines of its own.
fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) => {
            for (index, (key, value)) in map.iter().enumerate() {
                if index > 0 {
                    pad(indent, out);
                }
                if key.len() > LONG_KEY {
                    out.push_str("? ");
                    quoted(key, out);
                    out.push('\n');
                    pad(indent, out);
                } else {
                    quoted(key, out);
                }
                out.push(':');
                // A list in a map stands where the map stands.
                let deeper = if value.is_array() { indent } else { indent + INDENT };
                after_colon(value, deeper, out);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    pad(indent, out);
                }
                out.push_str("- ");
                if is_block(item) {
                    block(item, indent + INDENT, out);
                } else {
                    scalar(item, indent + INDENT, out);
                    out.push('\n');
                }
            }
        }
        other => scalar(other, indent, out),
    }
}

fn after_colon(value: &Value, indent: usize, out: &mut String) {
    if is_block(value) {
        out.push('\n');
        pad(indent, out);
        block(value, indent, out);
    } else {
        out.push(' ');
        scalar(value, indent, out);
        out.push('\n');
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn scalar(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::String(text) if is_literal(text) => literal(text, indent, out),
        Value::String(text) => quoted(text, out),
        // Numbers, words, and what is empty are as in JSON.
        other => {
            // Writing to a String cannot fail.
            let _ = write!(out, "{other}");
        }
    }
}

/// A text in one line: as it is if it cannot be anything else, otherwise as JSON has it, which is YAML too.
fn quoted(text: &str, out: &mut String) {
    if is_plain(text) {
        out.push_str(text);
    } else {
        for c in Value::from(text).to_string().chars() {
            let _ = if is_shown(c) { write!(out, "{c}") } else { write!(out, "\\u{:04X}", u32::from(c)) };
        }
    }
}

/// What YAML takes as it is.
fn is_shown(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
}

fn is_plain(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '/');
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '.' | '-' | '@' | '+');
    begins && text.chars().all(inside) && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Whether a text of several lines can be shown as such.
fn is_literal(text: &str) -> bool {
    let shown = |c: char| c == '\n' || c == '\t' || is_shown(c);
    text.contains('\n') && !text.starts_with([' ', '\t', '\n']) && text.chars().all(shown)
}

fn literal(text: &str, indent: usize, out: &mut String) {
    let indent = indent.max(INDENT);
    let content = text.trim_end_matches('\n');
    out.push_str(match text.len() - content.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    for line in content.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(indent, out);
            out.push_str(line);
        }
    }
    // The caller ends the last line.
    out.extend(text.get(content.len()..).unwrap_or_default().chars().skip(1));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_laid_out_as_people_write_it() {
        let tree = json!({"kind": "Pod", "metadata": {"labels": {"on": "yes", "v": "1.0"}, "name": "a"},
            "spec": {"args": [], "containers": [{"args": ["a b", "-c"], "name": "c"}, {"name": "d", "tty": true}],
            "script": "one\n  two\n", "tail": "x\ny", "zero": 0, "none": null, "lists": [[1, 2], [{}]]}});
        let text = "kind: Pod\nmetadata:\n  labels:\n    \"on\": \"yes\"\n    v: \"1.0\"\n  name: a\nspec:\n  args: []\n  \
            containers:\n  - args:\n    - \"a b\"\n    - \"-c\"\n    name: c\n  - name: d\n    tty: true\n  lists:\n  - - 1\n    \
            - 2\n  - - {}\n  none: null\n  script: |\n    one\n      two\n  tail: |-\n    x\n    y\n  zero: 0\n";
        assert_eq!(document(&tree), text);
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            "[a-z \t\n:#'\"{}\\[\\]|>&*!%@`,?0-9~.-]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z0-9./: -]{0,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(tree in tree()) {
            let text = document(&tree);
            let read: Value = serde_yaml::from_str(&text).map_err(|e| TestCaseError::fail(format!("{e}: {text:?}")))?;
            prop_assert_eq!(read, tree, "{:?}", text);
        }
    }
}
