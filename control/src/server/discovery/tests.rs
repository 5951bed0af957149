//! Discovery documents, asked for as clients do.

use http::header::{ACCEPT, IF_NONE_MATCH};
use http_body_util::BodyExt;

use super::*;

async fn get(path: &str, accept: &str) -> (StatusCode, HeaderMap, Value) {
    let discovery = Discovery::new(Registry::builtin(), Arc::default(), "127.0.0.1:6443".to_owned());
    let mut headers = HeaderMap::new();
    if !accept.is_empty() {
        headers.insert(ACCEPT, accept.parse().unwrap());
    }
    let response = discovery.respond(path, &headers).unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn every_kind_is_found_in_both_forms() {
    let (_, headers, core) =
        get("/api", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json").await;
    assert!(headers[CONTENT_TYPE].to_str().unwrap().contains("v=v2"));
    let (_, _, named) = get("/apis", "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList").await;
    assert_eq!(named["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    for descriptor in Registry::builtin().iter() {
        let root = if descriptor.group.is_empty() { "/api" } else { "/apis" };
        let path = format!("{root}/{}", descriptor.api_version());
        let (_, _, list) = get(&path, "").await;
        let plain = list["resources"].as_array().unwrap().iter().any(|r| r["name"] == *descriptor.plural);
        assert!(plain, "{path} has no {}", descriptor.plural);
        let document = if descriptor.group.is_empty() { &core } else { &named };
        let text = document.to_string();
        assert!(text.contains(&format!("\"resource\":\"{}\"", descriptor.plural)), "{}", descriptor.plural);
    }
}

#[tokio::test]
async fn the_root_names_the_paths_that_there_are() {
    let (status, _, root) = get("/", "").await;
    let paths: Vec<&str> = root["paths"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(status, StatusCode::OK);
    assert!(paths.is_sorted(), "{paths:?}");
    for path in ["/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/livez", "/openapi/v3", "/version"] {
        assert!(paths.contains(&path), "{path} of {paths:?}");
    }
}

#[tokio::test]
async fn a_client_that_has_the_document_is_told_so() {
    let discovery = Discovery::new(Registry::builtin(), Arc::default(), "127.0.0.1:6443".to_owned());
    let first = discovery.respond("/apis/", &HeaderMap::new()).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
    assert_eq!(discovery.respond("/apis", &headers).unwrap().status(), StatusCode::NOT_MODIFIED);
}

#[test]
fn what_is_not_served_is_404_and_what_is_not_accepted_406() {
    let discovery = Discovery::new(Registry::builtin(), Arc::default(), "127.0.0.1:6443".to_owned());
    assert_eq!(discovery.respond("/apis/none/v1", &HeaderMap::new()).unwrap_err().code, 404);
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/vnd.kubernetes.protobuf"));
    assert_eq!(discovery.respond("/version", &headers).unwrap_err().code, 406);
}

#[test]
fn a_change_keeps_what_it_is_not_about() {
    let registry = Registry::builtin();
    let discovery = Discovery::new(registry.clone(), Arc::default(), "127.0.0.1:6443".to_owned());
    let of = |discovery: &Discovery, path: &str| discovery.document(path, None).map(|found| found.bytes);
    let (apps, groups) = (of(&discovery, "/apis/apps/v1").unwrap(), of(&discovery, "/apis").unwrap());
    assert!(of(&discovery, "/apis/none").is_none() && of(&discovery, "/apis/apps/v9").is_none());
    let mut boat = Descriptor::of::<k8s_openapi::api::core::v1::ConfigMap>();
    (boat.group, boat.plural) = ("sea.example.com".into(), "boats".into());
    let next = discovery.after(registry.with_custom(vec![Arc::new(boat)]), Arc::default());
    assert_eq!(next.made.lock().len(), 1, "what is about all kinds is made anew");
    assert_eq!(of(&next, "/apis/apps/v1").unwrap().as_ptr(), apps.as_ptr(), "the same bytes");
    assert_ne!(of(&next, "/apis").unwrap(), groups);
    assert!(of(&next, "/apis/sea.example.com").is_some() && of(&next, "/apis/sea.example.com/v1").is_some());
}

#[tokio::test]
async fn the_version_is_one_that_clients_parse() {
    let (_, _, version) = get("/version", "").await;
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.36.0+wherry-"));
    let commit = version["gitCommit"].as_str().unwrap();
    assert!(!commit.is_empty() && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{commit}");
}

#[test]
fn a_stable_version_is_preferred_to_a_newer_beta() {
    let mut versions = ["v1alpha1", "v2beta1", "v1", "odd", "v2beta3", "v2"];
    versions.sort_by_key(|v| std::cmp::Reverse(priority(v)));
    assert_eq!(versions, ["v2", "v1", "v2beta3", "v2beta1", "v1alpha1", "odd"]);
}
