//! Watch: the cache's events as JSON lines, until the client leaves, the time is up, or the server stops.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use http::{Response, StatusCode};
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use wherry_api::object;
use wherry_api::resource::Descriptor;
use wherry_api::selector::FieldSelector;

use super::list::{self, Selection};
use crate::cache::{At, CacheError, Entry, Event, Filter, deleted_bytes};
use crate::server::answer;
use crate::server::body::{self, Body};
use crate::server::call::Call;
use crate::server::error::ServerError;
use crate::server::negotiate::Form;
use crate::server::query::ListOptions;
use crate::server::versions;
use crate::store::Revision;

/// Seconds that a watch lasts if the client does not say: between these two, so that not all end together.
const LASTS: std::ops::Range<u64> = 1800..3600;
const INITIAL_END: &str = "k8s.io/initial-events-end";

/// A line of the answer before it is one.
enum Step {
    Event(Event),
    Failed(ServerError),
    /// The state that was asked for with `sendInitialEvents` has been sent.
    InitialEnd(Revision),
}

impl From<Result<Event, CacheError>> for Step {
    fn from(result: Result<Event, CacheError>) -> Self {
        result.map_or_else(|error| Self::Failed(error.into()), Self::Event)
    }
}

pub(crate) async fn watch(call: &Call) -> Result<Response<Body>, ServerError> {
    let options = ListOptions::parse(&call.query, true)?;
    let Selection { filter, served: fields } = list::selection(call)?;
    let steps = steps(call, filter, &options).await?;
    let mut writer = Writer {
        resource: call.resource.clone(),
        form: call.accepted.form,
        bookmarks: options.bookmarks,
        columns: true,
        sent: call.server.config().metrics.watch_events(&call.resource),
    };
    let lasts = Duration::from_secs(options.timeout.unwrap_or_else(|| rand::random_range(LASTS)));
    let stopping = call.server.stopping().clone();
    let (resource, fields) = (call.resource.clone(), Arc::new(fields));
    let steps = steps.then(move |step| served(resource.clone(), fields.clone(), step));
    let steps = steps.filter_map(std::future::ready).boxed();
    let lines = until_error(steps)
        .filter_map(move |step| std::future::ready(writer.line(step)))
        .take_until(Box::pin(async move {
            tokio::select! {
                () = tokio::time::sleep(lasts) => {}
                () = stopping.cancelled() => {}
            }
        }))
        .map(Ok);
    Ok(answer::head(StatusCode::OK).body(body::stream(lines))?)
}

async fn steps(call: &Call, filter: Filter, options: &ListOptions) -> Result<BoxStream<'static, Step>, ServerError> {
    let (cache, resource) = (call.server.cache(), &call.resource);
    if options.initial_events == Some(true) {
        let at = options.version.filter(|v| *v != 0).map_or(At::Latest, At::NotOlderThan);
        let present = cache.list(resource, &filter, at, None, 0).await?;
        let events = cache.watch(resource, filter, Some(present.revision)).await?;
        let added = stream::iter(present.entries).map(|entry| Step::Event(Event::Added(entry)));
        let end = stream::iter([Step::InitialEnd(present.revision)]);
        return Ok(added.chain(end).chain(events.map(Step::from)).boxed());
    }
    let after = match (options.version, options.initial_events) {
        (None | Some(0), Some(false)) => Some(cache.revision()),
        (None | Some(0), _) => None,
        (version, _) => version,
    };
    match cache.watch(resource, filter, after).await {
        Ok(events) => Ok(events.map(Step::from).boxed()),
        // Kubernetes begins the stream and says there that the version is too old.
        Err(error @ CacheError::Expired { .. }) => Ok(stream::iter([Step::Failed(error.into())]).boxed()),
        Err(error) => Err(error.into()),
    }
}

/// Passes the first error on and ends after it.
fn until_error(steps: BoxStream<'static, Step>) -> impl Stream<Item = Step> {
    steps.scan(false, |failed, step| {
        let go_on = !*failed;
        *failed = matches!(step, Step::Failed(_));
        std::future::ready(go_on.then_some(step))
    })
}

