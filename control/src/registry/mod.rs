//! An image registry, so that a site needs no other: the OCI distribution protocol at `/v2/`, push and pull.
//!
//! Repositories are `NAMESPACE/NAME`; who may `get`, `create` or `delete` `images.wherry.dev` in a namespace may pull, push
//! or delete there. What must stay true: nothing is served whose content does not have the digest it is asked by.

mod answer;
mod digest;
mod disk;
mod error;
mod manifest;
mod route;
mod uploads;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RANGE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::io::AsyncSeekExt;

pub use self::digest::{Digest, NotADigest};
pub use self::error::RegistryError;
pub use self::route::{Reference, Repository};

use self::answer::{base, created, empty, file_body, listing, progress};
use self::disk::{Disk, StoredManifest};
use self::route::Route;
use self::uploads::Uploads;
use crate::auth::{Attributes, Authorizer, Decision, UserInfo};
use crate::server::body::{self, Body, GatherError};

/// The largest manifest, as other registries have it.
const MAX_MANIFEST: usize = 4 << 20;
/// The most entries in one page of tags or of the catalog.
const MAX_PAGE: usize = 1000;

const DOCKER_DIGEST: &str = "docker-content-digest";
const OCTETS: &str = "application/octet-stream";
const IMAGE_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    disk: Disk,
    uploads: Arc<Uploads>,
    authorizer: Arc<dyn Authorizer>,
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images").field("disk", &self.disk).finish_non_exhaustive()
    }
}

type Answer = Result<Response<Body>, RegistryError>;

impl Images {
    /// Opens the registry in a directory, which it makes, and removes what nothing refers to any more. Blocks.
    pub fn open(dir: &Path, authorizer: Arc<dyn Authorizer>) -> Result<Self, RegistryError> {
        let disk = Disk::open(dir)?;
        let freed = disk.collect(SystemTime::now())?;
        if freed > 0 {
            tracing::info!(bytes = freed, "removed images' contents that nothing refers to");
        }
        Ok(Self { uploads: Arc::new(Uploads::new(disk.clone())), disk, authorizer })
    }

