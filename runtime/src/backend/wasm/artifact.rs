//! Mapping compiled code: the one place where bytes from disk become code.
//!
//! What must stay true: only artifacts that this node compiled itself reach [`load`], from a folder with mode 0700 whose
//! name holds the engine's compatibility hash. An artifact that a user supplies is never loaded.
#![allow(unsafe_code)]

use std::path::Path;

use wasmtime::component::Component;
use wasmtime::{Engine, Result};

/// Maps the artifact at `path`; refuses one of another version or configuration.
pub(super) fn load(engine: &Engine, path: &Path) -> Result<Component> {
    // SAFETY: the artifact is this node's own output of `Engine::precompile_component`, written to its private folder
    // (mode 0700) under the engine's compatibility hash, replaced only by renaming a new file over it, so the mapping is
    // never changed underneath; the engine checks version, configuration and CPU again before it trusts the content.
    unsafe { Component::deserialize_file(engine, path) }
}
