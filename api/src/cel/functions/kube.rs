//! Kubernetes' own libraries: quantities, URLs, addresses, versions, named formats, the authorizer.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::EvalError;
use super::super::authorizer::{Check, Stage};
use super::super::net::{self, Cidr};
use super::super::semver::Semver;
use super::super::url::Url;
use super::super::value::{ELEMENT, ENTRY, Text, Val};
use super::{Result, strings, text_map};
use crate::meta::names;
use crate::quantity::Quantity;

pub fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Result<'a>> {
    match args {
        [] => format_of(name.strip_prefix("format.")?).map(|f| Ok(Val::Format(f))),
        [Val::String(text), rest @ ..] => made_of_text(name, text, rest),
        [Val::Quantity(q), rest @ ..] => quantity(name, *q, rest),
        [Val::Url(url)] => Some(url_part(name, url)?),
        [Val::Ip(ip)] => address(name, *ip).map(Ok),
        [Val::Cidr(cidr), rest @ ..] => range(name, *cidr, rest),
        [Val::Semver(version), rest @ ..] => version_part(name, version, rest).map(Ok),
        [Val::Format(format), Val::String(text)] if name == "validate" => Some(Ok(validate(format, text))),
        [Val::Authorizer(check), rest @ ..] => authorize(name, check, rest),
        _ => None,
    }
}

fn made_of_text<'a>(name: &str, text: &Text<'a>, rest: &[Val<'a>]) -> Option<Result<'a>> {
    let lenient = matches!(rest, [Val::Bool(true)]);
    let fail = |what: String| Err(EvalError::other(what));
    Some(match name {
        "quantity" => text.parse::<Quantity>().map(Val::Quantity).or_else(|_| {
            fail(
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                    .to_owned(),
            )
        }),
        "isQuantity" => Ok(Val::Bool(text.parse::<Quantity>().is_ok())),
        "url" => match Url::parse(text) {
            Some(url) => Ok(Val::Url(Arc::new(url))),
            None => fail(format!(
                "URL parse error during conversion from string: parse {:?}: invalid URI for request",
                &**text
            )),
        },
        "isURL" => Ok(Val::Bool(Url::parse(text).is_some())),
        "ip" => net::parse_ip(text).map(Val::Ip).or_else(fail),
        "isIP" => Ok(Val::Bool(net::parse_ip(text).is_ok())),
        "ip.isCanonical" => match net::parse_ip(text) {
            Ok(ip) => Ok(Val::Bool(net::is_canonical(text, ip))),
            Err(what) => fail(what),
        },
        "cidr" => match Cidr::parse(text) {
            Some(cidr) => Ok(Val::Cidr(cidr)),
            None => fail(format!("network address parse error during conversion from string: {:?}", &**text)),
        },
        "isCIDR" => Ok(Val::Bool(Cidr::parse(text).is_some())),
        "semver" => match Semver::parse(text, lenient) {
            Some(version) => Ok(Val::Semver(Arc::new(version))),
            None => fail(format!("semver parse error: {:?}", &**text)),
        },
        "isSemver" => Ok(Val::Bool(Semver::parse(text, lenient).is_some())),
        "format.named" => Ok(Val::optional(format_of(text).map(Val::Format))),
        _ => return None,
    })
}

fn url_part<'a>(name: &str, url: &Url) -> Option<Result<'a>> {
    Some(match name {
        "getScheme" => strings::made(url.scheme.clone()),
        "getHost" => strings::made(url.host.clone()),
        "getHostname" => strings::made(url.hostname().to_owned()),
        "getPort" => strings::made(url.port().to_owned()),
        "getEscapedPath" => strings::made(url.escaped_path()),
        "getQuery" => {
            let values = |texts: Vec<String>| texts.into_iter().map(Val::from).collect::<Vec<_>>().into();
            Ok(text_map(url.query().into_iter().map(|(key, texts)| (key, values(texts))).collect()))
        }
        _ => return None,
    })
}

/// Bytes of a URL's query as a map.
pub fn query_room(url: &Url) -> usize {
    url.pairs().saturating_mul(4 * (ENTRY + ELEMENT)).saturating_add(url.size())
}

fn quantity<'a>(name: &str, q: Quantity, rest: &[Val<'a>]) -> Option<Result<'a>> {
    let whole = || Quantity::from_units(q.value()) == q;
    Some(Ok(match (name, rest) {
        ("sign", []) => Val::Int(if q.is_zero() {
            0
        } else if q.is_negative() {
            -1
        } else {
            1
        }),
        ("isInteger", []) => Val::Bool(whole()),
        ("asInteger", []) if whole() => Val::Int(q.value()),
        ("asInteger", []) => return Some(Err(EvalError::other("cannot convert value to integer"))),
        ("asApproximateFloat", []) => Val::Double(q.as_f64()),
        ("add", [Val::Quantity(other)]) => Val::Quantity(q + *other),
        ("add", [Val::Int(other)]) => Val::Quantity(q + Quantity::from_units(*other)),
        ("sub", [Val::Quantity(other)]) => Val::Quantity(q - *other),
        ("sub", [Val::Int(other)]) => Val::Quantity(q - Quantity::from_units(*other)),
        ("isGreaterThan", [Val::Quantity(other)]) => Val::Bool(q > *other),
        ("isLessThan", [Val::Quantity(other)]) => Val::Bool(q < *other),
        ("compareTo", [Val::Quantity(other)]) => Val::Int(q.cmp(other) as i64),
        _ => return None,
    }))
}

