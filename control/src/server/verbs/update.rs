//! Update: a read-modify-write, the same for PUT, for patches and for subresources that show a part of an object.
//!
//! What must stay true: a resourceVersion that the client gives is a precondition; without one the change is applied to
//! whatever is there, also while others write, unless the kind wants a PUT to give one; an update that changes nothing writes nothing.

use http::{Response, StatusCode};
use serde_json::Value;
use wherry_api::field::{ErrorList, Path};
use wherry_api::resource::{Descriptor, Revision};
use wherry_api::status::ApiError;
use wherry_api::strategy::Part;
use wherry_api::{decode, meta, object};

use super::{create, get};
use crate::admission::{Operation, Request};
use crate::auth::{Attributes, Decision};
use crate::server::body::Body;
use crate::server::call::Call;
use crate::server::error::ServerError;
use crate::server::query::WriteOptions;
use crate::server::subresources::{View, scale};
use crate::server::write::{self, ATTEMPTS, Put, Stored};
use crate::server::{answer, managed, metadata, negotiate, versions};
use crate::store::Precondition;

pub(crate) async fn update(call: &mut Call, view: View, body: Body) -> Result<Response<Body>, ServerError> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let bytes = call.read(body).await?;
    let format = negotiate::format(&call.headers, &call.resource)?;
    let (kind, validation) = (view.is_object().then(|| call.resource.clone()), options.validation);
    let decode = || match &kind {
        Some(resource) => decode::body(resource, &bytes, format, validation),
        None => decode::tree(&bytes, format),
    };
    let decoded = call.apart(0, decode).await?;
    call.requested(&decoded.object);
    call.warnings.extend(decoded.warnings);
    let mut wanted = decoded.object;
    metadata::settle_namespace(&call.resource, &mut wanted, &call.info)?;
    metadata::check_name(&wanted, &call.info.name)?;
    if !call.resource.create_on_update || view != View::Object(Part::Main) {
        return replace(call, &view, &wanted, &options).await;
    }
    for _ in 0..ATTEMPTS {
        let missing = is_missing(call);
        let answer = if missing {
            create_instead(call, wanted.clone(), &options).await
        } else {
            replace(call, &view, &wanted, &options).await
        };
        match answer {
            Err(error) if raced(call, missing, &error).await => {}
            answer => return answer,
        }
    }
    Err(ApiError::modified(&call.resource, &call.info.name).into())
}

async fn replace(
    call: &mut Call,
    view: &View,
    wanted: &Value,
    options: &WriteOptions,
) -> Result<Response<Body>, ServerError> {
    let resource = call.resource.clone();
    let name = call.info.name.clone();
    let change = |old: &Value| {
        if view.is_object() {
            says_revision(&resource, &name, wanted)?;
        }
        view.write_back(&resource, old, wanted.clone())
    };
    let stored = modify(call, view, options, change).await?;
    show(call, view, StatusCode::OK, stored).await
}

/// Error: 422, if the kind wants to be told which revision is changed, and is not.
fn says_revision(resource: &Descriptor, name: &str, wanted: &Value) -> Result<(), ApiError> {
    if resource.revision == Revision::Optional || !object::resource_version(wanted).is_empty() {
        return Ok(());
    }
    let mut errors = ErrorList::default();
    let path = Path::new("metadata").child("resourceVersion");
    errors.invalid(&path, &Value::from(0), "must be specified for an update");
    // Kubernetes calls it by its name in paths here.
    Err(ApiError::invalid_of(&resource.group, &resource.plural, name, &errors))
}

/// Whether there is no object that the path names.
pub(crate) fn is_missing(call: &Call) -> bool {
    get::find(call).is_err()
}

/// Whether a write that creates what is missing failed because another writer was faster: what it was to create is there,
/// or what it was to change is gone. It is tried again then, as the other of the two.
pub(crate) async fn raced(call: &Call, missing: bool, error: &ServerError) -> bool {
    let reason = if missing { "AlreadyExists" } else { "NotFound" };
    if !matches!(error, ServerError::Api(error) if error.reason == reason) {
        return false;
    }
    call.server.caught_up().await;
    is_missing(call) != missing
}

/// Needs the right to create, which the right to update does not include.
async fn create_instead(call: &mut Call, object: Value, options: &WriteOptions) -> Result<Response<Body>, ServerError> {
    if !object::resource_version(&object).is_empty() {
        return Err(ApiError::modified(&call.resource, &call.info.name).into());
    }
    let uid = object::uid(&object);
    if !uid.is_empty() {
        // The writer means one object, which is gone.
        let why = metadata::unmet("UID", uid, "");
        return Err(ApiError::conflict(&call.resource, &call.info.name, why).into());
    }
    may_create(call).await?;
    create::insert_and_show(call, object, options).await
}

