//! Times as objects write them: RFC 3339 as Go reads it, written in UTC.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `2006-01-02T15:04:05Z`: whole seconds, as `metav1.Time` is.
pub fn format_time(time: Timestamp) -> String {
    format!("{time:.0}")
}

/// `2006-01-02T15:04:05.000000Z`, as `metav1.MicroTime` is.
pub fn format_micro_time(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// An RFC 3339 time with an offset, as Go reads it.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    if !is_time(text) {
        return None;
    }
    let time: Timestamp = text.parse().ok()?;
    (0..=9999).contains(&time.to_zoned(TimeZone::UTC).year()).then_some(time)
}

/// Like [`parse_time`], for a `metav1.MicroTime`: its fraction has six digits.
pub fn parse_micro_time(text: &str) -> Option<Timestamp> {
    let micro = text.get(19..26).is_some_and(|fraction| fits(fraction, ".000000"));
    let ended = !text.get(26..27).is_some_and(|next| fits(next, "0"));
    if micro && ended { parse_time(text) } else { None }
}

/// Whether a text is written like a time of RFC 3339. What no clock here can name is one all the same.
pub fn is_time(text: &str) -> bool {
    let Some((start, rest)) = text.split_at_checked(19) else { return false };
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
        None => ("0", rest),
    };
    fits(start, "0000-00-00T00:00:00")
        && start.get(17..).is_some_and(|seconds| seconds < "60")
        && (1..=9).contains(&fraction.len())
        && (zone == "Z" || fits(zone, "+00:00") || fits(zone, "-00:00"))
}

/// Whether a text has a digit where the form has a nought, and is the form elsewhere.
fn fits(text: &str, form: &str) -> bool {
    let same = |(given, wanted): (u8, u8)| if wanted == b'0' { given.is_ascii_digit() } else { given == wanted };
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_whole_seconds_and_round_trip() {
        let time: Timestamp = "2024-02-29T23:59:58.987654Z".parse().unwrap();
        assert_eq!(format_time(time), "2024-02-29T23:59:58Z");
        assert_eq!(format_micro_time(time), "2024-02-29T23:59:58.987654Z");
        assert_eq!(parse_time("2024-02-29T23:59:58.987654Z"), Some(time));
        assert_eq!(parse_time("2024-02-29 23:59:58Z"), None);
        assert_eq!(parse_time(""), None);
    }

    #[test]
    fn a_time_is_one_that_go_reads() {
        for good in ["2024-02-29T01:02:03Z", "2024-02-29T01:02:03.5+05:30", "0000-01-01T00:00:00Z"] {
            assert!(parse_time(good).is_some(), "{good}");
        }
        for bad in [
            "2024-02-29T01:02:03-04[America/New_York]",
            "2024-02-29T01:02:03Z[UTC]",
            "2024-02-29T01:02:60Z",
            "2024-02-29T01:02:03+05",
            "2024-02-29T01:02:03+05:00:00",
            "2024-02-29T01:02:03,5Z",
            "2024-02-29T01:02:03.Z",
            "2024-02-29T01:02:03z",
            "2024-02-29T01:02:03",
            "2023-02-29T01:02:03Z",
            "-02024-02-29T01:02:03Z",
            "0000-01-01T00:00:00+01:00",
            "2024-02-29T01:02:0é",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_micro_time_has_six_digits() {
        assert!(parse_micro_time("2024-02-29T01:02:03.000000Z").is_some());
        assert!(parse_micro_time("2024-02-29T01:02:03.000001+01:00").is_some());
        for bad in ["2024-02-29T01:02:03Z", "2024-02-29T01:02:03.00000Z", "2024-02-29T01:02:03.0000000Z"] {
            assert_eq!(parse_micro_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_typed_clients_write_is_read() {
        let noon: Timestamp = "2024-02-29T12:00:00Z".parse().unwrap();
        let micro = serde_json::to_value(k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(noon)).unwrap();
        assert_eq!(micro.as_str().and_then(parse_micro_time), Some(noon));
    }

    /// Much that is nearly a time.
    const NEARLY: &str = "[0-9]{4}-[0-1][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9]([.,][0-9]{0,10})?(Z|z|[+-][0-9]{2}(:?[0-9]{2}){0,2}|\\[UTC\\]){0,2}";

    proptest::proptest! {
        #[test]
        fn a_time_that_is_read_is_of_one_form(text in NEARLY) {
            let form = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$";
            let good = regex::Regex::new(form).unwrap().is_match(&text);
            proptest::prop_assert_eq!(is_time(&text), good);
            if let Some(time) = parse_time(&text) {
                proptest::prop_assert!(good);
                proptest::prop_assert!(is_time(&format_time(time)));
                let micro = format_micro_time(time);
                proptest::prop_assert_eq!(parse_micro_time(&micro).map(format_micro_time), Some(micro));
            }
        }
    }
}
