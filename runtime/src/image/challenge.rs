//! What a registry asks of who is not known to it: `WWW-Authenticate` as the distribution specification uses it.

/// How to say who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// A token of a service.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// `Bearer realm="…",service="…",scope="…"` or `Basic …`; `None` for any other scheme, and for a token of nowhere.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        for (name, value) in parameters(rest) {
            match name.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                _ => {}
            }
        }
        Some(Self::Bearer { realm: realm?, service, scope })
    }
}

/// `name=value` and `name="value, with commas"`, in order; ends at what is neither.
fn parameters(mut text: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    while let Some((name, rest)) = text.trim_start_matches([' ', ',']).split_once('=') {
        let Some(rest) = rest.strip_prefix('"') else {
            let (value, after) = rest.split_once(',').unwrap_or((rest, ""));
            found.push((name.trim(), value.trim().to_owned()));
            text = after;
            continue;
        };
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next() {
                Some((_, '\\')) => value.extend(chars.next().map(|(_, c)| c)),
                Some((at, '"')) => break at + 1,
                Some((_, c)) => value.push(c),
                None => break rest.len(),
            }
        };
        found.push((name.trim(), value));
        text = rest.get(end..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.to_owned(), service: owned(service), scope: owned(scope) }
    }

    #[test]
    fn the_challenges_of_registries_are_understood() {
        let (auth, scope) = ("https://auth.docker.io/token", "repository:library/app:pull,push");
        let hub = format!(r#"Bearer realm="{auth}",service="registry.docker.io",scope="{scope}""#);
        assert_eq!(Challenge::parse(&hub), Some(bearer(auth, Some("registry.docker.io"), Some(scope))));
        assert_eq!(Challenge::parse(r#"bearer realm="x\"y", error=invalid"#), Some(bearer("x\"y", None, None)));
        assert_eq!(Challenge::parse("Bearer service=s, realm=http://r"), Some(bearer("http://r", Some("s"), None)));
        assert_eq!(Challenge::parse(r#"Basic realm="harbour""#), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Basic"), Some(Challenge::Basic));
        for none in ["", "Bearer", "Bearer service=\"s\"", "Negotiate", "realm=\"x\""] {
            assert_eq!(Challenge::parse(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_header_ends(text in "(Bearer|Basic)? ?[a-z=\", \\\\]{0,40}") {
            let _ = Challenge::parse(&text);
        }

        #[test]
        fn a_quoted_value_comes_back_as_it_was(value in "[ -~]{0,30}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let parsed = Challenge::parse(&format!("Bearer service=\"s\",realm=\"{quoted}\",scope=\"t\""));
            prop_assert_eq!(parsed, Some(bearer(&value, Some("s"), Some("t"))));
        }
    }
}
