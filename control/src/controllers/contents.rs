//! What a collection of any kind holds, for those who empty it: an object whose metadata does not have its type's shape must go
//! like any other, so nothing but what is needed is read of it.

use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams};
use kube::core::Request;
use kube::{Client, Error, Resource};
use serde_json::Value;
use wherry_api::object;

/// An object of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: String,
    /// Empty: it is in none.
    pub(super) namespace: String,
    pub(super) finalizers: Vec<String>,
}

impl Found {
    fn of(object: &Value) -> Self {
        Self {
            name: object::name(object).to_owned(),
            namespace: object::namespace(object).to_owned(),
            finalizers: object::finalizers(object).into_iter().map(str::to_owned).collect(),
        }
    }
}

/// The objects of one resource, in a namespace or in all (`""`).
#[derive(Clone)]
pub(super) struct Contents<'a> {
    client: &'a Client,
    request: Request,
}

impl<'a> Contents<'a> {
    pub(super) fn of(client: &'a Client, resource: &ApiResource, namespace: &str) -> Self {
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        Self { client, request: Request::new(DynamicObject::url_path(resource, namespace)) }
    }

    pub(super) async fn list(&self) -> kube::Result<Vec<Found>> {
        let request = self.request.list_metadata(&ListParams::default()).map_err(Error::BuildRequest)?;
        let list: Value = self.client.request(request).await?;
        Ok(list.get("items").and_then(Value::as_array).into_iter().flatten().map(Found::of).collect())
    }

    pub(super) async fn delete_all(&self, how: &DeleteParams) -> kube::Result<()> {
        let request = self.request.delete_collection(how, &ListParams::default()).map_err(Error::BuildRequest)?;
        self.client.request::<Value>(request).await.map(drop)
    }

    pub(super) async fn delete(&self, name: &str, how: &DeleteParams) -> kube::Result<()> {
        let request = self.request.delete(name, how).map_err(Error::BuildRequest)?;
        self.client.request::<Value>(request).await.map(drop)
    }
}
