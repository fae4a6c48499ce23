//! From the pieces of an answer to output items and the protocol's events.
//!
//! The same pieces give the same events under the same sequence numbers, in whichever process and however often:
//! ids are derived from the response's, and nothing here looks at a clock. That is what makes a stream resumable.

mod open;
mod retract;

use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use self::open::{Body, Open, Part, PartKind, close_part, close_summary, index_of};

use crate::llm::Chunk;
use crate::openresponses::{
    ApiError, ContentPart, Event, IncompleteDetails, Item, ItemStatus, LogProb, Reasoning, Response,
    ResponseError, ResponseStatus, Summary, Usage,
};

/// How a turn ended.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// A final one.
    pub status: ResponseStatus,
    /// With `incomplete`: `max_output_tokens`, `content_filter`, `interrupted`.
    pub incomplete_reason: Option<String>,
    /// With `failed`.
    pub error: Option<ResponseError>,
    pub usage: Option<Usage>,
    /// The service tier that served it, if the provider told.
    pub service_tier: Option<String>,
    /// Unix seconds; only with `completed`.
    pub completed_at: Option<i64>,
}

impl End {
    /// An end before the answer's own, for this reason.
    pub fn cut_short(reason: &str) -> Self {
        Self {
            status: ResponseStatus::Incomplete,
            incomplete_reason: Some(reason.to_owned()),
            error: None,
            usage: None,
            service_tier: None,
            completed_at: None,
        }
    }
}

/// Builds items from chunks, telling every event to a sink as it goes.
#[derive(Debug)]
pub struct Assembler {
    response: Response,
    response_id: Uuid,
    show_encrypted: bool,
    sequence: u64,
    items: Vec<Arc<Item>>,
    /// Their places in the answer, in order.
    places: Vec<u32>,
    open: Vec<Open>,
    next_index: u32,
}

/// Where events go: their sequence number, and what they say.
pub trait Sink {
    fn event(&mut self, sequence_number: u64, event: &Event<'_>);
}

impl<F: FnMut(u64, &Event<'_>)> Sink for F {
    fn event(&mut self, sequence_number: u64, event: &Event<'_>) {
        self(sequence_number, event);
    }
}

/// Nobody looks: the items alone are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSink;

impl Sink for NoSink {
    fn event(&mut self, _: u64, _: &Event<'_>) {}
}

/// The id of the item at `index` of a response: derived, so that a replay names it alike.
pub fn item_uuid(response: Uuid, index: u32) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(response.as_bytes());
    hash.update(index.to_be_bytes());
    let digest = hash.finalize();
    let mut bytes = *response.as_bytes();
    bytes[6..].copy_from_slice(&digest[..10]);
    bytes[6] = (bytes[6] & 0x0f) | 0x70;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    Uuid::from_bytes(bytes)
}

impl Assembler {
    /// `response` as it was when the turn began. `show_encrypted`: whether events carry encrypted reasoning.
    pub fn new(response: Response, response_id: Uuid, show_encrypted: bool) -> Self {
        Self {
            response,
            response_id,
            show_encrypted,
            sequence: 0,
            items: Vec::new(),
            places: Vec::new(),
            open: Vec::new(),
            next_index: 0,
        }
    }

    /// The response as it stands, without items that are still open.
    pub fn response(&self) -> &Response {
        &self.response
    }

    /// The items so far that are closed, as they are stored.
    pub fn items(&self) -> &[Arc<Item>] {
        &self.items
    }

    /// The events before the first piece. A background turn was queued first.
    pub fn begin(&mut self, sink: &mut impl Sink) {
        if self.response.background {
            self.response.status = ResponseStatus::Queued;
            self.lifecycle("response.created", sink);
            self.lifecycle("response.queued", sink);
            self.response.status = ResponseStatus::InProgress;
        } else {
            self.lifecycle("response.created", sink);
        }
        self.lifecycle("response.in_progress", sink);
    }

