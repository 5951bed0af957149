//! Log: what a container wrote, streamed from the pod's node.

use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use serde_json::Value;
use url::form_urlencoded::Serializer;
use wherry_api::field::{ErrorList, Path};
use wherry_api::object;
use wherry_api::status::ApiError;

use crate::server::body::Body;
use crate::server::call::Call;
use crate::server::error::ServerError;
use crate::server::nodes;
use crate::server::query::Query;
use crate::server::verbs::get;
use crate::server::versions;

/// Parameters that are passed on to the node as they are.
const PASSED: [&str; 7] = ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes"];

pub(crate) async fn log(call: &Call) -> Result<Response<Body>, ServerError> {
    check(&call.query, &call.info.name)?;
    let pod = versions::tree(&call.resource, &get::find(call)?).await?;
    let container = container(&pod, call.query.get("container"))?;
    let node = object::text_at(&pod, "spec.nodeName");
    if node.is_empty() {
        // Kubernetes: a pod without a node has written nothing.
        return Ok(text(crate::server::body::empty())?);
    }
    let path = format!("/containerLogs/{}/{}/{container}?{}", call.info.namespace, call.info.name, passed(&call.query));
    let answer = nodes::get(&call.server, &call.user.name, &node, &path).await?;
    if answer.status() == StatusCode::OK {
        return Ok(text(answer.into_body())?);
    }
    let code = answer.status();
    let said = crate::server::body::collect(answer.into_body()).await?;
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    Err(match code.as_u16() {
        404 => ApiError::new(404, "NotFound", said).into(),
        400..=499 => ApiError::bad_request(said).into(),
        _ => ServerError::Node(said.into()),
    })
}

fn passed(asked: &Query) -> String {
    let mut query = Serializer::new(String::new());
    for (key, value) in PASSED.into_iter().filter_map(|key| Some((key, asked.get(key)?))) {
        query.append_pair(key, value);
    }
    query.finish()
}

fn text(body: Body) -> http::Result<Response<Body>> {
    Response::builder().header(CONTENT_TYPE, "text/plain").body(body)
}

/// Judges PodLogOptions.
fn check(query: &Query, pod: &str) -> Result<(), ApiError> {
    let mut errors = ErrorList::default();
    for flag in ["follow", "previous", "timestamps"] {
        query.flag(flag)?;
    }
    let number = |key: &str, least: i64, detail: &str, errors: &mut ErrorList| {
        let value = query.integer(key)?;
        if let Some(n) = value.filter(|n| *n < least) {
            errors.invalid(&Path::new(key), &n.into(), detail);
        }
        Ok::<_, ApiError>(value)
    };
    number("tailLines", 0, "must be greater than or equal to 0", &mut errors)?;
    number("limitBytes", 1, "must be greater than 0", &mut errors)?;
    let seconds = number("sinceSeconds", 1, "must be greater than 0", &mut errors)?;
    if let Some(time) = query.get("sinceTime") {
        if object::parse_time(time).is_none() {
            return Err(ApiError::bad_request(format!("sinceTime {time:?} is not an RFC 3339 time")));
        }
        if seconds.is_some() {
            errors.forbidden(&Path::new(""), "at most one of `sinceTime` or `sinceSeconds` may be specified");
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid_of("", "PodLogOptions", pod, &errors))
}

/// The container that is meant. Error: 400, with those there are.
fn container(pod: &Value, asked: Option<&str>) -> Result<String, ApiError> {
    let names = |field: &str| -> Vec<String> {
        let list = pod.pointer(&format!("/spec/{field}")).and_then(Value::as_array);
        list.into_iter().flatten().map(|c| object::text_at(c, "name")).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod = object::name(pod);
    match (asked, main.as_slice()) {
        (Some(asked), _) if main.iter().chain(&init).chain(&ephemeral).any(|c| c == asked) => Ok(asked.to_owned()),
        (Some(asked), _) => Err(ApiError::bad_request(format!("container {asked} is not valid for pod {pod}"))),
        (None, [only]) => Ok(only.clone()),
        (None, []) => Err(ApiError::bad_request(format!("a container name must be specified for pod {pod}"))),
        (None, _) => {
            let others = |kind: &str, names: &[String]| match names {
                [] => String::new(),
                names => format!(" or one of the {kind} containers: [{}]", names.join(" ")),
            };
            let text = format!(
                "a container name must be specified for pod {pod}, choose one of: [{}]{}{}",
                main.join(" "),
                others("init", &init),
                others("ephemeral", &ephemeral),
            );
            Err(ApiError::bad_request(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn which_container_is_meant_is_said_as_kubernetes_says_it() {
        let pod = json!({"metadata": {"name": "x"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&pod, Some("i")).unwrap(), "i");
        assert_eq!(
            container(&pod, None).unwrap_err().message,
            "a container name must be specified for pod x, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(container(&pod, Some("z")).unwrap_err().message, "container z is not valid for pod x");
    }

    #[test]
    fn log_options_are_judged() {
        let judge = |query: &str| check(&Query::parse(Some(query)), "x").map_err(|e| (e.code, e.message));
        assert!(judge("tailLines=0&follow=true").is_ok());
        assert_eq!(judge("tailLines=-1").unwrap_err().0, 422);
        assert_eq!(judge("sinceTime=yesterday").unwrap_err().0, 400);
        assert!(judge("sinceSeconds=1&sinceTime=2024-01-01T00:00:00Z").unwrap_err().1.contains("at most one of"));
    }
}
