//! Tells the server which commit it was built from, for `/version`.
//!
//! Packagers set `WHERRY_COMMIT` and `SOURCE_DATE_EPOCH`; a checkout is asked through its `HEAD` file. It is not watched
//! for changes beyond a switch of branches: a commit alone must not rebuild everything.

#![allow(clippy::print_stdout)] // What a build script says to cargo.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-env-changed=WHERRY_COMMIT");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=build.rs");
    let commit = std::env::var("WHERRY_COMMIT").ok().or_else(checked_out).filter(|c| hexadecimal(c));
    // The null commit: what git shows where there is none.
    println!("cargo::rustc-env=WHERRY_COMMIT={}", commit.unwrap_or_else(|| "0".repeat(40)));
    println!("cargo::rustc-env=WHERRY_BUILD_DATE={}", date(build_time()));
}

fn hexadecimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn checked_out() -> Option<String> {
    let git = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?).parent()?.join(".git");
    let head_file = git.join("HEAD");
    println!("cargo::rerun-if-changed={}", head_file.display());
    let head = fs::read_to_string(head_file).ok()?;
    let Some(reference) = head.trim().strip_prefix("ref: ") else { return Some(head.trim().to_owned()) };
    fs::read_to_string(git.join(reference)).ok().map(|c| c.trim().to_owned()).or_else(|| packed(&git, reference))
}

fn packed(git: &Path, reference: &str) -> Option<String> {
    let packed = fs::read_to_string(git.join("packed-refs")).ok()?;
    let line = packed.lines().find(|line| line.ends_with(&format!(" {reference}")))?;
    line.split(' ').next().map(str::to_owned)
}

fn build_time() -> u64 {
    let fixed = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    fixed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// Seconds since 1970 as RFC 3339 (the civil calendar from days, by eras of 400 years).
fn date(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}
