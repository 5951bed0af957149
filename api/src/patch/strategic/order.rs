//! The order of a merged list: what the patch names is in the patch's order, the rest stays where the object had it
//! relative to those.

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

fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    list.iter().position(|other| same(other, item, key))
}

/// Puts `merged` in order: items of `order` as it has them; each other item before the first of those that it preceded in
/// `live`.
pub(super) fn arrange(merged: Vec<Value>, order: &[Value], live: &[Value], key: Option<&str>) -> Vec<Value> {
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(order, item, key).is_some());
    named.sort_by_key(|item| position(order, item, key));
    others.sort_by_key(|item| position(live, item, key));
    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        let at = position(live, &item, key);
        while let Some(other) = others.next_if(|other| position(live, other, key).zip(at).is_some_and(|(o, n)| o < n)) {
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
