//! A guest's sockets, of both versions of WASI: every bind, connect, send and name goes through the pod's network.
//!
//! The host's own socket implementation does the work; this view stands before it and hands it host addresses where the
//! guest gave the pod's, and the guest the pod's where the host has its own. What must stay true: no address that a guest
//! gives reaches the operating system but through [`PodNetwork`]; a guest's socket is bound to its pod's address before it
//! connects or sends to anybody on this machine; each socket has a place among its container's, from its making to its end and
//! that of its streams; what waits in the host for one is bounded by their number.

mod listening;
mod lookup;
mod tcp;
#[cfg(test)]
mod tests;
mod types;
mod udp;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};

use tokio::sync::Mutex;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::sockets as p2;
use wasmtime_wasi::p3::bindings::sockets as p3;
use wasmtime_wasi::p3::bindings::sockets::types::TcpSocket;
use wasmtime_wasi::sockets::{ErrorCode, WasiSockets, WasiSocketsCtxView};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};

use self::listening::Kept;
use super::room::{Room, Taken};
use super::state::GuestState;
use crate::network::{Denied, ListenGuard, PodNetwork, Protocol, Route};

/// One instance's sockets: what the host's own bookkeeping does not know of them.
pub(super) struct Sockets {
    network: Arc<PodNetwork>,
    /// Places of the container, for all its instances.
    room: Arc<Room>,
    /// By resource; as many as the instance's resource table holds.
    open: HashMap<u32, Open>,
    /// The places of connections that a 0.3 guest accepted: which resources they are is not told.
    accepted: Vec<Place>,
    /// 0.3 listeners whose socket is closed: their stream, or a connection of theirs, may be open still.
    left: Vec<Weak<Kept>>,
    /// A 0.3 listener is about to begin.
    begins: bool,
    /// The resource of a connection that was accepted though there was no place for it, and which is open still.
    surplus: Option<u32>,
}

/// One of the sockets that the container may have, for as long as anybody has it.
type Place = Arc<Taken>;

/// What is in a table instead of a connection that was closed for lack of a place: no other socket gets its number.
struct Closed;

/// A socket in use.
#[derive(Default)]
struct Open {
    /// The host address that the guest wanted, with the port that it knows; set once bound.
    bound: Option<SocketAddr>,
    /// What the guest connected to.
    remote: Option<SocketAddr>,
    listening: Option<ListenGuard>,
    place: Option<Place>,
    /// Of a TCP socket of 0.3 which may listen.
    kept: Option<Arc<Kept>>,
    /// Held by who waits for a datagram: each has the longest there is in the host's memory.
    receives: Arc<Mutex<()>>,
    /// It was a connection that there was no place for.
    refused: bool,
}

impl Sockets {
    pub(super) fn new(network: Arc<PodNetwork>, room: Arc<Room>) -> Self {
        let (open, accepted, left) = Default::default();
        Self { network, room, open, accepted, left, begins: false, surplus: None }
    }

    /// A place for one more socket, if the container has one left.
    fn place(&mut self) -> Option<Place> {
        let taken = self.room.take().or_else(|| self.clear_left().then(|| self.room.take()).flatten());
        taken.map(Arc::new)
    }

    /// Forgets listeners that are gone; whether there were any.
    fn clear_left(&mut self) -> bool {
        let before = self.left.len();
        self.left.retain(|kept| kept.upgrade().is_some_and(|kept| !kept.gave_up()));
        self.left.len() < before
    }

    fn socket(&mut self, rep: u32) -> &mut Open {
        self.open.entry(rep).or_default()
    }

    fn is_bound(&self, rep: u32) -> bool {
        self.open.get(&rep).is_some_and(|open| open.bound.is_some())
    }

    /// A connection was accepted, and is put into `table` next.
    fn accepts(&mut self, table: &mut ResourceTable) {
        self.close_surplus(table);
        if std::mem::take(&mut self.begins) {
            return;
        }
        match self.place() {
            Some(place) => self.accepted.push(place),
            None => {
                self.surplus = next_entry(table);
                if let Some(rep) = self.surplus {
                    self.socket(rep).refused = true;
                }
            }
        }
    }

