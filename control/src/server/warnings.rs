//! What an answer warns of beside what it says.

use std::collections::HashSet;

use http::{HeaderValue, Response};

use super::body::Body;

/// Characters of warnings that an answer carries at most, as in Kubernetes. If there are more, each is cut.
const MOST: usize = 4096;
/// What is left of one that is cut.
const CUT: usize = 256;

/// Adds `Warning: 299 - "…"` headers.
pub(super) fn add(response: &mut Response<Body>, warnings: &[String]) {
    let mut known = HashSet::new();
    let clean = |text: &String| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let told: Vec<String> =
        warnings.iter().map(clean).filter(|text| !text.is_empty() && known.insert(text.clone())).collect();
    let size = |text: &String| text.chars().count();
    let most = if told.iter().map(size).sum::<usize>() > MOST { CUT } else { MOST };
    let mut written = 0;
    for text in told {
        if written >= MOST {
            break;
        }
        written += size(&text).min(most);
        let escaped: String = text.chars().take(most).collect::<String>().replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{escaped}\"").as_bytes()) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::body;

    #[test]
    fn warnings_are_told_once_and_none_that_says_nothing_and_cut_if_they_are_much() {
        let told = |warnings: &[&str]| {
            let mut response = Response::new(body::empty());
            add(&mut response, &warnings.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
            let headers = response.headers().get_all(http::header::WARNING);
            headers.iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            told(&["a \"b\"", "\u{1}", "\u{2}\n", "", "a \"b\"", "c\n"]),
            [r#"299 - "a \"b\"""#, r#"299 - "c""#]
        );
        let (fits, over) = ("x".repeat(MOST - 1), "yy".to_owned());
        assert_eq!(told(&[&fits, "z"])[0].len(), MOST - 1 + r#"299 - """#.len());
        let cut = format!("299 - \"{}\"", "x".repeat(CUT));
        assert_eq!(
            told(&[&fits, &over, "z"]),
            [&*cut, r#"299 - "yy""#, r#"299 - "z""#],
            "each is cut, and all are told"
        );
        let many: Vec<String> = (0..100).map(|n| format!("{n:03}").repeat(100)).collect();
        assert_eq!(told(&many.iter().map(String::as_str).collect::<Vec<_>>()).len(), MOST / CUT);
    }
}
