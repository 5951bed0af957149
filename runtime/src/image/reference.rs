//! Image references: Docker's normal form, the cluster's own registry, and which registries speak plain HTTP.
//!
//! Parsed by hand: the regular expression that describes them takes 20 MB of compiled program and caches.

use std::net::{IpAddr, Ipv6Addr};

use oci_distribution::Reference;

/// The host name of the registry that the API server serves; resolved by nodes to the server, never by DNS.
pub const CLUSTER_REGISTRY: &str = "wherry.local";

/// Why a reference is not one.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    #[error("it is a path; `wherry apply -f` and `wherry push` package components")]
    Path,
    #[error("invalid reference format: {0}")]
    Format(&'static str),
    #[error("images of {CLUSTER_REGISTRY} are named {CLUSTER_REGISTRY}/NAMESPACE/NAME")]
    ClusterName,
}

/// The registry of references that name none.
pub const DOCKER_HUB: &str = "docker.io";
/// What Docker Hub was called.
const DOCKER_HUB_BEFORE: &str = "index.docker.io";
/// Where Docker Hub keeps names without a slash.
const OFFICIAL: &str = "library/";
const LONGEST_REPOSITORY: usize = 255;
const LONGEST_TAG: usize = 128;

/// Parses `[HOST/]REPOSITORY[:TAG][@DIGEST]`; without a host it is Docker Hub's, without a tag `latest`.
pub fn parse(text: &str) -> Result<Reference, ReferenceError> {
    if ["./", "../", "/", "file:"].iter().any(|prefix| text.starts_with(prefix)) {
        return Err(ReferenceError::Path);
    }
    let reference = normal_form(text).map_err(ReferenceError::Format)?;
    if is_cluster(&reference) && reference.repository().split('/').count() != 2 {
        return Err(ReferenceError::ClusterName);
    }
    Ok(reference)
}

/// The grammar and the normal form of distribution's `reference` package.
fn normal_form(text: &str) -> Result<Reference, &'static str> {
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => (named, Some(checked_digest(digest)?)),
        None => (text, None),
    };
    // A colon before the last slash belongs to the host's port.
    let (name, tag) = match named.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (named, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("a tag is up to 128 letters, digits, '_', '.' and '-'");
    }
    let (registry, repository) = split_host(name)?;
    if repository.len() > LONGEST_REPOSITORY {
        return Err("a repository's name is at most 255 bytes long");
    }
    let tag = tag.map(str::to_owned);
    Ok(match (tag, digest) {
        (Some(tag), Some(digest)) => Reference::with_tag_and_digest(registry, repository, tag, digest),
        (Some(tag), None) => Reference::with_tag(registry, repository, tag),
        (None, Some(digest)) => Reference::with_digest(registry, repository, digest),
        (None, None) => Reference::with_tag(registry, repository, "latest".to_owned()),
    })
}

/// The registry and the repository. What is before the first slash is a host if it looks like none of a repository's parts.
fn split_host(name: &str) -> Result<(String, String), &'static str> {
    let (host, repository) = match name.split_once('/') {
        Some((host, rest))
            if host.contains(['.', ':']) || host == "localhost" || host.contains(|c: char| c.is_ascii_uppercase()) =>
        {
            if !is_host(host) {
                return Err("what is before the first slash is not a host");
            }
            (if host == DOCKER_HUB_BEFORE { DOCKER_HUB } else { host }, rest)
        }
        _ => (DOCKER_HUB, name),
    };
    if !repository.split('/').all(is_component) {
        return Err("a repository's parts are lowercase letters and digits, separated by '.', '_', '__' or dashes");
    }
    let official = if host == DOCKER_HUB && !repository.contains('/') { OFFICIAL } else { "" };
    Ok((host.to_owned(), format!("{official}{repository}")))
}

fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.split('.').all(part)
}

/// Runs of letters and digits with one '.', one or two '_', or any number of dashes between them.
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = |b: Option<&u8>| b.is_some_and(|b| alphanumeric(*b));
    let bytes = text.as_bytes();
    let separator = |s: &[u8]| matches!(s, b"." | b"_" | b"__") || s.iter().all(|b| *b == b'-');
    ends(bytes.first()) && ends(bytes.last()) && bytes.split(|b| alphanumeric(*b)).all(separator)
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= LONGEST_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn checked_digest(text: &str) -> Result<String, &'static str> {
    let (algorithm, hex) = text.split_once(':').ok_or("a digest is ALGORITHM:HEX")?;
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err("the digest's algorithm is not sha256, sha384 or sha512"),
    };
    if hex.len() != length || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("the digest is not as many hexadecimal digits as its algorithm has");
    }
    Ok(text.to_owned())
}

