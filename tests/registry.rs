//! Images come from any registry: pushed by `wherry push`, pulled by tag and by digest, with and without credentials; and
//! what is wrong with an image is said in words that help.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use serde_json::{Value, json};
use support::registry::{PASSWORD, Registry, layout};
use support::server::{pod, text};
use support::{Wherry, eventually, prebuilt, run};

struct Harbour {
    server: Wherry,
    open: Registry,
    closed: Registry,
}

#[test]
fn images_come_from_a_registry() {
    needs!("kubectl", "docker-registry", "htpasswd", "skopeo");
    let harbour =
        Harbour { server: Wherry::start("harbour"), open: Registry::start(false), closed: Registry::start(true) };
    claims!(&harbour;
        a_pushed_component_is_pulled_by_tag_and_by_digest,
        a_push_needs_the_registrys_password,
        a_pull_needs_the_secret_and_says_so,
        a_private_image_that_is_here_is_run_for_those_who_may_pull_it,
        an_image_from_dockers_tools_runs_with_its_files,
        what_is_missing_or_unreachable_is_named,
        a_blob_that_does_not_match_its_digest_is_not_run,
        what_is_not_wasm_is_refused_with_a_reason,
        an_import_that_nobody_provides_is_named_in_an_event,
    );
}

/// `wherry push` with these credentials.
fn push(harbour: &Harbour, path: &str, to: &str, password: Option<&str>) -> run::Output {
    let mut command = harbour.server.client_command(&["push", path, to]);
    if let Some(password) = password {
        command.env("DOCKER_CONFIG", harbour.closed.docker_config(password));
    }
    run::run(&mut command, "")
}

fn component(name: &str) -> String {
    prebuilt(name).display().to_string()
}

/// Waits until the only container waits for this reason; returns the message.
#[track_caller]
fn waiting(server: &Wherry, name: &str, reasons: &[&str], words: &[&str]) -> String {
    let state = |pod: &Value| pod.pointer("/status/containerStatuses/0/state/waiting").cloned().unwrap_or_default();
    let pod = server.pod_until(name, &format!("waits with {reasons:?} and says {words:?}"), |pod| {
        let waiting = state(pod);
        let message = text(&waiting, "/message");
        reasons.contains(&text(&waiting, "/reason")) && words.iter().all(|word| message.contains(word))
    });
    text(&state(&pod), "/message").to_owned()
}

fn a_pushed_component_is_pulled_by_tag_and_by_digest(harbour: &Harbour) {
    let (server, name) = (&harbour.server, format!("{}/team/hello:v1", harbour.open.host));
    let pushed = push(harbour, &component("hello-http"), &name, None).ok();
    let (repository, digest) = pushed.trim().split_once('@').expect("the name by digest is printed");
    assert!(repository.starts_with(&harbour.open.host) && digest.starts_with("sha256:"), "{pushed}");
    let by_digest = format!("{}/team/hello@{digest}", harbour.open.host);
    server.apply(&[pod("by-tag", &name, json!({}), json!({})), pod("by-digest", &by_digest, json!({}), json!({}))]);
    for name in ["by-tag", "by-digest"] {
        let ready = server.pod_ready(name);
        assert!(text(&ready, "/status/containerStatuses/0/imageID").ends_with(digest), "{:#}", ready["status"]);
    }
    server.event_until("by-tag", &["Successfully pulled image", &name]);
    // A tag that moves is asked for again with `Always`.
    let moved = push(harbour, &component("misbehave-http"), &name, None).ok();
    server.apply(&[pod("moved", &name, json!({"imagePullPolicy": "Always"}), json!({}))]);
    assert!(moved.trim().ends_with(
        text(&server.pod_ready("moved"), "/status/containerStatuses/0/imageID").rsplit('@').next().unwrap()
    ));
}

