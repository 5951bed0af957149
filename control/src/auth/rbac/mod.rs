//! Role-based access control: what Roles and ClusterRoles allow to whom their bindings name.
//!
//! [`Rbac`] keeps an [`index`] of the four kinds by subject and brings it up to date from the cache's own changes before
//! every decision: a decision sees every acknowledged write, and costs what its user's bindings cost, however many others
//! there are. What must stay true: only these objects grant; a role that is missing or unreadable grants nothing.

pub mod aggregate;
pub mod cover;
pub mod defaults;
pub mod escalation;
mod index;
pub mod rule;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::api::rbac::v1::PolicyRule;
use parking_lot::{Mutex, RwLock};
use wherry_api::resource::GroupResource;

use self::index::{Grant, Index, Kind};
use super::{Attributes, Decision, UserInfo};
use crate::cache::{Cache, Follow};

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Judges by roles and bindings.
pub struct Rbac {
    cache: Cache,
    index: RwLock<Index>,
    /// One place in the cache's changes per kind. Held while the index is brought up to date.
    follows: Mutex<Vec<(Kind, Follow)>>,
    /// The cache's revision that the index shows.
    shown: AtomicU64,
}

impl fmt::Debug for Rbac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rbac").field("shown", &self.shown.load(Ordering::Relaxed)).finish_non_exhaustive()
    }
}

/// What a user may do in a namespace, and what kept that from being known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    pub rules: Vec<PolicyRule>,
    pub errors: Vec<String>,
}

impl Rbac {
    pub fn new(cache: Cache) -> Self {
        let follows = Kind::ALL.map(|kind| {
            let resource = GroupResource::new(GROUP, kind.plural());
            (kind, Follow::new(&resource))
        });
        Self {
            cache,
            index: RwLock::default(),
            follows: Mutex::new(follows.into()),
            // No revision of a store: the first decision reads everything.
            shown: AtomicU64::new(u64::MAX),
        }
    }

    /// Whether a role allows this. The reason of a denial names what could not be read.
    pub fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        match self.find(user, attributes) {
            Ok(_) => Decision::Allow,
            Err(errors) => Decision::Deny(denial(&errors)),
        }
    }

    /// Why a request is allowed, in Kubernetes' words: `RBAC: allowed by ClusterRoleBinding "x" of ClusterRole …`.
    pub fn reason(&self, user: &UserInfo, attributes: &Attributes) -> Option<String> {
        self.find(user, attributes).ok()
    }

    /// Everything that a user may do in a namespace (`""`: in none).
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Rules {
        self.refresh();
        let index = self.index.read();
        let mut found = Rules::default();
        index.visit(user, Some(namespace), |grant| {
            match index.rules_of(grant) {
                Ok(rules) => found.rules.extend(rules.iter().cloned()),
                Err(error) => note(&mut found.errors, error),
            }
            false
        });
        found
    }

    /// The rules of a role as a binding names it. Error: Kubernetes' message that there is none.
    pub fn role_rules(&self, kind: &str, name: &str, namespace: &str) -> Result<Vec<PolicyRule>, String> {
        self.refresh();
        self.index.read().role(kind, namespace, name).map(<[_]>::to_vec)
    }

    /// The description of the first grant that allows it, or what went wrong.
    fn find(&self, user: &UserInfo, attributes: &Attributes) -> Result<String, Vec<String>> {
        self.refresh();
        let index = self.index.read();
        let mut errors = Vec::new();
        let mut allowed = None;
        // Paths that are no resource's belong to no namespace: only cluster-wide bindings count.
        let namespace = attributes.is_resource().then_some(attributes.namespace.as_str());
        index.visit(user, namespace, |grant| match index.rules_of(grant) {
            Ok(rules) => {
                let matches = rules.iter().any(|rule| rule::allows(rule, attributes));
                if matches {
                    allowed = Some(grant.describe());
                }
                matches
            }
            Err(error) => {
                note(&mut errors, error);
                false
            }
        });
        allowed.ok_or(errors)
    }

    /// Brings the index up to what the cache shows.
    fn refresh(&self) {
        let revision = self.cache.revision();
        if self.shown.load(Ordering::Acquire) == revision {
            return;
        }
        let mut follows = self.follows.lock();
        for (kind, follow) in &mut *follows {
            let since = self.cache.since(follow);
            if since.is_empty() {
                continue;
            }
            let mut index = self.index.write();
            if since.afresh {
                index.clear(*kind);
            }
            for (key, entry) in since.changes {
                index.change(*kind, &key, entry.as_deref());
            }
        }
        self.shown.store(revision, Ordering::Release);
    }
}

fn note(errors: &mut Vec<String>, error: String) {
    if !errors.contains(&error) {
        errors.push(error);
    }
}

fn denial(errors: &[String]) -> String {
    match errors {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        many => format!("RBAC: [{}]", many.join(", ")),
    }
}

impl Grant {
    /// As `kubectl auth can-i` and audit records show it.
    fn describe(&self) -> String {
        let (kind, place) = match &self.namespace {
            Some(namespace) => ("RoleBinding", format!("/{namespace}")),
            None => ("ClusterRoleBinding", String::new()),
        };
        format!(
            "RBAC: allowed by {kind} {:?} of {} {:?} to {}",
            format!("{}{place}", self.binding),
            self.role_kind,
            self.role,
            self.subject
        )
    }
}

#[cfg(test)]
mod tests;
