//! The node's heartbeat: its Lease in `kube-node-lease`, renewed every ten seconds. Status writes are for changes.

use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::pod::api::{self, ApiError};

const NAMESPACE: &str = "kube-node-lease";
const RENEW: Duration = Duration::from_secs(10);
/// How long after its last renewal a node counts as lost.
const DURATION_SECONDS: i32 = 40;
/// How soon a renewal that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Renews the Lease of `node` until dropped.
pub async fn run(client: Client, node: String) {
    loop {
        let renewed = tokio::time::timeout(RENEW, renew(&client, &node)).await;
        let wait = match renewed {
            Ok(Ok(())) => RENEW,
            Ok(Err(error)) => {
                tracing::debug!(%node, %error, "lease not renewed");
                RETRY
            }
            Err(_) => RETRY,
        };
        tokio::time::sleep(wait).await;
    }
}

async fn renew(client: &Client, node: &str) -> Result<(), ApiError> {
    let spec = LeaseSpec {
        holder_identity: Some(node.to_owned()),
        lease_duration_seconds: Some(DURATION_SECONDS),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    };
    let patch = serde_json::json!({"spec": spec}).to_string().into_bytes();
    let lease_path = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{node}");
    match api::send(client, Method::PATCH, &lease_path, api::MERGE, patch).await {
        Err(error) if error.code() == Some(http::StatusCode::NOT_FOUND) => {}
        other => return other.map(|_| ()),
    }
    // The Lease goes when its Node goes.
    let unreachable = |error| ApiError::Unreachable(Box::new(error));
    let found = Api::<Node>::all(client.clone()).get_opt(node).await.map_err(unreachable)?;
    let owner = found.and_then(|found| found.metadata.uid);
    let owner = owner.map(|uid| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid,
        ..OwnerReference::default()
    });
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
    };
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    leases.create(&PostParams::default(), &lease).await.map(|_| ()).map_err(unreachable)
}
