//! Who asks for a certificate is who is authenticated, whatever the request says.

use async_trait::async_trait;
use serde_json::{Value, json};
use wherry_api::object;
use wherry_api::status::ApiError;

use super::{Plugin, Request};

/// Writes user, groups, uid and extra of whoever creates a CertificateSigningRequest into it.
#[derive(Debug)]
pub struct Requester;

#[async_trait]
impl Plugin for Requester {
    fn name(&self) -> &'static str {
        "CertificateRequester"
    }

    async fn mutate(&self, request: &Request<'_>, csr: &mut Value) -> Result<(), ApiError> {
        if !request.creates("certificates.k8s.io", "certificatesigningrequests") {
            return Ok(());
        }
        let user = request.user;
        for (field, value) in [
            ("username", json!(user.name)),
            ("uid", json!(user.uid)),
            ("groups", json!(user.groups)),
            ("extra", json!(user.extra)),
        ] {
            let empty = value.as_str() == Some("") || value.as_object().is_some_and(serde_json::Map::is_empty);
            object::set_at(csr, &format!("spec.{field}"), if empty { Value::Null } else { value });
        }
        Ok(())
    }
}
