//! Create: decode → mutate → default → validate → admit → allocate → store.

use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::Value;
use wherry_api::field::ErrorList;
use wherry_api::resource::GroupResource;
use wherry_api::status::ApiError;
use wherry_api::strategy::Part;
use wherry_api::{decode, meta, object};

use crate::admission::{Charge, Operation};
use crate::server::alloc::Hold;
use crate::server::body::Body;
use crate::server::call::Call;
use crate::server::error::ServerError;
use crate::server::query::WriteOptions;
use crate::server::subresources::binding;
use crate::server::write::{self, ATTEMPTS, Put, Stored};
use crate::server::{answer, definitions, managed, metadata, negotiate, reviews, versions};
use crate::store::{Key, Precondition, StoreError};

/// How many generated names are tried, as in Kubernetes: with 27^5 suffixes a second try is rare already.
const NAMES: usize = 8;

pub(crate) async fn create(call: &mut Call, body: Body) -> Result<Response<Body>, ServerError> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let bytes = call.read(body).await?;
    let format = negotiate::format(&call.headers, &call.resource)?;
    let (resource, validation) = (call.resource.clone(), options.validation);
    let decoded = call.apart(0, || decode::body(&resource, &bytes, format, validation)).await?;
    call.requested(&decoded.object);
    call.warnings.extend(decoded.warnings);
    if !call.resource.stored() {
        let answered = unstored(call, decoded.object, &options).await?;
        return answer::value(call.accepted, StatusCode::CREATED, &answered);
    }
    if !object::resource_version(&decoded.object).is_empty() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created").into());
    }
    insert_and_show(call, decoded.object, &options).await
}

/// Does what is asked for by creating what is not stored.
async fn unstored(call: &mut Call, object: Value, options: &WriteOptions) -> Result<Value, ServerError> {
    match (call.resource.group.as_ref(), call.resource.plural.as_ref()) {
        ("", "bindings") => binding::create(call, object, options).await,
        _ => reviews::create(call, object).await,
    }
}

/// Creates an object and shows it.
pub(crate) async fn insert_and_show(
    call: &mut Call,
    object: Value,
    options: &WriteOptions,
) -> Result<Response<Body>, ServerError> {
    let stored = insert(call, object, options).await?;
    let bytes = versions::bytes(&call.resource, stored).await?;
    let (call, size) = (&*call, bytes.len());
    call.apart(size, || answer::object(call.accepted, &call.resource, StatusCode::CREATED, bytes)).await
}

/// Creates an object that has been decoded.
async fn insert(call: &mut Call, mut object: Value, options: &WriteOptions) -> Result<Stored, ServerError> {
    let resource = call.resource.clone();
    metadata::settle_namespace(&resource, &mut object, &call.info)?;
    metadata::prepare_create(&resource, &mut object, Timestamp::now());
    let prefix = object::meta_str(&object, "generateName").to_owned();
    let generated = object::name(&object).is_empty() && !prefix.is_empty();
    let mut names = if generated { NAMES } else { 1 };
    for _ in 0..ATTEMPTS {
        let mut object = object.clone();
        if generated {
            let name = meta::generate_name(&prefix, |below| rand::random_range(0..below.max(1)));
            if let Some(record) = &call.record {
                record.named(&name);
            }
            object::set_meta(&mut object, "name", name);
        }
        match insert_named(call, object, options).await {
            Err(ServerError::Api(error)) if error.reason == "AlreadyExists" && generated => {
                names -= 1;
                if names == 0 {
                    return Err(exhausted(error).into());
                }
            }
            // The namespace, its quota or the kind's definition changed between admission and the write: admission is asked again.
            Err(ServerError::Store(StoreError::Precondition { .. })) => {
                call.server.caught_up().await;
            }
            other => return other,
        }
    }
    let why = "its namespace or its definition is being modified; please try again";
    Err(ApiError::conflict(&resource, object::name(&object), why).into())
}

