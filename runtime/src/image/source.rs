//! Where images come from: a registry over the distribution protocol, or the cluster's own registry through the API
//! server's client. Both give raw bytes; the caller verifies digests.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use oci_distribution::client::{ClientConfig, ClientProtocol};
use oci_distribution::errors::OciDistributionError;
use oci_distribution::manifest::OciDescriptor;
use oci_distribution::secrets::RegistryAuth;
use oci_distribution::{Client, Reference};

use super::credentials::{Credentials, Login};
use super::known::GivenTo;
use super::manifest::ACCEPTED;
use super::reference;
use super::refusal::{Access, Refused};
use super::transport::{self, CONNECT, LARGEST_MANIFEST, SILENCE, Transport};
use crate::fault;

/// What went wrong, as a person reads it.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{0} not found in the registry")]
    NotFound(String),
    /// Missing or wrong credentials.
    #[error("{0}")]
    Denied(String),
    #[error("{registry} cannot be reached: {message}")]
    Unreachable { registry: String, message: String },
    #[error("{registry} answered {message}")]
    Answer { registry: String, message: String },
}

/// A blob's bytes as they arrive.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, SourceError>> + Send>>;

/// A place that has one repository.
#[async_trait]
pub trait Source: Send + Sync {
    /// The manifest's bytes by tag or digest.
    async fn manifest(&self, reference: &Reference) -> Result<Bytes, SourceError>;

    async fn blob(&self, reference: &Reference, blob: &OciDescriptor) -> Result<BlobStream, SourceError>;

    /// Whom the manifest was given to.
    async fn given_to(&self, reference: &Reference) -> GivenTo;
}

/// A registry, with the credentials that are tried in order.
pub struct Registry {
    credentials: Credentials,
    /// The one whose credentials were taken, and these.
    taken: tokio::sync::Mutex<Option<(Arc<Transport>, Login)>>,
}

