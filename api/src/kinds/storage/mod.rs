//! `storage.k8s.io/v1`.

pub mod csidriver;
pub mod csinode;
pub mod csistoragecapacity;
pub(crate) mod names;
pub mod storageclass;
pub mod volumeattachment;
pub mod volumeattributesclass;
