//! Schemas as users write them, judged and used as the API server does.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::field::{ErrorList, Path};

const ROOT: &str = "spec.versions[0].schema.openAPIV3Schema";

fn told(errors: &ErrorList) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn complaints(schema: &Value) -> Vec<String> {
    let mut errors = ErrorList::default();
    parse(schema, &Path::new(ROOT), &mut errors);
    told(&errors).into_iter().map(|line| line.replace(ROOT, "S")).collect()
}

/// The schema of an object whose `spec` is this.
fn of(spec: Value) -> Structural {
    let mut errors = ErrorList::default();
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    let parsed = parse(&schema, &Path::new(ROOT), &mut errors);
    assert!(errors.is_empty(), "{:?}", told(&errors));
    parsed
}

fn judged(schema: &Structural, spec: Value) -> Vec<String> {
    let mut errors = ErrorList::default();
    schema.validate(&json!({"spec": spec}), &mut errors);
    told(&errors)
}

fn judged_update(schema: &Structural, new: Value, old: Value) -> Vec<String> {
    let mut errors = ErrorList::default();
    schema.validate_update(&json!({"spec": new}), &json!({"spec": old}), &mut errors);
    told(&errors)
}

#[test]
fn a_schema_that_is_not_structural_is_told_where_and_why() {
    for (schema, complaint) in [
        (json!({}), "S.type: Required value: must not be empty at the root"),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            "S.type: Invalid value: \"array\": must be object at the root",
        ),
        (
            json!({"type": "object", "properties": {"a": {}}}),
            "S.properties[a].type: Required value: must not be empty for specified object fields",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array"}}}),
            "S.properties[a].items: Required value: must be specified",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "items": {}}}}),
            "S.properties[a].items.type: Required value: must not be empty for specified array items",
        ),
        (
            json!({"type": "object", "anyOf": [{"properties": {"a": {"type": "string"}}}]}),
            "S.anyOf[0].properties[a].type: Forbidden: must be empty to be structural",
        ),
        (
            json!({"type": "object", "anyOf": [{"required": ["a"], "properties": {"a": {}}}]}),
            "S.properties[a]: Required value: because it is defined in S.anyOf[0].properties[a]",
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            "S.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}),
            "must be a valid regular expression, but isn't",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "default": 5}}}),
            "S.properties[a].default: Invalid value: \"integer\": S.properties[a].default in body must be of type string: \"integer\"",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "object", "default": {"b": 1}}}}),
            "S.properties[a].default: Invalid value: {\"b\":1}: must not have unknown fields",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"}}}),
            "S.properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
        (json!({"type": "object", "$ref": "x"}), "S.$ref: Forbidden: $ref is not supported"),
        (
            json!({"type": "object", "properties": {"a": {"type": "thing"}}}),
            "S.properties[a].type: Unsupported value: \"thing\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            "S.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "x-kubernetes-validations": [{"rule": " "}]}}}),
            "S.properties[a].x-kubernetes-validations[0].rule: Required value: rule is not specified",
        ),
    ] {
        let told = complaints(&schema);
        assert!(told.iter().any(|line| line.contains(complaint)), "{schema}\n wanted {complaint}\n told {told:#?}");
    }
}

#[test]
fn a_schema_that_nests_too_deep_is_refused_and_not_followed() {
    let mut schema = json!({"type": "string"});
    for _ in 0..500 {
        schema = json!({"type": "object", "properties": {"a": schema}});
    }
    assert!(complaints(&schema).iter().any(|line| line.contains("may not nest deeper")));
}

