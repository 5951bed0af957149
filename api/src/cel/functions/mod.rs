//! The functions of expressions, by name and by what their arguments are.

use std::sync::Arc;

use super::signatures::{self, Cost};
use super::types::ListKind;
use super::value::{ELEMENT, Key, List, Map, Text, Val, count};
use super::{Budget, EvalError, MAX_TEXT};

mod format;
mod kube;
pub mod lists;
mod strings;
pub mod time;

type Result<'a> = std::result::Result<Val<'a>, EvalError>;

/// Calls a function. What it costs is charged first, and the room of what it makes.
pub fn call<'a>(name: &str, member: bool, args: &[Val<'a>], budget: &mut Budget) -> Result<'a> {
    budget.charge(cost(name, args, budget.call))?;
    let several = several(name, args, budget.room);
    budget.make(several.unwrap_or_default())?;
    let value = run(name, member, args, budget)?;
    if matches!(name, "format" | "join") {
        budget.charge(signatures::text(value.size()))?;
    }
    if GIVEN.contains(&name) {
        budget.make(value.decoded())?;
        return Ok(value);
    }
    if several.is_none() {
        budget.make(value.made())?;
    }
    budget.make(value.decoded_anew())?;
    Ok(value)
}

/// Functions whose value is one that there was.
const GIVEN: [&str; 6] = ["dyn", "first", "last", "max", "min", "value"];

fn run<'a>(name: &str, member: bool, args: &[Val<'a>], budget: &mut Budget) -> Result<'a> {
    if let Some(value) = operator(name, args) {
        return value;
    }
    if !signatures::of(name).iter().any(|s| s.member == member && s.args.len() == args.len()) {
        return Err(EvalError::Overload);
    }
    let known = strings::call(name, args, budget)
        .or_else(|| lists::call(name, args, budget))
        .or_else(|| time::call(name, args))
        .or_else(|| kube::call(name, args))
        .or_else(|| convert(name, args))
        .or_else(|| optionals(name, args));
    known.unwrap_or(Err(EvalError::Overload))
}

/// Bytes of a text that are gone through in the time of a step, at least, by what only counts or copies them.
const BYTES_A_STEP: u64 = 1024;

/// What it takes to do anything with a text, beside what a function is said to cost: some cost one step, however long it is.
pub fn handling(value: &Val<'_>) -> u64 {
    match value {
        Val::String(_) | Val::Bytes(_) => value.size() / BYTES_A_STEP,
        _ => 0,
    }
}

/// The cost of a call; not counted further than `most`, which is too much.
fn cost(name: &str, args: &[Val<'_>], most: u64) -> u64 {
    let sizes: Vec<u64> = args.iter().map(Val::size).collect();
    let most = most.saturating_add(1);
    match (name, args) {
        ("_==_" | "_!=_", [Val::String(_), Val::String(_)]) => {
            signatures::text(sizes.iter().copied().min().unwrap_or_default()).max(1)
        }
        ("_==_" | "_!=_", args) => args.iter().fold(0, |sum: u64, arg| sum.saturating_add(weight(arg, most))),
        ("@in" | "includes", [item, Val::List(of)])
        | ("indexOf" | "lastIndexOf" | "includes", [Val::List(of), item]) => looked_through(of, item, most),
        ("isSorted" | "sum" | "min" | "max" | "join", [of @ Val::List(_), ..]) => weight(of, most),
        ("sort", [Val::List(of)]) => lists::sorting(&of.iter().collect::<Vec<_>>(), most),
        // Each is compared with each.
        ("distinct", [of @ Val::List(list)]) => weight(of, most).saturating_mul(len(list)),
        ("sets.contains" | "sets.equivalent" | "sets.intersects", [one @ Val::List(a), other @ Val::List(b)]) => {
            let (a, b) = (len(a).saturating_mul(weight(other, most)), len(b).saturating_mul(weight(one, most)));
            if name == "sets.equivalent" { a.saturating_add(b) } else { a.min(b) }
        }
        // Before anything is written: who fails late has written all that came before.
        ("format", [template, args]) => signatures::text(template.size()).saturating_add(weight(args, most)),
        ("charAt", _) => signatures::text(sizes.first().copied().unwrap_or_default()).max(1),
        ("lists.range", [Val::Int(to)]) => u64::try_from(*to).unwrap_or_default().max(1),
        // A new list, not a view of two.
        ("_+_", [Val::List(a), Val::List(b)]) => match a.kind() {
            ListKind::Atomic => len(a).saturating_add(len(b)),
            _ => args.iter().fold(0, |sum: u64, arg| sum.saturating_add(weight(arg, most))),
        },
        _ => match signatures::of(name).first().map(|signature| signature.cost) {
            None | Some(Cost::One) => args.iter().fold(1, |sum: u64, arg| sum.saturating_add(handling(arg))),
            Some(cost) => cost.of(&sizes, 1),
        },
    }
}

fn len(list: &List<'_>) -> u64 {
    u64::try_from(list.len()).unwrap_or(u64::MAX)
}

/// What it takes to compare an item with those of a list: with each no more than what the item is.
fn looked_through(list: &List<'_>, item: &Val<'_>, most: u64) -> u64 {
    let each = weight(item, most);
    let mut sum = 0_u64;
    for known in list.iter() {
        sum = sum.saturating_add(weight(&known, each).max(1));
        if sum >= most {
            break;
        }
    }
    sum
}

/// What comparing a value takes: all that is in it, as often as it is in it; `most` if that is less.
pub fn weight(value: &Val<'_>, most: u64) -> u64 {
    let mut left = most;
    weigh(value, &mut left);
    most - left
}

fn weigh(value: &Val<'_>, left: &mut u64) {
    let own = match value {
        Val::String(_) | Val::Bytes(_) => signatures::text(value.size()).max(1),
        _ => 1,
    };
    *left = left.saturating_sub(own);
    let mut inner = |value: Val<'_>| {
        if *left > 0 {
            weigh(&value, left);
        }
        *left > 0
    };
    let _ = match value {
        Val::List(list) => list.iter().all(&mut inner),
        Val::Map(map) => map.entries().all(|(key, value)| inner(key) && inner(value)),
        Val::Optional(Some(value)) => inner((**value).clone()),
        _ => true,
    };
}

