//! The client commands' connection: which kubeconfig, which namespace, and requests that ask the server for its own
//! tables and words.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use http_body_util::BodyExt;
use kube::api::ApiResource;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::{ApiCapabilities, Discovery, Scope};
use serde_json::Value;

use crate::data_dir;

/// Which cluster, and as whom.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// The kubeconfig [default: $KUBECONFIG, else DATA-DIR/admin.kubeconfig]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    kubeconfig: Option<PathBuf>,
    /// The namespace [default: the kubeconfig's]
    #[arg(long, short, global = true, value_name = "NAMESPACE", help_heading = "Connection")]
    namespace: Option<String>,
}

/// A connected client.
#[derive(Clone)]
pub struct Client {
    pub kube: kube::Client,
    pub namespace: String,
}

/// A kind as the server serves it.
#[derive(Clone, Debug)]
pub struct Resource {
    pub api: ApiResource,
    pub namespaced: bool,
}

impl Connection {
    /// Connects. Nothing is sent yet.
    pub async fn open(&self) -> anyhow::Result<Client> {
        let kubeconfig = self.read()?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .context("the kubeconfig cannot be used")?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok(Client { kube: kube::Client::try_from(config).context("the kubeconfig cannot be used")?, namespace })
    }

    fn read(&self) -> anyhow::Result<Kubeconfig> {
        if let Some(path) = &self.kubeconfig {
            return Kubeconfig::read_from(path).with_context(|| format!("{} cannot be read", path.display()));
        }
        if let Some(kubeconfig) = Kubeconfig::from_env().context("$KUBECONFIG cannot be read")? {
            return Ok(kubeconfig);
        }
        let path = data_dir::default_path()?.join("admin.kubeconfig");
        if !path.exists() {
            bail!(
                "there is no cluster to talk to: run `wherry up`, or set $KUBECONFIG ({} does not exist)",
                path.display()
            );
        }
        Kubeconfig::read_from(&path).with_context(|| format!("{} cannot be read", path.display()))
    }
}

impl Client {
    pub fn new(kube: kube::Client) -> Self {
        Self { namespace: kube.default_namespace().to_owned(), kube }
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
        let response = self.kube.send(request.body(body)?).await.context("the server cannot be reached")?;
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
        let wanted = called.to_lowercase();
        for version in self.documents().await? {
            let (group, version, entries) = version;
            for entry in entries {
                if names(&entry, &group).any(|name| name == wanted) {
                    return Ok(resource(&group, &version, &entry));
                }
            }
        }
        bail!("the server doesn't have a resource type {called:?}")
    }

    /// What is said when there is nothing to show.
    pub fn nothing_found(&self, everywhere: bool) -> String {
        let place = if everywhere { String::new() } else { format!(" in {} namespace", self.namespace) };
        format!("No resources found{place}")
    }

    /// Every group and version with its resources' discovery entries.
    async fn documents(&self) -> anyhow::Result<Vec<(String, String, Vec<Value>)>> {
        let mut paths = vec![(String::new(), "v1".to_owned(), "/api/v1".to_owned())];
        let groups: Value = serde_json::from_slice(&self.request(http::Method::GET, "/apis", JSON, None).await?)?;
        for group in groups.get("groups").and_then(Value::as_array).into_iter().flatten() {
            let name = text(group, "name");
            let version = group.pointer("/preferredVersion/version").and_then(Value::as_str).unwrap_or_default();
            paths.push((name.to_owned(), version.to_owned(), format!("/apis/{name}/{version}")));
        }
        let mut all = Vec::with_capacity(paths.len());
        for (group, version, path) in paths {
            let document: Value = serde_json::from_slice(&self.request(http::Method::GET, &path, JSON, None).await?)?;
            let entries = document.get("resources").and_then(Value::as_array).cloned().unwrap_or_default();
            all.push((group, version, entries));
        }
        Ok(all)
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
    /// From a `Status`; `None` if the body is none.
    fn of(code: u16, body: &Value) -> Option<Self> {
        let message = body.get("message")?.as_str()?.to_owned();
        let causes = body.pointer("/details/causes").and_then(Value::as_array).into_iter().flatten();
        let conflicts = causes.filter(|cause| text(cause, "reason") == "FieldManagerConflict");
        let conflict = |cause: &Value| (text(cause, "field").to_owned(), text(cause, "message").to_owned());
        Some(Self { code, message, conflicts: conflicts.map(conflict).collect() })
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

/// `KIND/NAME` as a kind and a name before the others.
pub fn kind_and_names(kind: String, mut names: Vec<String>) -> (String, Vec<String>) {
    match kind.split_once('/') {
        Some((kind, name)) => {
            names.insert(0, name.to_owned());
            (kind.to_owned(), names)
        }
        None => (kind, names),
    }
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
