//! What a component may import and what it is: the host's side of WASI 0.2 and 0.3, linked once per image.

use std::sync::Arc;

use wasmtime::component::{Component, Linker};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemCtx, WasiFilesystemView};
use wasmtime_wasi::random::{WasiRandom, WasiRandomView};
use wasmtime_wasi::{p2, p3};
use wasmtime_wasi_http::handler::ProxyPre;

use super::engine::Engine;
use super::files;
use super::state::GuestState;
use crate::backend::BackendError;
use crate::image::WasmImage;

/// A component that is ready to be instantiated.
pub(super) struct Prepared {
    pub(super) entry: Entry,
    /// The files of its image, opened once for all its instances.
    pub(super) files: WasiFilesystemCtx,
}

/// Its pre-instance, by what it exports.
pub(super) enum Entry {
    /// `wasi:http/handler` (0.3) or `wasi:http/incoming-handler` (0.2): a server.
    Http { pre: ProxyPre<GuestState>, reusable: bool },
    /// `wasi:cli/run` of 0.2.
    Command2(p2::bindings::CommandPre<GuestState>),
    /// `wasi:cli/run` of 0.3.
    Command3(p3::bindings::CommandPre<GuestState>),
}

/// What a component exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Export {
    Http3,
    Http2,
    Run3,
    Run2,
}

impl Export {
    /// The most capable first: a component that serves is a server even if it can also be run.
    fn of(names: &[String]) -> Option<Self> {
        let has = |prefix: &str| names.iter().any(|n| n.starts_with(prefix));
        [
            ("wasi:http/handler@0.3.", Self::Http3),
            ("wasi:http/incoming-handler@0.2.", Self::Http2),
            ("wasi:cli/run@0.3.", Self::Run3),
            ("wasi:cli/run@0.2.", Self::Run2),
        ]
        .into_iter()
        .find_map(|(prefix, export)| has(prefix).then_some(export))
    }
}

/// The host's interfaces.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine.raw());
    add_p2(&mut linker)?;
    p3::cli::add_to_linker(&mut linker)?;
    p3::clocks::add_to_linker(&mut linker)?;
    p3::filesystem::add_to_linker(&mut linker)?;
    p3::random::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    super::requests::replace_in(&mut linker)?;
    files::replace_in(&mut linker)?;
    super::sockets::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// WASI 0.2 but for its sockets, which are the pod's. Not linked and then replaced: each function of the host is some thousand
