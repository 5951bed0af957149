//! What a body of YAML takes while it is read, in a process of its own: the most that it ever had.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use wherry_api::decode::{self, Format};

/// Kibibytes that this process has had at once.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn the_largest_body_of_values_takes_little_before_it_is_refused() {
    const BODY: usize = 3 << 20;
    let before = peak();
    for (open, value, close) in [("[", "1,", "]"), ("a: [", "[],", "]"), ("", "a: 1\n", ""), ("[", "{a: {a: 1}},", "]")]
    {
        let text = format!("{open}{}{close}", value.repeat((BODY - 8) / value.len()));
        let error = decode::tree(text.as_bytes(), Format::Yaml).unwrap_err();
        assert_eq!(error.code, 413, "{value:?}: {}", error.message);
        let more = peak() - before;
        assert!(more < 64 << 10, "{value:?}: {more} KiB");
    }
}
