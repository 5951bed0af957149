//! Sockets of WASI 0.3 in a guest's own store.

use std::net::Ipv4Addr;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use tokio::sync::mpsc;
use wasmtime::component::{Access, Accessor, Resource, Source, StreamConsumer, StreamReader, StreamResult};
use wasmtime::{AsContextMut, StoreContextMut};
use wasmtime_wasi::p3::bindings::sockets::types::{
    ErrorCode, HostTcpSocket, HostTcpSocketWithStore, HostUdpSocket, HostUdpSocketWithStore, IpAddressFamily, TcpSocket,
};
use wasmtime_wasi::p3::sockets::SocketError;

use super::super::linker;
use super::super::room::{Descriptors, Room};
use super::super::sockets::{PodSockets, view};
use super::super::state::{Guest, GuestState};
use super::*;

/// Takes each connection, and passes it on.
struct Taking(mpsc::UnboundedSender<Resource<TcpSocket>>);

impl StreamConsumer<GuestState> for Taking {
    type Item = Resource<TcpSocket>;

    fn poll_consume(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut store: StoreContextMut<'_, GuestState>,
        mut source: Source<'_, Self::Item>,
        _: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let mut taken = None;
        source.read(&mut store, &mut taken)?;
        let wanted = self.0.send(taken.unwrap()).is_ok();
        Poll::Ready(Ok(if wanted { StreamResult::Completed } else { StreamResult::Dropped }))
    }
}

/// A container that runs nothing, whose guests' stores can be had.
pub(in super::super) struct Container {
    pub(in super::super) guest: Guest,
    network: Arc<PodNetwork>,
    _backend: WasmBackend,
    _node: Node,
}

impl Container {
    /// One with so many places for sockets.
    pub(in super::super) fn new(room: usize) -> Self {
        let node = Node::new();
        let guests = GuestRuntime::new(&node.engine, 1).unwrap();
        let backend = WasmBackend::with_usual_bounds(node.engine.clone(), guests).unwrap();
        let image = node.example("worker");
        let ImageKind::Wasm(wasm) = &image.kind else { panic!("it is a component") };
        let sandbox = SandboxConfig {
            namespace: "default".into(),
            name: "p3".into(),
            uid: "p3".into(),
            hostname: "p3".into(),
            network: node.network.pod("p3"),
        };
        let prepared = linker::prepare(&backend.linker, wasm).unwrap();
        let mut guest = backend.guest(prepared, &sandbox, node.config(&image, &Log::new()));
        guest.sockets = Descriptors::with(2 * room).room("default", room);
        Self { guest, network: sandbox.network, _backend: backend, _node: node }
    }
}

/// A TCP socket that listens on a port of its pod, and its stream.
type Listening = (Resource<TcpSocket>, StreamReader<Resource<TcpSocket>>);

fn listen(sockets: &Accessor<GuestState, PodSockets>, port: u16) -> Result<Listening, ErrorCode> {
    let begin = |access: &mut Access<'_, GuestState, PodSockets>, rep: u32| {
        let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let bound = HostTcpSocket::bind(&mut access.get(), Resource::new_own(rep), at.into()).now_or_never();
        bound.expect("it does not wait")?;
        let access = Access::<GuestState, PodSockets>::new(access.as_context_mut(), view);
        let listening = <PodSockets as HostTcpSocketWithStore<GuestState>>::listen(access, Resource::new_own(rep));
        listening.now_or_never().expect("it does not wait")
    };
    sockets.with(|mut access| {
        let socket = HostTcpSocket::create(&mut access.get(), IpAddressFamily::Ipv4).map_err(code)?;
        match begin(&mut access, socket.rep()) {
            Ok(stream) => Ok((socket, stream)),
            Err(error) => {
                HostTcpSocket::drop(&mut access.get(), socket).unwrap();
                Err(code(error))
            }
        }
    })
}

fn code(error: SocketError) -> ErrorCode {
    error.downcast().unwrap()
}

/// A socket that listens in a guest's store.
struct Listener<'a> {
    sockets: &'a Accessor<GuestState, PodSockets>,
    socket: Resource<TcpSocket>,
    connections: mpsc::UnboundedReceiver<Resource<TcpSocket>>,
    address: SocketAddr,
}

