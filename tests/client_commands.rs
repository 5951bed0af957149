//! `wherry` without kubectl: each client command does what its help says, and says what is wrong when it cannot.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use serde_json::{Value, json};
use support::run::Following;
use support::server::text;
use support::{Wherry, eventually, http, manifest, prebuilt};

#[test]
fn every_client_command_works_against_a_server() {
    let mut server = Wherry::start("boat");
    claims!(&server;
        apply_packages_paths_and_tells_created_from_unchanged,
        apply_leaves_to_others_what_is_theirs,
        apply_reads_urls,
        apply_waits_until_what_it_made_can_be_used,
        describe_tells_everything_about_any_object,
        get_prints_the_servers_tables_and_whole_objects,
        scale_and_delete_act_and_wait,
        logs_are_streamed,
        images_are_imported_listed_inspected_and_removed,
        version_and_kubeconfig_are_printed,
    );
    a_backup_restores_the_cluster(&mut server);
}

#[test]
fn every_command_explains_itself_and_needs_no_server_for_that() {
    let nowhere = Wherry::prepare("nowhere");
    let help = nowhere.wherry(&["--help"]).ok();
    for command in [
        "up",
        "apply",
        "get",
        "describe",
        "delete",
        "logs",
        "scale",
        "push",
        "image",
        "kubeconfig",
        "backup",
        "version",
    ] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{command} "))), "{command}: {help}");
        let own = nowhere.wherry(&[command, "--help"]).ok();
        assert!(own.contains("Usage: wherry") && own.lines().all(|line| line.chars().count() <= 120), "{own}");
    }
    for flag in ["--data-dir", "--listen", "127.0.0.1:6443", "--node-name", "--network", "--filename", "--quiet"] {
        assert!(nowhere.wherry(&["up", "--help"]).ok().contains(flag), "{flag}");
    }
    let lost = nowhere.client_command(&["get", "pods"]).env_remove("KUBECONFIG").output().unwrap();
    let lost = String::from_utf8_lossy(&lost.stderr).into_owned();
    assert!(lost.contains("wherry up") && lost.contains("KUBECONFIG"), "{lost}");
    let mut lost = nowhere.client_command(&["get", "pods"]);
    let lost = lost.env_remove("KUBECONFIG").env("WHERRY_DATA_DIR", "/nonexistent/data").output().unwrap();
    has(&String::from_utf8_lossy(&lost.stderr), &["/nonexistent/data/admin.kubeconfig does not exist"]);
    let down = nowhere.file(
        "down",
        "{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}], \
         users: [{name: c, user: {token: t}}], contexts: [{name: c, context: {cluster: c, user: c}}]}",
    );
    let down = down.display().to_string();
    for command in [&["get", "pods"][..], &["version"], &["image", "ls"], &["delete", "-f", "-"]] {
        let said =
            nowhere.wherry_with(&[command, &["--kubeconfig", &down]].concat(), "{apiVersion: v1, kind: Pod}").stderr;
        let expected =
            format!("the connection to the server 127.0.0.1:1 (of {down}) was refused; is `wherry up` running?");
        assert!(said.trim_end().ends_with(&expected) && said.lines().count() == 1, "{said}");
    }
    assert!(nowhere.wherry(&["kubeconfig", "--data-dir", "/nonexistent"]).fails().contains("/nonexistent"));
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

fn apply_packages_paths_and_tells_created_from_unchanged(server: &Wherry) {
    let path = server.file("hello.yaml", manifest("hello.yaml")).display().to_string();
    let created = server.wherry(&["apply", "-f", &path]).ok();
    assert_eq!(created, "deployment.apps/hello created\nservice/hello created\n");
    assert_eq!(
        server.wherry(&["apply", "-f", &path]).ok(),
        "deployment.apps/hello unchanged\nservice/hello unchanged\n"
    );
    let changed = manifest("hello.yaml").replace("replicas: 3", "replicas: 2");
    assert_eq!(
        server.wherry_with(&["apply", "-f", "-"], &changed).ok().lines().next(),
        Some("deployment.apps/hello configured")
    );
    let image = server.wherry(&["get", "deployment/hello", "-o", "json"]).ok();
    let image: Value = serde_json::from_str(&image).unwrap();
    has(text(&image, "/spec/template/spec/containers/0/image"), &["wherry.local/default/hello-http@sha256:"]);
    eventually("it answers", || http::text(&server.url("hello")));
    let folder = server.data_dir().parent().unwrap().join("manifests");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, object) in [("b.json", "in-json"), ("a.yaml", "in-yaml")] {
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": object}});
        std::fs::write(folder.join(name), config.to_string()).unwrap();
    }
    let folder = server.wherry(&["apply", "-f", &folder.display().to_string()]).ok();
    assert_eq!(folder, "configmap/in-yaml created\nconfigmap/in-json created\n");
}

