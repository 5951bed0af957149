//! Progress of `wherry up`: a live line per step on a terminal, plain lines otherwise, nothing with `--quiet`.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// Where progress goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Quiet,
    Plain,
    Live,
}

impl Progress {
    pub fn new(quiet: bool) -> Self {
        if quiet {
            Self::Quiet
        } else if std::io::stderr().is_terminal() {
            Self::Live
        } else {
            Self::Plain
        }
    }

    /// Begins a step.
    pub fn step(self, what: impl Into<String>) -> Step {
        let what = what.into();
        let bar = (self == Self::Live).then(|| {
            let bar = ProgressBar::new_spinner().with_message(what.clone());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(80));
            bar
        });
        Step { progress: self, what, bar, since: Instant::now() }
    }
}

/// A step under way. Dropped without [`Step::done`], it has failed and its line goes.
#[derive(Debug)]
pub struct Step {
    progress: Progress,
    what: String,
    bar: Option<ProgressBar>,
    since: Instant,
}

impl Step {
    /// Shows where it is, on a live line.
    pub fn update(&self, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{} {detail}", self.what));
        }
    }

    /// Ends it well.
    pub fn done(mut self, result: &str) {
        let spent = self.since.elapsed();
        let time =
            if spent >= Duration::from_millis(50) { format!(" ({:.1} s)", spent.as_secs_f64()) } else { String::new() };
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if self.progress != Progress::Quiet {
            output::note(format!("✓ {} {result}{time}", self.what));
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
