//! Regular expressions in the syntax of RE2, which Kubernetes' patterns and CEL's `matches` have, on the `regex` crate.
//!
//! Both run in linear time. They differ in a few places: there `\d`, `\w`, `\s` and `\b` are about ASCII, `[` in a class
//! and `{` that begins no repetition are ordinary characters, and classes have no set operations.

use std::collections::HashMap;

use regex::{Regex, RegexBuilder};

/// Bytes that a compiled expression may take.
pub const MAX_SIZE: usize = 1 << 20;
/// Bytes that those of one schema, or of one expression of CEL, may take together.
pub const MAX_TOGETHER: usize = 64 << 20;
/// Bytes that are tried: how large one is, the crate does not tell.
const SIZES: [usize; 3] = [16 << 10, 128 << 10, MAX_SIZE];
/// Bytes of an expression's text.
const MAX_TEXT: usize = 16 * 1024;

/// Compiles an expression. Error: what is wrong with it.
pub fn compile(source: &str) -> Result<Regex, String> {
    sized(source).0
}

/// Compiles an expression; also the bytes that it takes, at most, or took until it was refused.
pub fn sized(source: &str) -> (Result<Regex, String>, usize) {
    if source.len() > MAX_TEXT {
        return (Err("expression too large".to_owned()), 0);
    }
    let text = translate(source);
    for size in SIZES {
        let mut builder = RegexBuilder::new(&text);
        match builder.size_limit(size).dfa_size_limit(MAX_SIZE).nest_limit(100).build() {
            Err(regex::Error::CompiledTooBig(_)) => {}
            Err(error) => {
                let told = error.to_string();
                let told = told.lines().last().unwrap_or_default().trim_start_matches("error: ");
                return (Err(told.to_owned()), size);
            }
            Ok(regex) => return (Ok(regex), size),
        }
    }
    (Err("expression too large".to_owned()), MAX_SIZE)
}

/// Expressions of one writer: equal ones are compiled once, and all take at most [`MAX_TOGETHER`].
#[derive(Debug, Default)]
pub struct Patterns {
    known: HashMap<Box<str>, Regex>,
    bytes: usize,
}

impl Patterns {
    pub fn compile(&mut self, source: &str) -> Result<Regex, String> {
        if let Some(known) = self.known.get(source) {
            return Ok(known.clone());
        }
        if self.bytes >= MAX_TOGETHER {
            return Err("the expressions here take too much together".to_owned());
        }
        let (compiled, bytes) = sized(source);
        self.bytes += bytes;
        let compiled = compiled?;
        self.known.insert(source.into(), compiled.clone());
        Ok(compiled)
    }
}

fn translate(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    // The position in a class after which `]` closes it; `]` first in a class is a member.
    let mut class: Option<usize> = None;
    while let Some(c) = rest.chars().next() {
        let (_, after) = rest.split_at(c.len_utf8());
        let mut next = after;
        match (c, class) {
            ('\\', _) => next = escape(after, class.is_some(), &mut out),
            ('[', None) => {
                out.push('[');
                if let Some(stripped) = next.strip_prefix('^') {
                    out.push('^');
                    next = stripped;
                }
                if let Some(stripped) = next.strip_prefix(']') {
                    out.push_str("\\]");
                    next = stripped;
                }
                class = Some(0);
            }
            (']', Some(_)) => {
                out.push(']');
                class = None;
            }
            ('[', Some(_)) => match after.strip_prefix(':').and_then(|a| a.find(":]")) {
                Some(end) => {
                    // `[:name:]`.
                    let (name, tail) = rest.split_at((end + 4).min(rest.len()));
                    out.push_str(name);
                    next = tail;
                }
                None => out.push_str("\\["),
            },
            // `--` would be a difference of sets. The second is a member, or the end of a range.
            ('-', Some(_)) if after.starts_with('-') => {
                out.push_str("-\\-");
                next = after.strip_prefix('-').unwrap_or(after);
            }
            ('&' | '~', Some(_)) => {
                out.push('\\');
                out.push(c);
            }
            ('{', None) if !repeats(after) => out.push_str("\\{"),
            _ => out.push(c),
        }
        rest = next;
    }
    out
}

/// Writes what a backslash and the text after it mean; returns what follows.
fn escape<'a>(after: &'a str, in_class: bool, out: &mut String) -> &'a str {
    let Some(c) = after.chars().next() else {
        out.push('\\');
        return after;
    };
    let (_, rest) = after.split_at(c.len_utf8());
    match c {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        's' => out.push_str("[\\t\\n\\f\\r ]"),
        'S' => out.push_str("[^\\t\\n\\f\\r ]"),
        'b' if !in_class => out.push_str("(?-u:\\b)"),
        'B' if !in_class => out.push_str("(?-u:\\B)"),
        'Q' => {
            let (literal, tail) = rest.split_once("\\E").unwrap_or((rest, ""));
            out.push_str(&regex::escape(literal));
            return tail;
        }
        '<' | '>' | '_' | '/' | '"' | '\'' => out.push(c),
        _ => {
            out.push('\\');
            out.push(c);
        }
    }
    rest
}

/// Whether the text after a `{` makes it a repetition: `2}`, `2,}`, `2,5}`.
fn repeats(after: &str) -> bool {
    let Some((inside, _)) = after.split_once('}') else { return false };
    let (from, to) = inside.split_once(',').unwrap_or((inside, "0"));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    !from.is_empty() && digits(from) && digits(to)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        compile(pattern).unwrap().is_match(text)
    }

    #[test]
    fn an_expression_means_what_it_means_in_re2() {
        assert!(matches(r"^\d+$", "12") && !matches(r"^\d$", "\u{664}"));
        assert!(matches(r"^[\w-]+$", "a-b_c"));
        assert!(matches(r"^[[]$", "[") && matches(r"^[]a]+$", "]a") && matches("^[^]]$", "x"));
        assert!(matches(r"^{a}$", "{a}") && matches("^a{2,3}$", "aa") && !matches("^a{2,3}$", "a"));
        assert!(matches(r"^[[:alpha:]&&~]+$", "a&~"));
        assert!(matches("^[a-z--]+$", "m-") && matches("^[+--]+$", "+,-") && !matches("^[+--]$", "a"));
        assert!(matches(r"^\Qa.b\E$", "a.b") && !matches(r"^\Qa.b\E$", "axb"));
        assert!(matches("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "my-name"));
    }

    #[test]
    fn an_expression_that_would_be_huge_is_refused() {
        assert_eq!(compile("((a{1000}){1000}){1000}").unwrap_err(), "expression too large");
        assert!(compile("(").is_err());
    }

    proptest! {
        #[test]
        fn compiling_anything_ends_in_an_answer(source in ".{0,60}", text in ".{0,40}") {
            if let Ok(regex) = compile(&source) {
                regex.is_match(&text);
            }
        }
    }
}
