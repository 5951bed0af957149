//! TCP of WASI 0.2.

use std::net::SocketAddr;

use futures::FutureExt;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddressFamily, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::tcp::{Host, HostTcpSocket, ShutdownType};
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, SocketError, SocketResult, TcpSocket};

use super::{View, again, any_port, as_the_host};
use crate::network::Protocol::Tcp;

type Streams = (Resource<DynInputStream>, Resource<DynOutputStream>);
type Accepted = (Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>);

impl Host for View<'_> {}

impl network::Host for View<'_> {
    as_the_host!(network::Host {
        fn convert_error_code(error: SocketError) -> wasmtime::Result<ErrorCode>;
        fn network_error_code(error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>>;
    });
}

impl network::HostNetwork for View<'_> {
    as_the_host!(network::HostNetwork {
        fn drop(this: Resource<Network>) -> wasmtime::Result<()>;
    });
}

impl tcp_create_socket::Host for View<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        let place = self.pod.place().ok_or(ErrorCode::NewSocketLimit)?;
        let socket = tcp_create_socket::Host::create_tcp_socket(&mut self.host, family)?;
        self.pod.socket(socket.rep()).place = Some(place);
        Ok(socket)
    }
}

/// Whether a bind failed for its port alone; passes other errors on.
pub(super) fn port_refused(address: SocketAddr, error: SocketError) -> SocketResult<()> {
    match error.downcast().map_err(SocketError::trap)? {
        ErrorCode::AccessDenied | ErrorCode::AddressInUse if address.port() != 0 => Ok(()),
        code => Err(code.into()),
    }
}

impl View<'_> {
    /// Binds to a host address, without the guest's second step.
    fn bind_now(
        &mut self,
        this: &Resource<TcpSocket>,
        network: &Resource<Network>,
        to: SocketAddr,
    ) -> SocketResult<()> {
        let bound = HostTcpSocket::start_bind(&mut self.host, again(this), again(network), to.into()).now_or_never();
        bound.unwrap_or_else(|| Err(ErrorCode::WouldBlock.into()))?;
        HostTcpSocket::finish_bind(&mut self.host, again(this))?;
        let actual = self.host.local_address(again(this))?.into();
        self.pod.bound(this.rep(), to, actual);
        Ok(())
    }
}

impl HostTcpSocket for View<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        local_address: IpSocketAddress,
    ) -> SocketResult<()> {
        let to = self.pod.bind(Tcp, local_address.into())?;
        let first = HostTcpSocket::start_bind(&mut self.host, again(&this), again(&network), to.into()).await;
        if let Err(error) = first {
            port_refused(to, error)?;
            HostTcpSocket::start_bind(&mut self.host, again(&this), network, any_port(to).into()).await?;
        }
        let actual = self.host.local_address(again(&this))?.into();
        self.pod.bound(this.rep(), to, actual);
        Ok(())
    }

    fn start_connect(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        remote_address: IpSocketAddress,
    ) -> SocketResult<()> {
        let remote = remote_address.into();
        let route = self.pod.route(Tcp, remote)?;
        if !self.pod.is_bound(this.rep()) && !route.source.is_unspecified() {
            self.bind_now(&this, &network, SocketAddr::new(route.source, 0))?;
        }
        self.pod.socket(this.rep()).remote = Some(remote);
        HostTcpSocket::start_connect(&mut self.host, this, network, route.destination.into())
    }

    async fn start_listen(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        HostTcpSocket::start_listen(&mut self.host, again(&this)).await?;
        let actual = self.host.local_address(again(&this))?.into();
        self.pod.listens(this.rep(), Tcp, actual)?;
        Ok(())
    }

    fn local_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let actual = self.host.local_address(again(&this))?.into();
        Ok(self.pod.local(this.rep(), Tcp, actual).into())
    }

    fn remote_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let actual = self.host.remote_address(again(&this))?.into();
        Ok(self.pod.remote(this.rep(), Tcp, actual).into())
    }

    fn accept(&mut self, this: Resource<TcpSocket>) -> SocketResult<Accepted> {
        let place = self.pod.place().ok_or(ErrorCode::NewSocketLimit)?;
        let accepted = HostTcpSocket::accept(&mut self.host, this)?;
        self.pod.socket(accepted.0.rep()).place = Some(place);
        Ok(accepted)
    }

    fn drop(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<()> {
        let _ = self.pod.closed(this.rep());
        HostTcpSocket::drop(&mut self.host, this)
    }

    as_the_host!(HostTcpSocket {
        fn finish_bind(this: Resource<TcpSocket>) -> SocketResult<()>;
        fn finish_connect(this: Resource<TcpSocket>) -> SocketResult<Streams>;
        fn finish_listen(this: Resource<TcpSocket>) -> SocketResult<()>;
        fn is_listening(this: Resource<TcpSocket>) -> wasmtime::Result<bool>;
        fn address_family(this: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily>;
        fn set_listen_backlog_size(this: Resource<TcpSocket>, value: u64) -> SocketResult<()>;
        fn keep_alive_enabled(this: Resource<TcpSocket>) -> SocketResult<bool>;
        fn set_keep_alive_enabled(this: Resource<TcpSocket>, value: bool) -> SocketResult<()>;
        fn keep_alive_idle_time(this: Resource<TcpSocket>) -> SocketResult<u64>;
        fn set_keep_alive_idle_time(this: Resource<TcpSocket>, value: u64) -> SocketResult<()>;
        fn keep_alive_interval(this: Resource<TcpSocket>) -> SocketResult<u64>;
        fn set_keep_alive_interval(this: Resource<TcpSocket>, value: u64) -> SocketResult<()>;
        fn keep_alive_count(this: Resource<TcpSocket>) -> SocketResult<u32>;
        fn set_keep_alive_count(this: Resource<TcpSocket>, value: u32) -> SocketResult<()>;
        fn hop_limit(this: Resource<TcpSocket>) -> SocketResult<u8>;
        fn set_hop_limit(this: Resource<TcpSocket>, value: u8) -> SocketResult<()>;
        fn receive_buffer_size(this: Resource<TcpSocket>) -> SocketResult<u64>;
        fn set_receive_buffer_size(this: Resource<TcpSocket>, value: u64) -> SocketResult<()>;
        fn send_buffer_size(this: Resource<TcpSocket>) -> SocketResult<u64>;
        fn set_send_buffer_size(this: Resource<TcpSocket>, value: u64) -> SocketResult<()>;
        fn subscribe(this: Resource<TcpSocket>) -> wasmtime::Result<Resource<DynPollable>>;
        fn shutdown(this: Resource<TcpSocket>, how: ShutdownType) -> SocketResult<()>;
    });
}
