//! What a guest's outgoing requests keep in the host beside their fields: a method, an authority and a path of its choosing, which
//! the host's implementation takes at any length, or at more than an entry of a guest's table may keep.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::p2::bindings::http::types as p2;
use wasmtime_wasi_http::p3::bindings::http::types as p3;
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use super::state::GuestState;

/// The host's interfaces, in the versions that it has them in.
const TYPES_2: &str = "wasi:http/types@0.2.12";
const TYPES_3: &str = "wasi:http/types@0.3.0";

/// Bytes of a method: no server knows one as long.
const METHOD: usize = 128;

/// Bytes of an authority: a name, and a port.
const AUTHORITY: usize = 1024;

/// Bytes of a path with its query: twice what servers commonly take.
const PATH: usize = 16 << 10;

type Set = wasmtime::Result<(Result<(), ()>,)>;

/// Puts these functions in place of the host's, which do the work.
pub(super) fn replace_in(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance(TYPES_2)?;
    types.func_wrap("[method]outgoing-request.set-method", set_method_2)?;
    types.func_wrap("[method]outgoing-request.set-authority", set_authority_2)?;
    types.func_wrap("[method]outgoing-request.set-path-with-query", set_path_2)?;
    let mut types = linker.instance(TYPES_3)?;
    types.func_wrap("[method]request.set-method", set_method_3)?;
    types.func_wrap("[method]request.set-authority", set_authority_3)?;
    types.func_wrap("[method]request.set-path-with-query", set_path_3)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// What the host says, if this is short enough.
fn checked(
    store: &mut StoreContextMut<'_, GuestState>,
    fits: bool,
    set: impl FnOnce(&mut WasiHttpCtxView<'_>) -> wasmtime::Result<Result<(), ()>>,
) -> Set {
    Ok((if fits { set(&mut store.data_mut().http())? } else { Err(()) },))
}

fn is_short(text: Option<&str>, most: usize) -> bool {
    text.is_none_or(|text| text.len() <= most)
}

fn set_method_2(
    mut store: StoreContextMut<'_, GuestState>,
    (request, method): (Resource<p2::OutgoingRequest>, p2::Method),
) -> Set {
    let fits = !matches!(&method, p2::Method::Other(name) if name.len() > METHOD);
    checked(&mut store, fits, |host| p2::HostOutgoingRequest::set_method(host, request, method))
}

fn set_authority_2(
    mut store: StoreContextMut<'_, GuestState>,
    (request, authority): (Resource<p2::OutgoingRequest>, Option<String>),
) -> Set {
    let fits = is_short(authority.as_deref(), AUTHORITY);
    checked(&mut store, fits, |host| p2::HostOutgoingRequest::set_authority(host, request, authority))
}

fn set_method_3(
    mut store: StoreContextMut<'_, GuestState>,
    (request, method): (Resource<p3::Request>, p3::Method),
) -> Set {
    let fits = !matches!(&method, p3::Method::Other(name) if name.len() > METHOD);
    checked(&mut store, fits, |host| p3::HostRequest::set_method(host, request, method))
}

fn set_authority_3(
    mut store: StoreContextMut<'_, GuestState>,
    (request, authority): (Resource<p3::Request>, Option<String>),
) -> Set {
    let fits = is_short(authority.as_deref(), AUTHORITY);
    checked(&mut store, fits, |host| p3::HostRequest::set_authority(host, request, authority))
}

fn set_path_2(
    mut store: StoreContextMut<'_, GuestState>,
    (request, path): (Resource<p2::OutgoingRequest>, Option<String>),
) -> Set {
    let fits = is_short(path.as_deref(), PATH);
    checked(&mut store, fits, |host| p2::HostOutgoingRequest::set_path_with_query(host, request, path))
}

fn set_path_3(
    mut store: StoreContextMut<'_, GuestState>,
    (request, path): (Resource<p3::Request>, Option<String>),
) -> Set {
    let fits = is_short(path.as_deref(), PATH);
    checked(&mut store, fits, |host| p3::HostRequest::set_path_with_query(host, request, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::wasm::engine::Engine;

    #[test]
    fn what_is_replaced_is_what_the_host_has() {
        let engine = Engine::new().unwrap();
        let mut linker = Linker::<GuestState>::new(engine.raw());
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker).unwrap();
        wasmtime_wasi_http::p3::add_to_linker(&mut linker).unwrap();
        for (types, resource) in [(TYPES_2, "outgoing-request"), (TYPES_3, "request")] {
            for name in ["set-method", "set-authority", "set-path-with-query"] {
                let mut types = linker.instance(types).unwrap();
                let again = types.func_wrap(&format!("[method]{resource}.{name}"), |_, (): ()| Ok(()));
                assert!(again.is_err(), "{resource} {name}");
            }
        }
    }
}
