//! Bodies as Go clients send them, and broken ones.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
    out.extend_from_slice(bytes);
    out
}

fn body(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), field(1, &meta), field(2, raw), field(3, b""), field(4, b"")].concat()
}

#[test]
fn no_message_contains_itself_and_all_are_defined() {
    fn walk(name: &'static str, above: &mut Vec<&'static str>) {
        assert!(!above.contains(&name), "{name} in {above:?}");
        above.push(name);
        for field in MESSAGES[name].values().filter(|f| f.kind.contains('.')) {
            walk(field.kind, above);
        }
        above.pop();
    }
    for name in MESSAGES.keys() {
        walk(name, &mut Vec::new());
    }
}

#[test]
fn what_kubectl_create_deployment_sends_is_read() {
    // What Go writes for fields that are not set: empty texts, zeros, empty messages.
    let metadata = [
        field(1, b"d1"),
        field(2, b""),
        vec![7 << 3, 0],
        field(8, b""),
        field(11, &[field(1, b"app"), field(2, b"d1")].concat()),
    ];
    let port = [field(1, b""), vec![2 << 3, 0, 3 << 3, 0x90, 0x3f]].concat();
    let container = [field(1, b"c"), field(2, b"image:1"), field(6, &port), field(8, b"")].concat();
    let template = field(2, &field(2, &container));
    let spec = [vec![1 << 3, 0], field(3, &template), field(4, b""), vec![5 << 3, 0]].concat();
    let raw = [field(1, &metadata.concat()), field(2, &spec), field(3, &[1 << 3, 0])].concat();
    assert_eq!(
        tree(&body("apps/v1", "Deployment", &raw)),
        Ok(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d1", "labels": {"app": "d1"}},
            "spec": {"replicas": 0, "template": {"spec": {"containers": [
                {"name": "c", "image": "image:1", "ports": [{"containerPort": 8080}]}
            ]}}},
        }))
    );
}

#[test]
fn values_with_a_form_of_their_own_are_json() {
    let target = [vec![1 << 3, 1], field(3, b"http")].concat();
    let port = [vec![3 << 3, 80], field(4, &target)].concat();
    let service = tree(&body("v1", "Service", &field(2, &field(1, &port)))).unwrap();
    assert_eq!(service["spec"]["ports"], json!([{"port": 80, "targetPort": "http"}]));
    let data = field(2, &[field(1, b"key"), field(2, &[0xff, 0])].concat());
    let empty = field(2, &field(1, b"none"));
    let secret = tree(&body("v1", "Secret", &[data, empty].concat())).unwrap();
    assert_eq!(secret["data"], json!({"key": "/wA=", "none": ""}));
    let renewed = [vec![1 << 3, 0x80, 0xa8, 0xd6, 0xb9, 0x07, 2 << 3], vec![0xe8, 0x07]].concat();
    let lease = tree(&body("coordination.k8s.io/v1", "Lease", &field(2, &field(4, &renewed)))).unwrap();
    assert_eq!(lease["spec"]["renewTime"], "2033-05-18T03:33:20.000001Z");
    let extra = field(4, &[field(1, b"k"), field(2, &[field(1, b"a"), field(1, b"b")].concat())].concat());
    let review = tree(&body("authentication.k8s.io/v1", "TokenReview", &field(3, &field(2, &extra)))).unwrap();
    assert_eq!(review["status"]["user"]["extra"], json!({"k": ["a", "b"]}));
}

#[test]
fn embedded_messages_are_fields_of_their_parent() {
    let check = [vec![2 << 3, 5], field(1, &field(2, &field(1, b"/healthz")))].concat();
    let volume = [field(1, b"v"), field(2, &field(2, b""))].concat();
    let container = [field(1, b"c"), field(7, &field(1, b"E")), field(10, &check)].concat();
    let pod = tree(&body("v1", "Pod", &field(2, &[field(1, &volume), field(2, &container)].concat()))).unwrap();
    assert_eq!(pod["spec"]["volumes"], json!([{"name": "v", "emptyDir": {}}]));
    let probe = &pod["spec"]["containers"][0]["livenessProbe"];
    assert_eq!(*probe, json!({"httpGet": {"path": "/healthz"}, "initialDelaySeconds": 5}));
    let rule = [field(1, b"CREATE"), field(2, &field(3, b"pods"))].concat();
    let webhook = field(2, &field(3, &rule));
    let version = "admissionregistration.k8s.io/v1";
    let read = tree(&body(version, "ValidatingWebhookConfiguration", &webhook)).unwrap();
    let rules = &read["webhooks"][0]["rules"];
    assert_eq!(*rules, json!([{"operations": ["CREATE"], "resources": ["pods"]}]));
}

#[test]
fn what_cannot_be_read_is_named() {
    assert_eq!(tree(b"{}"), Err(ProtobufError::Prefix));
    assert_eq!(tree(b"k8s\0\x0a\x7f"), Err(ProtobufError::Short));
    assert_eq!(tree(&[MAGIC, &[0xff; 12]].concat()), Err(ProtobufError::Overflow));
    assert_eq!(
        tree(&body("v1", "Nothing", b"")).unwrap_err().to_string(),
        "no kind \"Nothing\" is known for version \"v1\" in protobuf: send JSON"
    );
    assert_eq!(tree(&body("v1", "Pod", &[1 << 3, 5])), Err(ProtobufError::WrongType("metadata".into())));
    assert_eq!(tree(&body("v1", "Pod", &field(1, &field(1, &[0xff])))), Err(ProtobufError::Utf8("name".into())));
}

proptest! {
    #[test]
    fn no_body_panics(raw in proptest::collection::vec(any::<u8>(), 0..120)) {
        for (version, kind) in [("v1", "Pod"), ("v1", "Service"), ("apps/v1", "Deployment")] {
            let _ = tree(&body(version, kind, &raw));
        }
        let _ = tree(&[MAGIC, &raw].concat());
    }
}