/// Server-side apply: what others set is theirs until it is taken, and what leaves the manifest goes.
fn apply_leaves_to_others_what_is_theirs(server: &Wherry) {
    let map =
        |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": data});
    let apply = |data: Value, more: &[&str]| {
        server.wherry_with(&[&["apply", "-f", "-"], more].concat(), &map(data).to_string())
    };
    let path = "/api/v1/namespaces/default/configmaps/shared";
    apply(json!({"a": "1", "b": "1"}), &[]).ok();
    let theirs = json!({"data": {"a": "2", "c": "3"}}).to_string();
    let patch = format!("{path}?fieldManager=their-tool");
    server.api().send("PATCH", &patch, "application/merge-patch+json", theirs).ok();
    let said = apply(json!({"a": "1"}), &[]).fails();
    has(&said, &["ConfigMap shared (standard input)", "  data.a   their-tool using v1", "--force-conflicts"]);
    apply(json!({}), &[]).ok();
    assert_eq!(server.api().get(path).ok()["data"], json!({"a": "2", "c": "3"}), "b left the manifest");
    let taken = apply(json!({"a": "1"}), &["--force-conflicts"]);
    assert_eq!(taken.stderr, "configmap/shared: took over data.a (from their-tool using v1)\n");
    assert_eq!(taken.ok(), "configmap/shared configured\n");
    let live = server.api().get(path).ok();
    assert_eq!(live["data"], json!({"a": "1", "c": "3"}));
    let managers: Vec<&str> =
        live["metadata"]["managedFields"].as_array().unwrap().iter().map(|entry| text(entry, "/manager")).collect();
    assert_eq!(managers, ["wherry", "their-tool"]);
    let shown = server.wherry(&["get", "cm", "shared", "-o", "yaml"]).ok();
    assert!(!shown.contains("managedFields"), "{shown}");
    assert_eq!(server.wherry_with(&["apply", "-f", "-"], &shown).ok(), "configmap/shared configured\n");
    has(&server.wherry(&["get", "cm", "shared", "-o", "yaml", "--show-managed-fields"]).ok(), &["managedFields:"]);
}

fn apply_reads_urls(server: &Wherry) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let manifest = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "from-afar"}}).to_string();
    let path = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: ./a.wasm}]}\n";
    // Ends with the test.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(&stream), &mut line).unwrap();
            let (status, body) = match line.split(' ').nth(1) {
                Some("/good.yaml") => ("200 OK", manifest.as_str()),
                Some("/path.yaml") => ("200 OK", path),
                _ => ("404 Not Found", "nothing here"),
            };
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            std::io::Write::write_all(&mut stream, answer.as_bytes()).unwrap();
        }
    });
    let apply = |name: &str| server.wherry(&["apply", "-f", &format!("http://{address}/{name}")]);
    assert_eq!(apply("good.yaml").ok(), "configmap/from-afar created\n");
    has(&apply("lost.yaml").fails(), &["/lost.yaml cannot be fetched", "404 Not Found"]);
    has(&apply("path.yaml").fails(), &["./a.wasm", "a manifest from a URL cannot name files of this machine"]);
    has(
        &server.wherry(&["delete", "-f", &format!("http://{address}/good.yaml")]).ok(),
        &["configmap/from-afar deleted"],
    );
    has(
        &server.wherry(&["apply", "-f", "http://127.0.0.1:1/x.yaml"]).fails(),
        &["x.yaml cannot be fetched", "refused"],
    );
}

