//! Lists and maps of expressions' values, and the keys of maps.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::{Map as JsonMap, Value as Json};

use super::{Text, Val, float_to_int};
use crate::cel::escape;
use crate::cel::types::{ListKind, Type};

/// A list, of an object or made by an expression.
#[derive(Clone, Debug)]
pub enum List<'a> {
    Json(&'a [Json], Type, ListKind),
    Made(Arc<[Val<'a>]>),
}

/// A map or object.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// The type says how its parts are read, and which fields are to be seen.
    Json(&'a JsonMap<String, Json>, Type),
    Made(Arc<BTreeMap<Key, Val<'a>>>),
}

/// A key of a map that an expression made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Arc<str>),
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(list, ..) => list.len(),
            Self::Made(list) => list.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, index: usize) -> Option<Val<'a>> {
        match self {
            Self::Json(list, item, _) => list.get(index).map(|json| Val::of(json, item)),
            Self::Made(list) => list.get(index).cloned(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Val<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    pub fn kind(&self) -> &ListKind {
        match self {
            Self::Json(_, _, kind) => kind,
            Self::Made(_) => &ListKind::Atomic,
        }
    }

    /// Sets and list maps are the same as what has the same items in any order.
    pub(super) fn same(&self, other: &Self) -> bool {
        if self.len() != other.len() {
            return false;
        }
        if *self.kind() == ListKind::Atomic {
            return self.iter().zip(other.iter()).all(|(a, b)| a.same(&b));
        }
        let mut others = Known::new(digest);
        other.iter().for_each(|item| others.add(item));
        self.iter().all(|item| others.find(&item, Val::same).is_some())
    }

    /// Two lists as one, by the rules of this one.
    pub fn joined(&self, other: &Self) -> Vec<Val<'a>> {
        match self.kind() {
            ListKind::Atomic => self.iter().chain(other.iter()).collect(),
            ListKind::Set => {
                let mut known = Known::new(digest);
                self.iter().for_each(|item| known.add(item));
                for item in other.iter() {
                    if known.find(&item, Val::same).is_none() {
                        known.add(item);
                    }
                }
                known.items
            }
            ListKind::Map(keys) => {
                let keys: Vec<Val<'_>> =
                    keys.iter().map(|key| Val::from(escape::escape(key).unwrap_or_else(|| key.clone()))).collect();
                let part = |item: &Val<'a>, key: &Val<'_>| if let Val::Map(map) = item { map.get(key) } else { None };
                let same = |a: &Val<'a>, b: &Val<'a>| {
                    keys.iter().all(|key| match (part(a, key), part(b, key)) {
                        (Some(a), Some(b)) => a.same(&b),
                        (a, b) => a.is_none() && b.is_none(),
                    })
                };
                let mut known = Known::new(|item: &Val<'a>| {
                    keys.iter().fold(0, |sum: u64, key| {
                        sum.rotate_left(1).wrapping_add(part(item, key).as_ref().map_or(0, digest))
                    })
                });
                self.iter().for_each(|item| known.add(item));
                for item in other.iter() {
                    match known.find(&item, same) {
                        Some(at) => *at = item,
                        None => known.add(item),
                    }
                }
                known.items
            }
        }
    }
}

/// Items that are found by what they are, so that bringing two lists together takes what they are long, not their product.
struct Known<'a, D> {
    digest: D,
    items: Vec<Val<'a>>,
    places: HashMap<u64, Vec<usize>>,
}

impl<'a, D: Fn(&Val<'a>) -> u64> Known<'a, D> {
    fn new(digest: D) -> Self {
        Self { digest, items: Vec::new(), places: HashMap::new() }
    }

    fn add(&mut self, item: Val<'a>) {
        self.places.entry((self.digest)(&item)).or_default().push(self.items.len());
        self.items.push(item);
    }

    fn find(&mut self, item: &Val<'a>, same: impl Fn(&Val<'a>, &Val<'a>) -> bool) -> Option<&mut Val<'a>> {
        let places = self.places.get(&(self.digest)(item))?;
        let at = places.iter().copied().find(|at| self.items.get(*at).is_some_and(|known| same(known, item)))?;
        self.items.get_mut(at)
    }
}

