//! Who wrote which field: every write of an object passes here, after defaults and before it is compared with what is
//! stored, so that a write that changes nothing is still none.

use http::header::USER_AGENT;
use jiff::Timestamp;
use serde_json::Value;
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