#[test]
fn values_are_judged_with_kubernetes_messages() {
    let schema = of(json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "maxLength": 5, "minLength": 2, "pattern": "^[a-z]*$"},
            "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "multipleOf": 2},
            "ratio": {"type": "number", "maximum": 1, "exclusiveMaximum": true},
            "mode": {"type": "string", "enum": ["a", "b"]},
            "list": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
            "ip": {"type": "string", "format": "ipv4"},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 1},
            "small": {"type": "integer", "format": "int32"},
        },
    }));
    for (spec, told) in [
        (json!({"name": "ab", "replicas": 2, "ratio": 0.5, "mode": "a", "list": ["x"], "port": "http"}), vec![]),
        (json!({"name": "ab", "replicas": 2.0, "port": 80}), vec![]),
        (json!({}), vec!["spec.name: Required value"]),
        (
            json!({"name": "ab", "replicas": "x"}),
            vec!["spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\""],
        ),
        (json!({"name": "abcdef"}), vec!["spec.name: Too long: may not be more than 5 bytes"]),
        (
            json!({"name": "a"}),
            vec!["spec.name: Invalid value: \"a\": spec.name in body should be at least 2 chars long"],
        ),
        (json!({"name": "A1"}), vec!["spec.name: Invalid value: \"A1\": spec.name in body should match '^[a-z]*$'"]),
        (
            json!({"name": "ab", "replicas": 12}),
            vec!["spec.replicas: Invalid value: 12: spec.replicas in body should be less than or equal to 10"],
        ),
        (
            json!({"name": "ab", "replicas": 3}),
            vec!["spec.replicas: Invalid value: 3: spec.replicas in body should be a multiple of 2"],
        ),
        (
            json!({"name": "ab", "ratio": 1}),
            vec!["spec.ratio: Invalid value: 1: spec.ratio in body should be less than 1"],
        ),
        (
            json!({"name": "ab", "mode": "c"}),
            vec!["spec.mode: Unsupported value: \"c\": supported values: \"a\", \"b\""],
        ),
        (
            json!({"name": "ab", "list": []}),
            vec!["spec.list: Invalid value: 0: spec.list in body should have at least 1 items"],
        ),
        (json!({"name": "ab", "list": ["a", "b", "c"]}), vec!["spec.list: Too many: 3: must have at most 2 items"]),
        (
            json!({"name": "ab", "list": [1]}),
            vec!["spec.list[0]: Invalid value: \"integer\": spec.list[0] in body must be of type string: \"integer\""],
        ),
        (
            json!({"name": "ab", "ip": "x"}),
            vec!["spec.ip: Invalid value: \"x\": spec.ip in body must be of type ipv4: \"x\""],
        ),
        (
            json!({"name": "ab", "map": {"k": "v"}}),
            vec!["spec.map.k: Invalid value: \"string\": spec.map.k in body must be of type integer: \"string\""],
        ),
        (
            json!({"name": "ab", "small": 3_000_000_000_u32}),
            vec![
                "spec.small: Invalid value: 3000000000: Checked value must be of type integer with format int32 in spec.small",
            ],
        ),
        (
            json!({"name": null}),
            vec!["spec.name: Invalid value: \"null\": spec.name in body must be of type string: \"null\""],
        ),
    ] {
        assert_eq!(judged(&schema, spec.clone()), told, "{spec}");
    }
    assert!(!judged(&schema, json!({"name": "ab", "port": 1.5})).is_empty());
}

#[test]
fn combinations_of_schemas_are_judged() {
    let schema = of(json!({
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        "not": {"properties": {"a": {"enum": ["bad"]}}, "required": ["a"]},
    }));
    assert!(judged(&schema, json!({"a": "x"})).is_empty());
    assert_eq!(
        judged(&schema, json!({"a": "x", "b": "y"})),
        [
            r#"spec: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#
        ]
    );
    assert_eq!(
        judged(&schema, json!({})),
        [
            r#"spec: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found none valid"#,
            "spec.a: Required value"
        ]
    );
    assert_eq!(
        judged(&schema, json!({"a": "bad"})),
        [r#"spec: Invalid value: "": "spec" must not validate the schema (not)"#]
    );
}

fn list_map() -> Structural {
    of(json!({"type": "object", "properties": {
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
            "type": "object", "required": ["k"],
            "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 5}},
        }},
        "plain": {"type": "array", "items": {"type": "integer", "maximum": 5}},
    }}))
}

#[test]
fn sets_and_list_maps_hold_nothing_twice() {
    let schema = list_map();
    assert_eq!(judged(&schema, json!({"set": ["a", "b", "a", "a"]})), ["spec.set[2]: Duplicate value: \"a\""]);
    assert_eq!(
        judged(&schema, json!({"list": [{"k": "x"}, {"k": "x"}]})),
        ["spec.list[1]: Duplicate value: {\"k\":\"x\"}"]
    );
}