fn address<'a>(name: &str, ip: IpAddr) -> Option<Val<'a>> {
    Some(match name {
        "family" => Val::Int(if ip.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Val::Bool(ip.is_unspecified()),
        "isLoopback" => Val::Bool(ip.is_loopback()),
        "isLinkLocalMulticast" => Val::Bool(net::is_link_local_multicast(ip)),
        "isLinkLocalUnicast" => Val::Bool(net::is_link_local_unicast(ip)),
        "isGlobalUnicast" => Val::Bool(net::is_global_unicast(ip)),
        _ => return None,
    })
}

fn range<'a>(name: &str, cidr: Cidr, rest: &[Val<'a>]) -> Option<Result<'a>> {
    Some(match (name, rest) {
        ("ip", []) => Ok(Val::Ip(cidr.address)),
        ("masked", []) => Ok(Val::Cidr(cidr.masked())),
        ("prefixLength", []) => Ok(Val::Int(cidr.bits.into())),
        ("containsIP", [Val::Ip(ip)]) => Ok(Val::Bool(cidr.contains_ip(*ip))),
        ("containsIP", [Val::String(text)]) => match net::parse_ip(text) {
            Ok(ip) => Ok(Val::Bool(cidr.contains_ip(ip))),
            Err(what) => Err(EvalError::other(what)),
        },
        ("containsCIDR", [Val::Cidr(other)]) => Ok(Val::Bool(cidr.contains(*other))),
        ("containsCIDR", [Val::String(text)]) => match Cidr::parse(text) {
            Some(other) => Ok(Val::Bool(cidr.contains(other))),
            None => Err(EvalError::other(format!("network address parse error: {:?}", &**text))),
        },
        _ => return None,
    })
}

fn version_part<'a>(name: &str, version: &Semver, rest: &[Val<'a>]) -> Option<Val<'a>> {
    let number = |n: u64| Val::Int(i64::try_from(n).unwrap_or(i64::MAX));
    Some(match (name, rest) {
        ("major", []) => number(version.major),
        ("minor", []) => number(version.minor),
        ("patch", []) => number(version.patch),
        ("isGreaterThan", [Val::Semver(other)]) => Val::Bool(*version > **other),
        ("isLessThan", [Val::Semver(other)]) => Val::Bool(*version < **other),
        ("compareTo", [Val::Semver(other)]) => Val::Int(version.cmp(other) as i64),
        _ => return None,
    })
}

const FORMATS: [&str; 13] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "qualifiedName",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

fn format_of(name: &str) -> Option<&'static str> {
    FORMATS.iter().find(|known| **known == name).copied()
}

/// What is wrong with a text, as an optional list.
fn validate<'a>(format: &str, text: &str) -> Val<'a> {
    use crate::schema::structural::Format;
    // A prefix may end with a dash: as if a letter followed.
    let prefix = |text: &str| format!("{}a", text.trim_end_matches('-'));
    let by =
        |format: Format| if format.accepts(text) { Vec::new() } else { vec![format!("invalid {}", format.name())] };
    let complaints = match format {
        "dns1123Label" => names::dns1123_label(text),
        "dns1123Subdomain" => names::dns1123_subdomain(text),
        "dns1035Label" => names::dns1035_label(text),
        "dns1123LabelPrefix" => names::dns1123_label(&prefix(text)),
        "dns1123SubdomainPrefix" => names::dns1123_subdomain(&prefix(text)),
        "dns1035LabelPrefix" => names::dns1035_label(&prefix(text)),
        "qualifiedName" => names::qualified_name(text),
        "labelValue" => names::label_value(text),
        "uri" => by(Format::Uri),
        "uuid" => by(Format::Uuid(None)),
        "byte" => by(Format::Byte),
        "date" => by(Format::Date),
        _ => by(Format::DateTime),
    };
    let list = complaints.into_iter().map(Val::from).collect::<Vec<_>>();
    Val::optional((!list.is_empty()).then(|| list.into()))
}

fn authorize<'a>(name: &str, check: &Check, rest: &[Val<'a>]) -> Option<Result<'a>> {
    let texts: Vec<String> = rest.iter().map(|v| super::str(v).map(|t| t.to_string())).collect::<Option<_>>()?;
    let mut next = check.clone();
    let question = &mut next.question;
    match (&check.stage, name, texts.as_slice()) {
        (Stage::Start, "serviceAccount", [namespace, account]) => {
            question.service_account = Some((namespace.clone(), account.clone()));
        }
        (Stage::Start, "path", [path]) => {
            question.path.clone_from(path);
            next.stage = Stage::Path;
        }
        (Stage::Start, "group", [group]) => {
            question.group.clone_from(group);
            next.stage = Stage::Group;
        }
        (Stage::Group, "resource", [resource]) => {
            question.resource.clone_from(resource);
            next.stage = Stage::Resource;
        }
        (Stage::Resource, "subresource", [text]) => question.subresource.clone_from(text),
        (Stage::Resource, "namespace", [text]) => question.namespace.clone_from(text),
        (Stage::Resource, "name", [text]) => question.name.clone_from(text),
        (Stage::Resource, "fieldSelector", [text]) => question.field_selector = Some(text.clone()),
        (Stage::Resource, "labelSelector", [text]) => question.label_selector = Some(text.clone()),
        (Stage::Path | Stage::Resource, "check", [verb]) => {
            question.verb.clone_from(verb);
            next.decision = check.authorizer.decide(question);
            next.stage = Stage::Decided;
        }
        (Stage::Decided, "allowed", []) => return Some(Ok(Val::Bool(check.decision.allowed))),
        (Stage::Decided, "errored", []) => return Some(Ok(Val::Bool(!check.decision.error.is_empty()))),
        (Stage::Decided, "error", []) => return Some(strings::made(check.decision.error.clone())),
        (Stage::Decided, "reason", []) => return Some(strings::made(check.decision.reason.clone())),
        _ => return None,
    }
    Some(Ok(Val::Authorizer(Arc::new(next))))
}
