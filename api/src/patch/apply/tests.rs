//! Who owns which field after writes and applies of every sort.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use proptest::prelude::*;

use super::*;

const NEVER: InVersion<'static> = &|_, _| None;

fn deployments() -> Descriptor {
    Descriptor::of::<Deployment>().status()
}

fn writer<'a>(resource: &'a Descriptor, manager: &'a str) -> Writer<'a> {
    Writer { resource, manager, subresource: "", part: Part::Main, now: Timestamp::UNIX_EPOCH }
}

fn applied(resource: &Descriptor, manager: &str, live: Option<&Value>, config: &Value) -> Value {
    apply(writer(resource, manager), live, config, false, NEVER).unwrap()
}

fn updated(resource: &Descriptor, manager: &str, old: Option<&Value>, mut new: Value) -> Value {
    record(writer(resource, manager), old, &mut new, None, NEVER);
    new
}

/// The paths that a manager has.
fn owned(object: &Value, manager: &str) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let of = entries.iter().filter(|entry| entry["manager"] == manager);
    of.flat_map(|entry| FieldSet::parse(&entry["fieldsV1"]).unwrap().paths()).collect()
}

fn deployment(image: &str, replicas: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"app": "x"}},
        "spec": {"replicas": replicas, "template": {"spec": {"containers": [
            {"name": "c", "image": image, "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}}}})
}

#[test]
fn an_applier_owns_what_it_sent_item_by_item() {
    let made = applied(&deployments(), "me", None, &deployment("a:1", 1));
    assert_eq!(
        owned(&made, "me"),
        [
            ".metadata.labels.app",
            ".spec.replicas",
            ".spec.template.spec.containers[name=\"c\"]",
            ".spec.template.spec.containers[name=\"c\"].image",
            ".spec.template.spec.containers[name=\"c\"].name",
            ".spec.template.spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"]",
            ".spec.template.spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
            ".spec.template.spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"].protocol",
        ]
    );
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!((&entry["operation"], &entry["apiVersion"]), (&json!("Apply"), &json!("apps/v1")));
    assert_eq!(entry["fieldsV1"]["f:metadata"], json!({"f:labels": {"f:app": {}}}));
}

#[test]
fn conflicts_are_told_as_kubernetes_tells_them() {
    let resource = deployments();
    let live = updated(&resource, "kubectl-client-side-apply", None, deployment("a:1", 3));
    let one =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 5}});
    let error = apply(writer(&resource, "me"), Some(&live), &one, false, NEVER).unwrap_err();
    assert_eq!((error.code, &*error.reason), (409, "Conflict"));
    assert_eq!(
        error.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    let cause = &error.details.causes[0];
    assert_eq!(
        (cause.reason.as_str(), cause.message.as_str(), cause.field.as_str()),
        ("FieldManagerConflict", "conflict with \"kubectl-client-side-apply\" using apps/v1", ".spec.replicas")
    );
    let error = apply(writer(&resource, "me"), Some(&live), &deployment("a:2", 4), false, NEVER).unwrap_err();
    assert_eq!(
        error.message,
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n- .spec.replicas\n\
         - .spec.template.spec.containers[name=\"c\"].image"
    );
    let forced = apply(writer(&resource, "me"), Some(&live), &one, true, NEVER).unwrap();
    assert_eq!(forced["spec"]["replicas"], 5);
    assert_eq!(owned(&forced, "me"), [".spec.replicas"]);
    assert!(!owned(&forced, "kubectl-client-side-apply").contains(&".spec.replicas".to_owned()));
}

#[test]
fn the_same_value_is_shared_and_what_is_sent_no_more_goes_unless_another_has_it() {
    let resource = Descriptor::of::<ConfigMap>();
    let config =
        |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data});
    let live = applied(&resource, "a", None, &config(json!({"only": "a", "both": "1"})));
    let live = applied(&resource, "b", Some(&live), &config(json!({"both": "1", "mine": "b"})));
    let live = applied(&resource, "a", Some(&live), &config(json!({})));
    assert_eq!(live["data"], json!({"both": "1", "mine": "b"}));
    assert_eq!(owned(&live, "b"), [".data.both", ".data.mine"]);
    let live = applied(&resource, "b", Some(&live), &config(json!({"mine": "b"})));
    assert_eq!(live["data"], json!({"mine": "b"}));
}

