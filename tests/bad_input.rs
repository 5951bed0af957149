//! Whatever a client sends, the answer is a Status with the right code, reason and a message that says where the mistake
//! is; and whoever asks for what is not theirs does not get it.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use std::fs;

use serde_json::{Value, json};
use support::server::{pod, text};
use support::{Api, Wherry};

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
/// Megabytes of history that the server keeps for watches.
const KEPT_MB: usize = 68;

#[test]
fn bad_requests_are_answered_with_what_is_wrong() {
    let server = Wherry::start("boat");
    claims!(&server;
        a_body_that_is_not_utf_8_says_where,
        a_body_that_does_not_parse_has_a_line_and_a_column,
        a_body_over_the_limit_is_413,
        a_body_of_another_kind_or_format_is_refused,
        a_path_that_does_not_exist_is_404_with_a_status,
        a_wrong_type_names_the_field,
        unknown_and_duplicate_fields_are_refused_strictly_and_warned_of_otherwise,
        a_bad_name_is_refused_with_the_rule,
        a_pod_with_many_mistakes_hears_of_all_of_them,
        of_two_writers_one_is_told_to_try_again,
        options_that_make_no_sense_are_refused,
        a_patch_that_does_not_fit_is_refused,
        mistakes_in_manifests_are_placed,
        nobody_gets_in_without_a_name_or_further_than_theirs,
        a_watch_from_too_long_ago_is_410,
        the_server_is_well_after_all_this,
    );
}

fn config(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

fn send(server: &Wherry, kind: &str, body: impl Into<Vec<u8>>) -> support::Answer {
    server.api().send("POST", CONFIGMAPS, kind, body)
}

fn a_body_that_is_not_utf_8_says_where(server: &Wherry) {
    let mut body = br#"{"metadata":{"name":"a"},"data":{"x":""#.to_vec();
    body.extend([0xff, 0xfe]);
    body.extend(br#""}}"#);
    let message = send(server, "application/json", body).refused(400, "BadRequest");
    has(&message, &["not valid UTF-8", "offset 38"]);
}

fn a_body_that_does_not_parse_has_a_line_and_a_column(server: &Wherry) {
    let message = send(server, "application/json", "{\"metadata\":\n  {\"name\": }}").refused(400, "BadRequest");
    has(&message, &["line 2", "column"]);
    let message =
        send(server, "application/yaml", "metadata:\n  name: a\n  labels: [b: c\n").refused(400, "BadRequest");
    has(&message, &["line", "column"]);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    has(&send(server, "application/json", deep).refused(400, "BadRequest"), &["recursion"]);
    send(server, "application/json", "").refused(400, "BadRequest");
    send(server, "application/json", "[]").refused(400, "BadRequest");
    send(server, "application/json", "null").refused(400, "BadRequest");
}

fn a_body_over_the_limit_is_413(server: &Wherry) {
    let mut object = config("large");
    object["data"] = json!({"x": "y".repeat(3 << 20)});
    let message = send(server, "application/json", object.to_string()).refused(413, "RequestEntityTooLarge");
    has(&message, &["limit is 3145728"]);
    object["data"] = json!({"x": "y".repeat((1 << 20) + 1)});
    let message = send(server, "application/json", object.to_string()).refused(422, "Invalid");
    has(&message, &["Too long: may not be more than 1048576 bytes"]);
}

fn a_body_of_another_kind_or_format_is_refused(server: &Wherry) {
    let wrong = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}});
    has(&send(server, "application/json", wrong.to_string()).refused(400, "BadRequest"), &["Secret", "ConfigMap"]);
    let wrong = json!({"apiVersion": "apps/v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    has(&send(server, "application/json", wrong.to_string()).refused(400, "BadRequest"), &["apps/v1", "v1"]);
    for kind in ["application/xml", "text/html", "image/png"] {
        let message = send(server, kind, config("a").to_string()).refused(415, "UnsupportedMediaType");
        has(&message, &["unknown format", "accepted media types include: application/json, application/yaml"]);
    }
    let picky = server.api().with_accept("application/vnd.kubernetes.protobuf");
    assert_eq!(picky.get(CONFIGMAPS).status, 406);
}

fn a_path_that_does_not_exist_is_404_with_a_status(server: &Wherry) {
    let api = server.api();
    for path in [
        "/nonsense",
        "/api/v2/pods",
        "/api/v1/boats",
        "/apis/apps/v1/namespaces/default/pods",
        "/apis/apps/v9/deployments",
        "/api/v1/namespaces/default/pods/a/b",
        "/api/v1/namespaces/default/nodes",
        "/api/v1/namespaces/default/configmaps/a/status",
        "/apis/none.example/v1/things",
    ] {
        has(&api.get(path).refused(404, "NotFound"), &["the server could not find the requested resource"]);
    }
    has(&api.get(&format!("{PODS}/nobody")).refused(404, "NotFound"), &[r#"pods "nobody" not found"#]);
    api.post("/api/v1/pods", &json!({})).refused(405, "MethodNotAllowed");
    api.send("DELETE", "/version", "", Vec::new()).refused(405, "MethodNotAllowed");
    let message = api.post("/api/v1/namespaces/nowhere/configmaps", &config("a")).refused(404, "NotFound");
    assert_eq!(message, r#"namespaces "nowhere" not found"#);
}

fn a_wrong_type_names_the_field(server: &Wherry) {
    let refused = |object: Value| server.api().post(PODS, &object).refused(400, "BadRequest");
    has(
        &refused(json!({"metadata": {"name": 1}})),
        &["cannot unmarshal number into Go struct field", "metadata.name of type string"],
    );
    has(&refused(json!({"metadata": {"name": "a"}, "spec": []})), &["cannot unmarshal array", "spec"]);
    let port = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "a", "ports": [{"containerPort": "x"}]}]}});
    has(&refused(port), &["cannot unmarshal string", "containers.ports.containerPort of type int32"]);
    let limit = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "a", "resources": {"limits": {"memory": "lots"}}}]}});
    has(&refused(limit), &["quantities must match the regular expression"]);
}

