//! Discovery: what is served, derived from the registry and from what other servers say of theirs.
//!
//! Both forms that clients ask for: one document per level (`/api`, `/apis`, `/apis/GROUP`, `/apis/GROUP/VERSION`), and
//! the aggregated one (`apidiscovery.k8s.io`, v2 and v2beta1). A document is made on first use and then sent as it is; a change
//! keeps those of the group versions that it is not about.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use wherry_api::kinds::apiregistration::priorities::{self, CUSTOM, Priority};
use wherry_api::registry::Registry;
use wherry_api::resource::{Descriptor, Subresource};
use wherry_api::status::ApiError;

use super::aggregation::{Remote, Remotes};
use super::answer::JSON;
use super::body::{self, Body};
use super::negotiate::{self, Range};
use super::subresources;
use crate::hex;

/// The version of Kubernetes whose API this is.
const KUBERNETES: (&str, &str) = ("1", "36");

/// A document and how it is sent.
#[derive(Clone, Debug)]
struct Document {
    bytes: Bytes,
    etag: HeaderValue,
}

/// Aggregated discovery's versions, as clients ask for them and as they are answered.
const AGGREGATED: [&str; 2] = ["v2", "v2beta1"];

/// The aggregated form's version, or the plain form.
type Form = Option<&'static str>;

/// All discovery documents of one moment.
#[derive(Debug)]
pub struct Discovery {
    /// Where clients reach the server, `HOST:PORT`.
    address: String,
    registry: Registry,
    remotes: Arc<Remotes>,
    /// Those that were asked for, by path without its trailing slash. Bound: the documents there are.
    made: Mutex<HashMap<(String, Form), Document>>,
}

impl Discovery {
    pub(super) fn new(registry: Registry, remotes: Arc<Remotes>, address: String) -> Self {
        Self { address, registry, remotes, made: Mutex::default() }
    }

    /// Of other kinds and servers, with the documents that are the same.
    pub(super) fn after(&self, registry: Registry, remotes: Arc<Remotes>) -> Self {
        let same = self.registry.in_common(&registry);
        let keeps = |path: &str| match place(path) {
            Place::Version(group, version) => {
                same.contains(&(group, version)) && remotes.find(group, version).is_none()
            }
            Place::Fixed => path == "/version",
            Place::Group(_) | Place::Nowhere => false,
        };
        let mut made = self.made.lock().clone();
        made.retain(|(path, _), _| keeps(path));
        let made = Mutex::new(made);
        Self { address: self.address.clone(), registry, remotes, made }
    }

    /// Answers a GET of a discovery path: 404 for what is not served, 406 for what the client does not accept.
    pub fn respond(&self, path: &str, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
        let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        if matches!(path, "/api" | "/apis")
            && let Some(version) = accepted(headers)?
        {
            let document = self.document(path, Some(version)).ok_or_else(ApiError::no_such_path)?;
            let media = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
            return Ok(send(&document, HeaderValue::try_from(media).unwrap_or(JSON), headers));
        }
        let document = self.document(path, None).ok_or_else(ApiError::no_such_path)?;
        accepted(headers)?;
        Ok(send(&document, JSON, headers))
    }

    /// Two callers may both make the first one.
    fn document(&self, path: &str, form: Form) -> Option<Document> {
        let key = (path.to_owned(), form);
        if let Some(document) = self.made.lock().get(&key) {
            return Some(document.clone());
        }
        let new = document(&self.make(path, form)?);
        Some(self.made.lock().entry(key).or_insert(new).clone())
    }

