//! Durations as Go reads and prints them (`1h30m0.5s`), in nanoseconds.

/// Nanoseconds per unit.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A duration in Go's syntax; `None` if it is not one, or does not fit.
pub fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (number, tail) = split(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, tail) = split(tail, |c| !c.is_ascii_digit() && c != '.');
        let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(scaled(number, *nanos)?)?;
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Units of the lenient form, in nanoseconds.
const LONG: [(&str, i128); 9] = [
    ("ns", 1),
    ("nano", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];
/// Their names in words.
const WORDS: [(&str, &str); 10] = [
    ("microsecond", "us"),
    ("micro", "us"),
    ("millisecond", "ms"),
    ("milli", "ms"),
    ("nanosecond", "ns"),
    ("second", "s"),
    ("minute", "m"),
    ("hour", "h"),
    ("day", "d"),
    ("week", "w"),
];

/// Like [`parse`]; also with spaces, days and weeks (`3 days`), as the format `duration` allows.
pub fn parse_lenient(text: &str) -> Option<i64> {
    if let Some(nanos) = parse(text) {
        return Some(nanos);
    }
    let (number, unit) = split(text, |c| c.is_ascii_digit());
    let unit = unit.trim();
    let singular = unit.strip_suffix('s').filter(|s| s.len() > 1).unwrap_or(unit);
    let short = WORDS.iter().find(|(word, _)| *word == singular).map_or(unit, |(_, short)| short);
    let (_, nanos) = LONG.iter().find(|(name, _)| *name == short)?;
    i64::try_from(scaled(number, *nanos)?).ok()
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// A decimal number of units in nanoseconds.
fn scaled(number: &str, nanos: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(nanos)?;
    let mut scale = nanos;
    for digit in fraction.bytes().take(18) {
        scale /= 10;
        total += i128::from(digit.checked_sub(b'0').filter(|d| *d < 10)?) * scale;
    }
    Some(total)
}

/// As Go prints it: `1h30m0s`, `1.5s`, `100ms`, `0s`.
pub fn format(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let total = nanos.unsigned_abs();
    if total < 1_000_000_000 {
        let (unit, name) = match total {
            0 => return "0s".to_owned(),
            1..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "\u{b5}s"),
            _ => (1_000_000, "ms"),
        };
        return format!("{sign}{}{name}", decimal(total, unit));
    }
    let (hours, rest) = (total / 3_600_000_000_000, total % 3_600_000_000_000);
    let (minutes, rest) = (rest / 60_000_000_000, rest % 60_000_000_000);
    let seconds = decimal(rest, 1_000_000_000);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

fn decimal(value: u64, unit: u64) -> String {
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let fraction = format!("{rest:0width$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_in_go() {
        assert_eq!(parse("1h30m"), Some(5_400_000_000_000));
        assert_eq!(parse("-1.5s"), Some(-1_500_000_000));
        assert_eq!(parse("100ms"), Some(100_000_000));
        assert_eq!(
            (parse("1"), parse(""), parse("1d"), parse("300000h"), parse(".s")),
            (None, None, None, Some(1_080_000_000_000_000_000), None)
        );
        assert_eq!(parse("3000000h"), None);
        assert_eq!(parse_lenient("3 days"), Some(259_200_000_000_000));
        assert_eq!(parse_lenient("22 ns"), Some(22));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(nanos: i64) {
            prop_assert_eq!(parse(&format(nanos)), Some(nanos));
        }

        #[test]
        fn anything_is_read_or_refused(text in "[0-9a-z. +-]{0,12}") {
            parse(&text);
            parse_lenient(&text);
        }
    }
}