    /// The events of one piece.
    pub fn push(&mut self, chunk: &Chunk, sink: &mut impl Sink) {
        match chunk {
            Chunk::Text(delta) => self.part(PartKind::Text, delta, &[], sink),
            Chunk::TextLogProbs { delta, logprobs } => self.part(PartKind::Text, delta, logprobs, sink),
            Chunk::Retract { keep } => self.retract(*keep, sink),
            Chunk::Annotation(annotation) => self.annotation(annotation, sink),
            Chunk::Refusal(delta) => self.part(PartKind::Refusal, delta, &[], sink),
            Chunk::ReasoningSummary { part, delta } => self.summary(*part, delta, sink),
            Chunk::ReasoningText(delta) => self.reasoning_text(delta, sink),
            Chunk::ReasoningEncrypted(content) => {
                let at = self.reasoning(sink);
                if let Body::Reasoning { encrypted, .. } = &mut self.open[at].body {
                    *encrypted = Some(Arc::clone(content));
                }
                self.close(at, ItemStatus::Completed, sink);
            }
            Chunk::Compaction(sealed) => {
                self.close_others(|_| false, sink);
                let at = self.open("cmp", Body::Compaction(Arc::clone(sealed)), sink);
                self.close(at, ItemStatus::Completed, sink);
            }
            Chunk::ToolCall { index, call_id, name } => self.call(*index, call_id, name, sink),
            Chunk::ToolArguments { index, delta } => self.arguments(*index, delta, sink),
        }
    }

    /// The event of a response that was deleted while it was watched: there is nothing to resume. `after`: the last number
    /// that its viewer has seen.
    pub fn deleted(&self, after: Option<u64>, sink: &mut impl Sink) {
        let error = ApiError::not_found("Response", &self.response.id).payload();
        let number = after.map_or(self.sequence, |after| self.sequence.max(after + 1));
        sink.event(number, &Event::Error { error: &error });
    }

    /// The events of the end, and the response as it ended.
    pub fn finish(mut self, end: &End, sink: &mut impl Sink) -> (Response, Vec<Arc<Item>>) {
        let status = match end.status {
            ResponseStatus::Completed => ItemStatus::Completed,
            _ => ItemStatus::Incomplete,
        };
        while !self.open.is_empty() {
            self.close(0, status, sink);
        }
        self.response.status = end.status;
        self.response.completed_at = end.completed_at;
        self.response.error = end.error.clone();
        self.response.usage = end.usage;
        if let Some(tier) = &end.service_tier {
            self.response.service_tier.clone_from(tier);
        }
        self.response.incomplete_details =
            end.incomplete_reason.clone().map(|reason| IncompleteDetails { reason });
        self.response.output = if self.show_encrypted {
            self.items.clone()
        } else {
            self.items.iter().map(without_encrypted).collect()
        };
        // The protocol has no event for a cancelled turn: it ends the stream as one cut short, the status telling why.
        let kind = match end.status {
            ResponseStatus::Completed => "response.completed",
            ResponseStatus::Failed => "response.failed",
            _ => "response.incomplete",
        };
        self.lifecycle(kind, sink);
        (self.response, self.items)
    }

    fn lifecycle(&mut self, kind: &'static str, sink: &mut impl Sink) {
        sink.event(self.sequence, &Event::Lifecycle { kind, response: &self.response });
        self.sequence += 1;
    }

    /// Opens an item and tells so. Gives its place among the open ones.
    fn open(&mut self, prefix: &str, body: Body, sink: &mut impl Sink) -> usize {
        let index = self.next_index;
        self.next_index += 1;
        let id = format!("{prefix}_{}", item_uuid(self.response_id, index));
        let open = Open { index, id, body };
        let item = open.item(ItemStatus::InProgress);
        sink.event(
            self.sequence,
            &Event::Item { kind: "response.output_item.added", output_index: index, item: &item },
        );
        self.sequence += 1;
        self.open.push(open);
        self.open.len() - 1
    }

