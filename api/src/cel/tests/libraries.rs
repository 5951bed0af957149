//! The libraries of functions, where others than Kubernetes' would answer otherwise.

use super::*;

#[test]
fn texts_are_shown_as_kubernetes_shows_them() {
    for (source, text) in [
        ("string(1000000.0) + ' ' + string(duration('1h30m0.5s'))", "1e+06 5400.5s"),
        (
            "'%s %s %s'.format([duration('1h'), 1.5, timestamp('2024-01-02T03:04:05Z')])",
            "3600s 1.5 2024-01-02T03:04:05Z",
        ),
        ("'%s'.format([['a', 'b\\n']])", "[\"a\", \"b\\n\"]"),
        ("'%s'.format([[1, {'a': 1, 'b': 'x'}, true ? [1, 'a'] : []]])", "[1, {\"a\":1, \"b\":\"x\"}, [1, \"a\"]]"),
        ("'%s'.format([{'b': [1], 'a': []}])", "{\"a\":[], \"b\":[1]}"),
        (
            "'%s'.format([[1.5, dyn(null), dyn(duration('1s')), dyn(b'x'), dyn(int), dyn(true)]])",
            "[1.500000, null, duration(\"1s\"), b\"x\", int, true]",
        ),
        ("'%.2f|%f|%.0f'.format([1234567.891, -0.5, 999.0])", "1,234,567.89|-0.500000|999"),
        ("'%.6e'.format([1052.032911275])", "1.052033\u{202f}\u{d7}\u{202f}10\u{2070}\u{b3}"),
        ("'%e'.format([0.00012])", "1.200000\u{202f}\u{d7}\u{202f}10\u{207b}\u{2070}\u{2074}"),
        ("'%x %X %x %o %b %d'.format([b'hi', 'k', -255, 8u, 5u, 3u])", "6869 6B -ff 10 101 3"),
        ("strings.quote('a\\u00e9\\n\\'\"')", "\"a\u{e9}\\n'\\\"\""),
    ] {
        assert_eq!(eval(source, &json!({})), Ok(json!(text)), "{source}");
    }
    for wrong in ["'%f'.format([1])", "'%s'.format([quantity('1')])", "'%d'.format(['x'])", "'%d'.format([])"] {
        assert!(eval(wrong, &json!({})).is_err(), "{wrong}");
    }
}

#[test]
fn libraries_answer_as_those_of_kubernetes() {
    let object = json!({"a": 1, "l": [3, 1, 2], "o": [{"k": "b"}, {"k": "a"}]});
    for (source, value) in [
        ("'abcd'.split('', 2)", json!(["a", "bcd"])),
        ("'abcd'.split('', -1) + 'ab'.split('', 0)", json!(["a", "b", "c", "d"])),
        ("object.o.sortBy(x, x.k).map(x, x.k)", json!(["a", "b"])),
        ("object.l.sortBy(x, -x)", json!([3, 2, 1])),
        ("[dyn(double('NaN')), dyn(2.0), dyn(1.0)].sort().slice(0, 2)", json!([1.0, 2.0])),
        ("object.?a.orValue(object.z) + optional.of(2).or(object.z).value()", json!(3)),
        ("[optional.of(1), optional.none()].unwrapOpt() + optional.unwrap([optional.of(2)])", json!([1, 2])),
        ("url('https://example.com').getEscapedPath() + url('https://e.com:443').getPort()", json!("443")),
        ("url('https://e.com/a/../b').getEscapedPath() + url('https://E.com').getHost()", json!("/a/../bE.com")),
        ("isURL('mailto:a@b') && !isURL('http://a:b/')", json!(true)),
        ("isSemver('v1.2', true) && !isSemver('1.2-rc', true) && !isSemver('1.0.0-01')", json!(true)),
        ("int(9223372036854774784.0)", json!(9_223_372_036_854_774_784_i64)),
        ("timestamp('2024-01-02T03:04:05Z').getHours('')", json!(3)),
        ("bool('T') && !bool('F')", json!(true)),
    ] {
        assert_eq!(eval(source, &object), Ok(value), "{source}");
    }
    for (source, why) in [
        ("[1].flatten(-1)", "level must be non-negative"),
        ("double('NaN') < object.a + 0.0", "no such overload"),
        ("double('NaN') < 1.0", "NaN values cannot be ordered"),
        ("[dyn(1), dyn('a')].sort()", "list elements must have the same type"),
        ("object.o.sort()", "list elements must be comparable"),
        ("timestamp(string(object.l[0]) + '024-01-02')", "invalid timestamp"),
    ] {
        let told = eval(source, &object).unwrap_err();
        assert!(told.contains(why), "{source}: {told}");
    }
    let many = format!("[{}].sort().size()", vec!["double('NaN'), 2.0, 1.0, 3.0"; 50].join(","));
    assert_eq!(eval(&many, &object), Ok(json!(200)));
}

#[test]
fn a_set_is_what_has_its_items() {
    let (rules, errors) = compile(&json!({
        "type": "object",
        "properties": {
            "set": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 5, "x-kubernetes-list-type": "set"},
            "map": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
                "type": "object", "required": ["k"], "properties": {"k": {"type": "string", "maxLength": 5}, "v": {"type": "integer"}}}},
        },
        "x-kubernetes-validations": [
            {"rule": "self.set == ['b', 'a']"},
            {"rule": "(self.set + ['b', 'c']) == ['a', 'b', 'c']"},
            {"rule": "self.map + self.map.filter(x, x.k == 'y') == self.map"},
        ],
    }));
    assert!(errors.is_empty(), "{errors:?}");
    let object = json!({"set": ["a", "b"], "map": [{"k": "x", "v": 1}, {"k": "y"}]});
    assert_eq!(judge(&rules.unwrap(), object, None).0, [""; 0]);
}
