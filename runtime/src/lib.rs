//! Wherry's node: it watches the pods that are bound to it, pulls their images, runs their containers in a backend, and
//! reports what became of them. It is an ordinary client of the API server.

pub mod backend;
pub mod fault;
pub mod image;
pub mod log;
pub mod network;
pub mod node;
mod places;
pub mod pod;
mod shares;
