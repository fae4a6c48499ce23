//! What was said of an answer is taken back.

use std::sync::Arc;

use serde_json::Value;

use super::open::{Body, Open, PartKind, index_of};
use super::{Assembler, Sink, without_encrypted};
use crate::llm::retraction::{beginning, units};
use crate::openresponses::{ContentPart, Event, Item, ItemStatus, LogProb, Response};

/// A part that lost some of its text.
struct Cut {
    item_id: String,
    output_index: u32,
    content_index: u32,
    text: String,
}

/// Goes through the parts of an answer, and cuts them once what stays has been passed.
struct Knife {
    left: u64,
    cutting: bool,
    cuts: Vec<Cut>,
}

impl Knife {
    /// `true` if the part was cut. The part in which the text that stays ends is cut even if nothing of it goes: a
    /// replay, whose parts have lost their text already, has the same cuts.
    fn part(&mut self, text: &mut String, annotations: &mut Vec<Value>, logprobs: &mut Vec<LogProb>) -> bool {
        if !self.cutting {
            let length = units(text);
            if length < self.left {
                self.left -= length;
                return false;
            }
            self.cutting = true;
        }
        let kept = beginning(text, std::mem::take(&mut self.left)).len();
        text.truncate(kept);
        // Which of them belong to what stays cannot be told for every provider.
        annotations.clear();
        logprobs.clear();
        true
    }

    fn note(&mut self, item_id: &str, output_index: u32, content_index: u32, text: &str) {
        let (item_id, text) = (item_id.to_owned(), text.to_owned());
        self.cuts.push(Cut { item_id, output_index, content_index, text });
    }

    /// An item that is closed: another in its place, if it was cut.
    fn closed(&mut self, output_index: u32, item: &mut Arc<Item>) {
        if !matches!(**item, Item::Message(_)) {
            return;
        }
        let Item::Message(message) = Arc::make_mut(item) else { return };
        for (content_index, part) in (0..).zip(&mut message.content) {
            if let ContentPart::OutputText { text, annotations, logprobs } = part
                && self.part(text, annotations, logprobs)
            {
                self.note(&message.id, output_index, content_index, text);
                message.status = ItemStatus::Incomplete;
            }
        }
    }

    fn open(&mut self, open: &mut Open) {
        let Body::Message { parts, current } = &mut open.body else { return };
        for (content_index, part) in (0..).zip(&mut *parts) {
            if let ContentPart::OutputText { text, annotations, logprobs } = part
                && self.part(text, annotations, logprobs)
            {
                self.note(&open.id, open.index, content_index, text);
            }
        }
        if let Some(part) = current.as_mut().filter(|part| part.kind == PartKind::Text)
            && self.part(&mut part.text, &mut part.annotations, &mut part.logprobs)
        {
            self.note(&open.id, open.index, index_of(parts.len()), &part.text);
        }
    }
}

impl Assembler {
    /// Of the answer's text only the first `keep` UTF-16 code units stay. One event for each part that is cut.
    pub(super) fn retract(&mut self, keep: u64, sink: &mut impl Sink) {
        let mut knife = Knife { left: self.whole_characters(keep), cutting: false, cuts: Vec::new() };
        for (output_index, item) in (0..).zip(&mut self.items) {
            knife.closed(output_index, item);
        }
        self.open.iter_mut().for_each(|open| knife.open(open));
        let response = self.standing();
        for cut in &knife.cuts {
            let event = Event::OutputTextRetracted {
                item_id: &cut.item_id,
                output_index: cut.output_index,
                content_index: cut.content_index,
                text: &cut.text,
                reason: "content_filter",
                response: &response,
            };
            sink.event(self.sequence, &event);
            self.sequence += 1;
        }
    }

    /// The same number, less the half of a character that it would end in: a replay was told so, and has the same cuts.
    fn whole_characters(&self, keep: u64) -> u64 {
        let closed = self.items.iter().filter_map(|item| match &**item {
            Item::Message(message) => Some(&message.content),
            _ => None,
        });
        let open = self.open.iter().filter_map(|open| match &open.body {
            Body::Message { parts, current } => Some((parts, current)),
            _ => None,
        });
        fn text(part: &ContentPart) -> Option<&str> {
            match part {
                ContentPart::OutputText { text, .. } => Some(text),
                _ => None,
            }
        }
        let closed = closed.flatten().filter_map(text);
        let open = open.flat_map(|(parts, current)| {
            let current = current.as_ref().filter(|part| part.kind == PartKind::Text);
            parts.iter().filter_map(text).chain(current.map(|part| part.text.as_str()))
        });
        let mut left = keep;
        for text in closed.chain(open) {
            let length = units(text);
            if length > left {
                return keep - (left - units(beginning(text, left)));
            }
            left -= length;
        }
        keep
    }

    /// The response with everything so far, open items too.
    fn standing(&self) -> Response {
        let mut response = self.response.clone();
        response.output = self.items.clone();
        for open in &self.open {
            let mut item = open.item(ItemStatus::InProgress);
            if let (Item::Message(message), Body::Message { current: Some(part), .. }) =
                (&mut item, &open.body)
            {
                message.content.push(part.clone().content());
            }
            let place = usize::try_from(open.index).unwrap_or(usize::MAX).min(response.output.len());
            response.output.insert(place, Arc::new(item));
        }
        if !self.show_encrypted {
            response.output = response.output.iter().map(without_encrypted).collect();
        }
        response
    }
}
