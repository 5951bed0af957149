//! URLs as CEL's `url` and the format `uri` read them: parts are kept as they are written. What browsers mend (an empty path,
//! `..`, capitals, a scheme's usual port) a rule is to see.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;

/// An absolute URL, or an absolute path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// In small letters; empty for a path.
    pub scheme: String,
    /// With its port; brackets of an IPv6 address included.
    pub host: String,
    /// Valid escapes only.
    path: String,
    query: Option<String>,
    text: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Url {
    /// Reads a URL; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.bytes().any(|b| b.is_ascii_control()) {
            return None;
        }
        let (whole, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (scheme, rest) = scheme(whole)?;
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (host, path) = match rest.strip_prefix("//").filter(|rest| !(scheme.is_empty() && rest.starts_with('/'))) {
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                // A fragment comes after a path or a query only.
                if path.is_empty() && query.is_none() && whole.len() < text.len() {
                    return None;
                }
                (host(authority)?, path)
            }
            // What follows a scheme without a slash is opaque.
            None if !rest.starts_with('/') && !scheme.is_empty() => (String::new(), ""),
            None if rest.starts_with('/') => (String::new(), rest),
            None => return None,
        };
        unescape(path, false)?;
        unescape(fragment, false)?;
        Some(Self {
            scheme: scheme.to_ascii_lowercase(),
            host,
            path: path.to_owned(),
            query: query.map(str::to_owned),
            text: text.to_owned(),
        })
    }

    /// The host without its port and brackets.
    pub fn hostname(&self) -> &str {
        let (name, _) = split_port(&self.host);
        name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name)
    }

    /// Empty if none is written.
    pub fn port(&self) -> &str {
        split_port(&self.host).1
    }

    /// The path, in which everything is escaped that must be.
    pub fn escaped_path(&self) -> String {
        let may_stand = |b: u8| b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&b);
        if self.path.bytes().all(|b| may_stand(b) || b"!'()*[]%".contains(&b)) {
            return self.path.clone();
        }
        let bytes = unescape(&self.path, false).unwrap_or_default();
        bytes.into_iter().fold(String::new(), |mut out, byte| {
            if may_stand(byte) {
                out.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
            out
        })
    }

    /// The query's keys with their values, in their order; what cannot be read is left out.
    pub fn query(&self) -> BTreeMap<String, Vec<String>> {
        let text = |part: &str| unescape(part, true).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let mut pairs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in self.query.as_deref().unwrap_or_default().split('&').filter(|p| !p.is_empty() && !p.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Some(key), Some(value)) = (text(key), text(value)) {
                pairs.entry(key).or_default().push(value);
            }
        }
        pairs
    }

    /// Bytes of the text that it was read from.
    pub fn size(&self) -> usize {
        self.text.len()
    }

    /// The most pairs that its query can have.
    pub fn pairs(&self) -> usize {
        self.query.as_ref().map_or(0, |query| query.matches('&').count() + 1)
    }
}

/// The scheme, if there is one, and what follows; `None`: nothing stands before the colon.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))).unwrap_or(text.len());
    let (scheme, rest) = text.split_at(end);
    match rest.strip_prefix(':') {
        Some(_) if scheme.is_empty() => None,
        Some(rest) if scheme.starts_with(|c: char| c.is_ascii_alphabetic()) => Some((scheme, rest)),
        _ => Some(("", text)),
    }
}

/// The host of `user:password@host:port`.
fn host(authority: &str) -> Option<String> {
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let in_user = |b: u8| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b);
    if !user.bytes().all(in_user) {
        return None;
    }
    unescape(user, false)?;
    let port = match host.strip_prefix('[') {
        Some(inner) => inner.rsplit_once(']')?.1,
        None => host.rfind(':').and_then(|at| host.get(at..)).unwrap_or_default(),
    };
    let in_host = |b: u8| !b.is_ascii() || b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"%".contains(&b);
    if !is_port(port) || !host.bytes().all(in_host) {
        return None;
    }
    String::from_utf8(unescape(host, false)?).ok()
}

/// `:8080`, `:`, or nothing.
fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
}

fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, port),
        _ => (host, ""),
    }
}

/// The bytes that `%41` and, where `plus` is a space, `+` stand for; `None` for an escape that is none.
fn unescape(text: &str, plus: bool) -> Option<Vec<u8>> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => (digit(bytes.next())? << 4) | digit(bytes.next())?,
            b'+' if plus => b' ',
            byte => byte,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_as_they_are_written() {
        for (text, scheme, host, hostname, port, path) in [
            ("https://example.com", "https", "example.com", "example.com", "", ""),
            ("HTTPS://Example.com:443/a/../b", "https", "Example.com:443", "Example.com", "443", "/a/../b"),
            ("http://u:p@[::1]:8080/x y?q#f", "http", "[::1]:8080", "::1", "8080", "/x%20y"),
            ("http:///no-host", "http", "", "", "", "/no-host"),
            ("/path", "", "", "", "", "/path"),
            ("mailto:a@b.c", "mailto", "", "", "", ""),
            ("http://a/%41%2F", "http", "a", "a", "", "/%41%2F"),
            ("//a/b", "", "a", "a", "", "/b"),
            ("///a", "", "", "", "", "///a"),
        ] {
            let url = Url::parse(text).unwrap();
            let parts = (&*url.scheme, &*url.host, url.hostname(), url.port(), &*url.escaped_path());
            assert_eq!(parts, (scheme, host, hostname, port, path), "{text}");
        }
        for bad in [
            "http://a#b",
            "",
            "a",
            "../x",
            "a/b",
            ":x",
            "1a:b/c",
            "http://a b/",
            "http://a:x/",
            "http://[::1/",
            "/%4",
            "/a\n",
        ] {
            assert_eq!(Url::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_query_is_its_pairs() {
        let pairs = |text: &str| Url::parse(text).unwrap().query().into_iter().collect::<Vec<_>>();
        let owned = |values: &[&str]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            pairs("/p?k=b&a=1&k=c+d&k&=&x;y=1&%zz=1"),
            [
                (String::new(), owned(&[""])),
                ("a".to_owned(), owned(&["1"])),
                ("k".to_owned(), owned(&["b", "c d", ""]))
            ]
        );
        assert!(pairs("/p?").is_empty() && pairs("/p").is_empty());
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(text in "[a:/?#%@\\[\\]0-9&=+ .]{0,24}") {
            if let Some(url) = Url::parse(&text) {
                let _ = (url.hostname(), url.port(), url.query());
                let again = format!("http://h{}", url.escaped_path());
                prop_assert!(Url::parse(&again).is_some(), "{again}");
            }
        }
    }
}
