//! Who may what, as a person with kubectl sees it: roles and kubeconfigs, impersonation, tokens, certificates, and Secrets that
//! nobody reads from the disk.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use support::{Wherry, eventually};

#[test]
fn kubectl_grants_checks_and_certifies() {
    needs!("kubectl");
    let server = Wherry::start("guard");
    claims!(&server;
        the_administrator_may_everything_and_says_why,
        a_service_account_with_a_kubeconfig_does_what_its_role_allows,
        who_has_less_grants_no_more,
        somebody_else_is_acted_as,
        a_certificate_is_asked_for_approved_and_used,
        a_token_secret_is_filled_and_dies_with_its_account,
        a_bootstrap_token_is_a_user_until_it_ends,
        a_review_asks_with_the_selector_that_it_names,
        aggregated_roles_follow_the_roles_they_choose,
    );
}

fn the_administrator_may_everything_and_says_why(server: &Wherry) {
    assert_eq!(server.kubectl(&["auth", "can-i", "delete", "nodes"]).ok().trim(), "yes");
    let list = server.kubectl(&["auth", "can-i", "--list"]).ok();
    assert!(list.contains("*.*") && list.contains("selfsubjectrulesreviews.authorization.k8s.io"), "{list}");
}

fn a_service_account_with_a_kubeconfig_does_what_its_role_allows(server: &Wherry) {
    server.kubectl(&["create", "serviceaccount", "robot"]).ok();
    let role = ["create", "role", "reader", "--verb=get,list", "--resource=configmaps"];
    server.kubectl(&role).ok();
    server.kubectl(&["create", "rolebinding", "robot", "--role=reader", "--serviceaccount=default:robot"]).ok();
    let token = server.kubectl(&["create", "token", "robot", "--duration=20m"]).ok();
    let kubeconfig = with_user(server, &json!({"token": token.trim()}), "robot");
    let run = |args: &[&str]| server.kubectl(&[&["--kubeconfig", kubeconfig.as_str()], args].concat());
    assert!(run(&["get", "configmaps", "-o", "name"]).ok().contains("configmap/kube-root-ca.crt"));
    assert!(run(&["auth", "whoami"]).ok().contains("system:serviceaccount:default:robot"));
    let said = run(&["get", "secrets"]).fails();
    let wanted = r#"secrets is forbidden: User "system:serviceaccount:default:robot" cannot list resource "secrets" in API group "" in the namespace "default""#;
    assert!(said.contains(wanted), "{said}");
    for args in [&["get", "configmaps", "-A"][..], &["delete", "configmap", "kube-root-ca.crt"]] {
        assert!(run(args).fails().contains("is forbidden"), "{args:?}");
    }
    assert!(run(&["auth", "can-i", "list", "configmaps"]).ok().contains("yes"));
    assert!(run(&["get", "--raw", "/.well-known/openid-configuration"]).ok().contains("jwks_uri"));
    assert!(run(&["get", "--raw", "/openid/v1/jwks"]).ok().contains("ES256"));
    server.kubectl(&["delete", "serviceaccount", "robot"]).ok();
    assert!(run(&["get", "configmaps"]).fails().contains("must be logged in"));
}

