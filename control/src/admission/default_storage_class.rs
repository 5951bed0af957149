//! A claim that names no class gets the default one, if there is one; `""` names none on purpose.

use async_trait::async_trait;
use serde_json::Value;
use wherry_api::object;
use wherry_api::resource::GroupResource;
use wherry_api::status::ApiError;

use super::{Plugin, Request};
use crate::cache::Cache;

const IS_DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// Where a claim named its class before there was a field for it.
const NAMED: &str = "volume.beta.kubernetes.io/storage-class";

/// Kubernetes' plugin of that name.
#[derive(Debug)]
pub struct DefaultStorageClass {
    cache: Cache,
    classes: GroupResource,
}

impl DefaultStorageClass {
    pub fn new(cache: Cache) -> Self {
        Self { cache, classes: GroupResource { group: "storage.k8s.io".into(), resource: "storageclasses".into() } }
    }
}

#[async_trait]
impl Plugin for DefaultStorageClass {
    async fn mutate(&self, request: &Request<'_>, claim: &mut Value) -> Result<(), ApiError> {
        let named = object::at(claim, "spec.storageClassName").is_some_and(|name| !name.is_null())
            || object::annotation(claim, NAMED).is_some();
        if !request.creates("", "persistentvolumeclaims") || named {
            return Ok(());
        }
        let all = self.cache.all(&self.classes, "");
        let classes = all.iter().filter_map(|entry| serde_json::from_slice::<Value>(&entry.bytes).ok()).collect();
        if let Some(class) = default(classes) {
            object::set_at(claim, "spec.storageClassName", class);
        }
        Ok(())
    }
}

/// The name of the newest default class; of two of one age, the first by name.
fn default(mut classes: Vec<Value>) -> Option<String> {
    classes.retain(|class| IS_DEFAULT.iter().any(|key| object::annotation(class, key) == Some("true")));
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
                "annotations": {IS_DEFAULT[0]: is}}})
        };
        let classes = vec![class("a", 1, "true"), class("c", 2, "true"), class("b", 2, "true"), class("d", 3, "false")];
        assert_eq!(default(classes).as_deref(), Some("b"));
        assert_eq!(default(vec![class("d", 3, "false")]), None);
    }
}
