//! UDP of WASI 0.2. Each datagram's address is checked: a bind says nothing about where a socket may send.

use std::net::SocketAddr;

use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::udp::{
    Host, HostIncomingDatagramStream, HostOutgoingDatagramStream, HostUdpSocket, IncomingDatagram,
    IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream,
};
use wasmtime_wasi::p2::bindings::sockets::udp_create_socket;
use wasmtime_wasi::p2::{DynPollable, SocketResult, UdpSocket};

use super::tcp::port_refused;
use super::{View, again, any_port, as_the_host};
use crate::network::Protocol::Udp;

type Streams = (Resource<IncomingDatagramStream>, Resource<OutgoingDatagramStream>);

impl Host for View<'_> {}

impl udp_create_socket::Host for View<'_> {
    async fn create_udp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        let place = self.pod.place().ok_or(ErrorCode::NewSocketLimit)?;
        let socket = udp_create_socket::Host::create_udp_socket(&mut self.host, family).await?;
        self.pod.socket(socket.rep()).place = Some(place);
        Ok(socket)
    }
}

impl HostUdpSocket for View<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<UdpSocket>,
        network: Resource<Network>,
        local_address: IpSocketAddress,
    ) -> SocketResult<()> {
        let to = self.pod.bind(Udp, local_address.into())?;
        let first = HostUdpSocket::start_bind(&mut self.host, again(&this), again(&network), to.into()).await;
        if let Err(error) = first {
            port_refused(to, error)?;
            HostUdpSocket::start_bind(&mut self.host, again(&this), network, any_port(to).into()).await?;
        }
        let actual = HostUdpSocket::local_address(&mut self.host, again(&this))?.into();
        self.pod.bound(this.rep(), to, actual);
        self.pod.listens(this.rep(), Udp, actual)?;
        Ok(())
    }

    async fn stream(
        &mut self,
        this: Resource<UdpSocket>,
        remote_address: Option<IpSocketAddress>,
    ) -> SocketResult<Streams> {
        let remote = remote_address.map(SocketAddr::from);
        let to = match remote {
            Some(remote) => Some(self.pod.route(Udp, remote)?.destination.into()),
            None => None,
        };
        let streams = HostUdpSocket::stream(&mut self.host, again(&this), to).await?;
        self.pod.socket(this.rep()).remote = remote;
        Ok(streams)
    }

    fn local_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        let actual = HostUdpSocket::local_address(&mut self.host, again(&this))?.into();
        Ok(self.pod.local(this.rep(), Udp, actual).into())
    }

    fn remote_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        let actual = HostUdpSocket::remote_address(&mut self.host, again(&this))?.into();
        Ok(self.pod.remote(this.rep(), Udp, actual).into())
    }

    fn drop(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<()> {
        let _ = self.pod.closed(this.rep());
        HostUdpSocket::drop(&mut self.host, this)
    }

    as_the_host!(HostUdpSocket {
        fn finish_bind(this: Resource<UdpSocket>) -> SocketResult<()>;
        fn address_family(this: Resource<UdpSocket>) -> wasmtime::Result<IpAddressFamily>;
        fn unicast_hop_limit(this: Resource<UdpSocket>) -> SocketResult<u8>;
        fn set_unicast_hop_limit(this: Resource<UdpSocket>, value: u8) -> SocketResult<()>;
        fn receive_buffer_size(this: Resource<UdpSocket>) -> SocketResult<u64>;
        fn set_receive_buffer_size(this: Resource<UdpSocket>, value: u64) -> SocketResult<()>;
        fn send_buffer_size(this: Resource<UdpSocket>) -> SocketResult<u64>;
        fn set_send_buffer_size(this: Resource<UdpSocket>, value: u64) -> SocketResult<()>;
        fn subscribe(this: Resource<UdpSocket>) -> wasmtime::Result<Resource<DynPollable>>;
    });
}

impl HostIncomingDatagramStream for View<'_> {
    fn receive(&mut self, this: Resource<IncomingDatagramStream>, most: u64) -> SocketResult<Vec<IncomingDatagram>> {
        let mut datagrams = HostIncomingDatagramStream::receive(&mut self.host, this, most)?;
        for datagram in &mut datagrams {
            datagram.remote_address = self.pod.network.shown(Udp, datagram.remote_address.into()).into();
        }
        Ok(datagrams)
    }

    as_the_host!(HostIncomingDatagramStream {
        fn subscribe(this: Resource<IncomingDatagramStream>) -> wasmtime::Result<Resource<DynPollable>>;
        fn drop(this: Resource<IncomingDatagramStream>) -> wasmtime::Result<()>;
    });
}

impl HostOutgoingDatagramStream for View<'_> {
    fn send(&mut self, this: Resource<OutgoingDatagramStream>, datagrams: Vec<OutgoingDatagram>) -> SocketResult<u64> {
        let mut allowed = Vec::with_capacity(datagrams.len());
        for mut datagram in datagrams {
            if let Some(remote) = datagram.remote_address {
                match self.pod.route(Udp, remote.into()) {
                    Ok(route) => datagram.remote_address = Some(route.destination.into()),
                    // Those before it are sent; the guest asks again with this one first, and is told.
                    Err(_) if !allowed.is_empty() => break,
                    Err(code) => return Err(code.into()),
                }
            }
            allowed.push(datagram);
        }
        HostOutgoingDatagramStream::send(&mut self.host, this, allowed)
    }

    async fn drop(&mut self, this: Resource<OutgoingDatagramStream>) -> wasmtime::Result<()> {
        HostOutgoingDatagramStream::drop(&mut self.host, this).await
    }

    as_the_host!(HostOutgoingDatagramStream {
        fn check_send(this: Resource<OutgoingDatagramStream>) -> SocketResult<u64>;
        fn subscribe(this: Resource<OutgoingDatagramStream>) -> wasmtime::Result<Resource<DynPollable>>;
    });
}
