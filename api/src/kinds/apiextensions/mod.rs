//! apiextensions.k8s.io: kinds that define kinds.

pub mod customresourcedefinition;
