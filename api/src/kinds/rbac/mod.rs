//! `rbac.authorization.k8s.io/v1`: who may do what.

mod binding;
pub mod clusterrole;
pub mod clusterrolebinding;
pub mod role;
pub mod rolebinding;
mod rules;

/// The group's name, which references to roles and to users carry.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";