/// lines for the compiler with this type of state, and what is never linked cannot be reached.
fn add_p2(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    use p2::bindings::{cli, filesystem, random};

    p2::add_to_linker_proxy_interfaces_async(linker)?;
    filesystem::preopens::add_to_linker::<_, WasiFilesystem>(linker, WasiFilesystemView::filesystem)?;
    filesystem::types::add_to_linker::<_, WasiFilesystem>(linker, WasiFilesystemView::filesystem)?;
    random::insecure::add_to_linker::<_, WasiRandom>(linker, WasiRandomView::random)?;
    random::insecure_seed::add_to_linker::<_, WasiRandom>(linker, WasiRandomView::random)?;
    cli::exit::add_to_linker::<_, WasiCli>(linker, WasiCliView::cli)?;
    cli::environment::add_to_linker::<_, WasiCli>(linker, WasiCliView::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(linker, WasiCliView::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(linker, WasiCliView::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(linker, WasiCliView::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(linker, WasiCliView::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(linker, WasiCliView::cli)
}

/// The image's pre-instance, made on first use and kept with the image.
pub(super) fn prepare(linker: &Linker<GuestState>, image: &WasmImage) -> Result<Arc<Prepared>, BackendError> {
    if let Some(prepared) = image.prepared.get()
        && let Ok(prepared) = Arc::clone(prepared).downcast::<Prepared>()
    {
        return Ok(prepared);
    }
    let (entry, files) = (link(linker, &image.component)?, files::of_image(image.root.as_deref())?);
    let prepared = Arc::new(Prepared { entry, files });
    // Another pod of the image may have been faster: either value is as good.
    let _ = image.prepared.set(Arc::clone(&prepared) as Arc<_>);
    Ok(prepared)
}

fn link(linker: &Linker<GuestState>, component: &Component) -> Result<Entry, BackendError> {
    let exports: Vec<String> =
        component.component_type().exports(linker.engine()).map(|(name, _)| name.to_owned()).collect();
    let Some(export) = Export::of(&exports) else {
        return Err(BackendError::CannotRun(format!(
            "component exports none of wasi:http/handler, wasi:http/incoming-handler and wasi:cli/run; it exports {}",
            if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") }
        )));
    };
    let pre = linker.instantiate_pre(component).map_err(|e| BackendError::CannotRun(missing_import(&e)))?;
    match export {
        Export::Http3 => wasmtime_wasi_http::p3::bindings::ServicePre::new(pre)
            .map(|pre| Entry::Http { pre: ProxyPre::P3(pre), reusable: true }),
        Export::Http2 => wasmtime_wasi_http::p2::bindings::ProxyPre::new(pre)
            .map(|pre| Entry::Http { pre: ProxyPre::P2(pre), reusable: false }),
        Export::Run3 => p3::bindings::CommandPre::new(pre).map(Entry::Command3),
        Export::Run2 => p2::bindings::CommandPre::new(pre).map(Entry::Command2),
    }
    .map_err(|e| BackendError::CannotRun(format!("component's exports are not those of WASI: {e:#}")))
}

/// What a person needs of the linker's error: which import, and, if the host has it, what is different about it.
fn missing_import(error: &wasmtime::Error) -> String {
    let outer = error.to_string();
    let mut quoted = outer.split('`');
    let name = quoted.nth(1);
    let cause = error.root_cause().to_string();
    match name {
        Some(name) if cause == outer || cause.ends_with("implementation is missing") => {
            format!("component imports {name}, which this node does not provide")
        }
        Some(name) => format!("component imports {name}, which this node provides in another form: {cause}"),
        None => format!("component's imports cannot be provided: {error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What makes a component a command.
    const RUN: &str = r#"
        (core module $m (func (export "run") (result i32) i32.const 0))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance (export "wasi:cli/run@0.2.0") (export "run" (func $run)))"#;

    fn linked(wat: &str) -> Result<Entry, BackendError> {
        let engine = Engine::new().unwrap();
        let component = Component::new(engine.raw(), wat::parse_str(wat).unwrap()).unwrap();
        link(&linker(&engine).unwrap(), &component)
    }

    #[test]
    fn an_import_that_nobody_provides_is_named() {
        let error =
            linked(&format!(r#"(component (import "foo:bar/baz@1.0.0" (instance (export "call" (func)))) {RUN})"#))
                .err()
                .unwrap();
        assert_eq!(error.to_string(), "component imports foo:bar/baz@1.0.0, which this node does not provide");
    }

    #[test]
    fn every_interface_of_both_versions_of_wasi_is_linked() {
        const BOTH: &str = "cli/environment cli/exit cli/stdin cli/stdout cli/stderr cli/terminal-input cli/terminal-output \
            cli/terminal-stdin cli/terminal-stdout cli/terminal-stderr clocks/monotonic-clock filesystem/preopens \
            filesystem/types http/types random/random random/insecure random/insecure-seed sockets/ip-name-lookup";
        const P2: &str = "clocks/wall-clock http/outgoing-handler io/error io/poll io/streams sockets/instance-network \
            sockets/network sockets/tcp sockets/tcp-create-socket sockets/udp sockets/udp-create-socket";
        const P3: &str = "clocks/system-clock http/client sockets/types";
        let import = |(name, version)| format!(r#"(import "wasi:{name}@{version}" (instance))"#);
        let p2 = [BOTH, P2].map(str::split_whitespace).into_iter().flatten().map(|name| (name, "0.2.0"));
        let p3 = [BOTH, P3].map(str::split_whitespace).into_iter().flatten().map(|name| (name, "0.3.0"));
        let imports: String = p2.chain(p3).map(import).collect();
        assert!(matches!(linked(&format!("(component {imports} {RUN})")), Ok(Entry::Command2(_))));
    }

    #[test]
    fn a_component_that_exports_nothing_to_run_says_what_it_exports() {
        let error = linked(r#"(component (instance $i) (export "my:own/api@1.0.0" (instance $i)))"#).err().unwrap();
        assert!(matches!(&error, BackendError::CannotRun(m) if m.ends_with("it exports my:own/api@1.0.0")), "{error}");
    }

    #[test]
    fn a_server_is_a_server_even_if_it_can_be_run() {
        let names = ["wasi:cli/run@0.2.3".to_owned(), "wasi:http/incoming-handler@0.2.3".to_owned()];
        assert_eq!(Export::of(&names), Some(Export::Http2));
        assert_eq!(Export::of(&names[..1]), Some(Export::Run2));
        assert_eq!(Export::of(&[]), None);
    }
}
