//! Expressions as users of Kubernetes write them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::rules::Rules;
use super::*;
use crate::field::{ErrorList, Path};
use crate::schema::structural;

mod bounds;
mod libraries;

fn eval(source: &str, object: &Value) -> Result<Value, String> {
    let vars = [("object".to_owned(), Decl::from(Type::Dyn))];
    let program = Program::compile(source, &vars).map_err(|e| e.to_string())?;
    let lookup = |name: &str, _: &mut Budget| (name == "object").then(|| Ok(Val::of(object, &Type::Dyn)));
    let value = program.eval(&lookup, &mut Budget::new(PER_OBJECT)).map_err(|e| e.to_string())?;
    value.to_json().ok_or_else(|| value.type_name().to_owned())
}

#[test]
fn expressions_have_the_values_that_kubernetes_gives_them() {
    let object = json!({"a": 1, "s": "Hello", "l": [3, 1, 2], "m": {"k": "v", "x-y": true}, "f": 1.5, "n": null,
        "q": "1500m", "t": "2024-01-02T03:04:05Z"});
    for (source, value) in [
        ("object.a + 2 * 3", json!(7)),
        ("object.a == 1.0 && object.f > 1", json!(true)),
        ("object.s.startsWith('He') && object.s.size() == 5", json!(true)),
        ("object.l.all(x, x > 0) && object.l.exists(x, x == 2) && object.l.exists_one(x, x == 2)", json!(true)),
        ("object.l.map(x, x * 2)", json!([6, 2, 4])),
        ("object.l.filter(x, x > 1)", json!([3, 2])),
        ("object.l.map(x, x > 1, x + 1)", json!([4, 3])),
        ("object.m.all(k, k.size() > 0)", json!(true)),
        ("has(object.m.k) && !has(object.m.z)", json!(true)),
        ("object.m['x-y'] ? 'yes' : 'no'", json!("yes")),
        ("object.?z.orValue('none')", json!("none")),
        ("object.?m.k.orValue('none')", json!("v")),
        ("object.l[?9].hasValue()", json!(false)),
        ("optional.of(1).optMap(x, x + 1).value()", json!(2)),
        ("object.l.isSorted() || object.l.sum() == 6 && object.l.max() == 3 && object.l.min() == 1", json!(true)),
        ("object.l.indexOf(1) == 1 && object.l.lastIndexOf(9) == -1", json!(true)),
        ("'abc 123 45'.find('[0-9]+')", json!("123")),
        ("'abc 123 45'.findAll('[0-9]+')", json!(["123", "45"])),
        ("'tacocat'.charAt(3) + 'x'.upperAscii() + 'Y'.lowerAscii()", json!("oXy")),
        ("'a,b,c'.split(',').join('-')", json!("a-b-c")),
        ("'tacocat'.substring(1, 4) + ' x '.trim() + 'aaa'.replace('a', 'b', 2)", json!("acoxbba")),
        ("'tacocat'.indexOf('c') + 'tacocat'.lastIndexOf('c')", json!(6)),
        ("'%s has %d and %.2f'.format(['x', 3, 1.5])", json!("x has 3 and 1.50")),
        ("quantity(object.q).isGreaterThan(quantity('1')) && isQuantity('5Gi') && !isQuantity('x')", json!(true)),
        ("quantity('50k').add('20k' == '' ? quantity('1') : quantity('20k')) == quantity('70k')", json!(true)),
        ("url('https://example.com:80/a?b=c').getHost()", json!("example.com:80")),
        ("isURL('../x') || url('/path').getEscapedPath() == '/path'", json!(true)),
        ("ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.1.1') && !isIP('x')", json!(true)),
        (
            "cidr('10.0.0.0/8').containsCIDR(cidr('10.1.0.0/16')) && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')",
            json!(true),
        ),
        ("semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.2.3').minor() == 2", json!(true)),
        (
            "sets.contains([1, 2, 3], [2]) && sets.intersects([1], [1, 2]) && sets.equivalent([1, 2], [2, 1])",
            json!(true),
        ),
        (
            "format.dns1123Label().validate('A').hasValue() && !format.named('uuid').value().validate('123e4567-e89b-12d3-a456-426614174000').hasValue()",
            json!(true),
        ),
        (
            "timestamp(object.t).getFullYear() == 2024 && timestamp(object.t) + duration('1h') > timestamp(object.t)",
            json!(true),
        ),
        ("duration('1h30m').getMinutes()", json!(90)),
        ("[1, 2].transformList(i, x, i + x)", json!([1, 3])),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 10)", json!({"b": 20})),
        ("[1, 2, 3].all(i, x, x == i + 1)", json!(true)),
        ("{'a': {'b': 1}}.a.b + size([1]) + int('4')", json!(6)),
        ("type(1) == int && type('x') == string && dyn(1) == 1", json!(true)),
        ("1 in [1, 2] && 'k' in object.m", json!(true)),
        ("true || 1 / 0 == 1", json!(true)),
        ("object.n == null", json!(true)),
        ("cel.bind(x, object.a + 1, x * x)", json!(4)),
        ("string(1.5) + string(1) + string(true)", json!("1.51true")),
        ("[[1], [2, 3]].flatten().size() + lists.range(3).size()", json!(6)),
        ("Object{spec: Object.spec{replicas: 3}}", json!({"spec": {"replicas": 3}})),
        ("[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('x/y'), value: 1}][0].path", json!("/a/x~1y")),
    ] {
        assert_eq!(eval(source, &object), Ok(value), "{source}");
    }
}

