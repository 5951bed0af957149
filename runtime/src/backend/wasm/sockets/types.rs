//! TCP and UDP of WASI 0.3.

use std::future::{Ready, ready};
use std::iter;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use tokio::sync::oneshot;
use wasmtime::component::{Access, Accessor, FutureConsumer, FutureReader, Resource, Source, StreamReader};
use wasmtime::{AsContextMut, StoreContextMut};
use wasmtime_wasi::p3::bindings::sockets::types::{
    Duration, ErrorCode, Host, HostTcpSocket, HostTcpSocketWithStore, HostUdpSocket, HostUdpSocketWithStore,
    IpAddressFamily, IpSocketAddress, TcpSocket, UdpSocket,
};
use wasmtime_wasi::p3::sockets::{SocketError, SocketResult};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsCtxView};

use super::listening::{Kept, holding};
use super::{Closed, Place, PodSockets, View, accepting, again, any_port, anywhere, as_the_host, host};
use crate::backend::wasm::state::GuestState;
use crate::network::Protocol::{Tcp, Udp};

type Sent = FutureReader<Result<(), ErrorCode>>;

/// Whether a bind failed for its port alone; passes other errors on.
fn port_refused(address: SocketAddr, error: SocketError) -> SocketResult<()> {
    match error.downcast().map_err(SocketError::trap)? {
        ErrorCode::AccessDenied | ErrorCode::AddressInUse if address.port() != 0 => Ok(()),
        code => Err(code.into()),
    }
}

impl View<'_> {
    /// Binds a TCP socket to a host address.
    async fn bind_tcp(&mut self, socket: &Resource<TcpSocket>, to: SocketAddr) -> SocketResult<()> {
        if let Err(error) = HostTcpSocket::bind(&mut self.host, again(socket), to.into()).await {
            port_refused(to, error)?;
            HostTcpSocket::bind(&mut self.host, again(socket), any_port(to).into()).await?;
        }
        let actual = HostTcpSocket::get_local_address(&mut self.host, again(socket))?.into();
        self.pod.bound(socket.rep(), to, actual);
        Ok(())
    }

    /// Binds a UDP socket to a host address; from then on others reach it.
    async fn bind_udp(&mut self, socket: &Resource<UdpSocket>, to: SocketAddr) -> SocketResult<()> {
        if let Err(error) = HostUdpSocket::bind(&mut self.host, again(socket), to.into()).await {
            port_refused(to, error)?;
            HostUdpSocket::bind(&mut self.host, again(socket), any_port(to).into()).await?;
        }
        let actual = HostUdpSocket::get_local_address(&mut self.host, again(socket))?.into();
        self.pod.bound(socket.rep(), to, actual);
        self.pod.listens(socket.rep(), Udp, actual)?;
        Ok(())
    }

    /// Where a datagram goes; binds the socket to the pod's address if it has none.
    async fn udp_route(&mut self, socket: &Resource<UdpSocket>, remote: SocketAddr) -> SocketResult<IpSocketAddress> {
        let route = self.pod.route(Udp, remote)?;
        if !self.pod.is_bound(socket.rep()) && !route.source.is_unspecified() {
            self.bind_udp(socket, SocketAddr::new(route.source, 0)).await?;
        }
        Ok(route.destination.into())
    }
}

/// What a guest is told whose container has as many sockets as it may.
fn too_many() -> ErrorCode {
    ErrorCode::Other(Some("too many open sockets".to_owned()))
}

/// Passes on how a stream has ended, and then gives its socket's place back.
struct Ending {
    tell: Option<oneshot::Sender<Result<(), ErrorCode>>>,
    _place: Option<Place>,
}

impl FutureConsumer<GuestState> for Ending {
    type Item = Result<(), ErrorCode>;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        store: StoreContextMut<'_, GuestState>,
        mut source: Source<'_, Self::Item>,
        _: bool,
    ) -> Poll<wasmtime::Result<()>> {
        let mut ended = None;
        source.read(store, &mut ended)?;
        if let (Some(ended), Some(tell)) = (ended, self.tell.take()) {
            // The guest may not want to know.
            let _ = tell.send(ended);
        }
        Poll::Ready(Ok(()))
    }
}

