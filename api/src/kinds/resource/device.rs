//! A device of a ResourceSlice, and the counters that devices of one slice share.

use serde_json::{Value, json};

use super::config;
use crate::field::{ErrorList, Path};
use crate::kinds::core::podspec::resources::parse;
use crate::kinds::core::podspec::scheduling::validate_node_selector;
use crate::kinds::tree::{is_true, list, list_mut, map, remove, some, text};
use crate::meta::{names, push_all, same};
use crate::quantity::Quantity;

const MAX_DESCRIBED: usize = 32;
const MAX_VALUE: usize = 64;
const MAX_TAINTS: usize = 16;
const MAX_COUNTERS: usize = 32;
const MAX_CONSUMED: usize = 2;
const MAX_AMOUNTS: usize = 10;
/// Longest key of a map that a path shows whole.
const SHOWN: usize = 96;

/// Attributes of several values, and resources of nodes that devices stand for.
const ALPHA_ATTRIBUTES: [&str; 4] = ["bools", "ints", "strings", "versions"];
const ALPHA_FIELD: &str = "nodeAllocatableResourceMappings";

/// Drops what Kubernetes does not keep without being asked for it, unless the slice had it already.
pub(super) fn drop_alpha(slice: &mut Value, old: &Value) {
    let before = list(old, "/spec/devices");
    let attributes =
        |device: &Value| map(device, "/attributes").any(|(_, of)| ALPHA_ATTRIBUTES.iter().any(|f| of.get(f).is_some()));
    let (keep_attributes, keep_field) =
        (before.iter().any(attributes), before.iter().any(|device| device.get(ALPHA_FIELD).is_some()));
    for device in slice.get_mut("spec").into_iter().flat_map(|spec| list_mut(spec, "devices")) {
        if !keep_field {
            remove(device, ALPHA_FIELD);
        }
        let attributes = device.get_mut("attributes").and_then(Value::as_object_mut).into_iter().flatten();
        for (_, attribute) in attributes.filter(|_| !keep_attributes) {
            for field in ALPHA_ATTRIBUTES {
                remove(attribute, field);
            }
        }
    }
}

/// Judges a device; `old` is what it was, `chosen` whether each device says on which nodes it is.
pub(super) fn validate(device: &Value, old: Option<&Value>, chosen: bool, path: &Path, errors: &mut ErrorList) {
    config::label(device, "name", path, errors);
    let described = map(device, "/attributes").count() + map(device, "/capacity").count();
    if described > MAX_DESCRIBED {
        let why = format!("the total number of attributes and capacities must not exceed {MAX_DESCRIBED}");
        errors.invalid(path, &json!(described), &why);
    }
    for (name, value) in map(device, "/attributes") {
        let path = path.child("attributes").key(&shortened(name));
        config::qualified(name, &path, errors);
        attribute(value, &path, errors);
    }
    let shared = is_true(device, "/allowMultipleAllocations");
    for (name, value) in map(device, "/capacity") {
        let path = path.child("capacity").key(&shortened(name));
        config::qualified(name, &path, errors);
        if let Some(policy) = some(value, "/requestPolicy") {
            let path = path.child("requestPolicy");
            if shared {
                request_policy(policy, &amount(value, "/value").unwrap_or(Quantity::ZERO), &path, errors);
            } else {
                errors.forbidden(&path, "allowMultipleAllocations must be true");
            }
        }
    }
    if !old.is_some_and(|old| same(old.get("taints"), device.get("taints"))) {
        config::each(list(device, "/taints"), MAX_TAINTS, &path.child("taints"), errors, config::taint);
    }
    let consumed = list(device, "/consumesCounters");
    config::each_own(
        consumed,
        "counterSet",
        MAX_CONSUMED,
        &path.child("consumesCounters"),
        errors,
        |set, path, errors| {
            config::label(set, "counterSet", path, errors);
            counters(set, path, errors);
        },
    );
    place(device, chosen, path, errors);
    config::binding(device, path, errors);
}

/// Judges a set of counters.
pub(super) fn counter_set(set: &Value, path: &Path, errors: &mut ErrorList) {
    config::label(set, "name", path, errors);
    counters(set, path, errors);
}

fn counters(set: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("counters");
    match map(set, "/counters").count() {
        0 => errors.required(&path, ""),
        count if count > MAX_COUNTERS => errors.too_many(&path, count, MAX_COUNTERS),
        _ => {
            for (name, _) in map(set, "/counters") {
                push_all(errors, &path.key(&shortened(name)), name, names::dns1123_label(name));
            }
        }
    }
}

