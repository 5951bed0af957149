//! What a kind does beyond being stored: hooks that the generic verbs call, each a no-op by default.
//!
//! Order on create: `prepare_create` → `default` → `validate`. On update (of the object, its status, or by a patch): `default` →
//! `prepare_update` → `validate_update`. A hook changes or judges one JSON tree; it does no I/O. Typed work goes through [`view`].

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::field::ErrorList;
use crate::status::ApiError;

/// Which part of an object a request may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but status (for a kind with a status subresource; else everything).
    Main,
    Status,
    /// What is written through a path of this name: [`Strategy::prepare_update`] undoes every other change.
    Named(&'static str),
}

/// Behaviour of one kind.
pub trait Strategy: Send + Sync + fmt::Debug {
    /// Clears what a client may not set on create (the generic verb has already dropped `.status` where there is a
    /// status subresource).
    fn prepare_create(&self, _object: &mut Value) {}

    /// Fills absent fields with Kubernetes' defaults. Must be idempotent.
    fn default(&self, _object: &mut Value) {}

    /// [`Strategy::default`] where the object is about to be written. Error: 413, if it would become too large.
    fn try_default(&self, object: &mut Value) -> Result<(), ApiError> {
        self.default(object);
        Ok(())
    }

    /// Judges a new object, `metadata` excepted except for what the kind adds to it (the generic verb validates names,
    /// labels, annotations, owner references and finalizers; [`Strategy::name_rule`] says which names are good).
    fn validate(&self, _object: &Value, _errors: &mut ErrorList) {}

    /// Carries over from `old` what this request may not change.
    fn prepare_update(&self, _new: &mut Value, _old: &Value, _part: Part) {}

    /// Judges an update: by default, as a new object.
    fn validate_update(&self, new: &Value, _old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Main {
            self.validate(new, errors);
        }
    }

    /// Seconds between a request to delete an object and its end, for a kind that is deleted gracefully (Pod);
    /// `requested` is the `gracePeriodSeconds` of the request. `None`: the kind knows no grace.
    fn grace_period(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Changes an object that is about to wait for its deletion (Namespace: `status.phase` is `Terminating`).
    fn begin_deletion(&self, _object: &mut Value) {}

    /// Whether something besides `metadata.finalizers` keeps the object from being removed (Namespace:
    /// `spec.finalizers`).
    fn blocks_deletion(&self, _object: &Value) -> bool {
        false
    }

    /// Whether a new object keeps the status that it comes with (Node: it says at once what it is).
    fn created_with_status(&self) -> bool {
        false
    }

    /// Why an object of this name is not deleted, whoever asks for it (PriorityClass: those of the system).
    fn kept_because(&self, _name: &str) -> Option<&'static str> {
        None
    }

    /// Whether a deletion that names no policy leaves the dependents alone (Job, ReplicationController).
    fn orphans_by_default(&self) -> bool {
        false
    }

    /// Which names are good.
    fn name_rule(&self) -> NameRule {
        NameRule::DnsSubdomain
    }

    /// Warnings that a client should read (deprecated fields and the like).
    fn warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    /// Warnings that who changes an object should read: by default, those about what it becomes.
    fn update_warnings(&self, new: &Value, _old: &Value) -> Vec<String> {
        self.warnings(new)
    }

    /// Warnings about a new object that its writer reads once, and not again at each update (its name above all).
    fn new_warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }
}

/// A kind's rule for `metadata.name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, at most 253 characters.
    DnsSubdomain,
    /// RFC 1123 label, at most 63 characters (Namespace).
    DnsLabel,
    /// RFC 1035 label, at most 63 characters (Service).
    Dns1035Label,
    /// Anything that is one path segment (RBAC).
    PathSegment,
    /// An IP address in canonical form (IPAddress).
    IpAddress,
}

/// A kind with no behaviour of its own.
#[derive(Debug)]
pub struct Plain;

impl Strategy for Plain {}

/// A typed view of (a part of) an object; `None` if it does not have the type's shape, which decoding has already
/// refused for requests.
pub fn view<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}
