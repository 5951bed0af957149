//! The OpenAPI documents are whole: every reference leads somewhere, kubectl finds what it looks for.

use std::collections::BTreeSet;

use super::*;

fn read(document: &Document) -> Value {
    serde_json::from_slice(&document.plain()).unwrap()
}

fn walk<'a>(value: &'a Value, visit: &mut impl FnMut(&'a Map<String, Value>)) {
    match value {
        Value::Object(map) => {
            visit(map);
            map.values().for_each(|value| walk(value, visit));
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
        _ => {}
    }
}

/// References that lead nowhere.
fn dangling(document: &Value, prefix: &str, definitions: &str) -> Vec<String> {
    let known = document.pointer(definitions).and_then(Value::as_object).unwrap();
    let mut missing = Vec::new();
    walk(document, &mut |map| {
        if let Some(Value::String(reference)) = map.get("$ref")
            && !reference.strip_prefix(prefix).is_some_and(|name| known.contains_key(name))
        {
            missing.push(reference.clone());
        }
    });
    missing
}

#[test]
fn every_document_stands_alone_and_has_one_id_per_operation() {
    let registry = Registry::builtin();
    for (group, version) in group_versions(registry.iter()) {
        let document = read(&openapi_v3(&registry, group, version).unwrap());
        assert_eq!(dangling(&document, "#/components/schemas/", "/components/schemas"), Vec::<String>::new());
        let mut ids = BTreeSet::new();
        walk(&document["paths"], &mut |map| {
            if let Some(Value::String(id)) = map.get("operationId") {
                assert!(ids.insert(id.clone()), "{id} twice");
            }
        });
    }
    let v2 = read(&openapi_v2(&registry, &[]));
    assert_eq!(dangling(&v2, "#/definitions/", "/definitions"), Vec::<String>::new());
    assert!(openapi_v3(&registry, "nothing", "v1").is_none());
}

#[test]
fn any_json_value_has_no_type() {
    let registry = Registry::builtin();
    let name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";
    let v3 = read(&openapi_v3(&registry, "apiextensions.k8s.io", "v1").unwrap());
    for any in [&v3["components"]["schemas"][name], &read(&openapi_v2(&registry, &[]))["definitions"][name]] {
        assert!(any["description"].is_string() && any.get("type").is_none(), "{any}");
    }
}

#[test]
fn every_kind_can_be_patched_with_field_validation_and_found_by_its_gvk() {
    let registry = Registry::builtin();
    for kind in registry.iter().filter(|d| d.verbs.contains(&"patch")) {
        let document = read(&openapi_v3(&registry, &kind.group, &kind.version).unwrap());
        let own = gvk(&kind.group, &kind.version, &kind.kind);
        let paths = document["paths"].as_object().unwrap();
        let patch = paths.values().map(|item| &item["patch"]).find(|o| o["x-kubernetes-group-version-kind"] == own);
        let names: Vec<&str> =
            patch.unwrap()["parameters"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
        assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
        let schema = &document["components"]["schemas"][&*kind.definition];
        assert_eq!(schema["x-kubernetes-group-version-kind"], json!([own]), "{}", kind.kind);
        let description = schema["description"].as_str().unwrap_or_default();
        assert!(!description.is_empty(), "{} has no description", kind.kind);
    }
}

#[test]
fn merge_keys_and_list_types_are_published() {
    let registry = Registry::builtin();
    let document = read(&openapi_v3(&registry, "", "v1").unwrap());
    let schemas = &document["components"]["schemas"];
    let ports = &schemas["io.k8s.api.core.v1.Container"]["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "containerPort");
    assert_eq!(ports["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(ports["x-kubernetes-list-type"], "map");
    assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["containerPort", "protocol"]));
    let int_or_string = &schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!(int_or_string["x-kubernetes-int-or-string"], true);
    let spec = &schemas["io.k8s.api.core.v1.Pod"]["properties"]["spec"];
    assert_eq!(spec["allOf"], json!([{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}]));
    assert!(schemas.get("io.k8s.api.core.v1.PodList").is_some());
}

#[test]
fn the_index_names_each_document_by_its_hash() {
    let registry = Registry::builtin();
    let index = read(&openapi_v3_index(&registry, &[]));
    let core = openapi_v3(&registry, "", "v1").unwrap();
    assert_eq!(core.etag.len(), 64);
    let url = format!("/openapi/v3/api/v1?hash={}", core.etag);
    assert_eq!(index["paths"]["api/v1"]["serverRelativeURL"], Value::String(url));
}
