//! Raw requests to the API server as any user, with nothing between the test and the answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncBufReadExt, StreamExt};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;

use super::PATIENCE;

/// A client of one server.
#[derive(Clone)]
pub struct Api {
    runtime: Arc<tokio::runtime::Runtime>,
    pub client: kube::Client,
    headers: Vec<(String, String)>,
    accept: String,
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body of a request that must have succeeded.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{}: {}", self.status, self.text());
        self.json()
    }

    /// The message of a Status with this code and reason.
    #[track_caller]
    pub fn refused(&self, code: u16, reason: &str) -> String {
        let status = self.json();
        assert_eq!(self.status, code, "{}", self.text());
        assert_eq!(status["kind"], "Status", "{}", self.text());
        assert_eq!(status["status"], "Failure", "{}", self.text());
        assert_eq!(
            (status["code"].as_u64(), status["reason"].as_str()),
            (Some(code.into()), Some(reason)),
            "{}",
            self.text()
        );
        status["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl Api {
    /// As a kubeconfig says; `change` may make another user of it.
    pub fn new(kubeconfig: &str, change: impl FnOnce(&mut Kubeconfig)) -> Self {
        let mut config: Kubeconfig = serde_yaml::from_str(kubeconfig).unwrap();
        change(&mut config);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let mut config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
            config.connect_timeout = Some(Duration::from_secs(5));
            // The first answer is the one that a test wants to see.
            config.default_retry = false;
            kube::Client::try_from(config).unwrap()
        });
        Self { runtime: Arc::new(runtime), client, headers: Vec::new(), accept: "application/json".to_owned() }
    }

    /// The same client acting as somebody else.
    #[must_use]
    pub fn acting_as(&self, user: &str, groups: &[&str]) -> Self {
        let mut other = self.clone();
        other.headers.push(("impersonate-user".into(), user.into()));
        other.headers.extend(groups.iter().map(|group| ("impersonate-group".into(), (*group).to_owned())));
        other
    }

    /// The same client asking for another representation.
    #[must_use]
    pub fn with_accept(&self, accept: &str) -> Self {
        Self { accept: accept.to_owned(), ..self.clone() }
    }

    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Sends a request and reads the whole answer.
    pub async fn ask(&self, method: &str, path: &str, kind: &str, body: Vec<u8>) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(path).header("accept", &self.accept);
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let exchange = async {
            let request = request.body(Body::from(body)).map_err(|e| e.to_string())?;
            let (parts, body) = self.client.send(request).await.map_err(|e| format!("{e:?}"))?.into_parts();
            let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
            Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| format!("{method} {path}: no answer"))?
    }

    #[track_caller]
    pub fn send(&self, method: &str, path: &str, kind: &str, body: impl Into<Vec<u8>>) -> Answer {
        match self.block_on(self.ask(method, path, kind, body.into())) {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", Vec::new())
    }

    #[track_caller]
    pub fn post(&self, path: &str, object: &Value) -> Answer {
        self.send("POST", path, "application/json", object.to_string())
    }

    #[track_caller]
    pub fn put(&self, path: &str, object: &Value) -> Answer {
        self.send("PUT", path, "application/json", object.to_string())
    }

    /// `kind` is `merge`, `json` or `strategic-merge`.
    #[track_caller]
    pub fn patch(&self, path: &str, kind: &str, patch: &Value) -> Answer {
        self.send("PATCH", path, &format!("application/{kind}-patch+json"), patch.to_string())
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, "", Vec::new())
    }

    /// The events of a watch until the stream ends.
    #[track_caller]
    pub fn watch(&self, path: &str) -> Vec<Value> {
        let request = Request::get(path).body(Vec::new()).unwrap();
        self.block_on(async {
            let read = async {
                let lines = self.client.request_stream(request).await.unwrap().lines();
                lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect::<Vec<Value>>().await
            };
            tokio::time::timeout(PATIENCE, read).await.expect("the watch does not end")
        })
    }

    /// What `/metrics` says of one name, all its series added.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = self.get("/metrics").text();
        let values =
            text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        let values: Vec<f64> = values.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// Asks many things at once, at most `at_once`; answers come as they come.
    pub fn many<T, F>(&self, at_once: usize, work: impl IntoIterator<Item = F>) -> Vec<T>
    where
        F: Future<Output = T>,
    {
        self.block_on(futures::stream::iter(work).buffer_unordered(at_once).collect())
    }
}
