//! One request on its way through the pipeline, after it has been routed and authorized.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;
use wherry_api::decode::{self, Decoded};
use wherry_api::kinds::exchanged;
use wherry_api::resource::Descriptor;
use wherry_api::status::ApiError;

use super::Server;
use super::body::{self, Body};
use super::error::ServerError;
use super::negotiate::{self, Accepted};
use super::query::Query;
use super::request::RequestInfo;
use super::turn::Turn;
use super::unsent::Room;
use super::write::Stored;
use crate::admission::{Notes, Operation, Options, Request};
use crate::audit::Record;
use crate::auth::{Attributes, Refusal, UserInfo};
use crate::store::Key;

/// What a verb works with.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) server: Server,
    pub(crate) resource: Arc<Descriptor>,
    pub(crate) info: RequestInfo,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) accepted: Accepted,
    pub(crate) user: UserInfo,
    pub(crate) attributes: Attributes,
    /// Sent to the client as `Warning` headers.
    pub(crate) warnings: Vec<String>,
    /// What admission has to tell.
    pub(crate) notes: Notes,
    /// Of a request that is recorded.
    pub(crate) record: Option<Record>,
    /// Bytes of the body that was read: how much work the call is.
    pub(crate) size: usize,
    pub(crate) turn: Turn,
    /// For the answer.
    pub(crate) room: Room,
}

impl Call {
    pub(crate) fn key(&self) -> Key {
        self.key_of(&self.info.name)
    }

    pub(crate) fn key_of(&self, name: &str) -> Key {
        Key::new(&self.resource.storage_resource(), self.namespace(), name)
    }

    /// The namespace of the objects that it is about; `""` for those of the cluster.
    fn namespace(&self) -> &str {
        if self.resource.namespaced() { &self.info.namespace } else { "" }
    }

    /// The object of this name as it is now. Error: 404.
    pub(crate) fn find(&self, name: &str) -> Result<Stored, ApiError> {
        let found = self.server.current(&self.resource, self.namespace(), name);
        found.ok_or_else(|| ApiError::not_found(&self.resource, name))
    }

    /// Reads the body as one tree, whatever its kind; `None` if there is no body.
    pub(crate) async fn read_tree(&mut self, body: Body) -> Result<Option<Decoded>, ServerError> {
        let bytes = self.read(body).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let format = negotiate::format(&self.headers, &self.resource)?;
        let decoded = self.apart(0, || decode::tree(&bytes, format)).await?;
        self.requested(&decoded.object);
        Ok(Some(decoded))
    }

    /// Tells the audit log what the client sent.
    pub(crate) fn requested(&self, object: &Value) {
        if let Some(record) = &self.record {
            record.requested(object);
        }
    }

    pub(crate) async fn read(&mut self, body: Body) -> Result<Bytes, ServerError> {
        negotiate::plain(&self.headers, &body)?;
        let read = self.turn.read(&self.user, body, body::LIMIT).await;
        let bytes = read.map_err(ApiError::from)?;
        self.size = bytes.len();
        // What is answered shows what was sent.
        self.room.foresee(self.size)?;
        Ok(bytes)
    }

    /// Does work on the body and on `more` bytes, apart from the threads that serve everybody if that is much.
    pub(crate) async fn apart<T>(&self, more: usize, work: impl FnOnce() -> T + Send) -> T {
        self.server.heavy().run(&self.user.name, self.size.saturating_add(more), work).await
    }

    /// Asks admission and the authorizer whether an object may be written (or, without a new one, removed).
    pub(crate) async fn admit(
        &self,
        request: &Request<'_>,
        new: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ServerError> {
        self.server.admission().validate(request, new, old).await?;
        match self.server.authorizer().admit(&self.user, &self.attributes, new, old).await {
            Ok(()) => Ok(()),
            Err(Refusal::Forbidden(reason)) => Err(ApiError::forbidden(&self.resource, request.name, reason).into()),
            Err(Refusal::Error(error)) => Err(error.into()),
        }
    }

    /// The kind of what the request's path exchanges.
    pub(crate) fn kind(&self) -> &Descriptor {
        let subresource = self.resource.subresource(&self.info.subresource);
        subresource.and_then(|subresource| exchanged::by(&self.resource, subresource)).unwrap_or(&self.resource)
    }

    /// What admission is told of the call.
    pub(crate) fn admission<'a>(&'a self, operation: Operation, name: &'a str, dry_run: bool) -> Request<'a> {
        let asked = |option| self.query.get(option).unwrap_or_default();
        Request {
            resource: &self.resource,
            kind: self.kind(),
            requested: &self.resource,
            subresource: &self.info.subresource,
            namespace: &self.info.namespace,
            name,
            user: &self.user,
            operation,
            dry_run,
            options: Options::Write {
                field_manager: asked("fieldManager"),
                field_validation: asked("fieldValidation"),
            },
            old: None,
            notes: &self.notes,
        }
    }
}
