//! Sockets of WASI 0.3 in a guest's own store.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use wasmtime::StoreContextMut;
use wasmtime::component::{Resource, Source, StreamConsumer, StreamResult};
use wasmtime_wasi::p3::bindings::sockets::types::{HostTcpSocket, HostTcpSocketWithStore, IpAddressFamily, TcpSocket};

use super::super::limits::SOCKETS;
use super::super::linker;
use super::super::sockets::{PodSockets, view};
use super::super::state::GuestState;
use super::*;

/// Takes each connection, and leaves it open.
struct Taking;

impl StreamConsumer<GuestState> for Taking {
    type Item = Resource<TcpSocket>;

    fn poll_consume(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut store: StoreContextMut<'_, GuestState>,
        mut source: Source<'_, Self::Item>,
        _: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        source.read(&mut store, &mut Vec::with_capacity(1))?;
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

#[tokio::test]
async fn a_listener_of_0_3_and_each_of_its_connections_has_one_of_its_container_s_places() {
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
    let (mut store, _) = guest.store(1, &Arc::default()).unwrap();
    let left = || guest.sockets.available_permits();
    let listening = store.run_concurrent(async |accessor| {
        let sockets = accessor.with_getter::<PodSockets>(view);
        let (rep, connections) = sockets.with(|mut access| {
            let socket = HostTcpSocket::create(&mut access.get(), IpAddressFamily::Ipv4).unwrap();
            let rep = socket.rep();
            let listening = <PodSockets as HostTcpSocketWithStore<GuestState>>::listen(access, socket).now_or_never();
            (rep, listening.expect("it does not wait").unwrap())
        });
        assert_eq!(left(), SOCKETS - 1);
        let address = sockets
            .with(|mut access| HostTcpSocket::get_local_address(&mut access.get(), Resource::new_own(rep)).unwrap());
        accessor.with(|access| connections.pipe(access, Taking)).unwrap();
        let address = sandbox.network.connect(crate::network::Protocol::Tcp, address.into()).unwrap().destination;
        let _clients = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        while left() != SOCKETS - 3 {
            tokio::task::yield_now().await;
        }
    });
    soon(listening).await.unwrap();
    drop(store);
    assert_eq!(guest.sockets.available_permits(), SOCKETS);
}
