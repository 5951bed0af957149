//! Admission policies in CEL, through the pipeline.

use super::*;

const ROOT: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A policy about ConfigMaps with these fields of its spec besides.
fn policy(kind: &str, name: &str, more: Value) -> Value {
    let mut spec = json!({"matchConstraints": {"resourceRules": [
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}]}});
    if kind == "Mutating" {
        spec["reinvocationPolicy"] = "Never".into();
    }
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}AdmissionPolicy"),
        "metadata": {"name": name}, "spec": spec})
}

impl Api {
    pub(super) async fn bind(&self, kind: &str, policy: &Value, more: Value) {
        let plural = format!("{ROOT}/{}admissionpolic", kind.to_lowercase());
        self.post(&format!("{plural}ies"), policy).await.expect(201);
        let mut spec = json!({"policyName": policy["metadata"]["name"]});
        if kind == "Validating" {
            spec["validationActions"] = json!(["Deny"]);
        }
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}AdmissionPolicyBinding"),
            "metadata": {"name": format!("{}-b", policy["metadata"]["name"].as_str().unwrap())}, "spec": spec});
        self.post(&format!("{plural}ybindings"), &binding).await.expect(201);
        self.server.cache().reached(self.server.store().revision()).await;
    }
}

fn with(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

#[tokio::test]
async fn a_validating_policy_refuses_with_its_message_and_reason() {
    let api = Api::new().await;
    let rules = json!({
        "variables": [{"name": "size", "expression": "size(object.data)"}, {"name": "big", "expression": "variables.size > 2"}],
        "validations": [
            {"expression": "!variables.big", "messageExpression": "'has %d entries'.format([variables.size])"},
            {"expression": "!has(object.data.secret)", "message": "no secrets here", "reason": "Forbidden"},
        ],
    });
    api.bind("Validating", &policy("Validating", "p", rules), json!({})).await;
    api.post(MAPS, &with("good", json!({"a": "b"}))).await.expect(201);
    let refused = api.post(MAPS, &with("big", json!({"a": "1", "b": "2", "c": "3"}))).await;
    assert_eq!(
        refused.message(),
        "configmaps \"big\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p-b' denied request: has 3 entries"
    );
    assert_eq!((refused.code, refused.reason().as_str()), (422, "Invalid"));
    let refused = api.post(MAPS, &with("x", json!({"secret": "1"}))).await;
    assert_eq!((refused.code, refused.reason().as_str()), (403, "Forbidden"));
    assert!(refused.message().ends_with("no secrets here"));
    // An update is judged like a creation.
    assert_eq!(api.patch("merge-patch", &format!("{MAPS}/good"), &json!({"data": {"secret": "1"}})).await.code, 403);
}

#[tokio::test]
async fn a_policy_sees_who_writes() {
    let api = Api::new().await;
    let expression = "has(request.options.fieldManager) && request.options.fieldManager == 'me'";
    let rules = json!({"validations": [{"expression": expression}]});
    api.bind("Validating", &policy("Validating", "p", rules), json!({})).await;
    assert_eq!(api.post(MAPS, &config_map("x")).await.code, 422);
    api.post(&format!("{MAPS}?fieldManager=me"), &config_map("x")).await.expect(201);
}

#[tokio::test]
async fn a_binding_may_only_warn_and_conditions_leave_out() {
    let api = Api::new().await;
    let rules = json!({
        "matchConditions": [{"name": "not-free", "expression": "!object.metadata.name.startsWith('free')"}],
        "validations": [{"expression": "false"}],
    });
    api.bind("Validating", &policy("Validating", "p", rules), json!({"validationActions": ["Warn", "Audit"]})).await;
    let warned = api.post(MAPS, &config_map("x")).await;
    assert_eq!(
        warned.warnings(),
        ["299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p-b': failed expression: false\""]
    );
    warned.expect(201);
    assert!(api.post(MAPS, &config_map("free-x")).await.warnings().is_empty());
}

#[tokio::test]
async fn parameters_are_found_by_name_and_their_absence_is_judged() {
    let api = Api::new().await;
    let rules = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "others", "expression": "object.metadata.name != 'limits'"}],
        "validations": [{"expression": "size(object.data) <= int(params.data.most)"}],
    });
    let reference = json!({"paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}});
    api.bind("Validating", &policy("Validating", "p", rules), reference).await;
    let refused = api.post(MAPS, &config_map("x")).await;
    assert!(
        refused.message().contains("no params found for policy binding with `Deny` parameterNotFoundAction"),
        "{}",
        refused.message()
    );
    api.delete(&format!("{ROOT}/validatingadmissionpolicybindings/p-b")).await.expect(200);
    api.server.cache().reached(api.server.store().revision()).await;
    api.post(MAPS, &with("limits", json!({"most": "1"}))).await.expect(201);
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "p-b"}, "spec": {"policyName": "p", "validationActions": ["Deny"],
            "paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}}});
    api.post(&format!("{ROOT}/validatingadmissionpolicybindings"), &binding).await.expect(201);
    api.server.cache().reached(api.server.store().revision()).await;
    api.post(MAPS, &config_map("x")).await.expect(201);
    assert_eq!(api.post(MAPS, &with("y", json!({"a": "1", "b": "2"}))).await.code, 422);
}

#[tokio::test]
async fn an_expression_that_fails_does_what_the_failure_policy_says() {
    for (failure_policy, code) in [("Fail", 422), ("Ignore", 201)] {
        let api = Api::new().await;
        let rules =
            json!({"failurePolicy": failure_policy, "validations": [{"expression": "object.data.missing == 'x'"}]});
        api.bind("Validating", &policy("Validating", "p", rules), json!({})).await;
        let answer = api.post(MAPS, &config_map("x")).await;
        assert_eq!(answer.code, code, "{failure_policy}");
        if code == 422 {
            assert!(
                answer
                    .message()
                    .ends_with("expression 'object.data.missing == 'x'' resulted in error: no such key: missing")
            );
        }
    }
}

#[tokio::test]
async fn the_authorizer_answers_expressions() {
    let api = Api::new().await;
    let rules = json!({"validations": [
        {"expression": "authorizer.group('apps').resource('deployments').namespace('default').check('get').allowed()"},
        {"expression": "authorizer.requestResource.check('delete').allowed()"},
    ]});
    api.bind("Validating", &policy("Validating", "p", rules), json!({})).await;
    api.post(MAPS, &config_map("x")).await.expect(201);
}

#[tokio::test]
async fn mutating_policies_merge_and_patch() {
    let api = Api::new().await;
    let apply = json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {
        "expression": "Object{metadata: Object.metadata{labels: Object.metadata.labels{team: 'a'}}, data: {'applied': object.metadata.name}}"}}]});
    api.bind("Mutating", &policy("Mutating", "a", apply), json!({})).await;
    let patch = json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {
        "expression": "[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('x'), value: object.data.applied + '!'}]"}}]});
    api.bind("Mutating", &policy("Mutating", "b", patch), json!({})).await;
    let made = api.post(MAPS, &config_map("x")).await.expect(201);
    assert_eq!(made["data"], json!({"a": "b", "applied": "x", "x": "x!"}));
    assert_eq!(made["metadata"]["labels"], json!({"team": "a"}));
}