#[test]
fn a_variable_whose_name_has_a_dot_is_there() {
    let vars = [("variables.x".to_owned(), Decl::from(Type::Int))];
    let lookup = |name: &str, _: &mut Budget| (name == "variables.x").then_some(Ok(Val::Int(1)));
    let program = Program::compile("has(variables.x) && variables.x == 1", &vars).unwrap();
    assert!(matches!(program.eval(&lookup, &mut Budget::new(PER_OBJECT)), Ok(Val::Bool(true))));
    let told = Program::compile("has(variables.y)", &vars).unwrap_err().to_string();
    assert!(told.contains("undeclared reference to 'variables'"), "{told}");
}

#[test]
fn what_has_no_value_says_why() {
    for (source, why) in [
        ("object.z", "no such key: z"),
        ("[1][5]", "index out of bounds: 5"),
        ("1 / (object.a - 1)", "division by zero"),
        ("9223372036854775807 + object.a", "integer overflow"),
        ("object.a + 'x'", "no such overload"),
        ("quantity('x')", "quantities must match"),
        ("lists.range(10000000)", "actual cost limit exceeded"),
    ] {
        let told = eval(source, &json!({"a": 1})).unwrap_err();
        assert!(told.contains(why), "{source}: {told}");
    }
}

#[test]
fn what_cannot_be_compiled_says_where_and_why() {
    for (source, why) in [
        ("1 +", "Syntax error"),
        ("nothing.x", "ERROR: <input>:1:1: undeclared reference to 'nothing' (in container '')"),
        ("1 + 'x'", "found no matching overload for '_+_' applied to '(int, string)'"),
        ("'x'.foo()", "undeclared reference to 'foo'"),
        ("true && 'x'", "found no matching overload for '_&&_'"),
        ("[1].all(x, 'y')", "expected type 'bool' but found 'string'"),
        ("'x'.matches('(')", "invalid matches argument"),
        ("has(1)", "invalid argument to has() macro"),
        ("1 == 'x'", "found no matching overload for '_==_' applied to '(int, string)'"),
        ("[1, 'x']", "expected type 'int' but found 'string'"),
        ("{'a': 1, 'b': 'x'}", "expected type 'int' but found 'string'"),
        ("true ? 1 : 'x'", "found no matching overload for '_?_:_' applied to '(bool, int, string)'"),
        ("['a'].sum()", "found no matching overload for 'sum' applied to 'list(string).()'"),
        ("[1].sortBy(x, [x])", "found no matching overload for 'sortBy' applied to 'list(int).(list(int))'"),
        ("timestamp('2024-01-02')", "invalid timestamp argument"),
    ] {
        let told = eval(source, &json!({})).unwrap_err();
        assert!(told.starts_with("compilation failed: ") && told.contains(why), "{source}: {told}");
    }
    assert!(eval(&"(".repeat(5000), &json!({})).unwrap_err().contains("recursion limit"));
    assert!(eval(&format!("{}1", "!".repeat(999)), &json!({})).is_err());
}

/// The rules of an object whose `spec` has this schema.
fn compile(spec: &Value) -> (Option<Rules>, Vec<String>) {
    let mut errors = ErrorList::default();
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    let parsed = structural::parse(&schema, &Path::new("S"), &mut errors);
    assert!(errors.is_empty(), "{errors:?}");
    let rules = Rules::compile(&parsed, &Path::new("S"), &mut errors);
    (rules, errors.iter().map(ToString::to_string).collect())
}

fn judge(rules: &Rules, new: Value, old: Option<Value>) -> (Vec<String>, Vec<String>) {
    let mut errors = ErrorList::default();
    let old = old.map(|old| json!({"spec": old}));
    let warnings = rules.validate(&json!({"spec": new}), old.as_ref(), &mut errors);
    (errors.iter().map(ToString::to_string).collect(), warnings)
}

