//! The client against a real TLS server, behind a real Service in the store.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::store::redb::RedbStore;
use crate::store::{Encoded, Key, Op, Store, Txn};

/// A server that says what it was sent; it shows a self-signed certificate for these names.
pub(crate) struct Echo {
    pub(crate) port: u16,
    /// Its certificate as a `caBundle`.
    pub(crate) bundle: String,
    _task: AbortOnDropHandle<()>,
}

impl Echo {
    pub(crate) async fn start(names: &[&str]) -> Self {
        Self::serving(names, Ipv4Addr::LOCALHOST, |request| Box::pin(echo(request))).await
    }

    /// A conversion webhook that notes in `spec.name` what it was asked for.
    pub(crate) async fn converting(name: &str) -> Self {
        Self::serving(&[name], Ipv4Addr::LOCALHOST, |request| Box::pin(convert(request))).await
    }

    /// Answers each path with a document.
    pub(crate) async fn answering(names: &[&str], document: impl Fn(&str) -> Value + Send + Sync + 'static) -> Self {
        Self::serving(names, Ipv4Addr::LOCALHOST, move |request| {
            let said = document(request.uri().path()).to_string();
            Box::pin(async move { Ok(Response::new(body::full(said))) })
        })
        .await
    }

    pub(crate) async fn serving(
        names: &[&str],
        address: Ipv4Addr,
        serve: impl Fn(Request<Incoming>) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
    ) -> Self {
        let serve = Arc::new(serve);
        let made = rcgen::generate_simple_self_signed(names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>()).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, serve) = (acceptor.clone(), Arc::clone(&serve));
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| serve(request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { port, bundle: STANDARD.encode(certificate), _task: AbortOnDropHandle::new(task) }
    }
}

pub(crate) type Answer = Result<Response<Body>, std::convert::Infallible>;

async fn convert(request: Request<Incoming>) -> Answer {
    let bytes = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let review: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let to = &review["request"]["desiredAPIVersion"];
    let objects = review["request"]["objects"].as_array().cloned().unwrap_or_default().into_iter().map(|mut object| {
        let name = object["spec"]["name"].as_str().unwrap_or_default().to_owned();
        object["spec"]["name"] = json!(format!("{name} to {}", to.as_str().unwrap_or_default()));
        object["apiVersion"] = to.clone();
        object
    });
    let response = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": {
        "uid": review["request"]["uid"], "result": {"status": "Success"}, "convertedObjects": objects.collect::<Vec<_>>()}});
    Ok(Response::new(body::full(response.to_string())))
}

async fn echo(request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let text = body.collect().await.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
    let host = parts.headers.get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    if parts.uri.path() == "/slow" {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let said = json!({"method": parts.method.as_str(), "uri": parts.uri.to_string(), "host": host, "body": text});
    Ok(Response::new(body::full(said.to_string())))
}

/// A store with its cache.
struct Cluster {
    store: Arc<dyn Store>,
    outbound: Outbound,
    cache: Cache,
}

impl Cluster {
    async fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(RedbStore::in_memory().unwrap());
        let registry = Registry::builtin();
        let cache = Cache::start(Arc::clone(&store), &registry).await.unwrap();
        Self { store, outbound: Outbound::new(cache.clone(), &registry, None), cache }
    }

    /// Stores an object under its key.
    async fn put(&self, key: &str, object: Value) {
        let (bytes, splice) = wherry_api::object::encode(&object);
        let op = Op::Put { key: Key::from_stored(key), value: Encoded { bytes, splice } };
        let committed = self.store.commit(Txn { ops: vec![op], ..Txn::default() }).await.unwrap();
        self.cache.reached(committed.revision).await;
    }
}

