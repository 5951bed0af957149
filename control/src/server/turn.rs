//! A request's turn: where the pipeline asks priority and fairness.
//!
//! What must stay true: nothing of a request is read before its turn; a watch holds its seat until it has begun, any other
//! request until its answer is made, but for the time in which its body arrives; what lasts by its nature (a log, a blob of
//! an image) has no seat.

use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use futures::poll;
use http::header::HeaderName;
use http::{HeaderValue, Method, Request, Response};
use http_body::Body as _;
use wherry_api::status::ApiError;

use super::Server;
use super::body::{self, Body, Unread};
use super::query::Query;
use super::request::RequestInfo;
use super::route::Route;
use crate::auth::UserInfo;
use crate::flow::{self, Asked, Class, Seat, Target};
use crate::registry;

/// Bytes of a body that may be taken from its connection before there is room for it. A larger one is not begun.
const SMALL: usize = 64 * 1024;

static SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
static LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// A request whose turn it is. By default one that needs no seat.
#[derive(Debug, Default)]
pub(crate) struct Turn(Option<Place>);

#[derive(Debug)]
struct Place {
    server: Server,
    class: Class,
    seats: u32,
    /// `None`: while its body arrives.
    seat: Option<Seat>,
}

impl Turn {
    /// Reads the body of this user's request, at most `limit` bytes. One that has arrived is read at once; another is awaited
    /// without the seat, in the room that there is for those, and then it is the request's turn again.
    pub(crate) async fn read(&mut self, user: &UserInfo, body: Body, limit: usize) -> Result<Bytes, Unread> {
        let announced = body.size_hint().upper().and_then(|size| usize::try_from(size).ok());
        let size = announced.unwrap_or(limit).min(limit);
        let mut reading = pin!(body::gather(body, limit));
        let Some(place) = &mut self.0 else { return body::within_patience(reading).await };
        if size <= SMALL
            && let Poll::Ready(read) = poll!(reading.as_mut())
        {
            return Ok(read?);
        }
        place.seat = None;
        let held = place.server.intake().admit(&user.name, size, size > SMALL).await.ok_or(Unread::Crowded)?;
        let read = async {
            let read = body::within_patience(reading).await?;
            place.seat = place.server.flow().enter(&place.class, place.seats).await;
            if place.seat.is_some() { Ok(read) } else { Err(Unread::Crowded) }
        };
        tokio::select! {
            biased;
            () = held.lost() => Err(Unread::Crowded),
            read = read => read,
        }
    }

    /// The request with its body in hand, if it has a seat: whoever is asked in its stead does not wait for its client.
    pub(super) async fn whole(&mut self, user: &UserInfo, request: Request<Body>) -> Result<Request<Body>, ApiError> {
        if self.0.is_none() {
            return Ok(request);
        }
        let (parts, body) = request.into_parts();
        let read = self.read(user, body, body::LIMIT).await?;
        Ok(Request::from_parts(parts, body::full(read)))
    }
}

/// Waits for a request's turn. `class` becomes what it belongs to. Error: 429.
pub(super) async fn wait(
    server: &Server,
    route: &Route,
    (method, path): (&Method, &str),
    query: &Query,
    user: &UserInfo,
    class: &mut Option<Class>,
) -> Result<Turn, ApiError> {
    let verb = method.as_str().to_ascii_lowercase();
    let (verb, target) = match route {
        Route::Images if registry::transfers(method, path) => return Ok(Turn::default()),
        Route::Resource(info) if info.verb != "watch" && info.is_lasting() => return Ok(Turn::default()),
        Route::Resource(info) => (info.verb, resource(info)),
        _ => (verb.as_str(), Target::Path(path)),
    };
    let Some(found) = server.flow().classify(&Asked { user, verb, target }) else { return Ok(Turn::default()) };
    *class = Some(found.clone());
    let seats = seats(server, route, query);
    let seat = Some(server.flow().enter(&found, seats).await.ok_or_else(body::crowded)?);
    Ok(Turn(Some(Place { server: server.clone(), class: found, seats, seat })))
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
    let lists = info.verb == "list" || (info.verb == "watch" && query.is_set("sendInitialEvents"));
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
