//! Delete: preconditions, grace periods, finalizers and propagation policies, then the removal.
//!
//! The decision ([`decide`]) is pure; what it depends on is the object, the options and the kind's strategy.

use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use wherry_api::field::{ErrorList, Path};
use wherry_api::object;
use wherry_api::resource::Descriptor;
use wherry_api::status::ApiError;

use crate::admission::{Charge, Operation, Options, Request};
use crate::server::alloc::Hold;
use crate::server::body::Body;
use crate::server::call::Call;
use crate::server::error::ServerError;
use crate::server::query::{Query, invalid_options};
use crate::server::write::{self, ATTEMPTS, Put, Stored, unwritten};
use crate::server::{answer, metadata, versions};
use crate::store::Precondition;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// `metav1.DeleteOptions`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_period_seconds: Option<i64>,
    pub(crate) propagation_policy: Option<String>,
    pub(crate) orphan_dependents: Option<bool>,
    pub(crate) preconditions: Option<Preconditions>,
    pub(crate) dry_run: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Preconditions {
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
}

impl DeleteOptions {
    /// From a body (`None`: there was none) or the query, checked.
    pub(crate) fn parse(body: Option<Value>, query: &Query) -> Result<Self, ApiError> {
        let mut options = match body {
            Some(tree) => Self::of_body(tree)?,
            None => Self {
                grace_period_seconds: query.integer("gracePeriodSeconds")?,
                propagation_policy: query.get("propagationPolicy").map(str::to_owned),
                orphan_dependents: query.flag("orphanDependents")?,
                ..Self::default()
            },
        };
        if query.dry_run("DeleteOptions")? {
            options.dry_run = Some(vec!["All".to_owned()]);
        }
        options.check()?;
        Ok(options)
    }

    /// From a field of an object, checked.
    pub(crate) fn embedded(tree: Option<&Value>) -> Result<Self, ApiError> {
        let mut options = tree.cloned().map_or_else(|| Ok(Self::default()), Self::of_body)?;
        options.check()?;
        Ok(options)
    }

    fn of_body(tree: Value) -> Result<Self, ApiError> {
        if !matches!(object::kind(&tree), "" | "DeleteOptions") {
            return Err(ApiError::bad_request(format!(
                "the body of a delete must be DeleteOptions, not {}",
                object::kind(&tree)
            )));
        }
        serde_path_to_error::deserialize(tree)
            .map_err(|error| ApiError::bad_request(format!("DeleteOptions in the body cannot be read: {error}")))
    }

