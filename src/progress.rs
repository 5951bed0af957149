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

    /// Begins a step and says so on plain output, too: one that ends what runs.
    pub fn begin(self, what: &str) -> Step {
        if self == Self::Plain {
            output::note(what);
        }
        self.step(what)
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
        Step { progress: self, what, bar, since: Instant::now(), say_at: SAY_AFTER }
    }
}

/// A step that takes longer says where it is on plain output, then after twice as long each time.
const SAY_AFTER: Duration = Duration::from_secs(5);

/// A step under way. Dropped without [`Step::done`], it has failed and its line goes.
#[derive(Debug)]
pub struct Step {
    progress: Progress,
    what: String,
    bar: Option<ProgressBar>,
    since: Instant,
    /// When plain output says where it is, counted from the start.
    say_at: Duration,
}

impl Step {
    /// Shows where it is: at once on a live line, else when it takes long.
    pub fn update(&mut self, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{} {detail}", self.what));
        } else if self.progress == Progress::Plain && self.since.elapsed() >= self.say_at {
            self.say_at *= 2;
            output::note(format!("… {} {detail}", self.what));
        }
    }

    /// Says something that stays, above the live line.
    pub fn note(&self, text: &str) {
        let print = || output::note(text);
        match (&self.bar, self.progress) {
            (Some(bar), _) => bar.suspend(print),
            (None, Progress::Quiet) => {}
            (None, _) => print(),
        }
    }

    /// Ends it well.
    pub fn done(self, result: &str) {
        self.end('✓', result);
    }

    /// Ends it; it is not as was asked, but that ends nothing else.
    pub fn done_badly(self, result: &str) {
        self.end('✗', result);
    }

    /// Ends it well, under another name.
    pub fn done_as(mut self, what: &str) {
        what.clone_into(&mut self.what);
        self.end('✓', "");
    }

    /// Ends it under another name; it is not as was hoped.
    pub fn done_badly_as(mut self, what: &str) {
        what.clone_into(&mut self.what);
        self.end('✗', "");
    }

    fn end(mut self, mark: char, result: &str) {
        let spent = self.since.elapsed();
        let time =
            if spent >= Duration::from_millis(50) { format!(" ({:.1} s)", spent.as_secs_f64()) } else { String::new() };
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if self.progress != Progress::Quiet {
            let gap = if result.is_empty() { "" } else { " " };
            output::note(format!("{mark} {}{gap}{result}{time}", self.what));
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
