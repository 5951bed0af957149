//! Descriptors made of definitions: what objects of theirs hold, and what is published of them.

use serde_json::json;

use super::*;
use crate::decode::{self, FieldValidation, Format};
use crate::field::ErrorList;
use crate::registry::Registry;
use crate::version::Converting;

/// Says that everything is as it should be.
#[derive(Debug)]
struct AsIs;

impl Convert for AsIs {
    fn definition(&self) -> &'static str {
        "u"
    }
    fn is_current(&self, _: u64) -> bool {
        true
    }
    fn may_change_fields(&self) -> bool {
        false
    }
    fn from_stored(&self, objects: Vec<Value>) -> Converting<'_, Vec<Value>> {
        Box::pin(async { Ok(objects) })
    }
    fn to_stored(&self, object: Value) -> Converting<'_, Value> {
        Box::pin(async { Ok(object) })
    }
}

/// The one kind of a definition with this schema.
pub(crate) fn descriptor_of(schema: &Value) -> Descriptor {
    let names = json!({"plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList"});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    let crd = json!({"metadata": {"name": "boats.sea.example.com"}, "status": {"acceptedNames": names},
        "spec": {"group": "sea.example.com", "scope": "Namespaced", "names": names, "versions": [version]}});
    Definition::parse(&crd).descriptors(|_| Arc::new(AsIs)).remove(0)
}

fn descriptors() -> Vec<Descriptor> {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "size": {"type": "integer", "default": 1, "minimum": 0}, "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}});
    let crd = json!({
        "metadata": {"name": "boats.sea.example.com"},
        "spec": {"group": "sea.example.com", "scope": "Namespaced",
            "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList", "shortNames": ["bo"]},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
                    "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                    "selectableFields": [{"jsonPath": ".spec.size"}]},
                {"name": "v2", "served": false, "storage": false, "schema": {"openAPIV3Schema": schema}}]},
        "status": {"acceptedNames": {"plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList"}}});
    Definition::parse(&crd).descriptors(|_| Arc::new(AsIs))
}

#[test]
fn only_served_versions_are_served_with_the_names_that_were_accepted() {
    let all = descriptors();
    let [v1] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((v1.api_version().as_str(), &*v1.definition), ("sea.example.com/v1", "com.example.sea.v1.Boat"));
    assert!(v1.short_names.is_empty(), "a short name that was not accepted");
    assert!(v1.has_status() && v1.subresource("scale").is_some());
    let names: Vec<_> = v1.columns.iter().map(|c| c.name.as_ref()).collect();
    assert_eq!(names, ["Name", "Size"]);
    assert_eq!(v1.selectable[0].path, "spec.size");
}

#[test]
fn an_object_is_pruned_defaulted_and_judged() {
    let boat = &descriptors()[0];
    let body = json!({"apiVersion": "sea.example.com/v1", "kind": "Boat", "metadata": {"name": "a", "odd": 1},
        "spec": {"sails": 2, "free": {"any": "thing"}}});
    let text = body.to_string();
    let decoded = decode::body(boat, text.as_bytes(), Format::Json, FieldValidation::Warn).unwrap();
    assert_eq!(decoded.warnings, ["unknown field \"metadata.odd\"", "unknown field \"spec.sails\""]);
    let mut object = decoded.object;
    boat.strategy.default(&mut object);
    assert_eq!(object["spec"], json!({"size": 1, "free": {"any": "thing"}}));
    let strict = decode::body(boat, text.as_bytes(), Format::Json, FieldValidation::Strict).unwrap_err();
    assert_eq!(strict.code, 400);
    object["spec"]["size"] = json!(-1);
    let mut errors = ErrorList::default();
    boat.strategy.validate(&object, &mut errors);
    assert!(errors.iter().any(|e| e.path.to_string() == "spec.size"), "{errors:?}");
}

#[test]
fn version_2_of_openapi_takes_over_what_did_not_change() {
    let read = |registry: &Registry| -> Value {
        serde_json::from_slice(&crate::schema::openapi_v2(registry, &[]).plain()).unwrap()
    };
    let registry = Registry::builtin();
    let before = read(&registry);
    let next = registry.with_custom(descriptors().into_iter().map(Arc::new).collect());
    let with = read(&next);
    let text = with.to_string();
    let referred = text.split("\"#/definitions/").skip(1).filter_map(|rest| rest.split('"').next());
    let unknown: Vec<&str> = referred.filter(|name| with["definitions"].get(*name).is_none()).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let boat = &with["definitions"]["com.example.sea.v1.Boat"];
    assert_eq!(boat["x-kubernetes-group-version-kind"][0]["kind"], "Boat");
    assert!(with["paths"].get("/apis/sea.example.com/v1/namespaces/{namespace}/boats/{name}/scale").is_some());
    assert_eq!(read(&next.with_custom(Vec::new())), before);
}

#[test]
fn openapi_names_the_patches_that_a_custom_kind_takes() {
    let registry = Registry::builtin().with_custom(descriptors().into_iter().map(Arc::new).collect());
    let text = crate::schema::openapi_v3(&registry, "sea.example.com", "v1").unwrap().plain();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("application/merge-patch+json") && !text.contains("strategic"));
}
