//! The node API's answers, and who gets them.

use std::net::Ipv4Addr;

use futures::StreamExt;
use kube::runtime::watcher::Event;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::backend::Stream;
use crate::pod::testing::{World, eventually, pod};

async fn get(api: &NodeApi, path: &str) -> (u16, String) {
    let response = api.handle(&Request::get(path).body(()).unwrap());
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(body.to_vec()).unwrap())
}

/// A node with one pod, `web`, whose container was started twice and is running.
async fn node(world: &World) -> NodeApi {
    let manager = Manager::new(world.ctx.clone());
    let source = futures::stream::iter([Event::Apply(pod("web", "Always", |_| {}))]);
    manager.clone().run(source.boxed()).await;
    for attempt in 0..2 {
        let newest = || world.backend.container("web").filter(|container| container.config.attempt == attempt);
        eventually("started", || newest().is_some()).await;
        let container = newest().unwrap();
        container.config.log.write(Stream::Stdout, format!("attempt {attempt}\n").into()).await;
        if attempt == 0 {
            container.end(1);
        }
    }
    let shared = manager.find("default", "web").unwrap();
    eventually("running", || shared.instance("a").is_some_and(|of| of.newest == Some(1))).await;
    NodeApi::new("n1", manager)
}

#[tokio::test]
async fn logs_of_this_and_the_previous_instance_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(dir.path());
    let api = node(&world).await;
    let path = "/containerLogs/default/web/a";
    assert_eq!(get(&api, &format!("{path}?previous=true")).await, (200, "attempt 0\n".to_owned()));
    let file = world.ctx.logs.pod_dir(&pod("web", "Always", |_| {})).join("a/1.log");
    eventually("written", || std::fs::metadata(&file).is_ok_and(|file| file.len() > 0)).await;
    assert_eq!(get(&api, &format!("{path}?tailLines=1")).await, (200, "attempt 1\n".to_owned()));
    for (path, code, message) in [
        ("/containerLogs/default/none/a", 404, "pod \"none\" not found"),
        ("/containerLogs/default/web/none", 404, "container \"none\" not found in pod \"web_default\""),
        ("/containerLogs/default/web/a?tailLines=x", 400, "invalid tailLines"),
        ("/exec", 404, "404"),
        ("/healthz", 200, "ok"),
    ] {
        let (got, text) = get(&api, path).await;
        assert_eq!(got, code, "{path}");
        assert!(text.contains(message), "{path}: {text}");
    }
}

#[tokio::test]
async fn statistics_and_metrics_name_what_runs() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(dir.path());
    let api = node(&world).await;
    let (_, summary) = get(&api, "/stats/summary").await;
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["pods"][0]["podRef"]["name"], "web");
    assert_eq!(summary["pods"][0]["containers"][0]["name"], "a");
    assert!(get(&api, "/metrics").await.1.contains("wherry_node_containers_running 1"));
    assert!(get(&api, "/pods").await.1.contains("\"uid-web\""));
}

/// An authority and what it signed.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, group: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, group);
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// The status line of an answer to a client with this certificate, if it gets one.
    async fn ask(&self, address: SocketAddr, client: Option<(String, String)>) -> Option<String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let config = match client {
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        let stream = TcpStream::connect(address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.ok()?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        String::from_utf8_lossy(&answer).lines().next().map(str::to_owned)
    }
}

#[tokio::test]
async fn only_masters_of_this_authority_get_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(dir.path());
    let (ours, other) = (Authority::new(), Authority::new());
    let (certificate, key) = ours.issue("system:nodes");
    let tls = NodeTls { certificate, key, client_ca: ours.0.pem() };
    let api = NodeApi::new("n1", Manager::new(world.ctx.clone()));
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), &tls, api).await.unwrap();
    let address = listener.address().unwrap();
    let stop = CancellationToken::new();
    let served = tokio::spawn(listener.run(stop.clone()));
    let ok = Some("HTTP/1.1 200 OK".to_owned());
    assert_eq!(ours.ask(address, Some(ours.issue("system:masters"))).await, ok);
    let forbidden = Some("HTTP/1.1 403 Forbidden".to_owned());
    assert_eq!(ours.ask(address, Some(ours.issue("system:nodes"))).await, forbidden);
    assert_eq!(ours.ask(address, Some(other.issue("system:masters"))).await, None);
    assert_eq!(ours.ask(address, None).await, None);
    stop.cancel();
    served.await.unwrap();
}