/// A key without its middle, if it is long.
fn shortened(key: &str) -> String {
    let letters: Vec<char> = key.chars().collect();
    let kept = SHOWN - 3;
    match (letters.get(..kept.div_ceil(2)), letters.get(letters.len().saturating_sub(kept / 2)..)) {
        (Some(first), Some(last)) if letters.len() > SHOWN => {
            format!("{}...{}", first.iter().collect::<String>(), last.iter().collect::<String>())
        }
        _ => key.to_owned(),
    }
}

fn attribute(attribute: &Value, path: &Path, errors: &mut ErrorList) {
    let given = |field: &&str| some(attribute, &format!("/{field}")).is_some();
    let long = |field: &str, errors: &mut ErrorList| {
        if text(attribute, &format!("/{field}")).len() > MAX_VALUE {
            errors.too_long(&path.child(field), MAX_VALUE);
        }
    };
    long("string", errors);
    if let Some(version) = some(attribute, "/version").and_then(Value::as_str) {
        if !is_version(version) {
            let why = "must be a string compatible with semver.org spec 2.0.0";
            errors.invalid(&path.child("version"), &json!(version), why);
        }
        long("version", errors);
    }
    match ["bool", "int", "string", "version"].iter().filter(|field| given(field)).count() {
        1 => {}
        0 => errors.invalid(path, &json!(""), "exactly one value must be specified"),
        _ => errors.invalid(path, attribute, "exactly one value must be specified"),
    }
}

/// Whether a text is a semantic version, 2.0.0.
fn is_version(text: &str) -> bool {
    let number = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, before) = text.split_once('-').map_or((text, None), |(core, before)| (core, Some(before)));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    core.split('.').count() == 3
        && core.split('.').all(number)
        && before.is_none_or(|before| before.split('.').all(|part| word(part) && (!digits(part) || number(part))))
        && build.is_none_or(|build| build.split('.').all(word))
}

fn amount(parent: &Value, pointer: &str) -> Option<Quantity> {
    some(parent, pointer).and_then(|amount| parse(amount).ok())
}

/// Judges which parts of a capacity may be asked for: some amounts, or a range, of at most `most`.
fn request_policy(policy: &Value, most: &Quantity, path: &Path, errors: &mut ErrorList) {
    let (values, range) = (list(policy, "/validValues"), some(policy, "/validRange"));
    let default = amount(policy, "/default");
    let mut required = |field: &str| {
        errors.required(&path.child("default"), &format!("required when {field} is defined"));
    };
    match (values.is_empty(), range, default) {
        (true, None, _) => {}
        (false, Some(_), _) => {
            let why = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same \
                       time";
            errors.forbidden(path, why);
        }
        (false, None, None) => required("validValues"),
        (true, Some(_), None) => required("validRange"),
        (false, None, Some(default)) => amounts(values, default, most, &path.child("validValues"), errors),
        (true, Some(range), Some(default)) => amount_range(range, default, most, &path.child("validRange"), errors),
    }
}

fn amounts(values: &[Value], default: Quantity, most: &Quantity, path: &Path, errors: &mut ErrorList) {
    let parsed: Vec<Quantity> = values.iter().filter_map(|value| parse(value).ok()).collect();
    for (index, pair) in parsed.windows(2).enumerate() {
        if let [before, after] = pair
            && before > after
        {
            let why = "values must be sorted in ascending order";
            errors.invalid(&path.index(index + 1), &json!(after.to_string()), why);
        }
    }
    if values.len() > MAX_AMOUNTS {
        errors.too_many(path, values.len(), MAX_AMOUNTS);
    } else {
        for (index, value) in parsed.iter().enumerate() {
            if value > most {
                let why = format!("option is larger than capacity value: {most}");
                errors.invalid(&path.index(index), &json!(value.to_string()), &why);
            }
        }
        for (index, value) in parsed.iter().enumerate() {
            if parsed.iter().take(index).any(|earlier| earlier.value() == value.value()) {
                errors.duplicate(&path.index(index), &json!(value.value().to_string()));
            }
        }
    }
    if !parsed.contains(&default) {
        let why = "default value is not valid according to the requestPolicy";
        errors.invalid(path, &json!(default.to_string()), why);
    }
}