impl std::fmt::Debug for Registry {
    /// Credentials are never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

impl Registry {
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, taken: tokio::sync::Mutex::default() }
    }

    /// A client that pushes to the registry; each set of credentials needs one of its own, since clients keep tokens.
    pub fn client(registry: &str) -> Client {
        let protocol = if reference::plain_http(registry) { ClientProtocol::Http } else { ClientProtocol::Https };
        Client::new(ClientConfig {
            protocol,
            read_timeout: Some(SILENCE),
            connect_timeout: Some(CONNECT),
            user_agent: concat!("wherry/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        })
    }
}

#[async_trait]
impl Source for Registry {
    async fn manifest(&self, image: &Reference) -> Result<Bytes, SourceError> {
        let mut refused = Vec::new();
        for login in self.credentials.matching(image) {
            let transport = Transport::new(image, login.auth.clone())?;
            match transport.manifest(image, ACCEPTED).await {
                Ok(bytes) => {
                    *self.taken.lock().await = Some((Arc::new(transport), login));
                    return Ok(bytes);
                }
                Err(Failure::Denied { known }) => refused.push(Refused { login, known }),
                Err(Failure::Other(error)) => return Err(error),
            }
        }
        Err(SourceError::Denied(self.credentials.refusal(Access::Pull, image, &refused)))
    }

    async fn blob(&self, image: &Reference, blob: &OciDescriptor) -> Result<BlobStream, SourceError> {
        let taken = self.taken.lock().await.clone();
        let transport = match taken {
            Some((transport, _)) => transport,
            None => Arc::new(Transport::new(image, RegistryAuth::Anonymous)?),
        };
        let response = transport.blob(image, &blob.digest).await.map_err(|failure| match failure {
            Failure::Denied { .. } => SourceError::Denied(format!(
                "denied: requested access to the resource is denied: {} gave the manifest of {} and not its blob {}",
                image.registry(),
                image.repository(),
                blob.digest
            )),
            Failure::Other(error) => error,
        })?;
        let registry = image.registry().to_owned();
        let chunks = futures::stream::try_unfold(response, |mut response| async move {
            Ok::<_, reqwest::Error>(response.chunk().await?.map(|chunk| (chunk, response)))
        });
        let broken = move |error| SourceError::Unreachable { registry: registry.clone(), message: fault::told(&error) };
        Ok(chunks.map_err(broken).boxed())
    }

    async fn given_to(&self, image: &Reference) -> GivenTo {
        let taken = self.taken.lock().await;
        // Without a manifest there is nothing to use.
        taken.as_ref().map_or_else(|| GivenTo::Holders(BTreeSet::new()), |(_, login)| GivenTo::of(login, image))
    }
}

/// What a registry client's error means.
#[derive(Debug)]
pub enum Failure {
    /// Other credentials may do better. `known`: the registry knows who asked.
    Denied {
        known: bool,
    },
    Other(SourceError),
}

/// A pushing client's error in a person's words.
pub fn explain(image: &Reference, error: OciDistributionError) -> Failure {
    use oci_distribution::errors::OciErrorCode as Code;
    let registry = image.registry().to_owned();
    Failure::Other(match error {
        OciDistributionError::ImageManifestNotFoundError(_) | OciDistributionError::ServerError { code: 404, .. } => {
            SourceError::NotFound(image.whole())
        }
        OciDistributionError::UnauthorizedError { .. }
        | OciDistributionError::AuthenticationFailure(_)
        | OciDistributionError::ServerError { code: 401, .. } => return Failure::Denied { known: false },
        OciDistributionError::ServerError { code: 403, .. } => return Failure::Denied { known: true },
        OciDistributionError::RegistryError { envelope, .. } => {
            let has = |wanted: &[Code]| envelope.errors.iter().any(|error| wanted.contains(&error.code));
            if has(&[Code::Unauthorized]) {
                return Failure::Denied { known: false };
            } else if has(&[Code::Denied]) {
                return Failure::Denied { known: true };
            } else if has(&[Code::ManifestUnknown, Code::NameUnknown, Code::NotFound]) {
                SourceError::NotFound(image.whole())
            } else {
                SourceError::Answer { registry, message: envelope.to_string() }
            }
        }
        OciDistributionError::ServerError { code, message, .. } => {
            SourceError::Answer { registry, message: format!("{code}: {message}") }
        }
        OciDistributionError::RequestError(error) => {
            SourceError::Unreachable { registry, message: fault::told(&error) }
        }
        other => SourceError::Answer { registry, message: other.to_string() },
    })
}

/// The cluster's own registry, reached as every other part of the API: with the node's identity.
pub struct Cluster {
    client: kube::Client,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }

    async fn get(&self, image: &Reference, path: &str) -> Result<http::Response<kube::client::Body>, SourceError> {
        let unreachable = |message: String| SourceError::Unreachable { registry: image.registry().to_owned(), message };
        let request = http::Request::get(format!("/v2/{}/{path}", image.repository()))
            .header(http::header::ACCEPT, ACCEPTED.join(", "))
            .body(kube::client::Body::empty())
            .map_err(|error| unreachable(error.to_string()))?;
        let response = self.client.send(request).await.map_err(|error| unreachable(fault::told(&error)))?;
        match response.status().as_u16() {
            200 => Ok(response),
            404 => Err(SourceError::NotFound(image.whole())),
            401 | 403 => Err(SourceError::Denied(format!(
                "denied: requested access to the resource is denied: this node may not get {} of the cluster's registry",
                image.repository()
            ))),
            code => Err(SourceError::Answer { registry: image.registry().to_owned(), message: code.to_string() }),
        }
    }
}

#[async_trait]
impl Source for Cluster {
    async fn manifest(&self, image: &Reference) -> Result<Bytes, SourceError> {
        let which = image.digest().or(image.tag()).unwrap_or("latest");
        let response = self.get(image, &format!("manifests/{which}")).await?;
        let body = http_body_util::Limited::new(response.into_body(), LARGEST_MANIFEST);
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| SourceError::Answer {
            registry: image.registry().to_owned(),
            message: if error.is::<http_body_util::LengthLimitError>() {
                transport::too_large("manifest", LARGEST_MANIFEST)
            } else {
                format!("and broke off: {}", fault::told(error.as_ref()))
            },
        };
        Ok(body.collect().await.map_err(failed)?.to_bytes())
    }

    async fn blob(&self, image: &Reference, blob: &OciDescriptor) -> Result<BlobStream, SourceError> {
        let response = self.get(image, &format!("blobs/{}", blob.digest)).await?;
        let registry = image.registry().to_owned();
        Ok(response
            .into_body()
            .into_data_stream()
            .map_err(move |error| SourceError::Unreachable { registry: registry.clone(), message: fault::told(&error) })
            .boxed())
    }

    /// A node may pull every image of its cluster's registry, and so may its pods.
    async fn given_to(&self, _image: &Reference) -> GivenTo {
        GivenTo::Everybody
    }
}
