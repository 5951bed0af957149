//! Paths below an object. Those that show and write a part of it are [`View`]s and take the generic verbs; the others have
//! a handler each.

use http::Response;
use serde_json::{Value, json};
use wherry_api::resource::{Descriptor, NamedSubresource, ScalePaths, Subresource};
use wherry_api::status::ApiError;
use wherry_api::strategy::Part;
use wherry_api::{decode, object};

use super::body::Body;
use super::call::Call;
use super::error::ServerError;
use super::query::WriteOptions;
use super::{metadata, negotiate};
use crate::admission::Operation;

pub(super) mod binding;
pub(super) mod connect;
pub(super) mod eviction;
pub(super) mod finalize;
pub(super) mod log;
pub(super) mod scale;
pub(super) mod token;

/// A part of an object that is read and written as a document of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The object itself; which part of it is written.
    Object(Part),
    /// `autoscaling/v1` Scale.
    Scale(ScalePaths),
    /// The object, of which only `spec.finalizers` is written.
    Finalize,
}

impl View {
    /// The part of the object that a write through it changes; `None`: one that the kind's own rules keep from clients.
    pub(crate) fn part(&self) -> Option<Part> {
        match self {
            Self::Object(part) => Some(*part),
            Self::Scale(_) => Some(Part::Main),
            Self::Finalize => None,
        }
    }

    /// Whether the document is of the resource's own kind.
    pub(crate) fn is_object(&self) -> bool {
        !matches!(self, Self::Scale(_))
    }

    /// The document that shows an object.
    pub(crate) fn show(&self, whole: Value) -> Result<Value, ApiError> {
        match self {
            Self::Object(_) | Self::Finalize => Ok(whole),
            Self::Scale(paths) => scale::show(paths, &whole),
        }
    }

    /// The object after its document was changed. Its resourceVersion and uid are those of the document: preconditions.
    pub(crate) fn write_back(&self, resource: &Descriptor, old: &Value, changed: Value) -> Result<Value, ServerError> {
        match self {
            Self::Object(_) => Ok(changed),
            Self::Finalize => Ok(finalize::write_back(old, &changed)),
            Self::Scale(paths) => Ok(scale::write_back(resource, paths, old, &changed)?),
        }
    }
}

/// A copy of `old` with the preconditions of `document`.
fn with_preconditions(old: &Value, document: &Value) -> Value {
    let mut new = old.clone();
    object::copy_meta(&mut new, document, &["resourceVersion", "uid"]);
    new
}

/// The view that a subresource is, if it is one.
pub(crate) fn view(subresource: &Subresource) -> Option<View> {
    match subresource {
        Subresource::Status => Some(View::Object(Part::Status)),
        Subresource::Part(name) => Some(View::Object(Part::Named(name))),
        Subresource::Scale(paths) => Some(View::Scale(paths.clone())),
        Subresource::Named(named) if named.name == "finalize" => Some(View::Finalize),
        Subresource::Named(_) => None,
    }
}

/// Verbs that a subresource has.
pub(crate) fn verbs(subresource: &Subresource) -> &'static [&'static str] {
    match subresource {
        Subresource::Status | Subresource::Part(_) | Subresource::Scale(_) => &["get", "patch", "update"],
        Subresource::Named(named) => named.verbs,
    }
}

/// Runs the handler of a named subresource.
pub(crate) async fn run(
    call: &mut Call,
    subresource: &NamedSubresource,
    body: Body,
) -> Result<Response<Body>, ServerError> {
    match subresource.name.as_ref() {
        "binding" => binding::bind(call, body).await,
        "eviction" => eviction::evict(call, body).await,
        "log" => log::log(call).await,
        "token" => token::issue(call, body).await,
        "attach" | "exec" | "portforward" | "proxy" => connect::connect(call).await,
        _ => Err(ApiError::no_such_path().into()),
    }
}

/// Reads the document that a subresource is asked with, and lets admission change it.
pub(crate) async fn asked(call: &mut Call, body: Body) -> Result<(Value, WriteOptions), ServerError> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let bytes = call.read(body).await?;
    if bytes.is_empty() {
        return Err(ApiError::bad_request("the body of the request must not be empty").into());
    }
    let format = negotiate::format(&call.headers, &call.resource)?;
    let decoded = call.apart(0, || decode::body(call.kind(), &bytes, format, options.validation)).await?;
    call.requested(&decoded.object);
    call.warnings.extend(decoded.warnings);
    let mut document = decoded.object;
    if object::name(&document).is_empty() {
        object::set_meta(&mut document, "name", call.info.name.as_str());
    }
    let name = call.info.name.clone();
    settle(call, &mut document, &name, options.dry_run).await?;
    Ok((document, options))
}

/// Completes a document that is about the object of that name, and lets admission change it.
pub(crate) async fn settle(call: &Call, document: &mut Value, name: &str, dry_run: bool) -> Result<(), ServerError> {
    metadata::settle_namespace(&call.resource, document, &call.info)?;
    call.kind().strategy.default(document);
    let request = call.admission(Operation::Create, name, dry_run);
    Ok(call.server.admission().mutate(&request, document).await?)
}

/// The answer to what was asked for and has been done.
pub(crate) fn done() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}
