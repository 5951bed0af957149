//! What is told of a guest's failure. The guest chose the names of its functions, their length and how often they are in its
//! backtrace: what is told is bounded, and the error does not wait for the log.

use std::fmt::{self, Write};

/// Bytes of an error that reach a container's log: more than a backtrace with names as compilers make them.
const ERROR: usize = 32 << 10;

/// Bytes of its cause, where the whole is longer.
const CAUSE: usize = 4 << 10;

/// What the log is told of an error.
pub(super) fn told(error: &wasmtime::Error) -> String {
    let (mut text, whole) = beginning(ERROR, format_args!("Error: {error:?}"));
    if !whole {
        let (cause, _) = beginning(CAUSE, format_args!("{}", error.root_cause()));
        text.push_str("\u{2026}\n\nCaused by:\n    ");
        text.push_str(&cause);
    }
    text
}

/// The first bytes of what is written, and whether that is all of it. No more is made.
fn beginning(most: usize, what: fmt::Arguments<'_>) -> (String, bool) {
    let mut bounded = Bounded { text: String::new(), most };
    let whole = bounded.write_fmt(what).is_ok();
    (bounded.text, whole)
}

struct Bounded {
    text: String,
    most: usize,
}

impl Write for Bounded {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let fits = piece.floor_char_boundary(self.most - self.text.len());
        let (fitting, rest) = piece.split_at(fits);
        self.text.push_str(fitting);
        if rest.is_empty() { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_error_is_told_by_its_beginning_and_its_cause() {
        let short = wasmtime::Error::msg("the cause").context("what failed");
        assert_eq!(told(&short), format!("Error: {short:?}"));
        let long = wasmtime::Error::msg("the cause").context("\u{e9}".repeat(ERROR));
        let text = told(&long);
        assert!(
            text.starts_with("Error: \u{e9}\u{e9}") && text.ends_with("\u{e9}\u{2026}\n\nCaused by:\n    the cause")
        );
        assert!(text.len() < ERROR + 100, "{}", text.len());
        let deep = wasmtime::Error::msg("x".repeat(ERROR));
        assert!(told(&deep).len() < ERROR + CAUSE + 100);
    }
}
