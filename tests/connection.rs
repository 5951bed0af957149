//! Which server a client command talks to, as whom and about which namespace, and what it says when it gets no answer.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use support::webhook::identity;
use support::{Wherry, prebuilt};

#[test]
fn a_server_namespace_and_context_are_chosen_as_kubectl_does() {
    let server = Wherry::start("boat");
    claims!(&server;
        flags_may_stand_before_the_subcommand,
        a_flag_that_means_nothing_is_refused,
        a_data_directory_is_a_server,
        a_context_is_chosen_by_its_name,
        images_are_listed_where_their_user_may,
    );
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

fn make(server: &Wherry, path: &str, object: &Value) {
    server.api().post(path, object).ok();
}

fn flags_may_stand_before_the_subcommand(server: &Wherry) {
    make(server, "/api/v1/namespaces", &json!({"metadata": {"name": "bay"}}));
    make(server, "/api/v1/namespaces/bay/configmaps", &json!({"metadata": {"name": "chart"}}));
    let kubeconfig = server.kubeconfig().display().to_string();
    for args in [
        &["get", "cm/chart", "-o", "name", "-n", "bay"][..],
        &["-n", "bay", "get", "cm/chart", "-o", "name"],
        &["--namespace=bay", "get", "cm/chart", "-o", "name"],
        &["-n", "nowhere", "get", "-n", "bay", "cm/chart", "-o", "name"],
        &["--kubeconfig", &kubeconfig, "-n", "bay", "get", "cm/chart", "-o", "name"],
        &["--kubeconfig", "/nonexistent", "get", "cm/chart", "-n", "bay", "-o", "name", "--kubeconfig", &kubeconfig],
    ] {
        assert_eq!(server.wherry(args).ok(), "configmap/chart\n", "{args:?}");
    }
    has(&server.wherry(&["-n", "bay", "image", "ls"]).stderr, &["No resources found in bay namespace."]);
    has(&server.wherry(&["--kubeconfig", "/nonexistent", "get", "cm"]).fails(), &["/nonexistent cannot be read"]);
    has(&server.wherry(&["--kubeconfig", "/nonexistent", "version"]).stderr, &["/nonexistent cannot be read"]);
}

fn a_flag_that_means_nothing_is_refused(server: &Wherry) {
    for args in [
        &["-n", "bay", "up", "--network", "routed"][..],
        &["up", "--network", "routed", "-n", "bay"],
        &["-n", "bay", "version"],
        &["-n", "bay", "push", "a.wasm", "wherry.local/bay/a:1"],
        &["--kubeconfig", "x", "kubeconfig"],
    ] {
        let refused = server.wherry(args);
        assert_eq!(refused.code, 2, "{refused}");
        has(&refused.fails(), &["means nothing to this subcommand"]);
    }
}

/// What `wherry up` was given names its server, whatever the environment says; not another one at the same time.
fn a_data_directory_is_a_server(server: &Wherry) {
    make(server, "/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": "found"}}));
    let data = server.data_dir().display().to_string();
    let wherry = |args: &[&str]| {
        let mut command = server.client_command(args);
        support::run::run(
            command.env("KUBECONFIG", "/nonexistent/of-another").env("WHERRY_DATA_DIR", "/nonexistent"),
            "",
        )
    };
    for args in [
        &["get", "cm/found", "-o", "name", "--data-dir", &data][..],
        &["--data-dir", &data, "get", "cm/found", "-o", "name"],
        &["--data-dir", "/nonexistent", "get", "cm/found", "-o", "name", "--data-dir", &data],
    ] {
        assert_eq!(wherry(args).ok(), "configmap/found\n", "{args:?}");
    }
    has(&wherry(&["version", "--data-dir", &data]).ok(), &["server v1."]);
    let kubeconfig = server.kubeconfig().display().to_string();
    assert_eq!(wherry(&["--data-dir", &data, "kubeconfig", "--path"]).ok().trim(), kubeconfig);
    has(&wherry(&["get", "cm"]).fails(), &["wherry up", "--data-dir", "/nonexistent/of-another"]);
    has(&wherry(&["get", "cm", "--data-dir", "/elsewhere"]).fails(), &["/elsewhere/admin.kubeconfig does not exist"]);
    for args in [
        &["get", "cm", "--data-dir", &data, "--kubeconfig", &kubeconfig][..],
        &["--data-dir", &data, "get", "cm", "--kubeconfig", &kubeconfig],
        &["--kubeconfig", &kubeconfig, "image", "ls", "--data-dir", &data],
    ] {
        let refused = wherry(args);
        assert_eq!(refused.code, 2, "{refused}");
        has(&refused.fails(), &["--kubeconfig and --data-dir cannot be used together"]);
    }
}

fn a_context_is_chosen_by_its_name(server: &Wherry) {
    make(server, "/api/v1/namespaces", &json!({"metadata": {"name": "cove"}}));
    make(server, "/api/v1/namespaces/cove/configmaps", &json!({"metadata": {"name": "map"}}));
    let mut config = kubeconfig_of(server);
    let mut context = config["contexts"][0].clone();
    context["name"] = json!("in-cove");
    context["context"]["namespace"] = json!("cove");
    config["contexts"].as_array_mut().unwrap().push(context);
    let path = server.file("contexts", config.to_string()).display().to_string();
    let get = |more: &[&str]| server.wherry(&[&["--kubeconfig", &path, "get", "cm", "-o", "name"], more].concat());
    has(&get(&["--context", "in-cove"]).ok(), &["configmap/map"]);
    assert!(!get(&[]).ok().contains("configmap/map"));
    has(&get(&["--context", "in-hell"]).fails(), &["context \"in-hell\" does not exist in ", &path]);
}