fn unknown_and_duplicate_fields_are_refused_strictly_and_warned_of_otherwise(server: &Wherry) {
    let api = server.api();
    let body = r#"{"metadata":{"name":"fields","nome":"x"},"data":{"a":"1","a":"2"},"datum":{}}"#;
    let strict = api.send("POST", &format!("{CONFIGMAPS}?fieldValidation=Strict"), "application/json", body);
    let message = strict.refused(400, "BadRequest");
    has(
        &message,
        &[
            "strict decoding error",
            r#"unknown field "metadata.nome""#,
            r#"unknown field "datum""#,
            r#"duplicate field "data.a""#,
        ],
    );
    let warned = api.send("POST", CONFIGMAPS, "application/json", body);
    assert_eq!(warned.ok()["data"], json!({"a": "2"}), "the last one counts");
    let warnings: Vec<&str> = warned.headers.get_all("warning").iter().map(|w| w.to_str().unwrap()).collect();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings.contains(&r#"299 - "unknown field \"datum\"""#), "{warnings:?}");
    api.delete(&format!("{CONFIGMAPS}/fields")).ok();
    let ignored = api.send("POST", &format!("{CONFIGMAPS}?fieldValidation=Ignore"), "application/json", body);
    assert!(ignored.headers.get("warning").is_none() && ignored.status == 201, "{}", ignored.text());
    let wrong = api.send("POST", &format!("{CONFIGMAPS}?fieldValidation=Maybe"), "application/json", body);
    has(&wrong.refused(422, "Invalid"), &["fieldValidation", "Maybe"]);
}

fn a_bad_name_is_refused_with_the_rule(server: &Wherry) {
    let api = server.api();
    for bad in ["A", "a_b", "-a", "a.", "a/b", "ä", &"a".repeat(254)] {
        let message = api.post(CONFIGMAPS, &config(bad)).refused(422, "Invalid");
        has(&message, &["metadata.name: Invalid value"]);
    }
    has(&api.post(CONFIGMAPS, &config("A")).text(), &["a lowercase RFC 1123 subdomain must consist of"]);
    has(&api.post(CONFIGMAPS, &json!({"metadata": {}})).refused(422, "Invalid"), &["name or generateName is required"]);
    let service = json!({"metadata": {"name": "1st"}, "spec": {"ports": [{"port": 80}]}});
    has(&api.post("/api/v1/namespaces/default/services", &service).refused(422, "Invalid"), &["DNS-1035"]);
    let mut labelled = config("labelled");
    labelled["metadata"]["labels"] = json!({"a b": "c", "ok": "not ok!"});
    has(
        &api.post(CONFIGMAPS, &labelled).refused(422, "Invalid"),
        &["metadata.labels: Invalid value: \"a b\"", "not ok!"],
    );
    let mut elsewhere = config("elsewhere");
    elsewhere["metadata"]["namespace"] = json!("other");
    has(
        &api.post(CONFIGMAPS, &elsewhere).refused(400, "BadRequest"),
        &["namespace of the provided object does not match"],
    );
    has(
        &api.put(&format!("{CONFIGMAPS}/one"), &config("two")).refused(400, "BadRequest"),
        &["(two) does not match the name on the URL (one)"],
    );
}

fn a_pod_with_many_mistakes_hears_of_all_of_them(server: &Wherry) {
    let mut bad = pod(
        "bad",
        "",
        json!({"name": "Main", "ports": [{"containerPort": 0}], "imagePullPolicy": "Sometimes"}),
        json!({}),
    );
    bad["spec"]["restartPolicy"] = json!("Maybe");
    let answer = server.api().post(PODS, &bad);
    let message = answer.refused(422, "Invalid");
    has(
        &message,
        &[
            "spec.containers[0].name",
            "spec.containers[0].image: Required value",
            "spec.containers[0].ports[0].containerPort",
        ],
    );
    has(
        &message,
        &["imagePullPolicy: Unsupported value: \"Sometimes\"", "spec.restartPolicy: Unsupported value: \"Maybe\""],
    );
    let causes = answer.json()["details"]["causes"].as_array().cloned().unwrap();
    let fields: Vec<&str> = causes.iter().map(|cause| text(cause, "/field")).collect();
    assert!(fields.contains(&"spec.restartPolicy") && fields.contains(&"spec.containers[0].image"), "{fields:?}");
}

fn of_two_writers_one_is_told_to_try_again(server: &Wherry) {
    let api = server.api();
    let path = format!("{CONFIGMAPS}/shared");
    let first = api.post(CONFIGMAPS, &config("shared")).ok();
    let (mut one, mut two) = (first.clone(), first);
    one["data"] = json!({"by": "one"});
    two["data"] = json!({"by": "two"});
    let answers = api.block_on(async {
        let put = |object: &Value| api.ask("PUT", &path, "application/json", object.to_string().into_bytes());
        futures::future::join(put(&one), put(&two)).await
    });
    let (won, lost): (Vec<_>, Vec<_>) =
        [answers.0.unwrap(), answers.1.unwrap()].into_iter().partition(|a| a.status == 200);
    assert_eq!((won.len(), lost.len()), (1, 1));
    has(
        &lost[0].refused(409, "Conflict"),
        &["shared", "the object has been modified; please apply your changes to the latest version and try again"],
    );
    let outdated = json!({"metadata": {"resourceVersion": "1"}, "data": {"by": "three"}});
    api.patch(&path, "merge", &outdated).refused(409, "Conflict");
}

fn options_that_make_no_sense_are_refused(server: &Wherry) {
    let api = server.api();
    for (query, code, words) in [
        ("labelSelector=a%20in", 400, "unable to parse requirement"),
        ("fieldSelector=spec.colour%3Dred", 400, "is not a known field selector"),
        ("limit=many", 400, "limit"),
        ("resourceVersion=abc", 400, "resourceVersion"),
        ("continue=garbage", 400, "continue"),
        ("resourceVersionMatch=Exact", 422, "resourceVersionMatch"),
    ] {
        let answer = api.get(&format!("{CONFIGMAPS}?{query}"));
        assert_eq!(answer.status, code, "{query}: {}", answer.text());
        has(text(&answer.json(), "/message"), &[words]);
    }
    has(&api.post(&format!("{CONFIGMAPS}?dryRun=Some"), &config("a")).refused(422, "Invalid"), &["dryRun"]);
    let future = api.get(&format!("{CONFIGMAPS}?resourceVersion=999999999"));
    has(&future.refused(504, "Timeout"), &["Too large resource version"]);
}

fn a_patch_that_does_not_fit_is_refused(server: &Wherry) {
    let api = server.api();
    api.post(CONFIGMAPS, &config("patched")).ok();
    let path = format!("{CONFIGMAPS}/patched");
    let missing = json!([{"op": "remove", "path": "/data/nothing"}]);
    api.patch(&path, "json", &missing).refused(422, "Invalid");
    api.patch(&path, "json", &json!({"data": {}})).refused(400, "BadRequest");
    has(&api.patch(&path, "merge", &json!({"data": 1})).refused(422, "Invalid"), &["data"]);
    api.send("PATCH", &path, "application/json", "{}").refused(415, "UnsupportedMediaType");
    let identity = api.patch(&path, "merge", &json!({"metadata": {"name": "other"}}));
    assert!(identity.status == 400 || identity.status == 422, "{}", identity.text());
    has(&api.patch(&path, "merge", &json!({"metadata": {"uid": "x"}})).refused(422, "Invalid"), &["metadata.uid"]);
}

fn mistakes_in_manifests_are_placed(server: &Wherry) {
    let apply = |text: &str| {
        let path = server.file("wrong.yaml", text).display().to_string();
        server.wherry(&["apply", "-f", &path]).fails()
    };
    has(
        &apply("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labels: [x: y\n"),
        &["wrong.yaml", "line 5", "column"],
    );
    has(
        &apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: b}\ndata: {c: d}\n"),
        &["wrong.yaml", r#"duplicate field "data""#],
    );
    has(&apply("kind: ConfigMap\nmetadata: {name: a}\n"), &["apiVersion"]);
    has(&apply("apiVersion: v1\nkind: Boat\nmetadata: {name: a}\n"), &["Boat", "v1"]);
    has(
        &apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndatum: {}\n"),
        &["ConfigMap a", "wrong.yaml", ".datum: field not declared in schema"],
    );
    has(
        &apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: A_B}\n"),
        &["ConfigMap A_B", "metadata.name", "RFC 1123"],
    );
    has(
        &apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: A_B}\ndata: {a b: c}\n"),
        &["\n* metadata.name: Invalid value: \"A_B\"", "\n* data[a b]: Invalid value: \"a b\""],
    );
    has(&apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {n: 1}\n"), &["data", "string"]);
    let path = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: ./lost.wasm}]}\n";
    has(&apply(path), &["lost.wasm", "No such file"]);
    assert!(!apply(path).contains("/./"), "{}", apply(path));
    let bare = path.replace("./lost.wasm", "lost.wasm").replace("metadata: {name: a}", "metadata: {name: A_B}");
    has(&apply(&bare), &["./lost.wasm was not found beside the manifest"]);
    server.file("beside.wasm", "no component");
    has(&apply(&bare.replace("lost.wasm", "beside.wasm")), &["beside.wasm: ", "not WebAssembly"]);
    let direct = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "./app.wasm"}]}});
    let refused = server.api().post("/api/v1/namespaces/default/pods", &direct).refused(422, "Invalid");
    has(&refused, &["spec.containers[0].image", "wherry apply"]);
    has(&server.wherry(&["apply", "-f", "/nonexistent.yaml"]).fails(), &["/nonexistent.yaml"]);
}

