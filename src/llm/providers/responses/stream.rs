//! The stream of an upstream Responses API.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::super::error::{ErrorClass, LlmError, from_event};
use super::super::super::retraction::units;
use super::super::super::{Chunk, Finish, TokenUsage, Upstream};
use super::super::{Next, Told, finish_of, malformed, sealed_for, text};

/// How far a stream has come.
#[derive(Debug)]
pub(in crate::llm) struct Stream {
    deployment: String,
    /// Output indexes of the tool calls, in order: the position is our index.
    calls: Vec<Call>,
    /// Parts of text that came, so that their whole is not said again.
    said: Vec<Said>,
    /// The paragraph of the summary that is being written, over all reasoning items.
    summary: Option<(u64, u64)>,
    summary_part: u16,
}

#[derive(Debug)]
struct Said {
    /// Output index and content index.
    part: (u64, u64),
    units: u64,
}

#[derive(Debug)]
struct Call {
    output_index: u64,
    has_arguments: bool,
}

#[derive(Debug, Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    output_index: u64,
    #[serde(default)]
    content_index: u64,
    #[serde(default)]
    summary_index: u64,
    #[serde(borrow)]
    delta: Option<Text<'a>>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    arguments: Option<Text<'a>>,
    #[serde(borrow)]
    annotation: Option<&'a RawValue>,
    #[serde(borrow)]
    item: Option<Item<'a>>,
    #[serde(borrow)]
    response: Option<Response<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Debug, Deserialize)]
struct Item<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    call_id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    arguments: Option<Text<'a>>,
    #[serde(borrow)]
    encrypted_content: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    usage: Option<Told<'a, Usage>>,
    #[serde(borrow)]
    service_tier: Option<Text<'a>>,
    incomplete_details: Option<Details>,
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Details {
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_tokens_details: Option<InputDetails>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Debug, Deserialize)]
struct InputDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct OutputDetails {
    reasoning_tokens: Option<u64>,
}

impl Stream {
    /// Before the first event.
    pub fn new(deployment: &str) -> Self {
        Self {
            deployment: deployment.to_owned(),
            calls: Vec::new(),
            said: Vec::new(),
            summary: None,
            summary_part: 0,
        }
    }

    /// Takes one event of the provider's stream apart, and tells what it adds.
    pub fn event(&mut self, data: &str, out: &mut impl FnMut(Upstream)) -> Result<Next, LlmError> {
        if data.trim() == "[DONE]" {
            return Ok(Next::More);
        }
        let frame: Frame<'_> = serde_json::from_str(data).map_err(malformed)?;
        let delta = frame.delta.as_ref().map_or("", |delta| &delta.0);
        let whole = frame.text.as_ref().map_or("", |text| &text.0);
        let part = (frame.output_index, frame.content_index);
        match frame.kind.as_ref() {
            "response.output_text.delta" => {
                self.note(part, delta);
                text(delta, frame.logprobs).into_iter().for_each(out);
            }
            "response.output_text.done" if self.note(part, "") => {
                self.note(part, whole);
                text(whole, frame.logprobs).into_iter().for_each(out);
            }
            "response.output_text.annotation.added" => {
                if let Some(annotation) =
                    frame.annotation.filter(|annotation| annotation.get().starts_with('{'))
                {
                    out(Upstream::Chunk(Chunk::Annotation(annotation.get().into())));
                }
            }
            // Another Colloquy took something back: so much of the part stays.
            "colloquy:output_text_retracted" => {
                let before = self.said.iter().take_while(|said| said.part != part).map(|said| said.units);
                out(Upstream::Chunk(Chunk::Retract { keep: before.sum::<u64>() + units(whole) }));
            }
            "response.refusal.delta" if !delta.is_empty() => {
                out(Upstream::Chunk(Chunk::Refusal(delta.into())));
            }
            "response.reasoning_summary_text.delta" => {
                let part = self.part(frame.output_index, frame.summary_index);
                if !delta.is_empty() {
                    out(Upstream::Chunk(Chunk::ReasoningSummary { part, delta: delta.into() }));
                }
            }
            // Open Responses' name and OpenAI's.
            "response.reasoning.delta" | "response.reasoning_text.delta" if !delta.is_empty() => {
                out(Upstream::Chunk(Chunk::ReasoningText(delta.into())));
            }
            "response.function_call_arguments.delta" => self.arguments(frame.output_index, delta, out),
            "response.function_call_arguments.done" => {
                let whole = frame.arguments.as_ref().map_or("", |arguments| &arguments.0);
                self.rest(frame.output_index, whole, out);
            }
            "response.output_item.added" => {
                if let Some(item) = &frame.item {
                    self.added(frame.output_index, item, out)?;
                }
            }
            "response.output_item.done" => {
                if let Some(item) = &frame.item {
                    self.done(frame.output_index, item, out)?;
                }
            }
            "response.completed" | "response.incomplete" => return self.end(&frame, out),
            "response.failed" | "response.cancelled" => {
                let response = frame.response.unwrap_or(Response {
                    usage: None,
                    service_tier: None,
                    incomplete_details: None,
                    error: None,
                });
                if let Some(told) = &response.usage {
                    count(told, out);
                }
                let error = serde_json::json!({ "error": response.error });
                return Err(from_event(&error, Timestamp::now()));
            }
            "error" => {
                let error: Value = serde_json::from_str(data).map_err(malformed)?;
                return Err(from_event(&error, Timestamp::now()));
            }
            // Whatever else there is and will be.
            _ => {}
        }
        Ok(Next::More)
    }