    /// Answers a request below `/v2/`. Authorization happens here, since what is asked is in the path. `exists` says of a
    /// namespace whether it is there.
    pub fn handle(
        &self,
        request: Request<Body>,
        user: &UserInfo,
        exists: impl Fn(&str) -> bool,
    ) -> BoxFuture<'static, Response<Body>> {
        let (images, user) = (self.clone(), user.clone());
        let route = Route::parse(request.uri().path());
        let named = route.as_ref().ok().and_then(Route::repository).map(|repository| repository.namespace.clone());
        let lost = named.filter(|namespace| verb(request.method()) == "create" && !exists(namespace));
        let head = request.method() == Method::HEAD;
        Box::pin(async move {
            let response = match images.answer(request, route, lost, &user).await {
                Ok(response) => response,
                Err(error) => error.respond(),
            };
            if head { response.map(|_| body::empty()) } else { response }
        })
    }

    /// `lost`: the namespace that is to have an image and does not exist.
    async fn answer(
        &self,
        request: Request<Body>,
        route: Result<Route, RegistryError>,
        lost: Option<String>,
        user: &UserInfo,
    ) -> Answer {
        if user.is_anonymous() {
            return Err(RegistryError::Unauthenticated);
        }
        let route = route?;
        let (parts, body) = request.into_parts();
        let call = Call { query: Parameters::parse(parts.uri.query()), method: parts.method, headers: parts.headers };
        self.authorize(user, &route, &call).boxed().await?;
        if let Some(namespace) = lost {
            return Err(RegistryError::NoNamespace(namespace));
        }
        match route {
            Route::Base if call.reads() => base(),
            Route::Catalog if call.reads() => self.catalog(&call).boxed().await,
            Route::Tags(repository) if call.reads() => self.tags(repository, &call).boxed().await,
            Route::Referrers(repository, subject) if call.reads() => {
                self.referrers(repository, subject, &call).boxed().await
            }
            Route::Manifest(repository, reference) => self.manifest(repository, reference, &call, body).boxed().await,
            Route::Blob(repository, digest) => self.blob(repository, digest, &call).boxed().await,
            Route::Uploads(repository) if call.method == Method::POST => {
                self.begin_upload(repository, &call, body, user).boxed().await
            }
            Route::Upload(repository, id) => self.upload(repository, &id, &call, body).boxed().await,
            _ => Err(RegistryError::Method),
        }
    }

    async fn authorize(&self, user: &UserInfo, route: &Route, call: &Call) -> Result<(), RegistryError> {
        let (verb, namespace, name) = match (route, route.repository()) {
            (Route::Catalog, _) => ("list", call.namespace().unwrap_or_default().to_owned(), String::new()),
            (_, Some(repository)) => (verb(&call.method), repository.namespace.clone(), repository.name.clone()),
            (_, None) => return Ok(()),
        };
        let attributes = images(verb, namespace, name);
        match self.authorizer.authorize(user, &attributes).await {
            Decision::Allow => Ok(()),
            Decision::Deny(_) => {
                let repository = route.repository().map_or_else(|| "_catalog".to_owned(), ToString::to_string);
                Err(RegistryError::Denied { repository })
            }
        }
    }

    async fn may_read(&self, user: &UserInfo, repository: &Repository) -> bool {
        let attributes = images("get", repository.namespace.clone(), repository.name.clone());
        self.authorizer.authorize(user, &attributes).await.allowed()
    }

    /// Runs file work on a thread for it.
    fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> std::io::Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, RegistryError>> {
        let disk = self.disk.clone();
        let task = tokio::task::spawn_blocking(move || work(&disk));
        Box::pin(async move { Ok(task.await??) })
    }

    /// All repositories, or with `?namespace=` those of one, which who may list there needs no more rights for.
    async fn catalog(&self, call: &Call) -> Answer {
        let all = self.on_disk(Disk::repositories).await?;
        let asked = |repository: &&Repository| call.namespace().is_none_or(|wanted| repository.namespace == wanted);
        let all = all.iter().filter(asked).map(ToString::to_string).collect();
        let (page, link) = page(all, call, "/v2/_catalog")?;
        listing(&json!({"repositories": page}), link)
    }

    async fn tags(&self, repository: Repository, call: &Call) -> Answer {
        let name = repository.to_string();
        let tags = self.on_disk(move |disk| disk.tags(&repository)).await?;
        let tags = tags.ok_or_else(|| RegistryError::NameUnknown(name.clone()))?;
        let (page, link) = page(tags, call, &format!("/v2/{name}/tags/list"))?;
        listing(&json!({"name": name, "tags": page}), link)
    }

    async fn referrers(&self, repository: Repository, subject: Digest, call: &Call) -> Answer {
        let mut found = self
            .on_disk(move |disk| {
                let mut found = Vec::new();
                for digest in disk.manifests(&repository)? {
                    if let Some(m) = disk.manifest(&repository, &digest)? {
                        found.extend(manifest::referrer(&m.bytes, &m.media_type, &digest, &subject));
                    }
                }
                Ok(found)
            })
            .await?;
        let wanted = call.query.get("artifactType");
        if let Some(wanted) = wanted {
            found.retain(|d| d.get("artifactType").and_then(serde_json::Value::as_str) == Some(wanted));
        }
        let index = json!({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": found});
        let mut response = Response::builder().header(CONTENT_TYPE, IMAGE_INDEX);
        if wanted.is_some() {
            response = response.header("oci-filters-applied", "artifactType");
        }
        Ok(response.body(body::full(index.to_string()))?)
    }

    async fn manifest(&self, repository: Repository, reference: Reference, call: &Call, body: Body) -> Answer {
        match call.method {
            Method::GET | Method::HEAD => self.get_manifest(repository, reference, call).await,
            Method::PUT => self.put_manifest(repository, reference, call, body).await,
            Method::DELETE => {
                let name = reference.to_string();
                let deleted = self.on_disk(move |disk| disk.delete_manifest(&repository, &reference)).await?;
                if deleted { empty(StatusCode::ACCEPTED) } else { Err(RegistryError::ManifestUnknown(name)) }
            }
            _ => Err(RegistryError::Method),
        }
    }

    async fn get_manifest(&self, repository: Repository, reference: Reference, call: &Call) -> Answer {
        let name = reference.to_string();
        let stored = self
            .on_disk(move |disk| match disk.resolve(&repository, &reference)? {
                Some(digest) => disk.manifest(&repository, &digest),
                None => Ok(None),
            })
            .await?;
        let stored = stored.ok_or(RegistryError::ManifestUnknown(name))?;
        if Digest::of(&stored.bytes) != stored.digest {
            return Err(RegistryError::Io(std::io::Error::other(format!("{} is damaged", stored.digest))));
        }
        let etag = format!("\"{}\"", stored.digest);
        let response = Response::builder().header(DOCKER_DIGEST, stored.digest.to_string()).header(ETAG, &etag);
        if call.header(IF_NONE_MATCH.as_str()) == Some(&etag) {
            return Ok(response.status(StatusCode::NOT_MODIFIED).body(body::empty())?);
        }
        let response = response.header(CONTENT_TYPE, stored.media_type).header(CONTENT_LENGTH, stored.bytes.len());
        Ok(response.body(body::full(stored.bytes))?)
    }

    async fn put_manifest(&self, repository: Repository, reference: Reference, call: &Call, body: Body) -> Answer {
        let bytes = manifest_bytes(body).await?;
        let parsed = manifest::parse(&bytes, call.header(CONTENT_TYPE.as_str()).unwrap_or_default())?;
        let digest = Digest::of(&bytes);
        let tag = match &reference {
            Reference::Tag(tag) => Some(tag.clone()),
            Reference::Digest(expected) if *expected == digest => None,
            Reference::Digest(expected) => {
                return Err(RegistryError::Mismatch { expected: expected.clone(), actual: digest });
            }
        };
        let location = format!("/v2/{repository}/manifests/{digest}");
        let stored =
            StoredManifest { digest: digest.clone(), media_type: parsed.media_type.clone(), bytes: bytes.to_vec() };
        let subject = parsed.subject.clone();
        let missing = self
            .on_disk(move |disk| {
                let missing = first_missing(disk, &repository, &parsed)?;
                if missing.is_none() {
                    disk.put_manifest(&repository, &stored, tag.as_deref())?;
                }
                Ok(missing)
            })
            .await?;
        if let Some(missing) = missing {
            return Err(RegistryError::ManifestBlobUnknown(missing));
        }
        let mut response = created(location, &digest);
        if let Some(subject) = subject {
            response = response.header("oci-subject", subject.to_string());
        }
        Ok(response.body(body::empty())?)
    }

    async fn blob(&self, repository: Repository, digest: Digest, call: &Call) -> Answer {
        let unknown = RegistryError::BlobUnknown(digest.clone());
        match call.method {
            Method::GET | Method::HEAD => {
                let wanted = digest.clone();
                let size = self.on_disk(move |disk| disk.blob_size(&repository, &wanted)).await?.ok_or(unknown)?;
                self.send_blob(&digest, size, call).await
            }
            Method::DELETE => {
                let deleted = self.on_disk(move |disk| disk.unlink_blob(&repository, &digest)).await?;
                if deleted { empty(StatusCode::ACCEPTED) } else { Err(unknown) }
            }
            _ => Err(RegistryError::Method),
        }
    }

    async fn send_blob(&self, digest: &Digest, size: u64, call: &Call) -> Answer {
        let range = call.header(RANGE.as_str()).map_or(Ok(None), |text| byte_range(text, size))?;
        let (start, length) = range.unwrap_or((0, size));
        let mut response = Response::builder()
            .header(CONTENT_TYPE, OCTETS)
            .header(CONTENT_LENGTH, length)
            .header(ACCEPT_RANGES, "bytes")
            .header(ETAG, format!("\"{digest}\""))
            .header(DOCKER_DIGEST, digest.to_string());
        if range.is_some() {
            let last = (start + length).saturating_sub(1);
            response = response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(CONTENT_RANGE, format!("bytes {start}-{last}/{size}"));
        }
        if call.method == Method::HEAD {
            return Ok(response.body(body::empty())?);
        }
        let mut file = tokio::fs::File::open(self.disk.blob_path(digest)).await?;
        file.seek(std::io::SeekFrom::Start(start)).await?;
        Ok(response.body(file_body(file, length))?)
    }

    async fn begin_upload(&self, repository: Repository, call: &Call, body: Body, user: &UserInfo) -> Answer {
        if let (Some(digest), Some(from)) = (call.query.get("mount"), call.query.get("from"))
            && let (Ok(digest), Ok(from)) = (digest.parse::<Digest>(), Repository::parse(from))
            && self.may_read(user, &from).await
            && self.mount(&repository, from, digest.clone()).await?
        {
            return Ok(created(format!("/v2/{repository}/blobs/{digest}"), &digest).body(body::empty())?);
        }
        let id = self.uploads.begin(repository.clone(), &user.name).await?;
        match call.query.get("digest") {
            Some(digest) => self.finish(&repository, &id, digest, body).await,
            None => progress(StatusCode::ACCEPTED, &repository, &id, 0),
        }
    }

    async fn mount(&self, to: &Repository, from: Repository, digest: Digest) -> Result<bool, RegistryError> {
        let to = to.clone();
        self.on_disk(move |disk| {
            let has = disk.blob_size(&from, &digest)?.is_some();
            if has {
                disk.link_blob(&to, &digest)?;
            }
            Ok(has)
        })
        .await
    }

    async fn upload(&self, repository: Repository, id: &str, call: &Call, body: Body) -> Answer {
        match call.method {
            Method::GET => {
                let written = self.uploads.written(&repository, id).await?;
                progress(StatusCode::NO_CONTENT, &repository, id, written)
            }
            Method::PATCH => {
                let from = call.header(CONTENT_RANGE.as_str()).map(chunk_start).transpose()?;
                let written = self.uploads.append(&repository, id, from, body).await?;
                progress(StatusCode::ACCEPTED, &repository, id, written)
            }
            Method::PUT => {
                let digest = call.query.get("digest").ok_or(RegistryError::Digest(NotADigest))?;
                self.finish(&repository, id, digest, body).await
            }
            Method::DELETE => {
                self.uploads.cancel(&repository, id).await?;
                empty(StatusCode::NO_CONTENT)
            }
            _ => Err(RegistryError::Method),
        }
    }

    async fn finish(&self, repository: &Repository, id: &str, digest: &str, body: Body) -> Answer {
        let digest: Digest = digest.parse()?;
        self.uploads.finish(repository, id, &digest, body).await?;
        Ok(created(format!("/v2/{repository}/blobs/{digest}"), &digest).body(body::empty())?)
    }
}

/// The parts of a request beside its path and body.
struct Call {
    method: Method,
    headers: HeaderMap,
    query: Parameters,
}

impl Call {
    fn reads(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    /// Of what the catalog is asked for.
    fn namespace(&self) -> Option<&str> {
        self.query.get("namespace").filter(|namespace| !namespace.is_empty())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// The query's parameters.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn parse(query: Option<&str>) -> Self {
        Self(url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "get",
        Method::DELETE => "delete",
        _ => "create",
    }
}

fn images(verb: &str, namespace: String, name: String) -> Attributes {
    Attributes {
        verb: verb.to_owned(),
        group: "images.wherry.dev".to_owned(),
        version: "v1".to_owned(),
        resource: "images".to_owned(),
        namespace,
        name,
        ..Attributes::default()
    }
}

/// One page of sorted names, and the `Link` to the next.
fn page(all: Vec<String>, call: &Call, path: &str) -> Result<(Vec<String>, Option<String>), RegistryError> {
    let asked = call.query.get("n").map(str::parse::<usize>).transpose();
    let limit = asked.map_err(|_| RegistryError::Parameter("n"))?.unwrap_or(MAX_PAGE).min(MAX_PAGE);
    let after = call.query.get("last").unwrap_or_default();
    let mut rest = all.into_iter().filter(|name| name.as_str() > after);
    let page: Vec<String> = rest.by_ref().take(limit).collect();
    let more = rest.next().is_some();
    let link = page.last().filter(|_| more).map(|last| {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(call.namespace().map(|namespace| ("namespace", namespace)))
            .append_pair("n", &limit.to_string())
            .append_pair("last", last)
            .finish();
        format!("<{path}?{query}>; rel=\"next\"")
    });
    Ok((page, link))
}

async fn manifest_bytes(body: Body) -> Result<Bytes, RegistryError> {
    body::gather(body, MAX_MANIFEST).await.map_err(|error| match error {
        GatherError::TooLarge(limit) => RegistryError::ManifestTooLarge { limit },
        GatherError::Broken(error) => RegistryError::Body(error),
    })
}

fn first_missing(disk: &Disk, repository: &Repository, parsed: &manifest::Parsed) -> std::io::Result<Option<Digest>> {
    for digest in &parsed.blobs {
        if disk.blob_size(repository, digest)?.is_none() {
            return Ok(Some(digest.clone()));
        }
    }
    Ok(parsed.manifests.iter().find(|digest| !disk.has_manifest(repository, digest)).cloned())
}

/// The start of a chunk's `Content-Range: START-END` (a prefix of `bytes ` and a size are tolerated).
fn chunk_start(text: &str) -> Result<u64, RegistryError> {
    let range = text.trim_start_matches("bytes").trim_start_matches([' ', '=']);
    let (start, end) = range.split_once('-').ok_or(RegistryError::Parameter("Content-Range"))?;
    let end = end.split('/').next().unwrap_or_default();
    match (start.parse(), end.parse::<u64>()) {
        (Ok(start), Ok(_)) => Ok(start),
        _ => Err(RegistryError::Parameter("Content-Range")),
    }
}

/// Start and length of a `Range: bytes=…`. Several ranges, or another unit, are answered with everything.
fn byte_range(text: &str, size: u64) -> Result<Option<(u64, u64)>, RegistryError> {
    let Some(range) = text.trim().strip_prefix("bytes=") else { return Ok(None) };
    let Some((first, last)) = range.split_once('-') else { return Ok(None) };
    let outside = RegistryError::Range { size };
    let (start, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(start), Ok(last)) if start <= last => (start, last.saturating_add(1).min(size)),
        (Ok(start), Err(_)) if last.is_empty() => (start, size),
        (Err(_), Ok(0)) if first.is_empty() => return Err(outside),
        (Err(_), Ok(suffix)) if first.is_empty() => (size.saturating_sub(suffix), size),
        _ => return Ok(None),
    };
    if start < end { Ok(Some((start, end - start))) } else { Err(outside) }
}

#[cfg(test)]
mod tests;
