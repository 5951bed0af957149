//! What a running pod asks for may change (`resize`): cpu and memory of containers, sidecars and the pod as a whole, within the
//! pod's class. Nothing that was said is taken back.

use serde_json::{Value, json};

use super::annotations;
use super::parts::SIZED;
use crate::field::{ErrorList, Path};
use crate::kinds::core::podspec::resources;
use crate::kinds::tree::{list, map, text};
use crate::meta::same;

/// What is resized.
const MUTABLE: [&str; 2] = ["cpu", "memory"];

pub(super) fn validate(new: &Value, old: &Value, spec: &Path, errors: &mut ErrorList) {
    if annotations::is_mirror(old) {
        return errors.forbidden(&Path::new(""), "static pods cannot be resized");
    }
    if text(old, "/spec/os/name") == "windows" {
        return errors.forbidden(&Path::new(""), "windows pods cannot be resized");
    }
    let null = Value::Null;
    let (now, before) = (new.get("spec").unwrap_or(&null), old.get("spec").unwrap_or(&null));
    let class = match text(old, "/status/qosClass") {
        "" => resources::qos_class(before),
        class => class,
    };
    if class != resources::qos_class(now) {
        errors.invalid(spec, &json!(class), "Pod QOS Class may not change as a result of resizing");
    }
    validate_kept(now, before, spec, errors);
    if !only_mutable(now, before) {
        errors.forbidden(spec, "only cpu and memory resources are mutable");
    }
    let before_order = errors.made();
    for field in SIZED {
        validate_order(now, before, field, spec, errors);
    }
    if errors.made() > before_order {
        return;
    }
    for field in SIZED {
        let pointer = format!("/{field}");
        for (index, (now, before)) in list(now, &pointer).iter().zip(list(before, &pointer)).enumerate() {
            validate_container(now, before, field, &spec.child(field).index(index), spec, errors);
        }
    }
}

/// The containers are the same, in the same order.
fn validate_order(new: &Value, old: &Value, field: &str, spec: &Path, errors: &mut ErrorList) {
    let (pointer, path) = (format!("/{field}"), spec.child(field));
    let (new, old) = (list(new, &pointer), list(old, &pointer));
    if new.len() != old.len() {
        return errors.forbidden(&path, &format!("{field} may not be added or removed on resize"));
    }
    for (index, (new, old)) in new.iter().zip(old).enumerate() {
        if text(new, "/name") != text(old, "/name") {
            let why = format!("{field} may not be renamed or reordered on resize");
            errors.forbidden(&path.index(index).child("name"), &why);
        }
    }
}

/// What was requested or limited, of a container or of the pod as a whole, stays so.
fn validate_kept(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    for sort in ["requests", "limits"] {
        let pointer = format!("/resources/{sort}");
        let kept = |name: &str| new.pointer(&pointer).is_some_and(|map| map.get(name).is_some());
        if map(old, &pointer).any(|(name, _)| !kept(name)) {
            errors.forbidden(&path.child("resources").child(sort), &format!("resource {sort} cannot be removed"));
        }
    }
}

fn validate_container(new: &Value, old: &Value, field: &str, path: &Path, spec: &Path, errors: &mut ErrorList) {
    validate_kept(new, old, path, errors);
    let init = field == "initContainers";
    if init && text(old, "/restartPolicy") != "Always" {
        if !same(Some(new), Some(old)) {
            errors.forbidden(spec, "resources for non-sidecar init containers are immutable");
        }
    } else if !only_mutable(new, old) {
        let whose = if init { " for sidecar containers" } else { "" };
        errors.forbidden(spec, &format!("only cpu and memory resources{whose} are mutable"));
    }
}

/// Whether nothing but cpu and memory differs. Where nothing was said before, anything may be.
fn only_mutable(new: &Value, old: &Value) -> bool {
    let same_amounts = ["requests", "limits"].iter().all(|sort| {
        let pointer = format!("/resources/{sort}");
        let (now, before) = (new.pointer(&pointer), old.pointer(&pointer));
        let get = |map: Option<&Value>, name: &str| map.and_then(|map| map.get(name)).cloned();
        let mut names = map(new, &pointer).chain(map(old, &pointer)).map(|(name, _)| name.as_str());
        before.is_none() || names.all(|name| MUTABLE.contains(&name) || get(now, name) == get(before, name))
    });
    same_amounts && same(new.pointer("/resources/claims"), old.pointer("/resources/claims"))
}

#[cfg(test)]
mod tests {
    use super::super::parts::{self, RESIZE};
    use super::*;
    use crate::kinds::core::podspec;

    fn pod() -> Value {
        let container = |name: &str| json!({"name": name, "image": "x", "resources": {"requests": {"cpu": "1"}}});
        let mut sidecar = container("s");
        sidecar["restartPolicy"] = json!("Always");
        let mut spec =
            json!({"containers": [container("a"), container("b")], "initContainers": [container("i"), sidecar]});
        podspec::default(&mut spec);
        json!({"metadata": {"name": "p", "resourceVersion": "3"}, "spec": spec, "status": {"qosClass": "Burstable"}})
    }

