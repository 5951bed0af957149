//! Sockets of WASI 0.3 in a guest's own store.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use tokio::sync::{Semaphore, mpsc};
use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, Resource, Source, StreamConsumer, StreamResult};
use wasmtime_wasi::p3::bindings::sockets::types::{
    ErrorCode, HostTcpSocket, HostTcpSocketWithStore, IpAddressFamily, TcpSocket,
};

use super::super::limits::SOCKETS;
use super::super::linker;
use super::super::sockets::{PodSockets, view};
use super::super::state::GuestState;
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
        self.0.send(taken.unwrap()).unwrap();
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// A socket that listens in a guest's store.
struct Listener<'a> {
    sockets: &'a Accessor<GuestState, PodSockets>,
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
async fn listening(room: usize, run: impl AsyncFnOnce(Listener<'_>, &Semaphore)) {
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
    let guest = backend.guest(prepared, wasm, &sandbox, node.config(&image, &Log::new()));
    guest.sockets.forget_permits(SOCKETS - room);
    let (mut store, _) = guest.store(1, &Arc::default()).unwrap();
    let listening = store.run_concurrent(async |accessor| {
        let sockets = accessor.with_getter::<PodSockets>(view);
        let (rep, connections) = sockets.with(|mut access| {
            let socket = HostTcpSocket::create(&mut access.get(), IpAddressFamily::Ipv4).unwrap();
            let rep = socket.rep();
            let listening = <PodSockets as HostTcpSocketWithStore<GuestState>>::listen(access, socket).now_or_never();
            (rep, listening.expect("it does not wait").unwrap())
        });
        assert_eq!(guest.sockets.available_permits(), room - 1);
        let address = sockets
            .with(|mut access| HostTcpSocket::get_local_address(&mut access.get(), Resource::new_own(rep)).unwrap());
        let (take, taken) = mpsc::unbounded_channel();
        accessor.with(|access| connections.pipe(access, Taking(take))).unwrap();
        let address = sandbox.network.connect(crate::network::Protocol::Tcp, address.into()).unwrap().destination;
        run(Listener { sockets: &sockets, connections: taken, address }, &guest.sockets).await;
    });
    soon(listening).await.unwrap();
    drop(store);
    assert_eq!(guest.sockets.available_permits(), room);
}

#[tokio::test]
async fn a_listener_of_0_3_and_each_of_its_connections_has_one_of_its_container_s_places() {
    listening(3, async |mut listener, places| {
        let _clients = [listener.connection().await, listener.connection().await];
        assert_eq!(places.available_permits(), 0);
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
        assert_eq!(places.available_permits(), 1);
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
        assert_eq!(places.available_permits(), 0);
        listener.sockets.with(|mut access| data.close(&mut access)).unwrap();
        while places.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
        listener.sockets.with(|mut access| end.close(&mut access)).unwrap();
    })
    .await;
}