    /// Closes the connection that was accepted without a place. Its guest finds it reset.
    fn close_surplus(&mut self, table: &mut ResourceTable) {
        let Some(rep) = self.surplus.take() else { return };
        if table.delete(Resource::<TcpSocket>::new_own(rep)).is_err() {
            self.open.remove(&rep);
            return;
        }
        // The entry is the one that is free. In debug builds none is used again, and there this one is superfluous.
        if let Ok(stand_in) = table.push(Closed)
            && stand_in.rep() != rep
        {
            let _ = table.delete(stand_in);
        }
    }

    /// Fails for a connection that there was no place for.
    fn usable(&self, rep: u32) -> Result<(), ErrorCode> {
        let refused = self.open.get(&rep).is_some_and(|open| open.refused);
        if refused { Err(ErrorCode::ConnectionReset) } else { Ok(()) }
    }

    /// The place of a socket, also for its streams.
    fn shared_place(&mut self, rep: u32) -> Option<Place> {
        let known = self.open.get(&rep).and_then(|open| open.place.clone());
        let place = known.or_else(|| self.accepted.pop());
        self.socket(rep).place.clone_from(&place);
        place
    }

    /// A guest is done with a socket; whether there was one.
    fn closed(&mut self, rep: u32) -> bool {
        match self.open.remove(&rep) {
            Some(Open { refused: true, .. }) => return false,
            Some(Open { place: Some(_), kept, .. }) => {
                if let Some(kept) = kept.filter(|kept| kept.is_listener()) {
                    self.left.retain(|one| one.strong_count() > 0);
                    self.left.push(Arc::downgrade(&kept));
                }
            }
            _ => drop(self.accepted.pop()),
        }
        true
    }

    fn bind(&mut self, protocol: Protocol, address: SocketAddr) -> Result<SocketAddr, ErrorCode> {
        let bound = match self.network.bind(protocol, address) {
            Err(Denied::InUse(_)) if self.clear_left() => self.network.bind(protocol, address),
            bound => bound,
        };
        bound.map_err(|denied| code(&denied))
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
        let guard = network.listening(protocol, asked, actual, None).map_err(|denied| code(&denied))?;
        match &open.kept {
            Some(kept) => kept.listens(guard),
            None => open.listening = Some(guard),
        }
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

/// The entry that a table gives next. It gives the one again that it got back last or, where it uses none again (in debug
/// builds), the one behind.
fn next_entry(table: &mut ResourceTable) -> Option<u32> {
    let mut try_one = || {
        let entry = table.push(Closed).ok()?;
        let rep = entry.rep();
        table.delete(entry).ok()?;
        Some(rep)
    };
    let (first, second) = (try_one()?, try_one()?);
    Some(if first == second { first } else { second + 1 })
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
    listening::allow(wasi, ());
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

impl<'a> View<'a> {
    fn new(pod: &'a mut Sockets, wasi: &'a mut WasiCtx, table: &'a mut ResourceTable) -> Self {
        pod.close_surplus(table);
        Self { pod, host: WasiSocketsCtxView { ctx: wasi.sockets(), table } }
    }
}

pub(super) fn view(state: &mut GuestState) -> View<'_> {
    let (pod, wasi, table) = state.sockets();
    View::new(pod, wasi, table)
}

fn host(state: &mut GuestState) -> WasiSocketsCtxView<'_> {
    view(state).host
}

/// The same for a 0.3 listener, which asks once when it begins, and once for each connection that it has accepted and then puts
/// into the table. It cannot be kept from that: one without a place is closed when the guest does anything next.
fn accepting(state: &mut GuestState) -> WasiSocketsCtxView<'_> {
    let (pod, wasi, table) = state.sockets();
    pod.accepts(table);
    WasiSocketsCtxView { ctx: wasi.sockets(), table }
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

/// Adds every interface of both versions; the host's own are not linked.
pub(super) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    p2::instance_network::add_to_linker::<_, WasiSockets>(linker, host)?;
    p2::network::add_to_linker::<_, WasiSockets>(linker, &p2::network::LinkOptions::default(), host)?;
    p2::tcp::add_to_linker::<_, PodSockets>(linker, view)?;
    p2::tcp_create_socket::add_to_linker::<_, PodSockets>(linker, view)?;
    p2::udp::add_to_linker::<_, PodSockets>(linker, view)?;
    p2::udp_create_socket::add_to_linker::<_, PodSockets>(linker, view)?;
    lookup::add_to_linker(linker)?;
    p3::types::add_to_linker::<_, PodSockets>(linker, view)?;
    p3::ip_name_lookup::add_to_linker::<_, PodSockets>(linker, view)?;
    Ok(())
}
