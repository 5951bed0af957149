//! How a write moves ownership: what it takes, from whom, and what an applier's silence removes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::conflict::Conflicts;
use super::element;
use super::fields::FieldSet;
use super::managers::{Managed, Manager, Owned};
use super::merge::{merge, with_named, without};
use super::schema::{Form, Node, Schema};
use super::walk::{Changes, fields_of, index};
use super::{InVersion, Writer, applier, updater};
use crate::object::{self, format_time};
use crate::resource::WRITABLE_METADATA;
use crate::status::ApiError;
use crate::strategy::Part;

/// Metadata that only the server writes: it has no owner.
const SERVERS: [&str; 9] = [
    "f:name",
    "f:namespace",
    "f:creationTimestamp",
    "f:selfLink",
    "f:uid",
    "f:generation",
    "f:managedFields",
    "f:resourceVersion",
    "f:generateName",
];
/// Who has what an object had before somebody first applied to it.
const BEFORE: &str = "before-first-apply";

/// Complaints about a configuration that are told, and bytes of them after which no more are.
const MAX_COMPLAINTS: usize = 100;
const MAX_COMPLAINT_BYTES: usize = 64 * 1024;

/// What changed, by version; `None` for one that is served no more.
type ByVersion = BTreeMap<String, Option<Changes>>;

/// A write with what it needs to know.
pub(super) struct Writing<'a> {
    writer: Writer<'a>,
    schema: Schema,
    convert: InVersion<'a>,
    version: String,
}

impl<'a> Writing<'a> {
    pub(super) fn of(writer: Writer<'a>, convert: InVersion<'a>) -> Self {
        let schema = Schema::of(writer.resource);
        Self { writer, schema, convert, version: writer.resource.api_version() }
    }

    pub(super) fn root(&self) -> Node<'_> {
        self.schema.root()
    }

    /// Removes from a set what this write cannot own: what the server writes, and what belongs to another subresource.
    fn scope(&self, fields: &mut FieldSet) {
        for element in ["f:apiVersion", "f:kind"] {
            fields.remove(element);
        }
        fields.below("f:metadata", |metadata| {
            metadata.member = false;
            for element in SERVERS {
                metadata.below.remove(element);
            }
        });
        match self.writer.part {
            Part::Main if self.writer.resource.has_status() => fields.remove("f:status"),
            Part::Main | Part::Named(_) => {}
            Part::Status => fields.retain_status(self.writer.resource.status_keeps),
        }
    }

    fn changes(&self, old: &Value, new: &Value) -> Changes {
        let mut changes = Changes::between(old, new, self.root());
        changes.each(|fields| self.scope(fields));
        changes
    }

    /// What changed, in each version that a manager wrote in.
    fn changes_by_version(&self, old: &Value, new: &Value, managed: &Managed) -> ByVersion {
        let mut all = ByVersion::from([(self.version.clone(), Some(self.changes(old, new)))]);
        for version in managed.versions_besides(&self.version) {
            let changes = match ((self.convert)(old, &version), (self.convert)(new, &version)) {
                (Some(old), Some(new)) => Some(self.changes(&old, &new)),
                _ => None,
            };
            all.insert(version, changes);
        }
        all
    }

    /// Takes from all managers but one what changed. Returns what they had of it.
    fn take(changes: &ByVersion, managed: &mut Managed, but: Option<&Manager>) -> Conflicts {
        let mut conflicts = Conflicts::default();
        managed.0.retain(|manager, owned| {
            if Some(manager) == but {
                return true;
            }
            // A version that is served no more says nothing.
            let Some(Some(changes)) = changes.get(&owned.api_version) else { return false };
            let lost = owned.fields.intersection(&changes.taken());
            owned.fields = owned.fields.difference(&lost).difference(&changes.removed);
            if !lost.is_empty() {
                conflicts.0.insert(manager.clone(), lost);
            }
            !owned.fields.is_empty()
        });
        conflicts
    }

    /// An update: the writer has what it changed.
    pub(super) fn update(&self, old: &Value, new: &Value, mut managed: Managed) -> Managed {
        let mut changes = self.changes_by_version(old, new, &managed);
        Self::take(&changes, &mut managed, None);
        let taken = changes.remove(&self.version).flatten().map(Changes::into_taken).unwrap_or_default();
        if taken.is_empty() {
            return managed;
        }
        let time = format_time(self.writer.now);
        let owned = managed.0.entry(updater(self.writer)).or_default();
        owned.fields.extend(taken);
        (owned.time, owned.api_version) = (time, self.version.clone());
        managed.bound();
        managed
    }

    /// Gives everything that an object without a record has to a manager of that name.
    pub(super) fn before_first_apply(&self, object: &Value) -> Managed {
        let writer = Writer { manager: BEFORE, ..self.writer };
        let mut empty = json!({});
        object::set_type(&mut empty, self.writer.resource);
        Self::of(writer, self.convert).update(&empty, object, Managed::default())
    }

    /// An apply. Error: what others own, unless it is forced.
    pub(super) fn apply(
        &self,
        live: &Value,
        config: &Value,
        mut managed: Managed,
        force: bool,
    ) -> Result<(Value, Managed), Conflicts> {
        let me = applier(self.writer);
        let sent = fields_of(config, self.root()).below;
        let mut fields = sent.clone();
        self.scope(&mut fields);
        let time = format_time(self.writer.now);
        let owned = Owned { api_version: self.version.clone(), time, fields };
        let last = managed.0.insert(me.clone(), owned);
        let merged = merge(live, config, self.root());
        let new = match &last {
            Some(last) => self.prune(merged, &managed, last, &sent),
            None => merged,
        };
        let changes = self.changes_by_version(live, &new, &managed);
        let conflicts = Self::take(&changes, &mut managed, Some(&me));
        if !force && !conflicts.is_empty() {
            return Err(conflicts);
        }
        if let (Some(last), Some(owned)) = (last, managed.0.get_mut(&me))
            && (&last.fields, &last.api_version) == (&owned.fields, &owned.api_version)
            && changes.get(&self.version).and_then(Option::as_ref) == Some(&Changes::default())
        {
            owned.time = last.time;
        }
        managed.bound();
        Ok((new, managed))
    }

    /// Removes what the applier had and sends no more, unless somebody has it.
    /// `sent` also has what nobody can own, as the object's name.
    fn prune(&self, merged: Value, managed: &Managed, last: &Owned, sent: &FieldSet) -> Value {
        // Who sends all that it had removes nothing.
        if last.api_version == self.version && last.fields.difference(sent).is_empty() {
            return merged;
        }
        let root = self.root();
        // A set of another version is read as one of this version where it cannot be converted.
        let last = with_named(&last.fields, root);
        let all_of = |value: &Value| with_named(&fields_of(value, root).below, root);
        let everything = all_of(&merged);
        let without_last = without(&merged, &last, root).unwrap_or_else(|| json!({}));
        let owned = managed.0.values().fold(sent.clone(), |all, owned| all.union(&owned.fields));
        let kept = all_of(&without_last).union(&with_named(&owned, root));
        let pruned = without(&merged, &everything.difference(&kept), root).unwrap_or_else(|| json!({}));
        let gone = everything.difference(&all_of(&pruned)).intersection(&last);
        without(&merged, &gone, root).unwrap_or(merged)
    }

    /// Error: 400 for lists whose items cannot be told apart.
    pub(super) fn check(&self, config: &Value) -> Result<(), ApiError> {
        let mut complaints = Vec::new();
        check(config, self.root(), &mut String::new(), &mut complaints);
        if complaints.is_empty() {
            return Ok(());
        }
        Err(refuse(self.writer, config, &complaints))
    }

    /// The fields of a value that are the same in another.
    pub(super) fn same(&self, value: &Value, other: &Value) -> FieldSet {
        let changes = Changes::between(value, other, self.root());
        let gone = changes.modified.union(&changes.added).union(&changes.removed);
        fields_of(value, self.root()).below.difference(&gone)
    }
}

