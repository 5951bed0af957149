//! Services for the host in `local` mode: a listener per Service address and node port. A connection that lands on a guest
//! of this process is not proxied: its stream is given to that guest's HTTP server. Others are copied, TCP only. While a Service
//! has no endpoint, its ports are bound and nobody listens: who connects is refused, as by kube-proxy.
//!
//! Node ports listen where the network was told to, 127.0.0.1 by default: nothing of a laptop is open to its network unasked.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::Protocol;
use super::host_ports::Noted;
use super::local::Shared;
use super::services::Frontend;
use crate::places::Places;

/// Connections that are copied at once, all Services together, and those that wait for it; others are closed.
const COPIED_AT_ONCE: usize = 4096;
const WAITING: usize = 256;
/// Listeners at once; of the process's file descriptors they take no more than one in four.
const LISTENERS: usize = 4096;
/// Of the addresses of one Service so many ports are opened to the host; guests reach them all.
const PORTS: usize = 64;
/// Connections that the kernel keeps for a listener.
const BACKLOG: u32 = 1024;
/// Longest time to connect to one endpoint before the next is tried.
const CONNECT: Duration = Duration::from_secs(5);
/// A port that could not be had is tried again after this time, and then after twice as long each time, up to [`RETRY`].
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_secs(5);
/// For so long a node port's fate is left to whoever applied its Service to tell.
const TOLD: Duration = Duration::from_secs(15);

/// Runs until it is dropped: opens and closes listeners as Services come and go.
pub(super) async fn serve(shared: Arc<Shared>, mut changes: watch::Receiver<()>) {
    let copies = Places::new(COPIED_AT_ONCE, WAITING);
    let mut tasks = JoinSet::new();
    let mut open: HashMap<Frontend, Opened> = HashMap::new();
    let mut left_out = 0;
    loop {
        let all = shared.services.frontends();
        let asked = all.len();
        let wanted = bounded(all, listeners(), |frontend| open.contains_key(frontend));
        // Said when it changes, not with every change of a Service.
        let now_left_out = asked - wanted.len();
        if std::mem::replace(&mut left_out, now_left_out) != now_left_out && now_left_out > 0 {
            tracing::warn!(
                ports = now_left_out,
                "Services have more ports than are opened on this machine; guests reach them, the host does not"
            );
        }
        for (_, opened) in open.iter().filter(|(frontend, _)| !wanted.contains(frontend)) {
            opened.task.abort();
        }
        for frontend in wanted {
            let serves = shared.services.behind(frontend).is_some_and(|port| !port.endpoints.is_empty());
            let opened = open.entry(frontend).or_insert_with(|| {
                let (send, receive) = watch::channel(serves);
                let task = tasks.spawn(listen(shared.clone(), frontend, copies.clone(), receive));
                Opened { task, serves: send }
            });
            opened.serves.send_if_modified(|now| std::mem::replace(now, serves) != serves);
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            // Its port is free now, and may be wanted again.
            Some(ended) = tasks.join_next_with_id() => open.retain(|_, opened| opened.task.id() != id(&ended)),
        }
    }
}

/// A frontend that has a task.
struct Opened {
    task: AbortHandle,
    /// Whether its Service has an endpoint.
    serves: watch::Sender<bool>,
}

/// How many listeners this process may have.
fn listeners() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 4;
    usize::try_from(files).unwrap_or(usize::MAX).min(LISTENERS)
}

/// What is opened of what is wanted: what is open already, then node ports, then addresses' lowest ports, each in their
/// order.
fn bounded(wanted: HashSet<Frontend>, most: usize, is_open: impl Fn(&Frontend) -> bool) -> HashSet<Frontend> {
    let (mut node_ports, mut addresses) = (BTreeSet::new(), BTreeMap::<Ipv4Addr, BTreeSet<u16>>::new());
    for frontend in wanted {
        match frontend {
            Frontend::NodePort(port) => drop(node_ports.insert(port)),
            Frontend::Address(ip, port) => drop(addresses.entry(ip).or_default().insert(port)),
        }
    }
    let of = |(ip, ports): (Ipv4Addr, BTreeSet<u16>)| {
        ports.into_iter().take(PORTS).map(move |port| Frontend::Address(ip, port))
    };
    let mut all: Vec<Frontend> =
        node_ports.into_iter().map(Frontend::NodePort).chain(addresses.into_iter().flat_map(of)).collect();
    // Closing a listener ends the connections that it copies.
    all.sort_by_key(|frontend| !is_open(frontend));
    all.truncate(most);
    all.into_iter().collect()
}

/// Whose end this is. Listeners end when they are no longer wanted.
fn id(ended: &Result<(Id, ()), JoinError>) -> Id {
    match ended {
        Ok((id, ())) => *id,
        Err(error) => {
            if error.is_panic() {
                tracing::error!(%error, "a Service's listener failed and is opened again");
            }
            error.id()
        }
    }
}

impl Frontend {
    /// Where it is opened; node ports on `host`.
    fn address(self, host: IpAddr) -> SocketAddr {
        match self {
            Self::Address(ip, port) => SocketAddr::new(ip.into(), port),
            Self::NodePort(port) => SocketAddr::new(host, port),
        }
    }
}