#[test]
fn what_somebody_else_added_to_a_list_stays_in_its_place() {
    let resource = Descriptor::of::<Pod>();
    let pod = |names: &[&str]| {
        let containers: Vec<Value> = names.iter().map(|n| json!({"name": n, "image": "i"})).collect();
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers}})
    };
    let names = |pod: &Value| -> Vec<String> {
        pod["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
    };
    let live = updated(&resource, "other", None, pod(&["a", "b", "c"]));
    let live = applied(&resource, "me", Some(&live), &pod(&["x", "c", "a"]));
    assert_eq!(names(&live), ["b", "x", "c", "a"]);
    let live = applied(&resource, "me", Some(&live), &pod(&["a"]));
    assert_eq!(names(&live), ["b", "c", "a"]);
}

#[test]
fn an_update_takes_what_it_changes_and_nothing_else() {
    let resource = deployments();
    let live = applied(&resource, "a", None, &deployment("a:1", 1));
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = 2.into();
    scaled["status"] = json!({"replicas": 2});
    let scaled = updated(&resource, "b", Some(&live), scaled);
    assert_eq!(owned(&scaled, "b"), [".spec.replicas"]);
    assert!(!owned(&scaled, "a").contains(&".spec.replicas".to_owned()));
    assert_eq!(updated(&resource, "c", Some(&scaled), scaled.clone()), scaled);
}

#[test]
fn kubectl_takes_over_what_it_applied_on_the_clients_side() {
    let resource = deployments();
    let mut first = deployment("a:1", 1);
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    object::set_annotation(&mut first, annotation, &deployment("a:1", 1).to_string());
    let live = updated(&resource, "kubectl-client-side-apply", None, first);
    let new = apply(writer(&resource, "kubectl"), Some(&live), &deployment("a:2", 1), false, NEVER).unwrap();
    assert_eq!(new["spec"]["template"]["spec"]["containers"][0]["image"], "a:2");
    assert!(object::annotation(&new, annotation).unwrap().contains("a:2"));
    assert!(apply(writer(&resource, "other"), Some(&live), &deployment("a:2", 1), false, NEVER).is_err());
    let changed = {
        let mut live = live.clone();
        live["spec"]["replicas"] = 9.into();
        live
    };
    let live = updated(&resource, "scaler", Some(&live), changed);
    let error = apply(writer(&resource, "kubectl"), Some(&live), &deployment("a:2", 1), false, NEVER).unwrap_err();
    assert_eq!(error.message, "Apply failed with 1 conflict: conflict with \"scaler\" using apps/v1: .spec.replicas");
}

#[test]
fn an_object_without_a_record_is_owned_by_whoever_was_before() {
    let resource = deployments();
    let live = deployment("a:1", 1);
    assert_eq!(updated(&resource, "x", Some(&live), deployment("a:2", 1)), deployment("a:2", 1));
    let error = apply(writer(&resource, "me"), Some(&live), &deployment("a:2", 1), false, NEVER).unwrap_err();
    assert!(error.message.contains("conflict with \"before-first-apply\" using apps/v1"), "{}", error.message);
}

#[test]
fn an_empty_list_forgets_all_managers() {
    let resource = deployments();
    let live = applied(&resource, "a", None, &deployment("a:1", 1));
    for asked in [json!([]), json!([{}])] {
        let mut new = live.clone();
        record(writer(&resource, "b"), Some(&live), &mut new, Some(&asked), NEVER);
        assert_eq!(object::meta(&new, "managedFields"), None);
    }
    let mut new = live.clone();
    object::remove_meta(&mut new, "managedFields");
    record(writer(&resource, "b"), Some(&live), &mut new, None, NEVER);
    assert_eq!(new, live, "who does not send it keeps it");
}