/// The same end, at which the socket's place is given back: its stream may outlive it.
fn counted(
    mut store: Access<'_, GuestState, PodSockets>,
    rep: u32,
    ended: FutureReader<Result<(), ErrorCode>>,
) -> wasmtime::Result<Sent> {
    let place = store.get().pod.shared_place(rep);
    let (tell, told) = oneshot::channel();
    ended.pipe(&mut store, Ending { tell: Some(tell), _place: place })?;
    FutureReader::new(&mut store, told)
}

/// What is sent to a connection that was closed, and received of it.
fn reset() -> Ready<wasmtime::Result<Result<(), ErrorCode>>> {
    ready(Ok(Err(ErrorCode::ConnectionReset)))
}

/// Binding checks addresses only, which never waits.
fn at_once<T>(result: Option<SocketResult<T>>) -> SocketResult<T> {
    result.unwrap_or_else(|| Err(ErrorCode::InvalidState.into()))
}

impl Host for View<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }
}

impl HostTcpSocketWithStore<GuestState> for PodSockets {
    async fn connect(
        store: &Accessor<GuestState, Self>,
        socket: Resource<TcpSocket>,
        remote_address: IpSocketAddress,
    ) -> SocketResult<()> {
        let remote = SocketAddr::from(remote_address);
        let destination = store.with(|mut access| -> SocketResult<SocketAddr> {
            let mut view = access.get();
            view.pod.usable(socket.rep())?;
            let route = view.pod.route(Tcp, remote)?;
            if !view.pod.is_bound(socket.rep()) && !route.source.is_unspecified() {
                at_once(view.bind_tcp(&socket, SocketAddr::new(route.source, 0)).now_or_never())?;
            }
            view.pod.socket(socket.rep()).remote = Some(remote);
            Ok(route.destination)
        })?;
        let store = store.with_getter::<WasiSockets>(host);
        WasiSockets::connect(&store, socket, destination.into()).await
    }

    async fn listen(
        mut store: Access<'_, GuestState, Self>,
        socket: Resource<TcpSocket>,
    ) -> SocketResult<StreamReader<Resource<TcpSocket>>> {
        let rep = socket.rep();
        let mut view = store.get();
        view.pod.usable(rep)?;
        if !view.pod.is_bound(rep) {
            let to = view.pod.bind(Tcp, anywhere())?;
            view.bind_tcp(&socket, to).await?;
        }
        store.get().pod.begins = true;
        let inner = Access::<GuestState, WasiSockets>::new(store.as_context_mut(), accepting);
        let stream = WasiSockets::listen(inner, again(&socket)).await?;
        let view = store.get();
        let mut plain = view.host;
        let actual = HostTcpSocket::get_local_address(&mut plain, socket)?.into();
        view.pod.listens(rep, Tcp, actual)?;
        Ok(stream)
    }

    fn send(
        mut store: Access<'_, GuestState, Self>,
        socket: Resource<TcpSocket>,
        mut data: StreamReader<u8>,
    ) -> wasmtime::Result<Sent> {
        let rep = socket.rep();
        if store.get().pod.usable(rep).is_err() {
            data.close(&mut store)?;
            return FutureReader::new(&mut store, reset());
        }
        let inner = Access::<GuestState, WasiSockets>::new(store.as_context_mut(), host);
        let ended = <WasiSockets as HostTcpSocketWithStore<GuestState>>::send(inner, socket, data)?;
        counted(store, rep, ended)
    }

