//! An issuer's keys: found through its discovery document, kept, and asked for again when a token names one that is not known.
//!
//! What must stay true: nobody who sends tokens makes this server ask an issuer more often than every [`PAUSE`]; a token of a known
//! key never waits for an issuer that does not answer; keys that the issuer has withdrawn are believed no longer than
//! [`FRESH`], unless the issuer cannot be reached, and then no longer than [`LONGEST`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jsonwebtoken::jwk::{Jwk, KeyOperations, PublicKeyUse};
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::outbound::{ClientConfig, Outbound};

/// Between two requests for the same keys.
const PAUSE: Duration = Duration::from_secs(10);
/// For the discovery document and the keys together.
const PATIENCE: Duration = Duration::from_secs(10);
/// How old keys may be before they are asked for again.
const FRESH: Duration = Duration::from_hours(1);
/// How old they may become while the issuer cannot be reached.
const LONGEST: Duration = Duration::from_hours(24);
/// Keys of one issuer.
const MOST: usize = 100;
const WELL_KNOWN: &str = "/.well-known/openid-configuration";
/// A discovery document of this machine, for issuers that cannot be reached.
pub(super) const FILE: &str = "file:///";

/// The part of a discovery document that counts.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// What is known.
#[derive(Clone, Default)]
struct Known {
    keys: Arc<[Jwk]>,
    fetched: Option<Instant>,
}

/// The keys of one issuer.
pub(super) struct Keys {
    issuer: String,
    discovery: String,
    /// PEM; empty: the machine's authorities.
    authority: String,
    outbound: Outbound,
    known: RwLock<Known>,
    /// When they were last asked for; locked while they are.
    asked: Mutex<Option<Instant>>,
    pub(super) pause: Duration,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Keys {
    /// `discovery` is empty or the URL of the document, if that is not below the issuer's. Error: the authority is unusable.
    pub(super) fn new(issuer: &str, discovery: &str, authority: &str, outbound: Outbound) -> Result<Self, String> {
        let discovery = match discovery {
            "" => format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/')),
            own => own.to_owned(),
        };
        let keys = Self {
            issuer: issuer.to_owned(),
            discovery,
            authority: authority.to_owned(),
            outbound,
            known: RwLock::default(),
            asked: Mutex::new(None),
            pause: PAUSE,
        };
        if !authority.is_empty() {
            keys.outbound.check(&keys.server(issuer)?).map_err(|error| error.to_string())?;
        }
        Ok(keys)
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The keys that may have signed a token that names this one (`None`: all), asked for if need be.
    pub(super) async fn find(&self, id: Option<&str>) -> Result<Vec<Jwk>, String> {
        let (found, fresh) = self.present(id);
        if !found.is_empty() && fresh {
            return Ok(found);
        }
        let refreshed = if found.is_empty() {
            let last = self.asked.lock().await;
            self.refresh(last).await
        } else {
            // Somebody else may be asking; until then the old ones are good.
            match self.asked.try_lock() {
                Ok(last) => self.refresh(last).await,
                Err(_) => Ok(()),
            }
        };
        let (found, _) = self.present(id);
        match (found.is_empty(), refreshed) {
            (false, _) => Ok(found),
            (true, Err(why)) => Err(why),
            (true, Ok(())) => Err(format!("no key of {} has the id {:?}", self.issuer, id.unwrap_or_default())),
        }
    }

    /// Known keys, and whether they need not be asked for again.
    fn present(&self, id: Option<&str>) -> (Vec<Jwk>, bool) {
        let Known { keys, fetched } = self.known.read().clone();
        let age = fetched.map_or(Duration::MAX, |at| at.elapsed());
        if age > LONGEST {
            return (Vec::new(), false);
        }
        let is_asked = |key: &&Jwk| id.is_none() || key.common.key_id.as_deref() == id;
        (keys.iter().filter(is_asked).cloned().collect(), age <= FRESH)
    }

    async fn refresh(&self, mut last: tokio::sync::MutexGuard<'_, Option<Instant>>) -> Result<(), String> {
        if last.is_some_and(|last| last.elapsed() < self.pause) {
            return Ok(());
        }
        let fetched = tokio::time::timeout(PATIENCE, self.fetch()).await;
        *last = Some(Instant::now());
        let result = fetched.unwrap_or_else(|_| Err(format!("the issuer {} does not answer", self.issuer)));
        match result {
            Ok(keys) => {
                *self.known.write() = Known { keys: keys.into(), fetched: Some(Instant::now()) };
                Ok(())
            }
            Err(why) => {
                tracing::warn!(issuer = self.issuer, why, "the keys of an issuer of tokens cannot be read");
                Err(why)
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<Jwk>, String> {
        let document: Discovery = json(&self.discovery, &self.get(&self.discovery).await?)?;
        if document.issuer != self.issuer {
            return Err(format!(
                "issuer did not match the issuer returned by provider, expected {:?} got {:?}",
                self.issuer, document.issuer
            ));
        }
        // Only a document of this machine may name another one of it.
        if document.jwks_uri.starts_with(FILE) && !self.discovery.starts_with(FILE) {
            return Err(format!("{:?} is not an https URL", document.jwks_uri));
        }
        let set: Set = json(&document.jwks_uri, &self.get(&document.jwks_uri).await?)?;
        // Keys of kinds that are not known are for others.
        let keys = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        Ok(keys.filter(signs).take(MOST).collect())
    }

    async fn get(&self, url: &str) -> Result<Bytes, String> {
        if url.starts_with(FILE) {
            let path = url::Url::parse(url).ok().and_then(|url| url.to_file_path().ok());
            let path = path.ok_or_else(|| format!("{url:?} is not a path"))?;
            return tokio::fs::read(&path).await.map(Bytes::from).map_err(|error| format!("{url}: {error}"));
        }
        let reply = self.outbound.get(&self.server(url)?, PATIENCE).await.map_err(|error| error.to_string())?;
        if reply.status.is_success() { Ok(reply.body) } else { Err(format!("{url}: {}", reply.status)) }
    }

    fn server(&self, url: &str) -> Result<ClientConfig, String> {
        ClientConfig::of_https(url, self.authority.as_bytes()).map_err(|error| error.to_string())
    }
}

fn json<T: serde::de::DeserializeOwned>(url: &str, bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{url}: {error}"))
}

/// Whether a key is one that signs.
fn signs(key: &Jwk) -> bool {
    let verifies = |list: &Vec<KeyOperations>| list.contains(&KeyOperations::Verify);
    key.common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature)
        && key.common.key_operations.as_ref().is_none_or(verifies)
}
