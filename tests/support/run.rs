//! Running other programs, and waiting on conditions.

use std::ffi::OsStr;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::PATIENCE;

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(50);
/// Lines of a followed program that may take [`PATIENCE`] each.
const LINES: u32 = 5;

/// Whether a tool cannot be found, with a line that says so. Under CI a tool must be there.
pub fn missing(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|dir| dir.join(tool).is_file());
    absent(tool, found)
}

/// Whether something that a test needs was not found, with a line that says so. Under CI it must be there.
pub fn absent(what: &str, found: bool) -> bool {
    if !found {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{what} is needed under CI");
        eprintln!("skipped: needs {what}");
    }
    !found
}

/// What a program said and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    pub command: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "$ {}\n{}{}(exit code {})", self.command, self.stdout, self.stderr, self.code)
    }
}

impl Output {
    /// Standard output of a program that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == 0, "{self}");
        self.stdout
    }

    /// Standard error of a program that must have failed.
    #[track_caller]
    pub fn fails(self) -> String {
        assert!(self.code > 0, "should fail:\n{self}");
        self.stderr
    }
}

fn shown(command: &Command) -> String {
    let parts = std::iter::once(command.get_program()).chain(command.get_args());
    let parts = parts
        .map(|part| std::path::Path::new(part).file_name().filter(|_| part == command.get_program()).unwrap_or(part));
    parts.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs a program to its end, with this on its standard input.
#[track_caller]
pub fn run(command: &mut Command, stdin: &str) -> Output {
    use std::io::Write;
    let text = shown(command);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // A program that does not read its input closes it.
    let _ = input.write_all(stdin.as_bytes());
    drop(input);
    let output = child.wait_with_output().unwrap();
    Output {
        command: text,
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Asks until it is answered with `Ok`; panics with the last `Err` after [`PATIENCE`].
#[track_caller]
pub fn eventually<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    within(PATIENCE, what, look)
}

/// Like [`eventually`], with a deadline of its own.
#[track_caller]
pub fn within<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) => assert!(began.elapsed() < deadline, "{what}: not within {deadline:?}: {last}"),
        }
        std::thread::sleep(POLL);
    }
}

/// A program whose lines are read as they come; killed when dropped.
pub struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
    pub seen: Vec<String>,
}

impl Following {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        // Ends with the program's output.
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines, seen: Vec::new() }
    }

    /// The next line, before `end`.
    fn line(&self, end: Instant) -> Result<String, mpsc::RecvTimeoutError> {
        self.lines.recv_timeout(PATIENCE.min(end.saturating_duration_since(Instant::now())))
    }

    /// Reads until a line satisfies.
    #[track_caller]
    pub fn until(&mut self, what: &str, found: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE * LINES;
        loop {
            match self.line(end) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if found(&line) {
                        return line;
                    }
                }
                Err(error) => panic!("{what}: {error}; seen:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Reads to the end, which must come by itself.
    #[track_caller]
    #[allow(clippy::wrong_self_convention)]
    pub fn to_end(&mut self) -> i32 {
        let end = Instant::now() + PATIENCE * LINES;
        loop {
            match self.line(end) {
                Ok(line) => self.seen.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(error) => panic!("does not end: {error}; seen:\n{}", self.seen.join("\n")),
            }
        }
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
