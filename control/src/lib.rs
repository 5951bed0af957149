//! Wherry's control plane: a revisioned store, a watch cache on shared bytes, an API server that derives everything from
//! the kind registry, and the controllers and scheduler, which are ordinary clients of that server.
//!
//! What must stay true: nothing but the API server touches the store; every write passes the one pipeline.

mod admission;
pub mod audit;
pub mod auth;
pub mod cache;
pub mod cidr;
pub mod client;
pub mod controllers;
pub mod flow;
mod hex;
mod outbound;
pub mod plane;
mod quota;
pub mod reconcile;
mod registry;
pub mod scheduler;
pub mod server;
pub mod store;
mod uuid;
