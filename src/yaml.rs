//! Objects as YAML, as `kubectl` writes it: readers of YAML 1.1 take a bare time for a time, so it is quoted.

use serde_json::Value;

/// A value's YAML.
pub fn text(value: &Value) -> anyhow::Result<String> {
    // Stands for the quotes: nothing that the value has contains it.
    let mut mark = "TIME".to_owned();
    while value.to_string().contains(&mark) {
        mark.push('X');
    }
    let mut marked = value.clone();
    mark_times(&mut marked, &mark);
    let written = serde_yaml::to_string(&marked)?;
    Ok(written.split_inclusive('\n').map(|line| quoted(line, &mark)).collect())
}

fn mark_times(value: &mut Value, mark: &str) {
    match value {
        Value::String(text) if is_time(text) => *text = format!("{mark}{text}{mark}"),
        Value::Array(items) => items.iter_mut().for_each(|item| mark_times(item, mark)),
        Value::Object(fields) => fields.values_mut().for_each(|field| mark_times(field, mark)),
        _ => {}
    }
}

/// What YAML 1.1 takes for a time.
fn is_time(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && (text.parse::<jiff::Timestamp>().is_ok() || (text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()))
}

fn quoted(line: &str, mark: &str) -> String {
    match line.split_once(mark) {
        Some((before, rest)) => {
            // Should the writer have quoted it already, those quotes will do.
            let quote = if before.ends_with(['"', '\'']) { "" } else { "\"" };
            format!("{before}{quote}{}", rest.replacen(mark, quote, 1))
        }
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_quoted_and_texts_that_have_them_are_not_touched() {
        let value = json!({"a": "2026-01-01T00:00:00Z", "b": ["2026-01-01"], "c": "at: 2026-01-01T00:00:00Z\nTIME\n",
            "d": "2026-01-01T00:00:00.123456Z", "e": "2026", "f": "x"});
        let written = text(&value).unwrap();
        for line in ["a: \"2026-01-01T00:00:00Z\"", "- \"2026-01-01\"", "d: \"2026-01-01T00:00:00.123456Z\"", "f: x"] {
            assert!(written.lines().any(|l| l.trim() == line), "{line} is not in\n{written}");
        }
        assert_eq!(serde_yaml::from_str::<Value>(&written).unwrap(), value);
    }
}
