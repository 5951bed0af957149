//! Sockets of guests in pods: what they reach, and which addresses they see.

use std::time::Duration;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi::p2::bindings::sockets::instance_network::Host as _;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode as Code, IpAddressFamily, Network};
use wasmtime_wasi::p2::bindings::sockets::tcp::HostTcpSocket;
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket::Host as _;
use wasmtime_wasi::p2::bindings::sockets::udp::{
    HostIncomingDatagramStream, HostOutgoingDatagramStream, HostUdpSocket, IncomingDatagramStream, OutgoingDatagram,
    OutgoingDatagramStream,
};
use wasmtime_wasi::p2::bindings::sockets::udp_create_socket::Host as _;
use wasmtime_wasi::p2::{SocketError, TcpSocket, UdpSocket};

use super::super::limits::SOCKETS;
use super::super::room::Descriptors;
use super::*;
use crate::network::local::testing::Lone;

/// A guest's store in a pod.
struct Pod {
    #[allow(clippy::struct_field_names)]
    pod: Sockets,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl Pod {
    fn new(network: &Lone, name: &str) -> Self {
        Self::with_room(network, name, SOCKETS)
    }

    fn with_room(network: &Lone, name: &str, room: usize) -> Self {
        let mut wasi = WasiCtx::builder();
        allow(&mut wasi);
        let pod = Sockets::new(network.pod(name), Descriptors::with(2 * SOCKETS).room("default", room));
        Self { pod, wasi: wasi.build(), table: ResourceTable::new() }
    }

    fn view(&mut self) -> View<'_> {
        View::new(&mut self.pod, &mut self.wasi, &mut self.table)
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.pod.network.address(), port))
    }

    fn network(&mut self) -> Resource<Network> {
        self.view().host.instance_network().unwrap()
    }

    async fn listen(&mut self, address: &str) -> Result<Resource<TcpSocket>, SocketError> {
        let network = self.network();
        let socket = self.view().create_tcp_socket(IpAddressFamily::Ipv4)?;
        let address: SocketAddr = address.parse().unwrap();
        HostTcpSocket::start_bind(&mut self.view(), again(&socket), network, address.into()).await?;
        HostTcpSocket::finish_bind(&mut self.view(), again(&socket))?;
        self.view().start_listen(again(&socket)).await?;
        self.view().finish_listen(again(&socket))?;
        Ok(socket)
    }

    async fn connect(&mut self, address: SocketAddr) -> Result<Resource<TcpSocket>, SocketError> {
        let network = self.network();
        let socket = self.view().create_tcp_socket(IpAddressFamily::Ipv4)?;
        self.view().start_connect(again(&socket), network, address.into())?;
        until(|| self.view().finish_connect(again(&socket))).await?;
        Ok(socket)
    }

    async fn udp(&mut self, address: SocketAddr) -> (Resource<UdpSocket>, Incoming, Outgoing) {
        let network = self.network();
        let socket = self.view().create_udp_socket(IpAddressFamily::Ipv4).await.unwrap();
        HostUdpSocket::start_bind(&mut self.view(), again(&socket), network, address.into()).await.unwrap();
        HostUdpSocket::finish_bind(&mut self.view(), again(&socket)).unwrap();
        let (incoming, outgoing) = self.view().stream(again(&socket), None).await.unwrap();
        (socket, incoming, outgoing)
    }

    fn send(&mut self, stream: &Outgoing, to: SocketAddr) -> Result<u64, SocketError> {
        self.view().check_send(again(stream))?;
        let datagram = OutgoingDatagram { data: b"hi".to_vec(), remote_address: Some(to.into()) };
        HostOutgoingDatagramStream::send(&mut self.view(), again(stream), vec![datagram])
    }
}

type Incoming = Resource<IncomingDatagramStream>;
type Outgoing = Resource<OutgoingDatagramStream>;

