//! Sets of fields, and FieldsV1, the form in which `metadata.managedFields` writes them.
//!
//! A set is a tree. Its elements are kept as FieldsV1 writes them (`f:name`, `k:{"name":"x"}`, `v:"x"`, `i:0`) in one
//! canonical spelling, so that equal elements are equal texts. A field with children may be a member itself (`.`) or not.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value};

use super::element;

/// Why a tree is not FieldsV1.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FieldsError {
    #[error("a set of fields must be an object")]
    NoMap,
    #[error("{0:?} is not a path element")]
    Element(String),
}

/// A set of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(pub(super) BTreeMap<Box<str>, Branch>);

/// What a set says of one path and of those below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Branch {
    pub member: bool,
    pub below: FieldSet,
}

impl Branch {
    pub(super) fn leaf() -> Self {
        Self { member: true, below: FieldSet::default() }
    }

    pub fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }

    fn keep(self) -> Option<Self> {
        (!self.is_empty()).then_some(self)
    }
}

impl FieldSet {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads FieldsV1.
    pub fn parse(fields: &Value) -> Result<Self, FieldsError> {
        let map = fields.as_object().ok_or(FieldsError::NoMap)?;
        let mut set = Self::default();
        for (key, below) in map.iter().filter(|(key, _)| *key != ".") {
            let element = element::canonical(key).ok_or_else(|| FieldsError::Element(key.clone()))?;
            let children = below.as_object().ok_or(FieldsError::NoMap)?;
            let member = children.is_empty() || children.contains_key(".");
            set.put(element, Branch { member, below: Self::parse(below)? });
        }
        Ok(set)
    }

    /// Writes FieldsV1.
    pub fn print(&self) -> Value {
        let print = |branch: &Branch| {
            let mut below = branch.below.print();
            if let Value::Object(map) = &mut below
                && branch.member
                && !map.is_empty()
            {
                map.insert(".".into(), Value::Object(Map::new()));
            }
            below
        };
        Value::Object(self.0.iter().map(|(element, branch)| (element.to_string(), print(branch))).collect())
    }

    /// Adds what a branch says of an element; an empty branch says nothing.
    pub(super) fn put(&mut self, element: Box<str>, branch: Branch) {
        if branch.is_empty() {
            return;
        }
        match self.0.entry(element) {
            Entry::Vacant(free) => drop(free.insert(branch)),
            Entry::Occupied(mut taken) => {
                let present = taken.get_mut();
                present.member |= branch.member;
                present.below.extend(branch.below);
            }
        }
    }

    /// Adds all paths of another set.
    pub fn extend(&mut self, other: Self) {
        for (element, branch) in other.0 {
            self.put(element, branch);
        }
    }

    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        self.extend(other.clone());
        self
    }

    pub(super) fn branch(&self, element: &str) -> Option<&Branch> {
        self.0.get(element)
    }

    /// The paths that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let both = self.0.iter().filter_map(|(element, mine)| {
            let theirs = other.branch(element)?;
            let below = mine.below.intersection(&theirs.below);
            Some((element.clone(), Branch { member: mine.member && theirs.member, below }.keep()?))
        });
        Self(both.collect())
    }

    /// The paths that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let left = self.0.iter().filter_map(|(element, mine)| {
            let Some(theirs) = other.branch(element) else { return Some((element.clone(), mine.clone())) };
            let below = mine.below.difference(&theirs.below);
            Some((element.clone(), Branch { member: mine.member && !theirs.member, below }.keep()?))
        });
        Self(left.collect())
    }

    /// Removes an element and everything below it.
    pub(super) fn remove(&mut self, element: &str) {
        self.0.remove(element);
    }

    /// Lets `change` edit what is below an element.
    pub(super) fn below(&mut self, element: &str, change: impl FnOnce(&mut Branch)) {
        if let Some(branch) = self.0.get_mut(element) {
            change(branch);
            if branch.is_empty() {
                self.0.remove(element);
            }
        }
    }

    /// How many paths the set has.
    pub fn count(&self) -> usize {
        self.0.values().map(|branch| usize::from(branch.member) + branch.below.count()).sum()
    }

    /// Every path of the set, as messages write it (`.spec.containers[name="a"].image`).
    pub fn paths(&self) -> Vec<String> {
        self.first_paths(usize::MAX)
    }

    /// The first of them, until they have this many bytes.
    pub fn first_paths(&self, bytes: usize) -> Vec<String> {
        let mut all = Vec::new();
        self.collect(&mut String::new(), &mut all, &mut { bytes });
        all
    }

    fn collect(&self, path: &mut String, all: &mut Vec<String>, room: &mut usize) {
        for (element, branch) in &self.0 {
            if *room == 0 {
                return;
            }
            let length = path.len();
            element::show(element, path);
            if branch.member {
                *room = room.saturating_sub(path.len());
                all.push(path.clone());
            }
            branch.below.collect(path, all, room);
            path.truncate(length);
        }
    }
}