/// Whether the cluster's own registry holds it.
pub fn is_cluster(reference: &Reference) -> bool {
    reference.registry() == CLUSTER_REGISTRY
}

/// `REGISTRY/REPOSITORY@DIGEST`.
pub fn pinned(reference: &Reference, digest: &str) -> String {
    format!("{}/{}@{digest}", reference.registry(), reference.repository())
}

/// Whether a registry on this address is spoken to in plain HTTP: loopback ones are, as Docker does it.
pub fn plain_http(registry: &str) -> bool {
    let host = if let Some(bracketed) = registry.strip_prefix('[') {
        bracketed.split(']').next().unwrap_or_default()
    } else {
        registry.rsplit_once(':').map_or(registry, |(host, _)| host)
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_docker_hubs() {
        let reference = parse("nginx").unwrap();
        assert_eq!(
            (reference.registry(), reference.repository(), reference.tag()),
            ("docker.io", "library/nginx", Some("latest"))
        );
    }

    #[test]
    fn hosts_ports_tags_and_digests_are_told_apart() {
        let digest = format!("sha256:{}", "f".repeat(64));
        let cases = [
            ("test.com:5000".to_owned(), "docker.io/library/test.com:5000".to_owned()),
            ("test:5000/repo".into(), "test:5000/repo:latest".into()),
            ("foo/foo_bar.com:8080".into(), "docker.io/foo/foo_bar.com:8080".into()),
            ("localhost/a__b/c--d:V_1.x-y".into(), "localhost/a__b/c--d:V_1.x-y".into()),
            ("index.docker.io/nginx".into(), "docker.io/library/nginx:latest".into()),
            ("[::1]:5000/app".into(), "[::1]:5000/app:latest".into()),
            (format!("a.b/c@{digest}"), format!("a.b/c@{digest}")),
            (format!("a.b/c:t@{digest}"), format!("a.b/c:t@{digest}")),
        ];
        for (text, whole) in cases {
            assert_eq!(parse(&text).unwrap().whole(), whole, "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = format!("a:{}", "t".repeat(129));
        let cases = [
            "",
            ":tag",
            "a:",
            "A",
            "a b",
            "a/",
            "/a",
            "a//b",
            "a/B",
            "-a",
            "a..b",
            "a___b",
            "a@sha256:ff",
            "a@md5:ff",
            "a@",
            "a.b:x/c",
            "a.b:/c",
            "a-.b/c",
            "h.x/ü",
            "a:b:c",
            "@sha256:0",
        ];
        for text in cases.into_iter().chain([long.as_str(), "a".repeat(256).as_str()]) {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_name_is_read_as_the_registrys_client_reads_it(text in "[a-zA-Z0-9._:/@-]{1,24}") {
            let theirs = text.parse::<Reference>().ok();
            let ours = normal_form(&text).ok();
            // Theirs takes a host in capitals for a part of a repository's name.
            if !text.contains(|c: char| c.is_ascii_uppercase()) && theirs.is_some() {
                proptest::prop_assert_eq!(ours.map(|r| r.whole()), theirs.map(|r| r.whole()));
            } else if theirs.is_none() {
                proptest::prop_assert_eq!(ours, None);
            }
        }
    }

    #[test]
    fn a_path_is_refused_with_advice() {
        for path in ["./a.wasm", "../a.wasm", "/a.wasm", "file:a.wasm"] {
            assert!(parse(path).unwrap_err().to_string().contains("wherry apply -f"), "{path}");
        }
    }

    #[test]
    fn only_loopback_registries_are_plain() {
        for (registry, plain) in [
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("10.0.0.1:5000", false),
            ("localhost.evil.com", false),
        ] {
            assert_eq!(plain_http(registry), plain, "{registry}");
        }
    }

    #[test]
    fn the_clusters_images_have_a_namespace_and_a_name() {
        assert!(parse("wherry.local/default/hello:v1").is_ok());
        assert!(matches!(parse("wherry.local/hello"), Err(ReferenceError::ClusterName)));
    }
}
