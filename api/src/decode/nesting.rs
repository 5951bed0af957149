//! How a YAML text nests, before it is parsed: the parser takes time that grows with the square of the depth of `[` and `{`,
//! and half a kilobyte for each `- ` or `? `, before anybody counts levels and values. A text that has of these more than
//! any has by accident is refused unread. Quotes and block scalars are not told apart.
//!
//! The parser also reads a document whole before it gives the first value, and takes two hundred bytes for each. A text with so
//! many marks that its values may be too many is read by another parser first, which keeps none of them ([`nodes`]).

use granit_parser::{Parser, ScanError};

/// Levels of brackets at once, and of indicators that follow another on their line (`- - a`), which nest, in all.
const MOST: usize = 10_000;

/// Whether a text may be given to the parser.
pub(super) fn is_sane(text: &str) -> bool {
    brackets(text) && indicators(text)
}

fn brackets(text: &str) -> bool {
    let mut depth = 0_usize;
    text.bytes().all(|byte| {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth <= MOST
    })
}

fn indicators(text: &str) -> bool {
    let mut nested = 0_usize;
    lines(text).all(|line| {
        nested += leading(line).saturating_sub(1);
        nested <= MOST
    })
}

/// Lines that begin with an indicator: each is a value at least.
pub(super) fn entries(text: &str) -> usize {
    lines(text).filter(|line| leading(line) > 0).count()
}

/// Scalars, lists and maps of a text, keys among them, if that may be more than `most`; counted no further.
pub(super) fn nodes(text: &str, most: usize) -> Result<usize, ScanError> {
    // What a value or key follows in a line, a map's end of a key counted for both.
    let marks = text.bytes().map(|byte| match byte {
        b',' | b'[' | b'{' => 1,
        b':' => 2,
        _ => 0,
    });
    if marks.sum::<usize>() <= most {
        return Ok(0);
    }
    let mut count = 0;
    for event in Parser::new_from_str(text) {
        count += usize::from(event?.0.is_node());
        if count > most {
            break;
        }
    }
    Ok(count)
}

/// As the parser parts them, which skips marks of byte order.
fn lines(text: &str) -> impl Iterator<Item = &[u8]> {
    let parts = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']);
    parts.map(|line| line.trim_start_matches(['\u{feff}', ' ', '\t']).as_bytes())
}

/// Indicators of block collections at the beginning of a line.
fn leading(line: &[u8]) -> usize {
    let (mut rest, mut found) = (line, 0);
    while let [b'-' | b'?' | b':', after @ ..] = rest
        && after.first().is_none_or(u8::is_ascii_whitespace)
    {
        found += 1;
        rest = after.trim_ascii_start();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nests_without_end_is_refused() {
        assert!(is_sane(&"[{}] ".repeat(MOST)));
        assert!(is_sane(&"]".repeat(MOST * 2)));
        assert!(is_sane(&"[".repeat(MOST)));
        assert!(!is_sane(&"{".repeat(MOST + 1)));
    }

    #[test]
    fn values_are_told_from_what_only_looks_like_them() {
        let list = |text: &str| text.repeat(1000);
        for (text, more) in [
            (format!("[{}]", list("1,")), true),
            (format!("a: [{}]", list("[],")), true),
            (list("a: 1\n"), true),
            (format!("[{}]", list("{a: {a: {a: 1}}},")), true),
            (format!("a: |\n  {}", list("[1,2],")), false),
            (format!("a: '{}'", list("[1,2],")), false),
            (format!("a: \"{}\"", list("{b: 1},")), false),
            (format!("# {}\na: x {}", list("1,"), list("1,")), false),
        ] {
            assert_eq!(nodes(&text, 900).unwrap() > 900, more, "{}", text.get(..20).unwrap());
        }
    }

    #[test]
    fn indicators_in_a_line_nest() {
        assert!(is_sane("list:\n- - a\n  - b\n? key\n: value\n--- \n-1\n"));
        assert!(is_sane(&"- ".repeat(MOST + 1)));
        for indicator in ["- ", "? ", ":\t", "?  - "] {
            assert!(!is_sane(&indicator.repeat(1_500_000)), "{indicator:?}");
        }
        for mark in ["\u{85}", "\u{feff}", " \u{feff}", "\u{2028}\t"] {
            assert!(!is_sane(&format!("{mark}{}", "? ".repeat(MOST + 2))), "{mark:?}");
        }
        assert!(!is_sane(&"- - a\n".repeat(MOST + 1)));
        assert_eq!(entries("a:\n- b\n- - c\r? d\ne: - f\n-\u{85}-\u{2029}"), 5);
    }
}
