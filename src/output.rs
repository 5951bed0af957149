//! What a person reads on standard output and error. Everything that prints goes through here.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{self, Write};

/// Prints a line; a closed pipe ends the process quietly, as other command-line tools do.
pub fn line(text: impl AsRef<str>) {
    raw(format!("{}\n", text.as_ref()).as_bytes());
}

/// Prints bytes as they are.
pub fn raw(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    if let Err(error) = written {
        if error.kind() == io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        eprintln!("error: standard output cannot be written: {error}");
        std::process::exit(1);
    }
}

/// Prints an error.
pub fn error(error: &anyhow::Error) {
    eprintln!("error: {}", told(error));
}

/// An error with its causes, each once, without the numbers that the system has for them.
fn told(error: &anyhow::Error) -> String {
    let mut text = without_number(&error.to_string()).to_owned();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        let cause = without_number(&cause);
        if !text.contains(cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn without_number(text: &str) -> &str {
    match text.rsplit_once(" (os error ") {
        Some((words, number)) if number.trim_end_matches(')').bytes().all(|b| b.is_ascii_digit()) => words,
        _ => text,
    }
}

/// What went wrong with several things, of which each was tried.
#[derive(Debug, Default)]
pub struct Failures(Option<anyhow::Error>);

impl Failures {
    /// Notes one; the last is kept for [`Failures::finish`].
    pub fn note(&mut self, failure: anyhow::Error) {
        if let Some(before) = self.0.replace(failure) {
            error(&before);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The command's outcome.
    pub fn finish(self) -> anyhow::Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// `1 byte`, `2 bytes`.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Prints a note to standard error.
pub fn note(text: impl AsRef<str>) {
    eprintln!("{}", text.as_ref());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_each_cause_once_and_no_numbers() {
        let cause = io::Error::from_raw_os_error(13);
        let error = anyhow::Error::new(cause).context("a.yaml cannot be read").context("a.yaml cannot be read");
        assert_eq!(told(&error), "a.yaml cannot be read: Permission denied");
        assert_eq!(without_number("x (os error seven)"), "x (os error seven)");
    }

    #[test]
    fn one_is_singular() {
        assert_eq!((counted(1, "byte"), counted(0, "byte")), ("1 byte".to_owned(), "0 bytes".to_owned()));
    }
}
