//! Between the version of a request and the one that is stored: every read passes here after the cache, every write before
//! the store.
//!
//! What must stay true: an object that is served as it is stored is never parsed here; of a list, all objects that need it
//! are converted in one call, because that may be requests to a webhook.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use wherry_api::object;
use wherry_api::resource::Descriptor;
use wherry_api::selector::FieldSelector;
use wherry_api::status::ApiError;
use wherry_api::version::{Conversion, StoredAs};

use super::answer;
use super::error::ServerError;
use super::write::Stored;
use crate::cache::{Entry, Event};

/// A stored object's tree in the version of `resource`.
pub(crate) async fn tree(resource: &Descriptor, stored: &Stored) -> Result<Value, ServerError> {
    let tree = answer::parse(&stored.bytes)?;
    if resource.serves_as_stored(stored.revision) { Ok(tree) } else { convert_one(resource, tree).await }
}

/// A stored object's bytes in the version of `resource`.
pub(crate) async fn bytes(resource: &Descriptor, stored: Stored) -> Result<Bytes, ServerError> {
    if resource.serves_as_stored(stored.revision) {
        return Ok(stored.bytes);
    }
    Ok(encode(&convert_one(resource, answer::parse(&stored.bytes)?).await?))
}

/// The bytes of a list's objects in the version of `resource`.
pub(crate) async fn all(resource: &Descriptor, entries: &[Arc<Entry>]) -> Result<Vec<Bytes>, ServerError> {
    let mut shown: Vec<Bytes> = entries.iter().map(|entry| entry.bytes.clone()).collect();
    let stale = || entries.iter().enumerate().filter(|(_, entry)| !resource.serves_as_stored(entry.revision));
    let trees = stale().map(|(_, entry)| answer::parse(&entry.bytes)).collect::<Result<Vec<_>, _>>()?;
    if trees.is_empty() {
        return Ok(shown);
    }
    let converted = from_stored(resource, trees).await?;
    for ((index, _), tree) in stale().zip(&converted) {
        if let Some(bytes) = shown.get_mut(index) {
            *bytes = encode(tree);
        }
    }
    Ok(shown)
}

/// Which of the objects, whose bytes in the version of `resource` are `shown`, have these fields in that version.
pub(crate) fn with_fields(
    resource: &Descriptor,
    fields: &FieldSelector,
    entries: &[Arc<Entry>],
    shown: &[Bytes],
) -> Result<Vec<bool>, ServerError> {
    let has = |(entry, shown): (&Arc<Entry>, &Bytes)| {
        if resource.serves_as_stored(entry.revision) {
            return Ok(fields.matches(|path| entry.meta.field(path)));
        }
        Ok(fields.matches_served(&answer::parse(shown)?))
    };
    entries.iter().zip(shown).map(has).collect()
}

/// A watch's event with its object in the version of `resource`.
pub(crate) async fn event(resource: &Descriptor, event: Event) -> Result<Event, ServerError> {
    if resource.stored_as.is_none() {
        return Ok(event);
    }
    Ok(match event {
        Event::Added(entry) => Event::Added(self::entry(resource, entry).await?),
        Event::Modified { new, old } => Event::Modified { new: entry(resource, new).await?, old },
        // Its revision is that of its end, which does not say when it was written.
        Event::Deleted { last, revision } => Event::Deleted { last: converted(resource, &last).await?, revision },
        Event::Progress(revision) => Event::Progress(revision),
    })
}

/// Like [`event`], for a watch of the objects with these fields in the version of `resource`: one that comes to have them is
/// added, one that has them no longer is deleted. `None`: it is not about them.
pub(crate) async fn event_with_fields(
    resource: &Descriptor,
    fields: &FieldSelector,
    event: Event,
) -> Result<Option<Event>, ServerError> {
    let (new, old) = match event {
        Event::Added(new) => (new, None),
        Event::Modified { new, old } => (new, Some(old)),
        Event::Deleted { last, revision } => {
            let last = converted(resource, &last).await?;
            let had = fields.matches_served(&answer::parse(&last.bytes)?);
            return Ok(had.then_some(Event::Deleted { last, revision }));
        }
        Event::Progress(revision) => return Ok(Some(Event::Progress(revision))),
    };
    let states: Vec<Arc<Entry>> = [new].into_iter().chain(old).collect();
    let shown = all(resource, &states).await?;
    let has = with_fields(resource, fields, &states, &shown)?;
    let mut shown = states.iter().zip(shown).zip(has).map(|((entry, bytes), has)| has.then(|| with(entry, bytes)));
    let revision = states.first().map(|new| new.revision).unwrap_or_default();
    Ok(match (shown.next().flatten(), shown.next().flatten()) {
        (Some(new), None) => Some(Event::Added(new)),
        (Some(new), Some(old)) => Some(Event::Modified { new, old }),
        (None, Some(last)) => Some(Event::Deleted { last, revision }),
        (None, None) => None,
    })
}

