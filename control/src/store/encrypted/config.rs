//! What is encrypted with which keys: Kubernetes' `EncryptionConfiguration` file.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::super::{Encoded, Key, StoreError};
use super::envelope::{Envelope, SEALED, SealError, SealKey};

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the encryption configuration {path} cannot be read")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the encryption configuration {path} is not one of apiserver.config.k8s.io/v1")]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_yaml::Error,
    },
    #[error("the encryption configuration {path}: {field}: {why}")]
    Invalid { path: PathBuf, field: String, why: String },
}

/// The configuration, ready to use. The default encrypts nothing.
#[derive(Default)]
pub struct Encryption {
    entries: Vec<Entry>,
}

/// Resources and their providers.
struct Entry {
    resources: Vec<String>,
    providers: Vec<Provider>,
}

enum Provider {
    Identity,
    AesGcm(Vec<SealKey>),
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resources: Vec<_> = self.entries.iter().map(|entry| &entry.resources).collect();
        f.debug_struct("Encryption").field("resources", &resources).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    resources: Vec<FileEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    resources: Vec<String>,
    providers: Vec<serde_json::Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKeys {
    keys: Vec<FileKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    name: String,
    secret: String,
}

impl Encryption {
    /// Reads a file. Blocks.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file: File =
            serde_yaml::from_str(text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })?;
        let invalid = |field: &str, why: String| ConfigError::Invalid { path: path.into(), field: field.into(), why };
        if file.api_version != "apiserver.config.k8s.io/v1" || file.kind != "EncryptionConfiguration" {
            let why =
                format!("{} {} is not apiserver.config.k8s.io/v1 EncryptionConfiguration", file.api_version, file.kind);
            return Err(invalid("kind", why));
        }
        let mut entries = Vec::new();
        for (at, entry) in file.resources.into_iter().enumerate() {
            let field = format!("resources[{at}]");
            if entry.resources.is_empty() || entry.providers.is_empty() {
                return Err(invalid(&field, "needs resources and providers".to_owned()));
            }
            let providers = entry.providers.into_iter().enumerate().map(|(n, provider)| {
                provider_of(provider).map_err(|why| invalid(&format!("{field}.providers[{n}]"), why))
            });
            let providers = providers.collect::<Result<_, _>>()?;
            entries.push(Entry { resources: entry.resources, providers });
        }
        Ok(Self { entries })
    }

    /// The first entry that names the key's resource.
    fn entry(&self, key: &Key) -> Option<&Entry> {
        if self.entries.is_empty() {
            return None;
        }
        let (group, resource) = resource_of(key)?;
        self.entries.iter().find(|entry| entry.resources.iter().any(|text| names(text, group, resource)))
    }

    /// The sealed form of a value; `None`: it is stored as it is.
    pub(super) fn seal(&self, key: &Key, value: &Encoded) -> Result<Option<Encoded>, StoreError> {
        match self.entry(key).and_then(Entry::write_key) {
            Some(with) => with.seal(key, value).map(Some).map_err(|source| sealed(key, source)),
            None => Ok(None),
        }
    }

    /// The object in a sealed value; `None`: it is not sealed.
    pub(super) fn open(&self, key: &Key, value: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if !value.starts_with(SEALED) {
            let plain = self.entry(key).is_none_or(Entry::reads_plain);
            return if plain { Ok(None) } else { Err(sealed(key, SealError::Plain)) };
        }
        let envelope = Envelope::parse(value).map_err(|source| sealed(key, source))?;
        let mut error = SealError::UnknownKey { name: envelope.name.to_owned() };
        // Whatever entry a key is in: a resource that is no longer named is still read.
        for with in self.entries.iter().flat_map(Entry::keys).filter(|with| with.name == envelope.name) {
            match envelope.open(with, key) {
                Ok(plain) => return Ok(Some(plain)),
                Err(reason) => error = reason,
            }
        }
        Err(sealed(key, error))
    }

    /// Whether a stored value is not in the form that a write would give it now.
    pub(super) fn stale(&self, key: &Key, value: &[u8]) -> bool {
        let written = value.starts_with(SEALED).then(|| Envelope::parse(value).map(|e| e.name).unwrap_or_default());
        written != self.entry(key).and_then(Entry::write_key).map(|with| with.name.as_str())
    }
}

