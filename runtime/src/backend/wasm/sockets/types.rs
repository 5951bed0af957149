//! TCP and UDP of WASI 0.3.

use std::net::SocketAddr;

use futures::FutureExt;
use wasmtime::AsContextMut;
use wasmtime::component::{Access, Accessor, FutureReader, Resource, StreamReader};
use wasmtime_wasi::p3::bindings::sockets::types::{
    Duration, ErrorCode, Host, HostTcpSocket, HostTcpSocketWithStore, HostUdpSocket, HostUdpSocketWithStore,
    IpAddressFamily, IpSocketAddress, TcpSocket, UdpSocket,
};
use wasmtime_wasi::p3::sockets::{SocketError, SocketResult};
use wasmtime_wasi::sockets::WasiSockets;

use super::{PodSockets, View, accepting, again, any_port, anywhere, as_the_host, host};
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
        if !view.pod.is_bound(rep) {
            let to = view.pod.bind(Tcp, anywhere())?;
            view.bind_tcp(&socket, to).await?;
        }
        if store.get().pod.room.available_permits() == 0 {
            return Err(too_many().into());
        }
        let inner = Access::<GuestState, WasiSockets>::new(store.as_context_mut(), accepting);
        let stream = WasiSockets::listen(inner, again(&socket)).await?;
        let view = store.get();
        // It has asked once for itself.
        view.pod.accepted.pop();
        let mut plain = view.host;
        let actual = HostTcpSocket::get_local_address(&mut plain, socket)?.into();
        view.pod.listens(rep, Tcp, actual)?;
        Ok(stream)
    }

    fn send(
        mut store: Access<'_, GuestState, Self>,
        socket: Resource<TcpSocket>,
        data: StreamReader<u8>,
    ) -> wasmtime::Result<Sent> {
        <WasiSockets as HostTcpSocketWithStore<GuestState>>::send(
            Access::<GuestState, WasiSockets>::new(store.as_context_mut(), host),
            socket,
            data,
        )
    }

    fn receive(
        mut store: Access<'_, GuestState, Self>,
        socket: Resource<TcpSocket>,
    ) -> wasmtime::Result<(StreamReader<u8>, Sent)> {
        <WasiSockets as HostTcpSocketWithStore<GuestState>>::receive(
            Access::<GuestState, WasiSockets>::new(store.as_context_mut(), host),
            socket,
        )
    }
}

impl HostTcpSocket for View<'_> {
    fn create(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        let place = self.pod.place().ok_or_else(too_many)?;
        let socket = HostTcpSocket::create(&mut self.host, family)?;
        self.pod.socket(socket.rep()).place = Some(place);
        Ok(socket)
    }

    async fn bind(&mut self, socket: Resource<TcpSocket>, local_address: IpSocketAddress) -> SocketResult<()> {
        let to = self.pod.bind(Tcp, local_address.into())?;
        self.bind_tcp(&socket, to).await
    }

    fn get_local_address(&mut self, socket: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let actual = HostTcpSocket::get_local_address(&mut self.host, again(&socket))?.into();
        Ok(self.pod.local(socket.rep(), Tcp, actual).into())
    }

    fn get_remote_address(&mut self, socket: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let actual = HostTcpSocket::get_remote_address(&mut self.host, again(&socket))?.into();
        Ok(self.pod.remote(socket.rep(), Tcp, actual).into())
    }

    fn drop(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.pod.closed(socket.rep());
        HostTcpSocket::drop(&mut self.host, socket)
    }

    as_the_host!(HostTcpSocket {
        fn get_is_listening(socket: Resource<TcpSocket>) -> wasmtime::Result<bool>;
        fn get_address_family(socket: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily>;
        fn set_listen_backlog_size(socket: Resource<TcpSocket>, value: u64) -> SocketResult<()>;
        fn get_keep_alive_enabled(socket: Resource<TcpSocket>) -> SocketResult<bool>;
        fn set_keep_alive_enabled(socket: Resource<TcpSocket>, value: bool) -> SocketResult<()>;
        fn get_keep_alive_idle_time(socket: Resource<TcpSocket>) -> SocketResult<Duration>;
        fn set_keep_alive_idle_time(socket: Resource<TcpSocket>, value: Duration) -> SocketResult<()>;
        fn get_keep_alive_interval(socket: Resource<TcpSocket>) -> SocketResult<Duration>;
        fn set_keep_alive_interval(socket: Resource<TcpSocket>, value: Duration) -> SocketResult<()>;
        fn get_keep_alive_count(socket: Resource<TcpSocket>) -> SocketResult<u32>;
        fn set_keep_alive_count(socket: Resource<TcpSocket>, value: u32) -> SocketResult<()>;
        fn get_hop_limit(socket: Resource<TcpSocket>) -> SocketResult<u8>;
        fn set_hop_limit(socket: Resource<TcpSocket>, value: u8) -> SocketResult<()>;
        fn get_receive_buffer_size(socket: Resource<TcpSocket>) -> SocketResult<u64>;
        fn set_receive_buffer_size(socket: Resource<TcpSocket>, value: u64) -> SocketResult<()>;
        fn get_send_buffer_size(socket: Resource<TcpSocket>) -> SocketResult<u64>;
        fn set_send_buffer_size(socket: Resource<TcpSocket>, value: u64) -> SocketResult<()>;
    });
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
        self.pod.closed(socket.rep());
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