/// Bytes of the list or map that a function makes of its arguments, where that can be many times what they have. Not counted
/// further than `most`.
fn several(name: &str, args: &[Val<'_>], most: usize) -> Option<usize> {
    let elements = |count: usize| count.saturating_mul(ELEMENT);
    Some(match (name, args) {
        ("_+_", [Val::List(a), Val::List(b)]) => elements(a.len().saturating_add(b.len())),
        ("split", [Val::String(text), Val::String(separator), rest @ ..]) => {
            strings::parts(text, separator, rest.first().and_then(int))
        }
        ("flatten", [Val::List(list), rest @ ..]) => {
            let mut left = most / ELEMENT + 1;
            lists::count_flat(list, lists::depth(rest)?, &mut left);
            elements(most / ELEMENT + 1 - left)
        }
        ("lists.range", [Val::Int(to)]) => elements(usize::try_from(*to).unwrap_or_default()),
        ("getQuery", [Val::Url(url)]) => kube::query_room(url),
        _ => return None,
    })
}

fn operator<'a>(name: &str, args: &[Val<'a>]) -> Option<Result<'a>> {
    Some(match (name, args) {
        ("_==_", [a, b]) => Ok(Val::Bool(a.same(b))),
        ("_!=_", [a, b]) => Ok(Val::Bool(!a.same(b))),
        ("!_", [Val::Bool(value)]) => Ok(Val::Bool(!value)),
        ("-_", [Val::Int(value)]) => value.checked_neg().map(Val::Int).ok_or_else(overflow),
        ("-_", [Val::Double(value)]) => Ok(Val::Double(-value)),
        ("@in", [a, Val::List(list)]) => Ok(Val::Bool(list.iter().any(|item| item.same(a)))),
        ("@in", [a, Val::Map(map)]) => Ok(Val::Bool(map.get(a).is_some())),
        ("_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => match a.order(b) {
            Some(order) => Ok(Val::Bool(match name {
                "_<_" => order.is_lt(),
                "_<=_" => order.is_le(),
                "_>_" => order.is_gt(),
                _ => order.is_ge(),
            })),
            None if a.is_nan() || b.is_nan() => Err(EvalError::other("NaN values cannot be ordered")),
            None => Err(EvalError::Overload),
        },
        ("_+_" | "_-_" | "_*_" | "_/_" | "_%_", [a, b]) => arithmetic(name, a, b),
        _ => return None,
    })
}

fn overflow() -> EvalError {
    EvalError::other("integer overflow")
}

