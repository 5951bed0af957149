//! Functions of texts. Positions count characters.

use std::cell::RefCell;
use std::collections::VecDeque;

use regex::Regex;

use super::super::value::{ELEMENT, Text, Val, number_text};
use super::super::{Budget, EvalError, MAX_TEXT};
use super::{Result, int, length, shown_duration, str};
use crate::schema::structural::pattern;

/// A text that an expression made, if it is not too long.
pub fn made<'a>(text: String) -> Result<'a> {
    if text.len() > MAX_TEXT { Err(EvalError::Cost) } else { Ok(Val::from(text)) }
}

pub fn call<'a>(name: &str, args: &[Val<'a>], budget: &mut Budget) -> Option<Result<'a>> {
    let (Val::String(text), rest) = args.split_first()? else { return None };
    let second = rest.first().and_then(str);
    Some(match (name, rest.len()) {
        ("size", 0) => length(text.chars().count()),
        ("contains", 1) => Ok(Val::Bool(text.contains(&**second?))),
        ("startsWith", 1) => Ok(Val::Bool(text.starts_with(&**second?))),
        ("endsWith", 1) => Ok(Val::Bool(text.ends_with(&**second?))),
        ("matches", 1) => regex(second?).map(|regex| Val::Bool(regex.is_match(text))),
        ("find", 1) => regex(second?).and_then(|regex| made(regex.find(text).map_or("", |m| m.as_str()).to_owned())),
        ("findAll", 1 | 2) => find_all(text, second?, rest.get(1).and_then(int), budget),
        ("charAt", 1) => char_at(text, int(rest.first()?)?),
        ("indexOf" | "lastIndexOf", 1 | 2) => position(name, text, second?, rest.get(1).and_then(int)),
        ("lowerAscii", 0) => made(text.to_ascii_lowercase()),
        ("upperAscii", 0) => made(text.to_ascii_uppercase()),
        ("trim", 0) => made(text.trim().to_owned()),
        ("reverse", 0) => made(text.chars().rev().collect()),
        ("strings.quote", 0) => made(format!("{:?}", &**text)),
        ("replace", 2 | 3) => replace(text, second?, str(rest.get(1)?)?, rest.get(2).and_then(int)),
        ("split", 1 | 2) => Ok(split(text, second?, rest.get(1).and_then(int))),
        ("substring", 1 | 2) => substring(text, int(rest.first()?)?, rest.get(1).and_then(int)),
        ("jsonpatch.escapeKey", 0) => made(text.replace('~', "~0").replace('/', "~1")),
        ("format", 1) => match rest.first()? {
            Val::List(list) => format(text, &list.iter().collect::<Vec<_>>()),
            _ => return None,
        },
        _ => return None,
    })
}

thread_local! {
    /// The expressions that this thread has compiled last: a rule asks the same of each item of a list, and compiling costs a
    /// thousand times what it is charged. Bound: [`KEPT`], each of [`pattern::MAX_SIZE`] at most.
    static COMPILED: RefCell<VecDeque<(String, Regex)>> = const { RefCell::new(VecDeque::new()) };
}

/// Expressions that a thread keeps.
const KEPT: usize = 16;

fn regex(source: &Text<'_>) -> std::result::Result<Regex, EvalError> {
    let source: &str = source;
    COMPILED.with_borrow_mut(|kept| {
        if let Some((_, known)) = kept.iter().find(|(text, _)| text == source) {
            return Ok(known.clone());
        }
        let compiled = pattern::compile(source);
        let compiled = compiled.map_err(|error| EvalError::other(format!("error parsing regexp: {error}")))?;
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((source.to_owned(), compiled.clone()));
        Ok(compiled)
    })
}

fn find_all<'a>(text: &str, source: &Text<'_>, limit: Option<i64>, budget: &mut Budget) -> Result<'a> {
    let most = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let mut found: Vec<Val<'a>> = Vec::new();
    for part in regex(source)?.find_iter(text).take(most) {
        budget.make(PART.saturating_add(part.len()))?;
        found.push(Val::from(part.as_str().to_owned()));
    }
    Ok(found.into())
}

/// What a part of a text takes beside its bytes: it is allocated, and counts its users.
const PART: usize = ELEMENT + 32;

/// Bytes of the parts of a text that is split.
pub fn parts(text: &str, separator: &str, limit: Option<i64>) -> usize {
    let count = if separator.is_empty() { text.chars().count() } else { text.matches(separator).count() + 1 };
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    count.min(limit).saturating_mul(PART).saturating_add(text.len())
}

fn bounds(index: i64) -> EvalError {
    EvalError::other(format!("index out of range: {index}"))
}

fn char_at<'a>(text: &str, index: i64) -> Result<'a> {
    let at = usize::try_from(index).map_err(|_| bounds(index))?;
    match text.chars().nth(at) {
        Some(c) => made(c.to_string()),
        None if at == text.chars().count() => made(String::new()),
        None => Err(bounds(index)),
    }
}

fn position<'a>(name: &str, text: &str, wanted: &str, offset: Option<i64>) -> Result<'a> {
    let total = text.chars().count();
    let last = name == "lastIndexOf";
    let offset = match offset {
        Some(offset) => usize::try_from(offset).ok().filter(|o| *o <= total).ok_or_else(|| bounds(offset))?,
        None if last => total,
        None => 0,
    };
    let byte_of = |chars: usize| text.char_indices().nth(chars).map_or(text.len(), |(at, _)| at);
    let found = if last {
        let end = byte_of(offset.saturating_add(wanted.chars().count()).min(total));
        text.get(..end).and_then(|part| part.rfind(wanted))
    } else {
        let start = byte_of(offset);
        text.get(start..).and_then(|part| part.find(wanted)).map(|at| at + start)
    };
    match found.and_then(|at| text.get(..at)) {
        Some(before) => length(before.chars().count()),
        None => Ok(Val::Int(-1)),
    }
}