impl Entry {
    /// The first provider's first key.
    fn write_key(&self) -> Option<&SealKey> {
        match self.providers.first()? {
            Provider::AesGcm(keys) => keys.first(),
            Provider::Identity => None,
        }
    }

    fn reads_plain(&self) -> bool {
        self.providers.iter().any(|provider| matches!(provider, Provider::Identity))
    }

    fn keys(&self) -> impl Iterator<Item = &SealKey> {
        self.providers.iter().flat_map(|provider| match provider {
            Provider::AesGcm(keys) => keys.as_slice(),
            Provider::Identity => &[],
        })
    }
}

fn sealed(key: &Key, source: SealError) -> StoreError {
    let mut parts = key.as_str().splitn(4, '/');
    let (_, resource) = (parts.next(), parts.next().unwrap_or_default());
    let place: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    StoreError::Sealed { object: format!("{resource} {}", place.join("/")), source }
}

fn resource_of(key: &Key) -> Option<(&str, &str)> {
    let mut parts = key.as_str().splitn(3, '/');
    let (group, resource) = (parts.next()?, parts.next()?);
    Some((if group == "core" { "" } else { group }, resource))
}

/// `secrets`, `deployments.apps`, `*.apps` (a group), `*.` (the core group) or `*.*`.
fn names(text: &str, group: &str, resource: &str) -> bool {
    let (wanted, wanted_group) = text.split_once('.').unwrap_or((text, ""));
    (wanted == "*" || wanted == resource) && (text == "*.*" || wanted_group == group)
}

fn provider_of(provider: serde_json::Map<String, Value>) -> Result<Provider, String> {
    let mut parts = provider.into_iter();
    let (Some((name, value)), None) = (parts.next(), parts.next()) else {
        return Err("a provider is exactly one of aesgcm and identity".to_owned());
    };
    match name.as_str() {
        "identity" => Ok(Provider::Identity),
        "aesgcm" => {
            let keys: FileKeys = serde_json::from_value(value).map_err(|error| error.to_string())?;
            let keys: Vec<SealKey> = keys.keys.into_iter().map(key_of).collect::<Result<_, _>>()?;
            let twice = keys.iter().enumerate().find(|(n, key)| keys.iter().take(*n).any(|k| k.name == key.name));
            match twice {
                Some((_, key)) => Err(format!("the key {:?} is there twice", key.name)),
                None if keys.is_empty() => Err("aesgcm needs a key".to_owned()),
                None => Ok(Provider::AesGcm(keys)),
            }
        }
        "kms" => Err("kms is not supported: Wherry calls no key service; use aesgcm with a key from a file".to_owned()),
        "aescbc" | "secretbox" => Err(format!("{name} is not supported; use aesgcm, which needs no rotation by count")),
        other => Err(format!("there is no provider {other:?}; aesgcm and identity are supported")),
    }
}

fn key_of(key: FileKey) -> Result<SealKey, String> {
    if key.name.is_empty() || !key.name.chars().all(|c| c.is_ascii_graphic() && c != ':') {
        return Err(format!("the key name {:?} must be printable and have no colon", key.name));
    }
    let secret =
        STANDARD.decode(key.secret.trim()).map_err(|_| format!("the secret of {:?} is not base64", key.name))?;
    match secret.len() {
        16 | 24 | 32 => Ok(SealKey { name: key.name, secret }),
        other => Err(format!("the secret of {:?} has {other} bytes; it must have 16, 24 or 32", key.name)),
    }
}
