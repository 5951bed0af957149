//! What black-box tests share: a `wherry up` of the built binary in a folder of its own, `kubectl` and `wherry` against it,
//! requests as any user, and waiting on conditions.
//!
//! What must stay true: a server is ended by its own process id when its test ends, however it ends; ports are chosen by
//! the kernel or by the server, so that many tests run at once; nothing waits for a fixed time.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::print_stderr, clippy::missing_panics_doc, clippy::needless_pass_by_value)]

pub mod api;
pub mod http;
pub mod registry;
pub mod run;
pub mod server;
pub mod webhook;

pub use api::{Answer, Api};
pub use run::{Output, absent, eventually, missing, within};
pub use server::Wherry;

use std::path::PathBuf;

/// How long anything may take on a slow, busy machine before it counts as not happening.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// The folder of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What is tested: this build's binary, or another one that `$WHERRY_BINARY` names (a release, say).
pub fn binary() -> PathBuf {
    std::env::var_os("WHERRY_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_wherry").into(), PathBuf::from)
}

/// A prebuilt component.
pub fn prebuilt(name: &str) -> PathBuf {
    root().join("examples-wasm/prebuilt").join(format!("{name}.wasm"))
}

/// A manifest of the repository for a parallel test: images are absolute paths, and node ports are the server's to choose.
pub fn manifest(name: &str) -> String {
    let text = std::fs::read_to_string(root().join("manifests").join(name)).unwrap();
    let images = text.replace("../examples-wasm", &root().join("examples-wasm").display().to_string());
    images
        .lines()
        .filter(|line| !line.trim_start().starts_with("nodePort:"))
        .fold(String::new(), |all, line| all + line + "\n")
}

/// Runs claims one after the other on one server; all of them, also when one does not hold.
#[macro_export]
macro_rules! claims {
    ($subject:expr; $($claim:ident),+ $(,)?) => {{
        let mut failed: Vec<&str> = Vec::new();
        $(
            let began = std::time::Instant::now();
            let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| $claim($subject)));
            eprintln!("{} {} ({:.1}s)", if held.is_ok() { "holds: " } else { "FAILED:" }, stringify!($claim), began.elapsed().as_secs_f32());
            if held.is_err() {
                failed.push(stringify!($claim));
            }
        )+
        assert!(failed.is_empty(), "claims that do not hold: {}", failed.join(", "));
    }};
}

/// Ends the test early, with a line that says so, if a tool is not installed; under CI that is a failure.
#[macro_export]
macro_rules! needs {
    ($($tool:literal),+) => {
        for tool in [$($tool),+] {
            if support::missing(tool) {
                return;
            }
        }
    };
}
