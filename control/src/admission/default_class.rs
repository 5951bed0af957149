//! What names no class gets the default one, if there is one: a claim its StorageClass, an Ingress its IngressClass. An empty
//! name names none on purpose.

use async_trait::async_trait;
use serde_json::Value;
use wherry_api::object;
use wherry_api::resource::GroupResource;
use wherry_api::status::ApiError;

use super::{Plugin, Request};
use crate::cache::Cache;

/// Whose class it is.
#[derive(Clone, Copy, Debug)]
struct Of {
    /// The plugin's name.
    plugin: &'static str,
    group: &'static str,
    plural: &'static str,
    classes: (&'static str, &'static str),
    field: &'static str,
    /// Where the class was named before there was a field for it.
    annotation: &'static str,
    /// On a class: it is the default.
    is_default: &'static [&'static str],
}

const STORAGE: Of = Of {
    plugin: "DefaultStorageClass",
    group: "",
    plural: "persistentvolumeclaims",
    classes: ("storage.k8s.io", "storageclasses"),
    field: "spec.storageClassName",
    annotation: "volume.beta.kubernetes.io/storage-class",
    is_default: &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"],
};

const INGRESS: Of = Of {
    plugin: "DefaultIngressClass",
    group: "networking.k8s.io",
    plural: "ingresses",
    classes: ("networking.k8s.io", "ingressclasses"),
    field: "spec.ingressClassName",
    annotation: "kubernetes.io/ingress.class",
    is_default: &["ingressclass.kubernetes.io/is-default-class"],
};

/// Kubernetes' `DefaultStorageClass` and `DefaultIngressClass`.
#[derive(Debug)]
pub struct DefaultClass {
    cache: Cache,
    of: Of,
}

impl DefaultClass {
    pub fn storage(cache: Cache) -> Self {
        Self { cache, of: STORAGE }
    }

    pub fn ingress(cache: Cache) -> Self {
        Self { cache, of: INGRESS }
    }
}

#[async_trait]
impl Plugin for DefaultClass {
    fn name(&self) -> &'static str {
        self.of.plugin
    }

    async fn mutate(&self, request: &Request<'_>, object: &mut Value) -> Result<(), ApiError> {
        let Of { group, plural, classes: (of, classes), field, annotation, is_default, .. } = self.of;
        if !request.creates(group, plural) {
            return Ok(());
        }
        let named = object::at(object, field).is_some_and(|name| !name.is_null());
        if named || object::annotation(object, annotation).is_some() {
            return Ok(());
        }
        let all = self.cache.all(&GroupResource::new(of, classes), "");
        let classes = all.iter().filter_map(|entry| entry.read::<Value>().ok()).collect();
        if let Some(class) = default(classes, is_default) {
            object::set_at(object, field, class);
        }
        Ok(())
    }
}

/// The name of the newest default class; of two of one age, the first by name.
fn default(mut classes: Vec<Value>, is_default: &[&str]) -> Option<String> {
    classes.retain(|class| is_default.iter().any(|key| object::annotation(class, key) == Some("true")));
    let name = |class: &Value| object::name(class).to_owned();
    classes.sort_by_key(|class| (std::cmp::Reverse(object::creation_timestamp(class)), name(class)));
    classes.first().map(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_default_wins() {
        let class = |name: &str, second: u32, is: &str| {
            json!({"metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
                "annotations": {STORAGE.is_default[0]: is}}})
        };
        let classes = vec![class("a", 1, "true"), class("c", 2, "true"), class("b", 2, "true"), class("d", 3, "false")];
        assert_eq!(default(classes, STORAGE.is_default).as_deref(), Some("b"));
        assert_eq!(default(vec![class("d", 3, "false")], STORAGE.is_default), None);
    }
}
