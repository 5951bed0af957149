//! Requests at a fixed rate to several servers at once, so that a slow one shows in its own numbers and in no other's.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use url::Url;

use super::client::{Connection, Credentials, Target};
use super::report::Seen;

/// Asks each of `urls` `rate` times a second; one report per URL.
pub(crate) async fn run(urls: &[Url], rate: u32, time: Duration) -> anyhow::Result<Value> {
    let gap = Duration::from_secs(1) / rate.max(1) / u32::try_from(urls.len()).unwrap_or(u32::MAX).max(1);
    let reports = try_join_all(urls.iter().zip(0..).map(async |(url, turn)| {
        let connection = Target::new(url, &Credentials::default())?.connect().await?;
        // Evenly spread: requests to different servers are not due at the same moment.
        sleep(gap * turn).await;
        let report = one(connection, url.path(), rate, time).await;
        anyhow::Ok(json!({"url": url.as_str(), "seen": report}))
    }))
    .await?;
    Ok(Value::Array(reports))
}

/// Time counts from when a request was due, also when the one before it was late: waiting is part of what a client sees.
async fn one(mut connection: Connection, path: &str, rate: u32, time: Duration) -> Value {
    // As many as can be due at all.
    let due = (time.as_secs_f64() * f64::from(rate)).ceil() as usize;
    let (ticks, mut asked) = mpsc::channel(due.max(1));
    let began = Instant::now();
    let pace = async move {
        let mut clock = interval(Duration::from_secs(1) / rate.max(1));
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for _ in 0..due {
            clock.tick().await;
            if ticks.send(Instant::now()).await.is_err() {
                return;
            }
        }
    };
    let ask = async {
        let mut seen = Seen::default();
        while let Some(since) = asked.recv().await {
            let answer = connection.ask(Method::GET, path, Bytes::new()).await;
            seen.add(&answer, since.elapsed());
        }
        seen
    };
    let ((), seen) = tokio::join!(pace, ask);
    seen.report(began.elapsed())
}
