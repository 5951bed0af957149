//! Reads templates.

use serde_json::Value;

use super::{Comparison, Node, Operand, Step, TemplateError};

type Parsed<T> = Result<T, TemplateError>;

fn wrong<T>(message: impl Into<String>) -> Parsed<T> {
    Err(TemplateError(message.into()))
}

/// Text and `{…}` by turns.
pub(super) fn template(text: &str) -> Parsed<Vec<Node>> {
    let mut rest = text;
    // What is open: each range's path, and what is before it.
    let mut open: Vec<(Vec<Step>, Vec<Node>)> = Vec::new();
    let mut nodes = Vec::new();
    while let Some((before, after)) = rest.split_once('{') {
        if !before.is_empty() {
            nodes.push(Node::Text(before.to_owned()));
        }
        let end = end_of(after, '}').ok_or(()).or_else(|()| wrong("unclosed action"))?;
        let (inside, after) = after.split_at(end);
        rest = after.get(1..).unwrap_or_default();
        let inside = inside.trim();
        if inside == "end" {
            let Some((path, outer)) = open.pop() else { return wrong("end without range") };
            let inner = std::mem::replace(&mut nodes, outer);
            nodes.push(Node::Range(path, inner));
        } else if let Some(over) = inside.strip_prefix("range ") {
            open.push((path(over.trim())?, std::mem::take(&mut nodes)));
        } else if inside.starts_with(['"', '\'']) {
            nodes.push(Node::Text(quoted(inside)?));
        } else {
            nodes.push(Node::Values(path(inside)?));
        }
    }
    if !rest.is_empty() {
        nodes.push(Node::Text(rest.to_owned()));
    }
    if open.is_empty() { Ok(nodes) } else { wrong("range without end") }
}

/// Where `close` is, quoted text and what a backslash is before left out; a bracket's own brackets, too.
fn end_of(text: &str, close: char) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0_usize);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (_, '\\') => drop(chars.next()),
            (Some(open), c) => quote = Some(open).filter(|open| *open != c),
            (None, '"' | '\'') => quote = Some(c),
            (None, c) if c == close && depth == 0 => return Some(at),
            (None, '[') if close == ']' => depth += 1,
            (None, ']') if close == ']' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// One or more quoted texts, one after the other.
fn quoted(mut text: &str) -> Parsed<String> {
    let mut all = String::new();
    while let Some(quote) = text.chars().next() {
        let Some(rest) = text.strip_prefix(['"', '\'']) else {
            return wrong(format!("unrecognized expression {text}"));
        };
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next() {
                None => return wrong("unterminated quoted text"),
                Some((at, c)) if c == quote => break at + 1,
                Some((_, '\\')) => match chars.next() {
                    Some((_, 'n')) => all.push('\n'),
                    Some((_, 't')) => all.push('\t'),
                    Some((_, 'r')) => all.push('\r'),
                    Some((_, other)) => all.push(other),
                    None => return wrong("unterminated quoted text"),
                },
                Some((_, c)) => all.push(c),
            }
        };
        text = rest.get(end..).unwrap_or_default().trim_start();
    }
    Ok(all)
}

/// `.a['b'][0]..c`, where `$` and `@` are where one is.
fn path(text: &str) -> Parsed<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = text.trim().trim_start_matches(['$', '@']);
    if !rest.is_empty() && !rest.starts_with(['.', '[']) {
        return wrong(format!("unrecognized expression {text}"));
    }
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = end_of(after, ']').ok_or(()).or_else(|()| wrong("unterminated array"))?;
            let (inside, after) = after.split_at(end);
            steps.extend(bracket(inside.trim())?);
            rest = after.get(1..).unwrap_or_default();
            continue;
        }
        let after = match rest.strip_prefix("..") {
            Some(after) => {
                steps.push(Step::Within);
                after
            }
            None => rest.strip_prefix('.').unwrap_or(rest),
        };
        let (name, after) = field(after);
        match name.as_str() {
            "" if after.len() == rest.len() => return wrong(format!("unrecognized expression {text}")),
            "" => {}
            "*" => steps.push(Step::All),
            _ => steps.push(Step::Field(name)),
        }
        rest = after;
    }
    Ok(steps)
}

/// A field's name; a backslash keeps the character after it.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (name, text.get(at..).unwrap_or_default()),
            c => name.push(c),
        }
    }
    (name, "")
}

/// What is between brackets.
fn bracket(inside: &str) -> Parsed<Vec<Step>> {
    if inside == "*" {
        return Ok(vec![Step::All]);
    }
    if let Some(filter) = inside.strip_prefix("?(").and_then(|filter| filter.strip_suffix(')')) {
        return self::filter(filter).map(|filter| vec![filter]);
    }
    let mut each = parts(inside).into_iter().map(|part| one(part.trim())).collect::<Parsed<Vec<_>>>()?;
    Ok(if each.len() == 1 { each.remove(0) } else { vec![Step::Each(each)] })
}

/// Parts between commas that are not quoted.
fn parts(text: &str) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some((part, after)) = end_of(rest, ',').and_then(|at| Some((rest.get(..at)?, rest.get(at + 1..)?))) {
        found.push(part);
        rest = after;
    }
    found.push(rest);
    found
}

/// `'path'`, `3` or `1:3`.
fn one(text: &str) -> Parsed<Vec<Step>> {
    for quote in ['\'', '"'] {
        if let Some(name) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return path(&format!(".{name}"));
        }
    }
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        digits => digits.parse().map(Some).or_else(|_| wrong(format!("invalid array index {digits}"))),
    };
    let mut bounds = text.split(':');
    let start = number(bounds.next().unwrap_or_default())?;
    let Some(end) = bounds.next() else {
        return start.map(|at| vec![Step::Index(at)]).ok_or(()).or_else(|()| wrong("invalid array index"));
    };
    let (end, by) = (number(end)?, number(bounds.next().unwrap_or_default())?.unwrap_or(1));
    if by < 1 || bounds.next().is_some() {
        return wrong(format!("invalid array index {text}"));
    }
    Ok(vec![Step::Slice(start, end, by)])
}

const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

fn filter(text: &str) -> Parsed<Step> {
    let invalid = |_| TemplateError(format!("invalid filter expression {text}"));
    let first = (0..text.len()).find_map(|at| {
        let rest = text.get(at..)?;
        let (sign, comparison) = COMPARISONS.iter().find(|(sign, _)| rest.starts_with(sign))?;
        Some((text.get(..at)?, *comparison, rest.get(sign.len()..)?))
    });
    let Some((left, comparison, right)) = first else {
        return Ok(Step::Filter(operand(text).map_err(invalid)?, None));
    };
    let (left, right) = (operand(left).map_err(invalid)?, operand(right).map_err(invalid)?);
    Ok(Step::Filter(left, Some((comparison, right))))
}

fn operand(text: &str) -> Parsed<Operand> {
    let text = text.trim();
    if text.starts_with(['@', '.', '$']) {
        return path(text).map(Operand::Path);
    }
    if text.starts_with(['"', '\'']) {
        return quoted(text).map(|text| Operand::Value(Value::String(text)));
    }
    let value = serde_json::from_str::<Value>(text).ok().filter(|value| value.is_number() || value.is_boolean());
    value.map(Operand::Value).ok_or(()).or_else(|()| wrong(format!("unrecognized expression {text}")))
}
