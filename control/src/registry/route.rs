//! What a `/v2/` path asks for. Names are checked here, so that nothing further on can leave the registry's directory.

use std::fmt;

use http::Method;

use super::digest::Digest;
use super::error::RegistryError;

/// A repository: a namespace, and a name of one or more parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Repository {
    pub namespace: String,
    pub name: String,
}

impl Repository {
    /// Parses `NAMESPACE/NAME`; parts are those of the distribution specification.
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        let invalid = || RegistryError::Name(text.to_owned());
        let (namespace, name) = text.split_once('/').ok_or_else(invalid)?;
        let good = text.len() <= 255 && text.split('/').all(good_part);
        if good { Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() }) } else { Err(invalid()) }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn good_part(part: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let starts_and_ends = part.bytes().next().is_some_and(is_word) && part.bytes().next_back().is_some_and(is_word);
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|s| !s.is_empty());
    starts_and_ends && separators.into_iter().all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
fn good_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

/// What a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    Tag(String),
    Digest(Digest),
}

impl Reference {
    fn parse(text: &str) -> Result<Self, RegistryError> {
        if text.contains(':') {
            return Ok(Self::Digest(text.parse()?));
        }
        if good_tag(text) {
            Ok(Self::Tag(text.to_owned()))
        } else {
            Err(RegistryError::ManifestUnknown(text.to_owned()))
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

/// A path below `/v2/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v2/` itself: whether the registry is there and the credentials are good.
    Base,
    Catalog,
    Tags(Repository),
    Manifest(Repository, Reference),
    Blob(Repository, Digest),
    /// Where an upload begins.
    Uploads(Repository),
    Upload(Repository, String),
    Referrers(Repository, Digest),
}

impl Route {
    pub(crate) fn parse(path: &str) -> Result<Self, RegistryError> {
        let rest = path.strip_prefix("/v2").ok_or(RegistryError::NoSuchPath)?;
        match rest.trim_start_matches('/') {
            "" => return Ok(Self::Base),
            "_catalog" => return Ok(Self::Catalog),
            _ => {}
        }
        let parts: Vec<&str> = rest.strip_prefix('/').ok_or(RegistryError::NoSuchPath)?.split('/').collect();
        let repository = |parts: &[&str]| Repository::parse(&parts.join("/"));
        match parts.as_slice() {
            [name @ .., "tags", "list"] => Ok(Self::Tags(repository(name)?)),
            [name @ .., "manifests", reference] => Ok(Self::Manifest(repository(name)?, Reference::parse(reference)?)),
            [name @ .., "referrers", digest] => Ok(Self::Referrers(repository(name)?, digest.parse()?)),
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
                Ok(Self::Uploads(repository(name)?))
            }
            [name @ .., "blobs", "uploads", id] if good_id(id) => Ok(Self::Upload(repository(name)?, (*id).to_owned())),
            [_, .., "blobs", "uploads", _] => Err(RegistryError::UploadUnknown),
            [name @ .., "blobs", digest] => Ok(Self::Blob(repository(name)?, digest.parse()?)),
            _ => Err(RegistryError::NoSuchPath),
        }
    }

    /// The repository that the path is about.
    pub(crate) fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Base | Self::Catalog => None,
            Self::Tags(repository)
            | Self::Manifest(repository, _)
            | Self::Blob(repository, _)
            | Self::Uploads(repository)
            | Self::Upload(repository, _)
            | Self::Referrers(repository, _) => Some(repository),
        }
    }
}

/// Whether a request sends or fetches a blob: it lasts as long as its client likes.
pub(crate) fn transfers(method: &Method, path: &str) -> bool {
    match Route::parse(path) {
        Ok(Route::Blob(..)) => method == Method::GET,
        Ok(Route::Uploads(_) | Route::Upload(..)) => {
            matches!(*method, Method::POST | Method::PATCH | Method::PUT)
        }
        _ => false,
    }
}

/// What [`super::uploads`] gives out: 32 hexadecimal digits.
fn good_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_read_from_their_end() {
        let repository = Repository { namespace: "web".to_owned(), name: "blobs/uploads".to_owned() };
        let digest = Digest::of(b"x");
        for (path, route) in [
            ("/v2", Route::Base),
            ("/v2/", Route::Base),
            ("/v2/_catalog", Route::Catalog),
            ("/v2/web/blobs/uploads/tags/list", Route::Tags(repository.clone())),
            ("/v2/web/blobs/uploads/blobs/uploads/", Route::Uploads(repository.clone())),
            (
                "/v2/web/blobs/uploads/manifests/v1.0",
                Route::Manifest(repository.clone(), Reference::Tag("v1.0".to_owned())),
            ),
            (&format!("/v2/web/blobs/uploads/blobs/{digest}"), Route::Blob(repository, digest.clone())),
        ] {
            assert_eq!(Route::parse(path).unwrap(), route, "{path}");
        }
    }

    #[test]
    fn bad_names_are_told_apart() {
        assert!(matches!(Route::parse("/v2/one/tags/list"), Err(RegistryError::Name(_))));
        assert!(matches!(Route::parse("/v2/Web/App/tags/list"), Err(RegistryError::Name(_))));
        assert!(matches!(Route::parse("/v2/a/../manifests/x"), Err(RegistryError::Name(_))));
        assert!(matches!(Route::parse("/v2/a/b/manifests/.."), Err(RegistryError::ManifestUnknown(_))));
        assert!(matches!(Route::parse("/v2/a/b/blobs/sha256:zz"), Err(RegistryError::Digest(_))));
        assert!(Route::parse("/v2/a/b/blobs/uploads/../x").is_err());
        assert!(matches!(Route::parse("/v2/a/b/other"), Err(RegistryError::NoSuchPath)));
    }

    #[test]
    fn only_blobs_last_as_long_as_their_clients_like() {
        let digest = Digest::of(b"x");
        let (blob, upload) = (format!("/v2/a/b/blobs/{digest}"), format!("/v2/a/b/blobs/uploads/{:032x}", 7));
        let referrers = format!("/v2/a/b/referrers/{digest}");
        for (method, path, lasts) in [
            (Method::GET, blob.as_str(), true),
            (Method::HEAD, &blob, false),
            (Method::DELETE, &blob, false),
            (Method::POST, "/v2/a/b/blobs/uploads/", true),
            (Method::PATCH, &upload, true),
            (Method::PUT, &upload, true),
            (Method::GET, &upload, false),
            (Method::GET, &referrers, false),
            (Method::PUT, "/v2/a/b/manifests/c", false),
            (Method::GET, "/v2/_catalog", false),
        ] {
            assert_eq!(transfers(&method, path), lasts, "{method} {path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leads_out_of_the_directory(path in "/v2/[a-z0-9./:_%-]{0,60}") {
            if let Ok(route) = Route::parse(&path)
                && let Some(repository) = route.repository()
            {
                let text = repository.to_string();
                prop_assert!(text.split('/').all(|part| !part.starts_with(['.', '_']) && !part.is_empty()));
            }
        }
    }
}