fn nobody_gets_in_without_a_name_or_further_than_theirs(server: &Wherry) {
    let kubeconfig = fs::read_to_string(server.kubeconfig()).unwrap();
    let with = |auth: Value| {
        Api::new(&kubeconfig, |config| config.auth_infos[0].auth_info = Some(serde_json::from_value(auth).unwrap()))
    };
    let anonymous = with(json!({}));
    has(
        &anonymous.get(PODS).refused(403, "Forbidden"),
        &[r#"User "system:anonymous" cannot list resource "pods""#, r#"in the namespace "default""#],
    );
    assert_eq!(anonymous.get("/readyz").status, 200);
    let forger = with(json!({"token": "nonsense"}));
    forger.get(PODS).refused(401, "Unauthorized");

    let api = server.api();
    api.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "robot"}})).ok();
    let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
    let token = api.post(path, &json!({"spec": {}})).ok();
    let robot = with(json!({"token": text(&token, "/status/token")}));
    has(&robot.get(PODS).refused(403, "Forbidden"), &["system:serviceaccount:default:robot"]);
    assert_eq!(robot.get("/version").status, 200);

    let node = api.acting_as("system:node:other", &["system:nodes", "system:authenticated"]);
    node.get("/api/v1/nodes/other").refused(404, "NotFound");
    node.get("/api/v1/namespaces/default/secrets/any").refused(403, "Forbidden");
    node.get("/api/v1/secrets").refused(403, "Forbidden");
    node.patch("/api/v1/nodes/boat", "merge", &json!({"metadata": {"labels": {"mine": "now"}}}))
        .refused(403, "Forbidden");
    node.post("/apis/apps/v1/namespaces/default/deployments", &json!({})).refused(403, "Forbidden");
    node.acting_as("system:admin", &[]).get(PODS).refused(403, "Forbidden");
}

