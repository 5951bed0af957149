//! A whole control plane over a real port.

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wherry_api::object;
use wherry_api::resource::{Durability, GroupResource};

use super::*;
use crate::store::{Encoded, Key, Op, Txn};

const DRAIN: Duration = Duration::from_secs(10);

fn config(dir: &Path) -> Config {
    Config::new(dir, ([127, 0, 0, 1], 0).into(), "10.96.0.0/16".parse().unwrap())
}

async fn client(text: &str) -> Client {
    let config: Kubeconfig = serde_yaml::from_str(text).unwrap();
    Client::try_from(kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap())
        .unwrap()
}

async fn admin(plane: &ControlPlane) -> Client {
    client(&std::fs::read_to_string(plane.kubeconfig_path()).unwrap()).await
}

fn typed<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn map(name: &str) -> ConfigMap {
    typed(json!({"metadata": {"name": name}, "data": {"a": "b"}}))
}

fn code<T>(result: Result<T, kube::Error>) -> u16 {
    match result {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("{error:?}"),
    }
}

/// Asks until it is true; the test's own time limit is the deadline.
async fn until<F: Future<Output = bool>>(mut ask: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ask().await {
        assert!(Instant::now() < deadline, "it did not come about");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let plane = ControlPlane::start(config(dir.path())).await.unwrap();
    let before: Api<ConfigMap> = Api::default_namespaced(admin(&plane).await);
    let made = before.create(&PostParams::default(), &map("kept")).await.unwrap();
    plane.shutdown(DRAIN).await.unwrap();

    let plane = ControlPlane::start(config(dir.path())).await.unwrap();
    let after: Api<ConfigMap> = Api::default_namespaced(admin(&plane).await);
    assert_eq!(after.get("kept").await.unwrap(), made);
    plane.shutdown(DRAIN).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_in_the_process_and_one_outside_see_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let plane = ControlPlane::start(config(dir.path())).await.unwrap();
    let inside: Api<ConfigMap> = Api::default_namespaced(plane.client_for(UserInfo::admin(), "test"));
    let outside: Api<ConfigMap> = Api::default_namespaced(admin(&plane).await);
    let revision = outside.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let params = WatchParams::default();
    let (from_inside, from_outside) =
        (inside.watch(&params, &revision).await.unwrap(), outside.watch(&params, &revision).await.unwrap());
    inside.create(&PostParams::default(), &map("shared")).await.unwrap();
    let name = |event: Option<Result<WatchEvent<ConfigMap>, kube::Error>>| match event {
        Some(Ok(WatchEvent::Added(object))) => object.metadata.name,
        other => panic!("{other:?}"),
    };
    // The root certificates that a controller publishes may come first.
    let is_shared = |event: &Result<WatchEvent<ConfigMap>, kube::Error>| {
        let shared = matches!(event, Ok(WatchEvent::Added(o)) if o.metadata.name.as_deref() == Some("shared"));
        std::future::ready(shared)
    };
    let mut from_inside = std::pin::pin!(from_inside.filter(is_shared));
    let mut from_outside = std::pin::pin!(from_outside.filter(is_shared));
    assert_eq!(name(from_inside.next().await).as_deref(), Some("shared"));
    assert_eq!(name(from_outside.next().await).as_deref(), Some("shared"));
    plane.shutdown(DRAIN).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_cluster_has_its_namespaces_service_and_accounts_and_is_ready() {
    let dir = tempfile::tempdir().unwrap();
    let plane = ControlPlane::start(config(dir.path())).await.unwrap();
    let client = admin(&plane).await;
    let names = Api::<Namespace>::all(client.clone()).list(&ListParams::default()).await.unwrap();
    let names: Vec<_> = names.items.into_iter().filter_map(|n| n.metadata.name).collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    let service = Api::<Service>::default_namespaced(client.clone()).get("kubernetes").await.unwrap();
    assert_eq!(service.spec.unwrap().cluster_ip.as_deref(), Some("10.96.0.1"));
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "kube-public");
    until(|| async { accounts.get_opt("default").await.unwrap().is_some() }).await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-public");
    until(|| async { maps.get_opt("kube-root-ca.crt").await.unwrap().is_some() }).await;
    let ready = || async {
        let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
        client.request_text(request).await.is_ok_and(|text| text == "ok")
    };
    until(ready).await;
    plane.shutdown(DRAIN).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_becomes_pods_that_wait_for_a_node() {
    let dir = tempfile::tempdir().unwrap();
    let plane = ControlPlane::start(config(dir.path())).await.unwrap();
    let client = admin(&plane).await;
    let deployment: Deployment = typed(json!({
        "metadata": {"name": "hello"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "hello"}}, "template": {
            "metadata": {"labels": {"app": "hello"}},
            "spec": {"containers": [{"name": "c", "image": "hello"}]},
        }},
    }));
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    until(|| async { accounts.get_opt("default").await.unwrap().is_some() }).await;
    Api::<Deployment>::default_namespaced(client.clone()).create(&PostParams::default(), &deployment).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(client);
    until(|| async { pods.list(&ListParams::default().labels("app=hello")).await.unwrap().items.len() == 3 }).await;
    let unscheduled = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
        conditions
            .into_iter()
            .flatten()
            .any(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("Unschedulable"))
    };
    until(|| async { pods.list(&ListParams::default()).await.unwrap().items.iter().all(unscheduled) }).await;
    plane.shutdown(DRAIN).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_limited_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let plane = ControlPlane::start(config(dir.path())).await.unwrap();
    let credentials = plane.issue_node_credentials("n1", &[[127, 0, 0, 1].into()]).unwrap();
    let node = client(&plane.kubeconfig_for("n1", &credentials.client).unwrap()).await;
    let secrets: Api<Secret> = Api::default_namespaced(node.clone());
    assert_eq!(code(secrets.list(&ListParams::default()).await), 403);
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(node.clone());
    let named = |name: &str| typed(json!({"metadata": {"name": name}}));
    assert_eq!(code(nodes.create(&PostParams::default(), &named("n1")).await), 200);
    assert_eq!(code(nodes.create(&PostParams::default(), &named("n2")).await), 403);
    let pods: Api<Pod> = Api::all(node);
    assert_eq!(code(pods.list(&ListParams::default()).await), 403);
    assert_eq!(code(pods.list(&ListParams::default().fields("spec.nodeName=n1")).await), 200);
    plane.shutdown(DRAIN).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_can_be_started_from() {
    let dir = tempfile::tempdir().unwrap();
    let plane = ControlPlane::start(config(dir.path())).await.unwrap();
    let client = admin(&plane).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.create(&PostParams::default(), &map("kept")).await.unwrap();
    let request = http::Request::get("/backup").body(kube::client::Body::empty()).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let copy = response.into_body().collect_bytes().await.unwrap();
    plane.shutdown(DRAIN).await.unwrap();

    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join("state")).unwrap();
    let file = std::fs::read_dir(dir.path().join("state")).unwrap().next().unwrap().unwrap().file_name();
    std::fs::write(other.path().join("state").join(file), &copy).unwrap();
    let plane = ControlPlane::start(config(other.path())).await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(admin(&plane).await);
    assert!(maps.get_opt("kept").await.unwrap().is_some());
    plane.shutdown(DRAIN).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_pushed_and_pulled_through_the_server() {
    use sha2::Digest;
    let dir = tempfile::tempdir().unwrap();
    let plane = ControlPlane::start(config(dir.path())).await.unwrap();
    let client = plane.client_for(UserInfo::admin(), "test");
    let digest = crate::hex::lower(sha2::Sha256::digest(b"blob"));
    let path = format!("/v2/default/app/blobs/uploads/?digest=sha256:{digest}");
    let request = http::Request::post(path).body(kube::client::Body::from(b"blob".to_vec())).unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), 201);
    let request = http::Request::get(format!("/v2/default/app/blobs/sha256:{digest}"));
    let response = admin(&plane).await.send(request.body(kube::client::Body::empty()).unwrap()).await.unwrap();
    assert_eq!(&response.into_body().collect_bytes().await.unwrap()[..], b"blob");
    plane.shutdown(DRAIN).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_in_use_and_a_taken_port_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let plane = ControlPlane::start(config(dir.path())).await.unwrap();
    let error = ControlPlane::start(config(dir.path())).await.unwrap_err().to_string();
    assert!(error.contains("--data-dir"), "{error}");
    let other = tempfile::tempdir().unwrap();
    let error = ControlPlane::start(Config { listen: plane.address(), ..config(other.path()) }).await.unwrap_err();
    assert!(error.to_string().contains("--listen"), "{error}");
    plane.shutdown(DRAIN).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_issuer_is_a_user_and_strangers_are_let_in_where_the_file_says() {
    use crate::auth::oidc::tests::Key as SigningKey;
    let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key = SigningKey::new("k", jsonwebtoken::Algorithm::ES256);
    let write = |name: &str, document: Value| {
        let path = files.path().join(name);
        std::fs::write(&path, document.to_string()).unwrap();
        path
    };
    let keys = write("keys.json", json!({"keys": [key.public()]}));
    let url = "https://issuer.example";
    let document = write("document.json", json!({"issuer": url, "jwks_uri": format!("file://{}", keys.display())}));
    let authentication = write(
        "authentication.yaml",
        json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
            "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]},
            "jwt": [{"issuer": {"url": url, "audiences": ["c"], "discoveryURL": format!("file://{}", document.display())},
                "claimMappings": {"username": {"claim": "sub", "prefix": "oidc:"},
                    "groups": {"claim": "groups", "prefix": ""}}}]}),
    );
    let config = Config { authentication: Some(authentication), ..config(dir.path()) };
    let plane = ControlPlane::start(config).await.unwrap();
    let exp = jiff::Timestamp::now().as_second() + 600;
    let token = key.sign(&json!({"iss": url, "aud": "c", "sub": "jane", "groups": ["system:masters"], "exp": exp}));
    let as_user = |user: Value| {
        let text = std::fs::read_to_string(plane.kubeconfig_path()).unwrap();
        let mut config: Value = serde_yaml::from_str(&text).unwrap();
        config["users"][0]["user"] = user;
        config.to_string()
    };
    let jane = client(&as_user(json!({ "token": token }))).await;
    let who = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("content-type", "application/json")
        .body(b"{\"apiVersion\":\"authentication.k8s.io/v1\",\"kind\":\"SelfSubjectReview\"}".to_vec());
    let who: Value = jane.request(who.unwrap()).await.unwrap();
    assert_eq!(who["status"]["userInfo"]["username"], "oidc:jane");
    let review = http::Request::post("/apis/authentication.k8s.io/v1/tokenreviews")
        .header("content-type", "application/json")
        .body(json!({"spec": {"token": token}}).to_string().into_bytes());
    let review: Value = jane.request(review.unwrap()).await.unwrap();
    assert_eq!(review["status"]["authenticated"], true, "{review}");
    assert_eq!(review["status"]["user"]["groups"], json!(["system:masters", "system:authenticated"]));

    let stranger = client(&as_user(json!({}))).await;
    let ask = |path: &str| stranger.request_text(http::Request::get(path).body(Vec::new()).unwrap());
    assert_eq!((code(ask("/livez").await), code(ask("/version").await)), (200, 401));
    plane.shutdown(DRAIN).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_names_an_owner_in_another_namespace_goes_and_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let plane = ControlPlane::start(config(dir.path())).await.unwrap();
    let client = admin(&plane).await;
    let (here, there): (Api<ConfigMap>, Api<ConfigMap>) =
        (Api::default_namespaced(client.clone()), Api::namespaced(client.clone(), "kube-system"));
    let owner = there.create(&PostParams::default(), &map("owner")).await.unwrap();
    let reference = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid}]);
    let owned = |name: &str| json!({"metadata": {"name": name, "ownerReferences": reference}});
    there.create(&PostParams::default(), &typed(owned("kept"))).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &typed(owned("left-alone"))).await.unwrap();
    here.create(&PostParams::default(), &typed(owned("lost"))).await.unwrap();
    until(|| async { code(here.get("lost").await) == 404 }).await;

    let events: Api<Event> = Api::default_namespaced(client.clone());
    let uid = owner.metadata.uid.unwrap();
    for (kind, namespace) in [("ConfigMap", "default"), ("Namespace", "")] {
        let told = format!(
            "ownerRef [v1/ConfigMap, namespace: {namespace}, name: owner, uid: {uid}] does not exist in namespace {namespace:?}"
        );
        until(|| async {
            let all = events.list(&ListParams::default()).await.unwrap();
            all.iter().any(|event| {
                let about = event.involved_object.kind.as_deref() == Some(kind);
                about
                    && event.reason.as_deref() == Some("OwnerRefInvalidNamespace")
                    && event.type_.as_deref() == Some("Warning")
                    && event.message.as_deref() == Some(&*told)
            })
        })
        .await;
    }
    assert_eq!(code(there.get("kept").await), 200);
    let left = namespaces.get("left-alone").await.unwrap();
    assert!(left.metadata.deletion_timestamp.is_none() && left.metadata.owner_references.is_some());
    plane.shutdown(DRAIN).await.unwrap();
}

