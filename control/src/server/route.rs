//! Where a request goes: to a resource, or to one of the few paths that are none.

use http::Method;

use super::request::RequestInfo;

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Resource(Box<RequestInfo>),
    /// `/`, `/api`, `/apis`, `/apis/GROUP`, `/api/VERSION`, `/apis/GROUP/VERSION`, `/version`.
    Discovery,
    OpenApi,
    /// `/healthz`, `/livez`, `/readyz` and below.
    Health,
    Metrics,
    /// The OpenID documents of the issuer of service-account tokens.
    Issuer,
    /// A copy of the state.
    Backup,
    /// The image registry's `/v2/`.
    Images,
    Unknown,
}

impl Route {
    pub(crate) fn of(method: &Method, path: &str, watch: bool) -> Self {
        let mut segments = path.split('/').skip(1);
        match segments.next().unwrap_or_default() {
            "" if path == "/" => Self::Discovery,
            "healthz" | "livez" | "readyz" => Self::Health,
            "metrics" if segments.next().is_none() => Self::Metrics,
            "backup" if segments.next().is_none() => Self::Backup,
            "openapi" => Self::OpenApi,
            ".well-known" if path == "/.well-known/openid-configuration" => Self::Issuer,
            "openid" if path == "/openid/v1/jwks" => Self::Issuer,
            "version" if segments.next().is_none_or(str::is_empty) => Self::Discovery,
            "v2" => Self::Images,
            root @ ("api" | "apis") => match RequestInfo::parse(method, path, watch) {
                Some(info) => Self::Resource(Box::new(info)),
                None if segments.filter(|s| !s.is_empty()).count() <= usize::from(root == "apis") + 1 => {
                    Self::Discovery
                }
                None => Self::Unknown,
            },
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_one_route() {
        for (path, route) in [
            ("/api", Route::Discovery),
            ("/api/v1", Route::Discovery),
            ("/apis/", Route::Discovery),
            ("/apis/apps", Route::Discovery),
            ("/apis/apps/v1/", Route::Discovery),
            ("/version", Route::Discovery),
            ("/livez/ping", Route::Health),
            ("/backup", Route::Backup),
            ("/backup/x", Route::Unknown),
            ("/metrics", Route::Metrics),
            ("/metrics/x", Route::Unknown),
            ("/openapi/v3/api/v1", Route::OpenApi),
            ("/v2/a/b/manifests/c", Route::Images),
            ("/openid/v1/jwks", Route::Issuer),
            ("/openid/v1", Route::Unknown),
            ("/", Route::Discovery),
            ("//", Route::Unknown),
            ("/nonsense", Route::Unknown),
        ] {
            assert_eq!(Route::of(&Method::GET, path, false), route, "{path}");
        }
        assert!(matches!(Route::of(&Method::GET, "/api/v1/pods", false), Route::Resource(_)));
    }
}