impl Listener<'_> {
    /// Connects to it; the client, and the guest's connection.
    async fn connection(&mut self) -> (TcpStream, Resource<TcpSocket>) {
        let client = TcpStream::connect(self.address).await.unwrap();
        (client, self.connections.recv().await.unwrap())
    }

    fn close(&self, connection: &Resource<TcpSocket>) {
        let connection = Resource::new_own(connection.rep());
        self.sockets.with(|mut access| HostTcpSocket::drop(&mut access.get(), connection)).unwrap();
    }
}

/// Runs a guest's listener of 0.3, whose container has so many places; which of them are left can be asked.
async fn listening(room: usize, run: impl AsyncFnOnce(Listener<'_>, &Room)) {
    let Container { guest, network, .. } = &Container::new(room);
    let (mut store, _) = guest.store(1, &Arc::default()).unwrap();
    let listening = store.run_concurrent(async |accessor| {
        let sockets = accessor.with_getter::<PodSockets>(view);
        let (socket, connections) = listen(&sockets, 0).unwrap();
        assert_eq!(guest.sockets.left(), room - 1);
        let address = sockets.with(|mut access| {
            HostTcpSocket::get_local_address(&mut access.get(), Resource::new_own(socket.rep())).unwrap()
        });
        let (take, taken) = mpsc::unbounded_channel();
        accessor.with(|access| connections.pipe(access, Taking(take))).unwrap();
        let address = network.connect(crate::network::Protocol::Tcp, address.into()).unwrap().destination;
        run(Listener { sockets: &sockets, socket, connections: taken, address }, &guest.sockets).await;
    });
    soon(listening).await.unwrap();
    drop(store);
    assert_eq!(guest.sockets.left(), room);
}

#[tokio::test]
async fn a_listener_of_0_3_and_each_of_its_connections_has_one_of_its_container_s_places() {
    listening(3, async |mut listener, places| {
        let _clients = [listener.connection().await, listener.connection().await];
        assert_eq!(places.left(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_there_is_no_place_for_is_closed_and_its_guest_goes_on() {
    listening(2, async |mut listener, places| {
        let (mut kept, first) = listener.connection().await;
        for _ in 0..2 {
            let (mut client, refused) = listener.connection().await;
            let peer = listener.sockets.with(|mut access| {
                HostTcpSocket::get_remote_address(&mut access.get(), Resource::new_own(refused.rep()))
            });
            assert!(matches!(peer.unwrap_err().downcast().unwrap(), ErrorCode::ConnectionReset));
            assert!(matches!(client.read(&mut [0]).await, Ok(0) | Err(_)));
            let (mut data, mut end) = listener.sockets.with(|access| {
                let refused = Resource::new_own(refused.rep());
                <PodSockets as HostTcpSocketWithStore<GuestState>>::receive(access, refused).unwrap()
            });
            listener.sockets.with(|mut access| (data.close(&mut access).unwrap(), end.close(&mut access).unwrap()));
            listener.close(&refused);
        }
        assert!(kept.read(&mut [0]).now_or_never().is_none(), "it is open");
        listener.close(&first);
        assert_eq!(places.left(), 1);
        let (mut client, _connection) = listener.connection().await;
        assert!(client.read(&mut [0]).now_or_never().is_none(), "it is open");
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_outlives_its_socket_keeps_the_place() {
    listening(2, async |mut listener, places| {
        let (_client, connection) = listener.connection().await;
        let (mut data, mut end) = listener.sockets.with(|access| {
            let connection = Resource::new_own(connection.rep());
            <PodSockets as HostTcpSocketWithStore<GuestState>>::receive(access, connection).unwrap()
        });
        listener.close(&connection);
        assert_eq!(places.left(), 0);
        listener.sockets.with(|mut access| data.close(&mut access)).unwrap();
        while places.left() == 0 {
            tokio::task::yield_now().await;
        }
        listener.sockets.with(|mut access| end.close(&mut access)).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_listener_s_stream_outlives_its_socket_with_port_and_place() {
    let Container { guest, network, .. } = &Container::new(2);
    let (mut store, _) = guest.store(1, &Arc::default()).unwrap();
    let asked = SocketAddr::from((network.address(), 7000));
    let reached = || network.connect(crate::network::Protocol::Tcp, asked).map(|route| route.destination);
    let all = store.run_concurrent(async |accessor| {
        let sockets = accessor.with_getter::<PodSockets>(view);
        let close = |socket| sockets.with(|mut access| HostTcpSocket::drop(&mut access.get(), socket)).unwrap();
        let (socket, mut stream) = listen(&sockets, 7000).unwrap();
        close(socket);
        assert_eq!(guest.sockets.left(), 1);
        TcpStream::connect(reached().unwrap()).await.unwrap();
        assert!(matches!(listen(&sockets, 7000), Err(ErrorCode::AddressInUse)));
        let _other = listen(&sockets, 0).unwrap();
        assert!(matches!(listen(&sockets, 0), Err(ErrorCode::Other(_))));
        sockets.with(|mut access| stream.close(&mut access)).unwrap();
        while reached().is_ok() {
            tokio::task::yield_now().await;
        }
        assert_eq!(guest.sockets.left(), 1);
        let (socket, mut stream) = listen(&sockets, 7000).unwrap();
        sockets.with(|mut access| stream.close(&mut access)).unwrap();
        close(socket);
        assert_eq!(guest.sockets.left(), 1);
    });
    soon(all).await.unwrap();
}

#[tokio::test]
async fn a_connection_keeps_neither_port_nor_place_of_its_listener() {
    listening(4, async |mut listener, places| {
        let port = listener.address.port();
        let (mut kept, _connection) = listener.connection().await;
        let Listener { sockets, socket, connections, address } = listener;
        sockets.with(|mut access| HostTcpSocket::drop(&mut access.get(), socket)).unwrap();
        // Nobody takes the next: the stream ends.
        drop(connections);
        let _last = TcpStream::connect(address).await.unwrap();
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert_eq!(places.left(), 1);
        let _first = listen(sockets, port).unwrap();
        let _second = listen(sockets, 0).unwrap();
        assert!(kept.read(&mut [0]).now_or_never().is_none(), "it is open");
        assert!(listen(sockets, 0).is_err());
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_a_datagram_comes_after_those_before_and_has_no_memory_of_the_host_s_meanwhile() {
    let Container { guest, .. } = &Container::new(1);
    let (mut store, _) = guest.store(1, &Arc::default()).unwrap();
    let mut pod = view(store.data_mut());
    let rep = HostUdpSocket::create(&mut pod, IpAddressFamily::Ipv4).await.unwrap().rep();
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    HostUdpSocket::bind(&mut pod, Resource::new_own(rep), any.into()).await.unwrap();
    let address = SocketAddr::from(HostUdpSocket::get_local_address(&mut pod, Resource::new_own(rep)).unwrap());
    let all = store.run_concurrent(async |accessor| {
        let sockets = accessor.with_getter::<PodSockets>(view);
        let receive = || {
            let socket = Resource::new_own(rep);
            <PodSockets as HostUdpSocketWithStore<GuestState>>::receive(&sockets, socket)
        };
        let (mut first, mut second) = (Box::pin(receive()), Box::pin(receive()));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        let [sender, other] = [(); 2].map(|()| std::net::UdpSocket::bind((address.ip(), 0)).unwrap());
        other.set_nonblocking(true).unwrap();
        let other = tokio::net::UdpSocket::from_std(other).unwrap();
        for (said, to) in [(&b"first"[..], address), (b"second", address), (b"other", other.local_addr().unwrap())] {
            sender.send_to(said, to).unwrap();
        }
        let mut heard = [0; 5];
        tokio::select! {
            biased;
            _ = &mut second => panic!("the first has the next datagram"),
            received = other.recv(&mut heard) => assert_eq!(received.unwrap(), 5),
        }
        assert_eq!(first.await.unwrap().0, b"first");
        assert_eq!(second.await.unwrap().0, b"second");
    });
    soon(all).await.unwrap();
}
