//! Requests and limits: their names, amounts and relation, and the quality of service that follows.

use serde_json::{Map, Value, json};

use super::claims::{self, ClaimNames};
use crate::field::{ErrorList, Path};
use crate::kinds::tree::{list, map, object, set, some};
use crate::meta::{names, push_all};
use crate::quantity::Quantity;

/// What a `resourceFieldRef` may name.
pub(super) const FIELDS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
/// What pages of memory of one size are named with.
pub(super) const PAGES: &str = "hugepages-";
const OF_CONTAINERS: &[&str] = &["cpu", "memory", "ephemeral-storage"];
/// Names without a domain, beside those of containers.
const STANDARD: &[&str] = &[
    "configmaps",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
];
const MEMORY_DIVISORS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// Writes amounts in their canonical form, in thousandths at the finest.
pub(super) fn round(container: &mut Value) {
    for field in ["limits", "requests"] {
        let pointer = format!("/resources/{field}");
        if let Some(amounts) = container.pointer_mut(&pointer).and_then(Value::as_object_mut) {
            canonical(amounts);
        }
    }
}

fn canonical(amounts: &mut Map<String, Value>) {
    for amount in amounts.values_mut() {
        if let Ok(quantity) = parse(amount) {
            let rounded = Quantity::from_milli(quantity.milli());
            let finer = rounded != quantity && quantity.milli() != i64::MAX;
            *amount = Value::String(if finer { rounded } else { quantity }.to_string());
        }
    }
}

pub(crate) fn parse(amount: &Value) -> Result<Quantity, &'static str> {
    match amount {
        Value::String(text) => text.parse(),
        other => other.to_string().parse(),
    }
}

/// What is limited but not requested is requested at its limit.
pub(super) fn default_requests(container: &mut Value) {
    let Some(resources) = container.get_mut("resources") else { return };
    let limits: Vec<(String, Value)> = map(resources, "/limits").map(|(k, v)| (k.clone(), v.clone())).collect();
    if limits.is_empty() {
        return;
    }
    if let Some(requests) = object(resources, "requests") {
        for (name, amount) in limits {
            if requests.get(&name).is_none() {
                set(requests, &name, amount);
            }
        }
    }
}

/// Judges a container's requests and limits, and the pod's claims that it uses.
pub(super) fn validate(container: &Value, known: &ClaimNames<'_>, path: &Path, errors: &mut ErrorList) {
    let Some(resources) = some(container, "/resources") else { return };
    for field in ["limits", "requests"] {
        validate_list(resources.get(field).unwrap_or(&Value::Null), &path.child(field), errors);
    }
    validate_relation(resources, path, errors);
    claims::validate_used(list(resources, "/claims"), known, &path.child("claims"), errors);
}