fn sample() -> Rules {
    let (rules, errors) = compile(&json!({
        "type": "object",
        "properties": {
            "replicas": {"type": "integer"}, "min": {"type": "integer"}, "max-size": {"type": "integer"},
            "name": {"type": "string", "maxLength": 20, "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "immutable"}]},
            "list": {"type": "array", "maxItems": 10, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
                "type": "object", "required": ["k"], "properties": {"k": {"type": "string", "maxLength": 5}, "v": {"type": "integer"}},
                "x-kubernetes-validations": [{"rule": "!has(oldSelf.v) || self.v >= oldSelf.v", "fieldPath": ".v", "reason": "FieldValueForbidden", "message": "may not shrink"}]}},
            "once": {"type": "string", "maxLength": 9, "x-kubernetes-validations": [
                {"rule": "oldSelf.hasValue() || self == 'first'", "optionalOldSelf": true}]},
        },
        "x-kubernetes-validations": [
            {"rule": "!has(self.min) || self.min <= self.replicas", "messageExpression": "'replicas must be at least %d'.format([self.min])"},
            {"rule": "!has(self.max__dash__size) || self.max__dash__size < 5"},
        ],
    }));
    assert!(errors.is_empty(), "{errors:?}");
    rules.unwrap()
}

#[test]
fn rules_judge_objects_and_their_changes() {
    let rules = sample();
    let told = |new: Value, old: Option<Value>| judge(&rules, new, old).0;
    assert!(told(json!({"replicas": 3, "min": 1, "name": "a"}), None).is_empty());
    assert_eq!(told(json!({"replicas": 1, "min": 2}), None), ["spec: Invalid value: replicas must be at least 2"]);
    assert_eq!(
        told(json!({"max-size": 9}), None),
        ["spec: Invalid value: failed rule: !has(self.max__dash__size) || self.max__dash__size < 5"]
    );
    assert_eq!(told(json!({"name": "b"}), Some(json!({"name": "a"}))), ["spec.name: Invalid value: \"b\": immutable"]);
    let (new, old) = (json!({"list": [{"k": "y", "v": 0}, {"k": "x", "v": 1}]}), json!({"list": [{"k": "x", "v": 2}]}));
    assert_eq!(told(new, Some(old)), ["spec.list[1].v: Forbidden: may not shrink"]);
    assert_eq!(told(json!({"once": "second"}), None).len(), 1);
    assert!(told(json!({"once": "second"}), Some(json!({"once": "first"}))).is_empty());
}

#[test]
fn what_was_wrong_before_and_is_unchanged_is_only_warned_of() {
    let rules = sample();
    let wrong = json!({"replicas": 1, "min": 2});
    let (errors, warnings) = judge(&rules, wrong.clone(), Some(wrong.clone()));
    assert!(errors.is_empty());
    assert_eq!(warnings, ["spec: Invalid value: replicas must be at least 2"]);
    let (errors, _) = judge(&rules, json!({"replicas": 0, "min": 2}), Some(wrong));
    assert_eq!(errors.len(), 1);
}

#[test]
fn what_is_wrong_in_a_list_that_is_unchanged_is_only_warned_of() {
    let rule = json!([{"rule": "self.size() > 1"}]);
    let items = json!({"type": "string", "maxLength": 9, "x-kubernetes-validations": rule});
    let (rules, errors) = compile(&json!({"type": "object", "properties": {
        "list": {"type": "array", "maxItems": 9, "items": items}, "other": {"type": "integer"}}}));
    assert!(errors.is_empty(), "{errors:?}");
    let rules = rules.unwrap();
    let old = json!({"list": ["a", "bc"], "other": 1});
    let (errors, warnings) = judge(&rules, json!({"list": ["a", "bc"], "other": 2}), Some(old.clone()));
    assert_eq!((errors.len(), warnings.len()), (0, 1), "{errors:?}");
    let (errors, warnings) = judge(&rules, json!({"list": ["a", "cd"], "other": 2}), Some(old));
    assert_eq!((errors.len(), warnings.len()), (1, 0), "{warnings:?}");
}