/// More changes than the server keeps.
fn a_watch_from_too_long_ago_is_410(server: &Wherry) {
    let api = server.api();
    let first = api.post(CONFIGMAPS, &config("big")).ok();
    let path = format!("{CONFIGMAPS}/big");
    let filled = |number: usize| {
        let mut object = config("big");
        object["data"] = json!({"x": format!("{number}{}", "y".repeat(1_000_000))});
        api.ask("PUT", &path, "application/json", object.to_string().into_bytes())
    };
    let answers = api.many(4, (0..KEPT_MB + 4).map(filled));
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.status == 200)));
    let version = text(&first, "/metadata/resourceVersion");
    let events = api.watch(&format!("{CONFIGMAPS}?watch=1&resourceVersion={version}&timeoutSeconds=2"));
    assert_eq!(text(&events[0], "/type"), "ERROR", "{} events", events.len());
    let status = &events[0]["object"];
    assert_eq!((status["code"].as_u64(), text(status, "/reason")), (Some(410), "Expired"));
    has(text(status, "/message"), &["too old resource version"]);
    assert_eq!(events.len(), 1, "nothing follows it");
    api.delete(&path).ok();
}

fn the_server_is_well_after_all_this(server: &Wherry) {
    let api = server.api();
    assert_eq!(api.get("/livez").text(), "ok");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