/// Judges requests beside limits, and pages beside everything else.
pub(super) fn validate_relation(resources: &Value, path: &Path, errors: &mut ErrorList) {
    let limits = resources.get("limits").unwrap_or(&Value::Null);
    for (name, amount) in map(resources, "/requests") {
        let Some(limit) = limits.get(name) else {
            if !may_overcommit(name) {
                errors.required(&path.child("limits"), "Limit must be set for non overcommitable resources");
            }
            continue;
        };
        let (Ok(request), Ok(limit)) = (parse(amount), parse(limit)) else { continue };
        let path = path.child("requests");
        if request != limit && !may_overcommit(name) {
            errors.invalid(&path, &json!(request.to_string()), &format!("must be equal to {name} limit of {limit}"));
        } else if request > limit {
            let why = format!("must be less than or equal to {name} limit of {limit}");
            errors.invalid(&path, &json!(request.to_string()), &why);
        }
    }
    let all = || map(resources, "/limits").chain(map(resources, "/requests")).map(|(name, _)| name.as_str());
    if all().any(|name| name.starts_with(PAGES)) && !all().any(|name| name == "cpu" || name == "memory") {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

/// Judges a map from resource names to amounts.
pub fn validate_list(amounts: &Value, path: &Path, errors: &mut ErrorList) {
    for (name, amount) in map(amounts, "") {
        let path = path.key(name);
        validate_name(name, &path, errors);
        validate_amount(name, amount, &path, errors);
    }
}

/// Judges how much there is of a resource.
pub(super) fn validate_amount(name: &str, amount: &Value, path: &Path, errors: &mut ErrorList) {
    match parse(amount) {
        Ok(quantity) if quantity < Quantity::ZERO => {
            errors.invalid(path, &json!(quantity.to_string()), "must be greater than or equal to 0");
        }
        Ok(quantity) => validate_whole(name, quantity, path, errors),
        Err(why) => errors.invalid(path, amount, why),
    }
}

/// What is counted is whole, and pages are as large as they are.
fn validate_whole(name: &str, amount: Quantity, path: &Path, errors: &mut ErrorList) {
    let milli = amount.milli();
    if is_extended(name) && milli % 1000 != 0 && milli != i64::MAX {
        errors.invalid(path, &json!(amount.to_string()), "must be an integer");
    }
    if let Some(size) = name.strip_prefix(PAGES) {
        let size = size.parse::<Quantity>().map_or(0, Quantity::value);
        if size <= 0 || amount.value() % size != 0 {
            let why = format!("{amount} is not positive integer multiple of {name}");
            errors.invalid(path, &json!(amount.to_string()), &why);
        }
    }
}

/// Judges the name of something that a container may ask for.
pub(crate) fn validate_name(name: &str, path: &Path, errors: &mut ErrorList) {
    validate_any_name(name, path, errors);
    if !name.contains('/') && !is_of_containers(name) {
        errors.invalid(path, &json!(name), "must be a standard resource for containers");
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, &json!(name), "doesn't follow extended resource name standard");
    }
}

fn is_of_containers(name: &str) -> bool {
    OF_CONTAINERS.contains(&name) || name.starts_with(PAGES)
}

/// Judges the name of any resource.
pub(crate) fn validate_any_name(name: &str, path: &Path, errors: &mut ErrorList) {
    push_all(errors, path, name, names::qualified_name(name));
    if !name.contains('/') && !is_of_containers(name) && !STANDARD.contains(&name) {
        errors.invalid(path, &json!(name), "must be a standard resource type or fully qualified");
    }
}

/// Whether a resource is Kubernetes' own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether a resource is of somebody else than Kubernetes (`example.com/gpu`).
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.")
}

/// Whether a container may request less of a resource than its limit.
pub fn may_overcommit(name: &str) -> bool {
    is_native(name) && !name.starts_with(PAGES)
}

/// Whether a `resourceFieldRef` may name this.
pub(super) fn is_field(field: &str) -> bool {
    let name = field.strip_prefix("limits.").or_else(|| field.strip_prefix("requests."));
    FIELDS.contains(&field) || name.is_some_and(|name| name.starts_with(PAGES))
}

