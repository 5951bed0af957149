//! Who wrote which field: every write of an object passes here, after defaults and before it is compared with what is
//! stored, so that a write that changes nothing is still none.

use http::header::USER_AGENT;
use jiff::Timestamp;
use serde_json::{Map, Value};
use wherry_api::object;
use wherry_api::patch::apply::{self, Writer};
use wherry_api::resource::Descriptor;
use wherry_api::strategy::Part;
use wherry_api::version::Conversion;

use super::Server;
use super::call::Call;
use super::query::WriteOptions;

/// Bytes that a manager's name may have.
const MAX: usize = 128;
/// Who writes without saying so.
const UNKNOWN: &str = "unknown";

/// `fieldManager`, or what the client's name begins with.
pub(crate) fn manager(call: &Call) -> String {
    if let Some(manager) = call.query.get("fieldManager") {
        return manager.to_owned();
    }
    let agent = call.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut name = String::new();
    for c in agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()) {
        if name.len() + c.len_utf8() > MAX {
            break;
        }
        name.push(c);
    }
    if name.is_empty() { UNKNOWN.to_owned() } else { name }
}

/// The writer of a call.
pub(crate) fn writer<'a>(call: &'a Call, part: Part, manager: &'a str) -> Writer<'a> {
    let subresource = call.info.subresource.as_str();
    Writer { resource: &call.resource, manager, subresource, part, now: Timestamp::now() }
}

/// Writes `managedFields` of a new or changed object. `asked` is what the client sent, or an apply made.
pub(crate) fn record(
    call: &Call,
    part: Part,
    options: WriteOptions,
    old: Option<&Value>,
    new: &mut Value,
    asked: Option<Value>,
) {
    if options.applied {
        object::set_meta(new, "managedFields", asked.unwrap_or(Value::Null));
        return;
    }
    let manager = manager(call);
    let convert = |tree: &Value, version: &str| in_version(&call.server, &call.resource, tree, version);
    apply::record(writer(call, part, &manager), old, new, asked.as_ref(), &convert);
}

/// Leaves the record as it was where nothing but its times would change, as Kubernetes does: an apply that leaves out defaults of
/// a list that is owned as a whole seems to change the list until it has been defaulted.
pub(crate) fn keep_times(new: &mut Value, old: &Value) {
    let record = |tree| timeless(object::meta(tree, "managedFields"));
    if same_besides_record(new, old) && record(new) == record(old) {
        object::copy_meta(new, old, &["managedFields"]);
    }
}

fn same_besides_record(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    let metadata = [new, old].map(|object| object.get("metadata").and_then(Value::as_object));
    let [Some(new_metadata), Some(old_metadata)] = metadata else { return false };
    same_but(new, old, "metadata") && same_but(new_metadata, old_metadata, "managedFields")
}

/// Whether two maps differ in this field at most.
fn same_but(one: &Map<String, Value>, other: &Map<String, Value>, field: &str) -> bool {
    let others = |map: &Map<String, Value>| map.len() - usize::from(map.contains_key(field));
    others(one) == others(other) && one.iter().all(|(key, value)| key == field || other.get(key) == Some(value))
}

/// Who has what, whenever that was.
fn timeless(record: Option<&Value>) -> Vec<Value> {
    let mut managers = record.and_then(Value::as_array).cloned().unwrap_or_default();
    for manager in managers.iter_mut().filter_map(Value::as_object_mut) {
        manager.remove("time");
    }
    managers
}

/// Carries over what is known, for a change that has no owner.
pub(crate) fn keep(new: &mut Value, old: &Value) {
    object::copy_meta(new, old, &["managedFields"]);
}

/// An object in another served version. Custom versions are taken to have the same fields: a webhook cannot be asked while
/// a write is being made.
pub(crate) fn in_version(server: &Server, resource: &Descriptor, tree: &Value, version: &str) -> Option<Value> {
    let stored = resource.storage_resource();
    let registry = server.registry();
    let other = registry.iter().find(|other| other.api_version() == version && other.storage_resource() == stored)?;
    let mut tree = tree.clone();
    if let Some(Conversion::Pure { to_stored, .. }) = resource.stored_as.as_ref().map(|as_| &as_.conversion) {
        tree = to_stored(tree);
    }
    if let Some(Conversion::Pure { from_stored, .. }) = other.stored_as.as_ref().map(|as_| &as_.conversion) {
        tree = from_stored(tree);
    }
    Some(tree)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_alone_are_no_change_of_an_object() {
        let object = |time: &str, owned: &str, data: &str| {
            let record = json!([{"manager": "m", "operation": "Apply", "time": time, "fieldsV1": {owned: {}}}]);
            json!({"metadata": {"name": "a", "managedFields": record}, "data": {"k": data}})
        };
        let old = object("early", "f:data", "x");
        let kept = |mut new: Value| {
            keep_times(&mut new, &old);
            new
        };
        assert_eq!(kept(object("late", "f:data", "x")), old);
        for changed in [object("late", "f:data", "y"), object("late", "f:other", "x")] {
            assert_eq!(kept(changed.clone()), changed);
        }
    }
}
