//! An image registry, so that a site needs no other: the OCI distribution protocol at `/v2/`, push and pull.
//!
//! Repositories are `NAMESPACE/NAME`; who may `get`, `create` or `delete` `images.wherry.dev` in a namespace may pull, push
//! or delete there. What must stay true: nothing is served whose content does not have the digest it is asked by.

mod answer;
mod call;
mod digest;
mod disk;
mod error;
mod homes;
mod keep;
mod manifest;
mod pages;
mod route;
mod uploads;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RANGE};
use http::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::io::AsyncSeekExt;
use tokio::sync::Notify;

pub use self::digest::{Digest, NotADigest};
pub use self::error::RegistryError;
pub(crate) use self::homes::Closed;
pub use self::homes::{Life, Namespaces};
pub(crate) use self::route::transfers;
pub use self::route::{Reference, Repository};

use self::answer::{base, created, empty, file_body, list_of, listing, progress};
use self::call::{Call, byte_range};
use self::disk::{Disk, StoredManifest};
use self::homes::{Home, Homes};
use self::pages::page;
use self::route::Route;
use self::uploads::Uploads;
use crate::auth::{Attributes, Authorizer, Decision, UserInfo};
use crate::server::body::{self, Body};
use crate::server::listen::owner;
use crate::server::turn::Turn;

/// The largest manifest, as other registries have it.
const MAX_MANIFEST: usize = 4 << 20;

const DOCKER_DIGEST: &str = "docker-content-digest";
const OCTETS: &str = "application/octet-stream";
const IMAGE_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    disk: Disk,
    uploads: Arc<Uploads>,
    homes: Homes,
    authorizer: Arc<dyn Authorizer>,
    /// Something was deleted.
    deleted: Arc<Notify>,
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images").field("disk", &self.disk).finish_non_exhaustive()
    }
}

type Answer = Result<Response<Body>, RegistryError>;

impl Images {
    /// Opens the registry in a directory, which it makes, and removes what nothing refers to any more: contents, and
    /// repositories of namespaces that are gone. Blocks.
    pub fn open(
        dir: &Path,
        authorizer: Arc<dyn Authorizer>,
        namespaces: Arc<dyn Namespaces>,
    ) -> Result<Self, RegistryError> {
        let (disk, homes) = (Disk::open(dir)?, Homes::new(namespaces));
        for namespace in disk.namespaces()?.iter().filter(|name| homes.life(name) == Life::Absent) {
            if let Some(gone) = disk.take_namespace(namespace)? {
                std::fs::remove_dir_all(gone)?;
                tracing::info!(namespace, "removed the images of a namespace that is gone");
            }
        }
        let uploads = Arc::new(Uploads::new(disk.clone()));
        let images = Self { uploads, disk, homes, authorizer, deleted: Arc::default() };
        images.collect()?;
        Ok(images)
    }

    /// Removes the repositories of a namespace that is about to go. Nothing comes into it until the answer is dropped.
    pub(crate) async fn close(&self, namespace: &str) -> Result<Closed, RegistryError> {
        let (disk, homes, name) = (self.disk.clone(), self.homes.clone(), namespace.to_owned());
        let task = tokio::task::spawn_blocking(move || {
            let (closed, taken) = homes.close(&name, || disk.take_namespace(&name));
            if let Some(gone) = taken? {
                std::fs::remove_dir_all(gone)?;
            }
            Ok::<_, RegistryError>(closed)
        });
        let closed = task.await??;
        self.uploads.forget(namespace).await;
        self.deleted.notify_one();
        Ok(closed)
    }

