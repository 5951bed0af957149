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

/// Prints an error with its causes, each once.
pub fn error(error: &anyhow::Error) {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    eprintln!("error: {text}");
}

/// Prints a note to standard error.
pub fn note(text: impl AsRef<str>) {
    eprintln!("{}", text.as_ref());
}
