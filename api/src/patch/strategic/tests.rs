//! Strategic merge patches as kubectl makes them, and what they must leave alone.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn pod(object: Value, patch: Value) -> Value {
    apply(&Descriptor::of::<Pod>(), &object, &patch).unwrap()
}

fn refused(object: Value, patch: Value) -> String {
    let error = apply(&Descriptor::of::<Pod>(), &object, &patch).unwrap_err();
    assert_eq!(error.code, 400);
    error.message
}

fn containers(list: Value) -> Value {
    json!({"spec": {"containers": list}})
}

#[test]
fn items_merge_by_their_key_and_new_ones_come_first() {
    let object = containers(json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "x"}]}, {"name": "b"}]));
    let patch = containers(json!([{"name": "c", "image": "3"}, {"name": "a", "env": [{"name": "Y", "value": "y"}]}]));
    let wanted = json!([
        {"name": "c", "image": "3"},
        {"name": "a", "image": "1", "env": [{"name": "Y", "value": "y"}, {"name": "X", "value": "x"}]},
        {"name": "b"},
    ]);
    assert_eq!(pod(object, patch), containers(wanted));
}

#[test]
fn a_list_without_a_merge_key_is_replaced() {
    let object = containers(json!([{"name": "a", "args": ["1", "2"]}]));
    assert_eq!(
        pod(object, containers(json!([{"name": "a", "args": ["3"]}]))),
        containers(json!([{"name": "a", "args": ["3"]}]))
    );
}

#[test]
fn lists_of_tens_of_thousands_merge_in_the_time_it_takes_to_read_them() {
    let name = |index: usize| Value::from(format!("container-{index:06}"));
    let list = |range: std::ops::Range<usize>| {
        containers(range.map(|index| json!({"name": name(index), "image": index.to_string()})).collect())
    };
    let started = std::time::Instant::now();
    let merged = pod(list(0..30_000), list(15_000..45_000));
    let merged = merged["spec"]["containers"].as_array().unwrap();
    assert_eq!((merged.len(), &merged[0]["name"], &merged[44_999]["name"]), (45_000, &name(0), &name(44_999)));
    let deletions = (0..30_000).map(|index| json!({"name": name(index), "$patch": "delete"})).collect();
    assert_eq!(pod(list(0..30_000), containers(deletions))["spec"]["containers"], json!([]));
    let finalizers = |range: std::ops::Range<usize>| range.map(|i| format!("f/{i:06}")).collect::<Vec<_>>();
    let object = json!({"metadata": {"finalizers": finalizers(0..30_000)}});
    let patch = json!({"metadata": {"finalizers": finalizers(15_000..45_000)}});
    assert_eq!(pod(object.clone(), patch)["metadata"]["finalizers"].as_array().unwrap().len(), 45_000);
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": finalizers(0..30_000)}});
    assert_eq!(pod(object, patch)["metadata"]["finalizers"], json!([]));
    assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn null_removes_a_field_and_leaves_nothing_where_nothing_was() {
    let object = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
    let patch = json!({"metadata": {"labels": {"a": null, "c": null}, "annotations": {"d": null, "e": "5"}}});
    assert_eq!(pod(object, patch), json!({"metadata": {"labels": {"b": "2"}, "annotations": {"e": "5"}}}));
}

#[test]
fn patch_directives_delete_and_replace_items_and_maps() {
    let object = json!({"metadata": {"labels": {"a": "1"}, "annotations": {"x": "y"}},
        "spec": {"containers": [{"name": "a"}, {"name": "b"}], "nodeSelector": {"n": "1"}}});
    let patch = json!({"metadata": {"labels": {"$patch": "replace", "z": "1"}, "annotations": {"$patch": "delete"}},
        "spec": {"containers": [{"name": "a", "$patch": "delete"}], "nodeSelector": {"$patch": "merge", "m": "2"}}});
    let wanted = json!({"metadata": {"labels": {"z": "1"}, "annotations": {}},
        "spec": {"containers": [{"name": "b"}], "nodeSelector": {"n": "1", "m": "2"}}});
    assert_eq!(pod(object.clone(), patch), wanted);
    let patch = containers(json!([{"$patch": "replace"}, {"name": "c"}]));
    assert_eq!(pod(object, patch)["spec"]["containers"], json!([{"name": "c"}]));
}

#[test]
fn set_element_order_arranges_the_whole_list() {
    let object = containers(json!([{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}]));
    let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "d"}, {"name": "new"}, {"name": "a"}],
        "containers": [{"name": "new", "image": "n"}]}});
    // b and c stood before d.
    let wanted = json!([{"name": "b"}, {"name": "c"}, {"name": "d"}, {"name": "new", "image": "n"}, {"name": "a"}]);
    assert_eq!(pod(object.clone(), patch), containers(wanted));
    let message = refused(
        object,
        json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}}),
    );
    assert!(message.starts_with("The order in patch list:\n[map[name:b]]\n doesn't match"), "{message}");
}

#[test]
fn a_patch_as_kubectl_computes_it_removes_changes_and_orders() {
    let object = containers(json!([{"name": "x", "image": "1", "tty": true}, {"name": "gone"}, {"name": "injected"}]));
    let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "x"}],
        "containers": [{"image": "2", "name": "x", "ports": [{"containerPort": 80}]}, {"$patch": "delete", "name": "gone"}]}});
    let wanted = json!([
        {"name": "x", "image": "2", "tty": true, "ports": [{"containerPort": 80}]},
        {"name": "injected"},
    ]);
    assert_eq!(pod(object, patch), containers(wanted));
}