#[test]
fn only_ten_updaters_are_remembered_one_by_one() {
    let resource = Descriptor::of::<ConfigMap>();
    let mut live = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    live = updated(&resource, "m00", None, {
        live["data"] = json!({"k00": "v"});
        live
    });
    for n in 1..15 {
        let mut new = live.clone();
        new["data"][format!("k{n:02}")] = "v".into();
        let name = format!("m{n:02}");
        let now = Timestamp::from_second(n).unwrap();
        record(Writer { now, ..writer(&resource, &name) }, Some(&live), &mut new, None, NEVER);
        live = new;
    }
    let entries = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 10);
    assert!(entries.iter().any(|entry| entry["manager"] == "ancient-changes"));
    let all: usize =
        entries.iter().map(|e| e["fieldsV1"]["f:data"].as_object().unwrap().keys().filter(|k| *k != ".").count()).sum();
    assert_eq!(all, 15, "nothing is lost");
}

#[test]
fn a_status_has_owners_of_its_own() {
    let resource = deployments();
    let live = applied(&resource, "a", None, &deployment("a:1", 1));
    let mut new = live.clone();
    new["status"] = json!({"conditions": [{"type": "Available", "status": "True"}], "replicas": 1});
    let who = Writer { subresource: "status", part: Part::Status, ..writer(&resource, "controller") };
    record(who, Some(&live), &mut new, None, NEVER);
    assert_eq!(
        owned(&new, "controller"),
        [
            ".status.conditions",
            ".status.conditions[type=\"Available\"]",
            ".status.conditions[type=\"Available\"].status",
            ".status.conditions[type=\"Available\"].type",
            ".status.replicas"
        ]
    );
    assert_eq!(new["metadata"]["managedFields"][1]["subresource"], "status");
}

#[test]
fn items_that_cannot_be_told_apart_are_refused() {
    let resource = deployments();
    let mut twice = deployment("a:1", 1);
    let container = twice["spec"]["template"]["spec"]["containers"][0].clone();
    twice["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap().push(container);
    let error = apply(writer(&resource, "a"), None, &twice, false, NEVER).unwrap_err();
    assert!(
        error.message.ends_with(".spec.template.spec.containers: duplicate entries for key [name=\"c\"]"),
        "{}",
        error.message
    );
    let nameless = json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}});
    assert!(
        apply(writer(&resource, "a"), None, &nameless, false, NEVER)
            .unwrap_err()
            .message
            .contains("omits all key fields")
    );
}

#[test]
fn elements_have_one_spelling() {
    let set =
        FieldSet::parse(&json!({"f:a": {"k:{\"b\": 1,\"a\":\"x\"}": {".": {}, "f:c": {}}, "v: 3": {}, "i:0": {}}}))
            .unwrap();
    assert_eq!(set.print(), json!({"f:a": {"i:0": {}, "k:{\"a\":\"x\",\"b\":1}": {".": {}, "f:c": {}}, "v:3": {}}}));
    for bad in
        [json!({"x:a": {}}), json!({"f:a": 1}), json!({"k:[]": {}}), json!([]), json!({"v:": {}}), json!({"i:x": {}})]
    {
        assert!(FieldSet::parse(&bad).is_err(), "{bad}");
    }
}

/// Sets of fields, as trees of FieldsV1.
fn fields() -> impl Strategy<Value = Value> {
    let element = prop_oneof![
        "[a-c]".prop_map(|name| format!("f:{name}")),
        "[a-c]".prop_map(|name| format!("k:{{\"name\":\"{name}\"}}")),
        (0..3).prop_map(|n: i32| format!("v:{n}")),
    ];
    Just(json!({})).prop_recursive(4, 24, 4, move |below| {
        (proptest::collection::btree_map(element.clone(), below, 0..4), any::<bool>()).prop_map(|(map, member)| {
            let mut map: serde_json::Map<String, Value> = map.into_iter().collect();
            if member && !map.is_empty() {
                map.insert(".".into(), json!({}));
            }
            Value::Object(map)
        })
    })
}