/// As `wherry up -f` does: for pods, for what they make of a Service, and not for ever.
fn apply_waits_until_what_it_made_can_be_used(server: &Wherry) {
    let renamed = manifest("hello.yaml").replace(": hello\n", ": waited\n");
    let waited = server.wherry_with(&["apply", "--wait", "-f", "-"], &renamed);
    has(&waited.stderr, &["✓ pods ready"]);
    let slices =
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io/service-name=waited";
    let slices = server.api().get(slices).ok();
    assert_eq!(slices["items"][0]["endpoints"][0]["conditions"]["ready"], true, "{slices}");
    let deployment = server.api().get("/apis/apps/v1/namespaces/default/deployments/waited").ok();
    assert_eq!(deployment["status"]["readyReplicas"], 3, "{deployment}");
    server.wherry(&["delete", "deployment/waited", "service/waited"]).ok();

    let pod = |name: &str, image: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"restartPolicy": "Never",
            "containers": [{"name": "main", "image": image, "env": [{"name": "EXIT_CODE", "value": "3"}]}]}})
        .to_string()
    };
    let apply = |pod: &str| server.wherry_with(&["apply", "--wait", "--timeout", "90s", "-f", "-"], pod).fails();
    has(&apply(&pod("ends", &server.image("worker"))), &["error: pod ends"]);
    let lost = pod("lost", "wherry.local/default/lost:v1");
    let late = server.wherry_with(&["apply", "--wait", "--timeout=1", "-f", "-"], &lost).fails();
    has(&late, &["error: not ready after 1 s: lost pending"]);
    server.wherry(&["delete", "pod", "ends", "lost"]).ok();
    a_deployment_without_progress_is_not_waited_for(server);
}

/// However often it is applied; and what mends it is waited for, though it is reported still.
fn a_deployment_without_progress_is_not_waited_for(server: &Wherry) {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "missed"}, "data": {"A": "b"}});
    let container = json!({"name": "main", "image": server.image("hello-http"), "ports": [{"containerPort": 8080}],
        "envFrom": [{"configMapRef": {"name": "missed"}}]});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "stuck"}, "spec": {
        "progressDeadlineSeconds": 3, "selector": {"matchLabels": {"app": "stuck"}},
        "template": {"metadata": {"labels": {"app": "stuck"}}, "spec": {"containers": [container]}}}});
    let apply = |object: &Value| server.wherry_with(&["apply", "--wait", "-f", "-"], &object.to_string());
    for _ in 0..2 {
        let said = apply(&deployment).fails();
        let error = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        has(error, &["error: deployment stuck exceeded its progress deadline of 3 s: 0/1 ready; pod stuck-"]);
        has(error, &["CreateContainerConfigError", "missed"]);
    }
    let mut patient = deployment.clone();
    patient["spec"]["progressDeadlineSeconds"] = json!(60);
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [patient, map]});
    has(&apply(&both).stderr, &["✓ pods ready"]);
    server.wherry(&["delete", "deployment/stuck", "cm/missed"]).ok();

    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": {"pods": "0"}}});
    server.wherry_with(&["apply", "-f", "-"], &quota.to_string()).ok();
    let said = apply(&deployment).fails();
    has(&said, &["! deployment stuck: pods \"stuck-", "exceeded quota: full"]);
    let error = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    has(error, &["exceeded its progress deadline of 3 s: 0/1 ready; deployment stuck: pods", "exceeded quota: full"]);
    server.wherry(&["delete", "deployment/stuck", "resourcequota/full"]).ok();
}