fn arithmetic<'a>(name: &str, a: &Val<'a>, b: &Val<'a>) -> Result<'a> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => integers(name, *a, *b).map(Val::Int),
        (Val::Uint(a), Val::Uint(b)) => unsigned(name, *a, *b).map(Val::Uint),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(match name {
            "_+_" => a + b,
            "_-_" => a - b,
            "_*_" => a * b,
            "_/_" => a / b,
            _ => return Err(EvalError::Overload),
        })),
        (Val::String(a), Val::String(b)) if name == "_+_" => strings::made([&**a, &**b].concat()),
        (Val::Bytes(a), Val::Bytes(b)) if name == "_+_" => {
            if a.len().saturating_add(b.len()) > MAX_TEXT {
                return Err(EvalError::Cost);
            }
            Ok(Val::Bytes([&**a, &**b].concat().into()))
        }
        (Val::List(a), Val::List(b)) if name == "_+_" => Ok(a.joined(b).into()),
        _ => time::arithmetic(name, a, b),
    }
}

fn integers(name: &str, a: i64, b: i64) -> std::result::Result<i64, EvalError> {
    let zero = |what: &str| EvalError::other(what);
    match name {
        "_+_" => a.checked_add(b),
        "_-_" => a.checked_sub(b),
        "_*_" => a.checked_mul(b),
        "_/_" if b == 0 => return Err(zero("division by zero")),
        "_/_" => a.checked_div(b),
        _ if b == 0 => return Err(zero("modulus by zero")),
        _ => a.checked_rem(b),
    }
    .ok_or_else(overflow)
}

fn unsigned(name: &str, a: u64, b: u64) -> std::result::Result<u64, EvalError> {
    match name {
        "_+_" => a.checked_add(b),
        "_-_" => a.checked_sub(b),
        "_*_" => a.checked_mul(b),
        "_/_" if b == 0 => return Err(EvalError::other("division by zero")),
        "_/_" => a.checked_div(b),
        _ if b == 0 => return Err(EvalError::other("modulus by zero")),
        _ => a.checked_rem(b),
    }
    .ok_or_else(|| EvalError::other("unsigned integer overflow"))
}

/// An item of a list or value of a map.
pub fn index<'a>(operand: &Val<'a>, index: &Val<'_>) -> Result<'a> {
    match operand {
        Val::List(list) => {
            let at = match index {
                Val::Int(i) => usize::try_from(*i).ok(),
                Val::Uint(u) => usize::try_from(*u).ok(),
                other => match Key::of(other) {
                    Some(Key::Int(i)) => usize::try_from(i).ok(),
                    _ => return Err(EvalError::Overload),
                },
            };
            at.and_then(|at| list.get(at)).ok_or_else(|| {
                let shown = super::value::number_text(index).unwrap_or_default();
                EvalError::Missing(format!("index out of bounds: {shown}"))
            })
        }
        Val::Map(map) => map.get(index).ok_or_else(|| {
            let shown = match index {
                Val::String(text) => text.to_string(),
                other => super::value::number_text(other).unwrap_or_else(|| other.type_name().to_owned()),
            };
            EvalError::Missing(format!("no such key: {shown}"))
        }),
        _ => Err(EvalError::Overload),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "the range is looked at first"
)]
fn convert<'a>(name: &str, args: &[Val<'a>]) -> Option<Result<'a>> {
    let range = || Err(EvalError::other("range"));
    Some(match (name, args) {
        ("int", [Val::Int(i)]) => Ok(Val::Int(*i)),
        ("int", [Val::Uint(u)]) => i64::try_from(*u).map_or_else(|_| range(), |i| Ok(Val::Int(i))),
        ("int", [Val::Double(d)]) if d.abs() < 9_223_372_036_854_775_807.0 => Ok(Val::Int(*d as i64)),
        ("int", [Val::String(s)]) => parsed(s.parse().map(Val::Int), s, "int"),
        ("int", [Val::Timestamp(t)]) => Ok(Val::Int(t.as_second())),
        ("int", [Val::Duration(d)]) => Ok(Val::Int(*d)),
        ("uint", [Val::Uint(u)]) => Ok(Val::Uint(*u)),
        ("uint", [Val::Int(i)]) => u64::try_from(*i).map_or_else(|_| range(), |u| Ok(Val::Uint(u))),
        ("uint", [Val::Double(d)]) if (0.0..18_446_744_073_709_551_615.0).contains(d) => Ok(Val::Uint(*d as u64)),
        ("int" | "uint", [Val::Double(_)]) => range(),
        ("uint", [Val::String(s)]) => parsed(s.parse().map(Val::Uint), s, "uint"),
        ("double", [Val::Double(d)]) => Ok(Val::Double(*d)),
        ("double", [Val::Int(i)]) => Ok(Val::Double(*i as f64)),
        ("double", [Val::Uint(u)]) => Ok(Val::Double(*u as f64)),
        ("double", [Val::String(s)]) => parsed(s.parse().map(Val::Double), s, "double"),
        ("bool", [Val::Bool(b)]) => Ok(Val::Bool(*b)),
        ("bool", [Val::String(s)]) => match &**s {
            "true" | "True" | "TRUE" | "t" | "T" | "1" => Ok(Val::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "F" | "0" => Ok(Val::Bool(false)),
            other => Err(EvalError::other(format!("type conversion error from 'string' to 'bool': {other:?}"))),
        },
        ("bytes", [Val::Bytes(b)]) => Ok(Val::Bytes(Arc::clone(b))),
        ("bytes", [Val::String(s)]) => Ok(Val::Bytes(s.as_bytes().into())),
        ("string", [value]) => return text_of(value).map(strings::made).or(Some(Err(EvalError::Overload))),
        ("dyn", [value]) => Ok(value.clone()),
        ("type", [value]) => Ok(Val::Type(value.type_name().into())),
        _ => return None,
    })
}