#[tokio::test]
async fn a_webhook_behind_a_service_is_asked_by_its_name() {
    let server = Echo::start(&["hook.web.svc"]).await;
    let cluster = Cluster::new().await;
    let outbound = &cluster.outbound;
    let config = json!({"service": {"namespace": "web", "name": "hook", "path": "/convert", "port": 443}, "caBundle": server.bundle});
    let config = ClientConfig::parse(&config).unwrap();
    let ask = || outbound.post(&config, "timeout=1s", "{}".into(), Duration::from_secs(5));
    let missing = ask().await.unwrap_err().to_string();
    assert_eq!(missing, "Post \"https://hook.web.svc:443/convert?timeout=1s\": service \"hook\" not found");
    cluster
        .put("core/services/web/hook", json!({"spec": {"ports": [{"name": "tls", "port": 443, "targetPort": 1}]}}))
        .await;
    assert!(ask().await.unwrap_err().to_string().ends_with("no endpoints available for service \"hook\""));
    let labels = json!({"kubernetes.io/service-name": "hook"});
    let slice = json!({"metadata": {"labels": labels}, "ports": [{"name": "tls", "port": server.port}],
        "endpoints": [{"addresses": ["127.0.0.9"], "conditions": {"ready": false}},
            {"addresses": ["127.0.0.1"], "conditions": {"ready": true}}]});
    cluster.put("discovery.k8s.io/endpointslices/web/hook-1", slice).await;
    for _ in 0..2 {
        let said = ask().await.unwrap();
        assert_eq!(
            said.json().unwrap(),
            json!({"method": "POST", "uri": "/convert?timeout=1s", "host": "hook.web.svc:443", "body": "{}"})
        );
    }
}

#[tokio::test]
async fn a_server_without_a_trusted_certificate_is_not_asked() {
    let (server, other) = (Echo::start(&["127.0.0.1"]).await, Echo::start(&["127.0.0.1"]).await);
    let outbound = Cluster::new().await.outbound;
    let url = format!("https://127.0.0.1:{}/x", server.port);
    let ask = |bundle: String, url: String| {
        let config = ClientConfig::parse(&json!({"url": url, "caBundle": bundle})).unwrap();
        let outbound = outbound.clone();
        async move { outbound.post(&config, "", Bytes::new(), Duration::from_secs(5)).await }
    };
    assert_eq!(ask(server.bundle.clone(), url.clone()).await.unwrap().status, 200);
    let refused = ask(other.bundle.clone(), url.clone()).await.unwrap_err().to_string();
    assert!(refused.starts_with(&format!("Post {url:?}: ")) && refused.contains("certificate"), "{refused}");
    let renamed = Echo::start(&["elsewhere.example"]).await;
    let refused = ask(renamed.bundle.clone(), format!("https://127.0.0.1:{}/x", renamed.port)).await.unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
}

#[tokio::test]
async fn where_nobody_listens_is_said_as_go_says_it() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let outbound = Cluster::new().await.outbound;
    let config = ClientConfig::parse(&json!({"url": format!("https://{address}/x")})).unwrap();
    let error = outbound.post(&config, "", Bytes::new(), Duration::from_secs(5)).await.unwrap_err().to_string();
    assert!(error.ends_with(&format!("dial tcp {address}: connect: connection refused")), "{error}");
}

#[tokio::test]
async fn a_server_that_takes_too_long_is_given_up() {
    let server = Echo::start(&["127.0.0.1"]).await;
    let outbound = Cluster::new().await.outbound;
    let url = format!("https://127.0.0.1:{}/slow", server.port);
    let config = ClientConfig::parse(&json!({"url": url, "caBundle": server.bundle})).unwrap();
    let error = outbound.post(&config, "", Bytes::new(), Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.to_string(), format!("Post {url:?}: context deadline exceeded"));
}

#[test]
fn a_configuration_that_names_no_server_is_refused() {
    for (config, why) in [
        (json!({}), "either service or URL"),
        (json!({"url": "http://plain.example"}), "https"),
        (json!({"url": "https://a.example", "caBundle": "?"}), "base64"),
    ] {
        let error = ClientConfig::parse(&config).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
