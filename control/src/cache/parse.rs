//! Reads an object's metadata and selectable fields from its bytes in one pass, without building a tree.
//!
//! Values that repeat between objects are interned, so that 10,000 pods of one Deployment share one label set.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::ops::Range;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use super::entry::Meta;
use super::fields::Fields;
use crate::store::Key;

/// Interned values; when their number has doubled, those that nobody else holds are dropped.
#[derive(Debug)]
struct Pool<T: ?Sized + Hash + Eq> {
    values: HashSet<Arc<T>>,
    clean_at: usize,
}

impl<T: ?Sized + Hash + Eq> Default for Pool<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), clean_at: 1024 }
    }
}

impl<T: ?Sized + Hash + Eq> Pool<T> {
    fn share(&mut self, value: Arc<T>) -> Arc<T> {
        if let Some(known) = self.values.get(&value) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.clean_at {
            self.values.retain(|v| Arc::strong_count(v) > 1);
            self.clean_at = (self.values.len() * 2).max(1024);
        }
        self.values.insert(Arc::clone(&value));
        value
    }
}

/// Makes [`Meta`]s that share what they have in common.
#[derive(Debug, Default)]
pub(super) struct Parser {
    strings: Pool<str>,
    labels: Pool<[(Box<str>, Box<str>)]>,
}

impl Parser {
    /// An object that is not what the API server writes has the names of its key and nothing else.
    pub(super) fn meta(&mut self, key: &Key, bytes: &[u8], fields: &Arc<Fields>) -> Meta {
        let paths: Vec<Path<'_>> = fields.places().flatten().enumerate().collect();
        let mut values = vec![None; paths.len()];
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let walk = Root { paths: &paths, values: &mut values };
        let raw = walk.deserialize(&mut json).unwrap_or_else(|error| {
            tracing::warn!(?key, %error, "a stored object cannot be read");
            RawMeta::default()
        });
        let mut values = values.into_iter();
        let mut from_key = key.as_str().rsplitn(3, '/');
        let (key_name, key_namespace) = (from_key.next().unwrap_or_default(), from_key.next().unwrap_or_default());
        let name = if raw.name.is_empty() { key_name.into() } else { raw.name.into() };
        let namespace = if raw.namespace.is_empty() { key_namespace } else { &raw.namespace };
        Meta {
            namespace: self.strings.share(namespace.into()),
            name,
            uid: raw.uid.into(),
            labels: self.labels.share(raw.labels.0.into()),
            owners: raw.owners.into_iter().map(|owner| owner.uid.into()).collect(),
            known: Arc::clone(fields),
            fields: fields
                .places()
                .zip(fields.absent())
                .map(|(places, absent)| {
                    let found = values.by_ref().take(places.count()).flatten();
                    let found = found.filter(|value: &String| !value.is_empty()).reduce(|first, _| first);
                    self.strings.share(found.as_deref().unwrap_or(absent).into())
                })
                .collect(),
            deleting: raw.deleting.is_some(),
        }
    }
}

/// `.metadata`, as far as it is kept.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawMeta<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    uid: Cow<'a, str>,
    labels: Labels,
    #[serde(borrow, rename = "ownerReferences")]
    owners: Vec<Owner<'a>>,
    #[serde(rename = "deletionTimestamp")]
    deleting: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Owner<'a> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
}

#[derive(Default)]
struct Labels(Vec<(Box<str>, Box<str>)>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Labels;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Labels, E> {
                Ok(Labels::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Labels(pairs))
            }
        }
        deserializer.deserialize_any(Pairs)
    }
}

/// A field's place among the values, and the segments of its path that are still ahead.
type Path<'p> = (usize, &'p [Box<str>]);

/// The whole object.
struct Root<'p, 'v> {
    paths: &'p [Path<'p>],
    values: &'v mut Vec<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for Root<'_, '_> {
    type Value = RawMeta<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawMeta<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Root<'_, '_> {
    type Value = RawMeta<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawMeta<'de>, A::Error> {
        let mut meta = RawMeta::default();
        while let Some(KeyText(key)) = map.next_key()? {
            if key == "metadata" {
                meta = map.next_value()?;
                continue;
            }
            descend(&mut map, &key, self.paths, self.values)?;
        }
        Ok(meta)
    }
}

/// A map's key, borrowed where it has no escapes.
#[derive(Deserialize)]
struct KeyText<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads the value under `key`: into it if a path leads there, else past it.
fn descend<'de, A: MapAccess<'de>>(
    map: &mut A,
    key: &str,
    paths: &[Path<'_>],
    values: &mut Vec<Option<String>>,
) -> Result<(), A::Error> {
    let inside: Vec<Path<'_>> = paths
        .iter()
        .filter_map(|(index, path)| {
            path.split_first().filter(|(first, _)| ***first == *key).map(|(_, rest)| (*index, rest))
        })
        .collect();
    if inside.is_empty() {
        map.next_value::<IgnoredAny>()?;
        return Ok(());
    }
    map.next_value_seed(Walk { paths: &inside, values })
}

/// A value that paths lead to or through.
struct Walk<'p, 'v> {
    paths: &'p [Path<'p>],
    values: &'v mut Vec<Option<String>>,
}

