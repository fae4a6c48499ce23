//! Server-sent events out of bytes, however the bytes are cut (WHATWG HTML, "Server-sent events").
//!
//! Not `sse-stream`: that one drives an asynchronous stream and hands out owned strings, without a limit on an event's
//! length. This one is a plain state machine, so that a provider's parser can be tested on any chunking of its bytes,
//! and copies an event's data once. A property test holds the two against each other.

use std::borrow::Cow;

use super::error::{ErrorClass, LlmError};

/// Cuts bytes into events.
#[derive(Debug)]
pub(crate) struct Frames {
    /// The line that is not at its end yet.
    line: Vec<u8>,
    event: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// The last byte was CR: an LF that follows belongs to the same line end.
    after_cr: bool,
    at_start: bool,
    limit: usize,
}

/// One event; the comment lines between events, ids and retry times are nobody's business here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// The value of `event:`; empty without one.
    pub name: &'a str,
    pub data: &'a str,
}

impl Frames {
    /// `limit` is the longest event taken, in bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            line: Vec::new(),
            event: Vec::new(),
            data: Vec::new(),
            has_data: false,
            after_cr: false,
            at_start: true,
            limit,
        }
    }

    /// Takes more bytes; `on_event` is called for every event that they complete.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        on_event: &mut impl FnMut(Event<'_>) -> Result<(), LlmError>,
    ) -> Result<(), LlmError> {
        while let Some((&first, rest)) = bytes.split_first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                bytes = rest;
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) else {
                self.line.extend_from_slice(bytes);
                return self.check_length();
            };
            self.after_cr = bytes[end] == b'\r';
            if self.line.is_empty() {
                self.take_line(&bytes[..end], on_event)?;
            } else {
                self.line.extend_from_slice(&bytes[..end]);
                let line = std::mem::take(&mut self.line);
                self.take_line(&line, on_event)?;
                self.line = line;
                self.line.clear();
            }
            bytes = &bytes[end + 1..];
        }
        Ok(())
    }

    /// The end of the bytes: an event without its blank line counts, since servers forget it.
    pub fn finish(
        &mut self,
        on_event: &mut impl FnMut(Event<'_>) -> Result<(), LlmError>,
    ) -> Result<(), LlmError> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.take_line(&line, on_event)?;
        }
        self.take_line(b"", on_event)
    }

    fn take_line(
        &mut self,
        mut line: &[u8],
        on_event: &mut impl FnMut(Event<'_>) -> Result<(), LlmError>,
    ) -> Result<(), LlmError> {
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch(on_event);
        }
        let (field, value) = match line.iter().position(|&b| b == b':') {
            Some(at) => (&line[..at], line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..])),
            None => (line, &[][..]),
        };
        match field {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
                self.check_length()?;
            }
            b"event" => {
                self.event.clear();
                self.event.extend_from_slice(value);
            }
            _ => {}
        }
        Ok(())
    }

    fn dispatch(
        &mut self,
        on_event: &mut impl FnMut(Event<'_>) -> Result<(), LlmError>,
    ) -> Result<(), LlmError> {
        let outcome = if self.has_data {
            on_event(Event { name: &text(&self.event), data: &text(&self.data) })
        } else {
            Ok(())
        };
        self.has_data = false;
        self.event.clear();
        self.data.clear();
        // One long event must not hold its memory for the rest of the answer.
        if self.data.capacity() > 64 * 1024 {
            self.data = Vec::new();
        }
        outcome
    }

    fn check_length(&self) -> Result<(), LlmError> {
        if self.line.len() + self.data.len() <= self.limit {
            return Ok(());
        }
        let mut error = LlmError::new(ErrorClass::Protocol).charged(true);
        error.message =
            "The model's provider sent an event longer than LLM_EVENT_MAX_BYTES allows.".to_owned();
        Err(error)
    }
}

/// Bytes as text. Nearly all are valid as they are, which is seen faster than where they are not.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

#[cfg(test)]
mod tests;
