//! `'%s is %d'.format([…])`: `%s %d %f %e %b %o %x %X %%`, as Kubernetes' version of the library writes them: for readers of
//! English.

use super::super::value::{Val, number_text};
use super::super::{EvalError, MAX_TEXT};
use super::{Result, strings, text_of};
use crate::cbor::hex;

type Shown = std::result::Result<String, EvalError>;

/// Fills a template.
pub fn format<'a>(template: &str, args: &[Val<'a>]) -> Result<'a> {
    let mut out = String::new();
    let mut args = args.iter();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let digits =
            after.strip_prefix('.').map(|a| a.split_at(a.find(|c: char| !c.is_ascii_digit()).unwrap_or(a.len())));
        let (precision, clause) = match digits {
            Some((digits, clause)) => (digits.parse::<usize>().ok().map(|p| p.min(100)), clause),
            None => (None, after),
        };
        let Some(verb) = clause.chars().next() else {
            return Err(EvalError::other("unexpected end of format string"));
        };
        rest = clause.split_at(verb.len_utf8()).1;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let arg = args.next().ok_or_else(|| EvalError::other("index out of range in formatting clause"))?;
        match verb {
            's' => show(&mut out, arg, false)?,
            verb => out.push_str(&clause_text(verb, precision.unwrap_or(6), arg)?),
        }
        if out.len() > MAX_TEXT {
            return Err(EvalError::Cost);
        }
    }
    out.push_str(rest);
    strings::made(out)
}

fn wrong(verb: char, arg: &Val<'_>) -> EvalError {
    EvalError::other(format!("error during formatting: '%{verb}' cannot take a {}", arg.type_name()))
}

fn clause_text(verb: char, precision: usize, arg: &Val<'_>) -> Shown {
    Ok(match (verb, arg) {
        ('d', Val::Int(_) | Val::Uint(_)) => number_text(arg).unwrap_or_default(),
        ('f' | 'e', Val::Double(d)) if !d.is_finite() => unbounded(*d).to_owned(),
        ('f', Val::Double(d)) => grouped(&format!("{d:.precision$}")),
        ('e', Val::Double(d)) => scientific(&format!("{d:.precision$e}")),
        ('b', Val::Int(i)) if *i < 0 => format!("-{:b}", i.unsigned_abs()),
        ('b', Val::Int(i)) => format!("{i:b}"),
        ('b', Val::Uint(u)) => format!("{u:b}"),
        ('b', Val::Bool(b)) => i32::from(*b).to_string(),
        ('o', Val::Int(i)) if *i < 0 => format!("-{:o}", i.unsigned_abs()),
        ('o', Val::Int(i)) => format!("{i:o}"),
        ('o', Val::Uint(u)) => format!("{u:o}"),
        ('x', Val::Int(i)) if *i < 0 => format!("-{:x}", i.unsigned_abs()),
        ('x', Val::Int(i)) => format!("{i:x}"),
        ('x', Val::Uint(u)) => format!("{u:x}"),
        ('x', Val::String(s)) => hex(s.as_bytes()),
        ('x', Val::Bytes(b)) => hex(b),
        ('X', arg) => clause_text('x', precision, arg)?.to_ascii_uppercase(),
        _ => return Err(wrong(verb, arg)),
    })
}

fn unbounded(value: f64) -> &'static str {
    match value {
        f64::INFINITY => "\u{221e}",
        f64::NEG_INFINITY => "-\u{221e}",
        _ => "NaN",
    }
}

/// `1,234.5` of `1234.5`.
fn grouped(number: &str) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("-", digits));
    let whole = digits.find('.').unwrap_or(digits.len());
    let mut out = sign.to_owned();
    for (at, c) in digits.char_indices() {
        if at > 0 && at < whole && (whole - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `1.05 × 10⁰³` of `1.05e3`.
fn scientific(number: &str) -> String {
    let (mantissa, exponent) = number.split_once('e').unwrap_or((number, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(("", exponent), |digits| ("\u{207b}", digits));
    let raised = [
        '\u{2070}', '\u{b9}', '\u{b2}', '\u{b3}', '\u{2074}', '\u{2075}', '\u{2076}', '\u{2077}', '\u{2078}',
        '\u{2079}',
    ];
    let digits = format!("{digits:0>2}");
    let digits: String = digits.chars().filter_map(|c| raised.get(c.to_digit(10)? as usize)).collect();
    format!("{mantissa}\u{202f}\u{d7}\u{202f}10{sign}{digits}")
}

/// Writes a value into a text, which stays within its bound: a list may have a part many times. `within` a list or map it is
/// written as a literal.
fn show(out: &mut String, value: &Val<'_>, within: bool) -> std::result::Result<(), EvalError> {
    if out.len() > MAX_TEXT {
        return Err(EvalError::Cost);
    }
    match value {
        Val::List(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                show(out, &item, true)?;
            }
            out.push(']');
        }
        Val::Map(map) => {
            let mut entries = Vec::new();
            let mut bytes = out.len();
            for (key, value) in map.entries() {
                let mut entry = String::new();
                show(&mut entry, &key, true)?;
                let key = entry.len();
                entry.push(':');
                show(&mut entry, &value, true)?;
                bytes += entry.len();
                if bytes > MAX_TEXT {
                    return Err(EvalError::Cost);
                }
                entries.push((key, entry));
            }
            entries.sort_by(|(a, x), (b, y)| x.get(..*a).cmp(&y.get(..*b)));
            let entries: Vec<String> = entries.into_iter().map(|(_, entry)| entry).collect();
            out.extend(["{", &entries.join(", "), "}"]);
        }
        scalar => out.push_str(&scalar_text(scalar, within)?),
    }
    Ok(())
}

fn scalar_text(value: &Val<'_>, within: bool) -> Shown {
    let text = match value {
        Val::Null => "null".to_owned(),
        Val::Type(name) => name.to_string(),
        Val::Double(d) if within && d.is_finite() => format!("{d:.6}"),
        Val::Quantity(_) | Val::Ip(_) | Val::Cidr(_) => return Err(wrong('s', value)),
        value => text_of(value).ok_or_else(|| wrong('s', value))?,
    };
    Ok(match value {
        _ if !within => text,
        Val::String(_) => strings::quote(&text),
        Val::Bytes(_) => format!("b{}", strings::quote(&text)),
        Val::Double(d) if !d.is_finite() => strings::quote(&text),
        Val::Timestamp(_) => format!("timestamp({})", strings::quote(&text)),
        Val::Duration(_) => format!("duration({})", strings::quote(&text)),
        _ => text,
    })
}