fn replace<'a>(text: &str, from: &str, to: &str, limit: Option<i64>) -> Result<'a> {
    let most = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let times = if from.is_empty() { text.chars().count() + 1 } else { text.matches(from).count() }.min(most);
    let size = to.len().checked_mul(times).and_then(|n| n.checked_add(text.len()));
    if size.is_none_or(|size| size > MAX_TEXT) {
        return Err(EvalError::Cost);
    }
    made(text.replacen(from, to, times))
}

fn split<'a>(text: &str, separator: &str, limit: Option<i64>) -> Val<'a> {
    let parts: Vec<String> = match limit {
        Some(0) => Vec::new(),
        Some(limit) if limit > 0 && !separator.is_empty() => {
            text.splitn(usize::try_from(limit).unwrap_or(usize::MAX), separator).map(str::to_owned).collect()
        }
        _ if separator.is_empty() => text.chars().map(String::from).collect(),
        _ => text.split(separator).map(str::to_owned).collect(),
    };
    parts.into_iter().map(Val::from).collect::<Vec<_>>().into()
}

fn substring<'a>(text: &str, start: i64, end: Option<i64>) -> Result<'a> {
    let total = text.chars().count();
    let from = usize::try_from(start).ok().filter(|s| *s <= total).ok_or_else(|| bounds(start))?;
    let to = match end {
        Some(end) => usize::try_from(end).ok().filter(|e| *e <= total).ok_or_else(|| bounds(end))?,
        None => total,
    };
    let Some(length) = to.checked_sub(from) else {
        return Err(EvalError::other(format!("invalid substring range. start: {from}, end: {to}")));
    };
    made(text.chars().skip(from).take(length).collect())
}

/// `'%s is %d'.format([…])`: `%s %d %f %e %b %x %X %o %%`.
fn format<'a>(template: &str, args: &[Val<'a>]) -> Result<'a> {
    let mut out = String::new();
    let mut args = args.iter();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let digits =
            after.strip_prefix('.').map(|a| a.split_at(a.find(|c: char| !c.is_ascii_digit()).unwrap_or(a.len())));
        let (precision, clause) = match digits {
            Some((digits, clause)) => (digits.parse::<usize>().ok().map(|p| p.min(100)), clause),
            None => (None, after),
        };
        let Some(verb) = clause.chars().next() else {
            return Err(EvalError::other("unexpected end of format string"));
        };
        rest = clause.split_at(verb.len_utf8()).1;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let arg = args.next().ok_or_else(|| EvalError::other("index out of range in formatting clause"))?;
        match verb {
            's' => show(&mut out, arg)?,
            verb => out.push_str(&clause_text(verb, precision, arg)?),
        }
        if out.len() > MAX_TEXT {
            return Err(EvalError::Cost);
        }
    }
    out.push_str(rest);
    made(out)
}

fn clause_text(verb: char, precision: Option<usize>, arg: &Val<'_>) -> std::result::Result<String, EvalError> {
    let wrong = || EvalError::other(format!("error during formatting: '%{verb}' cannot take a {}", arg.type_name()));
    Ok(match (verb, arg) {
        ('d', Val::Int(_) | Val::Uint(_)) => number_text(arg).unwrap_or_default(),
        ('f', Val::Double(d)) => format!("{d:.*}", precision.unwrap_or(6)),
        #[expect(clippy::cast_precision_loss, reason = "shown as a fraction")]
        ('f', Val::Int(i)) => format!("{:.*}", precision.unwrap_or(6), *i as f64),
        ('e', Val::Double(d)) => format!("{d:.*e}", precision.unwrap_or(6)),
        ('b', Val::Int(i)) => format!("{i:b}"),
        ('b', Val::Bool(b)) => i32::from(*b).to_string(),
        ('o', Val::Int(i)) => format!("{i:o}"),
        ('x', Val::Int(i)) => format!("{i:x}"),
        ('X', Val::Int(i)) => format!("{i:X}"),
        ('x', Val::String(s)) => hex(s),
        ('X', Val::String(s)) => hex(s).to_uppercase(),
        _ => return Err(wrong()),
    })
}

fn hex(text: &str) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    text.bytes().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

/// Writes a value into a text, which stays within its bound: a list may have a part many times.
fn show(out: &mut String, value: &Val<'_>) -> std::result::Result<(), EvalError> {
    if out.len() > MAX_TEXT {
        return Err(EvalError::Cost);
    }
    match value {
        Val::String(text) => out.push_str(text),
        Val::Null => out.push_str("null"),
        Val::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Val::Duration(d) => out.push_str(&shown_duration(*d)),
        Val::List(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                show(out, &item)?;
            }
            out.push(']');
        }
        Val::Map(map) => {
            out.push('{');
            for (index, (key, value)) in map.raw().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                show(out, &key.val())?;
                out.push_str(": ");
                show(out, &value)?;
            }
            out.push('}');
        }
        Val::Type(name) => out.push_str(name),
        other => out.push_str(&super::text_of(other).unwrap_or_default()),
    }
    Ok(())
}
