//! What a request's path and method ask for: Kubernetes' `RequestInfo`.

use http::Method;
use percent_encoding::percent_decode_str;

/// A request to a resource of the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; empty for another method.
    pub(crate) verb: &'static str,
    pub(crate) group: String,
    pub(crate) version: String,
    /// The plural name.
    pub(crate) resource: String,
    pub(crate) subresource: String,
    /// Empty: all namespaces, or a cluster-scoped resource.
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// What follows the subresource.
    pub(crate) rest: String,
}

impl RequestInfo {
    /// Reads a path below `/api/VERSION/` or `/apis/GROUP/VERSION/`; `None` if it is not one of a resource. `watch` says
    /// whether the query asks to watch.
    pub(crate) fn parse(method: &Method, path: &str, watch: bool) -> Option<Self> {
        let segments: Vec<String> = path.split('/').skip(1).map(decode).collect::<Option<_>>()?;
        let mut parts = segments.as_slice();
        if let [head @ .., last] = parts
            && last.is_empty()
        {
            parts = head;
        }
        if parts.iter().any(String::is_empty) {
            return None;
        }
        let mut info = Self::default();
        let mut parts = match parts {
            [api, version, rest @ ..] if api == "api" => {
                info.version.clone_from(version);
                rest
            }
            [apis, group, version, rest @ ..] if apis == "apis" => {
                info.group.clone_from(group);
                info.version.clone_from(version);
                rest
            }
            _ => return None,
        };
        let mut watch = watch;
        if let [first, rest @ ..] = parts
            && first == "watch"
            && !rest.is_empty()
        {
            watch = true;
            parts = rest;
        }
        info.resource_path(parts)?;
        // What a proxy is to ask for ends as the path does.
        if info.subresource == "proxy" && path.ends_with('/') {
            info.rest.push('/');
        }
        info.verb = verb(method, !info.name.is_empty(), watch);
        Some(info)
    }

    /// Whether it is about the objects of a resource that match, and not about one of them.
    pub(crate) fn is_of_many(&self) -> bool {
        matches!(self.verb, "list" | "watch" | "deletecollection")
    }

    /// Whether its answer lasts as long as its client, or whatever it is passed on to, likes.
    pub(crate) fn is_lasting(&self) -> bool {
        lasts(&self.subresource)
    }

    fn resource_path(&mut self, parts: &[String]) -> Option<()> {
        let parts = match parts {
            [namespaces, namespace, third, ..]
                if namespaces == "namespaces" && !matches!(third.as_str(), "status" | "finalize") =>
            {
                self.namespace.clone_from(namespace);
                parts.get(2..)?
            }
            _ => parts,
        };
        let mut parts = parts.iter();
        self.resource.clone_from(parts.next()?);
        self.name = parts.next().cloned().unwrap_or_default();
        self.subresource = parts.next().cloned().unwrap_or_default();
        self.rest = parts.map(String::as_str).collect::<Vec<_>>().join("/");
        if self.resource == "namespaces" && self.group.is_empty() {
            self.namespace.clone_from(&self.name);
        }
        Some(())
    }
}

/// Whether the answers of a part of an object are streams, whether or not they end.
pub(crate) fn lasts(subresource: &str) -> bool {
    matches!(subresource, "attach" | "exec" | "log" | "portforward" | "proxy")
}

fn decode(segment: &str) -> Option<String> {
    percent_decode_str(segment).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

fn verb(method: &Method, named: bool, watch: bool) -> &'static str {
    match *method {
        Method::GET | Method::HEAD if named && !watch => "get",
        Method::GET | Method::HEAD if watch => "watch",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(method: Method, path: &str) -> Option<(String, String)> {
        let i = RequestInfo::parse(&method, path, false)?;
        let gv = [i.group, i.version].join("/");
        Some((i.verb.to_owned(), [gv, i.resource, i.subresource, i.namespace, i.name, i.rest].join(" ")))
    }

    #[test]
    fn paths_are_read_as_kubernetes_reads_them() {
        for (method, path, verb, parts) in [
            (Method::GET, "/api/v1/pods", "list", "/v1 pods    "),
            (Method::GET, "/api/v1/namespaces", "list", "/v1 namespaces    "),
            (Method::GET, "/api/v1/namespaces/a", "get", "/v1 namespaces  a a "),
            (Method::PUT, "/api/v1/namespaces/a/status", "update", "/v1 namespaces status a a "),
            (Method::PUT, "/api/v1/namespaces/a/finalize", "update", "/v1 namespaces finalize a a "),
            (Method::GET, "/api/v1/namespaces/a/pods", "list", "/v1 pods  a  "),
            (Method::DELETE, "/api/v1/namespaces/a/pods", "deletecollection", "/v1 pods  a  "),
            (Method::DELETE, "/api/v1/namespaces/a/pods/p", "delete", "/v1 pods  a p "),
            (Method::GET, "/api/v1/namespaces/a/pods/p/log", "get", "/v1 pods log a p "),
            (Method::POST, "/api/v1/namespaces/a/services/s/proxy/x/y", "create", "/v1 services proxy a s x/y"),
            (Method::GET, "/api/v1/namespaces/a/services/s/proxy/x/", "get", "/v1 services proxy a s x/"),
            (Method::GET, "/api/v1/nodes/n/proxy/", "get", "/v1 nodes proxy  n /"),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "patch",
                "apps/v1 deployments scale a d ",
            ),
            (Method::GET, "/api/v1/watch/namespaces/a/pods", "watch", "/v1 pods  a  "),
            (Method::GET, "/api/v1/nodes/system%3Anode", "get", "/v1 nodes   system:node "),
        ] {
            assert_eq!(parse(method, path), Some((verb.to_owned(), parts.to_owned())), "{path}");
        }
    }

    #[test]
    fn other_paths_are_no_resource() {
        for path in
            ["/", "/api", "/api/v1", "/apis/apps/v1", "/api//v1/pods", "/version", "/api/v1/%ff", "/api/v1/a//b"]
        {
            assert_eq!(parse(Method::GET, path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_path_that_is_built_is_read_back(
            group in "[a-z]{0,3}", resource in "[a-z]{1,6}", namespace in "[^/]{0,4}", name in "[^/]{0,4}",
            subresource in "[a-z]{0,4}",
        ) {
            prop_assume!(resource != "watch" && resource != "namespaces");
            let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
            let named = !name.is_empty();
            let subresource = if named { subresource } else { String::new() };
            let part = |before: &str, text: &str| if text.is_empty() { String::new() } else { format!("{before}/{}", encode(text)) };
            let root = if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{group}/v1") };
            let path =
                [root, part("/namespaces", &namespace), part("", &resource), part("", &name), part("", &subresource)].concat();
            // After a namespace's name these are its own paths, not collections in it.
            prop_assume!(!matches!(resource.as_str(), "status" | "finalize"));
            let info = RequestInfo::parse(&Method::GET, &path, false).unwrap();
            prop_assert_eq!(info.verb, if named { "get" } else { "list" });
            prop_assert_eq!(
                (info.group, info.resource, info.namespace, info.name, info.subresource, info.rest),
                (group, resource, namespace, name, subresource, String::new())
            );
        }

        #[test]
        fn no_path_breaks_the_parser(path in "/(api|apis|watch|namespaces|[a-z%/]{0,4}){0,8}") {
            let _ = RequestInfo::parse(&Method::GET, &path, true);
        }
    }
}
