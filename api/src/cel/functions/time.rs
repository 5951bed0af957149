//! Times and durations.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

use super::super::value::{Val, timestamp};
use super::super::{EvalError, duration};
use super::{Result, str};
use crate::schema::structural::Format;

pub fn arithmetic<'a>(name: &str, a: &Val<'a>, b: &Val<'a>) -> Result<'a> {
    let out = || EvalError::other("timestamp overflow");
    let nanos = |value: Option<i64>| value.map(Val::Duration).ok_or_else(|| EvalError::other("duration overflow"));
    match (name, a, b) {
        ("_+_", Val::Duration(a), Val::Duration(b)) => nanos(a.checked_add(*b)),
        ("_-_", Val::Duration(a), Val::Duration(b)) => nanos(a.checked_sub(*b)),
        ("_+_", Val::Timestamp(t), Val::Duration(d)) | ("_+_", Val::Duration(d), Val::Timestamp(t)) => {
            t.checked_add(SignedDuration::from_nanos(*d)).map(Val::Timestamp).map_err(|_| out())
        }
        ("_-_", Val::Timestamp(t), Val::Duration(d)) => {
            t.checked_sub(SignedDuration::from_nanos(*d)).map(Val::Timestamp).map_err(|_| out())
        }
        ("_-_", Val::Timestamp(a), Val::Timestamp(b)) => nanos(i64::try_from(a.duration_since(*b).as_nanos()).ok()),
        _ => Err(EvalError::Overload),
    }
}

pub fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Result<'a>> {
    Some(match (name, args) {
        ("timestamp", [Val::Timestamp(t)]) => Ok(Val::Timestamp(*t)),
        ("timestamp", [Val::String(text)]) => {
            time(text).map(Val::Timestamp).ok_or_else(|| EvalError::other(format!("invalid timestamp {:?}", &**text)))
        }
        ("timestamp", [Val::Int(seconds)]) => {
            Timestamp::from_second(*seconds).map(Val::Timestamp).map_err(|_| EvalError::other("timestamp overflow"))
        }
        ("duration", [Val::Duration(d)]) => Ok(Val::Duration(*d)),
        ("duration", [Val::String(text)]) => duration::parse(text)
            .map(Val::Duration)
            .ok_or_else(|| EvalError::other(format!("invalid duration {:?}", &**text))),
        ("duration", [Val::Int(nanos)]) => Ok(Val::Duration(*nanos)),
        (name, [Val::Duration(d)]) => return of_duration(name, *d),
        (name, [Val::Timestamp(t)]) => return part(name, *t, "UTC"),
        (name, [Val::Timestamp(t), zone]) => return part(name, *t, str(zone)?),
        _ => return None,
    })
}

/// A time as a literal says it: no date alone, as a field of an object may be.
pub fn time(text: &str) -> Option<Timestamp> {
    let strict = text.as_bytes().get(10) == Some(&b'T') && Format::DateTime.accepts(text) && !text.ends_with('z');
    if strict { timestamp(text) } else { None }
}

fn of_duration<'a>(name: &str, nanos: i64) -> Option<Result<'a>> {
    let whole = match name {
        "getHours" => nanos / 3_600_000_000_000,
        "getMinutes" => nanos / 60_000_000_000,
        "getSeconds" => nanos / 1_000_000_000,
        "getMilliseconds" => nanos / 1_000_000 % 1_000,
        _ => return None,
    };
    Some(Ok(Val::Int(whole)))
}

fn part<'a>(name: &str, time: Timestamp, zone: &str) -> Option<Result<'a>> {
    if !name.starts_with("get") {
        return None;
    }
    let Some(zone) = time_zone(zone) else {
        return Some(Err(EvalError::other(format!("unknown time zone {zone}"))));
    };
    let at: Zoned = time.to_zoned(zone);
    let value = match name {
        "getFullYear" => i64::from(at.year()),
        "getMonth" => i64::from(at.month()) - 1,
        "getDayOfYear" => i64::from(at.day_of_year()) - 1,
        "getDayOfMonth" => i64::from(at.day()) - 1,
        "getDate" => i64::from(at.day()),
        "getDayOfWeek" => i64::from(at.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(at.hour()),
        "getMinutes" => i64::from(at.minute()),
        "getSeconds" => i64::from(at.second()),
        "getMilliseconds" => i64::from(at.millisecond()),
        _ => return None,
    };
    Some(Ok(Val::Int(value)))
}

/// `UTC`, an IANA name, or `+02:00`.
fn time_zone(name: &str) -> Option<TimeZone> {
    if name.is_empty() {
        return Some(TimeZone::UTC);
    }
    if let Some((hours, minutes)) = name.split_once(':') {
        let negative = hours.starts_with('-');
        let hours: i32 = hours.trim_start_matches(['+', '-']).parse().ok().filter(|h| *h < 24)?;
        let minutes: i32 = minutes.parse().ok().filter(|m| (0..60).contains(m))?;
        let seconds = (hours * 60 + minutes) * 60;
        let offset = jiff::tz::Offset::from_seconds(if negative { -seconds } else { seconds }).ok()?;
        return Some(TimeZone::fixed(offset));
    }
    TimeZone::get(name).ok()
}
