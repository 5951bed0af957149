//! One write and many who wait for it: how long until the last of them has been told.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::future::try_join_all;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::api::Load;
use super::client::{Answer, Connection};
use super::report::Seen;

/// Connections that are made at once; servers accept no more quickly.
const BATCH: usize = 32;
/// For one write to reach everybody.
const PATIENCE: Duration = Duration::from_secs(30);

/// Changes a ConfigMap `rounds` times, each time until each of the load's clients, a watcher with a connection of its own, has its
/// event. A "request" of the report is one such round.
pub(crate) async fn run(load: &Load, rounds: usize) -> anyhow::Result<Value> {
    let (path, mut writer) = (load.collection(), load.target.connect().await?);
    let object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": load.prefix}, "data": {"round": "none"}});
    let made = writer.ask(Method::POST, &path, Bytes::from(object.to_string())).await?;
    if made.status >= 400 {
        bail!("the object to watch cannot be made: {}", made.status);
    }
    let (told, mut events) = mpsc::unbounded_channel();
    let mut connections = Vec::with_capacity(load.clients);
    while connections.len() < load.clients {
        let more = BATCH.min(load.clients - connections.len());
        connections.extend(try_join_all((0..more).map(|_| watch(load, &path, told.clone()))).await?);
    }
    let mut seen = Seen::default();
    let began = Instant::now();
    for round in 0..rounds {
        let patch = json!({"data": {"round": round.to_string()}});
        let asked = Instant::now();
        let one = format!("{path}/{}", load.prefix);
        let answer = writer.ask(Method::PATCH, &one, Bytes::from(patch.to_string())).await?;
        for _ in 0..load.clients {
            let heard = timeout(PATIENCE, events.recv()).await.context("a watcher was not told in time")?;
            if heard != Some(round) {
                bail!("a watcher was told of {heard:?}, not of {round}");
            }
        }
        seen.add(&Ok(Answer { status: answer.status, bytes: 0 }), asked.elapsed());
    }
    Ok(seen.report(began.elapsed()))
}

/// Begins to watch, and tells of each round that an event shows.
async fn watch(load: &Load, path: &str, told: mpsc::UnboundedSender<usize>) -> anyhow::Result<Connection> {
    let mut connection = load.target.connect().await?;
    let selector = format!("{path}?watch=1&fieldSelector=metadata.name%3D{}", load.prefix);
    let response = connection.send(Method::GET, &selector, Bytes::new()).await?;
    if response.status().as_u16() >= 400 {
        bail!("a watch was answered with {}", response.status());
    }
    let mut body = response.into_body();
    // The object as it is now: from here on, everything is an event.
    line(&mut body, &mut Vec::new()).await?;
    tokio::spawn(async move {
        let mut buffer = Vec::new();
        while let Ok(event) = line(&mut body, &mut buffer).await {
            let event: Value = serde_json::from_slice(&event).unwrap_or_default();
            let round = event.pointer("/object/data/round").and_then(Value::as_str).and_then(|text| text.parse().ok());
            if round.is_none_or(|round| told.send(round).is_err()) {
                return;
            }
        }
    });
    Ok(connection)
}

/// The next line of a stream; what follows it stays in `buffer`.
async fn line(body: &mut Incoming, buffer: &mut Vec<u8>) -> anyhow::Result<Vec<u8>> {
    loop {
        if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            return Ok(buffer.drain(..=end).collect());
        }
        let frame = body.frame().await.context("a watch has ended")??;
        buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
    }
}