fn parsed<'a, E>(value: std::result::Result<Val<'a>, E>, text: &str, ty: &str) -> Result<'a> {
    value.map_err(|_| EvalError::other(format!("type conversion error from 'string' to '{ty}': {text:?}")))
}

/// A value as `string()` gives it.
fn text_of(value: &Val<'_>) -> Option<String> {
    Some(match value {
        Val::String(s) => s.to_string(),
        Val::Bool(b) => b.to_string(),
        Val::Bytes(b) => std::str::from_utf8(b).ok()?.to_owned(),
        Val::Timestamp(t) => t.to_string(),
        #[expect(clippy::cast_precision_loss, reason = "seconds with a fraction")]
        Val::Duration(d) => format!("{}s", *d as f64 / 1e9),
        Val::Quantity(q) => q.to_string(),
        Val::Ip(ip) => ip.to_string(),
        Val::Cidr(cidr) => cidr.to_string(),
        other => super::value::number_text(other)?,
    })
}

fn optionals<'a>(name: &str, args: &[Val<'a>]) -> Option<Result<'a>> {
    Some(match (name, args) {
        ("optional.of", [value]) => Ok(Val::optional(Some(value.clone()))),
        ("optional.ofNonZeroValue", [value]) => Ok(Val::optional((!is_zero(value)).then(|| value.clone()))),
        ("optional.none", []) => Ok(Val::Optional(None)),
        ("hasValue", [Val::Optional(value)]) => Ok(Val::Bool(value.is_some())),
        ("value", [Val::Optional(value)]) => {
            value.as_ref().map(|v| (**v).clone()).ok_or_else(|| EvalError::other("optional.none() dereference"))
        }
        ("optional.unwrap" | "unwrapOpt", [Val::List(list)]) => {
            let parts = list.iter().filter_map(|item| match item {
                Val::Optional(value) => value.map(|value| Ok((*value).clone())),
                _ => Some(Err(EvalError::Overload)),
            });
            parts.collect::<std::result::Result<Vec<_>, _>>().map(Val::from)
        }
        _ => return None,
    })
}

fn is_zero(value: &Val<'_>) -> bool {
    match value {
        Val::Null | Val::Optional(None) | Val::Bool(false) | Val::Int(0) | Val::Uint(0) | Val::Duration(0) => true,
        Val::Double(d) => *d == 0.0,
        Val::String(_) | Val::Bytes(_) | Val::List(_) | Val::Map(_) => value.size() == 0,
        _ => false,
    }
}

fn str<'v, 'a>(value: &'v Val<'a>) -> Option<&'v Text<'a>> {
    match value {
        Val::String(text) => Some(text),
        _ => None,
    }
}

fn int(value: &Val<'_>) -> Option<i64> {
    match value {
        Val::Int(i) => Some(*i),
        _ => None,
    }
}

/// A literal map of texts.
fn text_map(pairs: Vec<(String, Val<'_>)>) -> Val<'_> {
    Val::Map(Map::Made(Arc::new(pairs.into_iter().map(|(k, v)| (Key::String(k.into()), v)).collect())))
}

/// A number of things, as what a function returns.
#[expect(clippy::unnecessary_wraps, reason = "an arm among others that may fail")]
fn length<'a>(value: usize) -> Result<'a> {
    Ok(count(value))
}