/// Judges the divisor of a `resourceFieldRef`.
pub(super) fn validate_divisor(source: &Value, resource: &str, path: &Path, errors: &mut ErrorList) {
    let Some(divisor) = some(source, "/divisor").filter(|_| is_field(resource)) else { return };
    let Ok(quantity) = parse(divisor) else {
        return errors.invalid(&path.child("divisor"), divisor, "unable to parse quantity's suffix");
    };
    let shown = quantity.to_string();
    if shown == "0" {
        return;
    }
    let path = path.child("divisor");
    let (_, kind) = resource.split_once('.').unwrap_or_default();
    if kind == "cpu" {
        if shown != "1" && shown != "1m" {
            let why = "only divisor's values 1m and 1 are supported with the cpu resource";
            errors.invalid(&path, &json!(resource), why);
        }
    } else if !MEMORY_DIVISORS.contains(&shown.as_str()) {
        let kind = match kind {
            "memory" => kind,
            _ if kind.starts_with(PAGES) => "hugepages",
            _ => "local ephemeral storage",
        };
        let why = format!(
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the \
             {kind} resource"
        );
        errors.invalid(&path, &json!(resource), &why);
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`: from what a pod asks for as a whole, or else from its containers.
pub fn qos_class(spec: &Value) -> &'static str {
    let whole = ["/resources/limits", "/resources/requests"].iter().any(|field| map(spec, field).next().is_some());
    let parts: Vec<&Value> = if whole {
        vec![spec]
    } else {
        list(spec, "/containers").iter().chain(list(spec, "/initContainers")).collect()
    };
    let amount = |container: &Value, field: &str, name: &str| {
        let amount = container.pointer(&format!("/resources/{field}/{name}"))?;
        parse(amount).ok().filter(|q| *q > Quantity::ZERO)
    };
    let mut any = false;
    let mut guaranteed = true;
    for container in parts {
        for name in ["cpu", "memory"] {
            let (request, limit) = (amount(container, "requests", name), amount(container, "limits", name));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_refused, complaints};
    use super::*;

    fn with(resources: &Value) -> Vec<String> {
        complaints(&json!({"containers": [{"name": "a", "image": "x", "resources": resources}]}))
    }

    #[test]
    fn a_request_fits_its_limit() {
        assert_eq!(
            with(&json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1000m"}})),
            [
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"
            ]
        );
        assert!(with(&json!({"requests": {"cpu": "500m"}, "limits": {"cpu": 1, "memory": "1Gi"}})).is_empty());
    }

    #[test]
    fn amounts_and_names_are_judged() {
        assert_eq!(
            with(&json!({"limits": {"gold": "1", "memory": "-1"}})),
            [
                "spec.containers[0].resources.limits[gold]: Invalid value: \"gold\": must be a standard resource type or \
                 fully qualified",
                "spec.containers[0].resources.limits[gold]: Invalid value: \"gold\": must be a standard resource for \
                 containers",
                "spec.containers[0].resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.containers[0].resources.requests[gold]: Invalid value: \"gold\": must be a standard resource type or \
                 fully qualified",
                "spec.containers[0].resources.requests[gold]: Invalid value: \"gold\": must be a standard resource for \
                 containers",
                "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0"
            ]
        );
        assert!(
            with(&json!({"limits": {"memory": "lots"}}))[0].contains("quantities must match the regular expression")
        );
    }

    #[test]
    fn requests_follow_limits_in_canonical_form() {
        let mut container =
            json!({"resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": 0.5}}});
        round(&mut container);
        default_requests(&mut container);
        assert_eq!(
            container["resources"],
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}})
        );
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        for (resources, class) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable"),
            (json!({"limits": {"memory": "1Gi"}}), "Burstable"),
        ] {
            assert_eq!(qos_class(&json!({"containers": [{"resources": resources}]})), class, "{resources}");
        }
    }

    #[test]
    fn a_whole_pod_has_the_class_of_what_it_asks_for() {
        let all = json!({"cpu": "1", "memory": "1Gi"});
        let spec = json!({"resources": {"limits": all, "requests": all}, "containers": [{}]});
        assert_eq!(qos_class(&spec), "Guaranteed");
        let spec = json!({"resources": {"requests": all}, "containers": [{"resources": {"limits": all}}]});
        assert_eq!(qos_class(&spec), "Burstable");
    }

    #[test]
    fn names_of_kubernetes_own_domain_are_good() {
        assert_eq!(with(&json!({"requests": {"kubernetes.io/batch-cpu": "1"}})), Vec::<String>::new());
        assert_eq!(with(&json!({"requests": {"node.kubernetes.io/x": "1"}})), Vec::<String>::new());
        assert_eq!(
            with(&json!({"limits": {"pods": "1"}})).first().map(String::as_str),
            Some(
                "spec.containers[0].resources.limits[pods]: Invalid value: \"pods\": must be a standard resource for containers"
            )
        );
        assert_eq!(
            with(&json!({"limits": {"requests.a/b": "1"}})).first().map(String::as_str),
            Some(
                "spec.containers[0].resources.limits[requests.a/b]: Invalid value: \"requests.a/b\": doesn't follow extended resource name standard"
            )
        );
    }

    #[test]
    fn what_is_not_shared_is_whole_and_limited() {
        for (resources, why) in [
            (
                json!({"requests": {"hugepages-2Mi": "2Mi", "cpu": "1"}}),
                ".limits: Required value: Limit must be set for non overcommitable resources",
            ),
            (
                json!({"requests": {"a.b/c": "1"}}),
                ".limits: Required value: Limit must be set for non overcommitable resources",
            ),
            (
                json!({"requests": {"a.b/c": "1"}, "limits": {"a.b/c": "2"}}),
                ".requests: Invalid value: \"1\": must be equal to a.b/c limit of 2",
            ),
            (json!({"limits": {"hugepages-2Mi": "2Mi"}}), ": Forbidden: HugePages require cpu or memory"),
        ] {
            assert_refused(
                json!({}),
                &json!({ "resources": resources }),
                &format!("spec.containers[0].resources{why}"),
            );
        }
        let fraction = with(&json!({"limits": {"a.b/c": "1500m"}}));
        assert_eq!(
            fraction.first().map(String::as_str),
            Some("spec.containers[0].resources.limits[a.b/c]: Invalid value: \"1500m\": must be an integer")
        );
        let pages = with(&json!({"limits": {"hugepages-2Mi": "3Mi", "memory": "1Gi"}}));
        assert_eq!(
            pages.first().map(String::as_str),
            Some(
                "spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer \
                 multiple of hugepages-2Mi"
            )
        );
        assert!(with(&json!({"limits": {"hugepages-2Mi": "4Mi", "memory": "1Gi", "a.b/c": "2"}})).is_empty());
    }
}
