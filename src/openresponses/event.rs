//! The events of a stream, and their form on the wire.

use std::io::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::content::{ContentPart, LogProb};
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
        logprobs: &'a [LogProb],
    },
    OutputTextDone {
        item_id: &'a str,
        output_index: u32,
        content_index: u32,
        text: &'a str,
        logprobs: &'a [LogProb],
    },
    AnnotationAdded {
        item_id: &'a str,
        output_index: u32,
        content_index: u32,
        annotation_index: u32,
        annotation: &'a Value,
    },
    /// Ours, in the protocol's form for extensions: of the text of this part that was shown, only `text` stays.
    OutputTextRetracted {
        item_id: &'a str,
        output_index: u32,
        content_index: u32,
        text: &'a str,
        reason: &'static str,
        /// As it stands now, its items among it.
        #[serde(skip)]
        response: &'a Response,
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
    /// Nothing more comes, and what came is not to be relied on.
    Error {
        error: &'a Value,
    },
}

/// How events are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// `event:` and `data:` lines, as server-sent events.
    Sse,
    /// The bare JSON text, one WebSocket message.
    Json,
}

/// Whose names events have. The numbers are the same in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// The published schema's.
    #[default]
    OpenResponses,
    /// OpenAI's, for its SDKs: raw reasoning is called otherwise there.
    OpenAi,
    /// The same without events of ours, for the helper `responses.stream()` of OpenAI's SDK for JavaScript, which throws
    /// at what it does not know. It is shown the response as it stands instead.
    OpenAiHelper,
}

/// The form in which somebody gets events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub encoded: Encoded,
    pub dialect: Dialect,
}

impl From<Encoded> for Form {
    fn from(encoded: Encoded) -> Self {
        Self { encoded, dialect: Dialect::default() }
    }
}

impl Event<'_> {
    /// The value of `type`.
    pub fn kind(&self, dialect: Dialect) -> &'static str {
        match self {
            Self::Lifecycle { kind, .. }
            | Self::Item { kind, .. }
            | Self::ContentPart { kind, .. }
            | Self::SummaryPart { kind, .. } => kind,
            Self::OutputTextDelta { .. } => "response.output_text.delta",
            Self::OutputTextDone { .. } => "response.output_text.done",
            Self::AnnotationAdded { .. } => "response.output_text.annotation.added",
            Self::OutputTextRetracted { .. } => "colloquy:output_text_retracted",
            Self::RefusalDelta { .. } => "response.refusal.delta",
            Self::RefusalDone { .. } => "response.refusal.done",
            Self::ReasoningDelta { .. } if dialect == Dialect::OpenResponses => "response.reasoning.delta",
            Self::ReasoningDelta { .. } => "response.reasoning_text.delta",
            Self::ReasoningDone { .. } if dialect == Dialect::OpenResponses => "response.reasoning.done",
            Self::ReasoningDone { .. } => "response.reasoning_text.done",
            Self::SummaryDelta { .. } => "response.reasoning_summary_text.delta",
            Self::SummaryDone { .. } => "response.reasoning_summary_text.done",
            Self::ArgumentsDelta { .. } => "response.function_call_arguments.delta",
            Self::ArgumentsDone { .. } => "response.function_call_arguments.done",
            Self::Error { .. } => "error",
        }
    }

    /// Appends the event under its number. Nothing is allocated but the buffer's own growth.
    pub fn write(&self, sequence_number: u64, form: Form, out: &mut Vec<u8>) {
        /// An event of a piece has about 300 bytes.
        const USUAL: usize = 512;
        out.reserve(USUAL);
        let Form { encoded, dialect } = form;
        if let (Self::OutputTextRetracted { response, .. }, Dialect::OpenAiHelper) = (self, dialect) {
            let standing = Event::Lifecycle { kind: "response.in_progress", response };
            return standing.write(sequence_number, form, out);
        }
        let kind = self.kind(dialect);
        if encoded == Encoded::Sse {
            out.extend_from_slice(b"event: ");
            out.extend_from_slice(kind.as_bytes());
            out.extend_from_slice(b"\ndata: ");
        }
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"sequence_number\":");
        // Writing to a buffer cannot fail.
        let number = write!(out, "{sequence_number},");
        debug_assert!(number.is_ok());
        let from = out.len();
        // Our own types always serialise, and a buffer takes everything.
        if serde_json::to_writer(&mut *out, self).is_ok() {
            // The event's own opening brace gives way to the comma before it.
            out[from] = b' ';
        } else {
            out.truncate(from - 1);
            out.push(b'}');
        }
        if encoded == Encoded::Sse {
            out.extend_from_slice(b"\n\n");
        }
    }
}