#[test]
fn what_was_invalid_before_and_is_unchanged_passes() {
    let schema = list_map();
    let old = json!({"list": [{"k": "x", "v": 9}], "plain": [9]});
    let reordered = json!({"list": [{"k": "y", "v": 1}, {"k": "x", "v": 9}], "plain": [9]});
    assert!(judged_update(&schema, reordered, old.clone()).is_empty());
    assert_eq!(judged_update(&schema, json!({"list": [{"k": "x", "v": 8}], "plain": [9]}), old.clone()).len(), 1);
    let longer = json!({"list": [{"k": "x", "v": 9}], "plain": [9, 1]});
    assert_eq!(judged_update(&schema, longer, old).len(), 1, "an item of a plain list has no old value");
}

#[test]
fn unknown_fields_are_dropped_and_told() {
    let schema = of(json!({"type": "object", "properties": {
        "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "strict": {"type": "object", "properties": {"a": {"type": "string"}}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object"}},
        "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
    }}));
    let mut object = json!({
        "apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n"}, "other": 1,
        "spec": {
            "x": 1, "list": [{"a": "1", "b": 2}], "free": {"y": 1, "strict": {"a": "1", "z": 2}},
            "map": {"k": {"w": 1}}, "pod": {"kind": "Pod", "apiVersion": "v1", "metadata": {}, "status": {}},
        },
    });
    let unknown = schema.prune(&mut object);
    assert_eq!(unknown, ["other", "spec.free.strict.z", "spec.list[0].b", "spec.map.k.w", "spec.pod.status", "spec.x"]);
    assert_eq!(
        object["spec"],
        json!({
            "list": [{"a": "1"}], "free": {"y": 1, "strict": {"a": "1"}}, "map": {"k": {}},
            "pod": {"kind": "Pod", "apiVersion": "v1", "metadata": {}},
        })
    );
}

#[test]
fn defaults_fill_what_is_absent_and_replace_nulls_that_are_not_allowed() {
    let schema = of(json!({"type": "object", "default": {"a": "deep"}, "properties": {
        "a": {"type": "string", "default": "x"},
        "b": {"type": "string", "nullable": true, "default": "y"},
        "c": {"type": "string"},
        "u": {"x-kubernetes-preserve-unknown-fields": true},
        "d": {"type": "object", "default": {}, "properties": {"e": {"type": "integer", "default": 1}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"f": {"type": "integer", "default": 2}}}},
    }}));
    let mut object = json!({});
    schema.apply_defaults(&mut object).unwrap();
    assert_eq!(object, json!({"spec": {"a": "deep", "b": "y", "d": {"e": 1}}}));
    let mut object = json!({"spec": {"a": null, "b": null, "c": null, "u": null, "list": [{}, {"f": 3}]}});
    schema.apply_defaults(&mut object).unwrap();
    assert_eq!(object, json!({"spec": {"a": "x", "b": null, "d": {"e": 1}, "list": [{"f": 2}, {"f": 3}]}}));
}

#[test]
fn what_a_list_keeps_its_items_keep() {
    let known = json!({"type": "object", "properties": {"b": {"type": "string"}}});
    let schema = of(json!({"type": "array", "x-kubernetes-preserve-unknown-fields": true, "items": {
        "type": "object", "properties": {"a": known}}}));
    let mut object = json!({"spec": [{"a": {"b": "", "c": 1}, "d": 1}]});
    assert_eq!(schema.prune(&mut object), ["spec[0].a.c"]);
    assert_eq!(object, json!({"spec": [{"a": {"b": ""}, "d": 1}]}));
}

#[test]
fn an_embedded_resource_says_what_it_is() {
    let schema = of(json!({"type": "object", "properties": {
        "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
    }}));
    assert_eq!(
        judged(&schema, json!({"pod": {"kind": "Pod"}})),
        ["spec.pod.apiVersion: Required value: must not be empty"]
    );
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"b": "c"}, "odd": 1}, "any": 1});
    let mut object = json!({"spec": {"pod": pod}});
    assert_eq!(schema.prune(&mut object), ["spec.pod.metadata.odd"]);
    assert_eq!(object["spec"]["pod"]["metadata"], json!({"name": "a", "labels": {"b": "c"}}));
}