    fn make(&self, path: &str, form: Form) -> Option<Value> {
        let groups = || groups(&self.registry, &self.remotes);
        match (place(path), form) {
            (Place::Fixed, Some(api)) => Some(aggregated_list(&groups(), api, path == "/api")),
            (Place::Fixed, None) => Some(match path {
                "/" => index(&groups()),
                "/version" => version(),
                "/api" => legacy(&groups(), &self.address),
                _ => group_list(&groups()),
            }),
            (Place::Group(name), _) => {
                let groups = groups();
                let (_, versions) = groups.iter().find(|(group, _)| *group == name)?;
                let mut group = group(name, versions);
                with_type(&mut group, "APIGroup", "v1");
                Some(group)
            }
            // The other server shows its own.
            (Place::Version(group, version), _) if self.remotes.find(group, version).is_none() => {
                let own = self.registry.iter().filter(|kind| kind.group == group && kind.version == version);
                let mut own: Vec<&Descriptor> = own.map(AsRef::as_ref).collect();
                own.sort_by(|a, b| a.plural.cmp(&b.plural));
                (!own.is_empty()).then(|| resource_list(&own))
            }
            _ => None,
        }
    }
}

/// What a path shows.
enum Place<'a> {
    Fixed,
    Group(&'a str),
    Version(&'a str, &'a str),
    Nowhere,
}

fn place(path: &str) -> Place<'_> {
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["", "" | "version" | "api" | "apis"] => Place::Fixed,
        ["", "api", version] => Place::Version("", version),
        ["", "apis", group] if !group.is_empty() => Place::Group(group),
        ["", "apis", group, version] if !group.is_empty() => Place::Version(group, version),
        _ => Place::Nowhere,
    }
}

/// Paths of every server.
const PATHS: [&str; 11] = [
    "/.well-known/openid-configuration",
    "/api",
    "/apis",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/readyz",
    "/version",
];

/// What there is, for who asks for nothing else.
fn index(groups: &[(&str, Versions<'_>)]) -> Value {
    let mut paths: Vec<String> = PATHS.map(str::to_owned).into();
    for (group, versions) in groups {
        let root = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
        paths.extend(versions.iter().map(|(version, _)| format!("{root}/{version}")));
        paths.extend((!group.is_empty()).then_some(root));
    }
    paths.sort();
    json!({"paths": paths})
}

fn send(document: &Document, media: HeaderValue, headers: &HeaderMap) -> Response<Body> {
    let unchanged = document.etag.to_str().is_ok_and(|etag| negotiate::has(headers, etag));
    let mut response = Response::new(if unchanged { body::empty() } else { body::full(document.bytes.clone()) });
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, media);
    out.insert(ETAG, document.etag.clone());
    out.insert(VARY, HeaderValue::from_static("Accept"));
    response
}

/// The aggregated version that the client prefers to the plain form, if any. Error: 406.
fn accepted(headers: &HeaderMap) -> Result<Form, ApiError> {
    let form = |range: &Range<'_>| match (range.parameter("as"), range.parameter("g")) {
        ("", _) => Some(None),
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io") => {
            AGGREGATED.into_iter().find(|version| *version == range.parameter("v")).map(Some)
        }
        _ => None,
    };
    let preferred = negotiate::preferred(headers, |range| if range.is_json() { form(range) } else { None });
    preferred.ok_or_else(negotiate::only_json)
}

