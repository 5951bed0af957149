//! Functions of lists, maps and sets.

use std::cmp::Ordering;

use super::super::value::{List, Val, count};
use super::super::{Budget, EvalError, MAX_TEXT};
use super::{Result, int, length, str, strings, weight};

pub fn call<'a>(name: &str, args: &[Val<'a>], budget: &mut Budget) -> Option<Result<'a>> {
    if let ("lists.range", [Val::Int(to)]) = (name, args) {
        return Some(Ok((0..*to).map(Val::Int).collect::<Vec<_>>().into()));
    }
    if let ("size", [Val::Map(map)]) = (name, args) {
        return Some(length(map.len()));
    }
    let (Val::List(list), rest) = args.split_first()? else { return bytes(name, args) };
    Some(match (name, rest) {
        ("size", []) => length(list.len()),
        ("isSorted", []) => Ok(Val::Bool(list.iter().is_sorted_by(|a, b| a.order(b).is_some_and(Ordering::is_le)))),
        ("sum", []) => sum(list, budget),
        ("min", []) => extreme(list, name, Ordering::Less),
        ("max", []) => extreme(list, name, Ordering::Greater),
        ("indexOf", [wanted]) => Ok(list.iter().position(|item| item.same(wanted)).map_or(Val::Int(-1), count)),
        ("lastIndexOf", [wanted]) => {
            let last = list.iter().enumerate().filter(|(_, item)| item.same(wanted)).last();
            Ok(last.map_or(Val::Int(-1), |(at, _)| count(at)))
        }
        ("includes", [wanted]) => Ok(Val::Bool(list.iter().any(|item| item.same(wanted)))),
        ("join", rest) => {
            let separator = rest.first().and_then(str).map_or("", |s| &**s);
            join(list, separator)
        }
        ("distinct", []) => {
            let mut items: Vec<Val<'a>> = Vec::new();
            list.iter().for_each(|item| {
                if !items.iter().any(|known| known.same(&item)) {
                    items.push(item);
                }
            });
            Ok(items.into())
        }
        ("sort", []) => {
            let items: Vec<Val<'a>> = list.iter().collect();
            sorted(items.clone(), items)
        }
        ("reverse", []) => {
            let mut items: Vec<Val<'a>> = list.iter().collect();
            items.reverse();
            Ok(items.into())
        }
        ("slice", [from, to]) => slice(list, int(from)?, int(to)?),
        ("flatten", [Val::Int(..0)]) => Err(EvalError::other("level must be non-negative")),
        ("flatten", rest) => Ok(flatten(list, depth(rest)?).into()),
        ("first", []) => Ok(Val::optional(list.get(0))),
        ("last", []) => Ok(Val::optional(list.len().checked_sub(1).and_then(|at| list.get(at)))),
        (name, [Val::List(other)]) if name.starts_with("sets.") => {
            return sets(name, list, other).map(|b| Ok(Val::Bool(b)));
        }
        _ => return None,
    })
}

fn bytes<'a>(name: &str, args: &[Val<'a>]) -> Option<Result<'a>> {
    match (name, args) {
        ("size", [Val::Bytes(bytes)]) => Some(length(bytes.len())),
        _ => None,
    }
}

/// What it takes to sort by such keys; not counted further than `most`.
pub fn sorting(keys: &[Val<'_>], most: u64) -> u64 {
    let once = keys.iter().fold(0_u64, |sum, key| if sum < most { sum.saturating_add(weight(key, most)) } else { sum });
    once.saturating_mul(u64::from(keys.len().max(1).ilog2()) + 1)
}

/// Items in the order of their keys, which are values of one type that has an order.
pub fn sorted<'a>(keys: Vec<Val<'a>>, items: Vec<Val<'a>>) -> Result<'a> {
    if let Some(first) = keys.first() {
        let ordered = |key: &Val<'_>| key.is_nan() || key.order(key).is_some();
        if !keys.iter().all(ordered) {
            return Err(EvalError::other("list elements must be comparable"));
        }
        if keys.iter().any(|key| key.type_name() != first.type_name()) {
            return Err(EvalError::other("list elements must have the same type"));
        }
    }
    let mut both: Vec<(Val<'a>, Val<'a>)> = keys.into_iter().zip(items).collect();
    // What is no number comes last.
    both.sort_by(|(a, _), (b, _)| a.order(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan())));
    Ok(both.into_iter().map(|(_, item)| item).collect::<Vec<_>>().into())
}

fn sum<'a>(list: &List<'a>, budget: &mut Budget) -> Result<'a> {
    let mut items = list.iter();
    let Some(first) = items.next() else { return Ok(Val::Int(0)) };
    items.try_fold(first, |sum, item| super::call("_+_", false, &[sum, item], budget))
}

fn extreme<'a>(list: &List<'a>, name: &str, wanted: Ordering) -> Result<'a> {
    let mut items = list.iter();
    let Some(first) = items.next() else {
        return Err(EvalError::other(format!("{name} called on empty list")));
    };
    items.try_fold(first, |best, item| match item.order(&best) {
        Some(order) if order == wanted => Ok(item),
        Some(_) => Ok(best),
        None => Err(EvalError::Overload),
    })
}

fn join<'a>(list: &List<'a>, separator: &str) -> Result<'a> {
    let mut out = String::new();
    for (index, item) in list.iter().enumerate() {
        if index > 0 {
            out.push_str(separator);
        }
        out.push_str(str(&item).ok_or(EvalError::Overload)?);
        if out.len() > MAX_TEXT {
            return Err(EvalError::Cost);
        }
    }
    strings::made(out)
}

fn slice<'a>(list: &List<'a>, from: i64, to: i64) -> Result<'a> {
    let total = list.len();
    match (usize::try_from(from), usize::try_from(to)) {
        (Ok(from), Ok(to)) if from <= to && to <= total => {
            Ok((from..to).filter_map(|at| list.get(at)).collect::<Vec<_>>().into())
        }
        _ => Err(EvalError::other(format!("cannot slice({from}, {to}), list is length {total}"))),
    }
}

/// How deep `flatten` goes.
pub fn depth(args: &[Val<'_>]) -> Option<i64> {
    Some(args.first().map_or(Some(1), int)?.clamp(0, 16))
}

/// Takes what a flattened list has from `left`, while there is any.
pub fn count_flat(list: &List<'_>, depth: i64, left: &mut usize) {
    for item in list.iter() {
        if *left == 0 {
            return;
        }
        match item {
            Val::List(inner) if depth > 0 => {
                // An empty one takes a step as well.
                if inner.is_empty() {
                    *left -= 1;
                }
                count_flat(&inner, depth - 1, left);
            }
            _ => *left -= 1,
        }
    }
}

fn flatten<'a>(list: &List<'a>, depth: i64) -> Vec<Val<'a>> {
    list.iter()
        .flat_map(|item| match item {
            Val::List(inner) if depth > 0 => flatten(&inner, depth - 1),
            other => vec![other],
        })
        .collect()
}

fn sets(name: &str, a: &List<'_>, b: &List<'_>) -> Option<bool> {
    let holds = |list: &List<'_>, wanted: &Val<'_>| list.iter().any(|item| item.same(wanted));
    Some(match name {
        "sets.contains" => b.iter().all(|item| holds(a, &item)),
        "sets.equivalent" => b.iter().all(|item| holds(a, &item)) && a.iter().all(|item| holds(b, &item)),
        "sets.intersects" => b.iter().any(|item| holds(a, &item)),
        _ => return None,
    })
}