/// What Kubernetes says when every generated name was taken.
fn exhausted(mut error: ApiError) -> ApiError {
    error.message = format!("{}, the server was not able to generate a unique name for the object", error.message);
    error.details.retry_after_seconds = 1;
    error
}

/// What of a new object's metadata is the server's to say, whatever a webhook makes of it.
const OWN: [&str; 5] = ["deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink", "resourceVersion"];

async fn insert_named(call: &mut Call, mut object: Value, options: &WriteOptions) -> Result<Stored, ServerError> {
    let resource = call.resource.clone();
    let name = object::name(&object).to_owned();
    let asked = object::remove_meta(&mut object, "managedFields");
    let request = call.admission(Operation::Create, &name, options.dry_run);
    let own = OWN.map(|field| (field, object::meta(&object, field).cloned()));
    call.server.admission().mutate(&request, &mut object).await?;
    for (field, value) in own {
        object::set_meta(&mut object, field, value.unwrap_or_default());
    }
    let finished = call.apart(0, || finish(call, *options, &mut object, asked)).await;
    call.warnings.extend(finished?);
    let key = call.key_of(&name);
    // As in Kubernetes, addresses and ports are there before the object is judged.
    let hold = match call.server.current(&resource, object::namespace(&object), &name) {
        None => Some(call.server.allocators().begin(&resource, &key, &mut object, None)?),
        Some(_) => None,
    };
    let request = call.admission(Operation::Create, &name, options.dry_run);
    call.admit(&request, Some(&object), None).await?;
    let hold = hold.ok_or_else(|| ApiError::already_exists(&resource, &name))?;
    let stored = versions::to_stored(&resource, &object).await?;
    let charge = call.server.quota().charge(&request, &object, None).await?;
    if options.dry_run {
        return Ok(write::unwritten(stored, None));
    }
    commit(call, &key, &stored, hold, charge).await
}

/// Defaults an object and judges it. The answer is what its writer is warned of.
fn finish(
    call: &Call,
    options: WriteOptions,
    object: &mut Value,
    asked: Option<Value>,
) -> Result<Vec<String>, ApiError> {
    let resource = &call.resource;
    resource.strategy.prepare_create(object);
    resource.strategy.try_default(object)?;
    object::set_type(object, resource);
    managed::record(call, Part::Main, options, None, object, asked);
    let mut errors = ErrorList::default();
    meta::validate_create(resource, object, &mut errors);
    resource.strategy.validate(object, &mut errors);
    if errors.is_empty() {
        let mut warnings = resource.strategy.new_warnings(object);
        warnings.extend(resource.strategy.warnings(object));
        // Controllers, also this process's own, know what they do.
        if !call.user.is_system() {
            warnings.extend(resource.idle_warning());
        }
        Ok(warnings)
    } else {
        Err(ApiError::invalid(resource, object::name(object), &errors))
    }
}

/// Writes the object if its name is free, and its namespace and its kind's definition still are what admission saw.
async fn commit(call: &Call, key: &Key, stored: &Value, hold: Hold, charge: Charge) -> Result<Stored, ServerError> {
    let resource = &call.resource;
    let mut preconditions = vec![(key.clone(), Precondition::Absent)];
    if resource.namespaced() {
        let namespaces = GroupResource::new("", "namespaces");
        let key = Key::new(&namespaces, "", &call.info.namespace);
        let namespace = call.server.cache().get(&namespaces, "", &call.info.namespace).filter(|n| !n.meta.deleting);
        let Some(namespace) = namespace else {
            return Err(StoreError::Precondition { key, actual: None }.into());
        };
        preconditions.push((key, Precondition::At(namespace.revision)));
    }
    preconditions.extend(definitions::hold(&call.server, resource)?);
    let put = Put { resource, key: key.clone(), stored, preconditions, charge };
    match call.server.put(put, hold).await {
        Err(ServerError::Store(StoreError::Precondition { key: failed, .. })) if failed == *key => {
            Err(ApiError::already_exists(resource, object::name(stored)).into())
        }
        other => other,
    }
}