impl Walk<'_, '_> {
    fn found(self, value: impl fmt::Display) {
        for (index, _) in self.paths.iter().filter(|(_, rest)| rest.is_empty()) {
            if let Some(slot) = self.values.get_mut(*index) {
                *slot = Some(value.to_string());
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.found(value);
        Ok(())
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.found(value);
        Ok(())
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.found(value);
        Ok(())
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.found(value);
        Ok(())
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        self.found(value);
        Ok(())
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(KeyText(key)) = map.next_key()? {
            descend(&mut map, &key, self.paths, self.values)?;
        }
        Ok(())
    }
}

/// Where in the bytes the digits of `.metadata.resourceVersion` are.
pub(super) fn resource_version(bytes: &[u8]) -> Option<Range<usize>> {
    #[derive(Deserialize)]
    struct Object<'a> {
        #[serde(borrow)]
        metadata: Version<'a>,
    }
    #[derive(Deserialize)]
    struct Version<'a> {
        #[serde(rename = "resourceVersion")]
        resource_version: &'a str,
    }
    let object: Object<'_> = serde_json::from_slice(bytes).ok()?;
    let version = object.metadata.resource_version;
    let start = (version.as_ptr() as usize).checked_sub(bytes.as_ptr() as usize)?;
    Some(start..start + version.len())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn parse(value: &serde_json::Value, fields: &[&str]) -> Meta {
        let fields = Arc::new(Fields::new(fields.iter().map(|path| (*path, ""))));
        Parser::default().meta(&Key::from_stored("core/pods/ns/name"), value.to_string().as_bytes(), &fields)
    }

    #[test]
    fn metadata_and_selectable_fields_are_read_whatever_their_type() {
        let object = json!({
            "spec": {"nodeName": "n1", "hostNetwork": true, "nested": {"deep": 7}},
            "status": {"phase": "Run\"ning"},
            "metadata": {
                "name": "a", "namespace": "b", "uid": "u", "labels": {"app": "x\u{e9}", "k": ""},
                "ownerReferences": [{"uid": "o1", "kind": "X"}, {"uid": "o2"}],
                "deletionTimestamp": "2026-01-01T00:00:00Z"
            },
            "type": "Opaque"
        });
        let meta = parse(
            &object,
            &["spec.nodeName", "spec.hostNetwork", "spec.nested.deep", "status.phase", "type", "no.where"],
        );
        for (path, value) in [
            ("spec.nodeName", "n1"),
            ("spec.hostNetwork", "true"),
            ("spec.nested.deep", "7"),
            ("status.phase", "Run\"ning"),
            ("type", "Opaque"),
            ("no.where", ""),
            ("metadata.name", "a"),
        ] {
            assert_eq!(meta.field(path), value, "{path}");
        }
        assert_eq!((&*meta.name, &*meta.namespace, &*meta.uid, meta.deleting), ("a", "b", "u", true));
        assert_eq!(meta.label("app"), Some("x\u{e9}"));
        assert_eq!(meta.owners.iter().map(|o| &**o).collect::<Vec<_>>(), ["o1", "o2"]);
    }

    #[test]
    fn an_object_that_is_no_json_has_the_names_of_its_key() {
        let meta = Parser::default().meta(
            &Key::from_stored("core/pods/ns/name"),
            b"{nope",
            &Arc::new(Fields::new([("a", "false")])),
        );
        assert_eq!((&*meta.namespace, &*meta.name, &*meta.fields[0]), ("ns", "name", "false"));
    }

    #[test]
    fn equal_label_sets_are_one() {
        let mut parser = Parser::default();
        let object = json!({"metadata": {"name": "a", "labels": {"app": "x"}}}).to_string();
        let one = parser.meta(&Key::from_stored("core/pods/n/a"), object.as_bytes(), &Arc::default());
        let two = parser.meta(&Key::from_stored("core/pods/n/b"), object.as_bytes(), &Arc::default());
        assert!(Arc::ptr_eq(&one.labels, &two.labels) && Arc::ptr_eq(&one.namespace, &two.namespace));
    }

    #[test]
    fn the_resource_version_found_is_that_of_the_object_and_no_other() {
        let text = r#"{"spec":{"resourceVersion":"1"},"metadata":{"annotations":{"resourceVersion":"2"},"resourceVersion":"33"}}"#;
        let range = resource_version(text.as_bytes()).unwrap();
        assert_eq!(&text[range], "33");
    }
}
