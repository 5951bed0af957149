//! Passes a request on to the server behind an APIService, and its answer back as it comes.
//!
//! What must stay true: the other server learns who asks from this server alone, and never the client's credentials; what
//! belongs to one connection does not pass to the other; a request is passed on once, so that an APIService that leads back
//! here takes one connection and not all of them.

use std::time::Duration;

use http::header::{
    AUTHORIZATION, CONNECTION, HeaderName, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Request, Response, Version};
use tokio::time::timeout;
use wherry_api::status::ApiError;

use super::{PassedOn, Remote};
use crate::audit::OfAnother;
use crate::auth::UserInfo;
use crate::outbound::{Outbound, OutboundError};
use crate::server::body::Body;
use crate::server::error::ServerError;

/// For the beginning of an answer that is not a watch's, as in Kubernetes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Headers of one connection.
const HOP: [HeaderName; 7] =
    [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

pub(super) async fn forward(
    remote: &Remote,
    outbound: &Outbound,
    mut request: Request<Body>,
    user: &UserInfo,
) -> Result<Response<Body>, ServerError> {
    if request.extensions().get::<PassedOn>().is_some() {
        let what = format!("the APIService of {}/{} leads back to this server", remote.group, remote.version);
        return Err(ApiError::new(508, "LoopDetected", what).into());
    }
    if !remote.available {
        return Err(ApiError::unavailable("service unavailable").into());
    }
    let config = remote.config.as_ref().map_err(ApiError::internal)?;
    if request.headers().contains_key(UPGRADE) {
        let what = "requests that change the protocol are not passed on to other API servers";
        return Err(ApiError::new(501, "NotImplemented", what).into());
    }
    connectionless(request.headers_mut());
    let headers = request.headers_mut();
    headers.remove(AUTHORIZATION);
    let impersonating = |name: &&HeaderName| name.as_str().starts_with("impersonate-");
    for name in headers.keys().filter(impersonating).cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
    *request.version_mut() = Version::HTTP_11;
    let answering = outbound.send_identified(config, user, request);
    // Also what has no end begins at once: until then it takes somebody's place in the queue.
    let late = |_| ApiError::timeout("the server behind this API did not answer in time");
    let answer = timeout(PATIENCE, answering).await.map_err(late)?;
    let mut response = answer.map_err(|error| refusal(remote, &error))?;
    if response.status().is_redirection() && response.headers().contains_key(LOCATION) {
        let what = "the backend attempted to redirect this request, which is not permitted";
        return Err(ApiError::new(502, "InternalError", what).into());
    }
    connectionless(response.headers_mut());
    *response.version_mut() = Version::default();
    response.extensions_mut().insert(OfAnother);
    Ok(response)
}

fn refusal(remote: &Remote, error: &OutboundError) -> ApiError {
    let error: &dyn std::error::Error = error;
    tracing::debug!(group = remote.group, version = remote.version, error, "another API server could not be asked");
    ApiError::unavailable(format!("error trying to reach service: {error}"))
}

/// Removes what is about the connection.
fn connectionless(headers: &mut HeaderMap) {
    let listed = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    let listed: Vec<HeaderName> = listed.filter_map(|name| name.trim().parse().ok()).collect();
    let unnamed = [HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection")];
    for name in listed.into_iter().chain(HOP).chain(unnamed) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_about_the_connection_does_not_pass() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("connection", "keep-alive, X-Mine"), ("x-mine", "a"), ("te", "trailers"), ("accept", "b")]
        {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        connectionless(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}
