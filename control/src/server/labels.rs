//! What a request is called in the numbers of `/metrics`, in Kubernetes' words.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use wherry_api::resource::{Descriptor, Subresource};

use super::metrics::Labels;
use super::query::Query;
use super::request::RequestInfo;

/// Labels of bounded variety: only what is served.
pub(crate) fn of(info: &RequestInfo, query: &Query, headers: &HeaderMap, resource: Option<&Descriptor>) -> Labels {
    let subresource = resource.and_then(|r| r.subresource(&info.subresource)).map(Subresource::name);
    let verb = match info.verb {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" => "POST",
        "update" => "PUT",
        "patch" if applies(headers) => "APPLY",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "other",
    };
    let scope = match (info.name.as_str(), info.namespace.as_str()) {
        ("", _) if info.verb == "create" => "resource",
        ("", "") => "cluster",
        ("", _) => "namespace",
        _ => "resource",
    };
    Labels {
        verb,
        dry_run: if query.get("dryRun") == Some("All") { "All" } else { "" },
        scope,
        group: info.group.clone(),
        version: info.version.clone(),
        resource: info.resource.clone(),
        subresource: subresource.unwrap_or_default().to_owned(),
    }
}

/// Whether a patch is a server-side apply, in whatever form.
fn applies(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().starts_with("application/apply-patch+"))
}

/// The label of a request that is no resource's.
pub(crate) fn of_method(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}
