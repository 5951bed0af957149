//! The client commands' requests, which ask the server for its own tables and words.

use anyhow::{Context, anyhow, bail};
use http_body_util::BodyExt;
use kube::api::ApiResource;
use kube::client::Body;
use kube::discovery::{ApiCapabilities, Discovery, Scope};
use serde_json::Value;
use wherry_runtime::fault::{self, Fault};

pub use crate::connection::{Connection, Server};

/// A connected client.
#[derive(Clone)]
pub struct Client {
    pub kube: kube::Client,
    pub namespace: String,
    /// The server's address and what it was read from, for messages.
    pub server: String,
}

/// A kind as the server serves it.
#[derive(Clone, Debug)]
pub struct Resource {
    pub api: ApiResource,
    pub namespaced: bool,
}

impl Client {
    pub fn new(kube: kube::Client) -> Self {
        Self { namespace: kube.default_namespace().to_owned(), kube, server: "the server".to_owned() }
    }

    /// Every kind that the server serves.
    pub async fn discovery(&self) -> anyhow::Result<Discovery> {
        Discovery::new(self.kube.clone()).run().await.map_err(|error| self.failed(error))
    }

    /// What is said of a request that got no answer, or of one that the client library judged.
    fn failed(&self, error: kube::Error) -> anyhow::Error {
        if let kube::Error::Api(status) = &error {
            return anyhow::Error::new(Refused::new(status.code, status.message.clone()));
        }
        if Fault::of(&error) == Some(Fault::Refused) {
            return anyhow!("the connection to {} was refused; is `wherry up` running?", self.server);
        }
        let advice = Fault::of(&error).map_or("", advice);
        anyhow!("{} cannot be reached: {}{advice}", self.server, fault::told(&error))
    }

