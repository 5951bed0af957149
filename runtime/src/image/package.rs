//! Packaging a component as a CNCF Wasm artifact and pushing it, to a registry or to the cluster's own.
//!
//! The same bytes always make the same manifest, so that pushing again changes nothing.

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use oci_distribution::Reference;
use oci_distribution::client::{Config, ImageLayer};
use oci_distribution::errors::OciDistributionError;
use oci_distribution::manifest::{OciDescriptor, OciImageManifest};
use oci_wasm::{ToConfig, WasmConfig};

use super::blobs::digest_of;
use super::credentials::Credentials;
use super::manifest::{WASM_CONFIG, WASM_LAYER};
use super::reference;
use super::refusal::{Access, Refused};
use super::source::{Failure, Registry, SourceError, explain};
use crate::fault;

/// Why a push failed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error("it is not WebAssembly: the file is neither a component nor a core module")]
    NotWasm,
    #[error("the component cannot be read: {0}")]
    Component(String),
    #[error(transparent)]
    Registry(#[from] SourceError),
    #[error("a push needs a tag, not a digest")]
    Digest,
}

/// A packaged component.
#[derive(Clone, Debug)]
pub struct Package {
    pub manifest: Bytes,
    /// `sha256:…` of the manifest.
    pub digest: String,
    pub config: Bytes,
    pub wasm: Bytes,
}

impl Package {
    /// Packages a component or a core module.
    pub fn of(wasm: Vec<u8>) -> Result<Self, PushError> {
        let unreadable = |error: &dyn std::fmt::Display| PushError::Component(format!("{error:#}"));
        let (mut config, layer) = if wasmparser::Parser::is_component(&wasm) {
            WasmConfig::from_raw_component(wasm, None).map_err(|error| unreadable(&error))?
        } else if wasmparser::Parser::is_core_wasm(&wasm) {
            WasmConfig::from_raw_module(wasm, None).map_err(|error| unreadable(&error))?
        } else {
            return Err(PushError::NotWasm);
        };
        // The epoch, by its type that this crate does not name otherwise.
        #[allow(clippy::default_trait_access)]
        {
            config.created = Default::default();
        }
        let config = config.to_config().map_err(|error| unreadable(&error))?;
        Self::assemble(config, layer)
    }

    fn assemble(config: Config, layer: ImageLayer) -> Result<Self, PushError> {
        let (config_bytes, wasm) = (config.data, layer.data);
        let manifest = OciImageManifest {
            media_type: Some("application/vnd.oci.image.manifest.v1+json".into()),
            config: descriptor(WASM_CONFIG, &config_bytes),
            layers: vec![OciDescriptor { annotations: layer.annotations, ..descriptor(WASM_LAYER, &wasm) }],
            ..OciImageManifest::default()
        };
        let manifest = serde_json::to_vec(&manifest).map_err(|error| PushError::Component(error.to_string()))?;
        Ok(Self { digest: digest_of(&manifest), manifest: manifest.into(), config: config_bytes, wasm })
    }

    /// Pushes to a registry under the reference's tag; returns the reference by digest.
    ///
    /// Boxed here, so that the client is compiled in this crate and not once more in each that pushes.
    pub fn push<'a>(
        &'a self,
        to: &'a Reference,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<String, PushError>> {
        Box::pin(self.push_to(to, credentials))
    }

    async fn push_to(&self, to: &Reference, credentials: &Credentials) -> Result<String, PushError> {
        if to.digest().is_some() {
            return Err(PushError::Digest);
        }
        let mut refused = Vec::new();
        for login in credentials.matching(to) {
            let client = Registry::client(to.registry());
            client.store_auth_if_needed(to.registry(), &login.auth).await;
            match self.push_with(&client, to).await {
                Ok(()) => return Ok(reference::pinned(to, &self.digest)),
                Err(error) => match explain(to, error) {
                    Failure::Denied { known } => refused.push(Refused { login, known }),
                    Failure::Other(error) => return Err(error.into()),
                },
            }
        }
        Err(SourceError::Denied(credentials.refusal(Access::Push, to, &refused)).into())
    }

    async fn push_with(&self, client: &oci_distribution::Client, to: &Reference) -> Result<(), OciDistributionError> {
        for blob in [&self.wasm, &self.config] {
            client.push_blob(to, blob.clone(), &digest_of(blob)).await?;
        }
        let kind = http::HeaderValue::from_static("application/vnd.oci.image.manifest.v1+json");
        client.push_manifest_raw(to, self.manifest.to_vec(), kind).await?;
        Ok(())
    }

    /// Pushes to the cluster's own registry through the API server's client; returns the reference by digest.
    pub async fn push_to_cluster(&self, to: &Reference, client: &kube::Client) -> Result<String, PushError> {
        let repository = to.repository();
        for blob in [&self.wasm, &self.config] {
            let digest = digest_of(blob);
            let path = format!("/v2/{repository}/blobs/{digest}");
            if send(client, to, http::Method::HEAD, &path, None, Bytes::new()).await?.is_some() {
                continue;
            }
            // Asked for before anything is sent: a refusal is read while the connection lasts.
            let begun = format!("/v2/{repository}/blobs/uploads/");
            let begun = send(client, to, http::Method::POST, &begun, None, Bytes::new()).await?;
            let place = begun.as_ref().and_then(|headers| headers.get(http::header::LOCATION)?.to_str().ok());
            let place = place.ok_or_else(|| SourceError::Answer {
                registry: to.registry().to_owned(),
                message: "without a place for the upload".to_owned(),
            })?;
            let upload = format!("{place}{}digest={digest}", if place.contains('?') { '&' } else { '?' });
            send(client, to, http::Method::PUT, &upload, Some("application/octet-stream"), blob.clone()).await?;
        }
        let path = format!("/v2/{repository}/manifests/{}", to.tag().unwrap_or("latest"));
        let kind = Some("application/vnd.oci.image.manifest.v1+json");
        send(client, to, http::Method::PUT, &path, kind, self.manifest.clone()).await?;
        Ok(reference::pinned(to, &self.digest))
    }
}

