//! A server of webhooks as an operator runs it: TLS with a certificate of its own authority, answers that a test gives.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Answering = dyn Fn(&str, &Value) -> Value + Send + Sync;

/// The server. It ends when this is dropped.
pub struct Webhooks {
    pub address: SocketAddr,
    /// For `caBundle`.
    pub bundle: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Webhooks {
    /// Listens on a port of `host` and answers reviews: the answer (`response`) depends on the path and on the review's
    /// `request`, whose `uid` it gets. The certificate is for `host` and for `names`.
    pub fn start(host: &str, names: &[&str], answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> Self {
        let (config, root) = identity(std::iter::once(host).chain(names.iter().copied()), |_| ());
        let bundle = STANDARD.encode(root);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind((host, 0))).unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::default());
        let (answer, log): (Arc<Answering>, _) = (Arc::new(answer), Arc::clone(&asked));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        // Ends with the runtime.
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, log) = (acceptor.clone(), Arc::clone(&answer), Arc::clone(&log));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request| respond(request, Arc::clone(&answer), Arc::clone(&log)));
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, bundle, asked, _runtime: runtime }
    }

    /// A `clientConfig` for a path, by URL.
    pub fn at(&self, path: &str) -> Value {
        serde_json::json!({"url": format!("https://{}/{path}", self.address), "caBundle": self.bundle})
    }

    /// The requests of the reviews that a path was asked since the last time.
    pub fn asked(&self, path: &str) -> Vec<Value> {
        let mut asked = self.asked.lock().unwrap();
        let (of_path, others) = std::mem::take(&mut *asked).into_iter().partition(|(to, _)| to == path);
        *asked = others;
        let of_path: Vec<(String, Value)> = of_path;
        of_path.into_iter().map(|(_, request)| request).collect()
    }
}

async fn respond(
    request: Request<Incoming>,
    answer: Arc<Answering>,
    log: Arc<Mutex<Vec<(String, Value)>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let review: Value = serde_json::from_slice(&request.into_body().collect().await?.to_bytes()).unwrap();
    log.lock().unwrap().push((path.clone(), review["request"].clone()));
    let mut response = answer(&path, &review["request"]);
    response["uid"] = review["request"]["uid"].clone();
    let said = serde_json::json!({"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response});
    Ok(Response::new(said.to_string().into()))
}

/// A server's configuration with a certificate for these names, of which `change` changes what it likes, and the authority that
/// signed it, in PEM.
pub fn identity<'a>(
    names: impl Iterator<Item = &'a str>,
    change: impl FnOnce(&mut CertificateParams),
) -> (rustls::ServerConfig, String) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(names.map(str::to_owned).collect::<Vec<_>>()).unwrap();
    change(&mut leaf);
    let leaf = leaf.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(leaf.pem().as_bytes()).unwrap()];
    let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .unwrap();
    (config, root.pem())
}