/// Accepts connections to one frontend, while its Service has an endpoint.
async fn listen(shared: Arc<Shared>, frontend: Frontend, copies: Places, mut serves: watch::Receiver<bool>) {
    let noted = match frontend {
        Frontend::NodePort(port) => Some(shared.host_ports.note(port)),
        Frontend::Address(..) => None,
    };
    let mut connections = JoinSet::new();
    loop {
        let bound = bind(&shared, frontend, noted.as_ref()).await;
        if let Some(noted) = &noted {
            noted.set(Ok(()));
        }
        // Until then who connects is refused.
        if serves.wait_for(|serves| *serves).await.is_err() {
            return;
        }
        match bound.listen(BACKLOG) {
            Ok(listener) => accept(&shared, frontend, &listener, &copies, &mut connections, &mut serves).await,
            // Somebody else has begun to; binding it fails then, and is told.
            Err(error) => {
                tracing::debug!(%error, "a Service's port is bound and cannot be listened on");
                tokio::time::sleep(RETRY_FIRST).await;
            }
        }
    }
}

/// Accepts connections until the Service has no endpoint.
async fn accept(
    shared: &Arc<Shared>,
    frontend: Frontend,
    listener: &TcpListener,
    copies: &Places,
    connections: &mut JoinSet<()>,
    serves: &mut watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = serves.wait_for(|serves| !serves) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                if let Some(copy) = dispatch(shared, frontend, stream, peer) {
                    let Some(ticket) = copies.ask() else { continue };
                    connections.spawn(async move {
                        let Some(_place) = ticket.place().await else { return };
                        copy.await;
                    });
                }
            }
            Err(error) => {
                let address = frontend.address(shared.host_ports.address());
                tracing::warn!(%error, %address, "a connection to a Service could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Binds a frontend's address; waits while another process has it, or while this user may not have it, which concerns the
/// host only: guests reach the Service by its address all the same.
async fn bind(shared: &Shared, frontend: Frontend, noted: Option<&Noted>) -> TcpSocket {
    let (mut pause, mut told) = (RETRY_FIRST, false);
    let began = tokio::time::Instant::now();
    loop {
        match bound(frontend.address(shared.host_ports.address())) {
            Ok(socket) => return socket,
            Err(error) => {
                let known = noted.map(Noted::is_known);
                if !told && (known.is_none() || began.elapsed() >= TOLD) {
                    told = true;
                    if known != Some(true) {
                        tell(shared, frontend, &error);
                    }
                }
                if let Some(noted) = noted {
                    noted.set(Err(error.kind()));
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY);
    }
}

/// A socket that has an address and does not listen.
fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of before, or their remains, do not keep the address from us.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn tell(shared: &Shared, frontend: Frontend, error: &io::Error) {
    let address = frontend.address(shared.host_ports.address());
    let behind = shared.services.behind(frontend);
    let service = behind.as_ref().map_or("", |port| port.service.as_str());
    match frontend {
        // Every Service has a port below 1024 here; docs/networking.md says what that means.
        Frontend::Address(..) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::debug!(
                service,
                %address,
                "this user may not listen on the Service's port; guests reach it, the host does not (use a NodePort)"
            );
        }
        Frontend::Address(..) => {
            tracing::warn!(%error, service, %address, "a Service's port cannot be opened; trying again");
        }
        Frontend::NodePort(_) => tracing::warn!(
            %error,
            service,
            %address,
            "a Service's node port cannot be opened; trying again (choose another nodePort, or stop what has it)"
        ),
    }
}

/// Gives the stream to a guest of this process, or returns the copying that is left to do.
fn dispatch(
    shared: &Arc<Shared>,
    frontend: Frontend,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> Option<impl Future<Output = ()> + use<>> {
    let service = shared.services.behind(frontend)?;
    let mut remaining = Vec::new();
    for endpoint in service.choices(peer.ip()) {
        match shared.reach_endpoint(Protocol::Tcp, &service, endpoint) {
            Some((_, Some(http))) if remaining.is_empty() => match http.serve(stream, peer) {
                Ok(()) => {
                    service.chose(peer.ip(), endpoint);
                    return None;
                }
                Err(back) => stream = back,
            },
            Some((address, _)) => remaining.push((endpoint, address)),
            None => {}
        }
    }
    Some(async move {
        for (endpoint, address) in remaining {
            if let Ok(Ok(upstream)) = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
                service.chose(peer.ip(), endpoint);
                return copy(stream, upstream).await;
            }
        }
        tracing::debug!(service = service.service, "a connection found no endpoint that takes it");
    })
}

async fn copy(mut client: TcpStream, mut upstream: TcpStream) {
    let _ = upstream.set_nodelay(true);
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut upstream).await {
        tracing::debug!(%error, "a proxied connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::network::local::testing::Lone;
    use crate::network::services::{Named, build};

    /// A Service whose one endpoint is a pod.
    fn service(address: Ipv4Addr, pod: Ipv4Addr) -> Named {
        let meta = |name: &str| json!({"name": name, "namespace": "shop"});
        let spec = json!({"clusterIP": address.to_string(), "ports": [{"port": 8080, "targetPort": 80}]});
        let service: Value = json!({"metadata": meta("web"), "spec": spec});
        let slice = json!({"metadata": meta("web-1"), "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": [pod.to_string()]}]});
        build(&from_value(service).unwrap(), &[from_value(slice).unwrap()], "n1", None)
    }

    #[tokio::test]
    async fn a_connection_that_could_not_even_wait_to_be_copied_is_closed() {
        let network = Lone::new();
        let (shared, [front, pod]) = (network.shared(), ["front", "pod"].map(|name| network.pod(name)));
        let guest = TcpListener::bind((pod.address(), 0)).await.unwrap();
        let (asked, actual) = (SocketAddr::new(pod.address().into(), 80), guest.local_addr().unwrap());
        let _listens = pod.listening(Protocol::Tcp, asked, actual, None).unwrap();
        // An address that is nobody else's on this machine.
        let frontend = Frontend::Address(front.address(), 8080);
        shared.services.replace("shop", "web", Some(service(front.address(), pod.address())));
        let (_serves, serves) = watch::channel(true);
        let listens = listen(shared, frontend, Places::new(1, 1), serves);
        let _proxy = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(listens));
        let all = async {
            let connect = || TcpStream::connect((front.address(), 8080));
            let first = loop {
                if let Ok(first) = connect().await {
                    break first;
                }
            };
            let copied = guest.accept().await.unwrap();
            let _second = connect().await.unwrap();
            let mut third = connect().await.unwrap();
            assert!(matches!(third.read(&mut [0]).await, Ok(0) | Err(_)));
            drop((first, copied));
            guest.accept().await.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
    }

    #[tokio::test]
    async fn a_service_without_an_endpoint_refuses_until_it_has_one() {
        let network = Lone::new();
        let (shared, [front, pod]) = (network.shared(), ["front", "pod"].map(|name| network.pod(name)));
        let guest = TcpListener::bind((pod.address(), 0)).await.unwrap();
        let (asked, actual) = (SocketAddr::new(pod.address().into(), 80), guest.local_addr().unwrap());
        let _listens = pod.listening(Protocol::Tcp, asked, actual, None).unwrap();
        let (changed, changes) = watch::channel(());
        let served = service(front.address(), pod.address());
        let ports = |endpoints: bool| {
            let mut service = served.clone();
            if !endpoints {
                let port = json!({"metadata": {"name": "web", "namespace": "shop"},
                    "spec": {"clusterIP": front.address().to_string(), "ports": [{"port": 8080, "targetPort": 80}]}});
                service = build(&from_value(port).unwrap(), &[], "n1", None);
            }
            shared.services.replace("shop", "web", Some(service));
            changed.send_replace(());
        };
        ports(true);
        let _proxy = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(serve(shared.clone(), changes)));
        let connect = || TcpStream::connect((front.address(), 8080));
        let all = async {
            for _ in 0..3 {
                let mut client = loop {
                    match connect().await {
                        Ok(client) => break client,
                        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused),
                    }
                };
                let (mut kept, _) = guest.accept().await.unwrap();
                ports(false);
                while connect().await.is_ok() {}
                assert_eq!(connect().await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
                tokio::io::AsyncWriteExt::write_all(&mut kept, b"on").await.unwrap();
                client.read_exact(&mut [0; 2]).await.unwrap();
                ports(true);
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
    }

    #[test]
    fn a_service_with_thousands_of_ports_leaves_descriptors_for_others() {
        let (large, small) = (Ipv4Addr::new(127, 1, 0, 1), Ipv4Addr::new(127, 1, 0, 2));
        let mut wanted: HashSet<Frontend> = (1..=9900).map(|port| Frontend::Address(large, port)).collect();
        wanted.extend([Frontend::Address(small, 80), Frontend::NodePort(30_080)]);
        let opened = bounded(wanted.clone(), 1000, |_| false);
        assert_eq!(opened.len(), PORTS + 2);
        assert!(opened.contains(&Frontend::Address(small, 80)) && opened.contains(&Frontend::NodePort(30_080)));
        let few = bounded(wanted, 10, |_| false);
        assert_eq!(few.len(), 10);
        assert!(few.contains(&Frontend::NodePort(30_080)));
    }

    #[test]
    fn what_is_open_stays_open_when_there_are_too_many() {
        let ports = |ports: std::ops::Range<u16>| ports.map(Frontend::NodePort).collect::<HashSet<_>>();
        let opened = bounded(ports(30_100..30_300), 100, |_| false);
        assert_eq!(opened, bounded(ports(30_100..30_300), 100, |_| false), "in whatever order they are told");
        let first = Frontend::Address(Ipv4Addr::new(127, 1, 0, 1), 80);
        let mut wanted = ports(30_000..30_300);
        wanted.insert(first);
        assert_eq!(opened, bounded(wanted.clone(), 100, |frontend| opened.contains(frontend)));
        assert!(bounded(wanted, 100, |frontend| *frontend == first).contains(&first));
    }
}
