//! Writes pod statuses to the API server.
//!
//! Only the newest status of a pod is kept until it is written; one pod has at most one write under way (so an older status
//! never lands after a newer one); many pods are written at once. A write names the pod's uid, so it cannot land on another
//! pod of that name. A pod that ended is deleted here, after its last status.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::{Method, StatusCode};
use kube::Client;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::api::{self, ApiError};

/// Writes under way at once: enough that their commits are grouped, few enough that they do not starve other requests.
const IN_FLIGHT: usize = 128;
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(30);

/// A status to write.
#[derive(Debug)]
pub struct Report {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// A strategic merge patch of the Pod; empty: nothing to write.
    pub patch: Vec<u8>,
    /// Then delete the object.
    pub delete: bool,
    tries: u32,
}

impl Report {
    pub fn new(namespace: &str, name: &str, uid: &str, patch: Vec<u8>, delete: bool) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned(), uid: uid.to_owned(), patch, delete, tries: 0 }
    }
}

/// Where workers leave their pods' statuses. Bounded by the number of pods: one entry each.
#[derive(Clone, Debug, Default)]
pub struct Statuses {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
    idle: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: HashMap<String, Report>,
    /// Uids of `waiting` that may be written now, oldest first.
    order: VecDeque<String>,
    in_flight: HashSet<String>,
    /// Uids of `waiting` that failed, and when they may be tried again.
    delayed: Vec<(Instant, String)>,
}

impl Statuses {
    /// Takes the newest status of a pod; an unwritten older one is forgotten.
    pub fn set(&self, mut report: Report) {
        let mut queue = self.shared.queue.lock();
        if let Some(older) = queue.waiting.get(&report.uid) {
            report.delete |= older.delete;
        }
        let uid = report.uid.clone();
        let known = queue.waiting.insert(uid.clone(), report).is_some();
        let delayed = queue.delayed.iter().position(|(_, delayed)| *delayed == uid);
        if let Some(at) = delayed {
            queue.delayed.swap_remove(at);
        }
        // One that was waiting already stands in the order, and one in flight is put there when its write ends.
        if !queue.in_flight.contains(&uid) && (!known || delayed.is_some()) {
            queue.order.push_back(uid);
        }
        drop(queue);
        self.shared.wake.notify_one();
    }

    /// Forgets a pod that is gone.
    pub fn forget(&self, uid: &str) {
        // Its other traces are skipped when their turn comes.
        self.shared.queue.lock().waiting.remove(uid);
    }

    /// Waits until everything was written (or given up).
    pub async fn flushed(&self) {
        loop {
            let idle = self.shared.idle.notified();
            {
                let queue = self.shared.queue.lock();
                if queue.waiting.is_empty() && queue.in_flight.is_empty() {
                    return;
                }
            }
            idle.await;
        }
    }

    /// Writes until dropped.
    pub async fn run(self, client: Client) {
        let mut writes = FuturesUnordered::new();
        loop {
            while writes.len() < IN_FLIGHT
                && let Some(report) = self.next()
            {
                writes.push(write(client.clone(), report));
            }
            let due = self.shared.queue.lock().delayed.iter().map(|(at, _)| *at).min();
            tokio::select! {
                Some((report, result)) = writes.next(), if !writes.is_empty() => self.done(report, result),
                () = self.shared.wake.notified() => {}
                () = sleep_until(due), if due.is_some() => {}
            }
        }
    }

    fn next(&self) -> Option<Report> {
        let mut guard = self.shared.queue.lock();
        let queue = &mut *guard;
        let now = Instant::now();
        let order = &mut queue.order;
        queue.delayed.retain(|(at, uid)| {
            if *at <= now {
                order.push_back(uid.clone());
            }
            *at > now
        });
        while let Some(uid) = queue.order.pop_front() {
            if !queue.in_flight.contains(&uid)
                && let Some(report) = queue.waiting.remove(&uid)
            {
                queue.in_flight.insert(uid);
                return Some(report);
            }
        }
        None
    }

    fn done(&self, mut report: Report, result: Result<(), ApiError>) {
        let mut guard = self.shared.queue.lock();
        let queue = &mut *guard;
        queue.in_flight.remove(&report.uid);
        if let Some(newer) = queue.waiting.get_mut(&report.uid) {
            newer.delete |= report.delete && result.is_err();
            queue.order.push_back(report.uid.clone());
        } else if let Err(error) = result
            && retryable(&error)
        {
            let delay = RETRY_FIRST.saturating_mul(1 << report.tries.min(10)).min(RETRY_LAST);
            tracing::debug!(pod = %report.name, namespace = %report.namespace, %error, ?delay, "status not written, will try again");
            report.tries += 1;
            queue.delayed.push((Instant::now() + delay, report.uid.clone()));
            queue.waiting.insert(report.uid.clone(), report);
        }
        if queue.waiting.is_empty() && queue.in_flight.is_empty() {
            self.shared.idle.notify_waiters();
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}

async fn write(client: Client, report: Report) -> (Report, Result<(), ApiError>) {
    let result = write_once(&client, &report).await;
    (report, result)
}

async fn write_once(client: &Client, report: &Report) -> Result<(), ApiError> {
    if !report.patch.is_empty() {
        let path = api::pod_path(&report.namespace, &report.name, "/status");
        let written = api::send(client, Method::PATCH, &path, api::STRATEGIC, report.patch.clone()).await;
        if let Err(error) = written
            && (retryable(&error) || !report.delete)
        {
            return gone_is_done(error, report);
        }
    }
    if !report.delete {
        return Ok(());
    }
    let options = serde_json::json!({
        "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": report.uid},
    });
    let path = api::pod_path(&report.namespace, &report.name, "");
    let body = options.to_string().into_bytes();
    match api::send(client, Method::DELETE, &path, api::JSON, body).await {
        Ok(_) => Ok(()),
        Err(error) => gone_is_done(error, report),
    }
}

/// The pod is gone, or another one has its name: nothing is left to write.
fn gone_is_done(error: ApiError, report: &Report) -> Result<(), ApiError> {
    match error.code() {
        Some(StatusCode::NOT_FOUND | StatusCode::CONFLICT) => {
            tracing::debug!(pod = %report.name, namespace = %report.namespace, %error, "status not written");
            Ok(())
        }
        Some(_) if !retryable(&error) => {
            tracing::warn!(pod = %report.name, namespace = %report.namespace, %error, "status refused");
            Ok(())
        }
        _ => Err(error),
    }
}

fn retryable(error: &ApiError) -> bool {
    match error.code() {
        None => true,
        Some(code) => code.is_server_error() || matches!(code.as_u16(), 401 | 403 | 408 | 429),
    }
}
