//! Objects as clients of lists and watches read them: one that does not have its type's shape must not hide all the others.
//!
//! What must stay true: an object that can be read costs one look at its bytes more than its type does.

use std::borrow::Cow;
use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_core::{ApiResource, DynamicResourceScope, Resource};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An object of a list or a watch, if it can be read.
#[derive(Clone, Debug)]
pub enum Lenient<K> {
    Read(K),
    Unreadable(Box<Unreadable>),
}

/// What is known of an object that does not have its type's shape.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// At least name, namespace, uid and resourceVersion.
    pub meta: ObjectMeta,
    pub why: String,
}

/// An object of whatever type, as it came: lists and watches of all types are one piece of code.
#[derive(Clone, Debug)]
pub struct Raw {
    /// Name, namespace, uid and resourceVersion alone.
    meta: ObjectMeta,
    text: Box<RawValue>,
}

impl Raw {
    /// As an object of this type.
    pub fn read<K: DeserializeOwned>(&self) -> Lenient<K> {
        let text = self.text.get();
        serde_json::from_str(text).map_or_else(
            |error| {
                let meta = serde_json::from_str(text).map_or_else(|_| self.meta.clone(), |Whole { metadata }| metadata);
                Lenient::Unreadable(Box::new(Unreadable { meta, why: error.to_string() }))
            },
            Lenient::Read,
        )
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let Bare { metadata: Names { name, namespace, uid, resource_version } } =
            serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        Ok(Self { meta: ObjectMeta { name, namespace, uid, resource_version, ..ObjectMeta::default() }, text })
    }
}

#[derive(Deserialize)]
struct Whole {
    metadata: ObjectMeta,
}

#[derive(Deserialize)]
struct Bare {
    metadata: Names,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Names {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
}

/// Of a list or a watch.
impl<'de, K: DeserializeOwned> Deserialize<'de> for Lenient<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Raw::deserialize(deserializer).map(|raw| raw.read())
    }
}

impl Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(dt: &ApiResource) -> Cow<'_, str> {
        dt.kind.as_str().into()
    }

    fn group(dt: &ApiResource) -> Cow<'_, str> {
        dt.group.as_str().into()
    }

    fn version(dt: &ApiResource) -> Cow<'_, str> {
        dt.version.as_str().into()
    }

    fn plural(dt: &ApiResource) -> Cow<'_, str> {
        dt.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

impl<K: Resource> Resource for Lenient<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Read(object) => object.meta(),
            Self::Unreadable(unreadable) => &unreadable.meta,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Read(object) => object.meta_mut(),
            Self::Unreadable(unreadable) => &mut unreadable.meta,
        }
    }
}

/// Of which unreadable objects a log tells already. Bound: one for each of them.
#[derive(Debug, Default)]
pub struct Told(HashMap<(String, String), String>);

impl Told {
    /// What is to be told of an object, as `NAMESPACE/NAME` and why it cannot be read; `None`: nothing, or nothing new.
    pub fn news<K: Resource>(&mut self, object: &Lenient<K>) -> Option<(String, String)> {
        if self.0.is_empty() && matches!(object, Lenient::Read(_)) {
            return None;
        }
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        let (namespace, name) = (part(&object.meta().namespace), part(&object.meta().name));
        let shown = if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") };
        match object {
            Lenient::Read(_) => {
                self.0.remove(&(namespace, name));
                None
            }
            Lenient::Unreadable(unreadable) => {
                let before = self.0.insert((namespace, name), unreadable.why.clone());
                (before.as_ref() != Some(&unreadable.why)).then(|| (shown, unreadable.why.clone()))
            }
        }
    }

    /// The object is gone.
    pub fn forget<K: Resource>(&mut self, object: &Lenient<K>) {
        if !self.0.is_empty() {
            let part = |part: &Option<String>| part.clone().unwrap_or_default();
            self.0.remove(&(part(&object.meta().namespace), part(&object.meta().name)));
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    const BAD: &str =
        r#"{"metadata": {"name": "b", "namespace": "n", "labels": {"a": "b"}}, "spec": {"containers": 1}}"#;

    #[test]
    fn one_bad_object_does_not_spoil_a_list() {
        let text = format!(
            r#"[{{"metadata": {{"name": "a"}}}}, {BAD}, {{"metadata": {{"name": "c", "labels": 1, "uid": "u"}}}}]"#
        );
        let list: Vec<Lenient<Pod>> = serde_json::from_str(&text).unwrap();
        let names: Vec<_> = list.iter().map(|object| object.meta().name.clone().unwrap()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(matches!(list.first(), Some(Lenient::Read(_))));
        let Some(Lenient::Unreadable(b)) = list.get(1) else { panic!("{list:?}") };
        assert_eq!(b.meta.labels.as_ref().unwrap().get("a").unwrap(), "b");
        assert!(b.why.starts_with("invalid type: integer `1`"), "{}", b.why);
        assert_eq!(list.get(2).unwrap().meta().uid.as_deref(), Some("u"));
    }

    #[test]
    fn an_unreadable_object_is_told_of_once() {
        let (bad, mut told) = (serde_json::from_str::<Lenient<Pod>>(BAD).unwrap(), Told::default());
        assert_eq!(told.news(&bad).unwrap().0, "n/b");
        assert_eq!(told.news(&bad), None);
        let good = r#"{"metadata": {"name": "b", "namespace": "n"}}"#;
        assert_eq!(told.news(&serde_json::from_str::<Lenient<Pod>>(good).unwrap()), None);
        assert!(told.news(&bad).is_some(), "it was good meanwhile");
        told.forget(&bad);
        assert!(told.news(&bad).is_some());
    }
}
