//! A tree as deterministic CBOR.

use serde_json::{Number, Value};

/// The tag 55799, which every body begins with.
pub const SELF_DESCRIBED: [u8; 3] = [0xd9, 0xd9, 0xf7];

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const ARRAY: u8 = 4;
const MAP: u8 = 5;

/// Encodes a tree, without the tag.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put(value, &mut out);
    out
}

/// The beginning of a map with this many entries, which follow in the order of their keys' lengths, then bytes.
pub fn head_of_map(entries: u64, out: &mut Vec<u8>) {
    head(MAP, entries, out);
}

/// A map's entry whose value is encoded already.
pub fn entry(key: &str, value: &[u8], out: &mut Vec<u8>) {
    text(key, out);
    out.extend_from_slice(value);
}

fn put(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(false) => out.push(0xf4),
        Value::Bool(true) => out.push(0xf5),
        Value::Number(number) => put_number(number, out),
        Value::String(string) => text(string, out),
        Value::Array(items) => {
            head(ARRAY, items.len() as u64, out);
            for item in items {
                put(item, out);
            }
        }
        Value::Object(map) => {
            head(MAP, map.len() as u64, out);
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            // A shorter key has a smaller head.
            entries.sort_unstable_by_key(|(key, _)| (key.len(), key.as_bytes()));
            for (key, value) in entries {
                text(key, out);
                put(value, out);
            }
        }
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    head(BYTES, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn put_number(number: &Number, out: &mut Vec<u8>) {
    if let Some(value) = number.as_u64() {
        head(UNSIGNED, value, out);
    } else if let Some(value) = number.as_i64() {
        head(NEGATIVE, !value.cast_unsigned(), out);
    } else {
        put_float(number.as_f64().unwrap_or_default(), out);
    }
}

/// The smallest form that keeps the value.
fn put_float(value: f64, out: &mut Vec<u8>) {
    #[allow(clippy::cast_possible_truncation)]
    let single = value as f32;
    if f64::from(single).to_bits() == value.to_bits() {
        match half(single) {
            Some(half) => {
                out.push(0xf9);
                out.extend_from_slice(&half.to_be_bytes());
            }
            None => {
                out.push(0xfa);
                out.extend_from_slice(&single.to_bits().to_be_bytes());
            }
        }
    } else {
        out.push(0xfb);
        out.extend_from_slice(&value.to_bits().to_be_bytes());
    }
}

/// The half-precision float of the same value, if there is one.
fn half(value: f32) -> Option<u16> {
    let bits = value.to_bits();
    let sign = bits >> 16 & 0x8000;
    let fraction = bits & 0x007f_ffff;
    let half = match (bits >> 23 & 0xff, fraction) {
        (0, 0) => sign,
        // Exponents are biased by 127, and by 15 in a half.
        (exponent @ 113..=142, _) if fraction.trailing_zeros() >= 13 => sign | (exponent - 112) << 10 | fraction >> 13,
        // A half below 2^-14 has no leading bit of its own.
        (exponent @ 103..=112, _) => {
            let (whole, shift) = (fraction | 0x0080_0000, 126 - exponent);
            if whole.trailing_zeros() < shift {
                return None;
            }
            sign | whole >> shift
        }
        _ => return None,
    };
    u16::try_from(half).ok()
}

/// An item's type and its argument, as short as it can be.
fn head(major: u8, argument: u64, out: &mut Vec<u8>) {
    let bytes = argument.to_be_bytes();
    let (short, width) = match argument {
        0..=23 => {
            out.push(major << 5 | bytes.last().copied().unwrap_or_default());
            return;
        }
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    out.push(major << 5 | short);
    out.extend_from_slice(bytes.get(8 - width..).unwrap_or_default());
}