/// Asks until the host would not block any more.
async fn until<T>(mut ask: impl FnMut() -> Result<T, SocketError>) -> Result<T, SocketError> {
    let asked = async {
        loop {
            match ask() {
                Err(error) => match error.downcast().unwrap() {
                    Code::WouldBlock => tokio::task::yield_now().await,
                    code => return Err(code.into()),
                },
                Ok(value) => return Ok(value),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asked).await.expect("the host blocks")
}

fn told<T>(result: Result<T, SocketError>) -> Code {
    result.map(|_| ()).unwrap_err().downcast().unwrap()
}

#[tokio::test]
async fn a_listener_is_reached_on_the_pod_s_address_and_its_own_localhost() {
    let lone = Lone::new();
    let (mut server, mut other) = (Pod::new(&lone, "server"), Pod::new(&lone, "other"));
    let listener = server.listen("0.0.0.0:7000").await.unwrap();
    let local: SocketAddr = HostTcpSocket::local_address(&mut server.view(), again(&listener)).unwrap().into();
    assert_eq!(local, server.at(7000));

    let localhost: SocketAddr = "127.0.0.1:7000".parse().unwrap();
    let own = server.connect(localhost).await.unwrap();
    let remote: SocketAddr = HostTcpSocket::remote_address(&mut server.view(), own).unwrap().into();
    assert_eq!(remote, localhost);
    let (accepted, ..) = until(|| server.view().accept(again(&listener))).await.unwrap();
    let peer: SocketAddr = HostTcpSocket::remote_address(&mut server.view(), accepted).unwrap().into();
    assert_eq!(peer.ip(), localhost.ip());

    other.connect(server.at(7000)).await.unwrap();
    let (accepted, ..) = until(|| server.view().accept(again(&listener))).await.unwrap();
    let peer: SocketAddr = HostTcpSocket::remote_address(&mut server.view(), accepted).unwrap().into();
    assert_eq!(peer.ip(), other.at(0).ip());
    assert_eq!(told(other.connect(localhost).await), Code::ConnectionRefused);
}

#[tokio::test]
async fn a_listener_on_localhost_is_the_pod_s_alone() {
    let lone = Lone::new();
    let (mut server, mut other) = (Pod::new(&lone, "server"), Pod::new(&lone, "other"));
    let _listener = server.listen("127.0.0.1:7000").await.unwrap();
    server.connect("127.0.0.1:7000".parse().unwrap()).await.unwrap();
    assert_eq!(told(other.connect(server.at(7000)).await), Code::ConnectionRefused);
}

#[tokio::test]
async fn a_closed_listener_frees_its_port() {
    let lone = Lone::new();
    let mut pod = Pod::new(&lone, "pod");
    let listener = pod.listen("0.0.0.0:7000").await.unwrap();
    assert_eq!(told(pod.listen("0.0.0.0:7000").await), Code::AddressInUse);
    HostTcpSocket::drop(&mut pod.view(), listener).unwrap();
    pod.listen("0.0.0.0:7000").await.unwrap();
}

#[tokio::test]
async fn addresses_that_are_not_the_pod_s_cannot_be_bound_or_reached() {
    let lone = Lone::new();
    let mut pod = Pod::new(&lone, "pod");
    assert_eq!(told(pod.listen("127.0.0.2:7000").await), Code::AccessDenied);
    let host = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = host.local_addr().unwrap().port();
    for ip in ["127.0.0.1", "127.0.0.2"] {
        let code = told(pod.connect(format!("{ip}:{port}").parse().unwrap()).await);
        assert!(matches!(code, Code::AccessDenied | Code::ConnectionRefused), "{ip}: {code:?}");
    }
}

#[tokio::test]
async fn a_port_that_cannot_be_had_is_served_on_a_substitute() {
    let lone = Lone::new();
    let mut server = Pod::new(&lone, "server");
    // A wildcard listener of the host has the port on every address.
    let host = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = host.local_addr().unwrap().port();
    let listener = server.listen(&format!("0.0.0.0:{port}")).await.unwrap();
    let local: SocketAddr = HostTcpSocket::local_address(&mut server.view(), again(&listener)).unwrap().into();
    assert_eq!(local, server.at(port));
    Pod::new(&lone, "other").connect(server.at(port)).await.unwrap();
    until(|| server.view().accept(again(&listener))).await.unwrap();
}

#[tokio::test]
async fn each_datagram_s_address_is_checked() {
    let lone = Lone::new();
    let (mut server, mut client) = (Pod::new(&lone, "server"), Pod::new(&lone, "client"));
    let (_socket, incoming, _) = server.udp("0.0.0.0:7001".parse().unwrap()).await;
    let (_other, _, outgoing) = client.udp(anywhere()).await;
    assert_eq!(client.send(&outgoing, server.at(7001)).unwrap(), 1);
    let received = until(|| match server.view().receive(again(&incoming), 1)? {
        received if received.is_empty() => Err(Code::WouldBlock.into()),
        received => Ok(received),
    })
    .await
    .unwrap();
    assert_eq!(received[0].data, b"hi");
    assert_eq!(SocketAddr::from(received[0].remote_address).ip(), client.at(0).ip());

    let host = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let code = told(client.send(&outgoing, host.local_addr().unwrap()));
    assert!(matches!(code, Code::AccessDenied | Code::ConnectionRefused), "{code:?}");
}

#[tokio::test]
async fn sockets_of_0_3_are_the_pod_s_too() {
    use wasmtime_wasi::p3::bindings::sockets::types::{self, ErrorCode, HostTcpSocket, HostUdpSocket};
    let lone = Lone::new();
    let mut pod = Pod::new(&lone, "pod");
    let own = pod.at(0).ip();
    let mut view = pod.view();
    let tcp = HostTcpSocket::create(&mut view, types::IpAddressFamily::Ipv4).unwrap();
    HostTcpSocket::bind(&mut view, again(&tcp), anywhere().into()).await.unwrap();
    let local: SocketAddr = HostTcpSocket::get_local_address(&mut view, tcp).unwrap().into();
    assert_eq!(local.ip(), own);
    let udp = HostUdpSocket::create(&mut view, types::IpAddressFamily::Ipv4).await.unwrap();
    let elsewhere: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let denied = HostUdpSocket::connect(&mut view, udp, elsewhere.into()).await.unwrap_err();
    assert!(matches!(denied.downcast().unwrap(), ErrorCode::ConnectionRefused));
}

#[tokio::test]
async fn a_container_opens_as_many_sockets_as_it_may_and_others_for_those_that_it_closes() {
    let lone = Lone::new();
    let (mut server, mut client) = (Pod::with_room(&lone, "server", 2), Pod::new(&lone, "client"));
    let listener = server.listen("0.0.0.0:7000").await.unwrap();
    let address = server.at(7000);
    for _ in 0..2 {
        client.connect(address).await.unwrap();
    }
    let accept = async |server: &mut Pod| until(|| server.view().accept(again(&listener))).await;
    let (socket, input, output) = accept(&mut server).await.unwrap();
    assert_eq!(told(accept(&mut server).await), Code::NewSocketLimit);
    assert_eq!(told(server.view().create_tcp_socket(IpAddressFamily::Ipv4)), Code::NewSocketLimit);
    assert_eq!(told(server.view().create_udp_socket(IpAddressFamily::Ipv4).await), Code::NewSocketLimit);
    server.table.delete(input).unwrap();
    server.table.delete(output).unwrap();
    HostTcpSocket::drop(&mut server.view(), socket).unwrap();
    accept(&mut server).await.unwrap();
    assert_eq!(server.pod.room.left(), 0);
}

#[tokio::test]
async fn a_guest_of_0_3_has_as_many_sockets_those_among_them_that_it_accepted() {
    use p3::types::{ErrorCode, HostTcpSocket, HostUdpSocket, IpAddressFamily::Ipv4};
    let lone = Lone::new();
    let mut pod = Pod::with_room(&lone, "p3", 2);
    HostTcpSocket::create(&mut pod.view(), Ipv4).unwrap();
    // As a listener does for each connection.
    let accept = |pod: &mut Pod| {
        pod.pod.accepts(&mut pod.table);
        let mut host = WasiSocketsCtxView { ctx: pod.wasi.sockets(), table: &mut pod.table };
        HostTcpSocket::create(&mut host, Ipv4).unwrap()
    };
    let (taken, closed) = (accept(&mut pod), accept(&mut pod));
    let refused = HostTcpSocket::create(&mut pod.view(), Ipv4).unwrap_err().downcast().unwrap();
    assert!(matches!(refused, ErrorCode::Other(Some(said)) if said == "too many open sockets"));
    assert!(HostTcpSocket::get_hop_limit(&mut pod.view(), again(&taken)).is_ok());
    let reset = HostTcpSocket::get_hop_limit(&mut pod.view(), again(&closed)).unwrap_err().downcast().unwrap();
    assert!(matches!(reset, ErrorCode::ConnectionReset));
    HostTcpSocket::drop(&mut pod.view(), closed).unwrap();
    assert!(HostUdpSocket::create(&mut pod.view(), Ipv4).await.is_err(), "it had no place to give back");
    HostTcpSocket::drop(&mut pod.view(), taken).unwrap();
    HostUdpSocket::create(&mut pod.view(), Ipv4).await.unwrap();
    assert!(HostUdpSocket::create(&mut pod.view(), Ipv4).await.is_err());
}
