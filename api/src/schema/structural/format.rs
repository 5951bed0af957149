//! The formats that Kubernetes enforces; any other is ignored, as it does.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;

use super::pattern;
use crate::cel::duration;
use crate::cel::url::Url;
use crate::meta;

/// A format that is judged. Names are Kubernetes', dashes left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Int32,
    Int64,
    Float,
    Double,
    BsonObjectId,
    Uri,
    Email,
    Hostname,
    Ipv4,
    Ipv6,
    Cidr,
    Mac,
    /// Any version, or one of 3, 4 and 5.
    Uuid(Option<char>),
    Isbn,
    Isbn10,
    Isbn13,
    CreditCard,
    Ssn,
    HexColor,
    RgbColor,
    Byte,
    Password,
    Date,
    Duration,
    DateTime,
    ShortName,
    LongName,
}

impl Format {
    /// The format of that name for values of that type (`""`: any), if it is one that is judged.
    pub(super) fn of(kind: &str, format: &str) -> Option<Self> {
        match (kind, format) {
            ("integer", "int32") => return Some(Self::Int32),
            ("integer", "int64") => return Some(Self::Int64),
            ("number", "float") => return Some(Self::Float),
            ("number", "double") => return Some(Self::Double),
            ("" | "string", _) => {}
            _ => return None,
        }
        Some(match format.replace('-', "").as_str() {
            "bsonobjectid" => Self::BsonObjectId,
            "uri" => Self::Uri,
            "email" => Self::Email,
            "hostname" => Self::Hostname,
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "cidr" => Self::Cidr,
            "mac" => Self::Mac,
            "uuid" => Self::Uuid(None),
            "uuid3" => Self::Uuid(Some('3')),
            "uuid4" => Self::Uuid(Some('4')),
            "uuid5" => Self::Uuid(Some('5')),
            "isbn" => Self::Isbn,
            "isbn10" => Self::Isbn10,
            "isbn13" => Self::Isbn13,
            "creditcard" => Self::CreditCard,
            "ssn" => Self::Ssn,
            "hexcolor" => Self::HexColor,
            "rgbcolor" => Self::RgbColor,
            "byte" => Self::Byte,
            "password" => Self::Password,
            "date" => Self::Date,
            "duration" => Self::Duration,
            "datetime" => Self::DateTime,
            "k8sshortname" => Self::ShortName,
            "k8slongname" => Self::LongName,
            _ => return None,
        })
    }

    /// The name in an error.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float => "float",
            Self::Double => "double",
            Self::BsonObjectId => "bsonobjectid",
            Self::Uri => "uri",
            Self::Email => "email",
            Self::Hostname => "hostname",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Cidr => "cidr",
            Self::Mac => "mac",
            Self::Uuid(None) => "uuid",
            Self::Uuid(Some('3')) => "uuid3",
            Self::Uuid(Some('4')) => "uuid4",
            Self::Uuid(Some(_)) => "uuid5",
            Self::Isbn => "isbn",
            Self::Isbn10 => "isbn10",
            Self::Isbn13 => "isbn13",
            Self::CreditCard => "creditcard",
            Self::Ssn => "ssn",
            Self::HexColor => "hexcolor",
            Self::RgbColor => "rgbcolor",
            Self::Byte => "byte",
            Self::Password => "password",
            Self::Date => "date",
            Self::Duration => "duration",
            Self::DateTime => "date-time",
            Self::ShortName => "k8s-short-name",
            Self::LongName => "k8s-long-name",
        }
    }

    /// Whether a string has the format. Numeric formats say nothing of strings.
    pub fn accepts(self, text: &str) -> bool {
        match self {
            Self::Int32 | Self::Int64 | Self::Float | Self::Double | Self::Password => true,
            Self::BsonObjectId => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
            Self::Uri => Url::parse(text).is_some(),
            Self::Email => is_email(text),
            Self::Hostname => is_hostname(text),
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.contains(':') && text.parse::<Ipv6Addr>().is_ok(),
            Self::Cidr => crate::cel::net::Cidr::parse(text).is_some(),
            Self::Mac => is_mac(text),
            Self::Uuid(version) => is_uuid(text, version),
            Self::Isbn => isbn10(text) || isbn13(text),
            Self::Isbn10 => isbn10(text),
            Self::Isbn13 => isbn13(text),
            Self::CreditCard => is_credit_card(text),
            Self::Ssn => matches(&SSN, text),
            Self::HexColor => matches(&HEX_COLOR, text),
            Self::RgbColor => matches(&RGB_COLOR, text),
            Self::Byte => STANDARD.decode(text).is_ok(),
            Self::Date => is_date(text),
            Self::Duration => duration::parse_lenient(text).is_some(),
            Self::DateTime => is_date_time(text),
            Self::ShortName => meta::names::dns1123_label(text).is_empty(),
            Self::LongName => meta::names::dns1123_subdomain(text).is_empty(),
        }
    }
}

