//! The listener over real sockets, with a handler that says who asked.

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connection::endless;
use super::*;
use crate::auth::fixture::Fixture;
use crate::auth::pki::Identity;
use crate::auth::tokens::{Reference, TokenSpec, Tokens};
use crate::auth::{AllowAll, kubeconfig};
use crate::server::body;

mod unsent;

/// What a stream may send before its client has read it.
const STREAM: u32 = 65_535;

/// Echoes the user; `?watch=1` sends one line and never ends, with `ticks` one again and again; `/unread` reads nothing of what is sent.
struct Echo;

#[async_trait]
impl Handler for Echo {
    async fn handle(&self, request: Request<Body>, user: UserInfo) -> Response<Body> {
        let watch = request.uri().query().is_some_and(endless);
        let ticks = request.uri().query().is_some_and(|query| query.contains("ticks"));
        if request.uri().path() == "/unread" {
            return Response::builder().status(404).body(body::full("not here")).unwrap();
        }
        let read = request.into_body().collect().await.map_or(0, |body| body.to_bytes().len());
        let line = json!({"user": user.name, "groups": user.groups, "read": read}).to_string() + "\n";
        if !watch {
            return Response::new(body::full(line));
        }
        if ticks {
            let tick = tokio_stream::wrappers::IntervalStream::new(interval(Duration::from_millis(50)));
            return Response::new(body::stream(tick.map(move |_| Ok(line.clone().into()))));
        }
        let frame = Ok::<_, body::BoxError>(http_body::Frame::data(line.into()));
        let stream = StreamExt::chain(futures::stream::iter([frame]), futures::stream::pending());
        Response::new(StreamBody::new(stream).boxed_unsync())
    }
}

struct Running {
    listener: Listener,
    pki: Arc<Pki>,
    tokens: Arc<Tokens>,
    fixture: Fixture,
    _dir: tempfile::TempDir,
}

impl Running {
    async fn start() -> Self {
        Self::start_with(IDLE, MAX_CONNECTIONS).await
    }

    async fn start_with(idle: Duration, places: usize) -> Self {
        Self::serve(Arc::new(Echo), idle, places).await
    }

    async fn serve(handler: Arc<dyn Handler>, idle: Duration, places: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let fixture = Fixture::new().await;
        let tokens = Tokens::new(pki.token_key_pem(), fixture.cache.clone()).unwrap();
        let bound = Bound::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let listen = Listen {
            pki: Arc::clone(&pki),
            names: ServerNames::api_server([10, 96, 0, 1].into(), [127, 0, 0, 1].into(), &[]),
            authenticator: Authenticator::new(pki.ca_der(), Arc::clone(&tokens)).unwrap(),
            authorizer: Arc::new(AllowAll),
            handler,
        };
        let listener = Listener::start_with(bound, listen, idle, places).unwrap();
        Self { listener, pki, tokens, fixture, _dir: dir }
    }

    fn url(&self) -> String {
        format!("https://{}", self.listener.address())
    }

    /// A TLS connection without credentials that speaks `protocol`.
    async fn connect(&self, protocol: &[u8]) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.pki.ca_der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.listener.address()).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        stream
    }

    /// An HTTP/2 connection that ends as a task, with the answers' windows of this size.
    async fn http2(&self, ended: &mut JoinSet<()>, window: u32) -> SendRequest<Body> {
        let io = TokioIo::new(self.connect(b"h2").await);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        let (sender, connection) = builder.initial_stream_window_size(window).handshake(io).await.unwrap();
        ended.spawn(async { drop(connection.await) });
        sender
    }

    /// A token of the service account `robot` in `web`.
    async fn token(&self) -> String {
        self.fixture.put("ServiceAccount", "web", "robot", json!({})).await;
        let spec = TokenSpec {
            namespace: "web".to_owned(),
            service_account: Reference { name: "robot".to_owned(), uid: "robot-uid".to_owned() },
            ..TokenSpec::default()
        };
        self.tokens.issue(spec).unwrap().token
    }

    /// A client as `identity`, which may be of another authority than the server's.
    async fn client(&self, identity: &Identity) -> kube::Client {
        let text = kubeconfig::text(&self.url(), "c", "u", self.pki.ca_pem(), identity).unwrap();
        client(serde_yaml::from_str(&text).unwrap()).await
    }

    /// A client with a token, or with nothing.
    async fn token_client(&self, token: &str) -> kube::Client {
        let text = kubeconfig::text(&self.url(), "c", "u", self.pki.ca_pem(), &self.pki.admin_identity().unwrap());
        let mut config: Kubeconfig = serde_yaml::from_str(&text.unwrap()).unwrap();
        config.auth_infos[0].auth_info = Some(serde_json::from_value(json!({"token": token})).unwrap());
        client(config).await
    }
}