fn who_has_less_grants_no_more(server: &Wherry) {
    let grant = ["create", "rolebinding", "chief", "--clusterrole=admin", "--user=chief"];
    server.kubectl(&grant).ok();
    let chief = |args: &[&str]| server.kubectl(&[&["--as=chief"], args].concat());
    chief(&["create", "role", "pods", "--verb=get,delete", "--resource=pods"]).ok();
    chief(&["create", "rolebinding", "more", "--clusterrole=edit", "--user=joe"]).ok();
    let said = chief(&["create", "role", "nodes", "--verb=delete", "--resource=resourcequotas"]).fails();
    assert!(said.contains("is attempting to grant RBAC permissions not currently held"), "{said}");
    assert!(said.contains(r#"{APIGroups:[""], Resources:["resourcequotas"], Verbs:["delete"]}"#), "{said}");
    let said = chief(&["create", "rolebinding", "most", "--clusterrole=cluster-admin", "--user=joe"]).fails();
    assert!(said.contains("not currently held"), "{said}");
}

fn somebody_else_is_acted_as(server: &Wherry) {
    let said = server.kubectl(&["get", "pods", "--as=nobody"]).fails();
    assert!(said.contains(r#"User "nobody" cannot list resource "pods""#), "{said}");
    let who = server.kubectl(&["auth", "whoami", "--as=jane", "--as-group=devs", "-o", "json"]).ok();
    let who: Value = serde_json::from_str(&who).unwrap();
    assert_eq!(who["status"]["userInfo"]["username"], "jane");
    assert!(who["status"]["userInfo"]["groups"].as_array().unwrap().contains(&json!("devs")));
    let said = server.kubectl(&["auth", "can-i", "list", "pods", "--as=nobody"]);
    assert!(said.code == 1 && said.stdout.trim() == "no", "{said}");
}

fn a_certificate_is_asked_for_approved_and_used(server: &Wherry) {
    if support::missing("openssl") {
        return;
    }
    let (key, request) = (server.file("jane.key", ""), server.file("jane.csr", ""));
    let (key, request) = (key.display().to_string(), request.display().to_string());
    let made = std::process::Command::new("openssl")
        .args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-keyout", &key, "-out", &request, "-subj", "/O=readers/O=writers/CN=jane"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let object = |name: &str| {
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
            "spec": {"signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
                "expirationSeconds": 3600, "request": STANDARD.encode(fs::read(&request).unwrap())}})
    };
    server.apply(&[object("jane"), object("joe")]);
    let said = server.kubectl(&["certificate", "approve", "jane", "--as=nobody"]).fails();
    assert!(said.contains("forbidden"), "{said}");
    server.kubectl(&["certificate", "approve", "jane"]).ok();
    server.kubectl(&["certificate", "deny", "joe"]).ok();
    let certificate = eventually("the certificate is issued", || {
        let text = server.kubectl(&["get", "csr", "jane", "-o", "jsonpath={.status.certificate}"]).ok();
        if text.is_empty() { Err(server.kubectl(&["get", "csr", "-o", "yaml"]).ok()) } else { Ok(text) }
    });
    let table = server.kubectl(&["get", "csr"]).ok();
    assert!(table.contains("Approved,Issued") && table.contains("Denied"), "{table}");
    let user =
        json!({"client-certificate-data": certificate, "client-key-data": STANDARD.encode(fs::read(&key).unwrap())});
    let kubeconfig = with_user(server, &user, "jane");
    let who = server.kubectl(&["--kubeconfig", &kubeconfig, "auth", "whoami", "-o", "json"]).ok();
    let who: Value = serde_json::from_str(&who).unwrap();
    assert_eq!(who["status"]["userInfo"]["username"], "jane");
    assert_eq!(who["status"]["userInfo"]["groups"], json!(["readers", "writers", "system:authenticated"]));
}

fn a_token_secret_is_filled_and_dies_with_its_account(server: &Wherry) {
    server.kubectl(&["create", "serviceaccount", "old"]).ok();
    server.apply(&[json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "old-token", "annotations": {"kubernetes.io/service-account.name": "old"}}})]);
    let token = eventually("the Secret is filled", || {
        let text = server.kubectl(&["get", "secret", "old-token", "-o", "jsonpath={.data.token}"]).ok();
        let token = String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
        if token.is_empty() { Err("no token".to_owned()) } else { Ok(token) }
    });
    let kubeconfig = with_user(server, &json!({ "token": token }), "old");
    let who = server.kubectl(&["--kubeconfig", &kubeconfig, "auth", "whoami"]).ok();
    assert!(who.contains("system:serviceaccount:default:old"), "{who}");
    server.kubectl(&["delete", "serviceaccount", "old"]).ok();
    eventually("the Secret goes with its account", || {
        let left = server.kubectl(&["get", "secrets", "-o", "name"]).ok();
        if left.contains("old-token") { Err(left) } else { Ok(()) }
    });
    assert!(server.kubectl(&["--kubeconfig", &kubeconfig, "auth", "whoami"]).fails().contains("logged in"));
}

fn a_bootstrap_token_is_a_user_until_it_ends(server: &Wherry) {
    let secret = |id: &str, expiration: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
            "stringData": {"token-id": id, "token-secret": "0123456789abcdef", "expiration": expiration,
                "usage-bootstrap-authentication": "true", "auth-extra-groups": "system:bootstrappers:machines"}})
    };
    server.apply(&[secret("abcdef", "2999-01-01T00:00:00Z"), secret("fedcba", "2001-01-01T00:00:00Z")]);
    let who = |token: &str| {
        let kubeconfig = with_user(server, &json!({ "token": token }), "machine");
        server.kubectl(&["--kubeconfig", &kubeconfig, "auth", "whoami", "-o", "json"])
    };
    let groups: Value = serde_json::from_str(&who("abcdef.0123456789abcdef").ok()).unwrap();
    let wanted = json!(["system:bootstrappers", "system:bootstrappers:machines", "system:authenticated"]);
    assert_eq!(groups["status"]["userInfo"]["groups"], wanted);
    who("abcdef.0123456789abcdee").fails();
    who("fedcba.0123456789abcdef").fails();
    eventually("the ended token is removed", || {
        let left = server.kubectl(&["get", "secrets", "-n", "kube-system", "-o", "name"]).ok();
        if left.contains("fedcba") { Err(left) } else { Ok(()) }
    });
}