/// The step with its object in the version that is watched; `None`: it has not these fields there. An object that cannot be
/// converted ends the watch.
async fn served(resource: Arc<Descriptor>, fields: Arc<FieldSelector>, step: Step) -> Option<Step> {
    let Step::Event(event) = step else { return Some(step) };
    let event = if fields.is_empty() {
        versions::event(&resource, event).await.map(Some)
    } else {
        versions::event_with_fields(&resource, &fields, event).await
    };
    event.map_or_else(|error| Some(Step::Failed(error)), |event| event.map(Step::Event))
}

/// Writes events in the form that the client asked for.
struct Writer {
    resource: Arc<Descriptor>,
    form: Form,
    bookmarks: bool,
    /// Whether the next table still has to define its columns.
    columns: bool,
    /// Counts the events.
    sent: Counter,
}

impl Writer {
    fn line(&mut self, step: Step) -> Option<Bytes> {
        let line = self.shown(step);
        if line.is_some() {
            self.sent.inc();
        }
        line
    }

    fn shown(&mut self, step: Step) -> Option<Bytes> {
        match step {
            Step::Event(Event::Added(entry)) => Some(self.object("ADDED", &entry, &entry.bytes)),
            Step::Event(Event::Modified { new, .. }) => Some(self.object("MODIFIED", &new, &new.bytes)),
            Step::Event(Event::Deleted { last, revision }) => {
                let bytes = deleted_bytes(&last, revision);
                Some(self.object("DELETED", &last, &bytes))
            }
            Step::Event(Event::Progress(revision)) => self.bookmarks.then(|| self.bookmark(revision, false)),
            Step::InitialEnd(revision) => self.bookmarks.then(|| self.bookmark(revision, true)),
            Step::Failed(error) => Some(line("ERROR", error.to_status().to_string().as_bytes())),
        }
    }

    fn object(&mut self, kind: &str, entry: &Entry, bytes: &Bytes) -> Bytes {
        let shown = match self.form {
            Form::Object => return line(kind, bytes),
            Form::Metadata { version } => answer::partial(version, bytes),
            Form::Table { .. } => answer::parse(bytes).map(|tree| self.tabled(&tree).to_string().into_bytes()),
        };
        match shown {
            Ok(shown) => line(kind, &shown),
            Err(error) => {
                tracing::error!(key = ?entry.key, error = &error as &dyn std::error::Error, "a stored object is not readable");
                line("ERROR", error.to_status().to_string().as_bytes())
            }
        }
    }

    /// The object as the one row of a table.
    fn tabled(&mut self, tree: &Value) -> Value {
        let row = answer::transform(self.form, &self.resource, tree, Timestamp::now());
        let columns = std::mem::take(&mut self.columns);
        answer::whole_table(self.form, &self.resource, object::resource_version(tree), &[row], columns)
    }

    fn bookmark(&self, revision: Revision, initial: bool) -> Bytes {
        let mut mark = json!({
            "kind": self.resource.kind, "apiVersion": self.resource.api_version(),
            "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null},
        });
        if initial {
            object::set_annotation(&mut mark, INITIAL_END, "true");
        }
        let shown = match self.form {
            Form::Object => mark,
            Form::Table { include, .. } => {
                let row = json!({"cells": [], "object": match include {
                    wherry_api::table::IncludeObject::None => Value::Null,
                    _ => mark,
                }});
                answer::whole_table(self.form, &self.resource, &revision.to_string(), &[row], false)
            }
            Form::Metadata { .. } => answer::transform(self.form, &self.resource, &mark, Timestamp::now()),
        };
        line("BOOKMARK", shown.to_string().as_bytes())
    }
}

/// `{"type":KIND,"object":OBJECT}` and a line's end. The object is copied once, into the connection's buffer.
fn line(kind: &str, object: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(object.len() + kind.len() + 24);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
    out.freeze()
}
