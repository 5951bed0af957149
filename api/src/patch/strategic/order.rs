//! The order of a merged list: what the patch names is in the patch's order, the rest stays where the object had it
//! relative to those.

use std::collections::HashMap;

use serde_json::Value;

use super::directives::Directive;
use super::{PatchError, go_text};

/// Whether two items are the same one: by merge key, or by value.
fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    }
}

/// Where in a list each of its items is first, by merge key or by value.
struct Places<'v> {
    key: Option<&'v str>,
    of: HashMap<&'v Value, usize>,
}

impl<'v> Places<'v> {
    fn new(list: &'v [Value], key: Option<&'v str>) -> Self {
        let mut of = HashMap::with_capacity(list.len());
        for (place, item) in list.iter().enumerate() {
            if let Some(known) = known_by(item, key) {
                of.entry(known).or_insert(place);
            }
        }
        Self { key, of }
    }

    fn get(&self, item: &Value) -> Option<usize> {
        self.of.get(known_by(item, self.key)?).copied()
    }
}

fn known_by<'v>(item: &'v Value, key: Option<&str>) -> Option<&'v Value> {
    key.map_or(Some(item), |key| item.get(key))
}

/// Puts `merged` in order: items of `order` as it has them; each other item before the first of those that it preceded in
/// `live`.
pub(super) fn arrange(merged: Vec<Value>, order: &[Value], live: &[Value], key: Option<&str>) -> Vec<Value> {
    let (order, live) = (Places::new(order, key), Places::new(live, key));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| order.get(item).is_some());
    named.sort_by_key(|item| order.get(item));
    others.sort_by_key(|item| live.get(item));
    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        let at = live.get(&item);
        while let Some(other) = others.next_if(|other| live.get(other).zip(at).is_some_and(|(o, n)| o < n)) {
            arranged.push(other);
        }
        arranged.push(item);
    }
    arranged.extend(others);
    arranged
}

/// Checks that the patch's items stand in `order` in the same sequence.
pub(super) fn check(items: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    let mut rest = order.iter();
    for item in items {
        let mut fields = item.as_object().cloned().unwrap_or_default();
        if Directive::take(&mut fields)?.is_some() {
            continue;
        }
        if !rest.any(|other| same(other, item, key)) {
            let text = |list: &[Value]| go_text(&Value::Array(list.to_vec()));
            return Err(PatchError::OrderMismatch { list: text(items), order: text(order) });
        }
    }
    Ok(())
}
