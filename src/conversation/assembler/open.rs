//! Items that are still open: what they are made of, and the events that close their parts.

use std::sync::Arc;

use serde_json::Value;

use super::Sink;
use crate::openresponses::{
    Compaction, ContentPart, Event, FunctionCall, Item, ItemStatus, LogProb, Message, Reasoning, Role,
    Summary,
};

/// An item that more may come for.
#[derive(Debug)]
pub(super) struct Open {
    pub index: u32,
    pub id: String,
    pub body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    Message {
        parts: Vec<ContentPart>,
        current: Option<Part>,
    },
    Reasoning {
        summary: Vec<Summary>,
        current: Option<(u16, String)>,
        text: Option<String>,
        encrypted: Option<Arc<str>>,
    },
    Call {
        index: u16,
        call_id: Arc<str>,
        name: Arc<str>,
        arguments: String,
    },
    Compaction(Arc<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartKind {
    Text,
    Refusal,
}

/// A part of a message that more may come for.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub kind: PartKind,
    pub text: String,
    pub annotations: Vec<Value>,
    pub logprobs: Vec<LogProb>,
}

impl Part {
    /// Of which nothing has come yet.
    pub fn empty(kind: PartKind) -> Self {
        Self { kind, text: String::new(), annotations: Vec::new(), logprobs: Vec::new() }
    }

    /// As it stands, as the protocol has it.
    pub fn content(self) -> ContentPart {
        match self.kind {
            PartKind::Text => {
                let Self { text, annotations, logprobs, .. } = self;
                ContentPart::OutputText { text, annotations, logprobs }
            }
            PartKind::Refusal => ContentPart::Refusal { refusal: self.text },
        }
    }
}

impl Open {
    /// As it stands, as the protocol has it.
    pub fn item(&self, status: ItemStatus) -> Item {
        let id = self.id.clone();
        match &self.body {
            Body::Message { parts, .. } => Item::Message(Message {
                id,
                status,
                role: Role::Assistant,
                content: parts.clone(),
                phase: None,
            }),
            Body::Reasoning { summary, text, encrypted, .. } => Item::Reasoning(Reasoning {
                id,
                summary: summary.clone(),
                content: text
                    .iter()
                    .filter(|_| status != ItemStatus::InProgress)
                    .map(|text| ContentPart::ReasoningText { text: text.clone() })
                    .collect(),
                encrypted_content: encrypted.as_deref().map(str::to_owned),
                status: Some(status),
            }),
            Body::Compaction(sealed) => {
                Item::Compaction(Compaction { id, encrypted_content: sealed.to_string(), created_by: None })
            }
            Body::Call { call_id, name, arguments, .. } => Item::FunctionCall(FunctionCall {
                id,
                call_id: call_id.to_string(),
                name: name.to_string(),
                arguments: arguments.clone(),
                status,
            }),
        }
    }
}

pub(super) fn index_of(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

pub(super) fn close_part(
    item_id: &str,
    output_index: u32,
    parts: &mut Vec<ContentPart>,
    current: &mut Option<Part>,
    sequence: &mut u64,
    sink: &mut impl Sink,
) {
    let Some(part) = current.take() else { return };
    let content_index = index_of(parts.len());
    let (text, logprobs) = (part.text.as_str(), part.logprobs.as_slice());
    let done = match part.kind {
        PartKind::Text => Event::OutputTextDone { item_id, output_index, content_index, text, logprobs },
        PartKind::Refusal => Event::RefusalDone { item_id, output_index, content_index, refusal: text },
    };
    sink.event(*sequence, &done);
    let part = part.content();
    let kind = "response.content_part.done";
    sink.event(
        *sequence + 1,
        &Event::ContentPart { kind, item_id, output_index, content_index, part: &part },
    );
    *sequence += 2;
    parts.push(part);
}

pub(super) fn close_summary(
    item_id: &str,
    output_index: u32,
    summary: &mut Vec<Summary>,
    current: &mut Option<(u16, String)>,
    sequence: &mut u64,
    sink: &mut impl Sink,
) {
    let Some((_, text)) = current.take() else { return };
    let summary_index = index_of(summary.len());
    let done = Event::SummaryDone { item_id, output_index, summary_index, text: &text };
    sink.event(*sequence, &done);
    let part = Summary::SummaryText { text };
    let kind = "response.reasoning_summary_part.done";
    sink.event(
        *sequence + 1,
        &Event::SummaryPart { kind, item_id, output_index, summary_index, part: &part },
    );
    *sequence += 2;
    summary.push(part);
}
