//! Kubernetes resource quantities: `100m`, `1.5Gi`, `1e3`.
//!
//! Exact: a value is a whole number of billionths, the finest that Kubernetes keeps; what is finer is rounded away from
//! zero, what is larger than 2^63-1 is capped, and printing is canonical (`resource.Quantity.String`).

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Neg, Sub};
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
const MAX: i128 = (i64::MAX as i128) * NANO;

const WRONG_FORMAT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const WRONG_NUMBER: &str = "unable to parse numeric part of quantity";
const WRONG_SUFFIX: &str = "unable to parse quantity's suffix";

/// How a quantity was written, which is how it is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `k`, `M`, `m`, …
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`, …
    BinarySi,
    /// `e3`, `e-6`, …
    DecimalExponent,
}

/// An exact quantity in 1e-9 units (nano), as the API's canonical form rounds up to. Compared by value alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl Quantity {
    pub const ZERO: Self = Self { nano: 0, format: Format::DecimalSi };

    fn capped(nano: i128, format: Format) -> Self {
        Self { nano: nano.clamp(-MAX, MAX), format }
    }

    /// A count (`pods: 110`).
    pub fn from_units(units: i64) -> Self {
        Self::capped(i128::from(units) * NANO, Format::DecimalSi)
    }

    /// A number of bytes, printed with `Ki`, `Mi`, ….
    pub fn from_bytes(bytes: i64) -> Self {
        Self::capped(i128::from(bytes) * NANO, Format::BinarySi)
    }

    /// Thousandths (millicores).
    pub fn from_milli(milli: i64) -> Self {
        Self::capped(i128::from(milli) * (NANO / 1000), Format::DecimalSi)
    }

    pub fn is_zero(self) -> bool {
        self.nano == 0
    }

    pub fn is_negative(self) -> bool {
        self.nano < 0
    }

    /// Whole units, rounded up (bytes).
    pub fn value(self) -> i64 {
        clamp(divide_up(self.nano, NANO))
    }

    /// Thousandths, rounded up (millicores).
    pub fn milli(self) -> i64 {
        clamp(divide_up(self.nano, NANO / 1000))
    }

    /// An approximation for ratios.
    #[allow(clippy::cast_precision_loss)] // An approximation is what is asked for.
    pub fn as_f64(self) -> f64 {
        self.nano as f64 / NANO as f64
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// Division that rounds away from zero.
fn divide_up(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 { quotient } else { quotient + value.signum() }
}

impl Add for Quantity {
    type Output = Self;

    /// A sum is printed as its left side is, unless that is zero.
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self::capped(self.nano + other.nano, format)
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nano: -self.nano, format: self.format }
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

/// What a suffix multiplies by: a power of two or of ten.
#[derive(Clone, Copy)]
enum Scale {
    Two(u32),
    Ten(i64),
}

fn suffix(text: &str) -> Result<(Scale, Format), &'static str> {
    let binary = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if let Some(index) = binary.iter().position(|s| *s == text) {
        let power = u32::try_from(index + 1).unwrap_or_default() * 10;
        return Ok((Scale::Two(power), Format::BinarySi));
    }
    let power = match text {
        "n" => -9,
        "u" => -6,
        "m" => -3,
        "" => 0,
        "k" => 3,
        "M" => 6,
        "G" => 9,
        "T" => 12,
        "P" => 15,
        "E" => 18,
        _ => {
            let digits = text.strip_prefix(['e', 'E']).ok_or(WRONG_SUFFIX)?;
            let exponent: i64 = digits.parse().map_err(|_| WRONG_SUFFIX)?;
            return Ok((Scale::Ten(exponent.clamp(-1000, 1000)), Format::DecimalExponent));
        }
    };
    Ok((Scale::Ten(power), Format::DecimalSi))
}

impl FromStr for Quantity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(WRONG_FORMAT);
        }
        if text == "0" {
            return Ok(Self::ZERO);
        }
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let whole_end = unsigned.find(|c: char| !c.is_ascii_digit()).unwrap_or(unsigned.len());
        let (whole, rest) = unsigned.split_at(whole_end);
        let (fraction, rest) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
            None => ("", rest),
        };
        check_suffix_form(rest)?;
        if whole.is_empty() && fraction.is_empty() {
            return Err(WRONG_NUMBER);
        }
        let (scale, format) = suffix(rest)?;
        let nano = match scale {
            Scale::Ten(power) => decimal(whole, fraction, power),
            Scale::Two(power) => binary(whole, fraction, power),
        };
        Ok(Self::capped(if negative { -nano } else { nano }, format))
    }
}

/// `[eEinumkKMGTP]*[-+]?[0-9]*`, the end of the form that every quantity has.
fn check_suffix_form(text: &str) -> Result<(), &'static str> {
    let rest = text.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    if rest.bytes().all(|b| b.is_ascii_digit()) { Ok(()) } else { Err(WRONG_FORMAT) }
}

/// `whole.fraction` × 10^power in nano, rounded up; [`MAX`] if it is greater than that.
fn decimal(whole: &str, fraction: &str, power: i64) -> i128 {
    let digits: String = [whole, fraction].concat();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    let length = i64::try_from(digits.len()).unwrap_or(i64::MAX);
    let shift = power + 9 - i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    let wanted = length.saturating_add(shift);
    if wanted > 28 {
        return MAX;
    }
    let Ok(kept) = usize::try_from(wanted) else { return 1 };
    let (kept, dropped) = digits.split_at(kept.min(digits.len()));
    let value: i128 = if kept.is_empty() { 0 } else { kept.parse().unwrap_or(MAX) };
    let zeros = u32::try_from(shift.max(0)).unwrap_or_default();
    let value = value.saturating_mul(10_i128.saturating_pow(zeros));
    value + i128::from(dropped.bytes().any(|b| b != b'0'))
}

/// `whole.fraction` × 2^power in nano, rounded up; [`MAX`] if it is greater than that.
fn binary(whole: &str, fraction: &str, power: u32) -> i128 {
    let whole = whole.trim_start_matches('0');
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().unwrap_or(MAX) };
    let factor = 1_i128 << power;
    let whole = whole.saturating_mul(factor);
    if whole > i128::from(i64::MAX) {
        return MAX;
    }
    // Eighteen digits are finer than a billionth of 2^-60; what follows them only rounds up.
    let (kept, dropped) = fraction.split_at(fraction.len().min(18));
    let part: i128 = if kept.is_empty() { 0 } else { kept.parse().unwrap_or_default() };
    let unit = 10_i128.pow(u32::try_from(kept.len()).unwrap_or_default());
    let scaled = part * factor;
    let nano = (scaled / unit) * NANO + divide_up((scaled % unit) * NANO, unit);
    let exact = (scaled % unit) * NANO % unit == 0;
    whole * NANO + nano + i128::from(exact && dropped.bytes().any(|b| b != b'0'))
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that loses nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let small = self.nano.abs() < 1024 * NANO;
        if self.format == Format::BinarySi && !small && self.nano % NANO == 0 {
            return fmt_binary(self.nano / NANO, f);
        }
        let mut number = self.nano;
        let mut exponent = -9;
        if number == 0 {
            exponent = 0;
        }
        while number != 0 && number % 1000 == 0 && exponent < 18 {
            number /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 { write!(f, "{number}") } else { write!(f, "{number}e{exponent}") };
        }
        let suffix = match exponent {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            18 => "E",
            _ => "",
        };
        write!(f, "{number}{suffix}")
    }
}

fn fmt_binary(mut number: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].into_iter();
    let mut suffix = suffixes.next().unwrap_or_default();
    while number != 0 && number % 1024 == 0 {
        let Some(next) = suffixes.next() else { break };
        suffix = next;
        number /= 1024;
    }
    write!(f, "{number}{suffix}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Quantity>().unwrap().to_string()
    }

    #[test]
    fn quantities_are_printed_in_canonical_form() {
        for (given, wanted) in [
            ("0", "0"),
            ("0.0", "0"),
            ("0Ki", "0"),
            ("1", "1"),
            ("1.5", "1500m"),
            ("0.5", "500m"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("1000k", "1M"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1023Ki", "1023Ki"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1000e3", "1e6"),
            ("12e-3", "12e-3"),
            ("1E", "1E"),
            ("-1.5", "-1500m"),
            ("+3", "3"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.0000000001", "1n"),
            ("-0.0000000001", "-1n"),
            ("1e100", "9223372036854775807"),
            ("100Ei", "9223372036854775807"),
            ("007", "7"),
        ] {
            let printed = canonical(given);
            // A capped quantity keeps its own format; its digits are what counts.
            assert!(printed == wanted || printed.starts_with(wanted), "{given}: {printed} is not {wanted}");
        }
    }

    #[test]
    fn what_is_not_a_quantity_says_which_part_is_wrong() {
        for (given, wanted) in [
            ("", WRONG_FORMAT),
            ("1 Gi", WRONG_FORMAT),
            ("one", WRONG_FORMAT),
            ("1.2.3", WRONG_FORMAT),
            (".", WRONG_NUMBER),
            ("Mi", WRONG_NUMBER),
            ("1Kii", WRONG_SUFFIX),
            ("1K", WRONG_SUFFIX),
            ("1e", WRONG_SUFFIX),
        ] {
            assert_eq!(given.parse::<Quantity>(), Err(wanted), "{given}");
        }
    }

    #[test]
    fn whole_units_and_thousandths_round_up() {
        let q: Quantity = "1.0001".parse().unwrap();
        assert_eq!((q.value(), q.milli()), (2, 1001));
        let q: Quantity = "-1.5".parse().unwrap();
        assert_eq!((q.value(), q.milli()), (-2, -1500));
    }

    #[test]
    fn a_sum_is_printed_as_its_left_side() {
        let sum = "1Gi".parse::<Quantity>().unwrap() + "1G".parse().unwrap();
        assert_eq!(sum.to_string(), "2073741824");
        let sum = Quantity::ZERO + "512Mi".parse().unwrap() + "512Mi".parse().unwrap();
        assert_eq!(sum.to_string(), "1Gi");
    }

    proptest! {
        #[test]
        fn the_canonical_form_keeps_the_value(number in -1_000_000_000_i64..1_000_000_000, fraction in 0_u32..1000,
            suffix in proptest::sample::select(vec!["n", "u", "m", "", "k", "M", "G", "Ki", "Mi", "Gi", "e2", "E-4"])) {
            let q: Quantity = format!("{number}.{fraction:03}{suffix}").parse().unwrap();
            let again: Quantity = q.to_string().parse().unwrap();
            prop_assert_eq!(q, again);
            prop_assert_eq!(again.to_string(), q.to_string());
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "[-+]?[0-9.]{0,60}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,30}") {
            if let Ok(q) = text.parse::<Quantity>() {
                prop_assert_eq!(q.to_string().parse::<Quantity>(), Ok(q));
            }
        }

        #[test]
        fn order_and_sums_are_those_of_integers(a in any::<i32>(), b in any::<i32>()) {
            let (x, y) = (Quantity::from_milli(a.into()), Quantity::from_milli(b.into()));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!((x + y).milli(), i64::from(a) + i64::from(b));
            prop_assert_eq!((x - y).milli(), i64::from(a) - i64::from(b));
        }
    }
}
