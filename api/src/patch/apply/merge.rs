//! Merging what an applier sent into an object, and taking fields out of one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::element;
use super::fields::{Branch, FieldSet};
use super::schema::{Form, Node};
use super::walk::index;

/// The live value with what is in the configuration; where both have a leaf, the configuration's.
pub(super) fn merge(live: &Value, config: &Value, node: Node<'_>) -> Value {
    match (live, config) {
        (Value::Object(old), Value::Object(new)) if node.form(config) == Form::Map => {
            let mut merged = old.clone();
            for (name, value) in new {
                let value = match old.get(name) {
                    Some(present) => merge(present, value, node.field(name).0),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(old), Value::Array(new)) if node.form(config) == Form::Items => {
            if new.is_empty() {
                live.clone()
            } else {
                Value::Array(merge_items(old, new, node))
            }
        }
        (_, config) => config.clone(),
    }
}

/// Items of the configuration in its order; the others keep their place before the next item that both have.
fn merge_items(old: &[Value], new: &[Value], node: Node<'_>) -> Vec<Value> {
    let elements = |list: &[Value]| -> Vec<Option<Box<str>>> {
        list.iter().map(|item| element::of_item(item, node).ok()).collect()
    };
    let (old_elements, new_elements) = (elements(old), elements(new));
    let wanted: BTreeSet<&str> = new_elements.iter().flatten().map(AsRef::as_ref).collect();
    let mut places = BTreeMap::new();
    for (place, element) in old_elements.iter().enumerate().filter_map(|(i, e)| Some((i, e.as_deref()?))) {
        places.entry(element).or_insert(place);
    }
    let known = index(old, node);
    let shared: Vec<usize> = new_elements.iter().flatten().filter_map(|e| places.get(&**e).copied()).collect();
    let mut shared = shared.into_iter().peekable();
    let mut others = old
        .iter()
        .zip(&old_elements)
        .enumerate()
        .filter(|(_, (_, e))| e.as_deref().is_none_or(|element| !wanted.contains(element)))
        .peekable();
    let mut merged = Vec::with_capacity(old.len() + new.len());
    for (item, element) in new.iter().zip(&new_elements) {
        let before = shared.peek().copied().unwrap_or(usize::MAX);
        while let Some((_, (other, _))) = others.next_if(|(place, _)| *place < before) {
            merged.push(other.clone());
        }
        let present = element.as_deref().and_then(|element| known.get(element));
        match present.map(Vec::as_slice) {
            Some([live]) => merged.push(merge(live, item, node.item())),
            _ => merged.push(item.clone()),
        }
        if element.as_deref().is_some_and(|element| places.contains_key(element)) {
            shared.next();
        }
    }
    merged.extend(others.map(|(_, (other, _))| other.clone()));
    merged
}

/// The value without these fields; `None` if that leaves nothing.
pub(super) fn without(value: &Value, fields: &FieldSet, node: Node<'_>) -> Option<Value> {
    match (node.form(value), value) {
        (Form::Map, Value::Object(map)) => {
            let kept: Map<String, Value> = map
                .iter()
                .filter_map(|(name, value)| {
                    Some((name.clone(), kept(value, fields, &element::field(name), node.field(name).0)?))
                })
                .collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        (Form::Items, Value::Array(list)) => {
            let kept: Vec<Value> = list
                .iter()
                .filter_map(|item| match element::of_item(item, node) {
                    Ok(element) => kept(item, fields, &element, node.item()),
                    Err(_) => Some(item.clone()),
                })
                .collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        _ => Some(value.clone()),
    }
}

fn kept(value: &Value, fields: &FieldSet, element: &str, node: Node<'_>) -> Option<Value> {
    match fields.branch(element) {
        None => Some(value.clone()),
        Some(branch) if branch.member => None,
        Some(branch) => without(value, &branch.below, node),
    }
}

/// The set with every struct field that something below is in: a field that is owned in part counts as owned there.
pub(super) fn with_named(fields: &FieldSet, node: Node<'_>) -> FieldSet {
    let entries = fields.0.iter().map(|(element, branch)| {
        let (below, named) = match element.strip_prefix("f:") {
            Some(name) => node.field(name),
            None => (node.item(), false),
        };
        let member = branch.member || (named && !branch.below.is_empty());
        (element.clone(), Branch { member, below: with_named(&branch.below, below) })
    });
    FieldSet(entries.collect())
}