    /// Sends a request and returns the body; an error answer becomes the server's own message.
    pub async fn request(
        &self,
        method: http::Method,
        path: &str,
        accept: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> anyhow::Result<Vec<u8>> {
        let response = self.open(method, path, accept, body).await?;
        Ok(response.into_body().collect().await.context("the server's answer broke off")?.to_bytes().to_vec())
    }

    /// What is at a path, in the representation that `accept` names.
    pub async fn read_as(&self, path: &str, accept: &str) -> anyhow::Result<Value> {
        let bytes = self.request(http::Method::GET, path, accept, None).await?;
        serde_json::from_slice(&bytes).context("the server's answer is not JSON")
    }

    /// The object or list at a path.
    pub async fn read(&self, path: &str) -> anyhow::Result<Value> {
        self.read_as(path, JSON).await
    }

    /// Like [`Client::request`], for an answer that is read as it comes.
    pub async fn open(
        &self,
        method: http::Method,
        path: &str,
        accept: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> anyhow::Result<http::Response<Body>> {
        let mut request = http::Request::builder().method(method).uri(path).header(http::header::ACCEPT, accept);
        if let Some((kind, _)) = &body {
            request = request.header(http::header::CONTENT_TYPE, *kind);
        }
        let body = body.map_or_else(Body::empty, |(_, bytes)| Body::from(bytes));
        let response = self.kube.send(request.body(body)?).await.map_err(|error| self.failed(error))?;
        warn(response.headers());
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = response.into_body().collect().await.context("the server's answer broke off")?.to_bytes();
        match serde_json::from_slice::<Value>(&bytes).ok().and_then(|body| Refused::of(status.as_u16(), &body)) {
            Some(refused) => Err(anyhow::Error::new(refused)),
            None => bail!("the server answered {status}: {}", String::from_utf8_lossy(&bytes)),
        }
    }

    /// Finds a kind by what a person calls it: plural, singular, kind or short name, with or without a group
    /// (`deployments.apps`).
    pub async fn resource(&self, called: &str) -> anyhow::Result<Resource> {
        match <[Resource; 1]>::try_from(self.resources(called).await?) {
            Ok([one]) => Ok(one),
            Err(_) => bail!("{called:?} means several kinds, and this is about one"),
        }
    }

    /// Like [`Client::resource`], or the kinds of a category (`all`).
    pub async fn resources(&self, called: &str) -> anyhow::Result<Vec<Resource>> {
        let (wanted, documents) = (called.to_lowercase(), self.documents().await?);
        let entries = documents
            .iter()
            .flat_map(|(group, version, entries)| entries.iter().map(move |entry| (group, version, entry)));
        if let Some((group, version, entry)) =
            entries.clone().find(|(group, _, entry)| names(entry, group).any(|name| name == wanted))
        {
            return Ok(vec![resource(group, version, entry)]);
        }
        let of_category = entries.filter(|(_, _, entry)| is_in_category(entry, &wanted));
        let found: Vec<_> = of_category.map(|(group, version, entry)| resource(group, version, entry)).collect();
        if found.is_empty() {
            bail!("the server doesn't have a resource type {called:?}");
        }
        Ok(found)
    }

    /// What is said when there is nothing to show; `anywhere`: of what was asked, something is in no namespace, or all are meant.
    pub fn nothing_found(&self, anywhere: bool) -> String {
        if anywhere {
            return "No resources found".to_owned();
        }
        format!("No resources found in {} namespace.", self.namespace)
    }

    /// Every group and version with its resources' discovery entries.
    async fn documents(&self) -> anyhow::Result<Vec<(String, String, Vec<Value>)>> {
        let mut paths = vec![(String::new(), "v1".to_owned(), "/api/v1".to_owned())];
        let groups = self.read("/apis").await?;
        for group in groups.get("groups").and_then(Value::as_array).into_iter().flatten() {
            let name = text(group, "name");
            let version = group.pointer("/preferredVersion/version").and_then(Value::as_str).unwrap_or_default();
            paths.push((name.to_owned(), version.to_owned(), format!("/apis/{name}/{version}")));
        }
        let mut all = Vec::with_capacity(paths.len());
        for (group, version, path) in paths {
            let document = self.read(&path).await?;
            let entries = document.get("resources").and_then(Value::as_array).cloned().unwrap_or_default();
            all.push((group, version, entries));
        }
        Ok(all)
    }
}

/// What a person may do about what stands between.
fn advice(fault: Fault) -> &'static str {
    match fault {
        Fault::Name | Fault::Unroutable | Fault::NotTls | Fault::NotHttp => "; check its address in the kubeconfig",
        Fault::Authority => {
            "; the kubeconfig is another cluster's, or of before this one was made anew: `wherry kubeconfig` prints the \
             present one"
        }
        Fault::Misnamed => "; reach it by a name of its certificate, or set tls-server-name in the kubeconfig",
        Fault::Client => "; the kubeconfig is out of date: `wherry kubeconfig` prints the present one",
        Fault::Refused
        | Fault::Late
        | Fault::Closed
        | Fault::Expired
        | Fault::Early
        | Fault::NotServers
        | Fault::Certificate => "",
    }
}

/// Finds the kind of an object.
pub fn resource_of(discovery: &Discovery, api_version: &str, kind: &str) -> anyhow::Result<Resource> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let gvk = kube::core::GroupVersionKind::gvk(group, version, kind);
    let (api, ApiCapabilities { scope, .. }) = discovery
        .resolve_gvk(&gvk)
        .with_context(|| format!("the server does not know kind {kind:?} in version {api_version:?}"))?;
    Ok(Resource { api, namespaced: scope == Scope::Namespaced })
}

/// The plain representation.
pub const JSON: &str = "application/json";

/// The server's table of objects, or the plain representation from who makes no tables.
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// An error answer in the server's words.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    pub code: u16,
    pub message: String,
    /// The fields that others manage, and who: what a server-side apply would take from them.
    pub conflicts: Vec<(String, String)>,
}

impl Refused {
    fn new(code: u16, message: String) -> Self {
        let message = if code == 401 { format!("You must be logged in to the server ({message})") } else { message };
        Self { code, message, conflicts: Vec::new() }
    }

    /// From a `Status`, or the errors of an OCI registry; `None` if the body is neither.
    fn of(code: u16, body: &Value) -> Option<Self> {
        if let Some(errors) = body.get("errors").and_then(Value::as_array) {
            let told = errors.iter().map(|error| match text(error, "message") {
                "" => text(error, "code").to_owned(),
                message => message.to_owned(),
            });
            return Some(Self::new(code, told.collect::<Vec<_>>().join("; ")));
        }
        let message = body.get("message")?.as_str()?;
        let causes = body.pointer("/details/causes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let message = listed(message, causes);
        let conflicts = causes.iter().filter(|cause| text(cause, "reason") == "FieldManagerConflict");
        let conflict = |cause: &Value| (text(cause, "field").to_owned(), text(cause, "message").to_owned());
        Some(Self { conflicts: conflicts.map(conflict).collect(), ..Self::new(code, message) })
    }
}

/// A message about several mistakes with each on a line of its own, as kubectl shows them.
fn listed(message: &str, causes: &[Value]) -> String {
    match message.split_once(" is invalid: [") {
        Some((what, _)) if causes.len() > 1 => {
            let lines = causes.iter().map(|cause| format!("\n* {}: {}", text(cause, "field"), text(cause, "message")));
            format!("{what} is invalid:{}", lines.collect::<String>())
        }
        _ => message.to_owned(),
    }
}

/// Whether an error is the server's answer with this code.
pub fn is_code(error: &anyhow::Error, code: u16) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.code == code)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// What a discovery entry may be called.
fn names<'a>(entry: &'a Value, group: &'a str) -> impl Iterator<Item = String> + 'a {
    let plural = text(entry, "name");
    let own = [plural, text(entry, "singularName")].into_iter().map(str::to_owned);
    let kind = [text(entry, "kind").to_lowercase()];
    let short = entry.get("shortNames").and_then(Value::as_array).into_iter().flatten();
    let short = short.filter_map(Value::as_str).map(str::to_owned);
    let qualified = [format!("{plural}.{group}")];
    own.chain(kind).chain(short).chain(qualified).filter(move |name| !name.is_empty() && !plural.contains('/'))
}

