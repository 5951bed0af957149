//! CBOR to whatever a visitor makes of it. Bodies are hostile: every length is checked against what is there, nothing is
//! reserved by a length that a body claims, and levels are counted.

use std::fmt;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::de::value::StringDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// Levels of lists and maps, as JSON's parser bounds them.
const MAX_DEPTH: usize = 128;

/// Why a body could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cbor: {0}")]
pub(crate) struct CborError(String);

impl serde::de::Error for CborError {
    fn custom<T: fmt::Display>(why: T) -> Self {
        Self(why.to_string())
    }
}

type Result<T> = std::result::Result<T, CborError>;

fn refuse<T>(why: impl Into<String>) -> Result<T> {
    Err(CborError(why.into()))
}

/// A place in a body.
#[derive(Debug)]
pub(crate) struct Reader<'b> {
    rest: &'b [u8],
    depth: usize,
}

/// An item's first byte and its argument.
#[derive(Clone, Copy)]
struct Head {
    major: u8,
    /// What the low five bits say.
    short: u8,
    /// `None`: of unknown length.
    argument: Option<u64>,
}

/// What a tag says of the item in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    None,
    /// Seconds since 1970.
    Epoch,
    Base64,
    Base64Url,
    Base16,
}

const BREAK: u8 = 0xff;

impl<'b> Reader<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes, depth: 0 }
    }

    /// Whether everything has been read.
    pub(crate) fn end(&self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            left => refuse(format!("{left} bytes of extraneous data")),
        }
    }

    fn take(&mut self, count: u64) -> Result<&'b [u8]> {
        let split = usize::try_from(count).ok().and_then(|count| self.rest.split_at_checked(count));
        let (taken, rest) = split.ok_or_else(|| CborError("unexpected EOF".to_owned()))?;
        self.rest = rest;
        Ok(taken)
    }

    fn head(&mut self) -> Result<Head> {
        let first = self.take(1)?.first().copied().unwrap_or_default();
        let (major, short) = (first >> 5, first & 0x1f);
        let argument = match short {
            0..=23 => Some(u64::from(short)),
            24..=27 => {
                let bytes = self.take(1 << (short - 24))?;
                Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
            }
            31 if matches!(major, 2..=5 | 7) => None,
            _ => return refuse(format!("invalid additional information {short} for type {major}")),
        };
        Ok(Head { major, short, argument })
    }

    /// Whether a part of unknown length ends here.
    fn ends(&mut self) -> bool {
        match self.rest.split_first() {
            Some((&BREAK, rest)) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// The bytes of a string, in one piece or in several.
    fn bytes(&mut self, head: Head) -> Result<Vec<u8>> {
        if let Some(length) = head.argument {
            return Ok(self.take(length)?.to_vec());
        }
        let mut all = Vec::new();
        while !self.ends() {
            let piece = self.head()?;
            match piece.argument {
                Some(length) if piece.major == head.major => all.extend_from_slice(self.take(length)?),
                _ => return refuse("a string of unknown length has a piece of another type"),
            }
        }
        Ok(all)
    }

    fn text(&mut self, head: Head, meaning: Meaning) -> Result<String> {
        let bytes = self.bytes(head)?;
        match (head.major, meaning) {
            (2, Meaning::Base64) => Ok(STANDARD.encode(bytes)),
            (2, Meaning::Base64Url) => Ok(URL_SAFE_NO_PAD.encode(bytes)),
            (2, Meaning::Base16) => Ok(hex(&bytes)),
            _ => String::from_utf8(bytes).or_else(|_| refuse("invalid UTF-8 string")),
        }
    }

    /// The tags before an item, and the item's head.
    fn tagged(&mut self) -> Result<(Meaning, Head)> {
        let mut meaning = Meaning::None;
        loop {
            let head = self.head()?;
            if head.major != 6 {
                let fits = match meaning {
                    Meaning::None => true,
                    Meaning::Epoch => matches!(head.major, 0 | 1 | 7),
                    Meaning::Base64 | Meaning::Base64Url | Meaning::Base16 => head.major == 2,
                };
                return if fits { Ok((meaning, head)) } else { refuse("a tag is on a type that it is not for") };
            }
            meaning = match head.argument {
                Some(1) => Meaning::Epoch,
                Some(2 | 3) => return refuse("bignum tags are not allowed"),
                Some(21) => Meaning::Base64Url,
                Some(22) => Meaning::Base64,
                Some(23) => Meaning::Base16,
                // What is not known says nothing.
                _ => meaning,
            };
        }
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= MAX_DEPTH {
            return refuse("recursion limit exceeded");
        }
        self.depth += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }
}

fn signed(argument: u64) -> Result<i64> {
    i64::try_from(argument).or_else(|_| refuse("integer overflow"))
}

fn float(head: Head) -> Result<f64> {
    // The argument of these is the number's bits.
    let bits = head.argument.unwrap_or_default();
    let value = match head.short {
        25 => of_half(bits),
        26 => f64::from(f32::from_bits(u32::try_from(bits).unwrap_or_default())),
        _ => f64::from_bits(bits),
    };
    if value.is_finite() { Ok(value) } else { refuse("floating-point NaN and infinity are not allowed") }
}

/// RFC 4648's base 16, in small letters.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A half-precision float's value.
fn of_half(bits: u64) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::try_from(bits >> 10 & 0x1f).unwrap_or_default();
    let fraction = f64::from(u32::try_from(bits & 0x3ff).unwrap_or_default());
    sign * match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
    }
}

