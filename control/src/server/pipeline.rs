//! The pipeline: route → wait for its turn → authorize → verb (read → decode → mutate → default → validate → admit → store) →
//! encode.
//!
//! What must stay true: nothing is read or written before it is the request's turn and the authorizer has said yes; while its
//! body arrives, a request is in nobody's way; whatever happens, also a panic, becomes a Status and is counted.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use wherry_api::custom;
use wherry_api::resource::{Descriptor, Subresource};
use wherry_api::selector::FieldSelector;
use wherry_api::status::ApiError;

use super::Server;
use super::aggregation::Remote;
use super::backup;
use super::body::{self, Body};
use super::call::Call;
use super::definitions;
use super::error::{self, ServerError};
use super::forms;
use super::issuer;
use super::labels;
use super::listen::{Connection, Refused};
use super::metrics::{Counted, Labels};
use super::negotiate::{self, Accepted, Media};
use super::openapi;
use super::query::Query;
use super::request::RequestInfo;
use super::route::Route;
use super::subresources::{self, View};
use super::turn::{self, Turn};
use super::unsent::Room;
use super::verbs::{create, delete, deletecollection, get, list, patch, update, watch};
use super::warnings;
use crate::admission::Notes;
use crate::audit::{self, Level, Origin, Record, Unanswered};
use crate::auth::{ANONYMOUS, Attributes, Decision, UserInfo};
use crate::flow::Class;

/// Names a request in the log and in its answer, as Kubernetes does.
static REQUEST_ID: HeaderName = HeaderName::from_static("audit-id");

type Answer = Result<Response<Body>, ServerError>;

