//! The handler's stdout and stderr, line by line.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Child;
use tokio_util::task::TaskTracker;

use crate::log::{self, Level};

/// How many error lines the text of a crash holds.
const CRASH_LINES: usize = 3;
/// A longer line is printed in pieces.
const LINE_LIMIT: usize = 1 << 20;

/// Both streams of one start of the handler.
pub struct Output {
    readers: TaskTracker,
    last_errors: Arc<Mutex<VecDeque<String>>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    User(Level),
    /// `LanguageWorkerConsoleLog`: the host's system log.
    System(String),
    /// `azfuncjsonlog:`: for the tooling of an IDE, not shown.
    Tooling,
}

impl Output {
    /// Takes both pipes of `child` and passes their lines through until they end.
    pub fn follow(child: &mut Child, stderr_for_errors_only: bool, tasks: &TaskTracker) -> Self {
        let readers = TaskTracker::new();
        let last_errors = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(stdout) = child.stdout.take() {
            let reader = read_lines(stdout, |line| print(line, classify_stdout(line)));
            tasks.spawn(readers.track_future(reader));
        }
        if let Some(stderr) = child.stderr.take() {
            let errors = Arc::clone(&last_errors);
            let reader = read_lines(stderr, move |line| {
                let class = classify_stderr(line, stderr_for_errors_only);
                if class == Line::User(Level::Error) {
                    remember(&errors, line);
                }
                print(line, class);
            });
            tasks.spawn(readers.track_future(reader));
        }
        readers.close();
        Output { readers, last_errors }
    }

    /// Waits for what an ended process has left in its pipes. A grandchild may hold them open: hence the limit.
    pub async fn drain(&self, limit: Duration) {
        if tokio::time::timeout(limit, self.readers.wait()).await.is_err() {
            log::warning("a process that the handler started still holds its output");
        }
    }

    /// The text of a crash: its code and the last error lines of stderr.
    pub fn describe_exit(&self, code: Option<i32>) -> String {
        let code = code.map_or_else(|| "137 or another signal".to_owned(), |code| code.to_string());
        let errors = self.last_errors.lock().unwrap_or_else(PoisonError::into_inner);
        let errors = errors.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        format!("exited with code {code}\n{errors}").trim_end().to_owned()
    }
}

fn remember(errors: &Mutex<VecDeque<String>>, line: &str) {
    let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
    if errors.len() == CRASH_LINES {
        errors.pop_front();
    }
    errors.push_back(line.to_owned());
}

async fn read_lines(stream: impl AsyncRead + Unpin, mut each: impl FnMut(&str)) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        let chunk = match reader.fill_buf().await {
            Ok([]) => break,
            Ok(chunk) => chunk,
            Err(cause) => {
                log::error(format!("cannot read the handler's output: {cause}"));
                break;
            }
        };
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(chunk.len(), |end| end + 1);
        line.extend_from_slice(&chunk[..taken]);
        reader.consume(taken);
        if end.is_some() || line.len() >= LINE_LIMIT {
            each(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']));
            line.clear();
        }
    }
    if !line.is_empty() {
        each(&String::from_utf8_lossy(&line));
    }
}

fn print(line: &str, class: Line) {
    match class {
        // stdout is passed through untouched, so that a reader of JSON logs can read them here too.
        Line::User(Level::Information) => log::plain(line),
        Line::User(level) => log::stamped(level, line),
        Line::System(text) => log::information(format!("(system) {text}")),
        Line::Tooling => {}
    }
}

fn classify_stdout(line: &str) -> Line {
    routed(line).unwrap_or(Line::User(Level::Information))
}

fn classify_stderr(line: &str, errors_only: bool) -> Line {
    if let Some(routed) = routed(line) {
        return routed;
    }
    let lower = line.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    Line::User(if has(&["warn"]) {
        Level::Warning
    } else if errors_only || has(&["error", "fail", "severe", "unhandled exception"]) {
        Level::Error
    } else {
        Level::Information
    })
}

fn routed(line: &str) -> Option<Line> {
    if let Some(text) = strip_prefix_ignoring_case(line, "LanguageWorkerConsoleLog") {
        return Some(Line::System(text.to_owned()));
    }
    strip_prefix_ignoring_case(line, "azfuncjsonlog:").map(|_| Line::Tooling)
}

fn strip_prefix_ignoring_case<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
    let head = line.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &line[prefix.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stdout_is_always_information() {
        assert_eq!(classify_stdout("ERROR: nothing of the kind"), Line::User(Level::Information));
    }

    #[test]
    fn stderr_is_error_by_default_unless_it_warns() {
        assert_eq!(classify_stderr("listening", true), Line::User(Level::Error));
        assert_eq!(classify_stderr("a WARNing about an error", true), Line::User(Level::Warning));
    }

    #[test]
    fn stderr_is_judged_by_its_words_when_the_setting_is_off() {
        assert_eq!(classify_stderr("listening", false), Line::User(Level::Information));
        for line in ["Error: x", "it FAILed", "severe", "Unhandled Exception in x"] {
            assert_eq!(classify_stderr(line, false), Line::User(Level::Error), "{line}");
        }
        assert_eq!(classify_stderr("warning: failed", false), Line::User(Level::Warning));
    }

    #[test]
    fn prefixes_route_lines_away_from_the_console() {
        assert_eq!(classify_stdout("LanguageWorkerConsoleLogup"), Line::System("up".to_owned()));
        assert_eq!(classify_stderr("azfuncjsonlog:{}", true), Line::Tooling);
    }

    #[test]
    fn a_crash_keeps_the_last_three_error_lines() {
        let errors = Mutex::new(VecDeque::new());
        for line in ["1", "2", "3", "4"] {
            remember(&errors, line);
        }
        let output = Output { readers: TaskTracker::new(), last_errors: Arc::new(errors) };
        assert_eq!(output.describe_exit(Some(101)), "exited with code 101\n2\n3\n4");
    }

    #[tokio::test]
    async fn lines_survive_carriage_returns_wrong_utf8_and_a_missing_end() {
        let mut lines = Vec::new();
        read_lines(&b"one\r\n\xff\n\nlast"[..], |line| lines.push(line.to_owned())).await;
        assert_eq!(lines, ["one", "\u{fffd}", "", "last"]);
    }
}