fn descriptor(media_type: &str, bytes: &Bytes) -> OciDescriptor {
    OciDescriptor {
        media_type: media_type.to_owned(),
        digest: digest_of(bytes),
        size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
        ..OciDescriptor::default()
    }
}

/// One request to the cluster's registry, and the headers of its answer; `None`: what HEAD asked for is not there.
async fn send(
    client: &kube::Client,
    to: &Reference,
    method: http::Method,
    path: &str,
    content_type: Option<&str>,
    body: Bytes,
) -> Result<Option<http::HeaderMap>, SourceError> {
    let registry = || to.registry().to_owned();
    let unreachable = |message: String| SourceError::Unreachable { registry: registry(), message };
    let mut request = http::Request::builder().method(method.clone()).uri(path);
    if let Some(content_type) = content_type {
        request = request.header(http::header::CONTENT_TYPE, content_type);
    }
    let request = request.body(kube::client::Body::from(body)).map_err(|error| unreachable(error.to_string()))?;
    let response = client.send(request).await.map_err(|error| unreachable(fault::told(&error)))?;
    let code = response.status().as_u16();
    if response.status().is_success() {
        return Ok(Some(response.into_parts().0.headers));
    }
    if code == 404 && method == http::Method::HEAD {
        return Ok(None);
    }
    let body = response.into_body().collect().await.map_err(|error| unreachable(fault::told(&error)))?.to_bytes();
    let said = said(&body);
    Err(match code {
        401 => SourceError::Denied(format!("unauthorized: {said}")),
        403 => SourceError::Denied(format!("denied: {said}")),
        _ => SourceError::Answer { registry: registry(), message: format!("{code}: {said}") },
    })
}

/// What an error answer of the registry says.
fn said(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Answer {
        errors: Vec<One>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        message: String,
    }
    match serde_json::from_slice::<Answer>(body) {
        Ok(answer) => answer.errors.into_iter().map(|one| one.message).collect::<Vec<_>>().join("; "),
        Err(_) if body.is_empty() => "requested access to the resource is denied".to_owned(),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_component_makes_the_same_manifest() {
        let wasm =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples-wasm/prebuilt/hello-http.wasm")).unwrap();
        let (first, second) = (Package::of(wasm.clone()).unwrap(), Package::of(wasm).unwrap());
        assert_eq!(first.digest, second.digest);
        let manifest: OciImageManifest = serde_json::from_slice(&first.manifest).unwrap();
        assert_eq!(manifest.layers.len(), 1);
        assert_eq!(
            (manifest.config.media_type.as_str(), manifest.layers[0].media_type.as_str()),
            (WASM_CONFIG, WASM_LAYER)
        );
    }

    #[tokio::test]
    async fn nothing_is_sent_to_a_registry_that_takes_nothing() {
        let refusing = tower::service_fn(|request: http::Request<kube::client::Body>| async move {
            let (parts, body) = request.into_parts();
            let sent = body.collect().await.unwrap().to_bytes().len();
            assert_eq!(sent, 0, "{} {}", parts.method, parts.uri);
            let said = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such namespace"}]}"#;
            Ok::<_, std::convert::Infallible>(
                http::Response::builder().status(404).body(kube::client::Body::from(said.as_bytes().to_vec())).unwrap(),
            )
        });
        let client = kube::Client::new(refusing, "default");
        let to = reference::parse("wherry.local/nowhere/app:v1").unwrap();
        let package = Package::of(wat::parse_str("(component)").unwrap()).unwrap();
        let error = package.push_to_cluster(&to, &client).await.unwrap_err().to_string();
        assert_eq!(error, "wherry.local answered 404: no such namespace");
    }

    #[test]
    fn what_is_not_wasm_is_not_packaged() {
        assert!(matches!(Package::of(b"#!/bin/sh".to_vec()), Err(PushError::NotWasm)));
    }
}