    fn check(&mut self) -> Result<(), ApiError> {
        let mut errors = ErrorList::default();
        let path = Path::new("propagationPolicy");
        if self.propagation_policy.as_deref() == Some("") {
            self.propagation_policy = None;
        }
        if let Some(policy) = &self.propagation_policy {
            if self.orphan_dependents.is_some() {
                let detail = "orphanDependents and deletionPropagation cannot be both set";
                errors.invalid(&path, &policy.as_str().into(), detail);
            }
            if !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan") {
                errors.not_supported(&path, policy, &["Foreground", "Background", "Orphan"]);
            }
        }
        // Kubernetes takes a negative grace period for one second.
        if self.grace_period_seconds.is_some_and(|s| s < 0) {
            self.grace_period_seconds = Some(1);
        }
        for value in self.dry_run.iter().flatten().filter(|v| *v != "All") {
            errors.not_supported(&Path::new("dryRun"), value, &["All"]);
        }
        if errors.is_empty() { Ok(()) } else { Err(invalid_options("DeleteOptions", &errors)) }
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run.as_ref().is_some_and(|d| !d.is_empty())
    }

    /// As admission sees them, with the grace that the object will get.
    fn shown(&self, resource: &Descriptor, old: &Value) -> Value {
        let grace = resource.strategy.grace_period(old, self.grace_period_seconds).or(self.grace_period_seconds);
        let preconditions = self.preconditions.as_ref();
        let given = [
            ("gracePeriodSeconds", json!(grace)),
            ("propagationPolicy", json!(self.propagation_policy)),
            ("orphanDependents", json!(self.orphan_dependents)),
            ("preconditions.uid", json!(preconditions.and_then(|p| p.uid.as_ref()))),
            ("preconditions.resourceVersion", json!(preconditions.and_then(|p| p.resource_version.as_ref()))),
        ];
        let mut shown = json!({});
        for (field, value) in given.into_iter().filter(|(_, value)| !value.is_null()) {
            object::set_at(&mut shown, field, value);
        }
        shown
    }

    pub(crate) fn check_preconditions(&self, resource: &Descriptor, old: &Value) -> Result<(), ApiError> {
        let Some(preconditions) = &self.preconditions else { return Ok(()) };
        let failed = |what: &str, asked: &str, is: &str| {
            Err(ApiError::conflict(resource, object::name(old), metadata::unmet(what, asked, is)))
        };
        match (&preconditions.uid, &preconditions.resource_version) {
            (Some(asked), _) if asked != object::uid(old) => failed("UID", asked, object::uid(old)),
            (_, Some(asked)) if asked != object::resource_version(old) => {
                failed("ResourceVersion", asked, object::resource_version(old))
            }
            _ => Ok(()),
        }
    }

    /// The finalizers that the garbage collector acts on, by the policy; `None`: as they are. Without a policy, the kind
    /// decides, unless an earlier request has.
    fn finalizers(&self, resource: &Descriptor, old: &Value) -> Option<Vec<String>> {
        let decided = || object::finalizers(old).iter().any(|f| matches!(*f, ORPHAN | FOREGROUND));
        let policy = match (self.propagation_policy.as_deref(), self.orphan_dependents) {
            (Some(policy), _) => policy,
            (None, Some(true)) => "Orphan",
            (None, Some(false)) => "Background",
            (None, None) if resource.strategy.orphans_by_default() && !decided() => "Orphan",
            (None, None) => return None,
        };
        let mut kept: Vec<String> = object::finalizers(old)
            .into_iter()
            .filter(|f| !matches!(*f, ORPHAN | FOREGROUND))
            .map(str::to_owned)
            .collect();
        match policy {
            "Orphan" => kept.push(ORPHAN.into()),
            "Foreground" => kept.push(FOREGROUND.into()),
            _ => {}
        }
        Some(kept)
    }
}

/// What a delete does to an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    Remove,
    /// The deletion waits for something: the object is marked.
    Mark(Box<Value>),
    /// It is being deleted as asked already.
    Nothing,
}

pub(crate) fn decide(resource: &Descriptor, old: &Value, options: &DeleteOptions, now: Timestamp) -> Decision {
    let mut new = old.clone();
    if let Some(finalizers) = options.finalizers(resource, old) {
        object::set_finalizers(&mut new, finalizers);
    }
    let strategy = &resource.strategy;
    let grace = strategy.grace_period(old, options.grace_period_seconds);
    let left = mark(&mut new, grace, options.grace_period_seconds.is_some(), now);
    let waits = left > 0 || !object::finalizers(&new).is_empty() || strategy.blocks_deletion(&new);
    if !waits {
        return Decision::Remove;
    }
    if !object::is_deleting(old) {
        strategy.begin_deletion(&mut new);
        if resource.generation {
            object::set_generation(&mut new, object::generation(old).saturating_add(1));
        }
    }
    if new == *old { Decision::Nothing } else { Decision::Mark(Box::new(new)) }
}

