//! Every listed kind is served alike: the registry says which there are, and each takes the whole round of verbs.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use serde_json::{Value, json};
use support::{Api, Wherry, eventually};
use wherry_api::registry::Registry;
use wherry_api::resource::{Descriptor, Scope};

#[test]
fn every_kind_takes_every_verb() {
    let server = Wherry::start("boat");
    let api = server.api();
    let failed: Vec<String> = std::thread::scope(|scope| {
        let registry = Registry::builtin();
        // A Binding is about a pod that there is.
        let kinds: Vec<_> = registry.iter().filter(|kind| kind.kind != "Binding").cloned().collect();
        let rounds: Vec<_> = kinds
            .into_iter()
            .map(|kind| {
                let (api, name) = (api.clone(), kind.kind.to_string());
                (name, scope.spawn(move || round(&Subject { path: collection(&kind), kind: &kind, api })))
            })
            .collect();
        rounds.into_iter().filter_map(|(name, round)| round.join().is_err().then_some(name)).collect()
    });
    assert!(failed.is_empty(), "kinds with a verb that does not hold: {}", failed.join(", "));
}

struct Subject<'a> {
    kind: &'a Descriptor,
    path: String,
    api: Api,
}

fn collection(kind: &Descriptor) -> String {
    let root = if kind.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", kind.group) };
    let namespace = if kind.scope == Scope::Namespaced { "/namespaces/default" } else { "" };
    format!("{root}/{}{namespace}/{}", kind.version, kind.plural)
}

/// Names a kind in a version: some objects are shown by several.
fn called(kind: &Descriptor) -> String {
    let group = kind.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
    format!("{group}-{}-{}", kind.version, kind.singular)
}

/// The least that makes an object good, besides its name.
fn minimal(descriptor: &Descriptor) -> Value {
    let all: Value = serde_json::from_str(include_str!("support/minimal.json")).unwrap();
    if let Some(listed) = all.get(format!("{}/{}", descriptor.group, descriptor.kind)) {
        return listed.clone();
    }
    let kind: &str = &descriptor.kind;
    // Not the label of the round: nobody may adopt the other kinds' objects.
    let labels = json!({"owner": kind});
    // Nobody schedules it, so that it stays as it is.
    let pod = json!({"schedulerName": "nobody", "containers": [{"name": "main", "image": "registry.example/main:1"}]});
    match kind {
        "Pod" => json!({"spec": pod}),
        "Service" => json!({"spec": {"ports": [{"port": 80}]}}),
        "ReplicaSet" | "Deployment" | "StatefulSet" | "DaemonSet" => {
            let template = json!({"metadata": {"labels": labels}, "spec": pod});
            json!({"spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}})
        }
        "ReplicationController" => {
            json!({"spec": {"replicas": 0, "template": {"metadata": {"labels": labels}, "spec": pod}}})
        }
        "PodTemplate" => json!({"template": {"metadata": {"labels": labels}, "spec": pod}}),
        "Job" => json!({"spec": job(&pod)}),
        "CronJob" => json!({"spec": {"schedule": "@yearly", "jobTemplate": {"spec": job(&pod)}}}),
        "PodDisruptionBudget" => json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": labels}}}),
        "LimitRange" => json!({"spec": {"limits": [{"type": "PersistentVolumeClaim", "max": {"storage": "64Ti"}}]}}),
        "ResourceQuota" => json!({"spec": {"hard": {"pods": "100"}}}),
        "PersistentVolume" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
                "csi": {"driver": "d.example.com", "volumeHandle": "v"}}})
        }
        "PersistentVolumeClaim" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
        }
        "ControllerRevision" => json!({"revision": 1, "data": {"some": "state"}}),
        "TokenReview" => json!({"spec": {"token": "unknown"}}),
        "SelfSubjectAccessReview" => json!({"spec": {"nonResourceAttributes": {"verb": "get", "path": "/version"}}}),
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            json!({"spec": {"user": "somebody", "resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods"}}})
        }
        "SelfSubjectRulesReview" => json!({"spec": {"namespace": "default"}}),
        "EndpointSlice" => json!({"addressType": "IPv4", "endpoints": []}),
        "Event" => {
            json!({"involvedObject": {"kind": "Pod", "namespace": "default", "name": "some"}, "reason": "Tried", "type": "Normal"})
        }
        _ => json!({}),
    }
}

/// A Job that does nothing.
fn job(pod: &Value) -> Value {
    let mut pod = pod.clone();
    pod["restartPolicy"] = json!("Never");
    json!({"suspend": true, "template": {"spec": pod}})
}

fn object(kind: &Descriptor, name: &str) -> Value {
    let mut object = minimal(kind);
    object["apiVersion"] = json!(kind.api_version());
    object["kind"] = json!(kind.kind);
    // Some kinds' names are not free.
    let fixed = object["metadata"]["name"].as_str().map(str::to_owned);
    // A question about rights has no name.
    if kind.group != "authorization.k8s.io" {
        object["metadata"] = json!({"name": fixed.as_deref().unwrap_or(name), "labels": {"round": called(kind)}});
    }
    object
}