/// Configurations of a ConfigMap-like and a Pod-like part.
fn config() -> impl Strategy<Value = Value> {
    let data = proptest::collection::btree_map("[a-d]", "[xy]", 0..4);
    let containers = proptest::collection::btree_map("[a-d]", ("[xy]", proptest::option::of("[xy]")), 0..4);
    (data, containers).prop_map(|(labels, containers)| {
        let containers: Vec<Value> = containers
            .into_iter()
            .map(|(name, (image, dir))| {
                let mut container = json!({"name": name, "image": image});
                if let Some(dir) = dir {
                    container["workingDir"] = dir.into();
                }
                container
            })
            .collect();
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": labels},
            "spec": {"containers": containers}})
    })
}

fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    object::remove_meta(&mut object, "managedFields");
    object
}

/// Without empty maps and lists, which Kubernetes' types do not keep apart from absent ones.
fn solid(value: &Value) -> Value {
    let hollow = |value: &Value| *value == json!({}) || *value == json!([]);
    match value {
        Value::Object(map) => {
            Value::Object(map.iter().map(|(k, v)| (k.clone(), solid(v))).filter(|(_, v)| !hollow(v)).collect())
        }
        Value::Array(list) => list.iter().map(solid).collect(),
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn fields_v1_round_trips(fields in fields()) {
        let set = FieldSet::parse(&fields).unwrap();
        let mut printed = set.print();
        prop_assert_eq!(FieldSet::parse(&printed).unwrap(), set);
        // The root's own `.` says nothing.
        let mut fields = fields;
        for tree in [&mut printed, &mut fields] {
            tree.as_object_mut().unwrap().remove(".");
        }
        prop_assert_eq!(printed, fields);
    }

    #[test]
    fn set_operations_obey_their_laws(a in fields(), b in fields()) {
        let (a, b) = (FieldSet::parse(&a).unwrap(), FieldSet::parse(&b).unwrap());
        let both = a.intersection(&b);
        prop_assert_eq!(a.difference(&b).union(&both), a.clone());
        prop_assert!(a.difference(&b).intersection(&b).is_empty());
        prop_assert_eq!(a.clone().union(&b), b.union(&a));
    }

    #[test]
    fn applying_twice_changes_nothing_and_a_managers_set_is_what_it_sent(a in config(), b in config()) {
        let resource = Descriptor::of::<Pod>();
        let first = applied(&resource, "a", None, &a);
        let second = apply(writer(&resource, "b"), Some(&first), &b, true, NEVER).unwrap();
        let later = Writer { now: Timestamp::from_second(1000).unwrap(), ..writer(&resource, "b") };
        prop_assert_eq!(&apply(later, Some(&second), &b, false, NEVER).unwrap(), &second);
        let alone = applied(&resource, "b", None, &b);
        prop_assert_eq!(owned(&second, "b"), owned(&alone, "b"));
    }

    #[test]
    fn what_only_one_applier_had_goes_when_it_lets_go(a in config(), b in config()) {
        let resource = Descriptor::of::<Pod>();
        let nothing = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}});
        let only_b = applied(&resource, "b", None, &b);
        // Nobody's value is changed: what A says of B's fields is what B says.
        let a = merge::merge(&a, &b, Schema::of(&resource).root());
        let both = applied(&resource, "a", Some(&only_b), &a);
        let left = applied(&resource, "a", Some(&both), &nothing);
        prop_assert_eq!(solid(&bare(&left)), solid(&bare(&only_b)));
        prop_assert!(owned(&left, "a").is_empty());
    }

    #[test]
    fn an_update_leaves_each_changed_leaf_to_its_writer(a in config(), b in config()) {
        let resource = Descriptor::of::<Pod>();
        let live = applied(&resource, "a", None, &a);
        let new = updated(&resource, "b", Some(&live), b);
        let (a, b) = (owned(&new, "a"), owned(&new, "b"));
        prop_assert!(a.iter().all(|path| !b.contains(path)), "{:?} {:?}", a, b);
    }
}

