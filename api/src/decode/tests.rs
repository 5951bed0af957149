//! Bodies as clients send them, good and bad: what they decode to and what is said of them.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn deployment() -> Descriptor {
    Descriptor::of::<Deployment>()
}

fn refusal(resource: &Descriptor, object: Value) -> String {
    let error = super::object(resource, Decoded { object, warnings: Vec::new() }, FieldValidation::Strict).unwrap_err();
    assert_eq!((error.code, &*error.reason), (400, "BadRequest"));
    error.message
}

#[test]
fn a_wrong_type_is_refused_in_the_words_of_kubernetes() {
    let message = refusal(&deployment(), json!({"spec": {"replicas": "3"}}));
    assert_eq!(
        message,
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
    let pod = Descriptor::of::<Pod>();
    for (spec, wanted) in [
        (
            json!({"containers": [{"env": [{"name": "A", "value": 1}]}]}),
            "number into Go struct field EnvVar.spec.containers.env.value of type string",
        ),
        (json!({"containers": {}}), "object into Go struct field PodSpec.spec.containers of type []v1.Container"),
        (json!({"nodeSelector": {"a": true}}), "bool into Go struct field PodSpec.spec.nodeSelector of type string"),
        (json!({"priority": 1.5}), "number 1.5 into Go struct field PodSpec.spec.priority of type int32"),
        (
            json!({"priority": 3_000_000_000_u64}),
            "number 3000000000 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (json!({"hostNetwork": "yes"}), "string into Go struct field PodSpec.spec.hostNetwork of type bool"),
    ] {
        let message = refusal(&pod, json!({"spec": spec}));
        assert!(message.ends_with(&format!("json: cannot unmarshal {wanted}")), "{message}");
    }
}

#[test]
fn times_quantities_and_base64_are_checked() {
    let message = refusal(&deployment(), json!({"metadata": {"creationTimestamp": "yesterday"}}));
    assert!(message.contains("parsing time \"yesterday\""), "{message}");
    let lease = |time: &str| json!({"spec": {"renewTime": time}});
    let message = refusal(&Descriptor::of::<Lease>(), lease("2024-01-01T00:00:00Z"));
    assert!(message.ends_with("cannot parse \"Z\" as \".000000\""), "{message}");
    let message = refusal(&deployment(), json!({"metadata": {"creationTimestamp": "9999-12-31T23:59:59Z"}}));
    assert!(message.ends_with("out of range (from 0000-01-01T00:00:00Z to 9999-12-30T22:00:00Z)"), "{message}");
    let limits = |cpu: Value| json!({"spec": {"containers": [{"resources": {"limits": {"cpu": cpu}}}]}});
    let message = refusal(&Descriptor::of::<Pod>(), limits(json!("lots")));
    assert!(message.contains("quantities must match the regular expression"), "{message}");
    let message = refusal(&Descriptor::of::<Secret>(), json!({"data": {"a": "n o"}}));
    assert!(message.ends_with("illegal base64 data at input byte 1"), "{message}");
    let decoded = Decoded { object: limits(json!(1.5)), warnings: Vec::new() };
    let decoded = object(&Descriptor::of::<Pod>(), decoded, FieldValidation::Strict).unwrap();
    assert_eq!(decoded.object["spec"]["containers"][0]["resources"]["limits"]["cpu"], "1500m");
}

#[test]
fn times_become_their_canonical_form() {
    let metadata = json!({"creationTimestamp": "2024-01-01T01:00:00.5+01:00"});
    let given = json!({"metadata": metadata, "spec": {"renewTime": "2024-01-01T01:00:00.000001+01:00"}});
    let decoded = Decoded { object: given, warnings: Vec::new() };
    let decoded = object(&Descriptor::of::<Lease>(), decoded, FieldValidation::Strict).unwrap();
    assert_eq!(decoded.object["metadata"]["creationTimestamp"], "2024-01-01T00:00:00Z");
    assert_eq!(decoded.object["spec"]["renewTime"], "2024-01-01T00:00:00.000001Z");
}

#[test]
fn unknown_and_duplicate_fields_are_errors_warnings_or_nothing() {
    let text =
        br#"{"spec": {"foo": 1, "replicas": 1, "replicas": 2, "template": {"spec": {"containers": [{"imag": "x"}]}}}}"#;
    let error = body(&deployment(), text, Format::Json, FieldValidation::Strict).unwrap_err();
    assert_eq!(
        error.message,
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \"spec.foo\", unknown field \"spec.template.spec.containers[0].imag\", duplicate field \"spec.replicas\""
    );
    let decoded = body(&deployment(), text, Format::Json, FieldValidation::Warn).unwrap();
    assert_eq!(decoded.warnings.len(), 3);
    assert_eq!(decoded.object["spec"], json!({"replicas": 2, "template": {"spec": {"containers": [{}]}}}));
    assert!(body(&deployment(), text, Format::Json, FieldValidation::Ignore).unwrap().warnings.is_empty());
}

#[test]
fn nulls_are_dropped_and_absent_types_filled_in() {
    let text = br#"{"metadata": {"name": "a", "creationTimestamp": null, "labels": {"l": null}}, "status": null}"#;
    let decoded = body(&deployment(), text, Format::Json, FieldValidation::Strict).unwrap();
    let wanted = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": {"l": ""}}});
    assert_eq!(decoded.object, wanted);
}

#[test]
fn another_version_or_kind_is_refused() {
    let message = refusal(&deployment(), json!({"apiVersion": "v1", "kind": "Deployment"}));
    assert_eq!(message, "the API version in the data (v1) does not match the expected API version (apps/v1)");
    let message = refusal(&deployment(), json!({"apiVersion": "apps/v1", "kind": "ReplicaSet"}));
    assert!(message.starts_with("ReplicaSet in version \"v1\" cannot be handled as a Deployment"), "{message}");
    assert!(refusal(&deployment(), json!([])).starts_with("the object provided is unrecognized"));
}

#[test]
fn broken_text_is_refused_with_line_and_column() {
    let message = |text: &[u8], format| tree(text, format).unwrap_err().message;
    assert_eq!(message(b"{\n \"a\" 1}", Format::Json), "json parse error: expected `:` at line 2 column 6");
    assert!(message(b"{} {}", Format::Json).contains("trailing characters at line 1 column 4"));
    let yaml = message(b"a: 1\nb: [\nc: 2\n", Format::Yaml);
    assert!(yaml.starts_with("error converting YAML to JSON: yaml: ") && yaml.contains("at line 4 column 1"), "{yaml}");
    let yaml = message(b"a: 1\n b: 2\n", Format::Yaml);
    assert!(yaml.contains("at line 2 column 3"), "{yaml}");
    assert_eq!(message(b"\"\xff\"", Format::Json), "the body is not valid UTF-8: invalid byte at offset 1");
}

#[test]
fn a_deep_body_is_refused_not_followed() {
    for format in [Format::Json, Format::Yaml] {
        let error = tree("[".repeat(100_000).as_bytes(), format).unwrap_err();
        assert!(error.message.contains("recursion limit exceeded"), "{error}");
    }
}

#[test]
fn yaml_keys_merges_and_octal_modes_are_read_as_kubernetes_does() {
    let text = b"data: &d {1: a, true: b}\nmore:\n  <<: *d\n  1: c\n";
    let decoded = tree(text, Format::Yaml).unwrap();
    assert_eq!(decoded.object, json!({"data": {"1": "a", "true": "b"}, "more": {"1": "c", "true": "b"}}));
    let pod = b"spec:\n  volumes:\n  - secret:\n      defaultMode: 0400\n";
    let decoded = body(&Descriptor::of::<Pod>(), pod, Format::Yaml, FieldValidation::Strict).unwrap();
    assert_eq!(decoded.object["spec"]["volumes"][0]["secret"]["defaultMode"], 0o400);
    let decoded = tree(b"a: 1\na: 2\n", Format::Yaml).unwrap();
    assert_eq!(decoded.warnings, ["duplicate field \"a\""]);
}

#[test]
fn aliases_that_expand_to_much_more_than_the_text_are_refused() {
    let list = format!("a: &a [{}]\nb: [{}]\n", vec!["x"; 10_000].join(","), vec!["*a"; 10_000].join(","));
    let error = tree(list.as_bytes(), Format::Yaml).unwrap_err();
    assert!(error.message.contains("excessive aliasing"), "{error}");
    let keys = format!("a: &a {{{}: 1}}\nb: [{}]\n", "k".repeat(10_000), vec!["*a"; 10_000].join(","));
    assert!(tree(keys.as_bytes(), Format::Yaml).is_err());
    let escapes = format!("a: \"{}\"\n", "\\L".repeat(1 << 20));
    assert!(tree(escapes.as_bytes(), Format::Yaml).is_ok());
}

#[test]
fn a_body_of_too_many_values_is_413() {
    let text = format!("[{}]", vec!["0"; tree::MAX_VALUES].join(","));
    for format in [Format::Json, Format::Yaml] {
        let error = tree(text.as_bytes(), format).unwrap_err();
        assert_eq!((error.code, &*error.reason), (413, "RequestEntityTooLarge"));
        assert!(error.message.contains("more than 262144 values"), "{error}");
    }
    let list = "- a\n".repeat(tree::MAX_VALUES + 1);
    assert_eq!(tree(list.as_bytes(), Format::Yaml).unwrap_err().code, 413);
    // Below that only nesting is refused.
    assert_eq!(tree("? ".repeat(100_000).as_bytes(), Format::Yaml).unwrap_err().code, 400);
    // A Pod in protobuf: `spec.containers` again and again, each empty.
    let spec = [0x12, 0x00].repeat(1 << 20);
    let field = |tag: u8, bytes: &[u8]| {
        let mut field = vec![tag];
        let mut length = bytes.len();
        while length > 0x7f {
            field.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        field.push(u8::try_from(length).unwrap());
        [field, bytes.to_vec()].concat()
    };
    let kind = [field(0x0a, b"v1"), field(0x12, b"Pod")].concat();
    let body = [b"k8s\0".to_vec(), field(0x0a, &kind), field(0x12, &field(0x12, &spec))].concat();
    assert_eq!(tree(&body, Format::Protobuf).unwrap_err().code, 413);
}

#[test]
fn more_objects_in_lists_than_any_object_has_are_422_at_the_list() {
    let pod = Descriptor::of::<Pod>();
    let text = |containers: usize| format!("{{\"spec\":{{\"containers\":[{}]}}}}", vec!["{}"; containers].join(","));
    let error = body(&pod, text(10_001).as_bytes(), Format::Json, FieldValidation::Warn).unwrap_err();
    assert_eq!((error.code, &*error.reason), (422, "Invalid"));
    assert_eq!(error.message, "Pod \"\" is invalid: spec.containers: Too many: 10001: must have at most 10000 items");
    assert_eq!(error.details.causes[0].reason, "FieldValueTooMany");
    assert!(body(&pod, text(10_000).as_bytes(), Format::Json, FieldValidation::Warn).is_ok());
    // All lists together, however they are spread.
    let container = format!("{{\"ports\":[{}]}}", vec!["{}"; 200].join(","));
    let many = format!("{{\"spec\":{{\"containers\":[{}]}}}}", vec![container.as_str(); 100].join(","));
    let error = body(&pod, many.as_bytes(), Format::Json, FieldValidation::Warn).unwrap_err();
    assert!(error.message.contains("].ports: Too many: 200"), "{error}");
}

#[test]
fn deep_yaml_of_any_style_costs_little() {
    let started = std::time::Instant::now();
    for text in ["- ".repeat(1 << 18), "? ".repeat(1 << 18), "a: {b: [".repeat(1 << 16), "&a ".repeat(1 << 18)] {
        assert!(tree(text.as_bytes(), Format::Yaml).is_err());
    }
    assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn a_long_place_is_not_told_for_each_of_its_duplicates() {
    let text = format!("{{\"{}\": {{{}}}}}", "k".repeat(1 << 20), vec!["\"a\":1"; 10_000].join(","));
    assert_eq!(tree(text.as_bytes(), Format::Json).unwrap().warnings.len(), 1);
}

#[test]
fn documents_are_split_and_empty_ones_left_out() {
    let all = documents("---\na: 1\n---\n# nothing\n---\nb: 2\n").unwrap();
    assert_eq!(all.iter().map(|d| d.object.clone()).collect::<Vec<_>>(), [json!({"a": 1}), json!({"b": 2})]);
    let error = documents("a: 1\n---\nb: [\n").unwrap_err();
    assert!(error.message.contains("line 4") || error.message.contains("line 3"), "{error}");
}

#[test]
fn a_patch_that_breaks_the_shape_is_a_422_about_the_patch() {
    let decoded = Decoded { object: json!({"spec": {"replicas": "x"}}), warnings: Vec::new() };
    let error = patched(&deployment(), decoded, &json!({"spec": 1}), FieldValidation::Warn).unwrap_err();
    assert_eq!((error.code, &*error.reason), (422, "Invalid"));
    assert_eq!(error.details.causes[0].field, "patch");
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = tree(&bytes, Format::Json);
        let _ = tree(&bytes, Format::Yaml);
    }

    #[test]
    fn json_is_read_as_serde_json_reads_it(text in "[\\[\\]{}:,\"a0-9e.\\- ]{0,24}") {
        let ours = tree(text.as_bytes(), Format::Json).map(|d| d.object).ok();
        prop_assert_eq!(ours, serde_json::from_str::<Value>(&text).ok());
    }
}

#[test]
fn repeated_keys_are_told_with_their_lines() {
    let text = b"a: 1\nb:\n  x: 1\n  y: 2\n  x: 3\nc: [{k: 1, k: 2}]\na: 4\n";
    let told = [
        "line 5: key \"x\" already set in map",
        "line 6: key \"k\" already set in map",
        "line 7: key \"a\" already set in map",
    ];
    assert_eq!(repeated_keys(text), told);
    assert!(repeated_keys(b"a: 1\nb: 2\n").is_empty());
}