async fn entry(resource: &Descriptor, entry: Arc<Entry>) -> Result<Arc<Entry>, ServerError> {
    if resource.serves_as_stored(entry.revision) { Ok(entry) } else { converted(resource, &entry).await }
}

async fn converted(resource: &Descriptor, entry: &Entry) -> Result<Arc<Entry>, ServerError> {
    Ok(with(entry, encode(&convert_one(resource, answer::parse(&entry.bytes)?).await?)))
}

/// The entry with its object written otherwise.
fn with(entry: &Entry, bytes: Bytes) -> Arc<Entry> {
    Arc::new(Entry { key: entry.key.clone(), bytes, revision: entry.revision, meta: entry.meta.clone() })
}

/// An object of `resource`'s version as it is stored.
pub(crate) async fn to_stored<'a>(resource: &Descriptor, object: &'a Value) -> Result<Cow<'a, Value>, ServerError> {
    let Some(StoredAs { resource: storage, version, kind, conversion }) = &resource.stored_as else {
        return Ok(Cow::Borrowed(object));
    };
    let mut stored = match conversion {
        Conversion::Pure { to_stored, .. } => to_stored(object.clone()),
        Conversion::Custom(_) if resource.is_storage_version() => return Ok(Cow::Borrowed(object)),
        Conversion::Custom(convert) => convert.to_stored(object.clone()).await?,
    };
    let api_version =
        if storage.group.is_empty() { version.to_string() } else { format!("{}/{version}", storage.group) };
    object::set_at(&mut stored, "apiVersion", api_version);
    object::set_at(&mut stored, "kind", kind.as_ref());
    Ok(Cow::Owned(stored))
}

/// An object of one version in another version of the same kind.
pub(crate) async fn between(from: &Descriptor, to: &Descriptor, object: &Value) -> Result<Value, ServerError> {
    convert_one(to, to_stored(from, object).await?.into_owned()).await
}

/// Whether the store has exactly what a write of `object` would put there: what was written in an older version or by an
/// older schema is written again by an update that changes nothing.
pub(crate) async fn is_written_so(
    resource: &Descriptor,
    current: &Stored,
    object: &Value,
) -> Result<bool, ServerError> {
    match resource.stored_as.as_ref().map(|stored| &stored.conversion) {
        None | Some(Conversion::Pure { .. }) => Ok(true),
        Some(Conversion::Custom(convert)) if convert.is_current(current.revision) => Ok(true),
        Some(Conversion::Custom(_)) => Ok(*to_stored(resource, object).await? == answer::parse(&current.bytes)?),
    }
}

async fn convert_one(resource: &Descriptor, tree: Value) -> Result<Value, ServerError> {
    let converted = from_stored(resource, vec![tree]).await?;
    Ok(converted.into_iter().next().ok_or_else(|| ApiError::internal("a conversion returned no object"))?)
}

async fn from_stored(resource: &Descriptor, trees: Vec<Value>) -> Result<Vec<Value>, ServerError> {
    let Some(stored) = &resource.stored_as else { return Ok(trees) };
    let mut converted = match &stored.conversion {
        Conversion::Pure { from_stored, .. } => trees.into_iter().map(from_stored).collect(),
        Conversion::Custom(convert) => convert.from_stored(trees).await?,
    };
    for tree in &mut converted {
        object::set_type(tree, resource);
    }
    Ok(converted)
}

fn encode(tree: &Value) -> Bytes {
    tree.to_string().into()
}
