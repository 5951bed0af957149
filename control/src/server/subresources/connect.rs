//! Connections: exec, attach, port-forward and proxy. Admission is asked about their options, which come in the query. What
//! it lets pass is not supported yet.

use http::Response;
use serde_json::{Value, json};
use wherry_api::object;
use wherry_api::resource::Descriptor;
use wherry_api::schema::{self, Type};
use wherry_api::status::ApiError;

use crate::admission::Operation;
use crate::server::body::Body;
use crate::server::call::Call;
use crate::server::error::ServerError;
use crate::server::query::Query;

pub(crate) async fn connect(call: &Call) -> Result<Response<Body>, ServerError> {
    let mut options = options(call.kind(), &call.query, &call.info.rest)?;
    let request = call.admission(Operation::Connect, &call.info.name, false);
    call.server.admission().mutate(&request, &mut options).await?;
    call.server.admission().validate(&request, Some(&options), None).await?;
    let mut what = format!("{} of {} is not supported yet", call.info.subresource, call.resource.group_resource());
    if call.info.subresource == "portforward" {
        what.push_str(": a pod's ports are reachable at its status.podIP from this machine");
    }
    Err(ApiError::new(501, "NotImplemented", what).into())
}

/// The options of `kind` that a query gives, read as Go reads them; `rest` is the path that a proxy is to ask for. Fields that
/// have their type's zero are left out.
fn options(kind: &Descriptor, query: &Query, rest: &str) -> Result<Value, ApiError> {
    let mut options = json!({});
    for field in schema::of(kind).fields() {
        let given = || query.all(&field.name);
        let first = || given().next().unwrap_or_default();
        let value = match &field.kind {
            Type::String if *field.name == *"path" => text(&path(rest)),
            Type::String => text(first()),
            Type::Boolean => given().next().filter(|text| is_true(text)).map(|_| true.into()),
            Type::List(items) => {
                let items: Vec<Value> = given().map(|text| item(items, text)).collect::<Result<_, _>>()?;
                (!items.is_empty()).then(|| items.into())
            }
            _ => None,
        };
        if let Some(value) = value {
            object::set_at(&mut options, &field.name, value);
        }
    }
    object::set_type(&mut options, kind);
    Ok(options)
}

fn text(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| text.into())
}

/// Anything that is given, but these.
fn is_true(text: &str) -> bool {
    text != "0" && !text.eq_ignore_ascii_case("false")
}

fn item(kind: &Type, text: &str) -> Result<Value, ApiError> {
    match kind {
        Type::Int32 => text
            .parse::<i32>()
            .map(Value::from)
            .map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
        _ => Ok(text.into()),
    }
}

fn path(rest: &str) -> String {
    if rest.is_empty() || rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") }
}

#[cfg(test)]
mod tests {
    use wherry_api::kinds::exchanged;

    use super::*;

    fn read(kind: &str, query: &str, rest: &str) -> Result<Value, ApiError> {
        let kind = exchanged::options().iter().find(|known| known.kind == kind).unwrap();
        options(kind, &Query::parse(Some(query)), rest)
    }

    #[test]
    fn options_are_what_the_query_says() {
        let exec =
            read("PodExecOptions", "command=ls&command=-l&container=c&stdin=&stdout=1&stderr=False&x=y", "").unwrap();
        assert_eq!(
            exec,
            json!({"apiVersion": "v1", "kind": "PodExecOptions", "command": ["ls", "-l"], "container": "c",
                "stdin": true, "stdout": true})
        );
        let forward = read("PodPortForwardOptions", "ports=80&ports=443&kind=Pod", "").unwrap();
        assert_eq!(forward, json!({"apiVersion": "v1", "kind": "PodPortForwardOptions", "ports": [80, 443]}));
        assert_eq!(read("PodPortForwardOptions", "ports=many", "").unwrap_err().code, 400);
    }

    #[test]
    fn a_proxys_path_is_what_follows_it() {
        for (rest, path) in [("", Value::Null), ("/", json!("/")), ("a/b", json!("/a/b")), ("a/", json!("/a/"))] {
            assert_eq!(read("NodeProxyOptions", "path=other", rest).unwrap()["path"], path, "{rest}");
        }
    }
}
