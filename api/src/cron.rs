//! Cron schedules in the five-field form that CronJobs use, with the names and errors of Kubernetes' parser.
//!
//! A schedule is what it means, not how it was written: a set of minutes, hours, days and months, or an interval.

use std::str::FromStr;
use std::time::Duration;

/// When something happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Again and again, this long after the last time; never less than a second.
    Every(Duration),
    /// At these minutes of the clock.
    At(Times),
}

/// Sets of numbers: bit n stands for n.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    pub minutes: u64,
    pub hours: u64,
    pub days_of_month: u64,
    pub months: u64,
    /// Sunday is 0.
    pub days_of_week: u64,
    /// Whether a day must be in both sets of days, because one of them was given as any day; else in one of them.
    pub both_days: bool,
}

/// Why a text is not a schedule, in the words of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CronError(String);

/// One field: its bounds and the names of its values.
struct Bounds {
    min: u32,
    max: u32,
    names: &'static [(&'static str, u32)],
}

const MINUTES: Bounds = Bounds { min: 0, max: 59, names: &[] };
const HOURS: Bounds = Bounds { min: 0, max: 23, names: &[] };
const DAYS_OF_MONTH: Bounds = Bounds { min: 1, max: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &[
        ("jan", 1),
        ("feb", 2),
        ("mar", 3),
        ("apr", 4),
        ("may", 5),
        ("jun", 6),
        ("jul", 7),
        ("aug", 8),
        ("sep", 9),
        ("oct", 10),
        ("nov", 11),
        ("dec", 12),
    ],
};
const DAYS_OF_WEEK: Bounds = Bounds {
    min: 0,
    max: 6,
    names: &[("sun", 0), ("mon", 1), ("tue", 2), ("wed", 3), ("thu", 4), ("fri", 5), ("sat", 6)],
};

impl FromStr for Schedule {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        if text.is_empty() {
            return Err(CronError("empty spec string".to_owned()));
        }
        let text = without_zone(text)?.trim();
        if text.starts_with('@') {
            return descriptor(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            let found = fields.join(" ");
            return Err(CronError(format!("expected exactly 5 fields, found {}: [{found}]", fields.len())));
        };
        Ok(Self::At(Times {
            minutes: set(minutes, &MINUTES)?,
            hours: set(hours, &HOURS)?,
            days_of_month: set(days, &DAYS_OF_MONTH)?,
            months: set(months, &MONTHS)?,
            days_of_week: set(weekdays, &DAYS_OF_WEEK)?,
            both_days: is_any(days) || is_any(weekdays),
        }))
    }
}

/// What follows `TZ=` or `CRON_TZ=` and a zone.
fn without_zone(text: &str) -> Result<&str, CronError> {
    let Some(rest) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) else { return Ok(text) };
    let (zone, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    match jiff::tz::TimeZone::get(zone) {
        Ok(_) => Ok(rest),
        Err(_) => Err(CronError(format!("provided bad location {zone}: unknown time zone {zone}"))),
    }
}

fn descriptor(text: &str) -> Result<Schedule, CronError> {
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let Some(every) = text.strip_prefix("@every ") else {
                return Err(CronError(format!("unrecognized descriptor: {text}")));
            };
            let every = duration(every).ok_or_else(|| {
                CronError(format!("failed to parse duration {text}: time: invalid duration {every:?}"))
            })?;
            return Ok(Schedule::Every(Duration::from_secs(every.as_secs().max(1))));
        }
    };
    fields.parse()
}

/// A duration as Go writes it: `1h30m`, `1.5s`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(total).ok() }
}

/// Whether a field names every value with a star, without leaving any out.
fn is_any(field: &str) -> bool {
    field.split(',').any(|part| matches!(part, "*" | "?" | "*/1" | "?/1"))
}

fn set(field: &str, bounds: &Bounds) -> Result<u64, CronError> {
    field.split(',').filter(|part| !part.is_empty()).try_fold(0, |all, part| Ok(all | range(part, bounds)?))
}

/// `*`, `3`, `3-5`, each with `/step`.
fn range(text: &str, bounds: &Bounds) -> Result<u64, CronError> {
    let stepped: Vec<&str> = text.split('/').collect();
    let (span, step) = match stepped.as_slice() {
        [span] => (*span, None),
        [span, step] => (*span, Some(number(step)?)),
        _ => return Err(CronError(format!("too many slashes: {text}"))),
    };
    let ends: Vec<&str> = span.split('-').collect();
    let (start, end) = match ends.as_slice() {
        ["*" | "?"] => (bounds.min, bounds.max),
        [one] => {
            let start = value(one, bounds)?;
            (start, if step.is_some() { bounds.max } else { start })
        }
        [start, end] => (value(start, bounds)?, value(end, bounds)?),
        _ => return Err(CronError(format!("too many hyphens: {text}"))),
    };
    let step = step.unwrap_or(1);
    let (min, max) = (bounds.min, bounds.max);
    let wrong = if start < min {
        Some(format!("beginning of range ({start}) below minimum ({min}): {text}"))
    } else if end > max {
        Some(format!("end of range ({end}) above maximum ({max}): {text}"))
    } else if start > end {
        Some(format!("beginning of range ({start}) beyond end of range ({end}): {text}"))
    } else if step == 0 {
        Some(format!("step of range should be a positive number: {text}"))
    } else {
        None
    };
    match wrong {
        Some(why) => Err(CronError(why)),
        None => Ok((start..=end).step_by(usize::try_from(step).unwrap_or(usize::MAX)).fold(0, |set, n| set | (1 << n))),
    }
}

fn value(text: &str, bounds: &Bounds) -> Result<u32, CronError> {
    let name = text.to_lowercase();
    bounds.names.iter().find(|(known, _)| *known == name).map_or_else(|| number(text), |(_, value)| Ok(*value))
}

fn number(text: &str) -> Result<u32, CronError> {
    text.parse().map_err(|_| {
        CronError(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn times(text: &str) -> Times {
        match text.parse() {
            Ok(Schedule::At(times)) => times,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn fields_are_sets_of_numbers() {
        let some = times("*/15 8-10 1,31 feb Mon-Fri");
        assert_eq!(some.minutes, 1 | 1 << 15 | 1 << 30 | 1 << 45);
        assert_eq!(some.hours, 0b111 << 8);
        assert_eq!(some.days_of_month, 1 << 1 | 1 << 31);
        assert_eq!((some.months, some.days_of_week, some.both_days), (1 << 2, 0b11_1110, false));
        assert!(times("0 0 * * 1").both_days);
        assert_eq!(times("5/20 * * * *").minutes, 1 << 5 | 1 << 25 | 1 << 45);
    }

    #[test]
    fn names_stand_for_schedules() {
        assert_eq!("@hourly".parse(), Ok(Schedule::At(times("0 * * * *"))));
        assert_eq!("@every 1h30m".parse(), Ok(Schedule::Every(Duration::from_secs(5400))));
    }

    #[test]
    fn what_is_wrong_is_said_as_kubernetes_says_it() {
        for (text, wanted) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("@never", "unrecognized descriptor: @never"),
        ] {
            assert_eq!(text.parse::<Schedule>().map_err(|e| e.to_string()), Err(wanted.to_owned()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in "[@*/0-9a-z,? -]{0,30}") {
            if let Ok(Schedule::At(times)) = text.parse() {
                prop_assert!(times.minutes < 1 << 60 && times.hours < 1 << 24 && times.months < 1 << 13);
            }
        }
    }
}
