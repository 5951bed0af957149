//! The CRI log format: `2026-01-01T00:00:00.000000000Z stdout F line`.
//!
//! One record a line. A line without an end, or longer than [`LONGEST`], is written as `P` records and joined when read.

use jiff::Timestamp;

use crate::backend::Stream;

/// Bytes of a line that go into one record, as containerd has it.
pub const LONGEST: usize = 16 * 1024;
/// Bytes of a timestamp: nanoseconds, always in UTC, so that timestamps compare as text.
pub const STAMP: usize = 30;

/// A timestamp as records have it.
pub fn stamp(at: Timestamp) -> String {
    format!("{at:.9}")
}

/// Appends one record.
pub fn push(out: &mut Vec<u8>, stamp: &str, stream: Stream, full: bool, line: &[u8]) {
    out.extend_from_slice(stamp.as_bytes());
    out.extend_from_slice(match stream {
        Stream::Stdout => b" stdout ",
        Stream::Stderr => b" stderr ",
    });
    out.extend_from_slice(if full { b"F " } else { b"P " });
    out.extend_from_slice(line);
    out.push(b'\n');
}

/// A record, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub stamp: &'a [u8],
    pub stream: Stream,
    /// The line ends here.
    pub full: bool,
    pub text: &'a [u8],
}

/// Reads one line of a log file, without its end. `None`: torn or foreign.
pub fn parse(line: &[u8]) -> Option<Record<'_>> {
    let (stamp, rest) = line.split_at_checked(STAMP)?;
    let (tag, text) = rest.split_at_checked(b" stdout F ".len())?;
    let (stream, full) = match tag {
        b" stdout F " => (Stream::Stdout, true),
        b" stdout P " => (Stream::Stdout, false),
        b" stderr F " => (Stream::Stderr, true),
        b" stderr P " => (Stream::Stderr, false),
        _ => return None,
    };
    Some(Record { stamp, stream, full, text })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_are_what_other_runtimes_write() {
        let at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap_or_default();
        let mut out = Vec::new();
        push(&mut out, &stamp(at), Stream::Stdout, true, b"line");
        push(&mut out, &stamp(at), Stream::Stderr, false, b"");
        assert_eq!(
            String::from_utf8_lossy(&out),
            "2026-01-01T00:00:00.000000000Z stdout F line\n2026-01-01T00:00:00.000000000Z stderr P \n"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(text in proptest::collection::vec(any::<u8>(), 0..64), full: bool, nanos in 0i64..) {
            let at = stamp(Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or_default());
            let mut out = Vec::new();
            push(&mut out, &at, Stream::Stderr, full, &text);
            let record = parse(out.strip_suffix(b"\n").unwrap_or(&out));
            prop_assert_eq!(record, Some(Record { stamp: at.as_bytes(), stream: Stream::Stderr, full, text: &text }));
        }

        #[test]
        fn anything_is_read_without_failing(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            parse(&line);
        }
    }
}
