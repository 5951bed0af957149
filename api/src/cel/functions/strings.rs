//! Functions of texts. Positions count characters.

use std::cell::RefCell;
use std::collections::VecDeque;

use regex::Regex;

use super::super::value::{ELEMENT, Text, Val};
use super::super::{Budget, EvalError, MAX_TEXT};
use super::{Result, format, int, length, str};
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
        ("matches", 1) => regex(second?, budget).map(|regex| Val::Bool(regex.is_match(text))),
        ("find", 1) => {
            regex(second?, budget).and_then(|regex| made(regex.find(text).map_or("", |m| m.as_str()).to_owned()))
        }
        ("findAll", 1 | 2) => find_all(text, second?, rest.get(1).and_then(int), budget),
        ("charAt", 1) => char_at(text, int(rest.first()?)?),
        ("indexOf" | "lastIndexOf", 1 | 2) => position(name, text, second?, rest.get(1).and_then(int)),
        ("lowerAscii", 0) => made(text.to_ascii_lowercase()),
        ("upperAscii", 0) => made(text.to_ascii_uppercase()),
        ("trim", 0) => made(text.trim().to_owned()),
        ("reverse", 0) => made(text.chars().rev().collect()),
        ("strings.quote", 0) => made(quote(text)),
        ("replace", 2 | 3) => replace(text, second?, str(rest.get(1)?)?, rest.get(2).and_then(int)),
        ("split", 1 | 2) => Ok(split(text, second?, rest.get(1).and_then(int))),
        ("substring", 1 | 2) => substring(text, int(rest.first()?)?, rest.get(1).and_then(int)),
        ("jsonpatch.escapeKey", 0) => made(text.replace('~', "~0").replace('/', "~1")),
        ("format", 1) => match rest.first()? {
            Val::List(list) => format::format(text, &list.iter().collect::<Vec<_>>()),
            _ => return None,
        },
        _ => return None,
    })
}

thread_local! {
    /// The expressions that this thread has compiled last, with their bytes: a rule asks the same of each item of a list. Bound:
    /// [`KEPT`], and [`KEPT_BYTES`] together.
    static COMPILED: RefCell<VecDeque<(String, Regex, usize)>> = const { RefCell::new(VecDeque::new()) };
}

/// Expressions that a thread keeps.
const KEPT: usize = 64;
const KEPT_BYTES: usize = 16 << 20;
/// Bytes of a compiled expression that are made in the time of a step, at least.
const COMPILED_A_STEP: usize = 64;

fn regex(source: &Text<'_>, budget: &mut Budget) -> std::result::Result<Regex, EvalError> {
    let source: &str = source;
    let known = |kept: &VecDeque<(String, Regex, usize)>| {
        kept.iter().find(|(text, ..)| text == source).map(|(_, known, _)| known.clone())
    };
    if let Some(known) = COMPILED.with_borrow(known) {
        return Ok(known);
    }
    let (compiled, bytes) = pattern::sized(source);
    budget.charge(u64::try_from(bytes / COMPILED_A_STEP).unwrap_or(u64::MAX))?;
    let compiled = compiled.map_err(|error| EvalError::other(format!("error parsing regexp: {error}")))?;
    COMPILED.with_borrow_mut(|kept| {
        kept.push_back((source.to_owned(), compiled.clone(), bytes));
        while kept.len() > KEPT || kept.iter().map(|(.., bytes)| bytes).sum::<usize>() > KEPT_BYTES {
            kept.pop_front();
        }
    });
    Ok(compiled)
}

fn find_all<'a>(text: &str, source: &Text<'_>, limit: Option<i64>, budget: &mut Budget) -> Result<'a> {
    let most = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let mut found: Vec<Val<'a>> = Vec::new();
    for part in regex(source, budget)?.find_iter(text).take(most) {
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
        Some(limit) if limit > 0 => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            if separator.is_empty() {
                characters(text, limit).map(str::to_owned).collect()
            } else {
                text.splitn(limit, separator).map(str::to_owned).collect()
            }
        }
        _ if separator.is_empty() => characters(text, usize::MAX).map(str::to_owned).collect(),
        _ => text.split(separator).map(str::to_owned).collect(),
    };
    parts.into_iter().map(Val::from).collect::<Vec<_>>().into()
}

/// The characters of a text; the last of `most` has all that is left.
fn characters(text: &str, most: usize) -> impl Iterator<Item = &str> {
    let (mut rest, mut left) = (text, most);
    std::iter::from_fn(move || {
        let first = rest.chars().next().filter(|_| left > 0)?;
        let (part, after) = rest.split_at(if left == 1 { rest.len() } else { first.len_utf8() });
        (rest, left) = (after, left - 1);
        Some(part)
    })
}

/// A text as a literal of CEL.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        let escape = match c {
            '\u{7}' => 'a',
            '\u{8}' => 'b',
            '\u{b}' => 'v',
            '\u{c}' => 'f',
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            '\\' | '"' => c,
            c => {
                out.push(c);
                continue;
            }
        };
        out.extend(['\\', escape]);
    }
    out.push('"');
    out
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