/// A user with rights in one namespace sees its images, and is told why no others.
fn images_are_listed_where_their_user_may(server: &Wherry) {
    let component = prebuilt("hello-http").display().to_string();
    make(server, "/api/v1/namespaces", &json!({"metadata": {"name": "quay"}}));
    for image in ["default/hello:v1", "quay/hello:v1", "quay/other:v2"] {
        server.wherry(&["image", "import", &component, image]).ok();
    }
    has(&server.wherry(&["image", "ls", "-A"]).ok(), &["default/hello", "quay/hello", "quay/other"]);
    let own = server.wherry(&["image", "ls"]).ok();
    assert!(own.contains("default/hello") && !own.contains("quay/"), "{own}");

    make(server, "/api/v1/namespaces/quay/serviceaccounts", &json!({"metadata": {"name": "porter"}}));
    let binding = json!({"metadata": {"name": "porter"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "porter", "namespace": "quay"}]});
    make(server, "/apis/rbac.authorization.k8s.io/v1/namespaces/quay/rolebindings", &binding);
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let token = server.api().post("/api/v1/namespaces/quay/serviceaccounts/porter/token", &request).ok();
    let mut config = kubeconfig_of(server);
    config["users"][0]["user"] = json!({"token": token["status"]["token"]});
    config["contexts"][0]["context"]["namespace"] = json!("quay");
    let path = server.file("porter", config.to_string()).display().to_string();
    let list = |more: &[&str]| server.wherry(&[&["--kubeconfig", &path, "image", "ls"], more].concat());
    let shown = list(&[]).ok();
    has(&shown, &["quay/hello", "v1", "quay/other", "v2"]);
    assert!(!shown.contains("default/"), "{shown}");
    has(&list(&["-A"]).fails(), &["images of all namespaces may not be listed by this user; -n NAMESPACE"]);
    has(&list(&["-n", "default"]).fails(), &["images of namespace default may not be listed by this user"]);
}

/// The administrator's kubeconfig as JSON.
fn kubeconfig_of(server: &Wherry) -> Value {
    serde_yaml::from_str(&std::fs::read_to_string(server.kubeconfig()).unwrap()).unwrap()
}

/// Begins with everybody who connects; its address. Ends with the test's process.
fn listening(begin: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().flatten().for_each(begin));
    address
}

/// A server that says nothing after its handshake.
fn tls(config: rustls::ServerConfig) -> SocketAddr {
    let config = Arc::new(config);
    listening(move |mut stream| {
        let mut session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        // The client may well give up.
        let _ = session.complete_io(&mut stream);
    })
}

#[test]
fn what_stands_between_a_command_and_its_server_is_told_in_plain_words() {
    let nowhere = Wherry::prepare("nowhere");
    let named = |name: &'static str| identity([name].into_iter(), |_| ());
    let (good, root) = named("127.0.0.1");
    let (_, another) = named("127.0.0.1");
    let (misnamed, of_misnamed) = named("elsewhere.example");
    let (expired, of_expired) = identity(["127.0.0.1"].into_iter(), |leaf| {
        leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(2020, 2, 1);
    });
    let (self_signed, of_self_signed) = identity(["127.0.0.1"].into_iter(), |leaf| {
        leaf.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let plain = listening(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let at = |address: SocketAddr| format!("https://{address}");
    for (name, url, ca, words) in [
        (
            "authority",
            at(tls(good)),
            &another,
            &["signed by an authority that is not trusted", "wherry kubeconfig"][..],
        ),
        ("expired", at(tls(expired)), &of_expired, &["certificate has expired", "clock"]),
        ("self-signed", at(tls(self_signed)), &of_self_signed, &["an authority's (CA:TRUE)", "cannot be a server's"]),
        ("misnamed", at(tls(misnamed)), &of_misnamed, &["certificate is for another name", "tls-server-name"]),
        ("plain", at(plain), &root, &["does not speak TLS", "check its address in the kubeconfig"]),
        ("name", "https://nowhere.invalid:6443".to_owned(), &root, &["its name cannot be resolved", "kubeconfig"]),
    ] {
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority-data": STANDARD.encode(ca)}}],
            "users": [{"name": "c", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]});
        let path = nowhere.file(name, config.to_string()).display().to_string();
        let said = nowhere.wherry(&["get", "pods", "--kubeconfig", &path]).fails();
        has(
            &said,
            &[&format!("error: the server {} (of {path}) cannot be reached: ", url.trim_start_matches("https://"))],
        );
        has(&said, words);
        for jargon in ["Connect", "invalid peer", "rustls", "hyper", "lookup", "os error"] {
            assert!(!said.contains(jargon), "{said}");
        }
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    // A registry's or a manifest's server, judged by this machine's authorities.
    let (stranger, _) = named("127.0.0.1");
    let said = nowhere.wherry(&["apply", "-f", &format!("{}/x.yaml", at(tls(stranger)))]).fails();
    has(&said, &["/x.yaml cannot be fetched: its certificate is signed by an authority that is not trusted here"]);
    assert_eq!(said.lines().count(), 1, "{said}");
}
