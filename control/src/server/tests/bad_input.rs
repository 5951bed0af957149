//! Bodies and headers that cannot be served: each is a Status with the right code.

use std::time::{Duration, Instant};

use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE};
use serde_json::json;

use super::{Api, config_map, pod};
use crate::server::body::LIMIT;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_body_that_is_not_text_not_json_or_too_large_is_refused() {
    let api = Api::new().await;
    let post = || Request::post(CONFIG_MAPS).header(CONTENT_TYPE, "application/json");
    assert_eq!(api.send(post(), &b"{\"kind\":\"\xff\xfe\"}"[..]).await.expect(400)["reason"], "BadRequest");
    let broken = api.send(post(), "{\"kind\":\n \"ConfigMap\",}").await;
    assert!(broken.code == 400 && broken.message().contains("line 2"), "{}", broken.message());
    assert_eq!(api.send(post(), "").await.code, 400);
    let large = api.send(post(), vec![b' '; LIMIT + 1]).await.expect(413);
    assert_eq!(large["reason"], "RequestEntityTooLarge");
    let other = Request::post(CONFIG_MAPS).header(CONTENT_TYPE, "application/cbor-seq");
    assert_eq!(api.send(other, "x").await.expect(415)["reason"], "UnsupportedMediaType");
    let protobuf = Request::post(CONFIG_MAPS).header(CONTENT_TYPE, "application/vnd.kubernetes.protobuf");
    assert_eq!(api.send(protobuf, "k8s").await.expect(400)["reason"], "BadRequest");
    assert_eq!(
        api.get_as(CONFIG_MAPS, "application/vnd.kubernetes.protobuf").await.expect(406)["reason"],
        "NotAcceptable"
    );
    let yaml = Request::post(CONFIG_MAPS).header(CONTENT_TYPE, "application/yaml");
    let made = api.send(yaml, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: from-yaml\n").await;
    assert_eq!(made.expect(201)["metadata"]["name"], "from-yaml");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_hundreds_of_thousands_of_items_cost_little_and_keep_nobody_waiting() {
    const PODS: &str = "/api/v1/namespaces/default/pods";
    let api = &Api::new().await;
    api.post(CONFIG_MAPS, &config_map("small")).await.expect(201);
    api.post(PODS, &pod("p")).await.expect(201);
    let containers = |count: usize| format!("{{\"spec\":{{\"containers\":[{}]}}}}", vec!["{}"; count].join(","));
    let started = Instant::now();
    let send = |method: &'static str, path: String, media: &'static str, text: String, code: u16| async move {
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, media);
        let answer = api.send(request, text).await;
        assert_eq!(answer.code, code, "{method} {media}: {}", answer.message());
    };
    let (json, yaml) = ("application/json", "application/yaml");
    let strategic = "application/strategic-merge-patch+json";
    let merge = "application/merge-patch+json";
    let apply = "application/apply-patch+yaml";
    let (p, applied) = (format!("{PODS}/p"), format!("{PODS}/p?fieldManager=m"));
    let aliases = format!("a: &a [{}]\nb: [{}]\n", vec!["x"; 50_000].join(","), vec!["*a"; 50_000].join(","));
    let typed = |count| containers(count).replacen('{', "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",", 1);
    let large = futures::future::join_all([
        futures::FutureExt::boxed(send("POST", PODS.into(), json, containers(900_000), 413)),
        futures::FutureExt::boxed(send("POST", PODS.into(), json, containers(200_000), 422)),
        futures::FutureExt::boxed(send("POST", PODS.into(), yaml, containers(200_000), 422)),
        futures::FutureExt::boxed(send("POST", PODS.into(), yaml, aliases, 400)),
        futures::FutureExt::boxed(send("PUT", p.clone(), json, containers(200_000), 422)),
        futures::FutureExt::boxed(send("PATCH", p.clone(), merge, containers(200_000), 422)),
        futures::FutureExt::boxed(send("PATCH", p, strategic, containers(900_000), 413)),
        futures::FutureExt::boxed(send("PATCH", applied, apply, typed(200_000), 422)),
    ]);
    let small = async {
        for _ in 0..100 {
            api.get(&format!("{CONFIG_MAPS}/small")).await.expect(200);
        }
    };
    tokio::join!(large, small);
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_errors_warnings_or_nothing() {
    let api = Api::new().await;
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"dat":{},"data":{"a":"1","a":"2"}}"#;
    let post = |validation: &str| {
        let uri = format!("{CONFIG_MAPS}?dryRun=All&fieldValidation={validation}");
        Request::post(uri).header(CONTENT_TYPE, "application/json")
    };
    let strict = api.send(post("Strict"), body).await;
    assert_eq!(strict.code, 400);
    assert!(strict.message().contains("unknown field \"dat\""), "{}", strict.message());
    assert!(strict.message().contains("duplicate field"), "{}", strict.message());
    let warned = api.send(post("Warn"), body).await;
    assert_eq!(warned.code, 201);
    assert_eq!(warned.warnings().len(), 2, "{:?}", warned.warnings());
    assert_eq!(warned.warnings()[0], "299 - \"unknown field \\\"dat\\\"\"");
    let ignored = api.send(post("Ignore"), body).await;
    assert_eq!((ignored.code, ignored.warnings().len()), (201, 0));
    assert_eq!(api.send(post("Perhaps"), body).await.code, 422);
    api.post(CONFIG_MAPS, &config_map("y")).await.expect(201);
    let patch = Request::patch(format!("{CONFIG_MAPS}/y?fieldValidation=Strict"))
        .header(CONTENT_TYPE, "application/merge-patch+json");
    assert_eq!(api.send(patch, "{\"dat\":{}}").await.code, 422);
}

#[tokio::test]
async fn names_namespaces_and_types_must_fit_the_path() {
    let api = Api::new().await;
    let refused = api.post(CONFIG_MAPS, &config_map("Not A Name")).await;
    assert_eq!((refused.code, refused.reason()), (422, "Invalid".to_owned()));
    assert!(refused.message().starts_with("ConfigMap \"Not A Name\" is invalid: metadata.name: Invalid value"));
    let mut elsewhere = config_map("x");
    elsewhere["metadata"]["namespace"] = "other".into();
    assert_eq!(api.post(CONFIG_MAPS, &elsewhere).await.code, 400);
    let mut other = config_map("x");
    other["kind"] = "Secret".into();
    assert_eq!(api.post(CONFIG_MAPS, &other).await.code, 400);
    api.post(CONFIG_MAPS, &config_map("x")).await.expect(201);
    assert_eq!(api.put(&format!("{CONFIG_MAPS}/x"), &config_map("y")).await.code, 400);
    let mut typed = config_map("z");
    typed["data"] = json!({"a": 1});
    assert_eq!(api.post(CONFIG_MAPS, &typed).await.code, 400);
}

#[tokio::test]
async fn patches_of_unknown_type_are_415_and_bad_ones_400_or_422() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("x")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/x");
    for media in ["application/json", "application/apply-patch+json", "text/plain"] {
        let request = Request::patch(&path).header(CONTENT_TYPE, media);
        assert_eq!(api.send(request, "{}").await.expect(415)["reason"], "UnsupportedMediaType", "{media}");
    }
    assert_eq!(
        api.patch("json-patch", &path, &json!([{"op": "test", "path": "/data/a", "value": "z"}])).await.code,
        422
    );
    assert_eq!(api.patch("json-patch", &path, &json!({"op": "test"})).await.code, 400);
    assert_eq!(api.patch("merge-patch", &path, &json!([1])).await.code, 400);
    assert_eq!(api.patch("merge-patch", &format!("{CONFIG_MAPS}/none"), &json!({})).await.code, 404);
}

#[tokio::test]
async fn openapi_is_served_once_per_hash() {
    let api = Api::new().await;
    let index = api.get("/openapi/v3").await.expect(200);
    let link = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = api.get(&link).await;
    let etag = document.headers.get("etag").unwrap().to_str().unwrap().to_owned();
    assert!(link.contains(etag.trim_matches('"')));
    assert!(document.headers.get("cache-control").unwrap().to_str().unwrap().contains("immutable"));
    let again = api.send(Request::get(&link).header("if-none-match", etag), "").await;
    assert_eq!((again.code, again.text.len()), (304, 0));
    let protobuf =
        Request::get("/openapi/v2").header(ACCEPT, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf");
    let document = api.send(protobuf, "").await;
    assert!(document.code == 200 && document.text.starts_with(b"\n\x032.0\x12"), "{}", document.code);
    assert_eq!(document.headers["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    assert!(document.text.windows(23).any(|part| part == b"io.k8s.api.core.v1.Pod\x12"));
    assert_eq!(api.get("/openapi/v3/apis/none/v1").await.code, 404);
}

#[tokio::test]
async fn a_patch_that_moves_a_long_list_again_and_again_is_refused() {
    let api = Api::new().await;
    let mut object = config_map("long");
    object["metadata"]["finalizers"] = (0..10_000).map(|n| format!("example.com/{n}")).collect();
    let path = "/api/v1/namespaces/default/configmaps";
    api.post(path, &object).await.expect(201);
    let one = json!({"op": "add", "path": "/metadata/finalizers/0", "value": "example.com/x"});
    let refused = api.patch("json-patch", &format!("{path}/long"), &json!(vec![one; 9000])).await;
    assert_eq!((refused.code, refused.reason().as_str()), (413, "RequestEntityTooLarge"), "{}", refused.message());
    assert!(refused.message().contains("list elements"), "{}", refused.message());
}

#[tokio::test]
async fn a_packed_body_is_refused_by_name() {
    let api = Api::new().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let send = |encoding: &str| {
        let request = Request::post(path).header(CONTENT_TYPE, "application/json").header("content-encoding", encoding);
        api.send(request, config_map("packed").to_string())
    };
    let refused = send("gzip").await;
    assert_eq!((refused.code, refused.reason().as_str()), (415, "UnsupportedMediaType"));
    assert!(refused.message().contains("encoded as \"gzip\""), "{}", refused.message());
    send("identity").await.expect(201);
    let deleted = Request::delete(format!("{path}/packed")).header("content-encoding", "gzip");
    api.send(deleted, "").await.expect(200);
}
