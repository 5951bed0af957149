//! One generic function per verb, for every kind.

pub(super) mod apply;
pub(super) mod create;
pub(super) mod delete;
pub(super) mod deletecollection;
pub(super) mod get;
pub(super) mod list;
pub(super) mod patch;
pub(super) mod update;
pub(super) mod watch;
