//! Schemas of built-in kinds: made from `k8s-openapi`'s `schemars` feature on first use, a group at a time; the OpenAPI
//! documents derived from them are kept as compressed bytes, never as expanded values.

mod build;
pub mod facts;
pub mod openapi;
mod shape;
pub mod structural;

pub use build::{object_meta, of, shape};
pub use facts::{Merge, Structure};
pub use openapi::{Document, Foreign, openapi_v2, openapi_v2_protobuf, openapi_v3, openapi_v3_index};
pub use shape::{Field, Shape, Type};
