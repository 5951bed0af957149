//! A request's turn: where the pipeline asks priority and fairness.
//!
//! What must stay true: nothing of a request is read before its turn; a watch holds its seat until it has begun, any other
//! request until its answer is made; what lasts by its nature (a log, a transfer of images) has no seat.

use http::header::HeaderName;
use http::{HeaderValue, Method, Response};
use wherry_api::status::ApiError;

use super::Server;
use super::body::Body;
use super::query::Query;
use super::request::RequestInfo;
use super::route::Route;
use crate::auth::UserInfo;
use crate::flow::{self, Asked, Class, Seat, Target};

static SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
static LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
/// What lasts as long as the client likes.
const LASTING: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];

/// Waits for a request's turn. `class` becomes what it belongs to. Error: 429.
pub(super) async fn wait(
    server: &Server,
    route: &Route,
    (method, path): (&Method, &str),
    query: &Query,
    user: &UserInfo,
    class: &mut Option<Class>,
) -> Result<Option<Seat>, ApiError> {
    let method = method.as_str().to_ascii_lowercase();
    let (verb, target) = match route {
        Route::Images => return Ok(None),
        Route::Resource(info) if info.verb != "watch" && LASTING.contains(&info.subresource.as_str()) => {
            return Ok(None);
        }
        Route::Resource(info) => (info.verb, resource(info)),
        _ => (method.as_str(), Target::Path(path)),
    };
    let asked = Asked { user, verb, target };
    let Some(found) = server.flow().classify(&asked) else { return Ok(None) };
    let seats = seats(server, route, query);
    let seat = server.flow().enter(&found, &asked, seats).await;
    *class = Some(found);
    seat.map(Some).ok_or_else(|| {
        let mut error = ApiError::new(429, "TooManyRequests", "Too many requests, please try again later.");
        error.details.retry_after_seconds = 1;
        error
    })
}

fn resource(info: &RequestInfo) -> Target<'_> {
    Target::Resource {
        group: &info.group,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
    }
}

fn seats(server: &Server, route: &Route, query: &Query) -> u32 {
    let Route::Resource(info) = route else { return 1 };
    let lists = info.verb == "list" || (info.verb == "watch" && query.get("sendInitialEvents") == Some("true"));
    if !lists {
        return 1;
    }
    let registry = server.registry();
    let known = registry.by_plural(&info.group, &info.version, &info.resource);
    let objects = known.map_or(0, |resource| server.cache().count(&resource.storage_resource()));
    let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or_default();
    flow::seats(true, objects, limit)
}

/// Says in an answer what the request belonged to.
pub(super) fn label(response: &mut Response<Body>, class: Option<&Class>) {
    let Some(class) = class else { return };
    for (name, uid) in [(&SCHEMA_UID, class.schema_uid()), (&LEVEL_UID, class.level_uid())] {
        if let Ok(value) = HeaderValue::from_str(uid) {
            response.headers_mut().insert(name.clone(), value);
        }
    }
}
