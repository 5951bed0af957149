//! Expressions of those who want more than their share.

use std::time::{Duration, Instant};

use super::*;

#[test]
fn an_evaluation_that_costs_too_much_is_stopped() {
    let list: Vec<i64> = (0..2000).collect();
    let object = json!({"l": list, "s": "x".repeat(500_000)});
    let doubled = (0..40).fold("size(object.l)".to_owned(), |inner, n| {
        let last = if n == 39 { "object.l".to_owned() } else { format!("l{}", n + 1) };
        format!("cel.bind(l{n}, {last} + {last}, {inner})")
    });
    for source in [
        doubled.as_str(),
        "object.l.all(a, object.l.all(b, object.l.all(c, a + b + c >= 0)))",
        "object.s.replace('x', object.s)",
        "object.l.all(x, object.s.matches('(x+x+)+y') == false)",
        "object.l.map(a, object.l.map(b, object.l)).size() > 0",
    ] {
        let start = Instant::now();
        assert!(eval(source, &object).unwrap_err().contains("cost limit exceeded"), "{source}");
        assert!(start.elapsed().as_secs() < 20, "{source}");
    }
}

#[test]
fn what_makes_more_than_there_is_room_for_is_stopped_as_what_costs_too_much() {
    let (text, mid) = ("ab,".repeat(350_000), "a".repeat(40_000));
    let (short, long): (Vec<usize>, Vec<usize>) = ((0..10).collect(), (0..2000).collect());
    let literal = format!("[{}]", vec!["1"; 4000].join(","));
    // Values that have a part twice, and that twice, and so on.
    let twice = |times: usize, last: &str| {
        let binds: Vec<String> = (1..=times).map(|n| format!("cel.bind(x{n}, [x{0}, x{0}], ", n - 1)).collect();
        format!("cel.bind(x0, [1], {}{last}{}", binds.concat(), ")".repeat(times + 1))
    };
    for (source, ends) in [
        ("object.long.map(x, object.mid + 'x').size() > 0", false),
        ("object.short.map(x, object.mid + 'x').size() == 10", true),
        ("object.long.map(x, bytes(object.text) + b'x').size() > 0", false),
        ("object.long.map(x, string(object.text)).size() > 0", false),
        ("object.text.split('').size() > 0", false),
        ("object.text.split(',').size() == 350001", true),
        ("object.text.split('', 3).size() > 0", true),
        ("object.text.findAll('a').size() == 350000", true),
        ("object.text.findAll('.').size() > 0", false),
        ("object.long.map(x, object.long).flatten().size() > 0", false),
        ("object.short.map(x, object.long).flatten().size() == 20000", true),
        ("object.long.map(x, object.long).sum().size() > 0", false),
        (&format!("object.long.map(x, {literal}).size() > 0"), false),
        (&format!("object.short.map(x, {literal}).size() == 10"), true),
        ("'%s'.format([object.short.map(x, object.text)]).size() > 0", false),
        ("'%s'.format([object.short]).size() > 0", true),
        (&twice(22, "x22 == x22"), false),
        (&twice(22, "[x22].indexOf(x22) == 0"), false),
        (&twice(8, "x8 == x8"), true),
        (&twice(22, "x22.size() == 2"), true),
    ] {
        let result = eval(source, &json!({"text": text, "mid": mid, "short": short, "long": long}));
        let shown: String = source.chars().take(80).collect();
        if ends {
            assert_eq!(result, Ok(json!(true)), "{shown}");
        } else {
            assert_eq!(result, Err("operation cancelled: actual cost limit exceeded".to_owned()), "{shown}");
        }
    }
    assert_eq!(eval(&twice(22, "x22"), &json!({})), Err("list".to_owned()), "no object is as large as that");
}