fn amount_range(range: &Value, default: Quantity, most: &Quantity, path: &Path, errors: &mut ErrorList) {
    let Some(min) = amount(range, "/min") else {
        return errors.required(&path.child("min"), "required when validRange is defined");
    };
    let mut refuse = |wrong: bool, field: &str, value: Quantity, why: String| {
        if wrong {
            errors.invalid(&path.child(field), &json!(value.to_string()), &why);
        }
    };
    refuse(min > *most, "min", min, format!("min is larger than capacity value: {most}"));
    refuse(default < min, "min", default, format!("default is less than min: {min}"));
    let max = amount(range, "/max");
    if let Some(max) = max {
        refuse(min > max, "max", min, format!("min is larger than max: {max}"));
        refuse(max > *most, "max", max, format!("max is larger than capacity value: {most}"));
        refuse(default > max, "max", default, format!("default is more than max: {max}"));
    }
    let Some(step) = amount(range, "/step") else { return };
    let one = min + step;
    refuse(one > *most, "step", step, format!("one step {one} is larger than capacity value: {most}"));
    for value in [Some(default), max].into_iter().flatten() {
        let rest = value.value().saturating_sub(min.value()).checked_rem(step.value());
        let why = format!("value is not a multiple of a given step ({step}) from ({min})");
        refuse(rest != Some(0), "step", value, why);
    }
}

