//! `metadata.managedFields`: who wrote which fields, last.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::fields::FieldSet;

/// Managers of updates that an object remembers one by one, as in Kubernetes.
const MAX_UPDATERS: usize = 10;
/// Who has the fields of those that are forgotten.
const ANCIENT: &str = "ancient-changes";

/// How a manager writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who: what tells one entry from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    pub operation: Operation,
    pub name: String,
    /// Of an update; an applier is one and the same in every version.
    pub version: String,
    pub subresource: String,
}

/// What a manager has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) api_version: String,
    /// As it is written; `""` if it is not known.
    pub(super) time: String,
    pub(super) fields: FieldSet,
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Managed(pub(super) BTreeMap<Manager, Owned>);

impl Managed {
    /// Reads `managedFields`; `None` if an entry makes no sense.
    pub(super) fn read(list: Option<&Value>) -> Option<Self> {
        let mut managed = Self::default();
        for entry in list.and_then(Value::as_array).into_iter().flatten() {
            let (manager, owned) = read_entry(entry)?;
            match managed.0.get_mut(&manager) {
                Some(present) => present.fields.extend(owned.fields),
                None => drop(managed.0.insert(manager, owned)),
            }
        }
        Some(managed)
    }

    /// Writes `managedFields`: appliers first, then by time.
    pub(super) fn write(&self) -> Value {
        let mut entries: Vec<_> = self.0.iter().filter(|(_, owned)| !owned.fields.is_empty()).collect();
        let order = |(manager, owned): &(&Manager, &Owned)| (manager.operation, owned.time.clone());
        entries.sort_by_key(order);
        entries.into_iter().map(|(manager, owned)| write_entry(manager, owned)).collect()
    }

    /// Joins the oldest updaters until there are few enough.
    pub(super) fn bound(&mut self) {
        if self.0.len() <= MAX_UPDATERS {
            return;
        }
        let mut updaters: Vec<(String, Manager)> = self
            .0
            .iter()
            .filter(|(manager, _)| manager.operation == Operation::Update)
            .map(|(manager, owned)| (owned.time.clone(), manager.clone()))
            .collect();
        updaters.sort();
        let mut left = updaters.len();
        let mut first_of = BTreeMap::<String, Manager>::new();
        for (_, manager) in updaters {
            if left <= MAX_UPDATERS {
                return;
            }
            let Some(first) = first_of.get(&manager.version) else {
                first_of.insert(manager.version.clone(), manager);
                continue;
            };
            let bucket = Manager { name: ANCIENT.into(), subresource: String::new(), ..manager.clone() };
            if !self.0.contains_key(&bucket)
                && let Some(owned) = self.0.remove(first)
            {
                self.0.insert(bucket.clone(), owned);
            }
            if bucket != manager
                && let (Some(owned), Some(ancient)) = (self.0.remove(&manager), self.0.get_mut(&bucket))
            {
                ancient.fields.extend(owned.fields);
                ancient.time = owned.time;
            }
            left -= 1;
        }
    }

    /// The versions that the managers wrote in, other than this one.
    pub(super) fn versions_besides(&self, version: &str) -> BTreeSet<String> {
        self.0.values().map(|owned| owned.api_version.clone()).filter(|other| other != version).collect()
    }
}

fn read_entry(entry: &Value) -> Option<(Manager, Owned)> {
    let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let operation = match text("operation").as_str() {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    if !matches!(text("fieldsType").as_str(), "" | "FieldsV1") {
        return None;
    }
    let api_version = text("apiVersion");
    let version = if operation == Operation::Update { api_version.clone() } else { String::new() };
    let manager = Manager { operation, name: text("manager"), version, subresource: text("subresource") };
    let fields = entry.get("fieldsV1").map_or_else(|| Ok(FieldSet::default()), FieldSet::parse).ok()?;
    Some((manager, Owned { api_version, time: text("time"), fields }))
}

fn write_entry(manager: &Manager, owned: &Owned) -> Value {
    let mut entry = json!({
        "manager": manager.name, "operation": manager.operation.name(), "apiVersion": owned.api_version,
        "fieldsType": "FieldsV1",
    });
    // Moved: `json!` would copy it.
    crate::object::set_at(&mut entry, "fieldsV1", owned.fields.print());
    for (field, value) in [("time", &owned.time), ("subresource", &manager.subresource)] {
        if !value.is_empty() {
            crate::object::set_at(&mut entry, field, value.as_str());
        }
    }
    entry
}
