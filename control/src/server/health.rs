//! `/livez`, `/readyz`, `/healthz`: named checks, each of which can be asked alone, left out, or listed.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use wherry_api::status::ApiError;

use super::body::{self, Body};
use crate::store::{Key, Store, StoreError};

/// What a check does: `Err` says why it fails, for the log; clients read that the reason is withheld.
pub type Probe = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// One named check.
pub struct Check {
    name: &'static str,
    /// Whether a failure means that the process should be restarted. All checks count for readiness.
    live: bool,
    probe: Probe,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Check {
    /// A failure of this one is cured by a restart.
    pub fn live<F>(name: &'static str, probe: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self { name, live: true, probe: Box::new(move || Box::pin(probe())) }
    }

    /// A failure of this one passes by itself; clients should go elsewhere meanwhile.
    pub fn ready<F>(name: &'static str, probe: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self { live: false, ..Self::live(name, probe) }
    }

    /// What a server needs of its store: one that can be read, and whose failure is no longer than its reason; and, to be
    /// ready, one that takes writes now.
    pub fn of_store(store: &Arc<dyn Store>) -> [Self; 2] {
        let (read, written) = (Arc::clone(store), Arc::clone(store));
        let live = move || {
            let store = Arc::clone(&read);
            async move {
                store.get(&Key::from_stored("healthz")).await.map_err(|error| why(&error))?;
                store.writable().or_else(|error| if error.passes() { Ok(()) } else { Err(why(&error)) })
            }
        };
        let ready = move || {
            let writable = written.writable().map_err(|error| why(&error));
            async move { writable }
        };
        [Self::live("store", live), Self::ready("store-readiness", ready)]
    }

    /// Fails until `flag` is set: a step of the start.
    pub fn started(name: &'static str, flag: Arc<AtomicBool>) -> Self {
        Self::ready(name, move || {
            let done = flag.load(Ordering::Acquire);
            async move { if done { Ok(()) } else { Err("not finished".to_owned()) } }
        })
    }
}

fn why(error: &StoreError) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// All checks of a server.
#[derive(Clone)]
pub struct Health {
    checks: Arc<[Check]>,
    stopping: Arc<AtomicBool>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.checks.iter().map(|check| check.name)).finish()
    }
}

impl Health {
    /// Adds the checks that every server has: `ping`, and `shutdown`, which makes a draining server not ready.
    pub fn new(checks: Vec<Check>) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stopping);
        let ping = Check::live("ping", || async { Ok(()) });
        let shutdown = Check::ready("shutdown", move || {
            let stopping = flag.load(Ordering::Acquire);
            async move { if stopping { Err("process is shutting down".to_owned()) } else { Ok(()) } }
        });
        let checks = std::iter::once(ping).chain(checks).chain(std::iter::once(shutdown)).collect();
        Self { checks, stopping }
    }

    /// From now on `/readyz` fails.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Answers a GET of `/livez`, `/readyz`, `/healthz` or one check below them; `query` may hold `verbose` and `exclude`.
    pub async fn respond(&self, path: &str, query: &str) -> Result<Response<Body>, ApiError> {
        let mut segments = path.trim_matches('/').splitn(2, '/');
        let endpoint = segments.next().unwrap_or_default();
        let only = segments.next().filter(|name| !name.is_empty());
        let checks: Vec<&Check> = self
            .checks
            .iter()
            .filter(|check| check.live || endpoint == "readyz")
            .filter(|check| only.is_none_or(|name| name == check.name))
            .collect();
        if checks.is_empty() {
            return Err(ApiError::no_such_path());
        }
        let parameters: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let excluded = |name: &str| parameters.iter().any(|(key, value)| key == "exclude" && value == name);
        let (text, healthy) = run(endpoint, &checks, excluded).await;
        let verbose = parameters.iter().any(|(key, _)| key == "verbose");
        if healthy && !verbose {
            Ok(answer(StatusCode::OK, "ok".to_owned()))
        } else {
            Ok(answer(if healthy { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }, text))
        }
    }
}

async fn run(endpoint: &str, checks: &[&Check], excluded: impl Fn(&str) -> bool) -> (String, bool) {
    let (mut lines, mut healthy) = (Vec::new(), true);
    for check in checks {
        let name = check.name;
        if excluded(name) {
            lines.push(format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match (check.probe)().await {
            Ok(()) => lines.push(format!("[+]{name} ok\n")),
            Err(reason) => {
                if check.live {
                    tracing::warn!(check = name, reason, "a health check failed");
                } else {
                    tracing::debug!(check = name, reason, "not ready");
                }
                lines.push(format!("[-]{name} failed: reason withheld\n"));
                healthy = false;
            }
        }
    }
    lines.push(format!("{endpoint} check {}\n", if healthy { "passed" } else { "failed" }));
    (lines.concat(), healthy)
}

fn answer(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn health(flag: &Arc<AtomicBool>) -> Health {
        Health::new(vec![Check::live("store", || async { Ok(()) }), Check::started("bootstrap", Arc::clone(flag))])
    }

    async fn get(health: &Health, path: &str, query: &str) -> (u16, String) {
        let response = health.respond(path, query).await.unwrap();
        let status = response.status().as_u16();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(text.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_server_that_still_starts_is_alive_but_not_ready() {
        let flag = Arc::new(AtomicBool::new(false));
        let health = health(&flag);
        assert_eq!(get(&health, "/livez", "").await, (200, "ok".to_owned()));
        let (status, text) = get(&health, "/readyz", "").await;
        assert_eq!(status, 500);
        assert!(text.contains("[-]bootstrap failed: reason withheld\n"), "{text}");
        assert!(text.ends_with("readyz check failed\n"), "{text}");
        flag.store(true, Ordering::Release);
        assert_eq!(get(&health, "/readyz", "").await.0, 200);
        health.stopping();
        assert_eq!(get(&health, "/readyz", "").await.0, 500);
    }

    #[tokio::test]
    async fn checks_are_listed_left_out_and_asked_alone() {
        let health = health(&Arc::new(AtomicBool::new(false)));
        let (_, text) = get(&health, "/livez", "verbose").await;
        assert_eq!(text, "[+]ping ok\n[+]store ok\nlivez check passed\n");
        assert_eq!(get(&health, "/readyz", "exclude=bootstrap").await.0, 200);
        assert_eq!(get(&health, "/readyz/store", "").await.0, 200);
        assert_eq!(health.respond("/readyz/none", "").await.unwrap_err().code, 404);
    }
}