/// A kind with a list map and a set.
fn boats() -> Descriptor {
    let item = json!({"type": "object", "required": ["name"],
        "properties": {"name": {"type": "string"}, "v": {"type": "integer"}}});
    let map = json!({"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]});
    let set = json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"});
    crate::custom::tests::descriptor_of(&json!({"type": "object", "properties": {"map": map, "set": set}}))
}

fn boat(items: usize, step: usize, value: i64) -> Value {
    let numbers = || (0..items).step_by(step);
    json!({"apiVersion": "sea.example.com/v1", "kind": "Boat", "metadata": {"name": "b"},
        "map": numbers().map(|n| json!({"name": format!("n{n}"), "v": value})).collect::<Vec<_>>(),
        "set": numbers().map(|n| format!("n{n}")).collect::<Vec<_>>()})
}

#[test]
fn work_grows_with_the_lists_and_not_with_their_square() {
    let boats = boats();
    let counted = |items: usize| -> Vec<usize> {
        let live = applied(&boats, "me", None, &boat(items, 1, 1));
        let mut reversed = boat(items, 1, 2);
        for list in ["map", "set"] {
            reversed[list].as_array_mut().unwrap().reverse();
        }
        let runs: [&dyn Fn(); 6] = [
            &|| drop(applied(&boats, "me", Some(&live), &boat(items, 1, 1))),
            &|| drop(applied(&boats, "me", Some(&live), &reversed)),
            &|| drop(applied(&boats, "me", Some(&live), &boat(items, 2, 1))),
            &|| drop(applied(&boats, "other", Some(&live), &boat(items, 3, 1))),
            &|| drop(apply(writer(&boats, "other"), Some(&live), &boat(items, 1, 2), false, NEVER).unwrap_err()),
            &|| drop(updated(&boats, "me", Some(&live), reversed.clone())),
        ];
        let count = |run: &dyn Fn()| {
            element::LOOKED_AT.set(0);
            run();
            element::LOOKED_AT.get()
        };
        runs.into_iter().map(count).collect()
    };
    let (once, twice) = (counted(200), counted(400));
    for (once, twice) in once.iter().zip(&twice) {
        assert!(*once > 0 && *twice <= 2 * once, "{once} and {twice}");
    }
}

#[test]
fn complaints_and_conflicts_are_told_in_part_where_they_are_many() {
    let boats = boats();
    let mut twins = boat(2000, 1, 1);
    twins["map"].as_array_mut().unwrap().iter_mut().for_each(|item| item["name"] = "x".into());
    twins["set"] = json!(vec![Value::Null; 2000]);
    let error = apply(writer(&boats, "me"), None, &twins, false, NEVER).unwrap_err();
    assert!(error.code == 400 && error.message.lines().count() < 110, "{}", error.message.lines().count());
    let key = "x".repeat(10_000);
    let labels: serde_json::Map<String, Value> = (0..200).map(|n| (format!("{key}{n}"), json!("a"))).collect();
    let object = |value: &str| {
        let labels: serde_json::Map<String, Value> = labels.keys().map(|key| (key.clone(), json!(value))).collect();
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": labels})
    };
    let maps = Descriptor::of::<ConfigMap>();
    let live = updated(&maps, "me", None, object("a"));
    let error = apply(writer(&maps, "you"), Some(&live), &object("b"), false, NEVER).unwrap_err();
    assert!(error.message.starts_with("Apply failed with 200 conflicts"), "{:.80}", error.message);
    assert!(error.message.len() < 400_000 && error.details.causes.len() < 40, "{}", error.details.causes.len());
}