fn a_push_needs_the_registrys_password(harbour: &Harbour) {
    let name = format!("{}/team/private:v1", harbour.closed.host);
    let folder = tempfile::tempdir().unwrap();
    let wrong = harbour.closed.docker_config("wrong").display().to_string();
    let try_with = |folder: &str| {
        let mut command = harbour.server.client_command(&["push", &component("hello-http"), &name]);
        run::run(command.env("DOCKER_CONFIG", folder), "").fails()
    };
    let empty = folder.path().display().to_string();
    let missing = format!("{empty}/config.json does not exist");
    for (folder, said) in [(&wrong, format!("refused the credentials of {wrong}/config.json")), (&empty, missing)] {
        let refused = try_with(folder);
        assert!(refused.contains("unauthorized: authentication required") && refused.contains(&said), "{refused}");
        assert!(refused.contains(&harbour.closed.host), "{refused}");
        assert!(!refused.contains("pull access denied") && !refused.contains("imagePullSecret"), "{refused}");
    }
    std::fs::write(folder.path().join("config.json"), r#"{"auths": {}, "credsStore": "desktop"}"#).unwrap();
    assert!(try_with(&empty).contains("names the credsStore \"desktop\", which Wherry does not run"));
    std::fs::write(folder.path().join("config.json"), "{").unwrap();
    assert!(try_with(&empty).contains(&format!("{empty}/config.json is not a Docker config file")));
    push(harbour, &component("hello-http"), &name, Some(PASSWORD)).ok();
}

fn a_pull_needs_the_secret_and_says_so(harbour: &Harbour) {
    let (server, name) = (&harbour.server, format!("{}/team/secret:v1", harbour.closed.host));
    push(harbour, &component("hello-http"), &name, Some(PASSWORD)).ok();
    for (secret, password) in [("right", PASSWORD), ("wrong", "nonsense")] {
        let config = std::fs::read_to_string(harbour.closed.docker_config(password).join("config.json")).unwrap();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}, "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": config},
        });
        server.apply(&[secret]);
    }
    let elsewhere = json!({"auths": {"ghcr.io": {"auth": "YTpi"}}}).to_string();
    for (secret, type_) in [("elsewhere", "kubernetes.io/dockerconfigjson"), ("opaque", "Opaque")] {
        server.apply(&[json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}, "type": type_,
            "stringData": {".dockerconfigjson": elsewhere},
        })]);
    }
    let with = |secret: &str| json!({"imagePullSecrets": [{"name": secret}]});
    server.apply(&[
        pod("no-secret", &name, json!({}), json!({})),
        pod("wrong-secret", &name, json!({}), with("wrong")),
        pod("lost-secret", &name, json!({}), with("lost")),
        pod("other-type", &name, json!({}), with("opaque")),
        pod("other-host", &name, json!({}), with("elsewhere")),
    ]);
    let no_access = "repository does not exist or may require authorization";
    for (pod, said) in [
        ("no-secret", [no_access, "the pod has no imagePullSecrets"]),
        (
            "wrong-secret",
            ["unauthorized: authentication required", "refused the credentials of imagePullSecret \"wrong\""],
        ),
        ("lost-secret", [no_access, "imagePullSecret \"lost\" cannot be read"]),
        ("other-type", [no_access, "imagePullSecret \"opaque\" is of type Opaque, not kubernetes.io/dockerconfigjson"]),
        ("other-host", [no_access, "imagePullSecret \"elsewhere\" has entries for ghcr.io"]),
    ] {
        waiting(server, pod, &["ErrImagePull", "ImagePullBackOff"], &["team/secret"]);
        let events = server.event_until(pod, &["Warning Failed", said[0], said[1]]);
        assert!(!events.contains("nonsense"), "a password is never shown: {events}");
        server.event_until(pod, &["BackOff", "Back-off pulling image"]);
    }
    server.event_until("lost-secret", &["FailedToRetrieveImagePullSecret", "lost"]);
    server.apply(&[pod("right-secret", &name, json!({}), with("right"))]);
    server.pod_ready("right-secret");
}

fn a_private_image_that_is_here_is_run_for_those_who_may_pull_it(harbour: &Harbour) {
    let (server, name) = (&harbour.server, format!("{}/team/secret:v1", harbour.closed.host));
    let right = json!({"imagePullSecrets": [{"name": "right"}]});
    server.apply(&[pod("first", &name, json!({}), right.clone())]);
    server.pod_ready("first");
    server.apply(&[
        pod("borrower", &name, json!({}), json!({})),
        pod("pretender", &name, json!({}), json!({"imagePullSecrets": [{"name": "wrong"}]})),
        pod("quiet-borrower", &name, json!({"imagePullPolicy": "Never"}), json!({})),
        pod("second", &name, json!({"imagePullPolicy": "Never"}), right),
    ]);
    for (pod, said) in
        [("borrower", "the pod has no imagePullSecrets"), ("pretender", "refused the credentials of imagePullSecret")]
    {
        server.event_until(pod, &["Warning Failed", said]);
        waiting(server, pod, &["ErrImagePull", "ImagePullBackOff"], &["team/secret"]);
    }
    waiting(server, "quiet-borrower", &["ErrImageNeverPull"], &["not present with pull policy of Never"]);
    server.pod_ready("second");
    server.event_until("second", &["already present on machine and can be accessed by the pod"]);
}

fn an_image_from_dockers_tools_runs_with_its_files(harbour: &Harbour) {
    let server = &harbour.server;
    let folder = tempfile::tempdir().unwrap();
    let wasm = std::fs::read(prebuilt("worker")).unwrap();
    layout(folder.path(), ("wasi", "wasm"), &["/app.wasm", "hello from Docker"], &[("app.wasm", &wasm)]);
    let name = format!("{}/docker/worker:1", harbour.open.host);
    let mut copy = std::process::Command::new("skopeo");
    copy.args(["--insecure-policy", "copy", "--dest-tls-verify=false", &format!("oci:{}:1", folder.path().display())]);
    run::run(copy.arg(format!("docker://{name}")), "").ok();
    server.apply(&[pod("docker", &name, json!({}), json!({"restartPolicy": "Never"}))]);
    server.pod_until("docker", "ends", |pod| pod["status"]["phase"] == "Succeeded");
    assert!(server.kubectl(&["logs", "docker"]).ok().starts_with("1/3 hello from Docker\n"));
}

