//! How deeply a YAML text nests `[` and `{`. The parser's time grows with the square of that, before it counts levels
//! itself, so a megabyte of brackets would keep a processor for a minute: such a text is refused unread.

/// More than any text has by accident (brackets in quotes and block scalars are counted too), and milliseconds to parse.
const MOST: usize = 10_000;

/// Whether a text may be given to the parser.
pub(super) fn is_sane(text: &str) -> bool {
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
}
