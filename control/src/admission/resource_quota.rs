//! Nothing is written that would use more of a namespace's quota than there is.
//!
//! A write is charged in the transaction that makes it: the quota's new `status.used` is committed with the object, if the
//! quota still is as it was when it was judged. So no number of writers at once can exceed it, and what is shown as used is
//! what is stored. What goes away is given back by the controller, which counts again.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::{Mutex, OwnedMutexGuard};
use wherry_api::object;
use wherry_api::quantity::Quantity;
use wherry_api::resource::GroupResource;
use wherry_api::status::ApiError;

use super::{Operation, Request};
use crate::cache::{Cache, Entry};
use crate::quota::{self, Usage};
use crate::store::{Encoded, Key, Op, Precondition};

/// Writes of this many namespaces are charged side by side; more of them may wait for each other without need.
const TURNS: usize = 64;

static QUOTAS: GroupResource = GroupResource::new("", "resourcequotas");

/// Kubernetes' plugin of that name. It is the last to be asked, because its yes is a charge.
pub struct ResourceQuota {
    cache: Cache,
    /// Writers of one namespace take turns, from the judgement to the commit: without that most of them would be refused by
    /// the store and begin again.
    turns: Vec<Arc<Mutex<()>>>,
    hasher: RandomState,
}

impl fmt::Debug for ResourceQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceQuota").finish_non_exhaustive()
    }
}

/// What must be written together with an object.
#[derive(Debug, Default)]
pub struct Charge {
    pub preconditions: Vec<(Key, Precondition)>,
    pub ops: Vec<Op>,
    /// Of its namespace; ends when this is dropped.
    pub turn: Option<OwnedMutexGuard<()>>,
}

/// A quota that is about the object.
struct Matched {
    entry: Arc<Entry>,
    quota: Value,
    hard: Usage,
    used: Usage,
}

impl ResourceQuota {
    pub fn new(cache: Cache) -> Self {
        Self { cache, turns: (0..TURNS).map(|_| Arc::default()).collect(), hasher: RandomState::new() }
    }

    /// Charges a create, or what an update adds. Error: 403, if a quota does not allow it.
    pub async fn charge(&self, request: &Request<'_>, new: &Value, old: Option<&Value>) -> Result<Charge, ApiError> {
        let (group, plural) = (request.resource.group.as_ref(), request.resource.plural.as_ref());
        let counts = match request.operation {
            Operation::Create => request.subresource.is_empty(),
            Operation::Update => quota::measured(group, plural, request.subresource),
            Operation::Delete | Operation::Connect => false,
        };
        // What ends by itself is not limited, as Kubernetes does not limit Events: a charge ends with the write that makes it.
        let ends = request.resource.expires_after.is_some();
        if !counts || ends || !request.resource.namespaced() || self.cache.all(&QUOTAS, request.namespace).is_empty() {
            return Ok(Charge::default());
        }
        let turn = self.turn(request.namespace).lock_owned().await;
        // Read again: the last turn's commit is in the cache.
        let entries = self.cache.all(&QUOTAS, request.namespace);
        let now = jiff::Timestamp::now();
        let mut delta = quota::usage(group, plural, new, now);
        if let Some(old) = old {
            let before = quota::usage(group, plural, old, now);
            quota::add(&mut delta, &before.into_iter().map(|(name, amount)| (name, -amount)).collect());
        }
        delta.retain(|_, amount| !amount.is_zero());
        let mut charge = Charge { turn: Some(turn), ..Charge::default() };
        for entry in entries {
            let Some(matched) = matched(request, entry, new)? else { continue };
            if let Some(used) = judge(request, &matched, &delta)? {
                charge.add(matched, used);
            }
        }
        Ok(charge)
    }

    fn turn(&self, namespace: &str) -> Arc<Mutex<()>> {
        let index = usize::try_from(self.hasher.hash_one(namespace)).unwrap_or_default() % TURNS;
        self.turns.get(index).cloned().unwrap_or_default()
    }
}

/// The quota, if it is about the object and has been counted once.
fn matched(request: &Request<'_>, entry: Arc<Entry>, new: &Value) -> Result<Option<Matched>, ApiError> {
    let (group, plural) = (request.resource.group.as_ref(), request.resource.plural.as_ref());
    let Ok(stored) = entry.read::<Value>() else { return Ok(None) };
    let spec = stored.get("spec").unwrap_or(&Value::Null);
    if !quota::selects(spec, group, plural, new) {
        return Ok(None);
    }
    let hard = quota::amounts(object::at(&stored, "status.hard"));
    if (group, plural) == ("", "pods")
        && let Some(missing) = quota::missing(new, hard.keys().map(String::as_str))
    {
        return Err(request.forbidden(format!("failed quota: {}: must specify {missing}", entry.meta.name)));
    }
    let used = quota::amounts(object::at(&stored, "status.used"));
    Ok(Some(Matched { entry, quota: stored, hard, used }))
}

/// What would be used of the quota with the write; `None`: nothing that it limits changes.
fn judge(request: &Request<'_>, matched: &Matched, delta: &Usage) -> Result<Option<Usage>, ApiError> {
    let Matched { entry, hard, used, .. } = matched;
    let asked: Usage =
        delta.iter().filter(|(name, _)| hard.contains_key(*name)).map(|(n, q)| (n.clone(), *q)).collect();
    if asked.is_empty() {
        return Ok(None);
    }
    let uncounted: Vec<&str> = asked.keys().filter(|name| !used.contains_key(*name)).map(String::as_str).collect();
    if !uncounted.is_empty() {
        let resources = uncounted.join(",");
        return Err(request.forbidden(format!("status unknown for quota: {}, resources: {resources}", entry.meta.name)));
    }
    let mut total = used.clone();
    quota::add(&mut total, &asked);
    let over: Vec<&String> = asked
        .iter()
        .filter(|(name, amount)| **amount > Quantity::ZERO && total.get(*name) > hard.get(*name))
        .map(|(name, _)| name)
        .collect();
    if over.is_empty() {
        return Ok(Some(total));
    }
    let show = |of: &Usage| {
        let amount = |name: &String| of.get(name).copied().unwrap_or(Quantity::ZERO);
        over.iter().map(|name| format!("{name}={}", amount(name))).collect::<Vec<_>>().join(",")
    };
    Err(request.forbidden(format!(
        "exceeded quota: {}, requested: {}, used: {}, limited: {}",
        entry.meta.name,
        show(&asked),
        show(used),
        show(hard)
    )))
}

impl Charge {
    fn add(&mut self, matched: Matched, used: Usage) {
        let mut quota = matched.quota;
        let used: serde_json::Map<String, Value> =
            used.into_iter().map(|(name, amount)| (name, json!(amount.to_string()))).collect();
        object::set_at(&mut quota, "status.used", Value::Object(used));
        let (bytes, splice) = object::encode(&quota);
        let key = matched.entry.key.clone();
        self.preconditions.push((key.clone(), Precondition::At(matched.entry.revision)));
        self.ops.push(Op::Put { key, value: Encoded { bytes, splice } });
    }
}