    /// Closes what a piece of another kind ends: everything but what `keep` says.
    fn close_others(&mut self, keep: impl Fn(&Body) -> bool, sink: &mut impl Sink) {
        while let Some(at) = self.open.iter().position(|open| !keep(&open.body)) {
            self.close(at, ItemStatus::Completed, sink);
        }
    }

    fn part(&mut self, kind: PartKind, delta: &str, logprobs: &[LogProb], sink: &mut impl Sink) {
        self.close_others(|body| matches!(body, Body::Message { .. }), sink);
        let at = if self.open.is_empty() {
            self.open("msg", Body::Message { parts: Vec::new(), current: None }, sink)
        } else {
            0
        };
        let open = &mut self.open[at];
        let Body::Message { parts, current } = &mut open.body else { return };
        if current.as_ref().is_some_and(|part| part.kind != kind) {
            close_part(&open.id, open.index, parts, current, &mut self.sequence, sink);
        }
        let content_index = index_of(parts.len());
        let part = current.get_or_insert_with(|| {
            let part = Part::empty(kind).content();
            let event = Event::ContentPart {
                kind: "response.content_part.added",
                item_id: &open.id,
                output_index: open.index,
                content_index,
                part: &part,
            };
            sink.event(self.sequence, &event);
            self.sequence += 1;
            Part::empty(kind)
        });
        part.text.push_str(delta);
        part.logprobs.extend_from_slice(logprobs);
        let (item_id, output_index) = (open.id.as_str(), open.index);
        let event = match kind {
            PartKind::Text => {
                Event::OutputTextDelta { item_id, output_index, content_index, delta, logprobs }
            }
            PartKind::Refusal => Event::RefusalDelta { item_id, output_index, content_index, delta },
        };
        sink.event(self.sequence, &event);
        self.sequence += 1;
    }

    /// Of the part of text that is being written; one that comes elsewhere belongs to nothing.
    fn annotation(&mut self, annotation: &str, sink: &mut impl Sink) {
        let Some(open) = self.open.iter_mut().find(|open| matches!(open.body, Body::Message { .. })) else {
            return;
        };
        let Body::Message { parts, current } = &mut open.body else { return };
        let Some(part) = current.as_mut().filter(|part| part.kind == PartKind::Text) else { return };
        let annotation: Value = serde_json::from_str(annotation).unwrap_or_default();
        let event = Event::AnnotationAdded {
            item_id: &open.id,
            output_index: open.index,
            content_index: index_of(parts.len()),
            annotation_index: index_of(part.annotations.len()),
            annotation: &annotation,
        };
        sink.event(self.sequence, &event);
        self.sequence += 1;
        part.annotations.push(annotation);
    }

    fn reasoning(&mut self, sink: &mut impl Sink) -> usize {
        self.close_others(|body| matches!(body, Body::Reasoning { .. }), sink);
        if self.open.is_empty() {
            let body = Body::Reasoning { summary: Vec::new(), current: None, text: None, encrypted: None };
            self.open("rs", body, sink)
        } else {
            0
        }
    }

    fn summary(&mut self, part: u16, delta: &str, sink: &mut impl Sink) {
        let at = self.reasoning(sink);
        let open = &mut self.open[at];
        let Body::Reasoning { summary, current, .. } = &mut open.body else { return };
        if current.as_ref().is_some_and(|(present, _)| *present != part) {
            close_summary(&open.id, open.index, summary, current, &mut self.sequence, sink);
        }
        let summary_index = index_of(summary.len());
        let (_, text) = current.get_or_insert_with(|| {
            let empty = Summary::SummaryText { text: String::new() };
            let event = Event::SummaryPart {
                kind: "response.reasoning_summary_part.added",
                item_id: &open.id,
                output_index: open.index,
                summary_index,
                part: &empty,
            };
            sink.event(self.sequence, &event);
            self.sequence += 1;
            (part, String::new())
        });
        text.push_str(delta);
        let event = Event::SummaryDelta { item_id: &open.id, output_index: open.index, summary_index, delta };
        sink.event(self.sequence, &event);
        self.sequence += 1;
    }

