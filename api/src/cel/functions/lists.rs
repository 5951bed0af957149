//! Functions of lists, maps and sets.

use std::cmp::Ordering;

use super::super::value::{List, Val, count};
use super::super::{Budget, EvalError, MAX_TEXT};
use super::{Result, int, length, str, strings};

pub fn call<'a>(name: &str, args: &[Val<'a>], budget: &mut Budget) -> Option<Result<'a>> {
    if let ("lists.range", [Val::Int(to)]) = (name, args) {
        return Some(range(*to));
    }
    if let ("size", [Val::Map(map)]) = (name, args) {
        return Some(length(map.len()));
    }
    let (Val::List(list), rest) = args.split_first()? else { return bytes(name, args) };
    Some(match (name, rest) {
        ("size", []) => length(list.len()),
        ("isSorted", []) => {
            let items: Vec<Val<'a>> = list.iter().collect();
            Ok(Val::Bool(items.is_sorted_by(|a, b| a.order(b).is_some_and(Ordering::is_le))))
        }
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
            // Quadratic, so bounded: what is compared is counted against the longest text.
            if list.len().saturating_mul(list.len()) > MAX_TEXT {
                return Some(Err(EvalError::Cost));
            }
            list.iter().for_each(|item| {
                if !items.iter().any(|known| known.same(&item)) {
                    items.push(item);
                }
            });
            Ok(items.into())
        }
        ("sort", []) => {
            let mut items: Vec<Val<'a>> = list.iter().collect();
            items.sort_by(|a, b| a.order(b).unwrap_or(Ordering::Equal));
            Ok(items.into())
        }
        ("reverse", []) => {
            let mut items: Vec<Val<'a>> = list.iter().collect();
            items.reverse();
            Ok(items.into())
        }
        ("slice", [from, to]) => slice(list, int(from)?, int(to)?),
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

fn range<'a>(to: i64) -> Result<'a> {
    if to > 10_000 {
        return Err(EvalError::Cost);
    }
    Ok((0..to.max(0)).map(Val::Int).collect::<Vec<_>>().into())
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
