//! What a test of one controller needs: caches that the test fills, and an API server that answers as the test says.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Method, Request, Response};
use kube::client::Body as ClientBody;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

use super::Config;
use crate::controllers::Context;
use crate::reconcile::Shared;
use crate::server::body;

/// `answer` is given the method, path and body of a request; what it says nothing to is never answered.
pub(super) fn context(answer: impl Fn(&Method, &str, Value) -> Option<Value> + Send + Sync + 'static) -> Context {
    let answer = Arc::new(answer);
    let service = service_fn(move |request: Request<ClientBody>| {
        let answer = Arc::clone(&answer);
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect_bytes().await.unwrap();
            match answer(&parts.method, parts.uri.path(), serde_json::from_slice(&bytes).unwrap_or_default()) {
                Some(object) => Ok::<_, Infallible>(Response::new(body::full(object.to_string()))),
                None => std::future::pending().await,
            }
        }
    });
    let config = Config::new(String::new());
    Context {
        shared: Shared::start(kube::Client::new(service, "default")),
        metrics: config.metrics.clone(),
        config: Arc::new(config),
        stop: CancellationToken::new(),
    }
}
