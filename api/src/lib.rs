//! Wherry's resource model: what a kind is, how its objects are decoded, defaulted, validated, patched, selected and
//! shown. It does no I/O and knows no store; the API server, the command line and the tests are built on it.
//!
//! Everything that differs between kinds is data in a [`resource::Descriptor`]; the [`registry::Registry`] is the one
//! list of them, and routes, discovery, OpenAPI, tables and tests are derived from it.

pub mod cbor;
pub mod cel;
pub mod cron;
pub mod custom;
pub mod decode;
pub mod field;
pub mod kinds;
pub mod lenient;
pub mod meta;
pub mod object;
pub mod patch;
pub mod quantity;
pub mod registry;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strategy;
pub mod table;
pub mod version;
