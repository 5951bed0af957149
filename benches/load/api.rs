//! Load on an API server: creates, gets, patches and lists of ConfigMaps, which every API server stores and none interprets.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use http::Method;
use serde_json::{Value, json};

use super::client::Target;
use super::report::Seen;

/// Who asks what, before how often.
pub(crate) struct Load {
    pub(crate) target: Target,
    pub(crate) clients: usize,
    pub(crate) namespace: String,
    pub(crate) prefix: String,
}

impl Load {
    pub(super) fn collection(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.namespace)
    }

    /// Lets every client ask in a loop until `next` says that there is nothing left to ask. Connections are made before
    /// the time starts.
    async fn run(&self, next: impl Fn() -> Option<(Method, String, Bytes)>) -> anyhow::Result<Value> {
        let connections = try_join_all((0..self.clients).map(|_| self.target.connect())).await?;
        let began = Instant::now();
        let clients = connections.into_iter().map(|mut connection| {
            let next = &next;
            async move {
                let mut seen = Seen::default();
                while let Some((method, path, body)) = next() {
                    let asked = Instant::now();
                    let answer = connection.ask(method, &path, body).await;
                    seen.add(&answer, asked.elapsed());
                }
                seen
            }
        });
        let mut all = Seen::default();
        for seen in futures::future::join_all(clients).await {
            all.merge(seen);
        }
        Ok(all.report(began.elapsed()))
    }
}

/// Creates `count` ConfigMaps of `size` bytes of data, each acknowledged.
pub(crate) async fn create(load: &Load, count: usize, size: usize) -> anyhow::Result<Value> {
    let (made, path) = (Rc::new(Cell::new(0)), load.collection());
    let data = "wherry ".chars().cycle().take(size).collect::<String>();
    load.run(|| {
        let number = made.get();
        made.set(number + 1);
        (number < count).then(|| {
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": format!("{}-{number}", load.prefix), "labels": {"app": "bench"}},
                "data": {"value": data},
            });
            (Method::POST, path.clone(), Bytes::from(object.to_string()))
        })
    })
    .await
}

/// Reads them in turn.
pub(crate) async fn get(load: &Load, count: usize, time: Duration) -> anyhow::Result<Value> {
    let (turn, path, began) = (Rc::new(Cell::new(0_usize)), load.collection(), Instant::now());
    load.run(|| {
        let number = turn.get();
        turn.set(number + 1);
        let path = || format!("{path}/{}-{}", load.prefix, number % count.max(1));
        (began.elapsed() < time).then(|| (Method::GET, path(), Bytes::new()))
    })
    .await
}

/// Changes them in turn, each acknowledged.
pub(crate) async fn patch(load: &Load, count: usize, time: Duration) -> anyhow::Result<Value> {
    let (turn, path, began) = (Rc::new(Cell::new(0_usize)), load.collection(), Instant::now());
    load.run(|| {
        let number = turn.get();
        turn.set(number + 1);
        (began.elapsed() < time).then(|| {
            let patch = json!({"data": {"changed": number.to_string()}});
            let path = format!("{path}/{}-{}", load.prefix, number % count.max(1));
            (Method::PATCH, path, Bytes::from(patch.to_string()))
        })
    })
    .await
}

/// Lists the namespace.
pub(crate) async fn list(load: &Load, query: &str, time: Duration) -> anyhow::Result<Value> {
    let (path, began) = (format!("{}{query}", load.collection()), Instant::now());
    load.run(|| (began.elapsed() < time).then(|| (Method::GET, path.clone(), Bytes::new()))).await
}
