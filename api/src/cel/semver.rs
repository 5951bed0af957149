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
    /// `lenient`: a leading `v`, missing parts and leading zeros are mended.
    pub fn parse(text: &str, lenient: bool) -> Option<Self> {
        let text = if lenient { text.trim().trim_start_matches('v') } else { text };
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        let mut parts: Vec<&str> = core.split('.').collect();
        while lenient && parts.len() < 3 {
            parts.push("0");
        }
        let number = |part: &&str| {
            let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            let tight = lenient || part.len() == 1 || !part.starts_with('0');
            if plain && tight { part.parse::<u64>().ok() } else { None }
        };
        let numbers: Vec<u64> = parts.iter().map(number).collect::<Option<_>>()?;
        let [major, minor, patch] = *numbers.as_slice() else { return None };
        let identifiers = |text: &str| -> Option<Vec<String>> {
            let good = |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            text.split('.').map(|id| good(id).then(|| id.to_owned())).collect()
        };
        if let Some(build) = build {
            identifiers(build)?;
        }
        let pre = pre.map_or(Some(Vec::new()), identifiers)?;
        Some(Self { major, minor, patch, pre })
    }
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
        assert!(Semver::parse("v1", false).is_none() && Semver::parse("01.0.0", false).is_none());
        assert_eq!(Semver::parse("v1.2", true).unwrap(), Semver::parse("1.2.0", false).unwrap());
    }
}