/// Error: 403 for who may change what is there and not create what is not.
pub(crate) async fn may_create(call: &Call) -> Result<(), ApiError> {
    let attributes = Attributes { verb: "create".to_owned(), ..call.attributes.clone() };
    match call.server.authorizer().authorize(&call.user, &attributes).await {
        Decision::Allow => Ok(()),
        Decision::Deny(reason) => Err(attributes.forbidden(&call.user, &reason)),
    }
}

/// The answer to a write through a view.
pub(crate) async fn show(
    call: &Call,
    view: &View,
    code: StatusCode,
    stored: Stored,
) -> Result<Response<Body>, ServerError> {
    if view.is_object() {
        let bytes = versions::bytes(&call.resource, stored).await?;
        let size = bytes.len();
        return call.apart(size, || answer::object(call.accepted, &call.resource, code, bytes)).await;
    }
    let shown = view.show(versions::tree(&call.resource, &stored).await?)?;
    answer::tree(call.accepted, call.kind(), code, &shown)
}

/// How a change is treated before it is written.
#[derive(Clone, Copy, Debug)]
enum Rules<'a> {
    /// As an update of this part by a client, through a view.
    Of(&'a View, Part),
    /// The change is the server's own, and complete.
    Own,
    /// The same, of what admission has allowed in another form (a Binding).
    Admitted,
}

/// Reads the object, lets `change` make the new one of it, and writes that; again if another writer was faster.
///
/// The new object's resourceVersion and uid, unless empty, are preconditions.
pub(crate) async fn modify(
    call: &mut Call,
    view: &View,
    options: &WriteOptions,
    change: impl FnMut(&Value) -> Result<Value, ServerError> + Send,
) -> Result<Stored, ServerError> {
    let rules = view.part().map_or(Rules::Own, |part| Rules::Of(view, part));
    retry(call, rules, options, change).await
}

/// Like [`modify`], for a change that admission has allowed in another form: neither the kind's strategy is asked nor admission.
pub(crate) async fn modify_admitted(
    call: &mut Call,
    options: &WriteOptions,
    change: impl FnMut(&Value) -> Result<Value, ServerError> + Send,
) -> Result<Stored, ServerError> {
    retry(call, Rules::Admitted, options, change).await
}

async fn retry(
    call: &mut Call,
    rules: Rules<'_>,
    options: &WriteOptions,
    mut change: impl FnMut(&Value) -> Result<Value, ServerError> + Send,
) -> Result<Stored, ServerError> {
    let mut current = get::find(call)?;
    for _ in 0..ATTEMPTS {
        let mut old = versions::tree(&call.resource, &current).await?;
        let strategy = &call.resource.strategy;
        let changed = || {
            // Defaults that came after it was written are no change.
            strategy.default(&mut old);
            change(&old)
        };
        call.room.foresee(call.size.max(current.bytes.len()))?;
        let new = call.apart(current.bytes.len(), changed).await?;
        match attempt(call, rules, options, &current, &old, new).await {
            Ok(stored) => return Ok(stored),
            Err(failure) => current = write::again(call, &call.info.name, current, failure).await?,
        }
    }
    Err(ApiError::modified(&call.resource, &call.info.name).into())
}

async fn attempt(
    call: &mut Call,
    rules: Rules<'_>,
    options: &WriteOptions,
    current: &Stored,
    old: &Value,
    mut new: Value,
) -> Result<Stored, ServerError> {
    let (resource, key) = (call.resource.clone(), call.key());
    check_preconditions(call, rules, &new, old)?;
    if object::uid(&new).is_empty() {
        object::set_meta(&mut new, "uid", object::uid(old));
    }
    let asked = object::remove_meta(&mut new, "managedFields");
    if let Rules::Of(view, part) = rules {
        prepare(call, (view, part), options, &mut new, old).await?;
    }
    object::set_type(&mut new, &resource);
    object::set_meta(&mut new, "resourceVersion", object::resource_version(old));
    let record = || match rules {
        Rules::Of(_, part) => {
            managed::record(call, part, *options, Some(old), &mut new, asked);
            managed::keep_times(&mut new, old);
        }
        // Kubernetes records no owner of what the server itself writes.
        Rules::Own | Rules::Admitted => managed::keep(&mut new, old),
    };
    call.apart(current.bytes.len(), record).await;
    let hold = call.server.allocators().begin(&resource, &key, &mut new, Some(old))?;
    let as_written = versions::is_written_so(&resource, current, &new);
    if new == *old && !call.server.store().stale(&key).await && as_written.await? {
        return Ok(current.clone());
    }
    if let Rules::Of(_, part) = rules {
        let judged = call.apart(current.bytes.len(), || validate(call, part, &new, old)).await;
        // A second attempt does not warn twice.
        let warnings = judged?;
        call.warnings.retain(|w| !warnings.contains(w));
        call.warnings.extend(warnings);
    }
    admit(call, rules, options, &new, old).await?;
    let stored = versions::to_stored(&resource, &new).await?;
    if ends(&resource, &new, old) && !options.dry_run {
        let revision = call.server.remove(&resource, key, old, current.revision).await?;
        return Ok(write::unwritten(stored, Some(revision)));
    }
    let request = call.admission(Operation::Update, &call.info.name, options.dry_run);
    let charge = call.server.quota().charge(&request, &new, Some(old)).await?;
    if options.dry_run {
        return Ok(write::unwritten(stored, Some(current.revision)));
    }
    let preconditions = vec![(key.clone(), Precondition::At(current.revision))];
    call.server.put(Put { resource: &resource, key, stored: &stored, preconditions, charge }, hold).await
}