/// A time as text.
fn time(seconds: f64) -> Result<String> {
    #[allow(clippy::cast_possible_truncation)]
    let nanoseconds = (seconds * 1e9) as i128;
    let time = Timestamp::from_nanosecond(nanoseconds).or_else(|_| refuse("time out of range"))?;
    Ok(time.to_string())
}

impl<'de> Deserializer<'de> for &mut Reader<'_> {
    type Error = CborError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let (meaning, head) = self.tagged()?;
        match (head.major, head.short) {
            (0 | 1, _) => {
                let argument = signed(head.argument.unwrap_or_default())?;
                let value = if head.major == 0 { argument } else { !argument };
                // Seconds of any date that can be written are far below 2^53.
                #[allow(clippy::cast_precision_loss)]
                if meaning == Meaning::Epoch {
                    visitor.visit_string(time(value as f64)?)
                } else {
                    visitor.visit_i64(value)
                }
            }
            (2 | 3, _) => visitor.visit_string(self.text(head, meaning)?),
            (4, _) => self.nested(|reader| {
                let mut parts = Parts { reader, left: head.argument };
                let value = visitor.visit_seq(&mut parts)?;
                parts.finished(value)
            }),
            (5, _) => self.nested(|reader| {
                let mut parts = Parts { reader, left: head.argument };
                let value = visitor.visit_map(&mut parts)?;
                parts.finished(value)
            }),
            (_, 25..=27) => {
                let value = float(head)?;
                if meaning == Meaning::Epoch { visitor.visit_string(time(value)?) } else { visitor.visit_f64(value) }
            }
            (_, 20) => visitor.visit_bool(false),
            (_, 21) => visitor.visit_bool(true),
            (_, 22) => visitor.visit_unit(),
            (_, other) => refuse(format!("simple value {other} is not allowed")),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The items of a list, or the entries of a map.
struct Parts<'r, 'b> {
    reader: &'r mut Reader<'b>,
    /// `None`: until the break.
    left: Option<u64>,
}

impl Parts<'_, '_> {
    fn next(&mut self) -> bool {
        match &mut self.left {
            None => {
                let more = !self.reader.ends();
                if !more {
                    self.left = Some(0);
                }
                more
            }
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    /// The value of a visitor that must have read all parts.
    fn finished<T>(&self, value: T) -> Result<T> {
        if self.left == Some(0) { Ok(value) } else { Err(CborError::custom("a list or map was not read to its end")) }
    }
}

impl<'de> SeqAccess<'de> for &mut Parts<'_, '_> {
    type Error = CborError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if self.next() { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }
}

impl<'de> MapAccess<'de> for &mut Parts<'_, '_> {
    type Error = CborError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        if !self.next() {
            return Ok(None);
        }
        let (_, head) = self.reader.tagged()?;
        if !matches!(head.major, 2 | 3) {
            return refuse("a map's key must be a string");
        }
        let key: StringDeserializer<CborError> = self.reader.text(head, Meaning::None)?.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        seed.deserialize(&mut *self.reader)
    }
}
