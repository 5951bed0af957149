//! `GET /containerLogs/{namespace}/{pod}/{container}`: a container's log, as `kubectl logs` asks for it.

use std::path::PathBuf;

use futures::TryStreamExt;
use http::{Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::server::{Body, text};
use crate::log::read::{self, Wanted};
use crate::pod::manager::Manager;
use crate::pod::setup::containers;

/// A log request's parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    wanted: Wanted,
    previous: bool,
}

/// Answers a log request.
pub(super) fn answer(manager: &Manager, namespace: &str, pod: &str, container: &str, query: &str) -> Response<Body> {
    let asked = match parse(query, Timestamp::now()) {
        Ok(asked) => asked,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let Some(shared) = manager.find(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, format!("pod \"{pod}\" not found"));
    };
    let object = shared.pod();
    if !containers(&object).iter().any(|c| c.name == container) {
        return text(
            StatusCode::NOT_FOUND,
            format!("container \"{container}\" not found in pod \"{pod}_{namespace}\""),
        );
    }
    let Some(view) = shared.instance(container) else {
        return text(
            StatusCode::NOT_FOUND,
            format!("container \"{container}\" not found in pod \"{pod}_{namespace}\""),
        );
    };
    let attempt = if asked.previous { view.previous } else { view.newest };
    let Some(attempt) = attempt else {
        return text(StatusCode::BAD_REQUEST, missing(&object, container, asked.previous, view.waiting));
    };
    let path = path_of(manager, &object, container, attempt);
    let live = manager.context().logs.live(&path);
    // A container that ended before it said anything has an empty log.
    let body = read::stream(path, live, asked.wanted).map_ok(Frame::data);
    let mut response = Response::new(StreamBody::new(body).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    response
}

fn path_of(manager: &Manager, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
    manager.context().logs.pod_dir(pod).join(container).join(format!("{attempt}.log"))
}

fn missing(pod: &Pod, container: &str, previous: bool, waiting: &str) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if previous {
        return format!("previous terminated container \"{container}\" in pod \"{name}\" not found");
    }
    match waiting {
        "ErrImagePull" | "ImagePullBackOff" => {
            format!("container \"{container}\" in pod \"{name}\" is waiting to start: trying and failing to pull image")
        }
        "" => format!("container \"{container}\" in pod \"{name}\" is waiting to start"),
        reason => format!("container \"{container}\" in pod \"{name}\" is waiting to start: {reason}"),
    }
}

fn parse(query: &str, now: Timestamp) -> Result<Asked, String> {
    let mut asked = Asked::default();
    let wanted = &mut asked.wanted;
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match key.as_ref() {
            "follow" => wanted.follow = flag(&value),
            "previous" => asked.previous = flag(&value),
            "timestamps" => wanted.timestamps = flag(&value),
            "tailLines" => wanted.tail = Some(number(&key, &value)?),
            "limitBytes" => wanted.limit_bytes = Some(number(&key, &value)?),
            "sinceSeconds" => {
                let seconds = i64::try_from(number(&key, &value)?).unwrap_or(i64::MAX);
                let since = now.checked_sub(SignedDuration::from_secs(seconds));
                wanted.since = Some(since.unwrap_or(Timestamp::UNIX_EPOCH));
            }
            "sinceTime" => {
                let time = value.parse().map_err(|_| format!("invalid sinceTime \"{value}\": not an RFC 3339 time"))?;
                wanted.since = Some(time);
            }
            _ => {}
        }
    }
    Ok(asked)
}

fn flag(value: &str) -> bool {
    matches!(value, "true" | "1" | "")
}

fn number(key: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("invalid {key} \"{value}\": must be a number that is not negative"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_kubectl_writes_them() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap_or_default();
        let query = "follow=true&tailLines=3&sinceSeconds=60&timestamps=true&limitBytes=7&previous=false&container=x";
        let expected = Wanted {
            follow: true,
            tail: Some(3),
            since: "2026-01-01T00:00:00Z".parse().ok(),
            timestamps: true,
            limit_bytes: Some(7),
        };
        assert_eq!(parse(query, now), Ok(Asked { wanted: expected, previous: false }));
    }

    #[test]
    fn bad_parameters_are_named() {
        for (query, named) in
            [("tailLines=-1", "tailLines"), ("limitBytes=x", "limitBytes"), ("sinceTime=x", "sinceTime")]
        {
            let error = parse(query, Timestamp::UNIX_EPOCH).err().unwrap_or_default();
            assert!(error.contains(named), "{error}");
        }
    }
}
