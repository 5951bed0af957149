//! Registry credentials in the format of Docker's config file, which is also that of a Secret of type
//! `kubernetes.io/dockerconfigjson`. Credential helpers are not run.
//!
//! Where each set of credentials came from is kept, so that a refusal can say whose password was wrong or where none was.
//! No error shows what a file holds: pods and events tell it to people who may not read the Secret.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use oci_distribution::Reference;
use oci_distribution::secrets::RegistryAuth;
use serde::Deserialize;
use serde_json::error::Category;

use super::refusal::Seen;

/// Secrets' types, as Kubernetes names them.
const CONFIG_JSON: &str = "kubernetes.io/dockerconfigjson";
const CONFIG: &str = "kubernetes.io/dockercfg";

/// Why a config file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("{path} cannot be read")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{origin} is not a Docker config file: {problem} (line {line}, column {column})")]
    Parse { origin: String, problem: &'static str, line: usize, column: usize },
}

/// Reads JSON of `origin`.
fn parse<T: serde::de::DeserializeOwned>(origin: &str, bytes: &[u8]) -> Result<T, CredentialsError> {
    serde_json::from_slice(bytes).map_err(|error| CredentialsError::Parse {
        origin: origin.to_owned(),
        // The parser's own words quote the value.
        problem: match error.classify() {
            Category::Data => "a value has the wrong type",
            Category::Eof => "it ends too early",
            Category::Syntax | Category::Io => "it is not JSON",
        },
        line: error.line(),
        column: error.column(),
    })
}

/// A Secret that a pod names in `imagePullSecrets`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PullSecret {
    pub name: String,
    pub content: PullSecretContent,
}

/// What of it matters here.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum PullSecretContent {
    /// Its `type`, and the bytes under that type's key.
    Found { type_: String, config: Option<Vec<u8>> },
    /// Why it could not be read.
    Missing(String),
}

impl std::fmt::Debug for PullSecret {
    /// Never what it holds.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PullSecret").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for PullSecretContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Found { .. } => "Found(..)",
            Self::Missing(_) => "Missing(..)",
        })
    }
}