type Lazy = LazyLock<Option<Regex>>;

fn matches(regex: &Lazy, text: &str) -> bool {
    regex.as_ref().is_some_and(|regex| regex.is_match(text))
}

static SSN: Lazy = LazyLock::new(|| pattern::compile(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$").ok());
static HEX_COLOR: Lazy = LazyLock::new(|| pattern::compile("^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$").ok());
static RGB_COLOR: Lazy = LazyLock::new(|| {
    let part = r"\s*([01]?[0-9]?[0-9]|2[0-4][0-9]|25[0-5])\s*";
    pattern::compile(&format!(r"^rgb\({part},{part},{part}\)$")).ok()
});

/// `local@domain`, also with a display name.
fn is_email(text: &str) -> bool {
    let address = match (text.rsplit_once('<'), text.strip_suffix('>')) {
        (Some((_, inner)), Some(_)) => inner.trim_end_matches('>'),
        _ => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let atom = |c: char| c.is_alphanumeric() || "!#$%&'*+/=?^_`{|}~-.".contains(c);
    let quoted = local.len() > 2 && local.starts_with('"') && local.ends_with('"');
    let local_ok = quoted || (!local.is_empty() && local.chars().all(atom) && !dotted_badly(local));
    local_ok && !domain.is_empty() && domain.chars().all(atom) && !dotted_badly(domain)
}

fn dotted_badly(text: &str) -> bool {
    text.starts_with('.') || text.ends_with('.') || text.contains("..")
}

/// One label, or several and a name that ends in letters; letters and symbols of any script.
fn is_hostname(text: &str) -> bool {
    text.len() <= 255 && text.split('.').all(|label| label.len() <= 63) && matches(&HOSTNAME, text)
}

static HOSTNAME: Lazy = LazyLock::new(|| {
    let (end, middle) = (r"[a-zA-Z0-9\p{S}\p{L}]", r"[a-zA-Z0-9\-\p{S}\p{L}]");
    pattern::compile(&format!(r"^({end}(-?{end}*)|({end}({middle}*{end})?\.)+[a-zA-Z\p{{L}}]{{2,}})$")).ok()
});

/// Six, eight or twenty bytes, by colons, dashes or dots.
fn is_mac(text: &str) -> bool {
    let groups = |separator: char, digits: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len())
            && parts.iter().all(|p| p.len() == digits && p.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}

/// Dashes may be left out.
fn is_uuid(text: &str, version: Option<char>) -> bool {
    let digits = text.replace('-', "");
    let digit = |at: usize| digits.as_bytes().get(at).map(u8::to_ascii_lowercase);
    matches(&UUID, text)
        && version.is_none_or(|v| {
            digit(12).map(char::from) == Some(v)
                && (v == '3' || digit(16).is_some_and(|c| matches!(c, b'8' | b'9' | b'a' | b'b')))
        })
}

static UUID: Lazy = LazyLock::new(|| {
    let hex = "[0-9a-fA-F]";
    pattern::compile(&format!("^{hex}{{8}}-?{hex}{{4}}-?{hex}{{4}}-?{hex}{{4}}-?{hex}{{12}}$")).ok()
});

fn digits_of(text: &str) -> Vec<u32> {
    text.chars().filter(|c| !matches!(c, '-' | ' ')).map(|c| c.to_digit(10).unwrap_or(99)).collect()
}

fn isbn10(text: &str) -> bool {
    let mut digits = digits_of(text);
    if text.ends_with(['X', 'x'])
        && let Some(last) = digits.last_mut()
    {
        *last = 10;
    }
    let sum: u32 = digits.iter().zip(1..).map(|(digit, weight)| digit * weight).sum();
    let plain = digits.iter().enumerate().all(|(i, d)| *d < 10 || (i == 9 && *d == 10));
    digits.len() == 10 && plain && sum.is_multiple_of(11)
}

fn isbn13(text: &str) -> bool {
    let digits = digits_of(text);
    let sum: u32 = digits.iter().enumerate().map(|(i, d)| if i % 2 == 0 { *d } else { d * 3 }).sum();
    digits.len() == 13 && digits.iter().all(|d| *d < 10) && sum.is_multiple_of(10)
}

/// The Luhn check over the digits.
fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, d)| match (i % 2, d * 2) {
            (0, _) => *d,
            (_, twice) if twice > 9 => twice - 9,
            (_, twice) => twice,
        })
        .sum();
    (13..=16).contains(&digits.len()) && sum.is_multiple_of(10)
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

/// A date and a time of a day with an offset, by their grammar: a point in time that no clock here can name is one all the same.
fn is_date_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once(['T', 't']) else { return false };
    is_date(date) && matches(&TIME, time)
}

