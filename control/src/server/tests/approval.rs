//! A path that writes a part of an object: a CertificateSigningRequest's `/approval`.

use serde_json::json;

use super::{Api, collection, sample};

#[tokio::test]
async fn a_certificate_request_is_approved_through_its_own_path_alone() {
    let api = Api::new().await;
    let requests = "certificatesigningrequests";
    let kind = api.server.registry().by_plural("certificates.k8s.io", "v1", requests).cloned().unwrap();
    let all = collection(&kind);
    let mut object = sample(&kind, "r");
    object["spec"]["username"] = "somebody-else".into();
    let made = api.post(&all, &object).await.expect(201);
    assert_eq!(made["spec"]["username"], "wherry-admin", "who asks is who is authenticated");

    let mut approved = made.clone();
    approved["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "Tested"}]});
    approved["spec"]["usages"] = json!(["any"]);
    let refused = api.put(&format!("{all}/r/status"), &approved).await;
    assert!(
        refused.code == 422 && refused.message().contains("updates may not add a condition"),
        "{}",
        refused.message()
    );
    let unchanged = api.put(&format!("{all}/r"), &approved).await.expect(200);
    assert_eq!(unchanged, made, "the object's own path writes neither spec nor status");

    let answer = api.put(&format!("{all}/r/approval"), &approved).await.expect(200);
    assert_eq!(answer["spec"], made["spec"]);
    let condition = &answer["status"]["conditions"][0];
    assert!(condition["type"] == "Approved" && condition["lastUpdateTime"].is_string(), "{condition}");
    assert_eq!(api.get(&format!("{all}/r/approval")).await.expect(200), answer);
}
