//! Resource quantities of a pod's limits, in the units a container is given them.

use std::str::FromStr;

/// An amount in thousandths, rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity(i128);

impl Quantity {
    /// Whole units, rounded up.
    pub fn value(self) -> i64 {
        i64::try_from(self.0.div_euclid(1000) + i128::from(self.0.rem_euclid(1000) > 0)).unwrap_or(i64::MAX)
    }

    /// Thousandths.
    pub fn milli(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl FromStr for Quantity {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        let (scale, exponent): (i128, i32) = match suffix {
            "" => (1, 0),
            "n" => (1, -9),
            "u" => (1, -6),
            "m" => (1, -3),
            "k" => (1, 3),
            "M" => (1, 6),
            "G" => (1, 9),
            "T" => (1, 12),
            "P" => (1, 15),
            "E" => (1, 18),
            "Ki" => (1 << 10, 0),
            "Mi" => (1 << 20, 0),
            "Gi" => (1 << 30, 0),
            "Ti" => (1 << 40, 0),
            "Pi" => (1 << 50, 0),
            "Ei" => (1 << 60, 0),
            exponent => (1, exponent.strip_prefix(['e', 'E']).and_then(|e| e.parse().ok()).ok_or(())?),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return Err(());
        }
        let digits: i128 = format!("0{whole}{fraction}").parse().map_err(|_| ())?;
        let exponent = exponent + 3 - i32::try_from(fraction.len()).map_err(|_| ())?;
        let scaled = digits.checked_mul(scale).ok_or(())?;
        let power = 10i128.checked_pow(exponent.unsigned_abs()).ok_or(())?;
        if exponent >= 0 {
            scaled.checked_mul(power).map(Self).ok_or(())
        } else {
            Ok(Self(scaled / power + i128::from(scaled % power > 0)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_rounded_up_in_their_unit() {
        let read = |text: &str| text.parse::<Quantity>().map(|q| (q.value(), q.milli())).ok();
        for (text, expected) in [
            ("100m", Some((1, 100))),
            ("1.5Gi", Some((1_610_612_736, 1_610_612_736_000))),
            ("1e3", Some((1000, 1_000_000))),
            ("0.5", Some((1, 500))),
            ("1n", Some((1, 1))),
            ("64Mi", Some((67_108_864, 67_108_864_000))),
            ("", None),
            ("x", None),
            ("1x", None),
            (".", None),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }
}
