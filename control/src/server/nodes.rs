//! Requests to a node's own server, at the address that its Node object says, over TLS with the server's certificate.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use wherry_api::object;
use wherry_api::resource::GroupResource;
use wherry_api::status::ApiError;

use super::Server;
use super::answer;
use super::body::{Body, BoxError};
use super::error::ServerError;

/// How long a node may take to accept a connection and to begin its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// GETs a path from a node. The answer's body is streamed; its connection ends with it.
pub(crate) async fn get(server: &Server, node: &str, path: &str) -> Result<Response<Body>, ServerError> {
    let (host, port) = address(server, node)?;
    let Some(tls) = server.node_tls() else {
        return Err(ApiError::unavailable("this server has no certificate for requests to nodes").into());
    };
    match timeout(PATIENCE, exchange(tls, &host, port, path)).await {
        Ok(answer) => answer.map_err(ServerError::Node),
        Err(_) => Err(ServerError::Node(format!("node {node} at {host}:{port} did not answer in time").into())),
    }
}

fn address(server: &Server, node: &str) -> Result<(String, u16), ServerError> {
    let nodes = GroupResource::new("", "nodes");
    let entry = server.cache().get(&nodes, "", node).ok_or_else(|| ApiError::missing(&nodes, node))?;
    let tree = answer::parse(&entry.bytes)?;
    let addresses = tree.pointer("/status/addresses").and_then(Value::as_array);
    let of_type = |kind: &str| {
        let found = addresses.into_iter().flatten().find(|a| object::text_at(a, "type") == kind);
        found.map(|a| object::text_at(a, "address")).filter(|a| !a.is_empty())
    };
    let host = ["InternalIP", "ExternalIP", "Hostname"].into_iter().find_map(of_type);
    let port = tree.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    match (host, port.and_then(|p| u16::try_from(p).ok())) {
        (Some(host), Some(port)) => Ok((host, port)),
        _ => Err(ServerError::Node(format!("node {node} has no address yet").into())),
    }
}

async fn exchange(
    tls: &Arc<rustls::ClientConfig>,
    host: &str,
    port: u16,
    path: &str,
) -> Result<Response<Body>, BoxError> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(ServerName::try_from(host.to_owned())?, stream).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let task = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::get(path).header(HOST, format!("{host}:{port}")).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    Ok(answer.map(|body| {
        // The connection lives as long as the body that it carries.
        body.map_err(|error| Box::new(error) as BoxError)
            .map_frame(move |frame| {
                let _ = &task;
                frame
            })
            .boxed_unsync()
    }))
}