/// Who serves a version of a group.
enum Source<'a> {
    Here(Vec<&'a Descriptor>),
    There(&'a Remote),
}

type Versions<'a> = Vec<(&'a str, Source<'a>)>;

/// Groups by their priority, each with its versions, the preferred one first.
fn groups<'a>(registry: &'a Registry, remotes: &'a Remotes) -> Vec<(&'a str, Versions<'a>)> {
    let mut groups: BTreeMap<&str, BTreeMap<&str, Source<'_>>> = BTreeMap::new();
    for remote in remotes.iter() {
        groups.entry(&remote.group).or_default().insert(&remote.version, Source::There(remote));
    }
    for descriptor in registry.iter() {
        let version = groups.entry(&descriptor.group).or_default().entry(&descriptor.version);
        if let Source::Here(resources) = version.or_insert_with(|| Source::Here(Vec::new())) {
            resources.push(descriptor);
        }
    }
    let mut ranked: Vec<(i32, &str, Versions<'_>)> = Vec::new();
    for (group, versions) in groups {
        let mut versions: Vec<_> =
            versions.into_iter().map(|(v, source)| (rank(group, v, &source), v, source)).collect();
        versions.sort_by_key(|(rank, version, _)| std::cmp::Reverse((rank.version, priority(version))));
        let first = versions.iter().map(|(rank, ..)| rank.group).max().unwrap_or_default();
        let versions = versions.into_iter().map(|(_, version, mut source)| {
            if let Source::Here(resources) = &mut source {
                resources.sort_by(|a, b| a.plural.cmp(&b.plural));
            }
            (version, source)
        });
        ranked.push((first, group, versions.collect()));
    }
    // Stable: groups of the same rank stay by name.
    ranked.sort_by_key(|(rank, ..)| std::cmp::Reverse(*rank));
    ranked.into_iter().map(|(_, group, versions)| (group, versions)).collect()
}

/// Where a version stands: as its APIService says, which for those of this server is known.
fn rank(group: &str, version: &str, source: &Source<'_>) -> Priority {
    match source {
        Source::There(remote) => remote.priority,
        Source::Here(_) if group == priorities::GROUP => Priority { group: i32::MAX, version: 0 },
        Source::Here(_) => priorities::built_in(group, version).unwrap_or(CUSTOM),
    }
}

/// Kubernetes' order of versions: stable before beta before alpha, then by number; anything else last.
fn priority(version: &str) -> (u8, u32, u32) {
    fn parse(version: &str) -> Option<(u8, u32, u32)> {
        let rest = version.strip_prefix('v')?;
        for (word, rank) in [("alpha", 1), ("beta", 2)] {
            if let Some((major, minor)) = rest.split_once(word) {
                return Some((rank, major.parse().ok()?, minor.parse().ok()?));
            }
        }
        Some((3, rest.parse().ok()?, 0))
    }
    parse(version).unwrap_or_default()
}

fn document(value: &Value) -> Document {
    let bytes = Bytes::from(value.to_string());
    let digest = hex::lower(Sha256::digest(&bytes)).to_uppercase();
    let etag = HeaderValue::try_from(format!("\"{digest}\"")).unwrap_or(HeaderValue::from_static("\"\""));
    Document { bytes, etag }
}

fn with_type(value: &mut Value, kind: &str, api_version: &str) {
    if let Value::Object(map) = value {
        map.insert("kind".to_owned(), kind.into());
        map.insert("apiVersion".to_owned(), api_version.into());
    }
}

/// `/version`.
fn version() -> Value {
    let (major, minor) = KUBERNETES;
    let platform = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": major,
        "minor": minor,
        "gitVersion": format!("v{major}.{minor}.0+wherry-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": env!("WHERRY_COMMIT"),
        "gitTreeState": "clean",
        "buildDate": env!("WHERRY_BUILD_DATE"),
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{platform}", std::env::consts::OS),
    })
}

