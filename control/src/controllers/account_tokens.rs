//! Secrets of type `kubernetes.io/service-account-token`: filled with a token of the account that they name, and removed
//! with it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use serde_json::{Map, Value, json};

use super::write;
use crate::auth::tokens::{Reference, Tokens};
use crate::controllers::{Context, FromContext};
use crate::reconcile::driver::itself;
use crate::reconcile::{Controller, Error, Key, Queue, Shared, uid};

const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

#[derive(Debug)]
pub struct AccountTokens {
    shared: Arc<Shared>,
    tokens: Option<Arc<Tokens>>,
    root_ca: String,
}

impl FromContext for AccountTokens {
    fn new(context: &Context) -> Self {
        let config = &context.config;
        Self { shared: context.shared.clone(), tokens: config.tokens.clone(), root_ca: config.root_ca.clone() }
    }
}

fn account_of(secret: &Secret) -> Option<&str> {
    secret.annotations().get(ACCOUNT).map(String::as_str)
}

impl Controller for AccountTokens {
    type Key = Key;
    const NAME: &'static str = "serviceaccount-token";

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        self.shared.token_secrets.subscribe(itself(queue));
        let (to, secrets) = (queue.clone(), self.shared.token_secrets.clone());
        self.shared.service_accounts.subscribe(move |change| {
            let Some(account) = change.latest() else { return };
            let (namespace, name) = (account.namespace().unwrap_or_default(), account.name_any());
            for secret in secrets.namespace(&namespace, |secret| account_of(secret) == Some(&name)) {
                to.add(Key::of(&*secret));
            }
        });
    }

    fn keys(&self) -> Vec<Key> {
        self.shared.token_secrets.keys()
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let (Some(secret), Some(tokens)) = (self.shared.token_secrets.get(key), &self.tokens) else { return Ok(None) };
        let Some(name) = account_of(&secret) else { return Ok(None) };
        let api: Api<Secret> = Api::namespaced(self.shared.client.clone(), &key.namespace);
        let account = self.shared.service_accounts.get(&Key::new(&key.namespace, name));
        let meant = secret.annotations().get(ACCOUNT_UID);
        let Some(account) = account.filter(|account| meant.is_none_or(|meant| meant == uid(&**account))) else {
            let store = &self.shared.token_secrets;
            write::delete(&api, store, &*secret, "remove the token of a service account that has gone").await?;
            return Ok(None);
        };
        let account = Reference { name: name.to_owned(), uid: uid(&*account).to_owned() };
        let missing = self.missing(tokens, &secret, &account, key)?;
        if !missing.is_empty() {
            let patch = json!({"metadata": {"annotations": {ACCOUNT_UID: account.uid}}, "data": missing});
            write::merge(&api, &self.shared.token_secrets, &secret, patch).await?;
        }
        Ok(None)
    }
}

impl AccountTokens {
    /// The fields that the Secret lacks.
    fn missing(
        &self,
        tokens: &Tokens,
        secret: &Secret,
        account: &Reference,
        key: &Key,
    ) -> Result<Map<String, Value>, Error> {
        let held = |field: &str| secret.data.as_ref().and_then(|data| data.get(field)).map(|value| value.0.as_slice());
        let mut missing = Map::new();
        let mut set = |field: &str, value: &[u8]| {
            missing.insert(field.to_owned(), json!(ByteString(value.to_vec())));
        };
        if held("ca.crt") != Some(self.root_ca.as_bytes()) {
            set("ca.crt", self.root_ca.as_bytes());
        }
        if held("namespace") != Some(key.namespace.as_bytes()) {
            set("namespace", key.namespace.as_bytes());
        }
        if held("token").is_none_or(<[u8]>::is_empty) {
            let token = tokens.issue_legacy(&key.namespace, account, &key.name);
            set("token", token.map_err(|error| Error::Unfinished(error.to_string()))?.as_bytes());
        }
        Ok(missing)
    }
}