/// On which nodes a device is, which it says if its slice leaves it to it.
fn place(device: &Value, chosen: bool, path: &Path, errors: &mut ErrorList) {
    let (node, selector, all) = (some(device, "/nodeName"), some(device, "/nodeSelector"), some(device, "/allNodes"));
    if !chosen {
        if node.or(selector).or(all).is_some() {
            let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true \
                       in the ResourceSlice spec";
            errors.invalid(path, &Value::Null, why);
        }
        return;
    }
    let mut set = Vec::new();
    if let Some(node) = node.and_then(Value::as_str) {
        if node.is_empty() {
            errors.invalid(&path.child("nodeName"), &json!(node), "must not be empty");
        } else {
            set.push("`nodeName`");
            push_all(errors, &path.child("nodeName"), node, names::dns1123_subdomain(node));
        }
    }
    if let Some(selector) = selector {
        set.push("`nodeSelector`");
        validate_node_selector(selector, &path.child("nodeSelector"), errors);
    }
    match all {
        Some(Value::Bool(true)) => set.push("`allNodes`"),
        Some(all) => errors.invalid(&path.child("allNodes"), all, "must be either unset or set to true"),
        None => {}
    }
    let why = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to \
               true in the ResourceSlice spec";
    match set.len() {
        0 => errors.required(path, why),
        1 => {}
        _ => errors.invalid(path, &json!(format!("{{{}}}", set.join(", "))), why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn judge(device: &Value, chosen: bool) -> Vec<String> {
        let mut device = device.clone();
        device["name"] = json!("gpu");
        complaints(|errors| validate(&device, None, chosen, &Path::new("d"), errors))
    }

    #[test]
    fn a_device_is_described_by_names_and_values() {
        for (device, said) in [
            (json!({"attributes": {"x": {"int": 1}, "a.example/y": {"version": "1.2.3-rc.1+b"}}}), None),
            (
                json!({"attributes": {"x": {}}}),
                Some("attributes[x]: Invalid value: \"\": exactly one value must be specified"),
            ),
            (
                json!({"attributes": {"x": {"version": "1.2"}}}),
                Some(
                    "attributes[x].version: Invalid value: \"1.2\": must be a string compatible with semver.org spec 2.0.0",
                ),
            ),
            (
                json!({"attributes": {"x": {"string": "x".repeat(65)}}}),
                Some("attributes[x].string: Too long: may not be more than 64 bytes"),
            ),
            (
                json!({"attributes": {"/x": {"int": 1}}}),
                Some("attributes[/x]: Invalid value: \"\": the domain must not be empty"),
            ),
            (
                json!({"capacity": {"/x": {"value": "1"}}}),
                Some("capacity[/x]: Invalid value: \"\": the domain must not be empty"),
            ),
            (json!({"consumesCounters": [{"counterSet": "a", "counters": {"b": {"value": "1"}}}]}), None),
            (json!({"consumesCounters": [{"counterSet": "a"}]}), Some("consumesCounters[0].counters: Required value")),
            (
                json!({"taints": vec![json!({"key": "k", "effect": "None"}); 17]}),
                Some("taints: Too many: 17: must have at most 16 items"),
            ),
        ] {
            let said: Vec<String> = said.into_iter().map(|said| format!("d.{said}")).collect();
            assert_eq!(judge(&device, false), said, "{device}");
        }
        let path = format!("{}...{}", "k".repeat(47), "k".repeat(46));
        assert_eq!(shortened(&"k".repeat(97)), path);
    }

    #[test]
    fn what_is_alpha_is_dropped_unless_it_was_there() {
        let slice = |attribute: Value| json!({"spec": {"devices": [{"name": "gpu", "attributes": {"x": attribute}, ALPHA_FIELD: {"cpu": {}}}]}});
        let dropped = |mut new: Value, old: &Value| {
            drop_alpha(&mut new, old);
            new["spec"]["devices"][0].clone()
        };
        let listed = slice(json!({"ints": [1, 2]}));
        let device = dropped(listed.clone(), &Value::Null);
        assert_eq!(device, json!({"name": "gpu", "attributes": {"x": {}}}));
        assert!(judge(&device, false)[0].contains("exactly one value must be specified"));
        assert_eq!(dropped(listed.clone(), &listed), listed["spec"]["devices"][0]);
        assert_eq!(dropped(slice(json!({"int": 1})), &json!({}))["attributes"], json!({"x": {"int": 1}}));
    }

    #[test]
    fn a_version_is_semantic() {
        for good in ["0.0.1", "1.2.3", "1.2.3-alpha.1", "1.2.3-0a", "1.2.3+001.x", "1.2.3--"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["", "1.2", "1.2.3.4", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3+", "v1.2.3", "1.2.3-a..b"] {
            assert!(!is_version(bad), "{bad}");
        }
    }

    #[test]
    fn what_may_be_asked_for_fits_what_there_is() {
        let of = |policy: Value, shared: bool| {
            let capacity = json!({"memory": {"value": "8Gi", "requestPolicy": policy}});
            judge(&json!({"capacity": capacity, "allowMultipleAllocations": shared}), false)
        };
        let range = |min: &str, max: &str, step: &str| json!({"default": "2Gi", "validRange": {"min": min, "max": max, "step": step}});
        let at = "d.capacity[memory].requestPolicy";
        for (policy, said) in [
            (json!({"default": "1Gi", "validValues": ["1Gi", "2Gi"]}), None),
            (range("1Gi", "4Gi", "1Gi"), None),
            (json!({"validValues": ["1Gi"]}), Some("default: Required value: required when validValues is defined")),
            (
                json!({"default": "3Gi", "validValues": ["1Gi"]}),
                Some("validValues: Invalid value: \"3Gi\": default value is not valid according to the requestPolicy"),
            ),
            (
                json!({"default": "1Gi", "validValues": ["1Gi", "9Gi"]}),
                Some("validValues[1]: Invalid value: \"9Gi\": option is larger than capacity value: 8Gi"),
            ),
            (range("3Gi", "4Gi", "1Gi"), Some("validRange.min: Invalid value: \"2Gi\": default is less than min: 3Gi")),
            (
                range("1Gi", "9Gi", "1Gi"),
                Some("validRange.max: Invalid value: \"9Gi\": max is larger than capacity value: 8Gi"),
            ),
        ] {
            let said: Vec<String> = said.into_iter().map(|said| format!("{at}.{said}")).collect();
            assert_eq!(of(policy.clone(), true), said, "{policy}");
        }
        assert_eq!(of(range("1Gi", "4Gi", "3Gi"), true).len(), 1, "2Gi is no step from 1Gi");
        assert_eq!(
            of(range("1Gi", "4Gi", "1Gi"), false),
            [format!("{at}: Forbidden: allowMultipleAllocations must be true")]
        );
    }

    #[test]
    fn a_device_says_where_it_is_if_its_slice_does_not() {
        for (device, chosen, count) in [
            (json!({}), false, 0),
            (json!({"allNodes": true}), false, 1),
            (json!({}), true, 1),
            (json!({"allNodes": true}), true, 0),
            (json!({"nodeName": "n"}), true, 0),
            (json!({"nodeName": "n", "allNodes": true}), true, 1),
            (json!({"allNodes": false}), true, 2),
        ] {
            assert_eq!(judge(&device, chosen).len(), count, "{device} {chosen}");
        }
    }
}
