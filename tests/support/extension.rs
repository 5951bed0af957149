//! An API server that extends the tested one: `wardle.example.com/v1alpha1` with the kind Flunder, in memory.
//!
//! It believes what the tested server says of users because of that server's certificate, as the ConfigMap
//! `extension-apiserver-authentication` tells, and serves nobody else.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// Endpoints may not be in 127.0.0.0/16, and clusters do not use the last networks of 127.0.0.0/8.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 255, 0, 7);
pub const GROUP: &str = "wardle.example.com";
const ROOT: &str = "/apis/wardle.example.com/v1alpha1";
const SCHEMA: &str = "com.example.wardle.v1alpha1.Flunder";

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What happened, in order.
#[derive(Clone, Debug)]
struct Event {
    kind: &'static str,
    object: Value,
}

#[derive(Debug, Default)]
struct State {
    objects: Vec<Value>,
    events: Vec<Event>,
    /// `USER GROUP,GROUP` of each request.
    users: Vec<String>,
}

#[derive(Debug)]
struct Wardle {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

/// The running server; dropped, it does not answer any more.
#[derive(Debug)]
pub struct Extension {
    pub port: u16,
    /// Its certificate as a `caBundle`.
    pub bundle: String,
    wardle: Arc<Wardle>,
    runtime: Option<Runtime>,
}

impl Extension {
    /// Serves as `NAME.NAMESPACE.svc` whoever has a certificate of this authority (PEM).
    pub fn start(name: &str, authority: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
        let chain = vec![CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind((ADDRESS, 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let wardle = Arc::new(Wardle { state: Mutex::default(), changed: watch::Sender::new(()) });
        runtime.spawn(accept(listener, acceptor, Arc::clone(&wardle)));
        Self { port, bundle: STANDARD.encode(made.cert.pem()), wardle, runtime: Some(runtime) }
    }

    /// The users of requests so far, each with its groups.
    pub fn users(&self) -> Vec<String> {
        self.wardle.state.lock().unwrap().users.clone()
    }

    /// `NAMESPACE/NAME` of each object.
    pub fn objects(&self) -> Vec<String> {
        let state = self.wardle.state.lock().unwrap();
        state.objects.iter().map(|o| format!("{}/{}", text(o, "namespace"), text(o, "name"))).collect()
    }
}

impl Drop for Extension {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, wardle: Arc<Wardle>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, wardle) = (acceptor.clone(), Arc::clone(&wardle));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| serve(request, Arc::clone(&wardle)));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn whole(code: u16, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

fn refusal(code: u16, reason: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
        "message": format!("the extension server says {reason}"), "code": code});
    whole(code, &status)
}

async fn serve(request: Request<Incoming>, wardle: Arc<Wardle>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let Some(user) = user(&parts.headers) else { return Ok(refusal(401, "Unauthorized")) };
    let path = parts.uri.path().to_owned();
    if let Some(document) = document(&path) {
        return Ok(whole(200, &document));
    }
    wardle.state.lock().unwrap().users.push(user);
    let Some(rest) = path.strip_prefix(ROOT) else { return Ok(refusal(404, "NotFound")) };
    let rest: Vec<&str> = rest.split('/').skip(1).collect();
    let (namespace, name) = match rest.as_slice() {
        ["flunders"] => ("", ""),
        ["namespaces", namespace, "flunders"] => (*namespace, ""),
        ["namespaces", namespace, "flunders", name] => (*namespace, *name),
        _ => return Ok(refusal(404, "NotFound")),
    };
    let query = parts.uri.query().unwrap_or_default();
    let watches = query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"));
    Ok(match (parts.method, name) {
        (Method::GET, "") if watches => wardle.watch(namespace, query),
        (Method::GET, "") => whole(200, &wardle.list(namespace)),
        (Method::GET, name) => match wardle.find(namespace, name) {
            Some(object) => whole(200, &object),
            None => refusal(404, "NotFound"),
        },
        (Method::POST, "") => {
            let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            whole(201, &wardle.create(namespace, serde_json::from_slice(&bytes).unwrap()))
        }
        (Method::DELETE, name) => whole(200, &wardle.delete(namespace, name)),
        _ => refusal(405, "MethodNotAllowed"),
    })
}

fn user(headers: &HeaderMap) -> Option<String> {
    let all = |name: &str| -> Vec<&str> { headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect() };
    let user = all("x-remote-user");
    (user.len() == 1).then(|| format!("{} {}", user[0], all("x-remote-group").join(",")))
}

impl Wardle {
    fn happen(&self, change: impl FnOnce(&mut State) -> Vec<Event>) {
        let mut state = self.state.lock().unwrap();
        let events = change(&mut state);
        state.events.extend(events);
        drop(state);
        self.changed.send_replace(());
    }