/// Sets, or shortens, the time of deletion. Returns the seconds of grace.
fn mark(object: &mut Value, grace: Option<i64>, asked: bool, now: Timestamp) -> i64 {
    let Some(since) = object::deletion_timestamp(object) else {
        let grace = grace.unwrap_or_default().max(0);
        let end = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
        object::set_deletion(object, end, grace);
        return grace;
    };
    let had = object::deletion_grace_period(object).unwrap_or_default();
    match grace {
        // Only a shorter grace period may be asked for.
        Some(grace) if (asked || grace == 0) && grace < had => {
            let end = since.checked_add(SignedDuration::from_secs(grace - had)).unwrap_or(now);
            object::set_deletion(object, end, grace);
            grace
        }
        Some(_) => had,
        None => 0,
    }
}

pub(crate) async fn delete(call: &mut Call, body: Body) -> Result<Response<Body>, ServerError> {
    let tree = call.read_tree(body).await?.map(|d| d.object);
    let options = DeleteOptions::parse(tree, &call.query)?;
    let (resource, name) = (call.resource.clone(), call.info.name.clone());
    if let Some(why) = resource.strategy.kept_because(&name) {
        return Err(ApiError::forbidden(&resource, &name, why).into());
    }
    match run(call, &name, &options, Admission::Asked).await? {
        Outcome::Removed(last) => {
            let status = answer::success(&resource, &name, object::uid(&answer::parse(&last.bytes)?));
            if resource.returns_deleted {
                let bytes = versions::bytes(&resource, last).await?;
                return answer::object(call.accepted, &resource, StatusCode::OK, bytes);
            }
            answer::value(call.accepted, StatusCode::OK, &status)
        }
        Outcome::Waiting(stored) => {
            let bytes = versions::bytes(&resource, stored).await?;
            answer::object(call.accepted, &resource, StatusCode::OK, bytes)
        }
    }
}

/// What became of the object.
#[derive(Debug)]
pub(crate) enum Outcome {
    Removed(Stored),
    Waiting(Stored),
}

/// Whether admission is asked about a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Asked,
    /// It has allowed what led to the deletion.
    Given,
}

/// Deletes one object of the call's resource and namespace.
pub(crate) async fn run(
    call: &Call,
    name: &str,
    options: &DeleteOptions,
    admission: Admission,
) -> Result<Outcome, ServerError> {
    let mut current = call.find(name)?;
    for _ in 0..ATTEMPTS {
        match attempt(call, name, options, admission, &current).await {
            Ok(outcome) => return Ok(outcome),
            Err(failure) => current = write::again(call, name, current, failure).await?,
        }
    }
    Err(ApiError::modified(&call.resource, name).into())
}

async fn attempt(
    call: &Call,
    name: &str,
    options: &DeleteOptions,
    admission: Admission,
    current: &Stored,
) -> Result<Outcome, ServerError> {
    let resource = &call.resource;
    let old = versions::tree(resource, current).await?;
    options.check_preconditions(resource, &old)?;
    if admission == Admission::Asked {
        let shown = options.shown(resource, &old);
        let request = call.admission(Operation::Delete, name, options.is_dry_run());
        let request = Request { options: Options::Delete(&shown), ..request };
        call.admit(&request, None, Some(&old)).await?;
    }
    let key = call.key_of(name);
    match decide(resource, &old, options, Timestamp::now()) {
        Decision::Nothing => Ok(Outcome::Waiting(current.clone())),
        Decision::Remove if options.is_dry_run() => Ok(Outcome::Removed(current.clone())),
        Decision::Remove => {
            let revision = call.server.remove(resource, key, &old, current.revision).await?;
            Ok(Outcome::Removed(unwritten(versions::to_stored(resource, &old).await?, Some(revision))))
        }
        Decision::Mark(new) if options.is_dry_run() => {
            Ok(Outcome::Waiting(unwritten(versions::to_stored(resource, &new).await?, Some(current.revision))))
        }
        Decision::Mark(new) => {
            let preconditions = vec![(key.clone(), Precondition::At(current.revision))];
            let stored = versions::to_stored(resource, &new).await?;
            let put = Put { resource, key, stored: &stored, preconditions, charge: Charge::default() };
            Ok(Outcome::Waiting(call.server.put(put, Hold::default()).await?))
        }
    }
}
