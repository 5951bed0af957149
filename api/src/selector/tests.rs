//! Selectors parse as Kubernetes parses them and print what they parsed.

use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
    let parsed = LabelSelector::parse(selector).unwrap();
    parsed.matches(|key| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v))
}

#[test]
fn every_operator_selects_as_kubernetes_does() {
    let labels = [("app", "web"), ("tier", "front"), ("weight", "5"), ("empty", "")];
    for (selector, wanted) in [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        ("app = web , tier=front", true),
        ("app=db", false),
        ("app!=db", true),
        ("absent!=db", true),
        ("app in (db, web)", true),
        ("app notin (db,web)", false),
        ("absent notin (db)", true),
        ("app", true),
        ("!app", false),
        ("! absent", true),
        ("absent", false),
        ("weight>4", true),
        ("weight<5", false),
        ("app>4", false),
        ("empty=", true),
        ("empty in (,x)", true),
        ("in in (in)", false),
    ] {
        assert_eq!(matches(selector, &labels), wanted, "{selector}");
    }
}

#[test]
fn a_bad_selector_says_where() {
    for (selector, wanted) in [
        ("app=web,", "found '', expected: identifier after ','"),
        ("=web", "found '=', expected: !, identifier, or 'end of string'"),
        ("app web", "unable to parse requirement: found 'web', expected: in, notin, =, ==, !=, gt, lt"),
        ("app in web", "unable to parse requirement: found 'web' expected: '('"),
        ("app in (web", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("app=web)", "found ')', expected: ',' or 'end of string'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        (
            "app>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ] {
        let error = LabelSelector::parse(selector).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (400, wanted), "{selector}");
    }
    let error = LabelSelector::parse("app=-x").unwrap_err();
    assert!(error.message.starts_with("unable to parse requirement: values[0][app]: Invalid value: \"-x\""), "{error}");
}

#[test]
fn a_selector_object_becomes_its_string_form() {
    let object = json!({"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [
        {"key": "c", "operator": "NotIn", "values": ["y", "x"]}, {"key": "d", "operator": "DoesNotExist"}]});
    let selector = LabelSelector::from_object(&object).unwrap();
    assert_eq!(selector.to_string(), "a=1,b=2,c notin (x,y),!d");
    assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
}

#[test]
fn an_absent_selector_matches_nothing_and_an_empty_one_everything() {
    assert!(!LabelSelector::from_object(&Value::Null).unwrap().matches(|_| None));
    assert!(LabelSelector::from_object(&json!({})).unwrap().matches(|_| None));
}

#[test]
fn field_selectors_compare_escape_and_refuse_what_is_not_indexed() {
    let pods = Descriptor::of::<Pod>().selectable(&["spec.nodeName", "status.phase"]);
    let selector = FieldSelector::parse(&pods, r"spec.nodeName==n\,1,status.phase!=Running,").unwrap();
    assert_eq!(selector.required("spec.nodeName"), Some("n,1"));
    assert_eq!(selector.required("status.phase"), None);
    assert_eq!(selector.to_string(), r"spec.nodeName=n\,1,status.phase!=Running");
    assert!(selector.matches(|path| if path == "spec.nodeName" { "n,1" } else { "" }));
    let error = FieldSelector::parse(&pods, "spec.foo=x").unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (400, "field label not supported: spec.foo"));
    let error = FieldSelector::parse(&pods, "spec.nodeName").unwrap_err();
    assert_eq!(error.message, "invalid selector: 'spec.nodeName'; can't understand 'spec.nodeName'");
    let nodes = Descriptor::of::<Node>();
    let error = FieldSelector::parse(&nodes, "spec.x=y").unwrap_err();
    assert!(error.message.starts_with("\"spec.x\" is not a known field selector"), "{error}");
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused_and_what_is_parsed_prints_itself(text in "[a-z!=<>(), ]{0,24}") {
        if let Ok(selector) = LabelSelector::parse(&text) {
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
        }
    }

    #[test]
    fn both_forms_of_a_selector_match_the_same(
        want in proptest::collection::vec(("[a-c]", 0..4_usize, proptest::collection::vec("[x-z]{1,2}", 1..3)), 0..4),
        have in proptest::collection::btree_map("[a-c]", "[x-z]{1,2}", 0..4),
    ) {
        let operators = ["In", "NotIn", "Exists", "DoesNotExist"];
        let expressions: Vec<Value> = want
            .iter()
            .map(|(key, operator, values)| {
                let values: &[String] = if *operator < 2 { values } else { &[] };
                serde_json::json!({"key": key, "operator": operators[*operator], "values": values})
            })
            .collect();
        let selector = LabelSelector::from_object(&serde_json::json!({ "matchExpressions": expressions })).unwrap();
        let parsed = LabelSelector::parse(&selector.to_string()).unwrap();
        let matches = |selector: &LabelSelector| selector.matches(|key| have.get(key).map(String::as_str));
        let wanted = want.iter().all(|(key, operator, values)| match (operator, have.get(key)) {
            (0, label) => label.is_some_and(|label| values.contains(label)),
            (1, label) => label.is_none_or(|label| !values.contains(label)),
            (2, label) => label.is_some(),
            (_, label) => label.is_none(),
        });
        prop_assert_eq!((matches(&selector), matches(&parsed)), (wanted, wanted));
    }

    #[test]
    fn any_field_value_survives_escaping(value in "\\PC{0,12}") {
        let pods = Descriptor::of::<Pod>();
        let text = format!("metadata.name={}", escape(&value));
        let selector = FieldSelector::parse(&pods, &text).unwrap();
        prop_assert_eq!(selector.required("metadata.name"), Some(value.as_str()));
    }
}
