//! Lists: pages, selectors, forms.

use std::sync::Arc;

use http::Request;
use serde_json::{Value, json};

use super::{Api, config_map};
use crate::auth::AllowAll;
use crate::store::Store;
use crate::store::redb::RedbStore;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn filled(count: usize) -> Api {
    let api = Api::new().await;
    for n in 0..count {
        let mut object = config_map(&format!("m{n:02}"));
        object["metadata"]["labels"] = json!({"parity": if n % 2 == 0 { "even" } else { "odd" }});
        api.post(CONFIG_MAPS, &object).await.expect(201);
    }
    api
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn pages_come_from_one_snapshot() {
    let api = filled(5).await;
    let first = api.get(&format!("{CONFIG_MAPS}?limit=2")).await.expect(200);
    assert_eq!(names(&first), ["m00", "m01"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    api.post(CONFIG_MAPS, &config_map("m015")).await.expect(201);
    api.delete(&format!("{CONFIG_MAPS}/m02")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = api.get(&format!("{CONFIG_MAPS}?continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["m02", "m03", "m04"]);
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(rest["metadata"].get("continue"), None);
    let both = format!("{CONFIG_MAPS}?continue={token}&resourceVersion=5");
    assert_eq!(api.get(&both).await.code, 400);
    assert_eq!(api.get(&format!("{CONFIG_MAPS}?continue=nonsense")).await.code, 400);
}

#[tokio::test]
async fn pages_go_on_after_a_restart_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let open = async || {
        let store: Arc<dyn Store> = Arc::new(RedbStore::open(dir.path()).unwrap());
        (Arc::clone(&store), Api::over(store, |_, _| Arc::new(AllowAll), |_| ()).await)
    };
    let (store, api) = open().await;
    for name in ["a", "b", "c"] {
        api.post(CONFIG_MAPS, &config_map(name)).await.expect(201);
    }
    let first = api.get(&format!("{CONFIG_MAPS}?limit=1")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    api.delete(&format!("{CONFIG_MAPS}/b")).await.expect(200);
    api.put(&format!("{CONFIG_MAPS}/c"), &json!({"metadata": {"name": "c"}, "data": {"a": "later"}})).await.expect(200);
    api.post(CONFIG_MAPS, &config_map("d")).await.expect(201);
    api.server.stop().await;
    store.close().await.unwrap();
    drop((store, api));

    let (store, api) = open().await;
    let second = api.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["b"], "the page is of the list that was begun");
    let next = second["metadata"]["continue"].as_str().unwrap();
    let third = api.get(&format!("{CONFIG_MAPS}?continue={next}")).await.expect(200);
    assert_eq!((names(&third), &third["items"][0]["data"]["a"]), (vec!["c"], &json!("b")));
    assert_eq!(third["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_token_whose_list_is_no_longer_kept_is_410_with_one_that_goes_on() {
    let api = filled(4).await;
    let first = api.get(&format!("{CONFIG_MAPS}?limit=2")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    // More lists are begun than are kept, and more is written than the store's history in memory.
    let mut object = config_map("m03");
    for n in 0..70 {
        object["data"]["text"] = format!("{n}{}", "x".repeat(400_000)).into();
        api.put(&format!("{CONFIG_MAPS}/m03"), &object).await.expect(200);
        api.get(&format!("{CONFIG_MAPS}?limit=1")).await.expect(200);
    }
    let expired = api.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await.expect(410);
    assert_eq!(expired["reason"], "Expired");
    let fresh = expired["metadata"]["continue"].as_str().unwrap();
    let rest = api.get(&format!("{CONFIG_MAPS}?continue={fresh}")).await.expect(200);
    assert_eq!(names(&rest), ["m02", "m03"]);
    assert_ne!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn selectors_choose_and_bad_ones_are_400() {
    let api = filled(4).await;
    let odd = api.get(&format!("{CONFIG_MAPS}?labelSelector=parity%3Dodd")).await.expect(200);
    assert_eq!(names(&odd), ["m01", "m03"]);
    let one = api.get(&format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Dm02")).await.expect(200);
    assert_eq!(names(&one), ["m02"]);
    assert_eq!(api.get(&format!("{CONFIG_MAPS}?labelSelector=%3D%3D")).await.code, 400);
    let unknown = api.get(&format!("{CONFIG_MAPS}?fieldSelector=data.a%3Db")).await;
    assert!(
        unknown.code == 400 && unknown.message().contains("is not a known field selector"),
        "{}",
        unknown.message()
    );
}

#[tokio::test]
async fn a_field_that_is_absent_is_selected_by_its_types_zero_value() {
    let api = Api::new().await;
    api.post("/api/v1/nodes", &json!({"metadata": {"name": "open"}})).await.expect(201);
    let closed = json!({"metadata": {"name": "closed"}, "spec": {"unschedulable": true}});
    api.post("/api/v1/nodes", &closed).await.expect(201);
    for (value, expected) in [("false", "open"), ("true", "closed")] {
        let list = api.get(&format!("/api/v1/nodes?fieldSelector=spec.unschedulable%3D{value}")).await.expect(200);
        assert_eq!(names(&list), [expected]);
    }
}

#[tokio::test]
async fn a_revision_of_the_future_is_504_and_an_exact_one_is_exact() {
    let api = filled(2).await;
    let now = api.get(CONFIG_MAPS).await.expect(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let exact = format!("{CONFIG_MAPS}?resourceVersion={now}&resourceVersionMatch=Exact");
    assert_eq!(names(&api.get(&exact).await.expect(200)), ["m00", "m01"]);
    let far = api.get(&format!("{CONFIG_MAPS}/m00?resourceVersion=999999")).await.expect(504);
    assert_eq!(far["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn a_large_list_is_the_same_packed_pretty_or_plain() {
    let api = filled(2).await;
    let mut large = config_map("large");
    large["data"] = json!({"text": "x".repeat(300_000)});
    api.post(CONFIG_MAPS, &large).await.expect(201);
    let plain = api.get(CONFIG_MAPS).await;
    assert_eq!(plain.headers.get("content-length").unwrap().to_str().unwrap(), plain.text.len().to_string());
    let packed = api.send(Request::get(CONFIG_MAPS).header("accept-encoding", "gzip"), "").await;
    assert_eq!(packed.headers.get("content-encoding").unwrap(), "gzip");
    assert!(packed.text.len() < plain.text.len() / 10);
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed.text.as_slice()), &mut unpacked).unwrap();
    assert_eq!(unpacked, plain.text);
    let pretty = api.get(&format!("{CONFIG_MAPS}?pretty=true")).await;
    assert!(pretty.text.starts_with(b"{\n  \""));
    assert_eq!(pretty.json(), plain.json());
    let head = api.send(Request::head(CONFIG_MAPS), "").await;
    assert_eq!((head.code, head.text.len()), (200, 0));
}
