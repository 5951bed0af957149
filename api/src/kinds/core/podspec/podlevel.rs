//! What a pod asks for as a whole (`spec.resources`), beside what its containers ask for.

use serde_json::{Value, json};

use super::busiest;
use super::resources::{self, PAGES, parse};
use crate::field::{ErrorList, Path};
use crate::kinds::tree::{fill, list, map, object, some, text};
use crate::quantity::Quantity;

/// What a whole pod may ask for, besides pages of memory.
const NAMES: &[&str] = &["cpu", "memory"];

fn is_known(name: &str) -> bool {
    NAMES.contains(&name) || name.starts_with(PAGES)
}

/// A pod that asks for anything as a whole is limited to its containers' pages of memory, unless it requests such pages itself;
/// one that is limited requests what its containers do together, and else its limit.
pub(super) fn default(spec: &mut Value) {
    let given = |field: &str| map(spec, &format!("/resources/{field}"));
    if given("limits").chain(given("requests")).next().is_none() {
        return;
    }
    let requested: Vec<String> = given("requests").map(|(name, _)| name.clone()).collect();
    let (limits, requests) = (busiest::of_spec(spec, "limits"), busiest::of_spec(spec, "requests"));
    let pages = limits.into_iter().filter(|(name, _)| name.starts_with(PAGES) && !requested.contains(name));
    let sums = requests.into_iter().filter(|(name, _)| resources::may_overcommit(name));
    let Some(all) = spec.get_mut("resources") else { return };
    fill_amounts(all, "limits", pages.map(shown).collect());
    let limits: Vec<_> = map(all, "/limits").map(|(name, amount)| (name.clone(), amount.clone())).collect();
    if !limits.is_empty() {
        fill_amounts(all, "requests", sums.map(shown).chain(limits).filter(|(name, _)| is_known(name)).collect());
    }
}

fn shown((name, amount): (String, Quantity)) -> (String, Value) {
    (name, json!(amount.to_string()))
}

fn fill_amounts(resources: &mut Value, field: &str, amounts: Vec<(String, Value)>) {
    if amounts.is_empty() {
        return;
    }
    if let Some(there) = object(resources, field) {
        for (name, amount) in amounts {
            fill(there, &name, amount);
        }
    }
}

pub(super) fn validate(spec: &Value, spec_path: &Path, errors: &mut ErrorList) {
    let Some(all) = some(spec, "/resources") else { return };
    let path = spec_path.child("resources");
    if some(all, "/claims").is_some() {
        errors.forbidden(&path.child("claims"), "claims cannot be set for Resources at pod-level");
    }
    if text(spec, "/os/name") == "windows" {
        errors.forbidden(&path, "may not be set for a windows pod");
    }
    for field in ["limits", "requests"] {
        for (name, amount) in map(all, &format!("/{field}")) {
            let before = errors.made();
            let amount_path = path.child(field).key(name);
            resources::validate_any_name(name, &amount_path, errors);
            if errors.made() == before && !is_known(name) {
                errors.not_supported(&amount_path, name, NAMES);
            }
            resources::validate_amount(name, amount, &amount_path, errors);
        }
    }
    resources::validate_relation(all, &path, errors);
    validate_parts(spec, all, &path, errors);
}