    fn resize_of(old: &Value, change: impl FnOnce(&mut Value)) -> (Value, Vec<String>) {
        let mut new = old.clone();
        change(&mut new["spec"]);
        podspec::default(&mut new["spec"]);
        parts::prepare(&mut new, old, RESIZE);
        let mut errors = ErrorList::default();
        parts::validate(&new, old, RESIZE, &mut errors);
        (new, errors.iter().map(ToString::to_string).collect())
    }

    fn resize(change: impl FnOnce(&mut Value)) -> (Value, Vec<String>) {
        resize_of(&pod(), change)
    }

    fn refused(change: impl FnOnce(&mut Value)) -> Vec<String> {
        resize(change).1
    }

    #[test]
    fn containers_and_sidecars_are_resized_and_nothing_else_changes() {
        let (resized, said) = resize(|spec| {
            spec["containers"][1]["resources"] =
                json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "3"}});
            spec["containers"][1]["resizePolicy"] =
                json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
            spec["containers"][1]["image"] = json!("y");
            spec["initContainers"][1]["resources"]["requests"]["cpu"] = json!("5");
            spec["nodeName"] = json!("n");
        });
        assert_eq!(said, Vec::<String>::new());
        let spec = &resized["spec"];
        assert_eq!(spec["containers"][1]["resources"]["requests"]["memory"], "1Gi");
        assert_eq!(spec["containers"][1]["resizePolicy"][0]["restartPolicy"], "RestartContainer");
        assert_eq!(spec["initContainers"][1]["resources"]["requests"]["cpu"], "5");
        assert_eq!((&spec["containers"][1]["image"], spec.get("nodeName")), (&json!("x"), None));
    }

    #[test]
    fn the_pod_as_a_whole_is_resized_like_a_container() {
        let mut whole = pod();
        whole["spec"]["resources"] =
            json!({"requests": {"cpu": "3", "memory": "1Gi"}, "limits": {"cpu": "4", "hugepages-2Mi": "2Mi"}});
        let resize = |change: &dyn Fn(&mut Value)| resize_of(&whole, |spec| change(&mut spec["resources"]));
        let (resized, said) = resize(&|resources| resources["requests"]["cpu"] = json!("4"));
        assert_eq!((said, &resized["spec"]["resources"]["requests"]["cpu"]), (vec![], &json!("4")));
        let (_, said) = resize(&|resources| drop(resources["requests"].as_object_mut().unwrap().remove("memory")));
        assert_eq!(said, ["spec.resources.requests: Forbidden: resource requests cannot be removed"]);
        let (_, said) = resize(&|resources| resources["limits"]["hugepages-2Mi"] = json!("4Mi"));
        assert_eq!(said, ["spec: Forbidden: only cpu and memory resources are mutable"]);
    }

    #[test]
    fn a_pod_stays_in_its_class() {
        let guaranteed = json!({"requests": {"cpu": "1", "memory": "1"}, "limits": {"cpu": "1", "memory": "1"}});
        let said = refused(|spec| {
            for (list, index) in [("containers", 0), ("containers", 1), ("initContainers", 1)] {
                spec[list][index]["resources"] = guaranteed.clone();
            }
            spec["initContainers"][0]["resources"] = guaranteed.clone();
        });
        assert_eq!(
            said,
            [
                "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
                "spec: Forbidden: resources for non-sidecar init containers are immutable"
            ]
        );
    }

    #[test]
    fn the_containers_stay_the_same_in_the_same_order() {
        let other = || json!({"name": "c", "image": "x"});
        let said = refused(|spec| {
            spec["containers"].as_array_mut().unwrap().push(other());
            spec["initContainers"].as_array_mut().unwrap().clear();
        });
        assert_eq!(
            said,
            [
                "spec.containers: Forbidden: containers may not be added or removed on resize",
                "spec.initContainers: Forbidden: initContainers may not be added or removed on resize"
            ]
        );
        let said = refused(|spec| spec["containers"].as_array_mut().unwrap().reverse());
        assert_eq!(
            said,
            [
                "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize",
                "spec.containers[1].name: Forbidden: containers may not be renamed or reordered on resize"
            ]
        );
    }

    #[test]
    fn nothing_that_was_said_is_taken_back_and_only_cpu_and_memory_change() {
        let said = refused(|spec| spec["containers"][0]["resources"] = json!({"limits": {"memory": "1"}}));
        assert_eq!(said, ["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"]);
        let said = refused(|spec| {
            spec["containers"][0]["resources"]["requests"]["ephemeral-storage"] = json!("1Gi");
            spec["initContainers"][1]["resources"]["requests"]["ephemeral-storage"] = json!("1Gi");
        });
        assert_eq!(
            said,
            [
                "spec: Forbidden: only cpu and memory resources are mutable",
                "spec: Forbidden: only cpu and memory resources for sidecar containers are mutable"
            ]
        );
    }

    #[test]
    fn a_nodes_own_pods_and_those_of_windows_keep_their_size() {
        let mut mirror = pod();
        mirror["metadata"]["annotations"] = json!({annotations::MIRROR: "x"});
        let mut windows = pod();
        windows["spec"]["os"] = json!({"name": "windows"});
        for (pod, whose) in [(mirror, "static"), (windows, "windows")] {
            let (_, said) = resize_of(&pod, |spec| spec["containers"][0]["resources"]["requests"]["cpu"] = json!("2"));
            assert!(said.last().unwrap().ends_with(&format!("Forbidden: {whose} pods cannot be resized")), "{said:?}");
        }
    }
}
