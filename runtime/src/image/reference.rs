//! Image references: Docker's normal form, the cluster's own registry, and which registries speak plain HTTP.

use std::net::IpAddr;

use oci_distribution::Reference;

/// The host name of the registry that the API server serves; resolved by nodes to the server, never by DNS.
pub const CLUSTER_REGISTRY: &str = "wherry.local";

/// Why a reference is not one.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    #[error("it is a path; `wherry apply -f` and `wherry push` package components")]
    Path,
    #[error("invalid reference format: {0}")]
    Format(oci_distribution::ParseError),
    #[error("images of {CLUSTER_REGISTRY} are named {CLUSTER_REGISTRY}/NAMESPACE/NAME")]
    ClusterName,
}

/// Parses `[HOST/]REPOSITORY[:TAG][@DIGEST]`; without a host it is Docker Hub's, without a tag `latest`.
pub fn parse(text: &str) -> Result<Reference, ReferenceError> {
    if ["./", "../", "/", "file:"].iter().any(|prefix| text.starts_with(prefix)) {
        return Err(ReferenceError::Path);
    }
    let reference: Reference = text.parse().map_err(ReferenceError::Format)?;
    if is_cluster(&reference) && reference.repository().split('/').count() != 2 {
        return Err(ReferenceError::ClusterName);
    }
    Ok(reference)
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