fn is_in_category(entry: &Value, wanted: &str) -> bool {
    let categories = entry.get("categories").and_then(Value::as_array).into_iter().flatten();
    categories.into_iter().any(|category| category.as_str() == Some(wanted))
}

fn resource(group: &str, version: &str, entry: &Value) -> Resource {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let api = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: text(entry, "kind").to_owned(),
        plural: text(entry, "name").to_owned(),
    };
    Resource { api, namespaced: entry.get("namespaced").and_then(Value::as_bool).unwrap_or_default() }
}

impl Resource {
    /// Whether it is this kind.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.api.group == group && self.api.plural == plural
    }

    /// One path per name; without names the collection's, with a label selector.
    pub fn paths(&self, namespace: Option<&str>, names: &[String], selector: Option<&str>) -> Vec<String> {
        if !names.is_empty() {
            return names.iter().map(|name| self.path(namespace, Some(name))).collect();
        }
        let query = selector.map(|selector| {
            let encoded: String = url::form_urlencoded::byte_serialize(selector.as_bytes()).collect();
            format!("?labelSelector={encoded}")
        });
        vec![self.path(namespace, None) + &query.unwrap_or_default()]
    }

    /// The path of the collection, or of one object.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let root = if self.api.group.is_empty() { "/api" } else { "/apis" };
        let namespace = namespace.filter(|_| self.namespaced).map(|ns| format!("/namespaces/{ns}")).unwrap_or_default();
        let name = name.map(|name| format!("/{name}")).unwrap_or_default();
        format!("{root}/{}{namespace}/{}{name}", self.api.api_version, self.api.plural)
    }

    /// `deployment.apps/hello`: how an object is named to a person.
    pub fn named(&self, name: &str) -> String {
        let kind = self.api.kind.to_lowercase();
        if self.api.group.is_empty() { format!("{kind}/{name}") } else { format!("{kind}.{}/{name}", self.api.group) }
    }
}

/// Shows the server's warnings (RFC 7234 `Warning: 299 - "…"`), each once.
fn warn(headers: &http::HeaderMap) {
    let mut shown: Vec<&str> = Vec::new();
    for warning in headers.get_all(http::header::WARNING) {
        let Some(text) =
            warning.to_str().ok().and_then(|w| w.split_once('"')).and_then(|(_, rest)| rest.rsplit_once('"'))
        else {
            continue;
        };
        if !shown.contains(&text.0) {
            shown.push(text.0);
            crate::output::note(format!("Warning: {}", text.0.replace("\\\"", "\"")));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_answer_is_told_in_the_servers_words() {
        let told = |code, body: Value| Refused::of(code, &body).map(|refused| refused.message);
        assert_eq!(told(404, json!({"kind": "Status", "message": "not there"})).as_deref(), Some("not there"));
        let registry = json!({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "no v2"}, {"code": "DENIED"}]});
        assert_eq!(told(404, registry).as_deref(), Some("no v2; DENIED"));
        let unauthorized = told(401, json!({"message": "Unauthorized"}));
        assert_eq!(unauthorized.as_deref(), Some("You must be logged in to the server (Unauthorized)"));
        assert_eq!(told(500, json!({"a": 1})), None);
        let several = json!({"message": "Pod \"x\" is invalid: [spec.a: Required value, spec.b: Too long]", "details": {"causes": [
            {"field": "spec.a", "message": "Required value"}, {"field": "spec.b", "message": "Too long"}]}});
        let each = "Pod \"x\" is invalid:\n* spec.a: Required value\n* spec.b: Too long";
        assert_eq!(told(422, several).as_deref(), Some(each));
    }
}
