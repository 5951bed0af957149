//! LimitRange: how large pods, containers and claims of a namespace may be, and how large they are if they do not say.

use std::collections::{BTreeSet, HashSet};

use k8s_openapi::api::core::v1::LimitRange;
use serde_json::{Value, json};

use super::podspec::resources::{self, parse};
use crate::field::{ErrorList, Path};
use crate::kinds::cells;
use crate::kinds::tree::{list, list_mut, map, object, set, some, text};
use crate::meta::{names, push_all};
use crate::quantity::Quantity;
use crate::resource::Descriptor;
use crate::strategy::Strategy;

const TYPES: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];

pub fn descriptor() -> Descriptor {
    Descriptor::of::<LimitRange>()
        .short(&["limits"])
        .columns(vec![cells::name(), cells::created_at()])
        .create_on_update()
        .no_generation()
        .strategy(LimitRangeStrategy)
}

#[derive(Debug)]
struct LimitRangeStrategy;

impl Strategy for LimitRangeStrategy {
    /// A container's default limit is its maximum; its default request is its default limit, else its minimum.
    fn default(&self, range: &mut Value) {
        let items = range.get_mut("spec").into_iter().flat_map(|spec| list_mut(spec, "limits"));
        for item in items.filter(|item| text(item, "/type") == "Container") {
            for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
                let amounts: Vec<(String, Value)> =
                    map(item, &format!("/{from}")).map(|(name, amount)| (name.clone(), amount.clone())).collect();
                let Some(target) = object(item, to) else { continue };
                for (name, amount) in amounts {
                    if target.get(&name).is_none() {
                        set(target, &name, amount);
                    }
                }
            }
        }
    }

    fn validate(&self, range: &Value, errors: &mut ErrorList) {
        let mut seen = HashSet::new();
        for (index, item) in list(range, "/spec/limits").iter().enumerate() {
            let path = Path::new("spec").child("limits").index(index);
            let kind = text(item, "/type");
            validate_type(kind, &path.child("type"), errors);
            if !seen.insert(kind) {
                errors.duplicate(&path.child("type"), &json!(kind));
            }
            validate_item(item, kind, &path, errors);
        }
    }
}

fn validate_type(kind: &str, path: &Path, errors: &mut ErrorList) {
    push_all(errors, path, kind, names::qualified_name(kind));
    if !kind.contains('/') && !TYPES.contains(&kind) {
        errors.invalid(path, &json!(kind), "must be a standard limit type or fully qualified");
    }
}

fn validate_item(item: &Value, kind: &str, path: &Path, errors: &mut ErrorList) {
    let mut amounts = BTreeSet::new();
    for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let path = path.child(field);
        if kind == "Pod" && field.starts_with("default") {
            if map(item, &format!("/{field}")).next().is_some() {
                errors.forbidden(&path, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (name, amount) in map(item, &format!("/{field}")) {
            let path = path.key(name);
            if matches!(kind, "Pod" | "Container") {
                resources::validate_name(name, &path, errors);
            } else {
                resources::validate_any_name(name, &path, errors);
            }
            if let Err(why) = parse(amount) {
                errors.invalid(&path, amount, why);
            }
            amounts.insert(name.as_str());
        }
    }
    let storage = |field: &str| some(item, &format!("/{field}/storage")).is_some();
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        errors.required(&path.child("limits"), why);
    }
    for name in amounts {
        validate_order(item, name, path, errors);
    }
}

/// min ≤ defaultRequest ≤ default ≤ max, and a ratio that can be kept.
fn validate_order(item: &Value, name: &str, path: &Path, errors: &mut ErrorList) {
    let amount = |field: &str| item.get(field).and_then(|map| map.get(name)).and_then(|amount| parse(amount).ok());
    let at = |field: &str| path.child(field).key(name);
    let (min, max) = (amount("min"), amount("max"));
    let (request, limit) = (amount("defaultRequest"), amount("default"));
    let mut ordered = |low: Option<Quantity>, high: Option<Quantity>, at: Path, shown: bool, what: (&str, &str)| {
        let (Some(low), Some(high)) = (low, high) else { return };
        if low > high {
            let why = format!("{} value {low} is greater than {} value {high}", what.0, what.1);
            errors.invalid(&at, &json!(if shown { high } else { low }.to_string()), &why);
        }
    };
    ordered(min, max, at("min"), false, ("min", "max"));
    ordered(min, request, at("defaultRequest"), true, ("min", "default request"));
    ordered(request, max, at("defaultRequest"), false, ("default request", "max"));
    ordered(request, limit, at("defaultRequest"), false, ("default request", "default limit"));
    ordered(min, limit, at("default"), false, ("min", "default"));
    ordered(limit, max, at("default"), true, ("default", "max"));
    if let Some(ratio) = amount("maxLimitRequestRatio") {
        validate_ratio(ratio, min, max, &at("maxLimitRequestRatio"), errors);
    }
    if let (Some(limit), Some(request)) = (limit, request)
        && limit != request
        && !resources::may_overcommit(name)
    {
        let why = format!("default value {limit} must equal to defaultRequest value {request} in {name}");
        errors.invalid(&at("defaultRequest"), &json!(request.to_string()), &why);
    }
}

fn validate_ratio(ratio: Quantity, min: Option<Quantity>, max: Option<Quantity>, path: &Path, errors: &mut ErrorList) {
    if ratio < Quantity::from_units(1) {
        errors.invalid(path, &json!(ratio.to_string()), &format!("ratio {ratio} is less than 1"));
    }
    if let (Some(min), Some(max)) = (min.filter(|min| !min.is_zero()), max) {
        let possible = max.as_f64() / min.as_f64();
        if ratio.as_f64() > possible {
            let why = format!("ratio {ratio} is greater than max/min = {possible:.6}");
            errors.invalid(path, &json!(ratio.to_string()), &why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(item: &Value) -> Vec<String> {
        let mut errors = ErrorList::default();
        LimitRangeStrategy.validate(&json!({"spec": {"limits": [item]}}), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_not_said_follows_from_what_is() {
        let mut range = json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2", "memory": "1Gi"},
            "min": {"cpu": "1", "ephemeral-storage": "1Gi"}, "default": {"cpu": "1500m"}}]}});
        LimitRangeStrategy.default(&mut range);
        let item = &range["spec"]["limits"][0];
        assert_eq!(item["default"], json!({"cpu": "1500m", "memory": "1Gi"}));
        assert_eq!(item["defaultRequest"], json!({"cpu": "1500m", "memory": "1Gi", "ephemeral-storage": "1Gi"}));
    }

    #[test]
    fn the_bounds_are_in_order() {
        assert_eq!(
            complaints(
                &json!({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}, "default": {"cpu": "3"}})
            ),
            [
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                "spec.limits[0].default[cpu]: Invalid value: \"1\": default value 3 is greater than max value 1"
            ]
        );
        assert_eq!(
            complaints(&json!({"type": "Pod", "default": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "500m"}})),
            [
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1"
            ]
        );
    }

    #[test]
    fn claims_are_bounded_by_their_storage() {
        assert_eq!(
            complaints(&json!({"type": "PersistentVolumeClaim"})),
            [
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither \
                 was provided"
            ]
        );
        assert_eq!(
            complaints(&json!({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}})),
            Vec::<String>::new()
        );
    }
}
