//! Bootstrap tokens: removes those that have ended, and signs the cluster's public description with those that may sign, so
//! that a machine that knows only a token can tell whether the description is this cluster's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use serde_json::{Map, Value, json};

use super::write;
use crate::auth::tokens::bootstrap::{NAMESPACE, has_ended};
use crate::controllers::{Context, FromContext};
use crate::reconcile::shared::{CLUSTER_INFO, PUBLIC};
use crate::reconcile::{Controller, Error, Key, Queue, Shared};

const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE: &str = "jws-kubeconfig-";

#[derive(Debug)]
pub struct BootstrapTokens {
    shared: Arc<Shared>,
}

impl FromContext for BootstrapTokens {
    fn new(context: &Context) -> Self {
        Self { shared: context.shared.clone() }
    }
}

/// The one key: a description has signatures of all tokens.
fn all() -> Key {
    Key::new("", "")
}

fn data<'a>(secret: &'a Secret, field: &str) -> Option<&'a str> {
    std::str::from_utf8(&secret.data.as_ref()?.get(field)?.0).ok()
}

impl Controller for BootstrapTokens {
    type Key = Key;
    const NAME: &'static str = "bootstrap-token";

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        let to = queue.clone();
        self.shared.bootstrap_tokens.subscribe(move |_| to.add(all()));
        let to = queue.clone();
        self.shared.cluster_infos.subscribe(move |_| to.add(all()));
    }

    fn keys(&self) -> Vec<Key> {
        vec![all()]
    }

    async fn reconcile(&self, _all: &Key) -> Result<Option<Duration>, Error> {
        let next = self.clean(Timestamp::now()).await?;
        self.sign().await?;
        Ok(next)
    }
}

impl BootstrapTokens {
    /// Removes what has ended; returns when the next one ends.
    async fn clean(&self, now: Timestamp) -> Result<Option<Duration>, Error> {
        let api: Api<Secret> = Api::namespaced(self.shared.client.clone(), NAMESPACE);
        let mut next = None;
        for secret in self.shared.bootstrap_tokens.list() {
            let Some(expiration) = data(&secret, "expiration") else { continue };
            if has_ended(expiration, now) {
                let store = &self.shared.bootstrap_tokens;
                write::delete(&api, store, &*secret, "remove a bootstrap token that has ended").await?;
            } else if let Ok(end) = expiration.parse::<Timestamp>() {
                let left = end.duration_since(now).unsigned_abs();
                next = Some(next.map_or(left, |earlier: Duration| earlier.min(left)));
            }
        }
        Ok(next)
    }

    async fn sign(&self) -> Result<(), Error> {
        let Some(info) = self.shared.cluster_infos.get(&Key::new(PUBLIC, CLUSTER_INFO)) else { return Ok(()) };
        let empty = BTreeMap::new();
        let present = info.data.as_ref().unwrap_or(&empty);
        let wanted = present.get(KUBECONFIG).map(|text| self.signatures(text)).unwrap_or_default();
        let mut patch = Map::new();
        for name in present.keys().filter(|name| name.starts_with(SIGNATURE) && !wanted.contains_key(*name)) {
            patch.insert(name.clone(), Value::Null);
        }
        for (name, signature) in wanted.into_iter().filter(|(name, signature)| present.get(name) != Some(signature)) {
            patch.insert(name, signature.into());
        }
        if patch.is_empty() {
            return Ok(());
        }
        let api: Api<ConfigMap> = Api::namespaced(self.shared.client.clone(), PUBLIC);
        write::merge(&api, &self.shared.cluster_infos, &info, json!({ "data": patch })).await
    }

    /// The description's signatures, by the names of their fields.
    fn signatures(&self, text: &str) -> BTreeMap<String, String> {
        let tokens = self.shared.bootstrap_tokens.list();
        let signing = tokens.iter().filter(|secret| data(secret, "usage-bootstrap-signing") == Some("true"));
        let named = signing.filter_map(|secret| Some((data(secret, "token-id")?, data(secret, "token-secret")?)));
        named.map(|(id, secret)| (format!("{SIGNATURE}{id}"), signature(text, id, secret))).collect()
    }
}

/// A JSON web signature (HS256) whose middle part, the text itself, is left out.
fn signature(text: &str, id: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": id}).to_string());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(text));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, format!("{id}.{secret}").as_bytes()), signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_signed_by_its_token_and_not_carried_in_the_signature() {
        let one = signature("text", "abcdef", "0123456789abcdef");
        let parts: Vec<&str> = one.split('.').collect();
        assert_eq!((parts.len(), parts[1]), (3, ""));
        let whole = format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode("text"), parts[2]);
        let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
        validation.set_required_spec_claims::<&str>(&[]);
        let key = jsonwebtoken::DecodingKey::from_secret(b"abcdef.0123456789abcdef");
        let header = jsonwebtoken::decode_header(&whole).unwrap();
        assert_eq!(header.kid.as_deref(), Some("abcdef"));
        let signed = whole.rsplit_once('.').unwrap();
        let algorithm = jsonwebtoken::Algorithm::HS256;
        assert!(jsonwebtoken::crypto::verify(signed.1, signed.0.as_bytes(), &key, algorithm).unwrap());
        assert_ne!(one, signature("text", "abcdef", "1123456789abcdef"));
    }
}
