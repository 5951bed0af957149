//! Forms of the RFC's appendix A and of Kubernetes, both ways.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::decode::{self, Format};

fn read(hex: &str) -> Result<Value, String> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
    decode::tree(&bytes, Format::Cbor).map(|decoded| decoded.object).map_err(|error| error.message)
}

fn written(value: &Value) -> String {
    hex(&encode(value))
}

#[test]
fn what_is_written_is_the_shortest_form_with_byte_strings_and_sorted_keys() {
    for (value, hex) in [
        (json!(0), "00"),
        (json!(23), "17"),
        (json!(24), "1818"),
        (json!(1000), "1903e8"),
        (json!(1_000_000), "1a000f4240"),
        (json!(i64::MAX), "1b7fffffffffffffff"),
        (json!(-1), "20"),
        (json!(-1000), "3903e7"),
        (json!(i64::MIN), "3b7fffffffffffffff"),
        (json!(0.5), "f93800"),
        (json!(-4.1), "fbc010666666666666"),
        (json!(100_000.5), "fa47c35040"),
        (json!(65504.0), "f97bff"),
        (json!(5.960_464_477_539_063e-8), "f90001"),
        (json!(0.000_061_035_156_25), "f90400"),
        (json!(1.1), "fb3ff199999999999a"),
        (json!(null), "f6"),
        (json!([true, false]), "82f5f4"),
        (json!("a"), "4161"),
        (json!({"bb": 1, "c": 2, "a": 3}), "a3 4161 03 4163 02 426262 01"),
    ] {
        assert_eq!(written(&value), hex.replace(' ', ""), "{value}");
        assert_eq!(read(hex), Ok(value), "{hex}");
    }
}

#[test]
fn other_encoders_forms_are_read_too() {
    for (hex, value) in [
        ("d9d9f7 a1 6161 6162", json!({"a": "b"})),
        ("d9d9f7 d9d9f7 01", json!(1)),
        ("5f 4161 4162 ff", json!("ab")),
        ("7f 6161 6162 ff", json!("ab")),
        ("9f 01 9f ff ff", json!([1, []])),
        ("bf 4161 01 ff", json!({"a": 1})),
        ("d6 43 616263", json!("YWJj")),
        ("d5 42 fbff", json!("-_8")),
        ("d7 42 00ff", json!("00ff")),
        ("c0 6a 323031332d30332d3231", json!("2013-03-21")),
        ("c1 1a 514b67b0", json!("2013-03-21T20:04:00Z")),
        ("c1 fb 41d452d9ec200000", json!("2013-03-21T20:04:00.5Z")),
        ("fa 7f7fffff", json!(f64::from(f32::MAX))),
        ("d8 64 01", json!(1)),
    ] {
        assert_eq!(read(hex), Ok(value), "{hex}");
    }
}

#[test]
fn what_json_cannot_say_is_refused_and_so_is_what_is_cut_short() {
    for (hex, why) in [
        ("f97e00", "NaN"),
        ("f97c00", "infinity"),
        ("f7", "simple value 23"),
        ("f8ff", "simple value 24"),
        ("e0", "simple value 0"),
        ("c2 41 01", "bignum"),
        ("1bffffffffffffffff", "integer overflow"),
        ("3bffffffffffffffff", "integer overflow"),
        ("a1 01 02", "key must be a string"),
        ("41 ff", "invalid UTF-8"),
        ("61 ff", "invalid UTF-8"),
        ("d6 01", "a tag is on a type"),
        ("5f 6161 ff", "another type"),
        ("42 61", "unexpected EOF"),
        ("9b ffffffffffffffff", "unexpected EOF"),
        ("5b ffffffffffffffff", "unexpected EOF"),
        ("1c", "additional information 28"),
        ("ff", "simple value 31"),
        ("", "unexpected EOF"),
        ("00 00", "1 bytes of extraneous data"),
        ("a2 4161 01 4161 02", "duplicate field \"a\""),
    ] {
        let error = read(hex).unwrap_err();
        assert!(error.contains(why), "{hex}: {error}");
    }
    assert!(read(&"81".repeat(100_000)).unwrap_err().contains("recursion limit exceeded"));
    assert!(read(&"c0".repeat(100_000)).unwrap_err().contains("unexpected EOF"));
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON's", |value| value.is_finite()).prop_map(Value::from),
        any::<f32>().prop_filter("JSON's", |value| value.is_finite()).prop_map(|value| Value::from(f64::from(value))),
        ".{0,30}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(".{0,12}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value in tree()) {
        let decoded = decode::tree(&encode(&value), Format::Cbor).unwrap();
        prop_assert_eq!(decoded.object, value);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(decoded) = decode::tree(&bytes, Format::Cbor) {
            let again = encode(&decoded.object);
            prop_assert_eq!(decode::tree(&again, Format::Cbor).unwrap().object, decoded.object);
        }
    }
}
