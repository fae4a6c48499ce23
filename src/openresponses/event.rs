//! The events of a stream, and their form on the wire.

use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};
use serde::Serialize;

use super::content::ContentPart;
use super::item::{Item, Summary};
use super::response::Response;

/// One event. Borrowed: it exists only while it is written out.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Event<'a> {
    /// `response.created`, `.queued`, `.in_progress`, and the four that end a stream.
    Lifecycle {
        #[serde(skip)]
        kind: &'static str,
        response: &'a Response,
    },
    /// `response.output_item.added` and `.done`.
    Item {
        #[serde(skip)]
        kind: &'static str,
        output_index: u32,
        item: &'a Item,
    },
    /// `response.content_part.added` and `.done`.
    ContentPart {
        #[serde(skip)]
        kind: &'static str,
        item_id: &'a str,
        output_index: u32,
        content_index: u32,
        part: &'a ContentPart,
    },
    OutputTextDelta {
        item_id: &'a str,
        output_index: u32,
        content_index: u32,
        delta: &'a str,
        logprobs: [(); 0],
    },
    OutputTextDone {
        item_id: &'a str,
        output_index: u32,
        content_index: u32,
        text: &'a str,
        logprobs: [(); 0],
    },
    RefusalDelta {
        item_id: &'a str,
        output_index: u32,
        content_index: u32,
        delta: &'a str,
    },
    RefusalDone {
        item_id: &'a str,
        output_index: u32,
        content_index: u32,
        refusal: &'a str,
    },
    /// Raw reasoning.
    ReasoningDelta {
        item_id: &'a str,
        output_index: u32,
        content_index: u32,
        delta: &'a str,
    },
    ReasoningDone {
        item_id: &'a str,
        output_index: u32,
        content_index: u32,
        text: &'a str,
    },
    /// `response.reasoning_summary_part.added` and `.done`.
    SummaryPart {
        #[serde(skip)]
        kind: &'static str,
        item_id: &'a str,
        output_index: u32,
        summary_index: u32,
        part: &'a Summary,
    },
    SummaryDelta {
        item_id: &'a str,
        output_index: u32,
        summary_index: u32,
        delta: &'a str,
    },
    SummaryDone {
        item_id: &'a str,
        output_index: u32,
        summary_index: u32,
        text: &'a str,
    },
    ArgumentsDelta {
        item_id: &'a str,
        output_index: u32,
        delta: &'a str,
    },
    ArgumentsDone {
        item_id: &'a str,
        output_index: u32,
        name: &'a str,
        arguments: &'a str,
    },
}

impl Event<'_> {
    /// The value of `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Lifecycle { kind, .. }
            | Self::Item { kind, .. }
            | Self::ContentPart { kind, .. }
            | Self::SummaryPart { kind, .. } => kind,
            Self::OutputTextDelta { .. } => "response.output_text.delta",
            Self::OutputTextDone { .. } => "response.output_text.done",
            Self::RefusalDelta { .. } => "response.refusal.delta",
            Self::RefusalDone { .. } => "response.refusal.done",
            Self::ReasoningDelta { .. } => "response.reasoning.delta",
            Self::ReasoningDone { .. } => "response.reasoning.done",
            Self::SummaryDelta { .. } => "response.reasoning_summary_text.delta",
            Self::SummaryDone { .. } => "response.reasoning_summary_text.done",
            Self::ArgumentsDelta { .. } => "response.function_call_arguments.delta",
            Self::ArgumentsDone { .. } => "response.function_call_arguments.done",
        }
    }
}

/// How events are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// `event:` and `data:` lines, as server-sent events.
    Sse,
    /// The bare JSON text, one WebSocket message.
    Json,
}

impl Event<'_> {
    /// Appends the event under its number. Nothing is allocated but the buffer's own growth.
    pub fn write(&self, sequence_number: u64, form: Encoded, out: &mut BytesMut) {
        let kind = self.kind();
        if form == Encoded::Sse {
            out.put_slice(b"event: ");
            out.put_slice(kind.as_bytes());
            out.put_slice(b"\ndata: ");
        }
        out.put_slice(b"{\"type\":\"");
        out.put_slice(kind.as_bytes());
        out.put_slice(b"\",\"sequence_number\":");
        // Writing to a buffer cannot fail.
        let number = write!(out, "{sequence_number},");
        debug_assert!(number.is_ok());
        let from = out.len();
        // Our own types always serialise, and a buffer takes everything.
        if serde_json::to_writer(out.writer(), self).is_ok() {
            // The event's own opening brace gives way to the comma before it.
            out[from] = b' ';
        } else {
            out.truncate(from - 1);
            out.put_u8(b'}');
        }
        if form == Encoded::Sse {
            out.put_slice(b"\n\n");
        }
    }
}
