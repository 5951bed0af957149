//! A request in the version that a registration's rules name (`matchPolicy: Equivalent`).
//!
//! The versions of a kind are the same objects, and so are two groups that serve one kind. A registration that names one of
//! them is asked about all; it is shown the objects in the version that it names, and what it changes is converted back to
//! the request's. What a subresource exchanges (a Scale) is the same whatever the version of its parent. What must stay true:
//! nothing is converted for a registration that names the request's own version.

use std::sync::Arc;

use serde_json::Value;
use wherry_api::resource::Descriptor;
use wherry_api::status::ApiError;

use super::super::Request;
use super::Objects;
use crate::server::versions;

/// In which version a registration is about a request.
#[derive(Clone, Debug)]
pub(super) enum As {
    Requested,
    Other(Arc<Descriptor>),
}

/// The request's objects in another version.
#[derive(Debug)]
struct Converted {
    resource: Arc<Descriptor>,
    new: Option<Value>,
    old: Option<Value>,
}

/// What a registration is shown.
#[derive(Clone, Debug)]
pub(super) struct View(Option<Arc<Converted>>);

/// The views of one request that does not change, each converted once.
#[derive(Debug, Default)]
pub(super) struct Views(Vec<Arc<Converted>>);

impl View {
    pub(super) fn seen(&self) -> As {
        self.0.as_ref().map_or(As::Requested, |converted| As::Other(Arc::clone(&converted.resource)))
    }

    /// The request that a registration is shown.
    pub(super) fn request<'v>(&'v self, own: &Request<'v>) -> Request<'v> {
        match &self.0 {
            None => *own,
            Some(converted) => {
                let old = own.old.and(converted.old.as_ref());
                let kind = if own.is_whole() { &*converted.resource } else { own.kind };
                Request { resource: &converted.resource, kind, old, ..*own }
            }
        }
    }

    pub(super) fn objects<'v>(&'v self, own: Objects<'v>) -> Objects<'v> {
        match &self.0 {
            None => own,
            Some(converted) => Objects { new: converted.new.as_ref(), old: converted.old.as_ref() },
        }
    }

    /// An object that was changed as it was shown, in the request's version.
    pub(super) async fn back(&self, request: &Request<'_>, changed: Value) -> Result<Value, ApiError> {
        match &self.0 {
            Some(converted) if request.is_whole() => between(&converted.resource, request.resource, &changed).await,
            _ => Ok(changed),
        }
    }
}

impl Views {
    /// The objects as `seen`. They must be those of the calls before.
    pub(super) async fn get(
        &mut self,
        request: &Request<'_>,
        objects: Objects<'_>,
        seen: As,
    ) -> Result<View, ApiError> {
        let As::Other(resource) = seen else { return Ok(View(None)) };
        if let Some(known) = self.0.iter().find(|known| Arc::ptr_eq(&known.resource, &resource)) {
            return Ok(View(Some(Arc::clone(known))));
        }
        let show = async |object: Option<&Value>| match object {
            Some(object) if request.is_whole() => between(request.resource, &resource, object).await.map(Some),
            Some(object) => Ok(Some(object.clone())),
            None => Ok(None),
        };
        let (new, old) = (show(objects.new).await?, show(objects.old).await?);
        let converted = Arc::new(Converted { resource: Arc::clone(&resource), new, old });
        self.0.push(Arc::clone(&converted));
        Ok(View(Some(converted)))
    }
}

/// The objects as `seen`, once.
pub(super) async fn view(request: &Request<'_>, objects: Objects<'_>, seen: As) -> Result<View, ApiError> {
    Views::default().get(request, objects, seen).await
}

async fn between(from: &Descriptor, to: &Descriptor, object: &Value) -> Result<Value, ApiError> {
    versions::between(from, to, object).await.map_err(|error| error.to_api())
}