    /// Notes text of a part. `true` if none came of it before.
    fn note(&mut self, part: (u64, u64), text: &str) -> bool {
        // The last one, nearly always.
        let present = self.said.iter_mut().rev().find(|said| said.part == part);
        let new = present.is_none();
        match present {
            Some(said) => said.units += units(text),
            None => self.said.push(Said { part, units: units(text) }),
        }
        new
    }

    /// Parts are numbered within an item there, within an answer here.
    fn part(&mut self, output_index: u64, summary_index: u64) -> u16 {
        let place = Some((output_index, summary_index));
        if self.summary.is_some() && self.summary != place {
            self.summary_part = self.summary_part.saturating_add(1);
        }
        self.summary = place;
        self.summary_part
    }

    fn added(
        &mut self,
        output_index: u64,
        item: &Item<'_>,
        out: &mut impl FnMut(Upstream),
    ) -> Result<(), LlmError> {
        if item.kind != "function_call" || self.calls.iter().any(|call| call.output_index == output_index) {
            return Ok(());
        }
        let protocol = || LlmError::new(ErrorClass::Protocol).charged(true);
        let index = u16::try_from(self.calls.len()).map_err(|_| protocol())?;
        let (Some(Text(call_id)), Some(Text(name))) = (&item.call_id, &item.name) else {
            return Err(protocol());
        };
        self.calls.push(Call { output_index, has_arguments: false });
        out(Upstream::Chunk(Chunk::ToolCall { index, call_id: (**call_id).into(), name: (**name).into() }));
        Ok(())
    }

    fn done(
        &mut self,
        output_index: u64,
        item: &Item<'_>,
        out: &mut impl FnMut(Upstream),
    ) -> Result<(), LlmError> {
        match item.kind.as_ref() {
            "function_call" => {
                self.added(output_index, item, out)?;
                self.rest(output_index, item.arguments.as_ref().map_or("", |arguments| &arguments.0), out);
            }
            "reasoning" => {
                if let Some(Text(content)) =
                    item.encrypted_content.as_ref().filter(|content| !content.0.is_empty())
                {
                    out(Upstream::Chunk(sealed_for(&self.deployment, content)));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn arguments(&mut self, output_index: u64, delta: &str, out: &mut impl FnMut(Upstream)) {
        let Some(at) = self.calls.iter().position(|call| call.output_index == output_index) else { return };
        if let (Some(call), false) = (self.calls.get_mut(at), delta.is_empty()) {
            call.has_arguments = true;
            let index = u16::try_from(at).unwrap_or(u16::MAX);
            out(Upstream::Chunk(Chunk::ToolArguments { index, delta: delta.into() }));
        }
    }

    /// The whole arguments, where none came in pieces.
    fn rest(&mut self, output_index: u64, whole: &str, out: &mut impl FnMut(Upstream)) {
        if self.calls.iter().any(|call| call.output_index == output_index && !call.has_arguments) {
            self.arguments(output_index, whole, out);
        }
    }

    fn end(&mut self, frame: &Frame<'_>, out: &mut impl FnMut(Upstream)) -> Result<Next, LlmError> {
        let response = frame.response.as_ref();
        if let Some(told) = response.and_then(|response| response.usage.as_ref()) {
            count(told, out);
        }
        let tier = response.and_then(|response| response.service_tier.as_ref());
        if let Some(Text(tier)) = tier.filter(|tier| !tier.0.is_empty()) {
            out(Upstream::Tier((**tier).into()));
        }
        let reason = response
            .and_then(|response| response.incomplete_details.as_ref()?.reason.as_deref())
            .filter(|_| frame.kind == "response.incomplete");
        let finish = match reason {
            None if frame.kind == "response.completed" => Finish::Stop,
            Some("content_filter") => Finish::ContentFilter,
            Some("interrupted") => return Err(LlmError::new(ErrorClass::Interrupted).charged(true)),
            _ => Finish::Length,
        };
        out(finish_of(finish, !self.calls.is_empty()));
        Ok(Next::Done)
    }
}

fn count(told: &Told<'_, Usage>, out: &mut impl FnMut(Upstream)) {
    out(told.raw());
    if let Some(usage) = &told.usage {
        out(Upstream::Usage(usage.normalised()));
    }
}

impl Usage {
    fn normalised(&self) -> TokenUsage {
        let input = self.input_tokens.unwrap_or(0);
        let cached = self.input_tokens_details.as_ref().and_then(|details| details.cached_tokens);
        let reasoning = self.output_tokens_details.as_ref().and_then(|details| details.reasoning_tokens);
        let reasoning = reasoning.unwrap_or(0);
        let written = self.input_tokens_details.as_ref().and_then(|details| details.cache_write_tokens);
        let cached = cached.unwrap_or(0).min(input);
        TokenUsage {
            input,
            cached,
            cache_written: written.unwrap_or(0).min(input - cached),
            output: self.output_tokens.unwrap_or(0).max(reasoning),
            reasoning,
        }
    }
}
