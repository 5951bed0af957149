//! A guest's sockets, of both versions of WASI: every bind, connect, send and name goes through the pod's network.
//!
//! The host's own socket implementation does the work; this view stands before it and hands it host addresses where the
//! guest gave the pod's, and the guest the pod's where the host has its own. What must stay true: no address that a guest
//! gives reaches the operating system but through [`PodNetwork`]; a guest's socket is bound to its pod's address before it
//! connects or sends to anybody on this machine; each socket has a place among its container's, from its making to its end.

mod lookup;
mod tcp;
#[cfg(test)]
mod tests;
mod types;
mod udp;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::sockets as p2;
use wasmtime_wasi::p3::bindings::sockets as p3;
use wasmtime_wasi::sockets::{ErrorCode, WasiSocketsCtxView};

use super::state::GuestState;
use crate::network::{Denied, ListenGuard, PodNetwork, Protocol, Route};

/// One instance's sockets: what the host's own bookkeeping does not know of them.
pub(super) struct Sockets {
    network: Arc<PodNetwork>,
    /// Places of the container, for all its instances.
    room: Arc<Semaphore>,
    /// By resource; as many as the instance's resource table holds.
    open: HashMap<u32, Open>,
    /// The places of connections that a 0.3 guest accepted: which resources they are is not told.
    accepted: Vec<OwnedSemaphorePermit>,
    /// Takes nothing: for a connection that there is no place for.
    full: ResourceTable,
}

/// A socket in use.
#[derive(Default)]
struct Open {
    /// The host address that the guest wanted, with the port that it knows; set once bound.
    bound: Option<SocketAddr>,
    /// What the guest connected to.
    remote: Option<SocketAddr>,
    listening: Option<ListenGuard>,
    place: Option<OwnedSemaphorePermit>,
}

impl Sockets {
    pub(super) fn new(network: Arc<PodNetwork>, room: Arc<Semaphore>) -> Self {
        let mut full = ResourceTable::new();
        full.set_max_capacity(0);
        Self { network, room, open: HashMap::new(), accepted: Vec::new(), full }
    }

    /// A place for one more socket, if the container has one left.
    fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_owned().ok()
    }

    fn socket(&mut self, rep: u32) -> &mut Open {
        self.open.entry(rep).or_default()
    }

    fn is_bound(&self, rep: u32) -> bool {
        self.open.get(&rep).is_some_and(|open| open.bound.is_some())
    }

    /// Where a connection goes that was accepted: into `table`, if there is a place for it.
    fn table_of_accepted<'a>(&'a mut self, table: &'a mut ResourceTable) -> &'a mut ResourceTable {
        match self.place() {
            Some(place) => {
                self.accepted.push(place);
                table
            }
            None => &mut self.full,
        }
    }

    fn closed(&mut self, rep: u32) {
        if self.open.remove(&rep).is_none_or(|open| open.place.is_none()) {
            self.accepted.pop();
        }
    }

    fn bind(&self, protocol: Protocol, address: SocketAddr) -> Result<SocketAddr, ErrorCode> {
        self.network.bind(protocol, address).map_err(|denied| code(&denied))
    }

    fn route(&self, protocol: Protocol, address: SocketAddr) -> Result<Route, ErrorCode> {
        self.network.connect(protocol, address).map_err(|denied| code(&denied))
    }

    /// Notes a bound socket: `wanted` where it was to be, `actual` where it is.
    fn bound(&mut self, rep: u32, wanted: SocketAddr, actual: SocketAddr) {
        let port = if wanted.port() == 0 { actual.port() } else { wanted.port() };
        self.socket(rep).bound = Some(SocketAddr::new(wanted.ip(), port));
    }

    /// Puts a socket that others can now reach into the host's table.
    fn listens(&mut self, rep: u32, protocol: Protocol, actual: SocketAddr) -> Result<(), ErrorCode> {
        let network = Arc::clone(&self.network);
        let open = self.socket(rep);
        let asked = open.bound.unwrap_or(actual);
        open.listening = Some(network.listening(protocol, asked, actual, None).map_err(|denied| code(&denied))?);
        Ok(())
    }

    /// A socket's own address, as the guest knows it.
    fn local(&self, rep: u32, protocol: Protocol, actual: SocketAddr) -> SocketAddr {
        let own = self.open.get(&rep).and_then(|open| open.bound).filter(|bound| bound.ip() == actual.ip());
        self.network.shown(protocol, own.unwrap_or(actual))
    }

    /// The other side's address, as the guest knows it.
    fn remote(&self, rep: u32, protocol: Protocol, actual: SocketAddr) -> SocketAddr {
        let remote = self.open.get(&rep).and_then(|open| open.remote);
        remote.unwrap_or_else(|| self.network.shown(protocol, actual))
    }
}