    fn reasoning_text(&mut self, delta: &str, sink: &mut impl Sink) {
        let at = self.reasoning(sink);
        let open = &mut self.open[at];
        let Body::Reasoning { text, .. } = &mut open.body else { return };
        let text = text.get_or_insert_with(|| {
            let part = ContentPart::ReasoningText { text: String::new() };
            let event = Event::ContentPart {
                kind: "response.content_part.added",
                item_id: &open.id,
                output_index: open.index,
                content_index: 0,
                part: &part,
            };
            sink.event(self.sequence, &event);
            self.sequence += 1;
            String::new()
        });
        text.push_str(delta);
        let event =
            Event::ReasoningDelta { item_id: &open.id, output_index: open.index, content_index: 0, delta };
        sink.event(self.sequence, &event);
        self.sequence += 1;
    }

    fn call(&mut self, index: u16, call_id: &Arc<str>, name: &Arc<str>, sink: &mut impl Sink) {
        // Calls of one answer may come interleaved; only the same index again is another call.
        self.close_others(|body| matches!(body, Body::Call { index: open, .. } if *open != index), sink);
        let body = Body::Call {
            index,
            call_id: Arc::clone(call_id),
            name: Arc::clone(name),
            arguments: String::new(),
        };
        self.open("fc", body, sink);
    }

    fn arguments(&mut self, index: u16, delta: &str, sink: &mut impl Sink) {
        for open in &mut self.open {
            if let Body::Call { index: present, arguments, .. } = &mut open.body
                && *present == index
            {
                arguments.push_str(delta);
                let event = Event::ArgumentsDelta { item_id: &open.id, output_index: open.index, delta };
                sink.event(self.sequence, &event);
                self.sequence += 1;
                return;
            }
        }
    }

    /// Closes the open item at `at`, with the events that belong to it.
    fn close(&mut self, at: usize, status: ItemStatus, sink: &mut impl Sink) {
        let mut open = self.open.remove(at);
        match &mut open.body {
            Body::Message { parts, current } => {
                close_part(&open.id, open.index, parts, current, &mut self.sequence, sink);
            }
            Body::Reasoning { summary, current, text, .. } => {
                close_summary(&open.id, open.index, summary, current, &mut self.sequence, sink);
                if let Some(text) = text {
                    let part = ContentPart::ReasoningText { text: text.clone() };
                    let (item_id, output_index) = (open.id.as_str(), open.index);
                    let done = Event::ReasoningDone { item_id, output_index, content_index: 0, text };
                    sink.event(self.sequence, &done);
                    let kind = "response.content_part.done";
                    let part =
                        Event::ContentPart { kind, item_id, output_index, content_index: 0, part: &part };
                    sink.event(self.sequence + 1, &part);
                    self.sequence += 2;
                }
            }
            Body::Compaction(_) => {}
            Body::Call { name, arguments, .. } => {
                let event =
                    Event::ArgumentsDone { item_id: &open.id, output_index: open.index, name, arguments };
                sink.event(self.sequence, &event);
                self.sequence += 1;
            }
        }
        let index = open.index;
        let item = Arc::new(open.item(status));
        let shown = if self.show_encrypted { Arc::clone(&item) } else { without_encrypted(&item) };
        let event = Event::Item { kind: "response.output_item.done", output_index: index, item: &shown };
        sink.event(self.sequence, &event);
        self.sequence += 1;
        // Calls that came interleaved may close in another order than they opened.
        let at = self.places.partition_point(|place| *place < index);
        self.places.insert(at, index);
        self.items.insert(at, item);
    }
}

/// An item as it is shown to those who did not ask for encrypted reasoning.
pub fn without_encrypted(item: &Arc<Item>) -> Arc<Item> {
    match &**item {
        Item::Reasoning(reasoning) if reasoning.encrypted_content.is_some() => {
            Arc::new(Item::Reasoning(Reasoning { encrypted_content: None, ..reasoning.clone() }))
        }
        _ => Arc::clone(item),
    }
}

#[cfg(test)]
mod tests;