    fn create(&self, namespace: &str, mut object: Value) -> Value {
        self.happen(|state| {
            let number = state.events.len() + 1;
            object["metadata"]["namespace"] = json!(namespace);
            object["metadata"]["uid"] = json!(format!("flunder-{number}"));
            object["metadata"]["resourceVersion"] = json!(number.to_string());
            object["metadata"]["creationTimestamp"] = json!("2030-01-01T00:00:00Z");
            state.objects.push(object.clone());
            vec![Event { kind: "ADDED", object: object.clone() }]
        });
        object
    }

    fn delete(&self, namespace: &str, name: &str) -> Value {
        let goes = |o: &Value| text(o, "namespace") == namespace && (name.is_empty() || text(o, "name") == name);
        self.happen(|state| {
            let (gone, kept) = std::mem::take(&mut state.objects).into_iter().partition(|object| goes(object));
            state.objects = kept;
            let gone: Vec<Value> = gone;
            gone.into_iter().map(|object| Event { kind: "DELETED", object }).collect()
        });
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
    }

    fn find(&self, namespace: &str, name: &str) -> Option<Value> {
        let state = self.state.lock().unwrap();
        state.objects.iter().find(|o| text(o, "namespace") == namespace && text(o, "name") == name).cloned()
    }

    fn list(&self, namespace: &str) -> Value {
        let state = self.state.lock().unwrap();
        let within = |object: &&Value| namespace.is_empty() || text(object, "namespace") == namespace;
        let items: Vec<&Value> = state.objects.iter().filter(within).collect();
        json!({"kind": "FlunderList", "apiVersion": format!("{GROUP}/v1alpha1"), "items": items,
            "metadata": {"resourceVersion": state.events.len().to_string()}})
    }

    fn watch(self: &Arc<Self>, namespace: &str, query: &str) -> Response<Body> {
        let after = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")?.parse().ok());
        let lines = self.events(namespace.to_owned(), after.unwrap_or(0)).map(|event| {
            let line = json!({"type": event.kind, "object": event.object}).to_string() + "\n";
            Ok::<_, Infallible>(Frame::data(Bytes::from(line)))
        });
        Response::builder()
            .header("content-type", "application/json")
            .body(StreamBody::new(lines).boxed_unsync())
            .unwrap()
    }

    fn events(self: &Arc<Self>, namespace: String, after: usize) -> impl Stream<Item = Event> + Send + use<> {
        let (wardle, changes) = (Arc::clone(self), self.changed.subscribe());
        stream::unfold((wardle, changes, after), move |(wardle, mut changes, at)| {
            let namespace = namespace.clone();
            async move {
                let mut at = at;
                loop {
                    changes.mark_unchanged();
                    let next = wardle.state.lock().unwrap().events.get(at).cloned();
                    match next {
                        Some(event) => {
                            at += 1;
                            if namespace.is_empty() || text(&event.object, "namespace") == namespace {
                                return Some((event, (wardle, changes, at)));
                            }
                        }
                        None => changes.changed().await.ok()?,
                    }
                }
            }
        })
    }
}

/// The documents in which it describes itself.
fn document(path: &str) -> Option<Value> {
    let gvk = json!([{"group": GROUP, "version": "v1alpha1", "kind": "Flunder"}]);
    let reference = json!({"$ref": format!("#/components/schemas/{SCHEMA}")});
    match path {
        ROOT => {
            Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/v1alpha1"),
            "resources": [{"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                "verbs": ["create", "delete", "deletecollection", "get", "list", "watch"], "shortNames": ["fl"]}]}))
        }
        "/openapi/v3" => Some(json!({"paths": {ROOT.trim_start_matches('/'):
            {"serverRelativeURL": format!("/openapi/v3{ROOT}?hash=1")}}})),
        _ if path == format!("/openapi/v3{ROOT}") => Some(json!({
            "openapi": "3.0.0", "info": {"title": "Wardle", "version": "v1"},
            "paths": {format!("{ROOT}/namespaces/{{namespace}}/flunders"): {"post": {
                "operationId": "createFlunder", "x-kubernetes-action": "post", "x-kubernetes-group-version-kind": gvk[0],
                "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
                "requestBody": {"content": {"application/json": {"schema": reference}}},
                "responses": {"201": {"description": "Created", "content": {"application/json": {"schema": reference}}}}}}},
            "components": {"schemas": {SCHEMA: {"type": "object", "description": "A fish that lies.",
                "x-kubernetes-group-version-kind": gvk, "properties": {
                    "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
                    "spec": {"type": "object", "description": "What is wanted of it.", "properties": {
                        "depth": {"type": "integer", "description": "How deep it lies."}}}}}}}})),
        _ => None,
    }
}