#[test]
fn defaults_keep_the_rules() {
    let told = |default: Value| {
        let text = json!({"type": "string", "maxLength": 9, "default": default, "x-kubernetes-validations": [
            {"rule": "self.startsWith('a')"}, {"rule": "oldSelf.hasValue() || self != 'ax'", "optionalOldSelf": true},
            {"rule": "self == oldSelf"}]});
        let spec = json!({"type": "object", "properties": {"text": text}});
        let schema = json!({"type": "object", "properties": {"spec": spec}});
        let mut errors = ErrorList::default();
        let parsed = structural::parse(&schema, &Path::new("S"), &mut errors);
        let rules = Rules::compile(&parsed, &Path::new("S"), &mut ErrorList::default()).unwrap();
        rules.judge_defaults(&parsed, &Path::new("S"), &mut errors);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let at = "S.properties[spec].properties[text].default: Invalid value:";
    assert_eq!(told(json!("b")), [format!("{at} \"b\": failed rule: self.startsWith('a')")]);
    assert_eq!(told(json!("ax")), [format!("{at} \"ax\": failed rule: oldSelf.hasValue() || self != 'ax'")]);
    assert_eq!(told(json!("a")), [""; 0]);
}

#[test]
fn a_rule_that_is_wrong_or_too_expensive_is_refused() {
    let rule = |schema: Value, rule: &str| {
        let mut schema = schema;
        schema["x-kubernetes-validations"] = json!([{"rule": rule}]);
        compile(&schema).1
    };
    let text = json!({"type": "string"});
    let object = json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}, "b": {"type": "integer"}}});
    for (schema, source, why) in [
        (object.clone(), "self.zzz == 1", "undefined field 'zzz'"),
        (object.clone(), "self.b = 1", "Syntax error"),
        (object.clone(), "self.b", "must evaluate to a bool"),
        (object.clone(), "self.b == 'x'", "found no matching overload for '_==_' applied to '(int, string)'"),
        (object, "self.a.all(x, self.a.all(y, x == y))", "exceeds budget by factor of more than 100x"),
        (text, "self == 'x' && oldself == 'y'", "undeclared reference to 'oldself'"),
        (
            json!({"type": "array", "items": {"type": "string", "maxLength": 3, "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}, "maxItems": 3}),
            "true",
            "oldSelf cannot be used on the uncorrelatable portion of the schema within S.properties[spec]",
        ),
    ] {
        let told = rule(schema, source);
        assert!(told.iter().any(|line| line.contains(why)), "{source}: {told:#?}");
    }
}

#[test]
fn an_object_whose_rules_cost_too_much_is_refused() {
    let (rules, _) = compile(&json!({
        "type": "object", "properties": {"l": {"type": "array", "items": {"type": "integer"}}},
        "x-kubernetes-validations": [{"rule": "self.l.all(x, self.l.all(y, x + y >= 0))"}],
    }));
    let list: Vec<i64> = (0..3000).collect();
    let (errors, _) = judge(&rules.unwrap(), json!({"l": list}), None);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("no further validation rules will be run"), "{errors:?}");
}

/// Pieces that make expressions more often than chance would.
fn pieces() -> impl Strategy<Value = String> {
    let words = vec![
        "object",
        ".a",
        ".l",
        "[0]",
        "[?1]",
        ".?z",
        "(",
        ")",
        "1",
        "2u",
        "1.5",
        "'x'",
        "b'x'",
        " + ",
        " - ",
        " / ",
        " % ",
        " == ",
        " < ",
        " && ",
        " || ",
        "!",
        "-",
        " ? ",
        " : ",
        "[1, 'a']",
        "{'k': 1}",
        ".all(x, ",
        ".map(x, ",
        ".exists(i, x, ",
        "x",
        ".size()",
        ".format([1])",
        ".split('')",
        "duration('1h')",
        "timestamp(0)",
        ".orValue(1)",
        "optional.none()",
        "has(",
        ".matches('a*')",
        ".substring(1)",
        ".charAt(",
        ".sum()",
        "quantity('1')",
        ".sort()",
        " in ",
        "null",
        "true",
        "int(",
        "string(",
        ".getHours()",
        ".replace('', 'xy')",
        "cidr('::/0')",
        ".join()",
        ".flatten(9)",
        "type(",
        "cel.bind(y, 1, ",
        ", ",
    ];
    prop::collection::vec(prop::sample::select(words), 1..14).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn evaluating_anything_ends_in_an_answer(source in prop_oneof![3 => pieces(), 1 => ".{0,30}"]) {
        let object = json!({"a": 1, "l": [1, "x", null, 2.5, {"k": []}]});
        let _ = eval(&source, &object);
    }

    #[test]
    fn no_evaluation_costs_more_than_its_budget(source in pieces(), budget in 0_u64..500) {
        let vars = [("object".to_owned(), Decl::from(Type::Dyn))];
        if let Ok(program) = Program::compile(&source, &vars) {
            let object = json!({"a": "x".repeat(50), "l": vec![1; 50]});
            let lookup = |name: &str, _: &mut Budget| (name == "object").then(|| Ok(Val::of(&object, &Type::Dyn)));
            let mut left = Budget::new(budget);
            let result = program.eval(&lookup, &mut left);
            // Whoever ran out of budget has no value.
            prop_assert!(!left.is_spent() || result.is_err() || program.estimate() == 0);
        }
    }
}