/// A number that values have in common that are the same.
fn digest(value: &Val<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match value {
        Val::Bool(b) => b.hash(&mut hasher),
        Val::Int(_) | Val::Uint(_) | Val::Double(_) => (value.as_double() + 0.0).to_bits().hash(&mut hasher),
        Val::String(text) => text.hash(&mut hasher),
        Val::Bytes(bytes) => bytes.hash(&mut hasher),
        Val::Timestamp(time) => time.hash(&mut hasher),
        Val::Duration(nanos) => nanos.hash(&mut hasher),
        // Whatever the order.
        Val::List(list) => list.iter().fold(0, |sum: u64, item| sum.wrapping_add(digest(&item))).hash(&mut hasher),
        Val::Map(map) => {
            let entry = |(key, value): (Val<'_>, Val<'_>)| {
                let mut hasher = DefaultHasher::new();
                (digest(&key), digest(&value)).hash(&mut hasher);
                hasher.finish()
            };
            map.entries().map(entry).fold(0, u64::wrapping_add).hash(&mut hasher);
        }
        _ => {}
    }
    hasher.finish()
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(map, _) => map.len(),
            Self::Made(map) => map.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A value by its key.
    pub fn get(&self, key: &Val<'_>) -> Option<Val<'a>> {
        match self {
            Self::Json(map, ty) => match (key, ty) {
                (Val::String(key), Type::Object(object)) => {
                    let field = object.field(key)?;
                    map.get(&field.name).map(|json| Val::of(json, &field.decl.ty))
                }
                (Val::String(key), Type::Map(of)) => map.get(&**key).map(|json| Val::of(json, &of.value.ty)),
                (Val::String(key), _) => map.get(&**key).map(|json| Val::of(json, &Type::Dyn)),
                _ => None,
            },
            Self::Made(map) => {
                let key = Key::of(key)?;
                map.get(&key).or_else(|| map.get(&key.other_sign()?)).cloned()
            }
        }
    }

    pub fn keys(&self) -> Vec<Val<'a>> {
        match self {
            Self::Json(map, _) => map.keys().map(|key| Val::str(key)).collect(),
            Self::Made(map) => map.keys().map(Key::val).collect(),
        }
    }

    pub(super) fn same(&self, other: &Self) -> bool {
        if let (Self::Json(a, Type::Dyn), Self::Json(b, Type::Dyn)) = (self, other)
            && std::ptr::eq(*a, *b)
        {
            return true;
        }
        self.len() == other.len() && self.entries().all(|(key, a)| other.entry(&key).is_some_and(|b| a.same(&b)))
    }

    /// All entries, by the keys of the object.
    pub fn entries(&self) -> Box<dyn Iterator<Item = (Val<'a>, Val<'a>)> + '_> {
        match self {
            Self::Json(map, ty) => {
                Box::new(map.iter().map(move |(key, json)| (Val::str(key), Val::of(json, &below(ty)))))
            }
            Self::Made(map) => Box::new(map.iter().map(|(key, value)| (key.val(), value.clone()))),
        }
    }

    fn entry(&self, key: &Val<'_>) -> Option<Val<'a>> {
        match (self, key) {
            (Self::Json(map, ty), Val::String(key)) => map.get(&**key).map(|json| Val::of(json, &below(ty))),
            (Self::Json(..), _) => None,
            (Self::Made(map), key) => map.get(&Key::of(key)?).cloned(),
        }
    }
}

fn below(ty: &Type) -> Type {
    match ty {
        Type::Map(of) => of.value.ty.clone(),
        _ => Type::Dyn,
    }
}

impl Key {
    pub fn of(value: &Val<'_>) -> Option<Self> {
        Some(match value {
            Val::Bool(b) => Self::Bool(*b),
            Val::Int(i) => Self::Int(*i),
            Val::Uint(u) => Self::Uint(*u),
            Val::String(s) => Self::String((&**s).into()),
            Val::Double(d) if d.fract() == 0.0 && d.abs() < 9e15 => Self::Int(float_to_int(*d)),
            _ => return None,
        })
    }

    /// Bytes of its text.
    pub fn length(&self) -> usize {
        if let Self::String(text) = self { text.len() } else { 0 }
    }

    fn other_sign(&self) -> Option<Self> {
        match self {
            Self::Int(i) => u64::try_from(*i).ok().map(Self::Uint),
            Self::Uint(u) => i64::try_from(*u).ok().map(Self::Int),
            _ => None,
        }
    }

    pub fn val<'a>(&self) -> Val<'a> {
        match self {
            Self::Bool(b) => Val::Bool(*b),
            Self::Int(i) => Val::Int(*i),
            Self::Uint(u) => Val::Uint(*u),
            Self::String(s) => Val::String(Text::Shared(Arc::clone(s))),
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Bool(b) => b.to_string(),
            Self::Int(i) => i.to_string(),
            Self::Uint(u) => u.to_string(),
            Self::String(s) => s.to_string(),
        }
    }
}