/// The whole is at least its parts.
fn validate_parts(spec: &Value, all: &Value, path: &Path, errors: &mut ErrorList) {
    let amount = |field: &str, name: &str| all.get(field)?.get(name).and_then(|amount| parse(amount).ok());
    for (name, sum) in busiest::of_spec(spec, "requests").into_iter().filter(|(name, _)| is_known(name)) {
        if let Some(request) = amount("requests", &name).filter(|request| sum > *request) {
            let why = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.invalid(&path.child("requests").key(&name), &json!(request.to_string()), &why);
        }
    }
    for (index, container) in list(spec, "/containers").iter().enumerate() {
        for (name, limit) in map(container, "/resources/limits") {
            let (Ok(limit), Some(most)) = (parse(limit), amount("limits", name)) else { continue };
            if limit > most {
                let path = path.child("containers").index(index).key(name).child("limits");
                let why = format!("must be less than or equal to pod limits of {most}");
                errors.invalid(&path, &json!(limit.to_string()), &why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_refused, complaints};
    use super::*;

    #[test]
    fn a_pod_asks_for_at_least_what_its_containers_do() {
        let cpu = |amount: &str| json!({"resources": {"requests": {"cpu": amount}}});
        for (resources, container, why) in [
            (
                json!({"requests": {"cpu": "1"}}),
                cpu("2"),
                "requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 2",
            ),
            (
                json!({"limits": {"cpu": "1"}}),
                json!({"resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}}),
                "containers[0][cpu].limits: Invalid value: \"2\": must be less than or equal to pod limits of 1",
            ),
            (
                json!({"claims": [{"name": "a"}]}),
                json!({}),
                "claims: Forbidden: claims cannot be set for Resources at pod-level",
            ),
            (
                json!({"requests": {"foo": "1"}}),
                json!({}),
                "requests[foo]: Invalid value: \"foo\": must be a standard resource type or fully qualified",
            ),
            (
                json!({"limits": {"ephemeral-storage": "1"}}),
                json!({}),
                "limits[ephemeral-storage]: Unsupported value: \"ephemeral-storage\": supported values: \"cpu\", \
                 \"memory\"",
            ),
        ] {
            assert_refused(json!({ "resources": resources }), &container, &format!("spec.resources.{why}"));
        }
        let init = json!({"name": "i", "image": "x", "resources": {"requests": {"cpu": "3"}}});
        assert_eq!(
            complaints(&json!({"containers": [{"name": "a", "image": "x"}], "initContainers": [init],
                "resources": {"requests": {"cpu": "2"}}})),
            [
                "spec.resources.requests[cpu]: Invalid value: \"2\": must be greater than or equal to aggregate container \
              requests of 3"
            ]
        );
    }

    #[test]
    fn a_pod_requests_what_its_containers_do_and_else_its_limit() {
        let mut spec = json!({"resources": {"limits": {"cpu": "4", "memory": "1Gi"}}, "containers": [
            {"resources": {"requests": {"cpu": "500m"}}}, {"resources": {"requests": {"cpu": "1"}}}]});
        default(&mut spec);
        assert_eq!(spec["resources"]["requests"], json!({"cpu": "1500m", "memory": "1Gi"}));
        let once = spec.clone();
        default(&mut spec);
        assert_eq!(spec, once);
    }

    #[test]
    fn pages_of_containers_limit_the_pod_and_nothing_is_requested_without_a_limit() {
        let pages = |amount: &str| json!({"limits": {"hugepages-2Mi": amount, "cpu": "1"}, "requests": {"hugepages-2Mi": amount, "cpu": "1"}});
        let defaulted = |resources: Value, container: Value| {
            let mut spec =
                json!({"resources": resources, "containers": [{"name": "a", "image": "x", "resources": container}]});
            assert_eq!(complaints(&spec), Vec::<String>::new());
            default(&mut spec);
            spec["resources"].clone()
        };
        assert_eq!(
            defaulted(json!({"requests": {"cpu": "1"}}), pages("4Mi")),
            json!({"limits": {"hugepages-2Mi": "4Mi"}, "requests": {"cpu": "1", "hugepages-2Mi": "4Mi"}})
        );
        assert_eq!(
            defaulted(json!({"limits": {"cpu": "1", "hugepages-2Mi": "4Mi"}}), pages("2Mi"))["requests"]["hugepages-2Mi"],
            "4Mi"
        );
        let asked = json!({"requests": {"cpu": "2"}});
        assert_eq!(defaulted(asked.clone(), json!({"requests": {"memory": "1Gi"}})), asked);
        assert_eq!(defaulted(json!({}), json!({"requests": {"memory": "1Gi"}})), json!({}));
        let mut own =
            json!({"resources": {"requests": {"hugepages-2Mi": "4Mi"}}, "containers": [{"resources": pages("2Mi")}]});
        default(&mut own);
        assert_eq!(own["resources"], json!({"requests": {"hugepages-2Mi": "4Mi"}}), "its own pages need its own limit");
    }
}