pub(super) async fn handle(server: &Server, request: Request<Body>, user: UserInfo) -> Response<Body> {
    let id = audit::request_id(request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let in_flight = server.config().metrics.start(&method);
    let mut seen = Seen::of(server, &method);
    let (parts, body) = request.into_parts();
    let asked = user.name.clone();
    seen.room = server.unsent().room(connection(&parts), &asked);
    let mut unanswered = audited(server, &id, &parts, Some(&user));
    let request = Request::from_parts(parts, body);
    let served = async {
        let record = unanswered.record();
        if let Some(record) = record
            && record.received().await.is_err()
        {
            return Err(ApiError::internal("failed to store audit event").into());
        }
        serve(server, request, user, record, &mut seen).await
    };
    let served = AssertUnwindSafe(served).catch_unwind().await;
    let response = match served {
        Ok(Ok(response)) => response,
        Ok(Err(failure)) => {
            if failure.is_internal() {
                let error: &dyn std::error::Error = &failure;
                tracing::error!(id, %method, path, error, "a request failed");
            } else if failure.is_unmet() {
                let error: &dyn std::error::Error = &failure;
                tracing::debug!(id, %method, path, error, "a request asked for what there is not");
            }
            error::respond(&failure)
        }
        Err(panic) => {
            tracing::error!(id, %method, path, panic = panic_text(&*panic), "a request's handler panicked");
            if let Some(record) = unanswered.take() {
                record.panicked(panic_text(&*panic)).await;
            }
            let what = ApiError::internal("this request caused apiserver to panic. Look in the logs for details.");
            error::respond(&what.into())
        }
    };
    drop(in_flight);
    let (mut looked, response) = unanswered.look(response).await;
    let response = match present(server, &asked, &seen, &method, response).await {
        Ok(response) => response,
        Err(failure) => {
            let (status, response) = unanswered.look(error::respond(&failure)).await;
            looked = status;
            seen.room.put(sent(&method, response))
        }
    };
    let mut response = unanswered.answered(looked, response).await;
    turn::label(&mut response, seen.class.as_ref());
    name(&mut response, &id);
    seen.counted.answered(response.status().as_u16());
    response
}

/// Over what a request came.
fn connection(request: &Parts) -> Option<Arc<Connection>> {
    request.extensions.get::<Origin>().and_then(|origin| origin.connection.clone())
}

/// The answer as it is sent, in its place. A read for which there is no room is refused; who wrote is told what became of it: a
/// refusal would say that nothing was done.
async fn present(server: &Server, user: &str, seen: &Seen, method: &Method, answer: Response<Body>) -> Answer {
    let room = method.is_safe().then_some(&seen.room);
    let answer = forms::present((server.heavy(), user), seen.accepted, seen.watch, room, answer).await?;
    match room {
        Some(room) => Ok(room.fill(sent(method, answer))?),
        None => Ok(seen.room.put(answer)),
    }
}

/// What of an answer is sent.
fn sent(method: &Method, answer: Response<Body>) -> Response<Body> {
    if *method == Method::HEAD { answer.map(|_| body::empty()) } else { answer }
}

/// What is known of a request when it has been answered, however that ended.
#[derive(Debug)]
struct Seen {
    counted: Counted,
    accepted: Accepted,
    /// Whether a success is a stream of events.
    watch: bool,
    class: Option<Class>,
    /// Held until the answer has its form.
    turn: Turn,
    room: Room,
}

impl Seen {
    fn of(server: &Server, method: &Method) -> Self {
        let labels = Labels { verb: labels::of_method(method), ..Labels::default() };
        Self {
            counted: server.config().metrics.begun(labels),
            accepted: Accepted::default(),
            watch: false,
            class: None,
            turn: Turn::default(),
            room: Room::default(),
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Says in the answer what the request is called in the logs.
fn name(response: &mut Response<Body>, id: &str) {
    if let Ok(value) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID.clone(), value);
    }
}

/// The record of a request, if there is to be one.
fn audited(server: &Server, id: &str, request: &Parts, user: Option<&UserInfo>) -> Unanswered {
    let Some(audit) = &server.config().audit else { return Unanswered::default() };
    let query = Query::parse(request.uri.query());
    // What cannot be read is refused later.
    let watch = query.is_set("watch");
    let (attributes, endless) = match Route::of(&request.method, request.uri.path(), watch) {
        Route::Resource(info) => {
            let known = server.registry().by_plural(&info.group, &info.version, &info.resource).cloned();
            (attributes(&info, &query, known.as_deref()), info.verb == "watch" || info.is_lasting())
        }
        _ => (Attributes::non_resource(request.method.as_str().to_lowercase(), request.uri.path()), false),
    };
    Unanswered::new(audit.begin(id, &attributes, request, user), endless)
}

/// Answers a request that is not let in.
pub(super) async fn refuse(server: &Server, refused: Refused<'_>) -> Response<Body> {
    let id = audit::request_id(&refused.request.headers);
    let user = refused.user.map_or(ANONYMOUS, |user| &user.name);
    let mut response = server.unsent().room(connection(refused.request), user).put(refused.respond());
    name(&mut response, &id);
    let mut unanswered = audited(server, &id, refused.request, refused.user);
    if refused.user.is_none() {
        if let Some(record) = unanswered.take() {
            record.unauthenticated(audit::attempted(&refused.request.headers, refused.certificate)).await;
        }
        return response;
    }
    if let Some(record) = unanswered.record() {
        if record.received().await.is_err() {
            tracing::debug!(id, "a refused request is not in the audit log");
        }
        record.forbidden(refused.error.message.clone());
    }
    let (looked, response) = unanswered.look(response).await;
    unanswered.answered(looked, response).await
}

async fn serve(
    server: &Server,
    request: Request<Body>,
    user: UserInfo,
    record: Option<&Record>,
    seen: &mut Seen,
) -> Answer {
    let query = Query::parse(request.uri().query());
    let watch = query.flag("watch")?.unwrap_or_default();
    let route = Route::of(request.method(), request.uri().path(), watch);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let turn = turn::wait(server, &route, (&method, &path), &query, &user, &mut seen.class).await?;
    let mut asking = Asking { user, record, turn };
    match route {
        Route::Resource(info) => resource(server, *info, query, request, asking, seen).await,
        Route::Images => match &server.config().images {
            Some(images) => Ok(images.handle(request, &asking.user, &mut asking.turn).await),
            None => Err(ApiError::no_such_path().into()),
        },
        route => other(server, &route, &query, request, asking).await,
    }
}

/// Who asks.
struct Asking<'a> {
    user: UserInfo,
    record: Option<&'a Record>,
    /// Held until the answer is made; that of a watch is made when it has begun.
    turn: Turn,
}

/// A path that is no resource's: only read.
async fn other(
    server: &Server,
    route: &Route,
    query: &Query,
    request: Request<Body>,
    Asking { user, record, mut turn }: Asking<'_>,
) -> Answer {
    let user = &user;
    let (path, headers) = (request.uri().path(), request.headers());
    let verb = request.method().as_str().to_lowercase();
    let attributes = Attributes::non_resource(verb, path);
    permit(server, user, &attributes, record).await?;
    if *route == Route::Unknown {
        return Err(ApiError::no_such_path().into());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed().into());
    }
    let served = server.served();
    match route {
        Route::Discovery => match served.remotes.of_path(path) {
            Some(remote) => remote.forward(server, turn.whole(user, request).await?, user).await,
            None => Ok(served.discovery.respond(path, headers)?),
        },
        Route::OpenApi => openapi::respond(&served, path, query, headers).await,
        Route::Health => Ok(server.config().health.respond(path, request.uri().query().unwrap_or_default()).await?),
        Route::Issuer => issuer::respond(server, path),
        // Its body is made before it is sent: a HEAD would make it for nothing.
        Route::Backup if request.method() == Method::GET => backup::respond(server).await,
        Route::Backup => Err(ApiError::method_not_allowed().into()),
        Route::Metrics => Ok(server.config().metrics.respond()?),
        Route::Resource(_) | Route::Images | Route::Unknown => Err(ApiError::no_such_path().into()),
    }
}

