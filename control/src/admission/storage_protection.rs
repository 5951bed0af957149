//! Claims and volumes are made with a finalizer, so that one in use is not removed under its users
//! (`controllers/volume_protection.rs` takes it away).

use async_trait::async_trait;
use serde_json::Value;
use wherry_api::object;
use wherry_api::status::ApiError;

use super::{Plugin, Request};

/// Of a claim that pods may use.
pub const CLAIM: &str = "kubernetes.io/pvc-protection";
/// Of a volume that a claim may be bound to.
pub const VOLUME: &str = "kubernetes.io/pv-protection";

/// Kubernetes' `StorageObjectInUseProtection`.
#[derive(Debug)]
pub struct StorageProtection;

#[async_trait]
impl Plugin for StorageProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    async fn mutate(&self, request: &Request<'_>, object: &mut Value) -> Result<(), ApiError> {
        let finalizer = if request.creates("", "persistentvolumeclaims") {
            CLAIM
        } else if request.creates("", "persistentvolumes") {
            VOLUME
        } else {
            return Ok(());
        };
        let mut all: Vec<String> = object::finalizers(object).into_iter().map(str::to_owned).collect();
        if !all.iter().any(|known| known == finalizer) {
            all.push(finalizer.to_owned());
            object::set_finalizers(object, all);
        }
        Ok(())
    }
}
