//! A command: reads its settings from the environment, logs a few lines, ends with the exit code it was told.
//!
//! `GREETING` (what to say), `LINES` (how often, default 3), `PAUSE_MS` (between lines, default 200), `EXIT_CODE`
//! (default 0). An argument replaces `GREETING`.

use std::process::ExitCode;
use std::time::Duration;

fn setting<T: std::str::FromStr>(name: &str, default: T) -> Result<T, String> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|_| format!("{name}: {text:?} is not a number")),
        Err(_) => Ok(default),
    }
}

fn work() -> Result<u8, String> {
    let greeting = std::env::args()
        .nth(1)
        .or_else(|| std::env::var("GREETING").ok())
        .unwrap_or_else(|| "nothing to say".to_owned());
    let lines: u32 = setting("LINES", 3)?;
    let pause = Duration::from_millis(setting("PAUSE_MS", 200)?);
    for line in 1..=lines {
        println!("{line}/{lines} {greeting}");
        std::thread::sleep(pause);
    }
    eprintln!("done");
    setting("EXIT_CODE", 0)
}

fn main() -> ExitCode {
    match work() {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}