/// Asks the authorizer, and notes what it said. Error: 403.
async fn permit(
    server: &Server,
    user: &UserInfo,
    attributes: &Attributes,
    record: Option<&Record>,
) -> Result<(), ApiError> {
    match server.authorizer().authorize(user, attributes).await {
        Decision::Allow => {
            if let Some(record) = record {
                record.allowed(server.authorizer().reason(user, attributes).await);
            }
            Ok(())
        }
        Decision::Deny(reason) => {
            let refused = attributes.forbidden(user, &reason);
            if let Some(record) = record {
                record.forbidden(reason);
            }
            Err(refused)
        }
    }
}

/// A resource that another server serves.
async fn elsewhere(
    server: &Server,
    remote: &Remote,
    info: &RequestInfo,
    query: &Query,
    request: Request<Body>,
    Asking { user, record, mut turn }: Asking<'_>,
    seen: &mut Seen,
) -> Answer {
    let resource = remote.resource(&info.resource).unwrap_or_default();
    let shown = RequestInfo { resource: resource.to_owned(), ..info.clone() };
    seen.counted.labels = labels::of(&shown, query, request.headers(), None);
    permit(server, &user, &attributes(info, query, None), record).await?;
    remote.forward(server, turn.whole(&user, request).await?, &user).await
}

/// A resource of this server: from its path to a verb, and back to an answer.
async fn resource(
    server: &Server,
    info: RequestInfo,
    query: Query,
    request: Request<Body>,
    asking: Asking<'_>,
    seen: &mut Seen,
) -> Answer {
    let served = server.served();
    if let Some(remote) = served.remotes.find(&info.group, &info.version) {
        return elsewhere(server, remote, &info, &query, request, asking, seen).await;
    }
    let Asking { user, record, turn } = asking;
    let known = served.registry.by_plural(&info.group, &info.version, &info.resource).cloned();
    if known.is_some() {
        seen.counted.labels = labels::of(&info, &query, request.headers(), known.as_deref());
    }
    let attributes = attributes(&info, &query, known.as_deref());
    permit(server, &user, &attributes, record).await?;
    let resource = known.ok_or_else(ApiError::no_such_path)?;
    check_path(&resource, &info)?;
    let (parts, body) = request.into_parts();
    let accepted = match info.subresource.as_str() {
        // A log is text, whatever is accepted.
        "log" => negotiate::accepted(&HeaderMap::new(), &query, negotiate::Answer::Plain)?,
        _ => negotiate::accepted(&parts.headers, &query, answer_of(&info, &resource))?,
    };
    (seen.accepted, seen.watch) = (accepted, info.verb == "watch");
    let deprecated = resource.deprecated.as_ref().map(ToString::to_string);
    if let Some(record) = record.filter(|_| deprecated.is_some()) {
        record.annotate([("k8s.io/deprecated".to_owned(), "true".to_owned())]);
    }
    let mut call = Call {
        server: server.clone(),
        resource,
        info,
        query,
        headers: parts.headers,
        accepted,
        user,
        attributes,
        warnings: deprecated.into_iter().collect(),
        notes: Notes::default(),
        record: record.cloned(),
        size: 0,
        turn,
        room: seen.room.clone(),
    };
    // What is recorded is what is read here, so it is not packed.
    call.accepted.gzip &= record.is_none_or(|record| record.level() < Level::RequestResponse);
    // Boxed: the verbs' futures are large, and few of them are polled at a time.
    let answer = dispatch(&mut call, body).boxed().await;
    if accepted.media != Media::Json {
        seen.turn = std::mem::take(&mut call.turn);
    }
    call.warnings.extend(call.notes.take_warnings());
    if let Some(record) = record {
        record.annotate(call.notes.audit_annotations());
    }
    let mut response = answer.or_else(|failure| match failure {
        // Warnings are as useful beside an error.
        ServerError::Api(error) if !call.warnings.is_empty() => Ok(error::respond(&error.into())),
        failure => Err(failure),
    })?;
    warnings::add(&mut response, &call.warnings);
    Ok(response)
}