impl PullSecretContent {
    /// Takes from a Secret what its type says is the config file.
    pub fn of(type_: &str, data: &BTreeMap<String, Vec<u8>>) -> Self {
        let key = match type_ {
            CONFIG_JSON => ".dockerconfigjson",
            CONFIG => ".dockercfg",
            _ => "",
        };
        Self::Found { type_: type_.to_owned(), config: data.get(key).cloned() }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
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

/// What a registry is told about who asks.
#[derive(Clone)]
pub struct Login {
    pub auth: RegistryAuth,
    /// Where it was found; `None`: nobody in particular asks.
    pub origin: Option<String>,
}

impl std::fmt::Debug for Login {
    /// Where it was found, never what it is.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Login {
    /// Tells whether two logins for an image are the same without telling what they are; `None`: nobody in particular.
    pub fn fingerprint(&self, image: &Reference) -> Option<String> {
        let parts = match &self.auth {
            RegistryAuth::Anonymous => return None,
            RegistryAuth::Basic(user, password) => ["basic", user, password],
            RegistryAuth::Bearer(token) => ["bearer", token, ""],
        };
        let mut text = Vec::new();
        for part in [image.registry(), image.repository()].into_iter().chain(parts) {
            text.extend_from_slice(&part.len().to_be_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        Some(super::blobs::digest_of(&text))
    }
}

/// Credentials by registry, and by path within one.
#[derive(Default)]
pub struct Credentials {
    entries: Vec<(String, Login)>,
    /// Where was looked, in order.
    pub(super) seen: Vec<(String, Seen)>,
}

impl std::fmt::Debug for Credentials {
    /// Names registries, never secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|(registry, _)| registry)).finish()
    }
}

impl Credentials {
    /// Adds one config file; what was there before is tried first. `origin` says where it is, for a person.
    pub fn read(&mut self, origin: &str, bytes: &[u8]) -> Result<(), CredentialsError> {
        self.add(origin, parse(origin, bytes)?);
        Ok(())
    }

    fn add(&mut self, origin: &str, file: File) {
        let helpers = file.cred_helpers.into_iter().map(|(key, helper)| (normal(&key), helper)).collect();
        let mut seen = (Vec::new(), Vec::new());
        for (key, entry) in file.auths {
            let key = normal(&key);
            match entry.auth() {
                Some(auth) => {
                    seen.0.push(key.clone());
                    self.entries.push((key, Login { auth, origin: Some(origin.to_owned()) }));
                }
                None => seen.1.push(key),
            }
        }
        let seen = Seen::Read { usable: seen.0, empty: seen.1, store: file.creds_store, helpers };
        self.seen.push((origin.to_owned(), seen));
    }

    /// Those of a pod's `imagePullSecrets`, in order.
    pub fn of_secrets(secrets: &[PullSecret]) -> Result<Self, CredentialsError> {
        let mut all = Self::default();
        for secret in secrets {
            let origin = format!("imagePullSecret \"{}\"", secret.name);
            match &secret.content {
                PullSecretContent::Found { type_, config: Some(bytes) } if type_ == CONFIG => {
                    let auths = parse(&origin, bytes)?;
                    all.add(&origin, File { auths, ..File::default() });
                }
                PullSecretContent::Found { config: Some(bytes), .. } => all.read(&origin, bytes)?,
                PullSecretContent::Found { type_, config: None } => {
                    all.seen.push((origin, Seen::Useless(format!("is of type {type_}, not {CONFIG_JSON}"))));
                }
                PullSecretContent::Missing(why) => {
                    all.seen.push((origin, Seen::Useless(format!("cannot be read ({why})"))));
                }
            }
        }
        Ok(all)
    }

    /// Reads `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`; a missing file holds no credentials.
    pub fn from_environment() -> Result<Self, CredentialsError> {
        let folder = std::env::var_os("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")));
        let mut all = Self::default();
        let Some(path) = folder.map(|folder| folder.join("config.json")) else { return Ok(all) };
        let origin = path.display().to_string();
        match std::fs::read(&path) {
            Ok(bytes) => all.read(&origin, &bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                all.seen.push((origin, Seen::Useless("does not exist".to_owned())));
            }
            Err(source) => return Err(CredentialsError::Read { path, source }),
        }
        Ok(all)
    }

    /// What to try for a reference: matching entries, the most specific path first, then anonymous.
    pub fn matching(&self, reference: &Reference) -> Vec<Login> {
        let name = format!("{}/{}", reference.registry(), reference.repository());
        let mut found: Vec<_> = self
            .entries
            .iter()
            .filter(|(key, _)| {
                name == *key || name.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('/'))
            })
            .collect();
        found.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
        let anonymous = Login { auth: RegistryAuth::Anonymous, origin: None };
        found.into_iter().map(|(_, login)| login.clone()).chain([anonymous]).collect()
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

    /// What is tried for an image with the credentials of `file`.
    fn tried(file: &str, image: &str) -> Vec<RegistryAuth> {
        let mut credentials = Credentials::default();
        credentials.read("f", file.as_bytes()).unwrap();
        credentials.matching(&image.parse().unwrap()).into_iter().map(|login| login.auth).collect()
    }

    #[test]
    fn the_most_specific_entry_comes_first_and_anonymous_last() {
        let file = r#"{"auths":{"reg.example":{"auth":"YTpi"},"reg.example/team":{"username":"c","password":"d"},"other":{"auth":"eDp5"}}}"#;
        assert_eq!(tried(file, "reg.example/team/app:1"), [basic("c", "d"), basic("a", "b"), RegistryAuth::Anonymous]);
    }

    #[test]
    fn docker_hubs_old_address_is_docker_hub() {
        let file = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTpi"}}}"#;
        assert_eq!(tried(file, "nginx").first(), Some(&basic("a", "b")));
    }

    #[test]
    fn a_registry_whose_name_is_a_prefix_is_another_registry() {
        assert_eq!(tried(r#"{"auths":{"reg":{"auth":"YTpi"}}}"#, "registry.example/a"), [RegistryAuth::Anonymous]);
    }

    #[test]
    fn a_secret_is_read_as_its_type_says() {
        let file = br#"{"reg.example":{"auth":"YTpi"}}"#.to_vec();
        let data = BTreeMap::from([(".dockercfg".to_owned(), file)]);
        let used = |type_: &str| {
            let secret = PullSecret { name: "s".to_owned(), content: PullSecretContent::of(type_, &data) };
            Credentials::of_secrets(&[secret]).unwrap().matching(&"reg.example/a".parse().unwrap()).len()
        };
        assert_eq!((used(CONFIG), used("Opaque")), (2, 1));
    }

    #[test]
    fn a_broken_file_is_named() {
        let error = Credentials::default().read("/c.json", b"{").unwrap_err().to_string();
        assert_eq!(error, "/c.json is not a Docker config file: it ends too early (line 1, column 1)");
    }

    #[test]
    fn what_a_secret_of_the_wrong_shape_holds_is_not_told() {
        for (type_, key, file) in [
            (CONFIG_JSON, ".dockerconfigjson", r#"{"auths":{"reg":"dXNlcjpwYXNz"}}"#),
            (CONFIG_JSON, ".dockerconfigjson", r#"{"auths":{"reg":{"password":123456}}}"#),
            (CONFIG_JSON, ".dockerconfigjson", r#""dXNlcjpwYXNz""#),
            (CONFIG, ".dockercfg", r#"{"reg":"dXNlcjpwYXNz"}"#),
        ] {
            let data = BTreeMap::from([(key.to_owned(), file.as_bytes().to_vec())]);
            let secret = PullSecret { name: "s".to_owned(), content: PullSecretContent::of(type_, &data) };
            let error = Credentials::of_secrets(&[secret]).unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(!told.contains("dXNlcjpwYXNz") && !told.contains("123456"), "{told}");
            let start =
                "imagePullSecret \"s\" is not a Docker config file: a value has the wrong type (line 1, column ";
            assert!(error.to_string().starts_with(start), "{error}");
        }
    }
}
