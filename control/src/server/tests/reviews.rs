//! Reviews that ask nothing, or too much.

use serde_json::{Value, json};

use super::Api;

const ROOT: &str = "/apis/authorization.k8s.io/v1";

#[tokio::test]
async fn a_review_that_asks_nothing_is_invalid() {
    let api = Api::new().await;
    let pods = json!({"verb": "get", "resource": "pods"});
    let path = json!({"verb": "get", "path": "/livez"});
    let local = format!("{ROOT}/namespaces/default/localsubjectaccessreviews");
    let (subject, own) = (format!("{ROOT}/subjectaccessreviews"), format!("{ROOT}/selfsubjectaccessreviews"));
    for (place, body, wanted) in [
        (
            &subject,
            json!({"spec": {"resourceAttributes": pods}}),
            "SubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.user: Invalid value: \"\": at least one of user or \
             group must be specified",
        ),
        (
            &subject,
            json!({"spec": {"user": "jane"}}),
            "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be \
             specified",
        ),
        (
            &own,
            json!({"spec": {"resourceAttributes": pods, "nonResourceAttributes": path}}),
            "cannot be specified in combination with resourceAttributes",
        ),
        (
            &own,
            json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "fieldSelector": {}}}}),
            "spec.resourceAttributes.fieldSelector.requirements: Required value",
        ),
        (&own, json!({"metadata": {"name": "x"}, "spec": {"nonResourceAttributes": path}}), "metadata: Invalid value"),
        (
            &local,
            json!({"spec": {"user": "jane", "resourceAttributes": {"namespace": "other", "verb": "get", "resource": "pods"}}}),
            "spec.resourceAttributes.namespace: Invalid value: \"other\": must match metadata.namespace",
        ),
        (
            &local,
            json!({"spec": {"user": "jane", "nonResourceAttributes": path}}),
            "disallowed on this kind of request",
        ),
    ] {
        let refused = api.post(place, &body).await;
        assert_eq!((refused.code, refused.reason().as_str()), (422, "Invalid"), "{body}");
        assert!(refused.message().contains(wanted), "{}", refused.message());
    }
    let asked = json!({"metadata": {"creationTimestamp": null}, "spec": {"resourceAttributes": pods}});
    assert_eq!(api.post(&own, &asked).await.expect(201)["status"], json!({"allowed": true}));
    let groups: Value = json!({"spec": {"groups": ["g"], "nonResourceAttributes": path}});
    assert_eq!(api.post(&subject, &groups).await.expect(201)["status"]["allowed"], true);
}

#[tokio::test]
async fn a_review_of_no_token_is_refused() {
    let api = Api::new().await;
    let refused = api.post("/apis/authentication.k8s.io/v1/tokenreviews", &json!({"spec": {"audiences": ["x"]}})).await;
    assert_eq!(
        (refused.code, refused.message().as_str()),
        (400, "token is required for TokenReview in authentication")
    );
}
