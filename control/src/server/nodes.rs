//! Requests to a node's own server, at the address that its Node object says, over TLS with the server's certificate.
//!
//! Each has a connection as long as its answer goes on, of which a node takes so many: none of its users can have them all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
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
use super::body::{Body, BoxError, crowded};
use super::error::ServerError;
use super::listen::owner;

/// How long a node may take to accept a connection and to begin its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers of one node that are under way at once: it takes 1,024 connections, and others ask it, too.
const OF_NODE: usize = 896;

/// Who asks which node.
#[derive(Clone, Debug, Default)]
pub(super) struct Asking(Arc<Mutex<HashMap<String, Users>>>);

/// How many answers each user awaits of a node.
type Users = HashMap<String, usize>;

/// One answer that is under way.
struct Place {
    asking: Asking,
    node: String,
    user: String,
}

impl Asking {
    /// `None`: the user has as many as all others have left together. So there is always one for who has none.
    fn place(&self, node: &str, user: &str) -> Option<Place> {
        let (node, user) = (node.to_owned(), owner(user).to_owned());
        let mut asking = self.0.lock();
        let users = asking.entry(node.clone()).or_default();
        let left = OF_NODE.saturating_sub(users.values().sum());
        let own = users.get(&user).copied().unwrap_or_default();
        if own >= left {
            return None;
        }
        users.insert(user.clone(), own + 1);
        drop(asking);
        Some(Place { asking: self.clone(), node, user })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut asking = self.asking.0.lock();
        let Some(users) = asking.get_mut(&self.node) else { return };
        if let Some(own) = users.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                users.remove(&self.user);
            }
        }
        if users.is_empty() {
            asking.remove(&self.node);
        }
    }
}

/// GETs a path from a node for a user. The answer's body is streamed; its connection ends with it. Errors: 429 if the user has
/// too many answers of the node under way.
pub(crate) async fn get(server: &Server, user: &str, node: &str, path: &str) -> Result<Response<Body>, ServerError> {
    let (host, port) = address(server, node)?;
    let place = server.asking().place(node, user).ok_or_else(crowded)?;
    let Some(tls) = server.node_tls() else {
        return Err(ApiError::unavailable("this server has no certificate for requests to nodes").into());
    };
    match timeout(PATIENCE, exchange(tls, &host, port, path, place)).await {
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
    place: Place,
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
                let _ = (&task, &place);
                frame
            })
            .boxed_unsync()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_many_logs_of_a_node_leaves_some_to_everybody_else() {
        let asking = Asking::default();
        let all = |user: &str| std::iter::from_fn(|| asking.place("n", user)).collect::<Vec<_>>();
        let greedy = all("system:serviceaccount:evil:a");
        assert_eq!(greedy.len(), OF_NODE / 2);
        assert!(asking.place("n", "system:serviceaccount:evil:b").is_none(), "a namespace's accounts are one user");
        let others: Vec<Place> = (0..5).flat_map(|n| all(&format!("user{n}"))).collect();
        assert!(
            asking.place("n", "somebody").is_some() && asking.place("other", "system:serviceaccount:evil:a").is_some()
        );
        drop((greedy, others));
        assert!(asking.0.lock().is_empty());
    }
}
