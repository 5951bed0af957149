//! Semantic versions (`1.2.3-rc.1+build`), for CEL's `semver`.

use std::cmp::Ordering;

/// A version, ordered by precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    pub major: u64,
    pub minor: u64,
    pub patch: u64,
    pre: Vec<String>,
}

impl Semver {
    /// `lenient`: a leading `v`, missing parts and leading zeros are mended; who leaves parts out may say nothing after them.
    pub fn parse(text: &str, lenient: bool) -> Option<Self> {
        let text = if lenient { text.strip_prefix('v').unwrap_or(text) } else { text };
        let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
        let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
        let mut parts: Vec<&str> = core.split('.').collect();
        if lenient && core == text {
            parts.resize(parts.len().max(3), "0");
        }
        let numbers: Vec<u64> = parts.iter().map(|part| number(part, lenient)).collect::<Option<_>>()?;
        let [major, minor, patch] = *numbers.as_slice() else { return None };
        let identifiers = |text: &str| -> Option<Vec<String>> {
            let good = |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            text.split('.').map(|id| good(id).then(|| id.to_owned())).collect()
        };
        if let Some(build) = build {
            identifiers(build)?;
        }
        let pre = pre.map_or(Some(Vec::new()), identifiers)?;
        let numeric = |id: &&String| id.bytes().all(|b| b.is_ascii_digit());
        pre.iter().filter(numeric).all(|id| number(id, false).is_some()).then_some(Self { major, minor, patch, pre })
    }
}

/// A number as a part of a version.
fn number(text: &str, leading_zeros: bool) -> Option<u64> {
    let tight = leading_zeros || text.len() == 1 || !text.starts_with('0');
    if tight && text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Semver {
    fn cmp(&self, other: &Self) -> Ordering {
        let core = (self.major, self.minor, self.patch).cmp(&(other.major, other.minor, other.patch));
        core.then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let ids = self.pre.iter().zip(&other.pre).map(|(a, b)| identifier(a, b));
                ids.into_iter().find(|o| o.is_ne()).unwrap_or_else(|| self.pre.len().cmp(&other.pre.len()))
            }
        })
    }
}

fn identifier(a: &str, b: &str) -> Ordering {
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_precedence() {
        let order = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1"];
        let parsed: Vec<Semver> = order.iter().map(|v| Semver::parse(v, false).unwrap()).collect();
        assert!(parsed.is_sorted());
        for bad in ["v1", "01.0.0", "1.0.0-01", "1.0.0-99999999999999999999", "1.0", "1.0.0-", "1.0.0+"] {
            assert_eq!(Semver::parse(bad, false), None, "{bad}");
        }
        for bad in ["1.2-alpha", "vv1.0.0", " 1.0.0", "1.0+b"] {
            assert_eq!(Semver::parse(bad, true), None, "{bad}");
        }
        assert_eq!(Semver::parse("v01.02.003-rc.1", true), Semver::parse("1.2.3-rc.1", false));
        assert_eq!(Semver::parse("v1.2", true).unwrap(), Semver::parse("1.2.0", false).unwrap());
    }
}
