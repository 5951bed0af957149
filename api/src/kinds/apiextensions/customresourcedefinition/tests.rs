//! What a definition may say, and what is refused in which words.

use super::*;

fn crd() -> Value {
    json!({"metadata": {"name": "boats.sea.example.com"}, "spec": {
        "group": "sea.example.com", "scope": "Namespaced", "names": {"plural": "boats", "kind": "Boat"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
}

/// What is said of the definition after one change.
fn complaints(pointer: &str, value: Value) -> Vec<String> {
    let mut crd = crd();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    match crd.pointer_mut(parent) {
        Some(Value::Object(map)) => drop(map.insert(field.to_owned(), value)),
        _ => *crd.pointer_mut(pointer).unwrap() = value,
    }
    DefinitionStrategy.default(&mut crd);
    crate::kinds::check::complaints(|errors| DefinitionStrategy.validate(&crd, errors))
}

#[test]
fn a_small_definition_is_good_and_gets_its_other_names() {
    let mut crd = crd();
    DefinitionStrategy.default(&mut crd);
    DefinitionStrategy.prepare_create(&mut crd);
    let names = &crd["spec"]["names"];
    assert_eq!((&names["singular"], &names["listKind"]), (&json!("boat"), &json!("BoatList")));
    assert_eq!(crd["spec"]["conversion"]["strategy"], "None");
    assert_eq!(crd["status"]["storedVersions"], json!(["v1"]));
    assert!(crate::kinds::check::complaints(|errors| DefinitionStrategy.validate(&crd, errors)).is_empty());
}

#[test]
fn complaints_are_kubernetes_own() {
    let version = |change: Value| {
        let mut version = crd()["spec"]["versions"][0].clone();
        change.as_object().unwrap().iter().for_each(|(k, v)| version[k] = v.clone());
        json!([version])
    };
    for (pointer, value, wanted) in [
        (
            "/metadata/name",
            json!("x.sea.example.com"),
            "metadata.name: Invalid value: \"x.sea.example.com\": must be spec.names.plural+\".\"+spec.group",
        ),
        (
            "/spec/scope",
            json!("World"),
            "spec.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespaced\"",
        ),
        (
            "/spec/preserveUnknownFields",
            json!(true),
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ),
        (
            "/spec/versions",
            version(json!({"storage": false})),
            "spec.versions: Invalid value: [\"v1\"]: must have exactly one version marked as storage version",
        ),
        (
            "/spec/versions",
            version(json!({"schema": null})),
            "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
        ),
        (
            "/spec/versions",
            version(json!({"schema": {"openAPIV3Schema": {}}})),
            "spec.validation.openAPIV3Schema.type: Required value: must not be empty at the root",
        ),
        (
            "/spec/versions",
            version(
                json!({"subresources": {"scale": {"specReplicasPath": ".status.n", "statusReplicasPath": ".status.n"}}}),
            ),
            "spec.subresources.scale.specReplicasPath: Invalid value: \".status.n\": should be a json path under .spec",
        ),
        (
            "/spec/versions",
            version(json!({"additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": "spec"}]})),
            "spec.additionalPrinterColumns[0].JSONPath: Invalid value: \"spec\": must be a simple json path starting with .",
        ),
        (
            "/spec/versions",
            version(json!({"selectableFields": [{"jsonPath": ".spec.x"}]})),
            "spec.versions[0].selectableFields[0].jsonPath: Invalid value: \".spec.x\": is an invalid path: does not refer to a valid field",
        ),
        (
            "/spec/conversion",
            json!({"strategy": "Webhook"}),
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
        ),
        (
            "/spec/conversion",
            json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v7"], "clientConfig": {"url": "https://a.example"}}}),
            "spec.conversion.conversionReviewVersions: Invalid value: [\"v7\"]: must include at least one of v1, v1beta1",
        ),
        (
            "/spec/names/listKind",
            json!("Boat"),
            "spec.names.listKind: Invalid value: \"Boat\": kind and listKind may not be the same",
        ),
    ] {
        let found = complaints(pointer, value);
        assert!(found.iter().any(|f| f == wanted), "{wanted}\n{found:#?}");
    }
    let approval = complaints("/spec/group", json!("sea.k8s.io"));
    assert!(approval.iter().any(|c| c.starts_with("metadata.annotations[api-approved.kubernetes.io]: Required value")));
}

#[test]
fn an_established_definition_keeps_its_identity_and_every_stored_version() {
    let mut old = crd();
    DefinitionStrategy.default(&mut old);
    DefinitionStrategy.prepare_create(&mut old);
    old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let mut new = old.clone();
    new["spec"]["scope"] = json!("Cluster");
    new["spec"]["versions"][0]["name"] = json!("v2");
    DefinitionStrategy.prepare_update(&mut new, &old, Part::Main);
    assert_eq!(new["status"]["storedVersions"], json!(["v1", "v2"]));
    let found =
        crate::kinds::check::complaints(|errors| DefinitionStrategy.validate_update(&new, &old, Part::Main, errors));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        found[0].starts_with("status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was")
    );
    assert_eq!(found[1], "spec.scope: Invalid value: \"Cluster\": field is immutable");
}

#[test]
fn a_deletion_waits_for_the_objects() {
    let mut old = crd();
    assert!(DefinitionStrategy.blocks_deletion(&old));
    DefinitionStrategy.begin_deletion(&mut old);
    assert_eq!(object::finalizers(&old), [FINALIZER]);
    assert!(!DefinitionStrategy.blocks_deletion(&old));
}