/// What a guest is told where the network refuses.
fn code(denied: &Denied) -> ErrorCode {
    match denied {
        Denied::Access(_) => ErrorCode::AccessDenied,
        Denied::Refused(_) => ErrorCode::ConnectionRefused,
        Denied::NotSupported(_) => ErrorCode::NotSupported,
        Denied::InUse(_) => ErrorCode::AddressInUse,
        Denied::NoSuchName(_) | Denied::NoAnswer(_) => ErrorCode::RemoteUnreachable,
    }
}

fn any_port(of: SocketAddr) -> SocketAddr {
    SocketAddr::new(of.ip(), 0)
}

/// All of the pod's addresses, any port.
fn anywhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
}

/// The same resource, for another call.
fn again<T: 'static>(resource: &Resource<T>) -> Resource<T> {
    Resource::new_own(resource.rep())
}

/// Lets the host's implementation do what the view asks: every address that arrives there has been judged by the view.
pub(super) fn allow(wasi: &mut WasiCtxBuilder) {
    wasi.allow_tcp(true).allow_udp(true).socket_addr_check(|_, _| Box::pin(std::future::ready(true)));
}

/// Marks this view in the linker.
pub(super) struct PodSockets;

impl HasData for PodSockets {
    type Data<'a> = View<'a>;
}

/// The pod's sockets before the host's.
pub(super) struct View<'a> {
    pod: &'a mut Sockets,
    host: WasiSocketsCtxView<'a>,
}

pub(super) fn view(state: &mut GuestState) -> View<'_> {
    let (pod, wasi, table) = state.sockets();
    View { pod, host: WasiSocketsCtxView { ctx: wasi.sockets(), table } }
}

fn host(state: &mut GuestState) -> WasiSocketsCtxView<'_> {
    view(state).host
}

/// The same for a 0.3 listener, which asks once for each connection that it has accepted and then puts it into the table. One
/// that has no place ends its guest: it cannot be given back, and nobody else is to pay for it.
fn accepting(state: &mut GuestState) -> WasiSocketsCtxView<'_> {
    let (pod, wasi, table) = state.sockets();
    WasiSocketsCtxView { ctx: wasi.sockets(), table: pod.table_of_accepted(table) }
}

/// Functions that the host's implementation answers without seeing an address.
macro_rules! as_the_host {
    ($trait:path { $(fn $name:ident($($arg:ident: $ty:ty),*) -> $result:ty;)* }) => {
        $(fn $name(&mut self, $($arg: $ty),*) -> $result {
            <wasmtime_wasi::sockets::WasiSocketsCtxView<'_> as $trait>::$name(&mut self.host, $($arg),*)
        })*
    };
}
use as_the_host;

/// Replaces every interface through which the host's implementation could be reached directly.
pub(super) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    p2::tcp::add_to_linker::<_, PodSockets>(linker, view)?;
    p2::tcp_create_socket::add_to_linker::<_, PodSockets>(linker, view)?;
    p2::udp::add_to_linker::<_, PodSockets>(linker, view)?;
    p2::udp_create_socket::add_to_linker::<_, PodSockets>(linker, view)?;
    lookup::add_to_linker(linker)?;
    p3::types::add_to_linker::<_, PodSockets>(linker, view)?;
    p3::ip_name_lookup::add_to_linker::<_, PodSockets>(linker, view)?;
    Ok(())
}
