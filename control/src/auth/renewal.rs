//! How a node outside this process gets and renews its client certificate: a new key, a request for it, and the answer of
//! the cluster's signer. The key never leaves the node.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use kube::api::{ObjectMeta, PostParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use super::certificates::NODE_CLIENT;
use super::pki::Identity;
use super::{NODE_PREFIX, NODES};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    #[error("cannot make a key or a certificate request")]
    Make(#[from] rcgen::Error),
    #[error("the certificate request could not be made or followed")]
    Request(#[from] kube::Error),
    #[error("the certificate request {name} was not granted: {why}")]
    Refused { name: String, why: String },
    #[error("the certificate request {name} was not answered in time")]
    Unanswered { name: String },
}

/// Asks for a node's client certificate, as a bootstrapping machine or as the node itself, and waits for it up to `patience`.
pub async fn node_client(client: kube::Client, node: &str, patience: Duration) -> Result<Identity, RenewalError> {
    let key = KeyPair::generate()?;
    let api: Api<CertificateSigningRequest> = Api::all(client);
    let made = api.create(&PostParams::default(), &request(node, &key)?).await?;
    let name = made.name_any();
    let answered = tokio::time::timeout(patience, answer(&api, made));
    let certificate = answered.await.map_err(|_| RenewalError::Unanswered { name })??;
    Ok(Identity { certificate, key: key.serialize_pem() })
}

fn request(node: &str, key: &KeyPair) -> Result<CertificateSigningRequest, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, NODES);
    params.distinguished_name.push(DnType::CommonName, format!("{NODE_PREFIX}{node}"));
    let pem = params.serialize_request(key)?.pem()?;
    Ok(CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("node-csr-".to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: NODE_CLIENT.to_owned(),
            usages: Some(vec!["digital signature".to_owned(), "client auth".to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    })
}

async fn answer(api: &Api<CertificateSigningRequest>, made: CertificateSigningRequest) -> Result<String, RenewalError> {
    let name = made.name_any();
    let mut version = made.resource_version().unwrap_or_default();
    let mut latest = made;
    loop {
        if let Some(certificate) = granted(&latest)? {
            return Ok(certificate);
        }
        let only = WatchParams::default().fields(&format!("metadata.name={name}"));
        let mut events = api.watch(&only, &version).await?.boxed();
        while let Some(event) = events.try_next().await? {
            if let WatchEvent::Added(request) | WatchEvent::Modified(request) = event {
                version = request.resource_version().unwrap_or_default();
                if let Some(certificate) = granted(&request)? {
                    return Ok(certificate);
                }
            }
        }
        latest = api.get(&name).await?;
    }
}

fn granted(request: &CertificateSigningRequest) -> Result<Option<String>, RenewalError> {
    let Some(status) = &request.status else { return Ok(None) };
    let conditions = status.conditions.iter().flatten();
    if let Some(no) = conditions.into_iter().find(|c| matches!(c.type_.as_str(), "Denied" | "Failed")) {
        let why = no.message.clone().or_else(|| no.reason.clone()).unwrap_or_else(|| no.type_.clone());
        return Err(RenewalError::Refused { name: request.name_any(), why });
    }
    Ok(status.certificate.as_ref().map(|pem| String::from_utf8_lossy(&pem.0).into_owned()))
}
