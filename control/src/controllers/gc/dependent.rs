//! What the collector reads of an object. Every write of a kind that no shared cache holds passes here, so it reads no more than
//! it needs: of a small object, what the server keeps for itself (`managedFields`) is the larger part.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use kube::api::ApiResource;
use kube::core::DynamicResourceScope;
use serde::Deserialize;

/// An object of any kind, as far as the graph knows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Document")]
pub(super) struct Dependent {
    /// The identity, owners, finalizers and deletion alone.
    pub(super) metadata: ObjectMeta,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl From<Document> for Dependent {
    fn from(Document { metadata }: Document) -> Self {
        let Metadata { name, namespace, uid, resource_version, deletion_timestamp, finalizers, owner_references } =
            metadata;
        let metadata = ObjectMeta {
            name,
            namespace,
            uid,
            resource_version,
            deletion_timestamp,
            finalizers,
            owner_references,
            ..ObjectMeta::default()
        };
        Self { metadata }
    }
}

impl Resource for Dependent {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    /// The server is asked for `PartialObjectMetadata`.
    fn metadata_api() -> bool {
        true
    }

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.kind)
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.group)
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.version)
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.api_version)
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.plural)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_has_what_the_graph_reads_of_an_object_and_nothing_else() {
        let owner =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "1", "blockOwnerDeletion": true});
        let metadata = json!({
            "name": "n", "namespace": "ns", "uid": "2", "resourceVersion": "3", "deletionTimestamp": "2026-01-02T03:04:05Z",
            "finalizers": ["foregroundDeletion"], "ownerReferences": [owner],
        });
        let mut sent = metadata.clone();
        for (field, value) in [("managedFields", json!([{"manager": 1}])), ("labels", json!({"a": "b"}))] {
            sent.as_object_mut().unwrap().insert(field.to_owned(), value);
        }
        let read: Dependent =
            serde_json::from_value(json!({"kind": "PartialObjectMetadata", "metadata": sent})).unwrap();
        assert_eq!(serde_json::to_value(read.metadata).unwrap(), metadata);
    }
}
