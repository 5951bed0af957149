//! Walks over values by their schema: which fields a value has, and what changed between two values.

use std::collections::BTreeMap;

use serde_json::Value;

use super::element;
use super::fields::{Branch, FieldSet};
use super::schema::{Form, Node};

/// The fields that a value has.
pub(super) fn fields_of(value: &Value, node: Node<'_>) -> Branch {
    let mut below = FieldSet::default();
    match (node.form(value), value) {
        (Form::Map, Value::Object(map)) => {
            for (name, value) in map {
                let (field, named) = node.field(name);
                let mut branch = fields_of(value, field);
                branch.member |= !named || is_hollow(value);
                below.put(element::field(name), branch);
            }
        }
        (Form::Items, Value::Array(list)) => {
            for (element, items) in index(list, node) {
                let mut branch = match items.as_slice() {
                    [item] => fields_of(item, node.item()),
                    _ => Branch::leaf(),
                };
                branch.member = true;
                below.put(element, branch);
            }
        }
        _ => return Branch::leaf(),
    }
    Branch { member: false, below }
}

fn is_hollow(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// Items by their elements, in the order of elements; items that cannot be known are left out.
pub(super) fn index<'v>(list: &'v [Value], node: Node<'_>) -> BTreeMap<Box<str>, Vec<&'v Value>> {
    let mut items = BTreeMap::<_, Vec<_>>::new();
    for item in list {
        if let Ok(element) = element::of_item(item, node) {
            items.entry(element).or_default().push(item);
        }
    }
    items
}

/// What changed between two values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

impl Changes {
    pub(super) fn between(old: &Value, new: &Value, root: Node<'_>) -> Self {
        let change = compare(Some(old), Some(new), root);
        Self { added: change.added.below, modified: change.modified.below, removed: change.removed.below }
    }

    /// What a manager who wrote the new value took.
    pub(super) fn taken(&self) -> FieldSet {
        self.clone().into_taken()
    }

    pub(super) fn into_taken(mut self) -> FieldSet {
        self.added.extend(self.modified);
        self.added
    }

    pub(super) fn each(&mut self, mut change: impl FnMut(&mut FieldSet)) {
        change(&mut self.added);
        change(&mut self.modified);
        change(&mut self.removed);
    }
}

#[derive(Default)]
struct Change {
    added: Branch,
    modified: Branch,
    removed: Branch,
}

impl Change {
    fn leaf(old: Option<&Value>, new: Option<&Value>) -> Self {
        let mut change = Self::default();
        match (old, new) {
            (None, Some(_)) => change.added.member = true,
            (Some(_), None) => change.removed.member = true,
            _ => change.modified.member = true,
        }
        change
    }

    fn put(&mut self, element: &str, child: Self) {
        let into = [&mut self.added, &mut self.modified, &mut self.removed];
        for (set, branch) in into.into_iter().zip([child.added, child.modified, child.removed]) {
            if !branch.is_empty() {
                set.below.put(element.into(), branch);
            }
        }
    }
}

fn compare(old: Option<&Value>, new: Option<&Value>, node: Node<'_>) -> Change {
    if old == new {
        return Change::default();
    }
    let form = |value: Option<&Value>| value.map(|value| node.form(value));
    let form = match (form(old), form(new)) {
        (Some(old), Some(new)) if old == new => old,
        (Some(only), None) | (None, Some(only)) => only,
        (Some(Form::Map | Form::Items), Some(_)) | (Some(_), Some(Form::Map | Form::Items)) => {
            return replaced(old, new, node);
        }
        _ => Form::Leaf,
    };
    if is_empty(old) && is_empty(new) {
        return Change::leaf(old, new);
    }
    let mut change = match form {
        Form::Leaf => return Change::leaf(old, new),
        Form::Map => by_key(old, new, node),
        Form::Items => by_item(old, new, node),
    };
    change.added.member |= old.is_none() && !node.is_always_there();
    change.removed.member |= new.is_none();
    change
}

/// A value of one form in place of one of another.
fn replaced(old: Option<&Value>, new: Option<&Value>, node: Node<'_>) -> Change {
    let below = |value: Option<&Value>| value.map(|value| fields_of(value, node)).unwrap_or_default().below;
    let mut change = Change::leaf(old, new);
    (change.added.below, change.removed.below) = (below(new), below(old));
    change
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

fn by_key(old: Option<&Value>, new: Option<&Value>, node: Node<'_>) -> Change {
    let (old, new) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
    let mut change = Change::default();
    for (name, before) in old.into_iter().flatten() {
        let after = new.and_then(|new| new.get(name));
        if after != Some(before) {
            change.put(&element::field(name), compare(Some(before), after, node.field(name).0));
        }
    }
    for (name, after) in new.into_iter().flatten() {
        if old.is_none_or(|old| !old.contains_key(name)) {
            change.put(&element::field(name), compare(None, Some(after), node.field(name).0));
        }
    }
    change
}

fn by_item<'v>(old: Option<&'v Value>, new: Option<&'v Value>, node: Node<'_>) -> Change {
    let items = |value: Option<&'v Value>| value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let (old, new) = (index(items(old), node), index(items(new), node));
    let mut change = Change::default();
    for element in old.keys().chain(new.keys().filter(|element| !old.contains_key(*element))) {
        let child = match (old.get(element).map(Vec::as_slice), new.get(element).map(Vec::as_slice)) {
            (before, after) if before == after => continue,
            (Some([before]), Some([after])) => compare(Some(before), Some(after), node.item()),
            (Some([before]), None) => present(compare(Some(before), None, node.item()), false),
            (None, Some([after])) => present(compare(None, Some(after), node.item()), true),
            // Duplicates are one thing together.
            (before, after) => Change::leaf(
                before.and_then(|items| items.first().copied()),
                after.and_then(|items| items.first().copied()),
            ),
        };
        change.put(element, child);
    }
    change
}

/// An item that came or went: its being there counts as well as its fields.
fn present(mut change: Change, came: bool) -> Change {
    if came {
        change.added.member = true;
    } else {
        change.removed.member = true;
    }
    change
}