#[test]
fn what_says_little_and_does_much_is_charged_for_it() {
    let text = "x".repeat(1_000_000);
    let many: Vec<String> = (0..1000).map(|n| format!("{}{n}", "x".repeat(900))).collect();
    let object = json!({"text": text, "same": {text.clone(): 1}, "other": {text.clone(): 2}, "many": many});
    let over = |body: &str| format!("lists.range(100000).all(i, {body})");
    for body in [
        "object.text.size() > 0",
        "object.text.charAt(999999) == 'x'",
        "!(object.text in object.same)",
        "!(object.text in {'a': 1})",
        "object.same[?object.text].hasValue()",
        "object.same != object.other",
        "string(object.text) == object.text",
        "object.many.max() != ''",
        "object.many.sort().size() == 1000",
        "object.many.isSorted() || true",
        "lists.range(2000).distinct().size() == 2000",
        "'%s'.format([object.many]).size() > 0",
        "object.many.join(',').size() > 0",
        // Fails late, which `all` forgives.
        "'%s%d'.format([object.many, 'x']) == ''",
    ] {
        let began = Instant::now();
        assert_eq!(
            eval(&over(body), &object),
            Err("operation cancelled: actual cost limit exceeded".to_owned()),
            "{body}"
        );
        assert!(began.elapsed() < Duration::from_secs(5), "{body}: {:?}", began.elapsed());
    }
    // A list that was made is shared: nobody goes through it who does not ask for its items.
    let shared = "cel.bind(big, lists.range(200000), lists.range(20000).map(i, big).all(x, dyn(x).size() == 200000))";
    let began = Instant::now();
    assert_eq!(eval(shared, &object), Ok(json!(true)));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn what_is_cheap_may_be_done_often() {
    let map: serde_json::Map<String, Value> =
        (0..1000).map(|n| (format!("k{n}"), json!({"text": "x".repeat(1000)}))).collect();
    let list: Vec<Value> = map.values().cloned().collect();
    let object = json!({"map": map, "list": list, "keys": map.keys().collect::<Vec<_>>()});
    for source in [
        "object.keys.all(k, k in object.map)",
        "object.keys.all(k, object.map[k].text.startsWith('x'))",
        "!('x' in object.list.map(o, o.text))",
        "object.keys.exists(k, k in object.keys)",
    ] {
        assert_eq!(eval(source, &object), Ok(json!(true)), "{source}");
    }
}

#[test]
fn an_expression_that_is_deeper_than_it_looks_is_refused() {
    for (piece, times) in [(".a", 5_000), ("[0]", 5_000), ("+object", 3_000), (".size()", 3_000), ("-1", 3_000)] {
        let told = eval(&format!("object{}", piece.repeat(times)), &json!({})).unwrap_err();
        assert!(told.contains("recursion limit exceeded"), "{piece}: {told}");
    }
    for source in [format!("true{}", " && true".repeat(1_000)), format!("1{} == 201", " + 1".repeat(200))] {
        assert_eq!(eval(&source, &json!({})), Ok(json!(true)));
    }
}

/// A rule about values of this schema.
fn rule(mut schema: Value, rule: &str) -> (Option<Rules>, Vec<String>) {
    schema["x-kubernetes-validations"] = json!([{"rule": rule}]);
    compile(&schema)
}

#[test]
fn bytes_are_counted_each_time_they_are_decoded() {
    let blob = json!({"type": "string", "format": "byte", "maxLength": 3_000_000});
    let schema = json!({"type": "object", "properties": {
        "blob": blob, "blobs": {"type": "array", "items": blob}, "n": {"type": "array", "maxItems": 3000, "items": {"type": "integer"}},
    }});
    let (bytes, n): (String, Vec<i64>) = ("AAAA".repeat(100_000), (0..3000).collect());
    let object = json!({"blob": bytes, "blobs": [bytes, bytes], "n": n});
    for body in
        ["self.n.map(i, self.blob)", "self.n.map(i, self.blobs)[0].map(b, b)", "self.n.map(i, self.blobs.map(b, b))"]
    {
        let (rules, errors) =
            rule(schema.clone(), &format!("{body}.size() > 0 && self.n.all(i, self.blob.size() > 0)"));
        assert!(errors.iter().all(|error| error.contains("exceeds budget")), "{errors:?}");
        let (told, _) = judge(&rules.unwrap(), object.clone(), None);
        assert!(told.iter().any(|line| line.contains("cost exceeds limit")), "{body}: {told:?}");
    }
}

#[test]
fn sets_are_compared_in_no_time() {
    let set = |kind: &str| json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": kind});
    let schema = json!({"type": "object", "properties": {"a": set("set"), "b": set("set")}});
    let (rules, _) = rule(schema, "self.a == self.b && (self.a + self.b).size() == self.a.size()");
    let texts: Vec<String> = (0..20_000).map(|n| format!("item-{n}")).collect();
    let turned: Vec<&String> = texts.iter().rev().collect();
    let began = Instant::now();
    assert_eq!(judge(&rules.unwrap(), json!({"a": texts, "b": turned}), None).0, [""; 0]);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn an_estimate_is_what_kubernetes_estimates() {
    let texts = json!({"type": "array", "items": {"type": "string"}});
    let few = json!({"type": "array", "items": {"type": "string", "maxLength": 10}, "maxItems": 10});
    let map = json!({"type": "object", "properties": {
        "map": {"type": "object", "additionalProperties": {"type": "string"}}, "list": {"type": "array", "maxItems": 1000, "items": {"type": "string", "maxLength": 10}}}});
    for (schema, source, accepted) in [
        (&texts, "self.all(x, x.startsWith('a') || x.endsWith('b'))", true),
        (&texts, "self.all(x, x.contains('a'))", false),
        (&map, "self.list.all(x, x in self.map)", true),
        (&few, "self.all(x, lists.range(10).all(i, i >= 0))", true),
        (&few, "lists.range(10000000).all(i, i >= 0)", false),
        (&few, "lists.range(self.size()).all(i, i >= 0)", false),
        (&texts, "self.distinct().size() > 0", false),
        (&texts, "self.min() != ''", false),
        (&few, "self.sort() == self.sortBy(x, x) && self.distinct().size() == self.size()", true),
    ] {
        let errors = rule(schema.clone(), source).1;
        assert_eq!(errors.is_empty(), accepted, "{source}: {errors:?}");
    }
}

#[test]
fn expressions_that_are_made_are_charged_for_being_compiled() {
    for body in [
        "!''.matches('[^x]{0,900}' + string(i) + 'y')",
        "!''.matches('(.{0,100}a){20}' + string(i))",
        "'a'.find('a' + string(i)) == ''",
    ] {
        let began = Instant::now();
        let told = eval(&format!("lists.range(100000).all(i, {body})"), &json!({}));
        assert_eq!(told, Err("operation cancelled: actual cost limit exceeded".to_owned()), "{body}");
        assert!(began.elapsed() < Duration::from_secs(30), "{body}: {:?}", began.elapsed());
    }
    // More than a thread keeps, but small.
    let each: Vec<String> = (0..40).map(|n| format!("!i.matches('^a{n}$')")).collect();
    let source = format!("lists.range(100).map(i, string(i)).all(i, {})", each.join(" && "));
    assert_eq!(eval(&source, &json!({})), Ok(json!(true)));
}

#[test]
fn expressions_of_a_schema_are_bounded_together() {
    let schema = |count: usize, pattern: &dyn Fn(usize) -> String| {
        let fields = (0..count).map(|n| (format!("f{n}"), json!({"type": "string", "pattern": pattern(n)})));
        json!({"type": "object", "properties": fields.collect::<serde_json::Map<_, _>>()})
    };
    let told = |schema: &Value| {
        let mut errors = ErrorList::default();
        structural::parse(schema, &Path::new("S"), &mut errors);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let began = Instant::now();
    assert_eq!(told(&schema(2000, &|_| "[^x]{0,900}y".to_owned())), [""; 0]);
    assert_eq!(told(&schema(2000, &|n| format!("^[a-z0-9]([-a-z0-9]*[a-z0-9])?{n}$"))), [""; 0]);
    let errors = told(&schema(500, &|n| format!("[^x]{{0,900}}{n}")));
    let last = errors.last().map(String::as_str).unwrap_or_default();
    assert!(last.contains("the expressions here take too much together"), "{last}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}
