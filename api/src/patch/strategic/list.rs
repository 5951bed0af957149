//! Merging two lists: items by their merge key, or scalars as a set. Both are looked up in an index: lists of tens of
//! thousands merge in the time that reading them takes.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::directives::{Directive, cleaned};
use super::{Level, PatchError, Tree, go_map, merge_map, order};

/// Merges `new` into `old`. `key` is the merge key of a list of objects.
pub(super) fn merge(
    old: &[Value],
    new: Vec<Value>,
    key: Option<&str>,
    items: Level<'_>,
) -> Result<Vec<Value>, PatchError> {
    if old.iter().chain(&new).any(Value::is_array) {
        return Err(PatchError::ListOfLists);
    }
    if !old.iter().chain(&new).any(Value::is_object) {
        return Ok(merge_scalars(old, &new));
    }
    let Some(key) = key else { return Err(PatchError::NoKeyDeclared(items.name().to_owned())) };
    let maps = |list: Vec<Value>| -> Vec<Tree> {
        list.into_iter().filter_map(|item| if let Value::Object(map) = item { Some(map) } else { None }).collect()
    };
    let (merged, order) = merge_maps(maps(old.to_vec()), maps(new), key, items)?;
    Ok(match order {
        Some(order) => order::arrange(merged, &order, old, Some(key)),
        None => merged,
    })
}

/// Scalars of the patch come first, in its order; no value twice.
fn merge_scalars(old: &[Value], new: &[Value]) -> Vec<Value> {
    let mut seen = HashSet::new();
    let merged = old.iter().chain(new).filter(|value| seen.insert(*value)).cloned().collect();
    order::arrange(merged, new, old, None)
}

/// The merged items, and the patch's items as an order for them; no order if the patch replaces the list.
fn merge_maps(
    mut old: Vec<Tree>,
    new: Vec<Tree>,
    key: &str,
    items: Level<'_>,
) -> Result<(Vec<Value>, Option<Vec<Value>>), PatchError> {
    let mut plain = Vec::with_capacity(new.len());
    let (mut replace, mut deleted) = (false, HashSet::new());
    for mut item in new {
        match Directive::take(&mut item)? {
            None => plain.push(item),
            Some(Directive::Replace) => replace = true,
            Some(Directive::Merge) => return Err(PatchError::MergeInList),
            Some(Directive::Delete) => {
                deleted.insert(merge_key(&item, key)?.clone());
            }
        }
    }
    old.retain(|item| item.get(key).is_none_or(|value| !deleted.contains(value)));
    if replace {
        return Ok((plain.into_iter().map(|item| Value::Object(cleaned(item))).collect(), None));
    }
    let mut order = Vec::with_capacity(plain.len());
    let mut places = HashMap::new();
    for (place, item) in old.iter().enumerate() {
        if let Some(value) = item.get(key) {
            places.entry(value.clone()).or_insert(place);
        }
    }
    for item in plain {
        let value = merge_key(&item, key)?.clone();
        order.push(Value::Object(Tree::from_iter([(key.to_owned(), value.clone())])));
        match places.get(&value).and_then(|place| old.get_mut(*place)) {
            Some(found) => *found = merge_map(std::mem::take(found), item, items)?,
            None => {
                places.insert(value, old.len());
                old.push(cleaned(item));
            }
        }
    }
    Ok((old.into_iter().map(Value::Object).collect(), Some(order)))
}

fn merge_key<'a>(item: &'a Tree, key: &str) -> Result<&'a Value, PatchError> {
    item.get(key).ok_or_else(|| PatchError::NoMergeKey { map: go_map(item), key: key.to_owned() })
}
