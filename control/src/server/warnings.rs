//! What an answer warns of beside what it says.

use std::collections::HashSet;

use http::{HeaderValue, Response};

use super::body::Body;

/// Bytes of warnings that an answer carries at most, as in Kubernetes.
const MOST: usize = 4096;

/// Adds `Warning: 299 - "…"` headers.
pub(super) fn add(response: &mut Response<Body>, warnings: &[String]) {
    let (mut room, mut told) = (MOST, HashSet::new());
    for text in warnings {
        let clean: String = text.chars().filter(|c| !c.is_control()).collect();
        let escaped = clean.replace('\\', "\\\\").replace('"', "\\\"");
        if escaped.is_empty() || told.contains(&escaped) {
            continue;
        }
        room = match room.checked_sub(escaped.len()) {
            Some(room) => room,
            None => break,
        };
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{escaped}\"").as_bytes()) {
            response.headers_mut().append(http::header::WARNING, value);
        }
        told.insert(escaped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::body;

    #[test]
    fn warnings_are_told_once_and_none_that_says_nothing() {
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
        assert_eq!(told(&[&fits, &over, "z"]).len(), 1);
    }
}