fn describe_tells_everything_about_any_object(server: &Wherry) {
    let describe = |args: &[&str]| {
        let text = server.wherry(&[&["describe"], args].concat()).ok();
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect::<String>()
    };
    eventually("a Service's endpoints are told", || {
        let said = describe(&["svc", "hello"]);
        let told = said.contains("Endpoints:\nADDRESS READY TARGET\n127.") && said.contains(" yes pod/hello-");
        if told { Ok(()) } else { Err(said) }
    });
    has(
        &describe(&["deployment", "hello"]),
        &[
            "Name: hello",
            "Kind: Deployment (apps/v1)",
            "Spec:",
            "replicas: 2",
            "selector: app=hello",
            "Pods: 2 desired, 2 total, 2 updated, 2 ready, 2 available",
            "Pod template:\nlabels:\napp: hello\nContainers:\nhello:\nimage: ",
            "ReplicaSets:\nREVISION NAME DESIRED READY AGE IMAGES\n1 (new) hello-",
            "Pods:\nNAME READY STATUS RESTARTS AGE\nhello-",
            "Status:",
            "Conditions:\nTYPE STATUS FOR REASON MESSAGE\nAvailable True",
            "Events:\nTYPE REASON AGE FROM MESSAGE\n",
            "Normal ScalingReplicaSet",
        ],
    );
    has(
        &describe(&["pods", "-l", "app=hello"]),
        &[
            "Owner: ReplicaSet/hello-",
            "(controller)",
            "Containers:\nhello:\nstate: running for",
            "ready: yes",
            "restarts: 0",
            "ports: http 8080/TCP",
            "podIP:",
            "Conditions:",
            "Ready True",
            "Events:",
            "Scheduled",
            "kubelet Container created",
            "kubelet Container started",
        ],
    );
    let failing = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "failing"}, "spec": {"restartPolicy": "Never",
        "containers": [{"name": "main", "image": server.image("worker"), "env": [{"name": "EXIT_CODE", "value": "3"}]}]}});
    server.wherry_with(&["apply", "-f", "-"], &failing.to_string()).ok();
    server.pod_until("failing", "has ended", |pod| pod["status"]["phase"] == "Failed");
    has(&describe(&["pod/failing"]), &["with exit code 3 (Error", "EXIT_CODE: 3", "phase: Failed"]);
    server.wherry(&["delete", "pod", "failing"]).ok();
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"word": "hush"}});
    server.wherry_with(&["apply", "-f", "-"], &secret.to_string()).ok();
    let secret = describe(&["secret", "s"]);
    has(&secret, &["word: 4 bytes", "Events: none"]);
    assert!(!secret.contains("aHVzaA"), "{secret}");
    let node = [
        "Kind: Node (v1)",
        "Heartbeat: ",
        "beta.kubernetes.io/os=linux",
        "addresses: InternalIP 127.0.0.1, Hostname boat",
        "Ready True",
        "Resources:\nRESOURCE CAPACITY ALLOCATABLE REQUESTED LIMITS\ncpu ",
        " not ended):\nNAMESPACE NAME CPU REQUESTS CPU LIMITS MEMORY REQUESTS MEMORY LIMITS AGE\ndefault hello-",
    ];
    has(&describe(&["node", "boat"]), &node);
    has(&describe(&["namespace", "default"]), &["Quotas: none", "Limit ranges: none"]);
    has(
        &server.wherry(&["scale", "node/boat", "--replicas=1"]).fails(),
        &["node/boat cannot be scaled: nodes have no number"],
    );
    has(&server.wherry(&["describe", "pod", "nobody"]).fails(), &[r#"pods "nobody" not found"#]);
    assert_eq!(
        server.wherry(&["describe", "svc", "-l", "no=thing"]).stderr.trim(),
        "No resources found in default namespace."
    );
}

fn get_prints_the_servers_tables_and_whole_objects(server: &Wherry) {
    let table = server.wherry(&["get", "deploy"]).ok();
    assert_eq!(
        table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    );
    has(&server.wherry(&["get", "pods", "-o", "wide"]).ok(), &["IP", "NODE", "boat"]);
    has(&server.wherry(&["get", "pods,svc", "-A"]).ok(), &["NAMESPACE", "kubernetes", "hello"]);
    has(&server.wherry(&["get", "svc", "hello", "-o", "yaml"]).ok(), &["kind: Service", "nodePort:"]);
    assert_eq!(
        server.wherry(&["get", "svc", "-l", "no=thing"]).stderr.trim(),
        "No resources found in default namespace."
    );
    assert_eq!(server.wherry(&["get", "svc/hello", "-o", "name"]).ok(), "service/hello\n");
    has(&server.wherry(&["get", "pod", "nobody"]).fails(), &[r#"error: pods "nobody" not found"#]);
    has(&server.wherry(&["get", "boats"]).fails(), &[r#"doesn't have a resource type "boats""#]);
    let both = server.wherry(&["get", "svc/hello", "deploy/hello", "svc/kubernetes"]).ok();
    let names: Vec<&str> = both.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let names: Vec<&str> = names.into_iter().filter(|name| *name != "NAME").collect();
    assert_eq!(names, ["service/hello", "deployment.apps/hello", "service/kubernetes"]);
    has(&server.wherry(&["get", "deploy,svc"]).ok(), &["deployment.apps/hello", "service/kubernetes"]);
    let some = server.wherry(&["get", "svc", "nobody", "hello"]);
    has(&some.stdout, &["hello"]);
    has(&some.fails(), &[r#"error: services "nobody" not found"#]);
    assert_eq!(server.wherry(&["get", "pv"]).stderr.trim(), "No resources found");
    let template = r#"jsonpath={range .items[*]}{.metadata.name}:{.spec.type}{"\n"}{end}"#;
    assert_eq!(server.wherry(&["get", "svc", "-o", template]).ok(), "hello:NodePort\nkubernetes:ClusterIP\n");
    assert_eq!(server.wherry(&["get", "svc/hello", "-o", "jsonpath={.spec.ports[0].port}"]).ok(), "80");
    let columns = server.wherry(&["get", "svc", "-o", "custom-columns=NAME:.metadata.name,GONE:.spec.gone"]).ok();
    let rows: Vec<Vec<&str>> = columns.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows, [["NAME", "GONE"], ["hello", "<none>"], ["kubernetes", "<none>"]]);
    has(&server.wherry(&["get", "svc", "-o", "jsonpath={.items[}"]).fails(), &["jsonpath: unterminated array"]);
    has(
        &server.wherry(&["get", "svc", "-o", "go-template={{.}}"]).fails(),
        &["jsonpath=TEMPLATE", "kubectl knows more"],
    );
    let list: Value =
        serde_json::from_str(&server.wherry(&["get", "svc", "hello", "kubernetes", "-o", "json"]).ok()).unwrap();
    assert_eq!((text(&list, "/kind"), text(&list, "/items/1/metadata/name")), ("List", "kubernetes"));
    has(&server.wherry(&["get", "svc", "hello", "-o", "yaml"]).ok(), &["creationTimestamp: \""]);
    let all = server.wherry(&["get", "all"]).ok();
    has(&all, &["pod/hello-", "service/kubernetes", "deployment.apps/hello", "replicaset.apps/hello-"]);
    assert!(!all.contains("configmap/"), "{all}");
    has(&server.wherry(&["get", "all", "-w"]).fails(), &["one kind"]);
    has(&server.wherry(&["scale", "all/hello", "--replicas", "1"]).fails(), &["several kinds"]);
    let mut watching = Following::start(&mut server.client_command(&["get", "cm", "-w", "--no-headers"]));
    watching.until("the state comes first", |line| line.starts_with("in-yaml"));
    server.api().post("/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": "watched"}})).ok();
    watching.until("changes follow", |line| line.starts_with("watched"));
}

fn scale_and_delete_act_and_wait(server: &Wherry) {
    assert_eq!(server.wherry(&["scale", "deployment/hello", "--replicas", "1"]).ok(), "deployment.apps/hello scaled\n");
    eventually("one pod is left", || {
        let pods = server.wherry(&["get", "pods", "-l", "app=hello", "-o", "name"]).ok();
        if pods.lines().count() == 1 { Ok(()) } else { Err(pods) }
    });
    let live = server.api().get("/apis/apps/v1/namespaces/default/deployments/hello").ok();
    let entries = live["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let scaled = entries.iter().find(|entry| entry["subresource"] == "scale").unwrap();
    assert_eq!((text(scaled, "/manager"), text(scaled, "/operation")), ("wherry", "Update"));
    assert!(scaled["fieldsV1"]["f:spec"]["f:replicas"].is_object(), "{scaled}");
    server.wherry(&["scale", "cm/in-yaml", "--replicas", "1"]).fails();
    let many = server.wherry(&["scale", "deployment/hello", "--replicas", "2147483648"]).fails();
    has(&many, &["the number of replicas is an int32, which is at most 2147483647"]);
    let pod = server.wherry(&["get", "pods", "-l", "app=hello", "-o", "name"]).ok();
    assert_eq!(server.wherry(&["delete", pod.trim()]).ok(), format!("{} deleted\n", pod.trim()));
    has(&server.wherry(&["get", pod.trim()]).fails(), &["not found"]);
    let some = server.wherry(&["delete", "cm/nobody", "cm/in-yaml", "secret/nobody"]);
    assert_eq!(some.stdout, "configmap/in-yaml deleted\n");
    has(&some.fails(), &[r#"configmaps "nobody" not found"#, r#"secrets "nobody" not found"#]);
    has(
        &server.wherry(&["scale", "deploy/nobody", "deploy/hello", "--replicas", "1"]).fails(),
        &["\"nobody\" not found"],
    );
    let files = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: in-json}\n---\napiVersion: v1\nkind: ConfigMap\n\
        metadata: {name: nobody}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: x-}\n";
    let some = server.wherry_with(&["delete", "-f", "-"], files);
    assert_eq!(some.stdout, "configmap/in-json deleted\n");
    has(&some.fails(), &[r#"configmaps "nobody" not found"#, "metadata.generateName"]);
    server.wherry(&["delete", "cm", "nobody", "--ignore-not-found"]).ok();
    for name in ["first", "second", "third"] {
        let labels = json!({"go": (name != "third").to_string()});
        let object = json!({"metadata": {"name": name, "labels": labels}});
        server.api().post("/api/v1/namespaces/default/configmaps", &object).ok();
    }
    let selected = server.wherry(&["delete", "cm,secrets", "-l", "go=true"]).ok();
    assert_eq!(selected, "configmap/first deleted\nconfigmap/second deleted\n");
    assert_eq!(server.wherry(&["delete", "cm", "-l", "go=true"]).stderr.trim(), "No resources found");
    for wrong in [&["delete", "cm"][..], &["delete", "cm", "third", "-l", "go=false"]] {
        has(&server.wherry(wrong).fails(), &["-l"]);
    }
    has(&server.wherry(&["delete", "cm", "third", "--all"]).fails(), &["leave out the names, or --all"]);
    server.wherry(&["get", "cm", "third"]).ok();
    server.api().post("/api/v1/namespaces/default/secrets", &json!({"metadata": {"name": "last"}})).ok();
    has(&server.wherry(&["delete", "secrets", "--all"]).ok(), &["secret/last deleted"]);
    has(&server.wherry(&["get", "secret", "last"]).fails(), &["not found"]);
}

fn logs_are_streamed(server: &Wherry) {
    let worker = manifest("worker.yaml").replace("LINES: \"5\"", "LINES: \"20\"");
    server.wherry_with(&["apply", "-f", "-"], &worker).ok();
    server.pod_until("worker", "runs", |pod| pod["status"]["phase"] != "Pending");
    let mut following = Following::start(&mut server.client_command(&["logs", "-f", "worker"]));
    assert_eq!(following.to_end(), 0);
    assert_eq!(following.seen.len(), 21, "{:?}", following.seen);
    assert_eq!(server.wherry(&["logs", "pod/worker", "--tail", "1"]).ok(), "done\n");
    assert_eq!(server.wherry(&["logs", "worker", "--tail", "-1"]).ok().lines().count(), 21);
    has(&server.wherry(&["logs", "worker", "--tail", "x"]).fails(), &["it is not a number of lines"]);
    has(&server.wherry(&["logs", "nobody"]).fails(), &[r#"pods "nobody" not found"#]);
    let pod = eventually("its one pod is there", || {
        let pods = server.wherry(&["get", "pods", "-l", "app=hello", "-o", "name"]).ok();
        if pods.lines().count() == 1 { Ok(pods.trim().to_owned()) } else { Err(pods) }
    });
    server.pod_ready(pod.trim_start_matches("pod/"));
    for target in ["deployment/hello", "svc/hello"] {
        let shown = server.wherry(&["logs", target]);
        assert_eq!(shown.stderr, format!("Found 1 pod, using {pod}\n"), "{shown}");
        assert_eq!(shown.ok(), server.wherry(&["logs", &pod]).ok());
    }
    let containers = json!([{"name": "front", "image": server.image("hello-http")},
        {"name": "worker", "image": server.image("worker"), "args": ["second"]}]);
    server.apply(&[json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pair"},
        "spec": {"containers": containers, "restartPolicy": "Never"}})]);
    server.pod_until("pair", "has one container that ended", |pod| pod["status"].to_string().contains("Completed"));
    let first = server.wherry(&["logs", "pair"]);
    assert_eq!(
        (first.stdout.as_str(), first.stderr.as_str()),
        ("", "Defaulted container \"front\" out of: front, worker\n")
    );
    has(&server.wherry(&["logs", "pair", "-c", "worker"]).ok(), &["1/3 second"]);
    has(&server.wherry(&["logs", "deployment/nobody"]).fails(), &[r#"deployments.apps "nobody" not found"#]);
    has(&server.wherry(&["logs", "cm/kube-root-ca.crt"]).fails(), &["configmap/kube-root-ca.crt selects no pods"]);
    server.wherry_with(&["delete", "-f", "-"], &worker).ok();
    has(&server.wherry(&["get", "pod", "worker"]).fails(), &["not found"]);
}

fn images_are_imported_listed_inspected_and_removed(server: &Wherry) {
    let path = prebuilt("hello-http-p3").display().to_string();
    let name = server.wherry(&["image", "import", &path]).ok();
    has(&name, &["wherry.local/default/hello-http-p3@sha256:"]);
    let pushed = server.wherry(&["push", &path, "wherry.local/default/p3:v2"]).ok();
    assert_eq!(pushed.split('@').nth(1), name.split('@').nth(1), "the same component is the same image");
    let list = server.wherry(&["image", "ls"]).ok();
    has(&list, &["REPOSITORY", "DIGEST", "default/p3", "v2", "default/hello-http-p3"]);
    let inspected: Value = serde_json::from_str(&server.wherry(&["image", "inspect", "default/p3:v2"]).ok()).unwrap();
    assert_eq!(text(&inspected, "/manifest/config/mediaType"), "application/vnd.wasm.config.v0+json");
    server.wherry(&["image", "rm", "default/p3:v2"]).ok();
    assert!(!server.wherry(&["image", "ls"]).ok().contains("default/p3"));
    let unknown = server.wherry(&["image", "inspect", "p3:v2"]).fails();
    let absent = "wherry.local/default/p3:v2 is not in the cluster's registry; `wherry image ls` lists what is";
    assert_eq!(unknown.trim(), format!("error: {absent}"));
    has(&server.wherry(&["image", "rm", "p3:v2"]).fails(), &[absent]);
    has(&server.wherry(&["image", "inspect", "hello-http-p3"]).ok(), &["wherry.local/default/hello-http-p3"]);
    let notes = server.file("notes.txt", "buy rope").display().to_string();
    has(&server.wherry(&["image", "import", &notes]).fails(), &["notes.txt", "not WebAssembly"]);
    has(&server.wherry(&["push", "/nonexistent.wasm", "wherry.local/default/x:1"]).fails(), &["/nonexistent.wasm"]);
    has(&server.wherry(&["push", &path, "wherry.local/nowhere/x:1"]).fails(), &["namespaces \"nowhere\" not found"]);
    has(&server.wherry(&["push", &path, "Not A Name"]).fails(), &["Not A Name", "not an image reference"]);
}

fn version_and_kubeconfig_are_printed(server: &Wherry) {
    let version = server.wherry(&["version"]).ok();
    has(&version, &[&format!("wherry {}", env!("CARGO_PKG_VERSION")), "server v1.36"]);
    let data = server.data_dir().display().to_string();
    let printed = server.wherry(&["kubeconfig", "--data-dir", &data]).ok();
    assert_eq!(printed, std::fs::read_to_string(server.kubeconfig()).unwrap());
    let path = server.wherry(&["kubeconfig", "--path", "--data-dir", &data]).ok();
    assert_eq!(path.trim(), server.kubeconfig().display().to_string());
}

/// The copy is taken while the server runs; what came later is gone after it is put in place.
fn a_backup_restores_the_cluster(server: &mut Wherry) {
    has(&server.wherry(&["backup", "--help"]).ok(), &["DATA-DIR/state/state.redb"]);
    let backup = server.data_dir().parent().unwrap().join("copy.redb");
    let api = server.api();
    let make =
        |name: &str| api.post("/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": name}})).ok();
    make("before");
    server.wherry(&["backup", &backup.display().to_string()]).ok();
    make("after");
    has(&server.wherry(&["backup", &backup.display().to_string()]).fails(), &["copy.redb"]);
    server.kill();
    std::fs::copy(&backup, server.data_dir().join("state/state.redb")).unwrap();
    server.up(&["--quiet"]);
    let names = server.wherry(&["get", "cm", "-o", "name"]).ok();
    assert!(names.contains("configmap/before") && !names.contains("configmap/after"), "{names}");
}