fn a_review_asks_with_the_selector_that_it_names(server: &Wherry) {
    let may = |attributes: Value| {
        let spec = json!({"user": "system:node:far", "groups": ["system:nodes"], "resourceAttributes": attributes});
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        let answer = server.api().post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).ok();
        answer["status"]["allowed"] == true
    };
    let of = |node: &str| json!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": [node]}]});
    assert!(may(json!({"verb": "list", "resource": "pods", "fieldSelector": of("far")})));
    assert!(!may(json!({"verb": "list", "resource": "pods", "fieldSelector": of("near")})));
    assert!(!may(json!({"verb": "list", "resource": "pods"})));
}

fn aggregated_roles_follow_the_roles_they_choose(server: &Wherry) {
    // kubectl asks only of resources that are served.
    let attributes = json!({"namespace": "default", "verb": "list", "group": "example.com", "resource": "boats"});
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": "chief", "resourceAttributes": attributes}});
    let may =
        || server.api().post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).ok()["status"].clone();
    assert_eq!(may()["allowed"], false);
    server.apply(&[json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "boats", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"apiGroups": ["example.com"], "resources": ["boats"], "verbs": ["list"]}]})]);
    eventually("admin includes it through edit and view", || {
        let status = may();
        if status["allowed"] == true { Ok(()) } else { Err(status.to_string()) }
    });
}

/// A kubeconfig of this server for another user.
fn with_user(server: &Wherry, user: &Value, name: &str) -> String {
    let text = fs::read_to_string(server.kubeconfig()).unwrap();
    let mut config: Value = serde_yaml::from_str(&text).unwrap();
    config["users"][0]["user"] = user.clone();
    server.file(&format!("{name}.kubeconfig"), config.to_string()).display().to_string()
}

const OLD: &str = "{name: old, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}";
const NEW: &str = "{name: new, secret: eHEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}";

fn encryption(keys: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  \
         providers:\n  - aesgcm: {{keys: [{keys}]}}\n  - identity: {{}}\n"
    )
}

#[test]
fn secrets_are_sealed_on_disk_in_history_and_in_backups_and_keys_rotate() {
    needs!("kubectl");
    let mut server = Wherry::prepare("vault");
    let file = server.file("encryption.yaml", encryption(OLD)).display().to_string();
    let with = ["--quiet", "--encryption-config", &file];
    server.up(&with);
    for value in ["first-hush-hush", "second-hush-hush"] {
        let text = format!("--from-literal=word={value}");
        let made = ["create", "secret", "generic", "word", &text, "--dry-run=client", "-o", "json"];
        server.kubectl_with(&["apply", "-f", "-"], &server.kubectl(&made).ok()).ok();
    }
    server.kubectl(&["create", "configmap", "plain", "--from-literal=word=not-sealed"]).ok();
    let backup = server.data_dir().join("copy.backup");
    server.wherry(&["backup", &backup.display().to_string()]).ok();
    assert!(server.interrupt().0.success());
    for place in [server.data_dir().join("state"), backup] {
        let bytes = all_bytes(&place);
        for word in ["first-hush-hush", "second-hush-hush", "Zmlyc3QtaHVzaC1odXNo", "c2Vjb25kLWh1c2gtaHVzaA"] {
            assert!(!holds(&bytes, word), "{word} is readable in {}", place.display());
        }
        assert!(holds(&bytes, "k8s:enc:aesgcm:v1:old:") && holds(&bytes, "not-sealed"), "{}", place.display());
    }

    // A new key writes, the old one is still read; replacing everything turns it over.
    fs::write(&file, encryption(&format!("{NEW}, {OLD}"))).unwrap();
    server.up(&with);
    let word = |server: &Wherry| server.kubectl(&["get", "secret", "word", "-o", "jsonpath={.data.word}"]).ok();
    assert_eq!(word(&server), STANDARD.encode("second-hush-hush"));
    let all = server.kubectl(&["get", "secrets", "-A", "-o", "json"]).ok();
    server.kubectl_with(&["replace", "-f", "-"], &all).ok();
    assert!(server.interrupt().0.success());
    fs::write(&file, encryption(NEW)).unwrap();
    server.up(&with);
    assert_eq!(word(&server), STANDARD.encode("second-hush-hush"));
    assert!(server.interrupt().0.success());

    // Without its key nothing starts, and nothing is lost.
    fs::write(&file, encryption(OLD)).unwrap();
    server.forget_output();
    server.launch(&with);
    eventually("the server says what is wrong", || {
        let log = server.log();
        let told = log.contains("secrets default/word") && log.contains("\"new\"") && log.contains("add that key");
        if told { Ok(()) } else { Err(log) }
    });
    server.kill();
    fs::write(&file, encryption(NEW)).unwrap();
    server.up(&with);
    assert_eq!(word(&server), STANDARD.encode("second-hush-hush"));
}

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

/// The contents of a file, or of all files below a folder.
fn all_bytes(path: &Path) -> Vec<u8> {
    if path.is_file() {
        return fs::read(path).unwrap();
    }
    fs::read_dir(path).unwrap().flat_map(|entry| all_bytes(&entry.unwrap().path())).collect()
}
