//! The objects without which nothing would be served: they are what they are, in every cluster.

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::tree::{carry, text};
use crate::meta::same;

/// Their names, of FlowSchemas and of PriorityLevelConfigurations alike.
pub const NAMES: [&str; 2] = ["exempt", "catch-all"];

/// The spec of the mandatory FlowSchema of this name.
pub fn schema(name: &str) -> Option<Value> {
    let (precedence, groups) = match name {
        "exempt" => (1, &["system:masters"][..]),
        "catch-all" => (10_000, &["system:unauthenticated", "system:authenticated"][..]),
        _ => return None,
    };
    let subjects: Vec<Value> = groups.iter().map(|group| json!({"kind": "Group", "group": {"name": group}})).collect();
    let resources = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"],
        "clusterScope": true});
    let paths = json!({"verbs": ["*"], "nonResourceURLs": ["*"]});
    let mut spec = json!({"priorityLevelConfiguration": {"name": name}, "matchingPrecedence": precedence,
        "rules": [{"subjects": subjects, "resourceRules": [resources], "nonResourceRules": [paths]}]});
    if let (Some(spec), "catch-all") = (spec.as_object_mut(), name) {
        spec.insert("distinguisherMethod".to_owned(), json!({"type": "ByUser"}));
    }
    Some(spec)
}

/// The spec of the mandatory PriorityLevelConfiguration of this name.
pub fn level(name: &str) -> Option<Value> {
    match name {
        "exempt" => Some(json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}})),
        "catch-all" => Some(json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0,
            "limitResponse": {"type": "Reject"}}})),
        _ => None,
    }
}

/// Judges a FlowSchema that may be mandatory.
pub(super) fn validate_schema(object: &Value, errors: &mut ErrorList) {
    let name = text(object, "/metadata/name");
    judge(object, schema(name), &format!("spec of '{name}' must equal the fixed value"), errors);
}

/// Judges a level that may be mandatory. How much the exempt one holds and lends is the administrator's.
pub(super) fn validate_level(object: &Value, errors: &mut ErrorList) {
    let (name, mut wanted) = (text(object, "/metadata/name"), level(text(object, "/metadata/name")));
    let mut but = "";
    if let ("exempt", Some(wanted)) = (name, &mut wanted) {
        carry(wanted, object.get("spec").unwrap_or(&Value::Null), "exempt");
        but = " except the 'spec.exempt' field";
    }
    judge(object, wanted, &format!("spec of '{name}'{but} must equal the fixed value"), errors);
}

fn judge(object: &Value, wanted: Option<Value>, why: &str, errors: &mut ErrorList) {
    let spec = object.get("spec");
    if wanted.is_some_and(|wanted| !same(spec, Some(&wanted))) {
        errors.invalid(&Path::new("spec"), spec.unwrap_or(&Value::Null), why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;
    use crate::kinds::flowcontrol::{flowschema, prioritylevelconfiguration};
    use crate::patch::merge;
    use crate::resource::Descriptor;
    use crate::strategy::Part;

    /// What is said of an object, new and written over one that is as it must be.
    fn said(kind: &Descriptor, name: &str, spec: &Value) -> [Vec<String>; 2] {
        let named = |spec: &Value| json!({"metadata": {"name": name}, "spec": spec});
        let mut object = named(spec);
        kind.strategy.default(&mut object);
        let old =
            named(&schema(name).filter(|_| kind.kind == "FlowSchema").or_else(|| level(name)).unwrap_or_default());
        let created = complaints(|errors| kind.strategy.validate(&object, errors));
        [created, complaints(|errors| kind.strategy.validate_update(&object, &old, Part::Main, errors))]
    }

    #[test]
    fn what_is_mandatory_is_what_it_is() {
        let (schemas, levels) = (flowschema::descriptor(), prioritylevelconfiguration::descriptor());
        let fixed = |what: &str| Some(format!("spec of '{what} must equal the fixed value"));
        for (kind, name, change, why) in [
            (&schemas, "exempt", json!({}), None),
            (&schemas, "catch-all", json!({}), None),
            (&schemas, "exempt", json!({"rules": null}), fixed("exempt'")),
            (&schemas, "catch-all", json!({"matchingPrecedence": 7000}), fixed("catch-all'")),
            (&schemas, "catch-all", json!({"distinguisherMethod": null}), fixed("catch-all'")),
            (&levels, "exempt", json!({}), None),
            (&levels, "exempt", json!({"exempt": {"lendablePercent": 50}}), None),
            (&levels, "catch-all", json!({}), None),
            (&levels, "catch-all", json!({"limited": {"lendablePercent": 1}}), fixed("catch-all'")),
        ] {
            let spec = if kind.kind == "FlowSchema" { schema(name) } else { level(name) }.unwrap();
            let all = said(kind, name, &merge::apply(&spec, &change));
            for all in all {
                assert_eq!(all.len(), usize::from(why.is_some()), "{name} {change}: {all:?}");
                assert!(why.iter().zip(&all).all(|(why, said)| said.ends_with(why)), "{all:?}");
            }
        }
        let limited = level("catch-all").unwrap();
        let [all, _] = said(&levels, "exempt", &limited);
        assert!(
            all.iter().any(|said| said.ends_with("except the 'spec.exempt' field must equal the fixed value")),
            "{all:?}"
        );
        assert_eq!(said(&levels, "mine", &limited), [Vec::<String>::new(), Vec::new()]);
    }
}
