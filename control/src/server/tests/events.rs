//! One Event, two groups.

use serde_json::json;

use super::{Api, sample};

const OLD: &str = "/api/v1/namespaces/default/events";
const NEW: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

#[tokio::test]
async fn an_event_is_the_same_in_both_groups() {
    let api = Api::new().await;
    let kind = api.server.registry().by_plural("events.k8s.io", "v1", "events").cloned().unwrap();
    let made = api.post(NEW, &sample(&kind, "e")).await.expect(201);
    let old = api.get(&format!("{OLD}/e")).await.expect(200);
    assert_eq!((old["apiVersion"].as_str(), old["message"].as_str()), (Some("v1"), Some("It was tried")));
    assert_eq!((&old["involvedObject"], &old["metadata"]), (&made["regarding"], &made["metadata"]));
    assert_eq!(old.get("note"), None);

    let selector = "regarding.name%3Dsome,reportingController%3Dexample.com/tester";
    let found = api.get(&format!("{NEW}?fieldSelector={selector}")).await.expect(200);
    assert_eq!((found["kind"].as_str(), found["items"][0]["note"].as_str()), (Some("EventList"), Some("It was tried")));
    let by_source = api.get(&format!("{OLD}?fieldSelector=source%3Dexample.com/tester")).await.expect(200);
    assert_eq!(
        by_source["items"].as_array().map(Vec::len),
        Some(1),
        "whoever reports is the source where none is named"
    );
    assert_eq!(api.get(&format!("{NEW}?fieldSelector=involvedObject.name%3Dsome")).await.code, 400);

    api.patch("merge-patch", &format!("{OLD}/e"), &json!({"message": "again"})).await.expect(200);
    let mut new = api.get(&format!("{NEW}/e")).await.expect(200);
    assert_eq!(new["note"], "again");
    new["note"] = "no more".into();
    let refused = api.put(&format!("{NEW}/e"), &new).await;
    assert!(refused.code == 422 && refused.message().contains("field is immutable"), "{}", refused.message());
    api.delete(&format!("{NEW}/e")).await.expect(200);
    api.get(&format!("{OLD}/e")).await.expect(404);
}
