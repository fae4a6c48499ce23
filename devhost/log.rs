//! devhost's own lines on stdout, in the form `func start` prints them, and the machine-readable ones.

use std::io::Write;

use jiff::Timestamp;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Information,
    Warning,
    Error,
}

impl Level {
    fn label(self) -> &'static str {
        match self {
            Level::Information => "",
            Level::Warning => "[Warning] ",
            Level::Error => "[Error] ",
        }
    }
}

pub fn information(text: impl AsRef<str>) {
    stamped(Level::Information, text.as_ref());
}

pub fn warning(text: impl AsRef<str>) {
    stamped(Level::Warning, text.as_ref());
}

pub fn error(text: impl AsRef<str>) {
    stamped(Level::Error, text.as_ref());
}

/// One line with the time in front, as `func` prints its log.
pub fn stamped(level: Level, text: &str) {
    plain(format!("[{}] {}{}", Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ"), level.label(), text));
}

/// One line as it is.
pub fn plain(text: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    // A reader that closed its end of the pipe wants no more lines; the host runs on without it.
    out.write_all(text.as_ref().as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
        .ok();
}

/// A line of JSON for programs: `{"devhost":"<event>",…}`. Events are listed in docs/devhost.md.
pub fn machine(event: &Event) {
    match serde_json::to_string(event) {
        Ok(line) => plain(line),
        Err(cause) => error(format!("cannot print {event:?}: {cause}")),
    }
}

/// What programs that drive devhost wait for.
#[derive(Debug, Serialize)]
#[serde(tag = "devhost", rename_all = "snake_case")]
pub enum Event {
    /// Bound: requests are accepted from here on and wait for the handler.
    Listening { address: String, port: u16, handler_port: u16, pid: u32 },
    /// The handler answered `GET /`; `generation` counts its starts from 1.
    HandlerReady { pid: u32, generation: u64, after_ms: u64 },
    /// The handler ended or was killed.
    HandlerStopped { generation: u64, reason: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_lines_carry_their_event_under_devhost() {
        let event = Event::Listening { address: "127.0.0.1".into(), port: 7071, handler_port: 4001, pid: 7 };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(
            line,
            r#"{"devhost":"listening","address":"127.0.0.1","port":7071,"handler_port":4001,"pid":7}"#
        );
    }
}