fn attributes(info: &RequestInfo, query: &Query, resource: Option<&Descriptor>) -> Attributes {
    let selector = |key: &str| if info.is_of_many() { query.get(key).map(str::to_owned) } else { None };
    let field_selector = selector("fieldSelector");
    // Kubernetes: a list of one name is about that name. Read as the list itself will read it, or the two would differ.
    let fields = resource.zip(field_selector.as_deref()).and_then(|(r, text)| FieldSelector::parse(r, text).ok());
    let named = fields.as_ref().and_then(|fields| fields.required("metadata.name"));
    let name = if info.name.is_empty() { named.unwrap_or_default().to_owned() } else { info.name.clone() };
    Attributes {
        verb: info.verb.to_owned(),
        group: info.group.clone(),
        version: info.version.clone(),
        resource: info.resource.clone(),
        subresource: info.subresource.clone(),
        namespace: info.namespace.clone(),
        name,
        path: String::new(),
        field_selector,
        label_selector: selector("labelSelector"),
    }
}

fn answer_of(info: &RequestInfo, resource: &Descriptor) -> negotiate::Answer {
    match info.verb {
        "watch" => negotiate::Answer::Events,
        _ if resource.stored() => negotiate::Answer::Objects,
        _ => negotiate::Answer::Plain,
    }
}

/// Whether there is such a path, and such a method on it. Errors: 404, 405.
fn check_path(resource: &Descriptor, info: &RequestInfo) -> Result<(), ApiError> {
    let is_namespace = info.resource == "namespaces" && info.group.is_empty();
    let in_namespace = !info.namespace.is_empty() && !is_namespace;
    let everywhere = resource.namespaced() && info.namespace.is_empty();
    // Only what passes requests on has paths below it.
    let below = !info.rest.is_empty() && info.subresource != "proxy";
    if below || (in_namespace && !resource.namespaced()) || (everywhere && !info.name.is_empty()) {
        return Err(ApiError::no_such_path());
    }
    let verbs = if info.subresource.is_empty() {
        resource.verbs
    } else {
        resource.subresource(&info.subresource).map(subresources::verbs).ok_or_else(ApiError::no_such_path)?
    };
    let ending = info.subresource.is_empty() && custom::is_ending(resource);
    if ending && info.verb == "create" {
        return Err(definitions::ending());
    }
    // What waits for its finalizers may still be changed.
    let allowed = verbs.contains(&info.verb) || (ending && matches!(info.verb, "update" | "patch"));
    let named = !info.is_of_many() && !info.name.is_empty();
    let misplaced = match info.verb {
        "create" => info.subresource.is_empty() && named,
        "update" | "patch" => !named,
        _ => false,
    };
    if !allowed || misplaced || (everywhere && !matches!(info.verb, "list" | "watch")) {
        return Err(ApiError::method_not_allowed());
    }
    Ok(())
}

async fn dispatch(call: &mut Call, body: Body) -> Answer {
    let resource = call.resource.clone();
    let view = match resource.subresource(&call.info.subresource) {
        None => View::Object(wherry_api::strategy::Part::Main),
        Some(subresource) => match (subresources::view(subresource), subresource) {
            (Some(view), _) => view,
            (None, Subresource::Named(named)) => return subresources::run(call, named, body).await,
            (None, _) => return Err(ApiError::no_such_path().into()),
        },
    };
    match call.info.verb {
        "get" if view.is_object() => get::get(call).await,
        "get" => update::show(call, &view, StatusCode::OK, get::find(call)?).await,
        "list" => list::list(call).await,
        "watch" => watch::watch(call).await,
        "create" => create::create(call, body).await,
        "update" => update::update(call, view, body).await,
        "patch" => patch::patch(call, view, body).await,
        "delete" => delete::delete(call, body).await,
        "deletecollection" => deletecollection::delete_collection(call, body).await,
        _ => Err(ApiError::method_not_allowed().into()),
    }
}

#[cfg(test)]
mod tests {
    use wherry_api::registry::Registry;

    use super::*;

    /// The name that the authorizer is asked about for a list of secrets.
    fn name(selector: &str) -> String {
        let info = RequestInfo { verb: "list", resource: "secrets".into(), ..RequestInfo::default() };
        let text = url::form_urlencoded::Serializer::new(String::new()).append_pair("fieldSelector", selector).finish();
        let secrets = Registry::builtin().by_plural("", "v1", "secrets").cloned();
        attributes(&info, &Query::parse(Some(&text)), secrets.as_deref()).name
    }

    #[test]
    fn a_list_is_about_one_name_only_if_its_selector_demands_that() {
        assert_eq!(name("metadata.name=mine"), "mine");
        assert_eq!(name("type!=x,metadata.name==mine"), "mine");
        for other in ["type!=x\\,metadata.name=mine", "metadata.name!=x\\,metadata.name=mine", "metadata.name!=mine"] {
            assert_eq!(name(other), "", "{other}");
        }
    }
}
