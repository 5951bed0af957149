//! THE list of built-in kinds: adding one is one file in its group's folder and one line here.

pub mod apps;
mod cells;
pub mod coordination;
pub mod core;
pub mod discovery;
mod tree;

use crate::resource::Descriptor;

/// Every built-in kind.
pub fn all() -> Vec<Descriptor> {
    vec![
        core::namespace::descriptor(),
        core::node::descriptor(),
        core::pod::descriptor(),
        core::configmap::descriptor(),
        core::secret::descriptor(),
        core::serviceaccount::descriptor(),
        core::service::descriptor(),
        core::endpoints::descriptor(),
        core::event::descriptor(),
        discovery::endpointslice::descriptor(),
        coordination::lease::descriptor(),
        apps::replicaset::descriptor(),
        apps::deployment::descriptor(),
        apps::controllerrevision::descriptor(),
    ]
}
