//! Watches: what is sent, in which form, and how they end.

use serde_json::{Value, json};

use super::{Api, config_map};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_watch_begins_after_its_revision_and_ends_with_its_time() {
    let api = Api::new().await;
    let first = api.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let since = first["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    api.patch("merge-patch", &format!("{CONFIG_MAPS}/a"), &json!({"data": {"b": "c"}})).await.expect(200);
    let mut watch = api.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={since}&timeoutSeconds=1")).await;
    let (event, object) = watch.next().await.unwrap();
    assert_eq!((event.as_str(), object["data"]["b"].as_str()), ("MODIFIED", Some("c")));
    let last = api.delete(&format!("{CONFIG_MAPS}/a")).await;
    assert_eq!(last.code, 200);
    let (event, gone) = watch.next().await.unwrap();
    assert_eq!(event, "DELETED");
    assert_ne!(gone["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_watch_from_a_compacted_revision_says_410_in_the_stream() {
    let api = Api::new().await;
    // More than the store's history in memory, in objects that are replaced.
    let mut object = config_map("large");
    let first = api.post(CONFIG_MAPS, &object).await.expect(201)["metadata"]["resourceVersion"].clone();
    for n in 0..20 {
        object["data"]["text"] = format!("{n}{}", "x".repeat(1_000_000)).into();
        api.put(&format!("{CONFIG_MAPS}/large"), &object).await.expect(200);
    }
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={}", first.as_str().unwrap());
    let mut watch = api.watch(&path).await;
    let (event, status) = watch.next().await.unwrap();
    assert_eq!((event.as_str(), &status["code"], &status["reason"]), ("ERROR", &json!(410), &json!("Expired")));
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn initial_events_end_with_their_bookmark() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let options = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = api.watch(&format!("{CONFIG_MAPS}?{options}")).await;
    assert_eq!(watch.next().await.unwrap().0, "ADDED");
    let (event, mark) = watch.next().await.unwrap();
    assert_eq!(event, "BOOKMARK");
    assert_eq!(mark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(mark["kind"], "ConfigMap");
    api.post(CONFIG_MAPS, &config_map("b")).await.expect(201);
    let (event, object) = watch.next().await.unwrap();
    assert_eq!((event.as_str(), &object["metadata"]["name"]), ("ADDED", &json!("b")));
}

#[tokio::test]
async fn a_table_watch_defines_its_columns_once() {
    let api = Api::new().await;
    for name in ["a", "b"] {
        api.post(CONFIG_MAPS, &config_map(name)).await.expect(201);
    }
    let request = http::Request::get(format!("{CONFIG_MAPS}?watch=true"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(crate::server::body::empty())
        .unwrap();
    let response = api.server.handle(request, crate::auth::UserInfo::admin()).await;
    let lines =
        futures::StreamExt::map(http_body_util::BodyExt::into_data_stream(response.into_body()), Result::unwrap);
    let mut watch = super::Lines(Box::pin(lines));
    let columns = |table: &Value| table["columnDefinitions"].as_array().unwrap().len();
    let first = watch.next().await.unwrap().1;
    assert!(first["kind"] == "Table" && columns(&first) > 0, "{first}");
    assert_eq!(columns(&watch.next().await.unwrap().1), 0);
}

#[tokio::test]
async fn a_selector_turns_changes_into_arrivals_and_departures() {
    let api = Api::new().await;
    let mut watch = api.watch(&format!("{CONFIG_MAPS}?watch=true&labelSelector=in%3Dyes")).await;
    api.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    api.patch("merge-patch", &path, &json!({"metadata": {"labels": {"in": "yes"}}})).await.expect(200);
    assert_eq!(watch.next().await.unwrap().0, "ADDED");
    api.patch("merge-patch", &path, &json!({"metadata": {"labels": {"in": null}}})).await.expect(200);
    assert_eq!(watch.next().await.unwrap().0, "DELETED");
}

#[tokio::test]
async fn a_stopping_server_ends_its_watches() {
    let api = Api::new().await;
    let mut watch = api.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    api.server.stop().await;
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_watch_of_one_object_by_its_path_shows_no_other() {
    let api = Api::new().await;
    for name in ["mine", "other"] {
        api.post(CONFIG_MAPS, &config_map(name)).await.expect(201);
    }
    let mut watch = api.watch(&format!("{CONFIG_MAPS}/mine?watch=1&timeoutSeconds=1")).await;
    while let Some((_, object)) = watch.next().await {
        assert_eq!(object["metadata"]["name"], "mine");
    }
    let wider = format!("{CONFIG_MAPS}/mine?watch=1&fieldSelector=metadata.namespace%3Ddefault");
    let refused = api.get(&wider).await;
    assert_eq!((refused.code, refused.message().contains("both a name and a field selector")), (400, true));
}