static TIME: Lazy = LazyLock::new(|| {
    let time = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?([zZ]|[+-][0-9]{2}:[0-9]{2})";
    pattern::compile(&format!("^{time}$")).ok()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_takes_what_it_names_and_nothing_else() {
        for (format, good, bad) in [
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f"),
            ("uri", "https://a.example/b?c", "a b"),
            ("email", "a.b@c.example", "a@"),
            ("hostname", "a-b.example", "-a"),
            ("ipv4", "10.0.0.1", "10.0.0"),
            ("ipv6", "::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "01:02:03:04:ab:cd", "01:02"),
            ("uuid", "123E4567-e89b-12d3-a456-426614174000", "123"),
            ("uuid4", "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
            ("isbn10", "0321751043", "0321751044"),
            ("isbn13", "978-0321751041", "978-0321751042"),
            ("isbn", "0321751043", "1"),
            ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
            ("ssn", "111-11-1111", "111"),
            ("hexcolor", "#FFF", "#FF"),
            ("rgbcolor", "rgb(1,2,255)", "rgb(1,2,256)"),
            ("byte", "aGk=", "a"),
            ("date", "2024-02-29", "2023-02-29"),
            ("duration", "1h30m", "soon"),
            ("date-time", "2024-02-29T01:02:03.5Z", "2024-02-29"),
            ("k8s-short-name", "a-b", "A"),
            ("k8s-long-name", "a.b", "a..b"),
        ] {
            let format = Format::of("string", format).unwrap();
            assert!(format.accepts(good), "{} takes {good}", format.name());
            assert!(!format.accepts(bad), "{} refuses {bad}", format.name());
        }
        assert_eq!(Format::of("string", "colour"), None);
        assert_eq!(Format::of("integer", "ipv4"), None);
    }

    #[test]
    fn names_and_identifiers_are_judged_as_in_kubernetes() {
        for (hostname, accepted) in [
            ("localhost", true),
            ("a-b", true),
            ("b\u{fc}cher.example", true),
            ("1.example", true),
            ("a_b.example", false),
            ("1.2.3.4", false),
            ("a.example.", false),
            ("a..example", false),
            ("a-.example", false),
        ] {
            assert_eq!(Format::Hostname.accepts(hostname), accepted, "{hostname}");
        }
        for (uuid, accepted) in [
            ("123e4567e89b12d3a456426614174000", true),
            ("123e4567-e89b12d3a456426614174000", true),
            ("123e45678-e89b-12d3-a456-42661417400", false),
            ("123e4567--e89b-12d3-a456426614174000", false),
        ] {
            assert_eq!(Format::Uuid(None).accepts(uuid), accepted, "{uuid}");
        }
    }

    #[test]
    fn a_uri_is_what_a_request_may_name() {
        for (uri, accepted) in [("http://a:b/", false), ("/p%4", false), ("/a b", true), ("mailto:a@b", true)] {
            assert_eq!(Format::Uri.accepts(uri), accepted, "{uri}");
        }
    }

    #[test]
    fn a_point_in_time_is_judged_by_its_grammar() {
        for good in [
            "9999-12-31T23:59:59Z",
            "0001-01-01T00:00:00Z",
            "2024-02-29t01:02:03z",
            "2024-02-29T01:02:03.123456789+14:00",
        ] {
            assert!(Format::DateTime.accepts(good), "{good}");
        }
        for bad in [
            "9999-12-32T23:59:59Z",
            "2023-02-29T00:00:00Z",
            "2024-02-29T24:00:00Z",
            "2024-02-29T01:60:03Z",
            "2024-02-29T01:02:60Z",
            "2024-02-29T01:02Z",
            "2024-02-29T01:02:03",
            "2024-02-29 01:02:03Z",
        ] {
            assert!(!Format::DateTime.accepts(bad), "{bad}");
        }
    }
}