#[test]
fn version_2_leaves_out_what_its_readers_cannot_say() {
    let schema = json!({"type": "object", "properties": {"spec": {
        "type": "object", "required": ["a", "b"], "anyOf": [{"required": ["a"]}],
        "properties": {
            "a": {"type": "string", "nullable": true}, "b": {"type": "string", "default": "x"},
            "c": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"d": {"type": "string"}}},
        },
    }}});
    let v2 = publish::definition(Some(&schema), publish::Version::V2);
    let spec = &v2["properties"]["spec"];
    assert_eq!(spec["required"], json!(["b"]));
    assert_eq!(spec["properties"]["a"], json!({}));
    assert_eq!(spec["properties"]["b"], json!({"type": "string"}));
    assert_eq!(spec["properties"]["c"], json!({"x-kubernetes-preserve-unknown-fields": true}));
    assert!(spec.get("anyOf").is_none());
    let free = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {}}});
    assert_eq!(publish::definition(Some(&free), publish::Version::V2), json!({"type": "object"}));
    let v3 = publish::definition(Some(&schema), publish::Version::V3);
    assert_eq!(v3["properties"]["spec"], schema["properties"]["spec"]);
    assert_eq!(
        v3["properties"]["metadata"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
}

#[test]
fn a_schema_of_many_alternatives_costs_bounded_work() {
    let mut node = Structural::default();
    node.limits.min_length = Some(2);
    for _ in 0..6 {
        let any_of = vec![node; 7];
        node = Structural {
            junctors: Some(Box::new(Junctors { any_of, ..Junctors::default() })),
            ..Structural::default()
        };
        if any_of_size(&node) > 15_000 {
            break;
        }
    }
    let list = Structural { kind: Some(Kind::Array), items: Some(Box::new(node)), ..Structural::default() };
    let mut errors = ErrorList::default();
    list.validate(&json!(vec!["x"; 1000]), &mut errors);
    assert!(told(&errors).iter().any(|line| line.contains("too many steps")), "{:?}", told(&errors).first());
}

fn any_of_size(node: &Structural) -> usize {
    1 + node.junctors.iter().flat_map(|j| &j.any_of).map(any_of_size).sum::<usize>()
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(WORDS.to_vec()), inner, 0..5)
                .prop_map(|map| map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

/// Keys that mean something to a schema, and some that do not.
const WORDS: [&str; 22] = [
    "type",
    "properties",
    "items",
    "default",
    "nullable",
    "enum",
    "required",
    "pattern",
    "format",
    "anyOf",
    "allOf",
    "not",
    "maximum",
    "maxLength",
    "additionalProperties",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
    "spec",
    "metadata",
    "a",
    "b",
];

proptest! {
    #[test]
    fn any_tree_is_parsed_and_any_object_is_treated(schema in anything(), object in anything()) {
        let mut errors = ErrorList::default();
        let parsed = parse(&schema, &Path::new(ROOT), &mut errors);
        let mut object = object;
        parsed.prune(&mut object);
        parsed.apply_defaults(&mut object).unwrap();
        let once = object.clone();
        parsed.apply_defaults(&mut object).unwrap();
        prop_assert_eq!(&once, &object, "defaulting is idempotent");
        let mut pruned = object.clone();
        parsed.prune(&mut pruned);
        parsed.validate(&object, &mut errors);
        publish::definition(Some(&schema), publish::Version::V2);
        publish::definition(Some(&schema), publish::Version::V3);
    }
}

#[test]
fn a_long_list_map_is_compared_with_the_old_one_item_by_item() {
    let item = json!({"type": "object", "required": ["k"],
        "properties": {"k": {"type": "integer"}, "v": {"type": "integer", "maximum": 1}}});
    let schema = of(json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": item}));
    // In the other order, and one value that was good before.
    let list = |order: &mut dyn Iterator<Item = u32>, bad: u32| -> Value {
        order.map(|k| json!({"k": k, "v": if k == 7 || k == bad { 2 } else { 1 }})).collect()
    };
    let (old, new) = (list(&mut (0..50_000), 7), list(&mut (0..50_000).rev(), 9));
    let begin = std::time::Instant::now();
    let found = judged_update(&schema, new, old);
    assert_eq!(found, ["spec[49990].v: Invalid value: 2: spec[49990].v in body should be less than or equal to 1"]);
    assert!(begin.elapsed() < std::time::Duration::from_secs(20), "the lists' product was walked");
}