/// 400 with Kubernetes' words for a configuration that does not fit the schema.
fn refuse(writer: Writer<'_>, config: &Value, complaints: &[String]) -> ApiError {
    let list = match complaints {
        [one] => one.clone(),
        all => format!("errors:\n  {}", all.join("\n  ")),
    };
    ApiError::bad_request(format!(
        "failed to create typed patch object ({}/{}; {}, Kind={}): {list}",
        object::namespace(config),
        object::name(config),
        writer.resource.api_version(),
        writer.resource.kind,
    ))
}

fn check(value: &Value, node: Node<'_>, path: &mut String, complaints: &mut Vec<String>) {
    let length = path.len();
    // Each names its place, which may be as long as the configuration.
    if complaints.len() >= MAX_COMPLAINTS || complaints.iter().map(String::len).sum::<usize>() > MAX_COMPLAINT_BYTES {
        return;
    }
    match (node.form(value), value) {
        (Form::Map, Value::Object(map)) => {
            for (name, value) in map {
                element::show(&element::field(name), path);
                check(value, node.field(name).0, path, complaints);
                path.truncate(length);
            }
        }
        (Form::Items, Value::Array(list)) => {
            for (position, item) in list.iter().enumerate() {
                if complaints.len() < MAX_COMPLAINTS
                    && let Err(why) = element::of_item(item, node)
                {
                    complaints.push(format!("{path}: element {position}: {why}"));
                }
            }
            for (element, items) in index(list, node) {
                let mut shown = String::new();
                element::show(&element, &mut shown);
                if items.len() > 1 && complaints.len() < MAX_COMPLAINTS {
                    complaints.push(format!("{path}: duplicate entries for key {shown}"));
                }
                path.push_str(&shown);
                for item in items {
                    check(item, node.item(), path, complaints);
                }
                path.truncate(length);
            }
        }
        _ => {}
    }
}

impl FieldSet {
    /// Keeps what a write of the status may change: the status, and the metadata that the kind does not keep from it.
    fn retain_status(&mut self, kept: &[&str]) {
        self.0.retain(|element, _| matches!(&**element, "f:status" | "f:metadata"));
        self.below("f:metadata", |metadata| {
            metadata.member = false;
            metadata.below.0.retain(|element, _| {
                let field = element.strip_prefix("f:").unwrap_or_default();
                WRITABLE_METADATA.contains(&field) && !kept.contains(&field)
            });
        });
    }
}
