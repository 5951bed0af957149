//! Templates in kubectl's dialect of JSONPath, which is not that of RFC 9535: text with expressions in braces, `range` and `end`,
//! quoted text, and paths that begin with a dot.

mod parse;

use serde_json::Value;

/// Why a template cannot be used on an object, or at all.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("jsonpath: {0}")]
pub struct TemplateError(String);

/// A template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Node>);

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(String),
    /// The values that a path leads to, with a space between them.
    Values(Vec<Step>),
    /// These once for each of the values.
    Range(Vec<Step>, Vec<Node>),
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// `[*]` and `.*`
    All,
    /// `..`: the value and everything in it.
    Within,
    Index(i64),
    /// `[start:end:step]`
    Slice(Option<i64>, Option<i64>, i64),
    /// `['a','b.c']` and `[0,2]`: all that the first leads to, then the next.
    Each(Vec<Vec<Step>>),
    /// `[?(@.a == "x")]`; without a comparison: `[?(@.a)]`.
    Filter(Operand, Option<(Comparison, Operand)>),
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Value(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Template {
    /// Text with expressions in braces.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        parse::template(text).map(Self)
    }

    /// One path as columns have it: `.a.b`, `a.b` or `{.a.b}`.
    pub fn column(text: &str) -> Result<Self, TemplateError> {
        let path = text.trim();
        let path = path.strip_prefix('{').and_then(|path| path.strip_suffix('}')).unwrap_or(path);
        let dot = if path.starts_with(['.', '[']) { "" } else { "." };
        Self::parse(&format!("{{{dot}{path}}}"))
    }

    /// The text that it makes of an object.
    pub fn fill(&self, object: &Value) -> Result<String, TemplateError> {
        let mut out = String::new();
        fill(&self.0, object, &mut out)?;
        Ok(out)
    }

    /// The texts of the values that it finds.
    pub fn values(&self, object: &Value) -> Result<Vec<String>, TemplateError> {
        let mut all = Vec::new();
        for node in &self.0 {
            if let Node::Values(path) = node {
                all.extend(find(object, path)?.into_iter().map(text));
            }
        }
        Ok(all)
    }
}

fn fill(nodes: &[Node], value: &Value, out: &mut String) -> Result<(), TemplateError> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Values(path) => {
                let texts: Vec<String> = find(value, path)?.into_iter().map(text).collect();
                out.push_str(&texts.join(" "));
            }
            Node::Range(path, inner) => {
                for item in find(value, path)? {
                    fill(inner, item, out)?;
                }
            }
        }
    }
    Ok(())
}

/// A value as it is printed: texts as they are, objects and lists as JSON.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The values that a path leads to; fields that are not there lead nowhere.
fn find<'a>(value: &'a Value, path: &[Step]) -> Result<Vec<&'a Value>, TemplateError> {
    let mut found = vec![value];
    for step in path {
        let mut next = Vec::new();
        if let Step::Each(paths) = step {
            for path in paths {
                for value in &found {
                    next.extend(find(value, path)?);
                }
            }
        } else {
            for value in found {
                take(value, step, &mut next)?;
            }
        }
        found = next;
    }
    Ok(found)
}

fn take<'a>(value: &'a Value, step: &Step, found: &mut Vec<&'a Value>) -> Result<(), TemplateError> {
    match step {
        Step::Field(name) => found.extend(value.get(name)),
        Step::All => found.extend(children(value)),
        Step::Within => within(value, found),
        Step::Index(index) => {
            let Value::Array(items) = value else { return Ok(()) };
            let at = if *index < 0 { index + length(items) } else { *index };
            let item = usize::try_from(at).ok().and_then(|at| items.get(at));
            found.push(item.ok_or_else(|| {
                TemplateError(format!("array index out of bounds: index {index}, length {}", items.len()))
            })?);
        }
        Step::Slice(start, end, by) => {
            let Value::Array(items) = value else { return Ok(()) };
            let bound = |given: Option<i64>, default: i64| {
                let at = given.map_or(default, |at| if at < 0 { at + length(items) } else { at });
                usize::try_from(at.clamp(0, length(items))).unwrap_or(0)
            };
            let (start, end) = (bound(*start, 0), bound(*end, length(items)));
            let by = usize::try_from(*by).unwrap_or(1).max(1);
            found.extend(items.get(start..end).unwrap_or_default().iter().step_by(by));
        }
        Step::Each(_) => {}
        Step::Filter(left, comparison) => {
            for item in value.as_array().into_iter().flatten() {
                if holds(item, left, comparison.as_ref())? {
                    found.push(item);
                }
            }
        }
    }
    Ok(())
}

fn length(items: &[Value]) -> i64 {
    i64::try_from(items.len()).unwrap_or(i64::MAX)
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(map) => Box::new(map.values()),
        _ => Box::new(std::iter::empty()),
    }
}

fn within<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    found.push(value);
    children(value).for_each(|child| within(child, found));
}