    /// Answers a request below `/v2/`. Authorization happens here, since what is asked is in the path.
    pub(crate) fn handle<'a>(
        &'a self,
        request: Request<Body>,
        user: &'a UserInfo,
        turn: &'a mut Turn,
    ) -> BoxFuture<'a, Response<Body>> {
        let head = request.method() == Method::HEAD;
        Box::pin(async move {
            let response = match self.answer(request, user, turn).await {
                Ok(response) => response,
                Err(error) => error.respond(),
            };
            if head { response.map(|_| body::empty()) } else { response }
        })
    }

    async fn answer(&self, request: Request<Body>, user: &UserInfo, turn: &mut Turn) -> Answer {
        if user.is_anonymous() {
            return Err(RegistryError::Unauthenticated);
        }
        let route = Route::parse(request.uri().path())?;
        let (parts, body) = request.into_parts();
        let call = Call::of(parts);
        self.authorize(user, &route, &call).boxed().await?;
        if verb(&call.method) == "create"
            && let Some(repository) = route.repository()
        {
            let home = self.homes.open(&repository.namespace)?;
            return self.write(&call, body, route, Pushing { user, home, turn }).boxed().await;
        }
        match route {
            Route::Base if call.reads() => base(),
            Route::Catalog if call.reads() => self.catalog(&call).boxed().await,
            Route::Tags(repository) if call.reads() => self.tags(repository, &call).boxed().await,
            Route::Referrers(repository, subject) if call.reads() => {
                self.referrers(repository, subject, &call).boxed().await
            }
            Route::Manifest(repository, reference) => self.manifest(repository, reference, &call).boxed().await,
            Route::Blob(repository, digest) => self.blob(repository, digest, &call).boxed().await,
            Route::Upload(repository, id) => self.show_upload(repository, &id, &call).boxed().await,
            _ => Err(RegistryError::Method),
        }
    }

    async fn write(&self, call: &Call, body: Body, route: Route, pushing: Pushing<'_>) -> Answer {
        if !self.disk.has_room()? {
            return Err(RegistryError::Full);
        }
        match route {
            Route::Manifest(repository, reference) if call.method == Method::PUT => {
                self.put_manifest(repository, reference, call, body, pushing).await
            }
            Route::Uploads(repository) if call.method == Method::POST => {
                self.begin_upload(repository, call, body, pushing).await
            }
            Route::Upload(repository, id) => self.upload(repository, &id, call, body, pushing.home).await,
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
            Decision::Deny(reason) => {
                let repository = route.repository().map_or_else(|| "_catalog".to_owned(), ToString::to_string);
                let why = attributes.forbidden_by(user, &reason);
                Err(RegistryError::Denied { repository, missing: Box::new(attributes), why })
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

    /// The same, to write into a namespace.
    fn write_home<T: Send + 'static>(
        &self,
        home: Home,
        work: impl FnOnce(&Disk) -> std::io::Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, RegistryError>> {
        let disk = self.disk.clone();
        let task = tokio::task::spawn_blocking(move || home.within(|| work(&disk)));
        Box::pin(async move { task.await? })
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
        let path = format!("/v2/{repository}/referrers/{subject}");
        let asked = pages::Referrers::parse(&call.query)?;
        let wanted = asked.artifact_type.clone();
        let page = self.on_disk(move |disk| asked.page(disk, &repository, &subject)).await?;
        let mut response = Response::builder();
        if wanted.is_some() {
            response = response.header("oci-filters-applied", "artifactType");
        }
        let link = page.next.map(|next| format!("<{path}?{next}>; rel=\"next\""));
        let index = json!({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": page.found});
        list_of(IMAGE_INDEX, &index, link, response)
    }

    async fn manifest(&self, repository: Repository, reference: Reference, call: &Call) -> Answer {
        match call.method {
            Method::GET | Method::HEAD => self.get_manifest(repository, reference, call).await,
            Method::DELETE => {
                let name = reference.to_string();
                let deleted = self.on_disk(move |disk| disk.delete_manifest(&repository, &reference)).await?;
                if !deleted {
                    return Err(RegistryError::ManifestUnknown(name));
                }
                self.deleted.notify_one();
                empty(StatusCode::ACCEPTED)
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

    async fn put_manifest(
        &self,
        repository: Repository,
        reference: Reference,
        call: &Call,
        body: Body,
        Pushing { user, home, turn }: Pushing<'_>,
    ) -> Answer {
        let bytes = turn.read(user, body, MAX_MANIFEST).await?;
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
        let put = move |disk: &Disk| {
            let missing = first_missing(disk, &repository, &parsed)?;
            if missing.is_none() {
                disk.put_manifest(&repository, &stored, parsed.subject.as_ref(), tag.as_deref())?;
            }
            Ok(missing)
        };
        let missing = self.write_home(home, put).await?;
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
                let (wanted, asks, homes) = (digest.clone(), call.method == Method::HEAD, self.homes.clone());
                let size = move |disk: &Disk| {
                    if asks {
                        // Who pushes asks what need not be sent: what is there now must be when its manifest comes.
                        homes.beside(|| disk.rely_on_blob(&repository, &wanted))
                    } else {
                        disk.blob_size(&repository, &wanted)
                    }
                };
                let size = self.on_disk(size).await?.ok_or(unknown)?;
                self.send_blob(&digest, size, call).await
            }
            Method::DELETE => {
                let deleted = self.on_disk(move |disk| disk.unlink_blob(&repository, &digest)).await?;
                if !deleted {
                    return Err(unknown);
                }
                self.deleted.notify_one();
                empty(StatusCode::ACCEPTED)
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

    async fn begin_upload(
        &self,
        repository: Repository,
        call: &Call,
        body: Body,
        Pushing { user, home, .. }: Pushing<'_>,
    ) -> Answer {
        if let (Some(digest), Some(from)) = (call.query.get("mount"), call.query.get("from"))
            && let (Ok(digest), Ok(from)) = (digest.parse::<Digest>(), Repository::parse(from))
            && self.may_read(user, &from).await
            && self.mount(&repository, from, digest.clone(), home.clone()).await?
        {
            return kept(&repository, &digest);
        }
        let user = owner(&user.name);
        let Some(digest) = call.query.get("digest") else {
            let id = self.uploads.begin(repository.clone(), user).await?;
            return progress(StatusCode::ACCEPTED, &repository, &id, 0);
        };
        let digest: Digest = digest.parse()?;
        self.uploads.take_whole(&repository, user, &digest, body, home).await?;
        kept(&repository, &digest)
    }

    async fn mount(
        &self,
        to: &Repository,
        from: Repository,
        digest: Digest,
        home: Home,
    ) -> Result<bool, RegistryError> {
        let to = to.clone();
        let link = move |disk: &Disk| {
            let has = disk.blob_size(&from, &digest)?.is_some();
            if has {
                disk.link_blob(&to, &digest)?;
            }
            Ok(has)
        };
        self.write_home(home, link).await
    }

    async fn show_upload(&self, repository: Repository, id: &str, call: &Call) -> Answer {
        match call.method {
            Method::GET => {
                let written = self.uploads.written(&repository, id).await?;
                progress(StatusCode::NO_CONTENT, &repository, id, written)
            }
            Method::DELETE => {
                self.uploads.cancel(&repository, id).await?;
                empty(StatusCode::NO_CONTENT)
            }
            _ => Err(RegistryError::Method),
        }
    }

    async fn upload(&self, repository: Repository, id: &str, call: &Call, body: Body, home: Home) -> Answer {
        match call.method {
            Method::PATCH => {
                let from = call.chunk_start()?;
                let written = self.uploads.append(&repository, id, from, body).await?;
                progress(StatusCode::ACCEPTED, &repository, id, written)
            }
            Method::PUT => {
                let digest: Digest = call.query.get("digest").ok_or(RegistryError::Digest(NotADigest))?.parse()?;
                self.uploads.finish(&repository, id, &digest, (call.chunk_start()?, body), home).await?;
                kept(&repository, &digest)
            }
            _ => Err(RegistryError::Method),
        }
    }
}

/// A blob that was sent is there.
fn kept(repository: &Repository, digest: &Digest) -> Answer {
    Ok(created(format!("/v2/{repository}/blobs/{digest}"), digest).body(body::empty())?)
}

/// A request that puts something into a namespace.
struct Pushing<'a> {
    user: &'a UserInfo,
    home: Home,
    turn: &'a mut Turn,
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

fn first_missing(disk: &Disk, repository: &Repository, parsed: &manifest::Parsed) -> std::io::Result<Option<Digest>> {
    for digest in &parsed.blobs {
        if disk.blob_size(repository, digest)?.is_none() {
            return Ok(Some(digest.clone()));
        }
    }
    Ok(parsed.manifests.iter().find(|digest| !disk.has_manifest(repository, digest)).cloned())
}

#[cfg(test)]
mod tests;
