//! Name lookup of both versions of WASI, answered by the pod's network.
//!
//! The 0.2 interface has a resource whose host type is private upstream, so it is linked here function by function.

use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::future::BoxFuture;
use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, Linker, Resource, ResourceType};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::p3::bindings::sockets::{ip_name_lookup, types};

use super::{PodSockets, View};
use crate::backend::wasm::state::GuestState;
use crate::network::{Denied, is_name};

const INTERFACE: &str = "wasi:sockets/ip-name-lookup@0.2.12";

/// One lookup of a 0.2 guest, and what is left of its answer.
struct Lookup {
    pending: Option<BoxFuture<'static, Result<Vec<IpAddr>, Denied>>>,
    answer: Result<std::vec::IntoIter<IpAddr>, ErrorCode>,
}

impl Lookup {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pending) = &mut self.pending else { return Poll::Ready(()) };
        let answer = std::task::ready!(pending.as_mut().poll(cx));
        self.pending = None;
        self.answer = answer.map(Vec::into_iter).map_err(|denied| match denied {
            Denied::Access(_) => ErrorCode::AccessDenied,
            Denied::NoAnswer(_) => ErrorCode::TemporaryResolverFailure,
            _ => ErrorCode::NameUnresolvable,
        });
        Poll::Ready(())
    }

    fn next(&mut self) -> Result<Option<IpAddress>, ErrorCode> {
        if self.poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            return Err(ErrorCode::WouldBlock);
        }
        match &mut self.answer {
            Ok(addresses) => Ok(addresses.next().map(IpAddress::from)),
            Err(code) => Err(*code),
        }
    }
}

#[async_trait::async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }
}

type Answer<T> = wasmtime::Result<(Result<T, ErrorCode>,)>;

pub(super) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(INTERFACE)?;
    interface.resource("resolve-address-stream", ResourceType::host::<Lookup>(), |mut store, rep| {
        store.data_mut().table().delete(Resource::<Lookup>::new_own(rep))?;
        Ok(())
    })?;
    interface.func_wrap(
        "resolve-addresses",
        |mut store: StoreContextMut<'_, GuestState>,
         (_, name): (Resource<Network>, String)|
         -> Answer<Resource<Lookup>> { begin(store.data_mut(), name) },
    )?;
    interface.func_wrap(
        "[method]resolve-address-stream.resolve-next-address",
        |mut store: StoreContextMut<'_, GuestState>, (this,): (Resource<Lookup>,)| -> Answer<Option<IpAddress>> {
            Ok((store.data_mut().table().get_mut(&this)?.next(),))
        },
    )?;
    interface.func_wrap(
        "[method]resolve-address-stream.subscribe",
        |mut store: StoreContextMut<'_, GuestState>,
         (this,): (Resource<Lookup>,)|
         -> wasmtime::Result<(Resource<DynPollable>,)> { Ok((subscribe(store.data_mut().table(), this)?,)) },
    )
}

/// Begins a lookup, which keeps its name until it is polled: one that cannot be one is not kept.
fn begin(state: &mut GuestState, name: String) -> Answer<Resource<Lookup>> {
    if !is_name(&name) {
        return Ok((Err(ErrorCode::InvalidArgument),));
    }
    let network = state.network();
    let pending = Box::pin(async move { network.resolve(&name).await });
    let lookup = Lookup { pending: Some(pending), answer: Ok(Vec::new().into_iter()) };
    Ok((Ok(state.table().push(lookup)?),))
}

impl ip_name_lookup::Host for View<'_> {}

impl ip_name_lookup::HostWithStore<GuestState> for PodSockets {
    async fn resolve_addresses(
        store: &Accessor<GuestState, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<types::IpAddress>, ip_name_lookup::ErrorCode>> {
        if !is_name(&name) {
            return Ok(Err(ip_name_lookup::ErrorCode::InvalidArgument));
        }
        let network = store.with(|mut access| Arc::clone(&access.get().pod.network));
        Ok(match network.resolve(&name).await {
            Ok(addresses) => Ok(addresses.into_iter().map(Into::into).collect()),
            Err(Denied::Access(_)) => Err(ip_name_lookup::ErrorCode::AccessDenied),
            Err(Denied::NoAnswer(_)) => Err(ip_name_lookup::ErrorCode::TemporaryResolverFailure),
            Err(_) => Err(ip_name_lookup::ErrorCode::NameUnresolvable),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::view;
    use super::*;
    use crate::backend::wasm::tests::sockets::Container;

    #[tokio::test]
    async fn what_cannot_be_a_name_is_not_kept_by_a_lookup() {
        let container = Container::new(1);
        let (mut store, _) = container.guest.store(1, &Arc::default()).unwrap();
        let name = |bytes: usize| "n".repeat(bytes);
        for (bytes, kept) in [(253, true), (254, false), (1 << 20, false)] {
            let (begun,) = begin(store.data_mut(), name(bytes)).unwrap();
            assert_eq!(begun.map(|_| ()), if kept { Ok(()) } else { Err(ErrorCode::InvalidArgument) }, "{bytes}");
        }
        let asked = store.run_concurrent(async |accessor| {
            let sockets = accessor.with_getter::<PodSockets>(view);
            <PodSockets as ip_name_lookup::HostWithStore<GuestState>>::resolve_addresses(&sockets, name(1 << 20)).await
        });
        assert!(matches!(asked.await.unwrap().unwrap(), Err(ip_name_lookup::ErrorCode::InvalidArgument)));
    }
}
