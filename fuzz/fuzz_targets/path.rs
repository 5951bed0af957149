//! Paths of requests: each has one route, and what authorization is asked about is what was in the path.
//!
//! The two files are the control plane's own: compiled in here, they need none of its dependencies.
#![no_main]
#![allow(dead_code)]

use http::{Method, Uri};
use libfuzzer_sys::fuzz_target;

#[path = "../../control/src/server/request.rs"]
mod request;
#[path = "../../control/src/server/route.rs"]
mod route;

use route::Route;

fuzz_target!(|input: (u8, bool, &str)| {
    let (method, watch, target) = input;
    // As the server gets it: what is no URI never arrives.
    let Ok(uri) = target.parse::<Uri>() else { return };
    let path = uri.path();
    let methods =
        [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];
    let method = &methods[usize::from(method) % methods.len()];
    let Route::Resource(info) = Route::of(method, path, watch) else { return };
    assert!(path.starts_with("/api/") || path.starts_with("/apis/"), "{path}");
    assert!(!info.resource.is_empty() && !info.version.is_empty(), "{path}");
    assert_eq!(info.group.is_empty(), path.starts_with("/api/"), "{path}");
    assert!(info.subresource.is_empty() || !info.name.is_empty(), "{path}");
    assert!(!matches!(info.verb, "get" | "delete") || !info.name.is_empty(), "{path}");
    assert!(info.verb != "deletecollection" || info.name.is_empty(), "{path}");
});
