//! Server-side apply, and the record of who wrote what (`metadata.managedFields`) that every write keeps.
//!
//! An applier sends the fields that it cares for. It owns them from then on; a field of another owner that it would change
//! is a conflict, a field that it no longer sends is removed unless somebody else owns it. Any other write takes the fields
//! that it changes, and never conflicts. The rules are those of Kubernetes' `structured-merge-diff`.
//!
//! What must stay true: a set never names what only the server writes; an entry's time moves only when its set does or its
//! owner changed a value; the functions are pure, so that a write may be tried again.

mod conflict;
mod element;
mod fields;
mod managers;
mod merge;
mod owners;
mod schema;
mod upgrade;
mod walk;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use fields::{FieldSet, FieldsError};
pub use managers::{Manager, Operation};
pub use schema::Schema;

use crate::object;
use crate::resource::Descriptor;
use crate::status::ApiError;
use crate::strategy::Part;
use conflict::Conflicts;
use managers::Managed;
use owners::Writing;

/// Who writes, and through what.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    pub resource: &'a Descriptor,
    /// `fieldManager`, or what stands for it.
    pub manager: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub part: Part,
    pub now: Timestamp,
}

/// An object in another of its versions; `None` if there is no such version.
pub type InVersion<'a> = &'a dyn Fn(&Value, &str) -> Option<Value>;

/// Records a write that is no apply: who has what of `new`, given what `old` was (`None`: nothing) and what it said of its
/// managers. `asked` is the `managedFields` that the client sent.
pub fn record(writer: Writer<'_>, old: Option<&Value>, new: &mut Value, asked: Option<&Value>, convert: InVersion<'_>) {
    let live = old.and_then(|old| object::meta(old, "managedFields"));
    object::remove_meta(new, "managedFields");
    let known = match asked.filter(|_| writer.subresource.is_empty()) {
        Some(asked) if is_reset(asked) => Some(Managed::default()),
        Some(asked) => Managed::read(Some(asked)).filter(|managed| !managed.0.is_empty()),
        None => None,
    };
    let reset = known.as_ref().is_some_and(|managed| managed.0.is_empty());
    let known = known.unwrap_or_else(|| Managed::read(live).unwrap_or_default());
    // Whoever does not want to be told who wrote what is not told, until somebody applies.
    let untracked = old.is_some() && known.0.is_empty();
    if reset || untracked {
        return;
    }
    let nothing = json!({});
    let writing = Writing::of(writer, convert);
    let managed = writing.update(old.unwrap_or(&nothing), new, known);
    put(new, &managed);
}

/// An empty list, or a list of one empty entry.
fn is_reset(asked: &Value) -> bool {
    match asked.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    }
}

fn put(object: &mut Value, managed: &Managed) {
    match managed.write() {
        Value::Array(list) if list.is_empty() => drop(object::remove_meta(object, "managedFields")),
        list => object::set_meta(object, "managedFields", list),
    }
}

/// Applies a configuration (of the resource's kind, decoded) to the live object; `None`: there is none yet. The new object
/// has its `managedFields`; it is not defaulted. Errors: 409 with a cause per conflict unless `force`; 400.
pub fn apply(
    writer: Writer<'_>,
    live: Option<&Value>,
    config: &Value,
    force: bool,
    convert: InVersion<'_>,
) -> Result<Value, ApiError> {
    if object::meta(config, "managedFields").is_some() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let writing = Writing::of(writer, convert);
    writing.check(config)?;
    let mut object = live.cloned().unwrap_or_else(|| json!({}));
    let before = object::remove_meta(&mut object, "managedFields");
    let mut managed = Managed::read(before.as_ref()).unwrap_or_default();
    if managed.0.is_empty() {
        managed = writing.before_first_apply(&object);
    }
    let applied = writing.apply(&object, config, managed.clone(), force);
    let (mut new, managed) = match applied {
        Err(conflicts) if writer.manager == upgrade::KUBECTL => {
            let conflicts = upgrade::left(&conflicts, &object, &writing);
            if !conflicts.is_empty() {
                return Err(conflicts.into_error());
            }
            writing.apply(&object, config, managed, true).map_err(Conflicts::into_error)?
        }
        other => other.map_err(Conflicts::into_error)?,
    };
    if writer.manager == upgrade::KUBECTL {
        upgrade::sync_last_applied(&mut new, config);
    }
    put(&mut new, &managed);
    Ok(new)
}

/// What an entry's identity is for an apply by this writer.
fn applier(writer: Writer<'_>) -> Manager {
    Manager {
        operation: Operation::Apply,
        name: writer.manager.to_owned(),
        version: String::new(),
        subresource: writer.subresource.to_owned(),
    }
}

/// The same for any other write.
fn updater(writer: Writer<'_>) -> Manager {
    let version = writer.resource.api_version();
    Manager { operation: Operation::Update, version, ..applier(writer) }
}

#[cfg(test)]
mod tests;