fn what_is_missing_or_unreachable_is_named(harbour: &Harbour) {
    let (server, missing) = (&harbour.server, format!("{}/team/nothing:v1", harbour.open.host));
    server.apply(&[
        pod("missing", &missing, json!({}), json!({})),
        pod("unreachable", "127.0.0.1:1/team/app:v1", json!({}), json!({})),
        pod("unnameable", "Not A Name", json!({}), json!({})),
        pod("never", &missing, json!({"imagePullPolicy": "Never"}), json!({})),
    ]);
    server.event_until("missing", &["Failed to pull image", &missing, "not found"]);
    server.event_until("unreachable", &["127.0.0.1:1", "cannot be reached"]);
    waiting(server, "unnameable", &["InvalidImageName"], &["Not A Name"]);
    assert!(!server.events("unnameable").contains("Pulling"), "nothing is pulled that has no name");
    waiting(server, "never", &["ErrImageNeverPull"], &["not present with pull policy of Never"]);
}

fn a_blob_that_does_not_match_its_digest_is_not_run(harbour: &Harbour) {
    let name = format!("{}/team/corrupt:v1", harbour.open.host);
    push(harbour, &component("guestbook-filter"), &name, None).ok();
    let manifest = support::http::send(
        "GET",
        &format!("http://{}/v2/team/corrupt/manifests/v1", harbour.open.host),
        &[("accept", "application/vnd.oci.image.manifest.v1+json")],
        bytes::Bytes::new(),
    );
    let manifest: Value = serde_json::from_slice(&manifest.unwrap().body).unwrap();
    harbour.open.corrupt(text(&manifest, "/layers/0/digest"));
    harbour.server.apply(&[pod("corrupt", &name, json!({}), json!({}))]);
    harbour.server.event_until("corrupt", &["digest mismatch", text(&manifest, "/layers/0/digest")]);
    waiting(&harbour.server, "corrupt", &["ErrImagePull", "ImagePullBackOff"], &["corrupt"]);
}

fn what_is_not_wasm_is_refused_with_a_reason(harbour: &Harbour) {
    let server = &harbour.server;
    let notes = server.file("notes.txt", "buy rope").display().to_string();
    let refused = push(harbour, &notes, &format!("{}/team/notes:1", harbour.open.host), None).fails();
    assert!(refused.contains("notes.txt") && refused.contains("not WebAssembly"), "{refused}");

    let config = (
        "application/vnd.wasm.config.v0+json",
        &br#"{"created":"2026-01-01T00:00:00Z","architecture":"wasm","os":"wasip2","layerDigests":[]}"#[..],
    );
    let text_image = harbour.open.put("team/text", config, &[("application/wasm", b"buy rope")]);
    let spin = harbour.open.put("team/other", config, &[("application/x-unheard-of", b"?")]);
    let linux = br#"{"os":"linux","architecture":"amd64","config":{"Entrypoint":["/bin/sh"]},"rootfs":{"type":"layers","diff_ids":[]}}"#;
    let linux =
        String::from_utf8_lossy(linux).replace("amd64", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
    let native = harbour.open.put("team/native", ("application/vnd.oci.image.config.v1+json", linux.as_bytes()), &[]);
    let windows = linux.replace("linux", "windows");
    let windows =
        harbour.open.put("team/windows", ("application/vnd.oci.image.config.v1+json", windows.as_bytes()), &[]);
    server.apply(&[
        pod("text", &text_image, json!({}), json!({})),
        pod("other", &spin, json!({}), json!({})),
        pod("native", &native, json!({}), json!({})),
        pod("windows", &windows, json!({}), json!({})),
    ]);
    server.event_until("text", &["Failed", &text_image, "not WebAssembly"]);
    server.event_until("other", &["Failed", &spin, "application/x-unheard-of"]);
    server.event_until("native", &["Failed", &native, "is a Linux image, not Wasm", "docs/conformance.md"]);
    server.event_until("windows", &["Failed", &windows, "windows"]);
}

fn an_import_that_nobody_provides_is_named_in_an_event(harbour: &Harbour) {
    let component = wat::parse_str(
        r#"(component
            (import "harbour:crane/lift@1.0.0" (instance (export "up" (func))))
            (core module $m (func (export "run") (result i32) i32.const 0))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance (export "wasi:cli/run@0.2.0") (export "run" (func $run))))"#,
    );
    let path = harbour.server.file("crane.wasm", component.unwrap()).display().to_string();
    let name = format!("{}/team/crane:1", harbour.open.host);
    push(harbour, &path, &name, None).ok();
    harbour.server.apply(&[pod("crane", &name, json!({}), json!({}))]);
    harbour.server.event_until("crane", &["Warning", "component imports harbour:crane/lift@1.0.0"]);
    eventually("the status names it too", || {
        let status = harbour.server.pod("crane")["status"].to_string();
        if status.contains("harbour:crane/lift@1.0.0") { Ok(()) } else { Err(status) }
    });
}
