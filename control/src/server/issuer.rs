//! `/.well-known/openid-configuration` and `/openid/v1/jwks`: how others verify this cluster's service-account tokens.

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use serde_json::json;
use wherry_api::status::ApiError;

use super::Server;
use super::body::{self, Body};
use super::error::ServerError;
use crate::auth::tokens::ISSUER;

const JWKS: &str = "/openid/v1/jwks";

pub(super) fn respond(server: &Server, path: &str) -> Result<Response<Body>, ServerError> {
    let Some(tokens) = server.tokens() else { return Err(ApiError::no_such_path().into()) };
    let (media, document) = if path == JWKS {
        ("application/jwk-set+json", json!(tokens.jwks()))
    } else {
        let document = json!({
            "issuer": ISSUER,
            "jwks_uri": format!("https://{}{JWKS}", server.config().advertise),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        ("application/json", document)
    };
    let mut response = Response::new(body::full(document.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    Ok(response)
}