    fn receive(
        mut store: Access<'_, GuestState, Self>,
        socket: Resource<TcpSocket>,
    ) -> wasmtime::Result<(StreamReader<u8>, Sent)> {
        let rep = socket.rep();
        if store.get().pod.usable(rep).is_err() {
            return Ok((StreamReader::new(&mut store, iter::empty())?, FutureReader::new(&mut store, reset())?));
        }
        let inner = Access::<GuestState, WasiSockets>::new(store.as_context_mut(), host);
        let (data, ended) = <WasiSockets as HostTcpSocketWithStore<GuestState>>::receive(inner, socket)?;
        Ok((data, counted(store, rep, ended)?))
    }
}

/// What the host's implementation answers of a socket, unless that is a connection that was closed.
macro_rules! unless_closed {
    ($(fn $name:ident($socket:ident $(, $value:ident: $ty:ty)?) -> $result:ty;)*) => {
        $(fn $name(&mut self, $socket: Resource<TcpSocket> $(, $value: $ty)?) -> SocketResult<$result> {
            self.pod.usable($socket.rep())?;
            HostTcpSocket::$name(&mut self.host, $socket $(, $value)?)
        })*
    };
}

impl HostTcpSocket for View<'_> {
    fn create(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        let place = self.pod.place().ok_or_else(too_many)?;
        let kept = Kept::new(&place);
        let mut wasi = holding(Arc::clone(&kept));
        let mut host = WasiSocketsCtxView { ctx: wasi.sockets(), table: &mut *self.host.table };
        let socket = HostTcpSocket::create(&mut host, family)?;
        let open = self.pod.socket(socket.rep());
        (open.place, open.kept) = (Some(place), Some(kept));
        Ok(socket)
    }

    async fn bind(&mut self, socket: Resource<TcpSocket>, local_address: IpSocketAddress) -> SocketResult<()> {
        self.pod.usable(socket.rep())?;
        let to = self.pod.bind(Tcp, local_address.into())?;
        self.bind_tcp(&socket, to).await
    }

    fn get_local_address(&mut self, socket: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        self.pod.usable(socket.rep())?;
        let actual = HostTcpSocket::get_local_address(&mut self.host, again(&socket))?.into();
        Ok(self.pod.local(socket.rep(), Tcp, actual).into())
    }

    fn get_remote_address(&mut self, socket: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        self.pod.usable(socket.rep())?;
        let actual = HostTcpSocket::get_remote_address(&mut self.host, again(&socket))?.into();
        Ok(self.pod.remote(socket.rep(), Tcp, actual).into())
    }

    fn get_is_listening(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        if self.pod.usable(socket.rep()).is_err() {
            return Ok(false);
        }
        HostTcpSocket::get_is_listening(&mut self.host, socket)
    }

    fn get_address_family(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        if self.pod.usable(socket.rep()).is_err() {
            return Ok(IpAddressFamily::Ipv4);
        }
        HostTcpSocket::get_address_family(&mut self.host, socket)
    }

    fn drop(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<()> {
        if self.pod.closed(socket.rep()) {
            return HostTcpSocket::drop(&mut self.host, socket);
        }
        // In debug builds there is nothing of it.
        let _ = self.host.table.delete(Resource::<Closed>::new_own(socket.rep()));
        Ok(())
    }

    unless_closed! {
        fn set_listen_backlog_size(socket, value: u64) -> ();
        fn get_keep_alive_enabled(socket) -> bool;
        fn set_keep_alive_enabled(socket, value: bool) -> ();
        fn get_keep_alive_idle_time(socket) -> Duration;
        fn set_keep_alive_idle_time(socket, value: Duration) -> ();
        fn get_keep_alive_interval(socket) -> Duration;
        fn set_keep_alive_interval(socket, value: Duration) -> ();
        fn get_keep_alive_count(socket) -> u32;
        fn set_keep_alive_count(socket, value: u32) -> ();
        fn get_hop_limit(socket) -> u8;
        fn set_hop_limit(socket, value: u8) -> ();
        fn get_receive_buffer_size(socket) -> u64;
        fn set_receive_buffer_size(socket, value: u64) -> ();
        fn get_send_buffer_size(socket) -> u64;
        fn set_send_buffer_size(socket, value: u64) -> ();
    }
}