#[test]
fn retain_keys_clears_what_it_does_not_name() {
    let deployment = Descriptor::of::<Deployment>();
    let object = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    let patched = apply(&deployment, &object, &patch).unwrap();
    assert_eq!(patched, json!({"spec": {"strategy": {"type": "Recreate"}}}));
    let volumes = |list: Value| json!({"spec": {"volumes": list}});
    let patched = pod(
        volumes(json!([{"name": "v", "emptyDir": {}}])),
        volumes(json!([{"$retainKeys": ["name", "secret"], "name": "v", "secret": {"secretName": "s"}}])),
    );
    assert_eq!(patched, volumes(json!([{"name": "v", "secret": {"secretName": "s"}}])));
    let message = refused(json!({"spec": {}}), json!({"spec": {"$retainKeys": ["a"], "b": 1}}));
    assert_eq!(message, "invalid patch format of retainKeys");
}

#[test]
fn scalars_of_a_set_are_added_once_and_deleted_by_directive() {
    let object = json!({"metadata": {"finalizers": ["a/1", "b/2", "c/3"]}});
    let patch = json!({"metadata": {"finalizers": ["d/4", "b/2"], "$deleteFromPrimitiveList/finalizers": ["c/3"]}});
    assert_eq!(pod(object, patch), json!({"metadata": {"finalizers": ["d/4", "a/1", "b/2"]}}));
}

#[test]
fn an_item_without_its_merge_key_is_refused() {
    let message = refused(containers(json!([{"name": "a"}])), containers(json!([{"image": "x"}])));
    assert_eq!(message, "map: map[image:x] does not contain declared merge key: name");
    let message = refused(containers(json!([])), containers(json!([{"$patch": "twist", "name": "a"}])));
    assert_eq!(message, "unknown patch type: \"twist\" in map: map[name:a]");
}

fn has_directive(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, value)| key.starts_with('$') || has_directive(value)),
        Value::Array(items) => items.iter().any(has_directive),
        _ => false,
    }
}

fn names() -> impl Strategy<Value = Vec<(usize, bool, u8)>> {
    proptest::collection::vec((0_usize..5, any::<bool>(), any::<u8>()), 0..5)
}

fn list(items: &[(usize, bool, u8)], directives: bool) -> Value {
    let mut seen = Vec::new();
    let items = items.iter().filter(|(name, ..)| {
        let new = !seen.contains(name);
        seen.push(*name);
        new
    });
    let items = items.map(|(name, delete, image)| {
        if directives && *delete {
            json!({"name": name.to_string(), "$patch": "delete"})
        } else {
            json!({"name": name.to_string(), "image": image.to_string()})
        }
    });
    containers(items.collect())
}

proptest! {
    #[test]
    fn patching_twice_is_patching_once_and_leaves_no_directive(object in names(), patch in names()) {
        let (object, patch) = (list(&object, false), list(&patch, true));
        let once = pod(object, patch.clone());
        prop_assert!(!has_directive(&once));
        prop_assert_eq!(pod(once.clone(), patch), once);
    }

    #[test]
    fn every_item_of_either_side_is_there_unless_deleted(object in names(), patch in names()) {
        let (object, patch) = (list(&object, false), list(&patch, true));
        let merged = pod(object.clone(), patch.clone());
        let names = |tree: &Value, deleted: bool| -> std::collections::BTreeSet<String> {
            let items = tree["spec"]["containers"].as_array().unwrap().iter();
            items.filter(|i| i.get("$patch").is_some() == deleted).map(|i| i["name"].to_string()).collect()
        };
        let mut wanted: std::collections::BTreeSet<String> = &names(&object, false) - &names(&patch, true);
        wanted.extend(names(&patch, false));
        prop_assert_eq!(names(&merged, false), wanted);
    }

    #[test]
    fn an_order_that_names_every_item_is_the_order_of_the_result(object in names(), patch in names(), seed in any::<u64>()) {
        let (object, patch) = (list(&object, false), list(&patch, false));
        let merged = pod(object.clone(), patch.clone());
        let name = |item: &Value| item["name"].as_str().unwrap().to_owned();
        let mut order: Vec<String> = merged["spec"]["containers"].as_array().unwrap().iter().map(name).collect();
        // Any permutation will do; this one is found from the seed alone.
        order.sort_by_key(|name| seed.rotate_left(name.parse::<u32>().unwrap() * 7));
        let mut ordered = patch["spec"]["containers"].as_array().unwrap().clone();
        ordered.sort_by_key(|item| order.iter().position(|n| *n == name(item)));
        let keys: Vec<Value> = order.iter().map(|name| json!({"name": name})).collect();
        let patch = json!({"spec": {"$setElementOrder/containers": keys, "containers": ordered}});
        let result = pod(object, patch);
        let result: Vec<String> = result["spec"]["containers"].as_array().unwrap().iter().map(name).collect();
        prop_assert_eq!(result, order);
    }

    #[test]
    fn an_empty_patch_changes_nothing(object in names()) {
        let object = list(&object, false);
        prop_assert_eq!(pod(object.clone(), json!({})), object);
    }
}