fn holds(item: &Value, left: &Operand, comparison: Option<&(Comparison, Operand)>) -> Result<bool, TemplateError> {
    let of = |operand: &Operand| match operand {
        Operand::Value(value) => Ok(Some(value.clone())),
        Operand::Path(path) => Ok(find(item, path)?.first().copied().cloned()),
    };
    let Some((comparison, right)) = comparison else { return Ok(of(left)?.is_some()) };
    let (Some(left), Some(right)) = (of(left)?, of(right)?) else { return Ok(false) };
    let order = match (&left, &right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => left.as_f64().zip(right.as_f64()).map(|(left, right)| left.total_cmp(&right)),
    };
    let equal = order.map_or(left == right, std::cmp::Ordering::is_eq);
    Ok(match comparison {
        Comparison::Equal => equal,
        Comparison::NotEqual => !equal,
        Comparison::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Comparison::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
        Comparison::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        Comparison::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pods() -> Value {
        json!({"kind": "List", "items": [
            {"metadata": {"name": "a", "annotations": {"example.com/x": "1", "b.c": "2"}}, "n": 1, "up": true,
             "list": [10, 20, 30, 40]},
            {"metadata": {"name": "b"}, "n": 2.5, "up": false, "list": []},
        ]})
    }

    fn filled(template: &str) -> Result<String, String> {
        Template::parse(template).and_then(|parsed| parsed.fill(&pods())).map_err(|error| error.to_string())
    }

    #[test]
    fn templates_are_filled_as_kubectl_fills_them() {
        for (template, text) in [
            ("no braces", "no braces"),
            ("{.kind}", "List"),
            ("{$.kind}/{@.kind}", "List/List"),
            ("{.items[*].metadata.name}", "a b"),
            ("{.items[*]['metadata.name', 'n']}", "a b 1 2.5"),
            ("{.items..name}", "a b"),
            (r#"{range .items[*]}{.metadata.name}{"\t"}{.n}{"\n"}{end}"#, "a\t1\nb\t2.5\n"),
            ("{range .items[*]}[{range .list[*]}{@},{end}]{end}", "[10,20,30,40,][]"),
            (r"{.items[0].metadata.annotations.example\.com/x}", "1"),
            (r"{.items[0].metadata.annotations['b\.c']}", "2"),
            ("{.items[0].list[0]} {.items[0].list[-1]}", "10 40"),
            ("{.items[0].list[1:3]}", "20 30"),
            ("{.items[0].list[::2]}", "10 30"),
            ("{.items[0].list[-2:]}", "30 40"),
            ("{.items[0].list[0,2]}", "10 30"),
            (r#"{.items[?(@.metadata.name=="b")].n}"#, "2.5"),
            ("{.items[?(@.n > 1)].metadata.name}", "b"),
            ("{.items[?(@.n<=1)].metadata.name}", "a"),
            ("{.items[?(@.up==true)].metadata.name}", "a"),
            ("{.items[?(@.metadata.name!='a')].metadata.name}", "b"),
            ("{.items[?(@.metadata.annotations)].metadata.name}", "a"),
            ("{.items[1].metadata}", r#"{"name":"b"}"#),
            ("{.nothing.here}", ""),
            ("{.items[0].list}", "[10,20,30,40]"),
            (r#"{'it''s'}{"\"q\""}"#, "its\"q\""),
        ] {
            assert_eq!(filled(template).as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        for (template, told) in [
            ("{.a", "jsonpath: unclosed action"),
            ("{.items[0}", "jsonpath: unterminated array"),
            ("{range .items[*]}{.n}", "jsonpath: range without end"),
            ("{end}", "jsonpath: end without range"),
            ("{\"open}", "jsonpath: unclosed action"),
            ("{.items[x]}", "jsonpath: invalid array index x"),
            ("{.items[?(@.a==)]}", "jsonpath: invalid filter expression @.a=="),
            ("{nonsense}", "jsonpath: unrecognized expression nonsense"),
            ("{.items[7]}", "jsonpath: array index out of bounds: index 7, length 2"),
        ] {
            assert_eq!(filled(template), Err(told.to_owned()), "{template}");
        }
    }

    #[test]
    fn a_column_is_a_path_with_or_without_braces() {
        for path in [".metadata.name", "metadata.name", "{.metadata.name}"] {
            let column = Template::column(path).unwrap();
            assert_eq!(column.values(&pods()["items"][0]).unwrap(), ["a"], "{path}");
        }
        assert!(Template::column(".items[").is_err());
    }

    proptest! {
        #[test]
        fn any_template_ends(template in "[{}\\[\\].a-c'\"*?()@$:,<=!0-9 -]{0,40}") {
            if let Ok(parsed) = Template::parse(&template) {
                let _ = parsed.fill(&json!({"a": [{"b": 1}, {"c": "x"}], "b": {"c": [1, 2, 3]}}));
            }
        }

        #[test]
        fn a_field_is_found_by_any_name(name in "[a-z./-]([a-z./ -]{0,8}[a-z./-])?", text in "[ -~]{0,10}") {
            let object = json!({ &name: text.as_str() });
            let escaped: String = name.chars().flat_map(|c| ['\\', c]).collect();
            for template in [format!("{{['{escaped}']}}"), format!("{{.{escaped}}}")] {
                let filled = Template::parse(&template).and_then(|parsed| parsed.fill(&object));
                prop_assert_eq!(filled.as_deref(), Ok(text.as_str()), "{}", template);
            }
        }

        #[test]
        fn text_without_braces_is_itself(text in "[ -z|~\\n]{0,40}") {
            prop_assert_eq!(Template::parse(&text).and_then(|parsed| parsed.fill(&json!({}))), Ok(text));
        }
    }
}