async fn prepare(
    call: &Call,
    (view, part): (&View, Part),
    options: &WriteOptions,
    new: &mut Value,
    old: &Value,
) -> Result<(), ServerError> {
    let resource = &call.resource;
    metadata::prepare_update(resource, new, old, part);
    // Also a status is shown; what a path of its own may not change, the kind's strategy undoes afterwards.
    let (admission, request) =
        (call.server.admission(), call.admission(Operation::Update, &call.info.name, options.dry_run));
    if let View::Scale(paths) = view {
        let (was, shown) = (scale::show(paths, old)?, scale::show(paths, new)?);
        let mut changed = shown.clone();
        admission.mutate(&Request { old: Some(&was), ..request }, &mut changed).await?;
        if changed != shown {
            *new = scale::write_back(resource, paths, new, &changed)?;
        }
    } else {
        admission.mutate(&Request { old: Some(old), ..request }, new).await?;
    }
    let finish = || {
        resource.strategy.try_default(new)?;
        resource.strategy.prepare_update(new, old, part);
        if part == Part::Status {
            metadata::keep_all_but_status(resource, new, old);
        } else {
            metadata::count_generation(resource, new, old);
        }
        Ok(())
    };
    call.apart(0, finish).await
}

/// Asks admission.
async fn admit(
    call: &Call,
    rules: Rules<'_>,
    options: &WriteOptions,
    new: &Value,
    old: &Value,
) -> Result<(), ServerError> {
    let request = call.admission(Operation::Update, &call.info.name, options.dry_run);
    match rules {
        Rules::Admitted => Ok(()),
        Rules::Of(View::Scale(paths), _) => {
            let (shown, was) = (scale::show(paths, new)?, scale::show(paths, old)?);
            call.admit(&request, Some(&shown), Some(&was)).await
        }
        Rules::Of(..) | Rules::Own => call.admit(&request, Some(new), Some(old)).await,
    }
}

/// Judges an update. The answer is what its writer is warned of.
fn validate(call: &Call, part: Part, new: &Value, old: &Value) -> Result<Vec<String>, ApiError> {
    let resource = &call.resource;
    let mut errors = ErrorList::default();
    meta::validate_update(resource, new, old, &mut errors);
    resource.strategy.validate_update(new, old, part, &mut errors);
    if !errors.is_empty() {
        return Err(ApiError::invalid(resource, &call.info.name, &errors));
    }
    Ok(match part {
        Part::Main => resource.strategy.update_warnings(new, old),
        Part::Status => Vec::new(),
        // Of what this path brought, and not again of what was there.
        Part::Named(_) => {
            let known = resource.strategy.warnings(old);
            resource.strategy.warnings(new).into_iter().filter(|warning| !known.contains(warning)).collect()
        }
    })
}

/// Whether this update was what a deletion waited for.
fn ends(resource: &Descriptor, new: &Value, old: &Value) -> bool {
    object::is_deleting(old)
        && object::finalizers(new).is_empty()
        && object::deletion_grace_period(old).unwrap_or_default() == 0
        && !resource.strategy.blocks_deletion(new)
}

fn check_preconditions(call: &Call, rules: Rules<'_>, new: &Value, old: &Value) -> Result<(), ApiError> {
    let (asked, is) = (object::uid(new), object::uid(old));
    // A patch that changes it is no precondition: it is judged like any other field that cannot be changed.
    let judged = call.info.verb == "patch" && matches!(rules, Rules::Of(..));
    if !judged && !asked.is_empty() && asked != is {
        return Err(ApiError::conflict(&call.resource, &call.info.name, metadata::unmet("UID", asked, is)));
    }
    let asked = object::resource_version(new);
    if !matches!(asked, "" | "0") && asked != object::resource_version(old) {
        return Err(ApiError::modified(&call.resource, &call.info.name));
    }
    Ok(())
}
