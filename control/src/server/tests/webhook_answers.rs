//! What is made of webhooks' answers: refusals, patches, and those that are none.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::webhooks::{Hook, MAPS, ROOT, patched};
use super::{Api, config_map};

#[tokio::test]
async fn a_webhook_cannot_make_what_is_no_object_of_the_kind() {
    let hook = Hook::start(|_, request| {
        let value = if request["object"]["metadata"]["name"] == "bad" { json!(1) } else { json!("1") };
        patched(
            json!([{"op": "add", "path": "/data/x", "value": value}, {"op": "add", "path": "/strange", "value": 1}]),
        )
    })
    .await;
    let api = Api::new().await;
    api.register("Mutating", "m", vec![hook.webhook("a", "x", json!({}))]).await;
    let refused = api.post(MAPS, &config_map("bad")).await;
    assert_eq!(refused.code, 500);
    assert!(
        refused.message().contains("failed to apply the patch of webhook \"a.example.com\""),
        "{}",
        refused.message()
    );
    api.get(&format!("{MAPS}/bad")).await.expect(404);
    let made = api.post(MAPS, &config_map("good")).await.expect(201);
    assert_eq!((&made["data"]["x"], made.get("strange")), (&json!("1"), None));
}

#[tokio::test]
async fn a_failing_webhook_does_what_its_failure_policy_says() {
    let hook =
        Hook::start(
            |path, _| if path == "liar" { json!({"uid": "other", "allowed": true}) } else { json!({"allowed": true}) },
        )
        .await;
    let api = Api::new().await;
    let fail = json!({"timeoutSeconds": 1, "failurePolicy": "Fail"});
    api.register("Validating", "slow", vec![hook.webhook("slow", "slow", fail)]).await;
    let refused = api.post(MAPS, &config_map("x")).await;
    assert_eq!((refused.code, refused.reason().as_str()), (500, "InternalError"));
    let message = refused.message();
    assert!(
        message.starts_with("Internal error occurred: failed calling webhook \"slow.example.com\": failed to call webhook: Post \"https://127.0.0.1:")
            && message.ends_with("/slow?timeout=1s\": context deadline exceeded"),
        "{message}"
    );
    // Registrations are not judged by themselves: the wrong one can be removed.
    api.delete(&format!("{ROOT}/validatingwebhookconfigurations/slow")).await.expect(200);
    let ignore = json!({"timeoutSeconds": 1, "failurePolicy": "Ignore"});
    api.register("Validating", "slow", vec![hook.webhook("slow", "slow", ignore)]).await;
    api.post(MAPS, &config_map("x")).await.expect(201);
    api.register("Validating", "liar", vec![hook.webhook("liar", "liar", json!({}))]).await;
    assert!(api.post(MAPS, &config_map("y")).await.message().contains("expected response.uid="));
}

#[tokio::test]
async fn a_webhook_that_refuses_is_quoted_whole() {
    let hook = Hook::start(|_, _| {
        let causes = json!([{"reason": "FieldValueInvalid", "message": "too small", "field": "spec.size"}]);
        let details = json!({"name": "w", "group": "example.com", "kind": "Widget", "causes": causes});
        json!({"allowed": false, "status": {"message": "no", "reason": "TooSmall", "code": 422, "details": details}})
    })
    .await;
    let api = Api::new().await;
    api.register("Validating", "v", vec![hook.webhook("a", "x", json!({}))]).await;
    let refused = api.post(MAPS, &config_map("x")).await;
    assert_eq!((refused.code, refused.reason().as_str()), (422, "TooSmall"));
    let details = &refused.json()["details"];
    assert_eq!((&details["kind"], &details["causes"][0]["field"]), (&json!("Widget"), &json!("spec.size")));
}

#[tokio::test]
async fn a_patch_of_a_type_that_is_not_known_is_a_failure_of_its_webhook() {
    let patch = STANDARD.encode(json!([{"op": "add", "path": "/data/x", "value": "1"}]).to_string());
    let hook = Hook::start(move |path, _| match path {
        "merge" => json!({"allowed": true, "patchType": "MergePatch", "patch": patch}),
        "untyped" => json!({"allowed": true, "patch": patch}),
        _ => json!({"allowed": true, "patchType": "JSONPatch"}),
    })
    .await;
    let api = Api::new().await;
    for (path, said) in [
        ("merge", "unsupported patch type \"MergePatch\""),
        ("untyped", "webhook returned response.patch but not response.patchType"),
        ("empty", "webhook returned response.patchType but not response.patch"),
    ] {
        for (policy, code) in [("Fail", 500), ("Ignore", 201)] {
            api.register("Mutating", path, vec![hook.webhook("a", path, json!({"failurePolicy": policy}))]).await;
            let name = format!("{path}-{}", policy.to_lowercase());
            let answer = api.post(MAPS, &config_map(&name)).await;
            assert_eq!(answer.code, code, "{name}");
            assert!(code == 201 || answer.message().ends_with(&format!("received invalid webhook response: {said}")));
            api.delete(&format!("{ROOT}/mutatingwebhookconfigurations/{path}")).await.expect(200);
            api.settle().await;
        }
    }
    let older = json!({"admissionReviewVersions": ["v1beta1"]});
    api.register("Mutating", "older", vec![hook.webhook("a", "untyped", older)]).await;
    assert_eq!(api.post(MAPS, &config_map("older")).await.expect(201)["data"]["x"], "1", "v1beta1 has one type only");
}