/// Stores objects as if an earlier process had.
async fn left(dir: &Path, objects: &[(GroupResource, Value)]) {
    private_dir(dir).unwrap();
    let store = RedbStore::open(&dir.join("state")).unwrap();
    for (resource, object) in objects {
        let (bytes, splice) = object::encode(object);
        let key = Key::new(resource, object::namespace(object), object::name(object));
        let op = Op::Put { key, value: Encoded { bytes, splice } };
        let txn = Txn { preconditions: Vec::new(), ops: vec![op], durability: Durability::Synced, expires_after: None };
        store.commit(txn).await.unwrap();
    }
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_starts_to_be_repaired_whatever_was_done_to_what_it_builds_upon() {
    let dir = tempfile::tempdir().unwrap();
    let address = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": {"name": "10.96.0.1", "uid": "u1"},
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "another"}}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.sea.example.com", "uid": "u2"}, "spec": {"group": 1, "versions": "none"},
        "status": {"conditions": [{"type": "NamesAccepted", "status": "True"}]}});
    let resource = |group: &str, plural: &str| GroupResource {
        group: group.to_owned().into(),
        resource: plural.to_owned().into(),
    };
    let addresses = resource("networking.k8s.io", "ipaddresses");
    let definitions = resource("apiextensions.k8s.io", "customresourcedefinitions");
    left(dir.path(), &[(addresses, address), (definitions, definition)]).await;

    let plane = ControlPlane::start(config(dir.path())).await.unwrap();
    let client = admin(&plane).await;
    let classes: Api<PriorityClass> = Api::all(client.clone());
    assert!(classes.get("system-node-critical").await.is_ok(), "what does not build upon it is there");
    let services: Api<Service> = Api::default_namespaced(client);
    assert_eq!(code(services.get("kubernetes").await), 404);
    plane.shutdown(DRAIN).await.unwrap();
}

/// What another version of this program, or a mistake, may have left: one object that is none of its kind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_cannot_be_read_keeps_no_controller_from_its_work() {
    let dir = tempfile::tempdir().unwrap();
    let plane = ControlPlane::start(config(dir.path())).await.unwrap();
    plane.shutdown(DRAIN).await.unwrap();
    let broken = [("", "pods", "Pod", "v1"), ("apps", "deployments", "Deployment", "apps/v1")];
    let broken = broken.map(|(group, plural, kind, version)| {
        let object = json!({"apiVersion": version, "kind": kind, "spec": {"containers": 1, "replicas": "many"},
            "metadata": {"name": "broken", "namespace": "default", "uid": format!("broken-{plural}")}});
        (GroupResource::new(group, plural), object)
    });
    left(dir.path(), &broken).await;

    let plane = ControlPlane::start(config(dir.path())).await.unwrap();
    let client = admin(&plane).await;
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let wanted = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "x:1"}]}}}});
    deployments.create(&PostParams::default(), &typed(wanted)).await.unwrap();
    until(|| async {
        let status = deployments.get("web").await.unwrap().status.unwrap_or_default();
        status.replicas == Some(2)
    })
    .await;
    plane.shutdown(DRAIN).await.unwrap();
}
