//! The client of the process that the server runs in: a `kube::Client` whose requests are function calls.
//!
//! No socket, no TLS, no copy of a body; the same authorization and the same rules as for anybody else, since the request
//! enters where an authenticated one from the network does. Upgrades (exec, port-forward) cannot travel this way.

use std::convert::Infallible;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body as ClientBody;
use tokio::sync::Semaphore;
use tower::service_fn;

use crate::auth::UserInfo;
use crate::server::body::Body;
use crate::server::listen::Handler;

/// Requests of one client at once. More wait here, where they are not turned away: a flow's queues hold 300.
const IN_FLIGHT: usize = 200;

/// A client that acts as `user`, by the name of a component: fields are recorded as its own, and the audit log tells it.
pub fn in_process(server: Arc<dyn Handler>, user: UserInfo, component: &'static str) -> kube::Client {
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    let agent = HeaderValue::from_static(component);
    let service = service_fn(move |mut request: Request<ClientBody>| {
        request.headers_mut().entry(USER_AGENT).or_insert_with(|| agent.clone());
        call(Arc::clone(&server), user.clone(), Arc::clone(&places), request)
    });
    kube::Client::new(service, "default")
}

fn call(
    server: Arc<dyn Handler>,
    user: UserInfo,
    places: Arc<Semaphore>,
    request: Request<ClientBody>,
) -> BoxFuture<'static, Result<Response<Body>, Infallible>> {
    async move {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        // The semaphore is never closed.
        let _place = places.acquire().await;
        Ok(server.handle(request, user).await)
    }
    .boxed()
}