fn round(subject: &Subject<'_>) {
    let (api, path, kind) = (&subject.api, &subject.path, subject.kind);
    let wanted = object(kind, &format!("round-{}", called(kind)));
    if !kind.verbs.contains(&"get") {
        let answer = api.post(path, &wanted).ok();
        assert!(answer["status"].is_object(), "a question is answered and not kept: {answer}");
        api.get(path).refused(405, "MethodNotAllowed");
        return;
    }
    let name = wanted["metadata"]["name"].as_str().unwrap().to_owned();
    let one = format!("{path}/{name}");
    assert_eq!(api.get(&one).status, 404);
    let dry = api.post(&format!("{path}?dryRun=All"), &wanted);
    assert_eq!(dry.status, 201, "{}", dry.text());
    assert_eq!(api.get(&one).status, 404, "a dry run keeps nothing");
    let created = api.post(path, &wanted);
    assert_eq!(created.status, 201, "{}", created.text());
    let created = created.json();
    let version = created["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(created["metadata"][field].is_string(), "{field}: {created}");
    }
    assert_eq!(
        (created["kind"].as_str(), created["apiVersion"].as_str()),
        (Some(&*kind.kind), Some(&*kind.api_version()))
    );
    api.post(path, &wanted).refused(409, "AlreadyExists");

    read(subject, &name);
    change(subject, &one);
    leave(subject, &one, &created);

    let label = called(kind);
    let events =
        api.watch(&format!("{path}?watch=1&resourceVersion={version}&timeoutSeconds=1&labelSelector=round%3D{label}"));
    let types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert!(types.contains(&"MODIFIED") && types.last() == Some(&"DELETED"), "{types:?}");
    assert!(events.iter().all(|event| event["object"]["kind"] == *kind.kind));
    collected(subject);
}

fn read(subject: &Subject<'_>, name: &str) {
    let (api, path, kind) = (&subject.api, &subject.path, subject.kind);
    assert_eq!(api.get(&format!("{path}/{name}")).ok()["metadata"]["name"], name);
    let label = called(kind);
    let list = api.get(&format!("{path}?labelSelector=round%3D{label}&fieldSelector=metadata.name%3D{name}")).ok();
    assert_eq!(list["kind"], format!("{}List", kind.kind));
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let table = api.with_accept("application/json;as=Table;v=v1;g=meta.k8s.io").get(&format!("{path}/{name}")).ok();
    let columns = table["columnDefinitions"].as_array().unwrap().len();
    assert_eq!(
        (table["kind"].as_str(), table["rows"][0]["cells"].as_array().map(Vec::len)),
        (Some("Table"), Some(columns))
    );
}

/// By each patch and by an update; a stale one is refused, one that changes nothing changes nothing.
fn change(subject: &Subject<'_>, one: &str) {
    let api = &subject.api;
    let label = |value: &str| json!({"metadata": {"labels": {"by": value}}});
    for kind in ["merge", "strategic-merge"] {
        let patched = api.patch(one, kind, &label(kind)).ok();
        assert_eq!(patched["metadata"]["labels"]["by"], kind);
    }
    let patched =
        api.patch(one, "json", &json!([{"op": "replace", "path": "/metadata/labels/by", "value": "json"}])).ok();
    assert_eq!(patched["metadata"]["labels"]["by"], "json");
    eventually(&format!("{one} stays as it is when nothing changes, between two writes of its controller"), || {
        let before = api.get(one).ok();
        let same = api.patch(one, "merge", &label("json")).ok();
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        if version(&same) == version(&before) { Ok(()) } else { Err(same.to_string()) }
    });
    let mut stale = patched.clone();
    eventually(&format!("{one} is updated between two writes of its controller"), || {
        let mut newer = api.get(one).ok();
        newer["metadata"]["labels"]["by"] = json!("update");
        let answer = api.put(one, &newer);
        if answer.status == 200 { Ok(()) } else { Err(answer.refused(409, "Conflict")) }
    });
    stale["metadata"]["labels"]["by"] = json!("too-late");
    api.put(one, &stale).refused(409, "Conflict");
    let unknown = json!({"metadata": {"labels": {"by": "x"}}, "nonsense": 1});
    let strict = api.send(
        "PATCH",
        &format!("{one}?fieldValidation=Strict"),
        "application/merge-patch+json",
        unknown.to_string(),
    );
    assert!(strict.refused(422, "Invalid").contains(r#"unknown field "nonsense""#));
}

fn leave(subject: &Subject<'_>, one: &str, created: &Value) {
    let api = &subject.api;
    let uid = json!({"preconditions": {"uid": "not-this-one"}});
    api.send("DELETE", one, "application/json", uid.to_string()).refused(409, "Conflict");
    let options = json!({"preconditions": {"uid": created["metadata"]["uid"]}, "gracePeriodSeconds": 0});
    api.send("DELETE", one, "application/json", options.to_string()).ok();
    eventually(&format!("{one} is gone"), || match api.get(one) {
        gone if gone.status == 404 => Ok(gone.refused(404, "NotFound")),
        there => Err(there.text()),
    });
}

/// A whole collection goes by its label.
fn collected(subject: &Subject<'_>) {
    let (api, path, kind) = (&subject.api, &subject.path, subject.kind);
    let label = called(kind);
    let mut all: Vec<Value> = (0..3).map(|index| object(kind, &format!("many-{label}-{index}"))).collect();
    // Of a kind whose names are not free there is only one.
    if !kind.verbs.contains(&"deletecollection") || all[0]["metadata"]["name"] == all[1]["metadata"]["name"] {
        return;
    }
    for one in &mut all {
        one["metadata"]["labels"] = json!({"many": label});
        api.post(path, one).ok();
    }
    let selected = format!("{path}?labelSelector=many%3D{label}");
    let first = api.get(&format!("{selected}&limit=2")).ok();
    assert_eq!(first["items"].as_array().map(Vec::len), Some(2));
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = api.get(&format!("{selected}&limit=2&continue={token}")).ok();
    assert_eq!((rest["items"].as_array().map(Vec::len), &rest["metadata"]["continue"]), (Some(1), &Value::Null));
    api.send("DELETE", &selected, "application/json", json!({"gracePeriodSeconds": 0}).to_string()).ok();
    eventually(&format!("all of {selected} are gone"), || {
        let list = api.get(&selected).ok();
        if list["items"].as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(list.to_string()) }
    });
}