impl HostUdpSocketWithStore<GuestState> for PodSockets {
    async fn send(
        store: &Accessor<GuestState, Self>,
        socket: Resource<UdpSocket>,
        data: Vec<u8>,
        remote_address: Option<IpSocketAddress>,
    ) -> SocketResult<()> {
        let to = match remote_address {
            Some(remote) => Some(store.with(|mut access| {
                let mut view = access.get();
                at_once(view.udp_route(&socket, remote.into()).now_or_never())
            })?),
            None => None,
        };
        let store = store.with_getter::<WasiSockets>(host);
        <WasiSockets as HostUdpSocketWithStore<GuestState>>::send(&store, socket, data, to).await
    }

    async fn receive(
        store: &Accessor<GuestState, Self>,
        socket: Resource<UdpSocket>,
    ) -> SocketResult<(Vec<u8>, IpSocketAddress)> {
        let turn = store.with(|mut access| Arc::clone(&access.get().pod.socket(socket.rep()).receives));
        let _turn = turn.lock_owned().await;
        let inner = store.with_getter::<WasiSockets>(host);
        let (data, from) = <WasiSockets as HostUdpSocketWithStore<GuestState>>::receive(&inner, socket).await?;
        let from = store.with(|mut access| access.get().pod.network.shown(Udp, from.into()));
        Ok((data, from.into()))
    }
}

impl HostUdpSocket for View<'_> {
    async fn bind(&mut self, socket: Resource<UdpSocket>, local_address: IpSocketAddress) -> SocketResult<()> {
        let to = self.pod.bind(Udp, local_address.into())?;
        self.bind_udp(&socket, to).await
    }

    async fn connect(&mut self, socket: Resource<UdpSocket>, remote_address: IpSocketAddress) -> SocketResult<()> {
        let remote = remote_address.into();
        let to = self.udp_route(&socket, remote).await?;
        HostUdpSocket::connect(&mut self.host, again(&socket), to).await?;
        self.pod.socket(socket.rep()).remote = Some(remote);
        Ok(())
    }

    async fn create(&mut self, family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        let place = self.pod.place().ok_or_else(too_many)?;
        let socket = HostUdpSocket::create(&mut self.host, family).await?;
        self.pod.socket(socket.rep()).place = Some(place);
        Ok(socket)
    }

    fn disconnect(&mut self, socket: Resource<UdpSocket>) -> SocketResult<()> {
        self.pod.socket(socket.rep()).remote = None;
        HostUdpSocket::disconnect(&mut self.host, socket)
    }

    fn get_local_address(&mut self, socket: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        let actual = HostUdpSocket::get_local_address(&mut self.host, again(&socket))?.into();
        Ok(self.pod.local(socket.rep(), Udp, actual).into())
    }

    fn get_remote_address(&mut self, socket: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        let actual = HostUdpSocket::get_remote_address(&mut self.host, again(&socket))?.into();
        Ok(self.pod.remote(socket.rep(), Udp, actual).into())
    }

    fn drop(&mut self, socket: Resource<UdpSocket>) -> wasmtime::Result<()> {
        let _ = self.pod.closed(socket.rep());
        HostUdpSocket::drop(&mut self.host, socket)
    }

    as_the_host!(HostUdpSocket {
        fn get_address_family(socket: Resource<UdpSocket>) -> wasmtime::Result<IpAddressFamily>;
        fn get_unicast_hop_limit(socket: Resource<UdpSocket>) -> SocketResult<u8>;
        fn set_unicast_hop_limit(socket: Resource<UdpSocket>, value: u8) -> SocketResult<()>;
        fn get_receive_buffer_size(socket: Resource<UdpSocket>) -> SocketResult<u64>;
        fn set_receive_buffer_size(socket: Resource<UdpSocket>, value: u64) -> SocketResult<()>;
        fn get_send_buffer_size(socket: Resource<UdpSocket>) -> SocketResult<u64>;
        fn set_send_buffer_size(socket: Resource<UdpSocket>, value: u64) -> SocketResult<()>;
    });
}