fn legacy(groups: &[(&str, Versions<'_>)], address: &str) -> Value {
    let versions: Vec<&str> = groups
        .iter()
        .filter(|(name, _)| name.is_empty())
        .flat_map(|(_, versions)| versions.iter().map(|(version, _)| *version))
        .collect();
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

fn group_list(groups: &[(&str, Versions<'_>)]) -> Value {
    let named = groups.iter().filter(|(name, _)| !name.is_empty());
    let groups: Vec<Value> = named.map(|(name, versions)| group(name, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group(name: &str, versions: &Versions<'_>) -> Value {
    let entry = |version: &str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let all: Vec<Value> = versions.iter().map(|(version, _)| entry(version)).collect();
    json!({"name": name, "preferredVersion": all.first(), "versions": all})
}

/// Adds a list of names if it is not empty.
fn names(map: &mut Map<String, Value>, key: &str, list: &[std::borrow::Cow<'static, str>]) {
    if !list.is_empty() {
        map.insert(key.to_owned(), list.iter().map(|name| Value::from(&**name)).collect());
    }
}

/// Group, version and kind of what a subresource exchanges.
fn exchanged<'a>(of: &'a Descriptor, sub: &'a Subresource) -> (&'a str, &'a str, &'a str) {
    match sub {
        Subresource::Status | Subresource::Part(_) => (&of.group, &of.version, &of.kind),
        Subresource::Scale(_) => ("autoscaling", "v1", "Scale"),
        Subresource::Named(named) => match &named.group_version {
            Some((group, version)) => (group, version, &named.kind),
            None => (&of.group, &of.version, &named.kind),
        },
    }
}

fn resource_list(resources: &[&Descriptor]) -> Value {
    let rows: Vec<Value> = resources.iter().flat_map(|resource| resource_rows(resource)).collect();
    let api_version = resources.first().map(|r| r.api_version()).unwrap_or_default();
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": rows})
}

fn resource_rows(resource: &Descriptor) -> Vec<Value> {
    let mut row = Map::new();
    row.insert("name".to_owned(), (*resource.plural).into());
    row.insert("singularName".to_owned(), (*resource.singular).into());
    row.insert("namespaced".to_owned(), resource.namespaced().into());
    row.insert("kind".to_owned(), (*resource.kind).into());
    row.insert("verbs".to_owned(), resource.verbs.into());
    names(&mut row, "shortNames", &resource.short_names);
    names(&mut row, "categories", &resource.categories);
    if resource.verbs.contains(&"list") {
        row.insert("storageVersionHash".to_owned(), storage_hash(resource).into());
    }
    let mut rows = vec![Value::Object(row)];
    for sub in &resource.subresources {
        let (group, version, kind) = exchanged(resource, sub);
        let mut row = json!({
            "name": format!("{}/{}", resource.plural, sub.name()),
            "singularName": "",
            "namespaced": resource.namespaced(),
            "kind": kind,
            "verbs": subresources::verbs(sub),
        });
        if (group, version) != (&*resource.group, &*resource.version)
            && let Value::Object(row) = &mut row
        {
            row.insert("group".to_owned(), group.into());
            row.insert("version".to_owned(), version.into());
        }
        rows.push(row);
    }
    rows
}

/// Changes when the stored version does; Kubernetes' formula.
fn storage_hash(resource: &Descriptor) -> String {
    use base64::Engine;
    let text = format!("{}/{}/{}", resource.group, resource.version, resource.kind);
    let digest = Sha256::digest(text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest.get(..8).unwrap_or_default())
}

fn aggregated_list(groups: &[(&str, Versions<'_>)], api: &str, legacy: bool) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .filter(|(name, _)| name.is_empty() == legacy)
        .map(|(name, versions)| {
            let metadata = if name.is_empty() {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": name, "creationTimestamp": null})
            };
            let versions: Vec<Value> = versions
                .iter()
                .map(|(version, source)| {
                    let (resources, current) = match source {
                        Source::Here(own) => (own.iter().map(|r| aggregated_resource(r)).collect(), true),
                        Source::There(remote) => (remote.said().resources.clone(), remote.said().current),
                    };
                    let freshness = if current { "Current" } else { "Stale" };
                    json!({"version": version, "resources": resources, "freshness": freshness})
                })
                .collect();
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{api}"),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(resource: &Descriptor) -> Value {
    let response =
        |(group, version, kind): (&str, &str, &str)| json!({"group": group, "version": version, "kind": kind});
    let mut map = Map::new();
    map.insert("resource".to_owned(), (*resource.plural).into());
    map.insert("responseKind".to_owned(), response((&resource.group, &resource.version, &resource.kind)));
    map.insert("scope".to_owned(), if resource.namespaced() { "Namespaced" } else { "Cluster" }.into());
    map.insert("singularResource".to_owned(), (*resource.singular).into());
    map.insert("verbs".to_owned(), resource.verbs.into());
    names(&mut map, "shortNames", &resource.short_names);
    names(&mut map, "categories", &resource.categories);
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|sub| {
            let kind = response(exchanged(resource, sub));
            json!({"subresource": sub.name(), "responseKind": kind, "verbs": subresources::verbs(sub)})
        })
        .collect();
    if !subresources.is_empty() {
        map.insert("subresources".to_owned(), subresources.into());
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests;
