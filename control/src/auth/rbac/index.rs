//! Roles and bindings by what a decision asks for: a binding by its subject, a role by its name.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use serde::Deserialize;

use crate::auth::{UserInfo, accounts};
use crate::cache::Entry;
use crate::store::Key;

/// The four kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Role,
    ClusterRole,
    RoleBinding,
    ClusterRoleBinding,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Role, Self::ClusterRole, Self::RoleBinding, Self::ClusterRoleBinding];

    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Role => "roles",
            Self::ClusterRole => "clusterroles",
            Self::RoleBinding => "rolebindings",
            Self::ClusterRoleBinding => "clusterrolebindings",
        }
    }

    fn is_role(self) -> bool {
        matches!(self, Self::Role | Self::ClusterRole)
    }

    fn in_cluster(self) -> bool {
        matches!(self, Self::ClusterRole | Self::ClusterRoleBinding)
    }
}

/// One subject of one binding.
#[derive(Debug)]
pub(super) struct Grant {
    /// `None`: everywhere.
    pub(super) namespace: Option<Box<str>>,
    pub(super) binding: Box<str>,
    pub(super) role_kind: Box<str>,
    pub(super) role: Box<str>,
    /// As messages name it: `Group "x"`.
    pub(super) subject: String,
}

/// Users and groups have names of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    User(Box<str>),
    Group(Box<str>),
}

/// A name within its namespace; cluster-wide objects have none.
type Place = (Option<Box<str>>, Box<str>);

#[derive(Debug, Default)]
pub(super) struct Index {
    roles: HashMap<Place, Arc<[PolicyRule]>>,
    /// Whom a binding names, to find its grants again.
    bindings: HashMap<Place, Vec<Who>>,
    grants: HashMap<Who, Vec<Arc<Grant>>>,
}

#[derive(Deserialize)]
struct RoleObject {
    #[serde(default)]
    rules: Option<Vec<PolicyRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BindingObject {
    role_ref: RoleRef,
    #[serde(default)]
    subjects: Option<Vec<Subject>>,
}

impl Index {
    /// Takes an object's new state, or its absence.
    pub(super) fn change(&mut self, kind: Kind, key: &Key, entry: Option<&Entry>) {
        let Some(place) = place(kind, key) else { return };
        if kind.is_role() {
            match entry.and_then(|entry| entry.read::<RoleObject>().ok()) {
                Some(role) => drop(self.roles.insert(place, role.rules.unwrap_or_default().into())),
                None => drop(self.roles.remove(&place)),
            }
            return;
        }
        self.forget(&place);
        if let Some(binding) = entry.and_then(|entry| entry.read::<BindingObject>().ok()) {
            self.bind(place, binding);
        }
    }

    /// Forgets all objects of a kind.
    pub(super) fn clear(&mut self, kind: Kind) {
        let concerns = |place: &Place| place.0.is_none() == kind.in_cluster();
        if kind.is_role() {
            self.roles.retain(|place, _| !concerns(place));
            return;
        }
        let gone: Vec<Place> = self.bindings.keys().filter(|place| concerns(place)).cloned().collect();
        for place in gone {
            self.forget(&place);
        }
    }

    fn forget(&mut self, place: &Place) {
        for who in self.bindings.remove(place).unwrap_or_default() {
            if let Some(grants) = self.grants.get_mut(&who) {
                grants.retain(|grant| (&grant.namespace, &grant.binding) != (&place.0, &place.1));
                if grants.is_empty() {
                    self.grants.remove(&who);
                }
            }
        }
    }

    fn bind(&mut self, place: Place, binding: BindingObject) {
        let mut everybody = Vec::new();
        for subject in binding.subjects.unwrap_or_default() {
            let Some((who, description)) = who(&subject, place.0.as_deref()) else { continue };
            let grant = Arc::new(Grant {
                namespace: place.0.clone(),
                binding: place.1.clone(),
                role_kind: binding.role_ref.kind.as_str().into(),
                role: binding.role_ref.name.as_str().into(),
                subject: description,
            });
            let grants = self.grants.entry(who.clone()).or_default();
            // Cluster-wide grants come first: they answer more.
            let at = if place.0.is_none() { 0 } else { grants.len() };
            grants.insert(at, grant);
            everybody.push(who);
        }
        self.bindings.insert(place, everybody);
    }

    /// Shows the grants of a user and of its groups until `stop` says so: those for everywhere, and those in `namespace`.
    pub(super) fn visit(&self, user: &UserInfo, namespace: Option<&str>, mut stop: impl FnMut(&Grant) -> bool) {
        let groups = user.groups.iter().map(|group| Who::Group(group.as_str().into()));
        for who in std::iter::once(Who::User(user.name.as_str().into())).chain(groups) {
            for grant in self.grants.get(&who).into_iter().flatten() {
                let concerns = grant.namespace.as_deref().is_none_or(|place| namespace == Some(place));
                if concerns && stop(grant) {
                    return;
                }
            }
        }
    }

    pub(super) fn rules_of(&self, grant: &Grant) -> Result<&[PolicyRule], String> {
        self.role(&grant.role_kind, grant.namespace.as_deref().unwrap_or_default(), &grant.role)
    }

    /// A role by what a binding in `namespace` calls it.
    pub(super) fn role(&self, kind: &str, namespace: &str, name: &str) -> Result<&[PolicyRule], String> {
        let place = match kind {
            "Role" => (Some(namespace.into()), name.into()),
            "ClusterRole" => (None, name.into()),
            other => return Err(format!("unsupported role reference kind: {other:?}")),
        };
        let found = self.roles.get(&place).map(|rules| &**rules);
        found.ok_or_else(|| format!("{}.{} {name:?} not found", kind.to_lowercase(), super::GROUP))
    }
}

fn place(kind: Kind, key: &Key) -> Option<Place> {
    let mut parts = key.as_str().splitn(4, '/').skip(2);
    let (namespace, name) = (parts.next()?, parts.next()?);
    Some((if kind.in_cluster() { None } else { Some(namespace.into()) }, name.into()))
}

fn who(subject: &Subject, namespace: Option<&str>) -> Option<(Who, String)> {
    let name = subject.name.as_str();
    match subject.kind.as_str() {
        "User" => Some((Who::User(name.into()), format!("User {name:?}"))),
        "Group" => Some((Who::Group(name.into()), format!("Group {name:?}"))),
        "ServiceAccount" => {
            let given = subject.namespace.as_deref().filter(|n| !n.is_empty());
            let namespace = given.or(namespace)?;
            let user = accounts::user_name(namespace, name);
            Some((Who::User(user.into()), format!("ServiceAccount {:?}", format!("{name}/{namespace}"))))
        }
        _ => None,
    }
}
