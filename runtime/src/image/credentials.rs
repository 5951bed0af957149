//! Registry credentials in the format of Docker's config file, which is also that of a Secret of type
//! `kubernetes.io/dockerconfigjson`. Credential helpers are not run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use oci_distribution::Reference;
use oci_distribution::secrets::RegistryAuth;
use serde::Deserialize;

/// Why a config file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("{path} cannot be read")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("not a Docker config file: {0}")]
    Parse(serde_json::Error),
}

#[derive(Deserialize, Default)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// Credentials by registry, and by path within one.
#[derive(Default)]
pub struct Credentials {
    entries: Vec<(String, RegistryAuth)>,
}

impl std::fmt::Debug for Credentials {
    /// Names registries, never secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|(registry, _)| registry)).finish()
    }
}

impl Credentials {
    /// Parses one config file.
    pub fn parse(bytes: &[u8]) -> Result<Self, CredentialsError> {
        let file: File = serde_json::from_slice(bytes).map_err(CredentialsError::Parse)?;
        let entries = file.auths.into_iter().filter_map(|(key, entry)| Some((normal(&key), entry.auth()?))).collect();
        Ok(Self { entries })
    }

    /// Reads `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`; a missing file holds no credentials.
    pub fn from_environment() -> Result<Self, CredentialsError> {
        let folder = std::env::var_os("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")));
        let Some(path) = folder.map(|folder| folder.join("config.json")) else { return Ok(Self::default()) };
        match std::fs::read(&path) {
            Ok(bytes) => Self::parse(&bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(CredentialsError::Read { path, source }),
        }
    }

    /// Adds those of another file; earlier ones are tried first.
    pub fn extend(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    /// What to try for a reference: matching entries, the most specific path first, then anonymous.
    pub fn matching(&self, reference: &Reference) -> Vec<RegistryAuth> {
        let name = format!("{}/{}", reference.registry(), reference.repository());
        let mut found: Vec<_> = self
            .entries
            .iter()
            .filter(|(key, _)| {
                name == *key || name.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('/'))
            })
            .collect();
        found.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
        found.into_iter().map(|(_, auth)| auth.clone()).chain([RegistryAuth::Anonymous]).collect()
    }
}

/// `https://index.docker.io/v1/` and its relatives become `docker.io`; schemes and API paths go.
fn normal(key: &str) -> String {
    let bare = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.trim_end_matches("/v1").trim_end_matches("/v2");
    match bare {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

impl Entry {
    fn auth(self) -> Option<RegistryAuth> {
        if let Some(token) = self.registrytoken.filter(|t| !t.is_empty()) {
            return Some(RegistryAuth::Bearer(token));
        }
        let decoded = self.auth.as_deref().and_then(|auth| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(auth).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            let (user, password) = text.split_once(':')?;
            Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
        });
        let (user, password) = self.username.zip(self.password).or(decoded)?;
        let password = self.identitytoken.filter(|t| !t.is_empty()).unwrap_or(password);
        Some(RegistryAuth::Basic(user, password))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str, password: &str) -> RegistryAuth {
        RegistryAuth::Basic(user.to_owned(), password.to_owned())
    }

    #[test]
    fn the_most_specific_entry_comes_first_and_anonymous_last() {
        let file = r#"{"auths":{"reg.example":{"auth":"YTpi"},"reg.example/team":{"username":"c","password":"d"},"other":{"auth":"eDp5"}}}"#;
        let credentials = Credentials::parse(file.as_bytes()).unwrap();
        let reference: Reference = "reg.example/team/app:1".parse().unwrap();
        assert_eq!(credentials.matching(&reference), [basic("c", "d"), basic("a", "b"), RegistryAuth::Anonymous]);
    }

    #[test]
    fn docker_hubs_old_address_is_docker_hub() {
        let credentials = Credentials::parse(br#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTpi"}}}"#).unwrap();
        assert_eq!(credentials.matching(&"nginx".parse().unwrap()).first(), Some(&basic("a", "b")));
    }

    #[test]
    fn a_registry_whose_name_is_a_prefix_is_another_registry() {
        let credentials = Credentials::parse(br#"{"auths":{"reg":{"auth":"YTpi"}}}"#).unwrap();
        assert_eq!(credentials.matching(&"registry.example/a".parse().unwrap()), [RegistryAuth::Anonymous]);
    }
}
