//! Admission by configuration: webhooks and policies that users register, after all plugins.
//!
//! Order, as in Kubernetes: mutating policies, mutating webhooks, (defaults and validation), validating policies,
//! validating webhooks. What is registered is read from the watch cache at each request. The registrations themselves are
//! never judged by what they register, so that a wrong one can always be mended.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use wherry_api::registry::Registry;
use wherry_api::resource::GroupResource;

use super::{Durations, Operation, Plugin, Request};
use crate::auth::Authorizer;
use crate::cache::{Cache, Entry};
use crate::outbound::Outbound;

mod environment;
mod equivalent;
mod matching;
mod mutating_policy;
mod mutating_webhook;
mod policy;
mod review;
mod validating_policy;
mod validating_webhook;
mod webhook;

/// The kinds that are served now.
#[derive(Clone)]
pub struct Kinds(Arc<dyn Fn() -> Registry + Send + Sync>);

impl Kinds {
    pub fn new(now: impl Fn() -> Registry + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }
}

impl fmt::Debug for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kinds(..)")
    }
}

/// What all of them need.
#[derive(Clone, Debug)]
struct Context {
    cache: Cache,
    outbound: Outbound,
    authorizer: Arc<dyn Authorizer>,
    kinds: Kinds,
    durations: Durations,
    programs: Arc<environment::Programs>,
    registrations: Arc<Mutex<HashMap<&'static str, Registrations>>>,
}

/// The registered objects of a kind as they were last read: there are few, and every write asks for all of them.
#[derive(Debug)]
struct Registrations {
    entries: Vec<Arc<Entry>>,
    objects: Arc<[Value]>,
}

impl Registrations {
    fn of(entries: Vec<Arc<Entry>>) -> Self {
        let mut objects: Vec<Value> = entries.iter().filter_map(|e| e.read().ok()).collect();
        objects.sort_by(|a, b| wherry_api::object::name(a).cmp(wherry_api::object::name(b)));
        Self { entries, objects: objects.into() }
    }

    fn is_of(&self, entries: &[Arc<Entry>]) -> bool {
        self.entries.len() == entries.len() && self.entries.iter().zip(entries).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

/// The plugins, in order.
pub(super) fn plugins(
    cache: &Cache,
    outbound: &Outbound,
    authorizer: &Arc<dyn Authorizer>,
    kinds: Kinds,
    durations: &Durations,
) -> Vec<Box<dyn Plugin>> {
    let context = Context {
        cache: cache.clone(),
        outbound: outbound.clone(),
        authorizer: Arc::clone(authorizer),
        kinds,
        durations: durations.clone(),
        programs: Arc::default(),
        registrations: Arc::default(),
    };
    vec![
        Box::new(mutating_policy::MutatingPolicies(context.clone())),
        Box::new(mutating_webhook::MutatingWebhooks(context.clone())),
        Box::new(validating_policy::ValidatingPolicies(context.clone())),
        Box::new(validating_webhook::ValidatingWebhooks(context)),
    ]
}

/// The group of the registrations.
const GROUP: &str = "admissionregistration.k8s.io";

/// Whether the request is about a registration, or about nothing that is judged.
fn exempt(request: &Request<'_>) -> bool {
    request.resource.group == GROUP
}

impl Context {
    /// All registered objects of a kind, in the order of their names.
    fn registered(&self, plural: &'static str) -> Arc<[Value]> {
        let kind = GroupResource::new(GROUP, plural);
        let entries = self.cache.all(&kind, "");
        if entries.is_empty() {
            return Arc::default();
        }
        let mut known = self.registrations.lock();
        if let Some(known) = known.get(plural).filter(|known| known.is_of(&entries)) {
            return Arc::clone(&known.objects);
        }
        let read = Registrations::of(entries);
        let objects = Arc::clone(&read.objects);
        known.insert(plural, read);
        objects
    }

    /// An object of the cache.
    fn find(&self, kind: &GroupResource, namespace: &str, name: &str) -> Option<Value> {
        let entry = self.cache.get(kind, namespace, name)?;
        entry.read().ok()
    }

    fn namespace(&self, name: &str) -> Option<Value> {
        self.find(&GroupResource::new("", "namespaces"), "", name)
    }
}

/// The object and what it replaces, as webhooks and policies see them.
#[derive(Clone, Copy, Debug)]
struct Objects<'a> {
    new: Option<&'a Value>,
    old: Option<&'a Value>,
}

impl Operation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// `failurePolicy: Ignore`.
fn ignores_failure(value: &Value) -> bool {
    text(value, "failurePolicy") == "Ignore"
}