fn get(path: &str, token: &str) -> Request<Body> {
    let request = Request::get(format!("https://localhost{path}"));
    let request = if token.is_empty() { request } else { request.header("authorization", format!("Bearer {token}")) };
    request.body(body::empty()).unwrap()
}

async fn client(config: Kubeconfig) -> kube::Client {
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

async fn ask(client: &kube::Client) -> Result<Value, u16> {
    let request = Request::get("/who").body(Vec::new()).unwrap();
    match client.request_text(request).await {
        Ok(text) => Ok(serde_json::from_str(&text).unwrap()),
        Err(kube::Error::Api(status)) => Err(status.code),
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn certificates_tokens_and_strangers_are_told_apart() {
    let running = Running::start().await;
    let node = running.client(&running.pki.node_identity("n1").unwrap()).await;
    assert_eq!(ask(&node).await.unwrap()["user"], "system:node:n1");
    let admin = running.client(&running.pki.admin_identity().unwrap()).await;
    assert_eq!(ask(&admin).await.unwrap()["groups"], json!(["system:masters", "system:authenticated"]));

    let robot = running.token_client(&running.token().await).await;
    assert_eq!(ask(&robot).await.unwrap()["user"], "system:serviceaccount:web:robot");

    assert_eq!(ask(&running.token_client("nonsense").await).await, Err(401));
    let other = tempfile::tempdir().unwrap();
    let forged = Pki::open(other.path()).unwrap().admin_identity().unwrap();
    assert_eq!(ask(&running.client(&forged).await).await, Err(401));
}

#[tokio::test]
async fn http2_and_http1_are_both_spoken_and_no_credentials_are_anonymous() {
    let running = Running::start().await;
    for protocol in [&b"h2"[..], b"http/1.1"] {
        let io = TokioIo::new(running.connect(protocol).await);
        let request =
            Request::get("https://localhost/who").header("host", "localhost").body(body::full("12345")).unwrap();
        let mut tasks = JoinSet::new();
        let response = if protocol == b"h2" {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tasks.spawn(async { drop(connection.await) });
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tasks.spawn(async { drop(connection.await) });
            sender.send_request(request).await.unwrap()
        };
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((value["user"].as_str(), value["read"].as_u64()), (Some("system:anonymous"), Some(5)));
    }
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_and_one_with_a_watch_is_not() {
    let running = Running::start_with(Duration::from_millis(200), MAX_CONNECTIONS).await;
    let token = running.token().await;
    let mut tasks = JoinSet::new();
    let mut open = Vec::new();
    for path in ["/who", "/things?watch=1"] {
        let io = TokioIo::new(running.connect(b"h2").await);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tasks.spawn(async move {
            drop(connection.await);
            path
        });
        open.push((sender.send_request(get(path, &token)).await.unwrap(), sender));
    }
    // One that says nothing at all after its handshake goes too.
    let mut silent = running.connect(b"h2").await;
    let closed = async { while silent.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {} };
    let (answer, _) = open.remove(0);
    answer.into_body().collect().await.unwrap();
    let (first, ()) =
        timeout(Duration::from_secs(20), async { tokio::join!(tasks.join_next(), closed) }).await.unwrap();
    assert_eq!(first.unwrap().unwrap(), "/who");
    assert!(tasks.try_join_next().is_none());
}

#[tokio::test]
async fn whoever_says_nothing_keeps_nobody_out_and_a_known_watch_stays() {
    let running = Running::start_with(IDLE, 2).await;
    let admin = running.client(&running.pki.admin_identity().unwrap()).await;
    let watch = Request::get("/things?watch=1").body(Vec::new()).unwrap();
    let mut watch = admin.request_stream(watch).await.unwrap();
    let mut told = String::new();
    AsyncBufReadExt::read_line(&mut watch, &mut told).await.unwrap();
    // The last place; then nobody gives way but who comes.
    let _silent = TcpStream::connect(running.listener.address()).await.unwrap();
    let other = running.client(&running.pki.node_identity("n1").unwrap()).await;
    let answer = timeout(Duration::from_secs(60), ask(&other)).await.expect("a place for the second user");
    assert_eq!(answer.unwrap()["user"], "system:node:n1");
    assert!(futures::FutureExt::now_or_never(futures::AsyncReadExt::read(&mut watch, &mut [0; 1])).is_none());
}

#[tokio::test]
async fn one_user_does_not_keep_the_others_out() {
    let running = Running::start_with(IDLE, 3).await;
    let token = running.token().await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let robot = running.token_client(&token).await;
        ask(&robot).await.unwrap();
        open.push(robot);
    }
    let admin = running.client(&running.pki.admin_identity().unwrap()).await;
    let answer = timeout(Duration::from_secs(60), ask(&admin)).await.expect("a place for another user");
    assert_eq!(answer.unwrap()["user"], "wherry-admin");
}

#[tokio::test]
async fn an_http2_connection_of_nobody_ends_after_its_answer_and_a_users_stays() {
    let running = Running::start().await;
    let token = running.token().await;
    let mut known = JoinSet::new();
    let mut user = running.http2(&mut known, STREAM).await;
    for wrong in ["", "nonsense"] {
        let mut ended = JoinSet::new();
        let mut nobody = running.http2(&mut ended, STREAM).await;
        let answer = nobody.send_request(get("/who", wrong)).await.unwrap();
        assert_eq!(answer.status(), if wrong.is_empty() { 200 } else { 401 });
        answer.into_body().collect().await.unwrap();
        timeout(Duration::from_secs(20), ended.join_next()).await.expect("it ends, though its client does not end it");
        assert_eq!(user.send_request(get("/who", &token)).await.unwrap().status(), 200);
    }
    assert!(known.try_join_next().is_none());
}

#[tokio::test]
async fn answers_to_nobody_that_nobody_reads_are_few_and_go_with_their_connection() {
    let running = Running::start_with(Duration::from_secs(2), MAX_CONNECTIONS).await;
    let mut ended = JoinSet::new();
    let nobody = running.http2(&mut ended, 0).await;
    let asked = (0..40).map(|_| {
        let mut nobody = nobody.clone();
        async move { nobody.send_request(get("/who", "")).await }
    });
    let answers = futures::future::join_all(asked).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 16);
    timeout(Duration::from_secs(20), ended.join_next()).await.expect("nobody waits for their client");
}

#[tokio::test]
async fn a_watch_of_nobody_that_is_read_goes_on_and_ends_when_it_is_not() {
    let running = Running::start_with(Duration::from_millis(500), MAX_CONNECTIONS).await;
    let mut ended = JoinSet::new();
    let mut nobody = running.http2(&mut ended, STREAM).await;
    let mut watch = nobody.send_request(get("/things?ticks=1&watch=1", "")).await.unwrap().into_body();
    // As long as six looks take.
    for _ in 0..60 {
        watch.frame().await.expect("it goes on").expect("it goes on");
    }
    let mut gone = JoinSet::new();
    let mut other = running.http2(&mut gone, 0).await;
    let _unread = other.send_request(get("/things?ticks=1&watch=1", "")).await.unwrap();
    timeout(Duration::from_secs(20), gone.join_next()).await.expect("nobody waits for their client");
    watch.frame().await.expect("it still goes on").expect("it still goes on");
}

#[tokio::test]
async fn who_sends_what_nobody_reads_is_answered_all_the_same() {
    let running = Running::start().await;
    let mut stream = running.connect(b"http/1.1").await;
    // More than lies between the two.
    let body = vec![b' '; 16 << 20];
    let head = format!(
        "POST /unread HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("not here"), "{answer}");
}

#[test]
fn a_stream_is_endless_however_its_flag_is_written() {
    for asked in ["watch", "watch=1", "watch=t", "a=b&follow=TRUE"] {
        assert!(endless(asked), "{asked}");
    }
    for other in ["", "watch=0", "follow=false", "watch=maybe", "nowatch=1"] {
        assert!(!endless(other), "{other}");
    }
}

#[tokio::test]
async fn plain_http_is_answered_with_a_hint() {
    let running = Running::start().await;
    let mut stream = TcpStream::connect(running.listener.address()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n");
}

#[tokio::test]
async fn a_taken_port_names_the_address_and_the_flag() {
    let running = Running::start().await;
    let address = running.listener.address();
    let error = Bound::bind(address).await.unwrap_err().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("--listen"), "{error}");
}

#[tokio::test]
async fn a_shutdown_ends_watches_cleanly_and_at_once() {
    let running = Running::start().await;
    let client = running.client(&running.pki.admin_identity().unwrap()).await;
    let request = Request::get("/things?watch=1").body(Vec::new()).unwrap();
    let watch = client.request_stream(request).await.unwrap();
    let mut lines = watch.lines();
    assert!(lines.next().await.unwrap().unwrap().contains("wherry-admin"));
    // A drain that never ends by itself: that of the watch ends it.
    let ends = async { tokio::join!(lines.try_collect::<Vec<_>>(), running.listener.shutdown(Duration::MAX)) };
    let (rest, ()) = timeout(Duration::from_secs(20), ends).await.expect("nobody waits for who watches");
    assert_eq!(rest.unwrap(), Vec::<String>::new());
}
