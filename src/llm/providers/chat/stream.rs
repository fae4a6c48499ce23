//! The stream of a chat completion, read with every tolerance that servers in use need.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::super::super::error::{ErrorClass, LlmError, from_event};
use super::super::super::{Chunk, Finish, TokenUsage, Upstream};
use super::super::arguments::{Calls, Piece};
use super::super::{Next, Told, finish_of, malformed, text};
use super::annotations::Annotations;

/// How far a stream has come.
#[derive(Debug)]
pub(in crate::llm) struct Stream {
    calls: Calls,
    annotations: Annotations,
    /// The service tier was told; every frame says it.
    tiered: bool,
    finished: bool,
}

/// A string that is copied only if it holds escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

// Everything may be missing or null: Azure's first frame has no choices worth the name, its annotations have no
// delta, and the frame with the usage has choices that are empty, null, absent, or real.
#[derive(Debug, Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow)]
    usage: Option<Told<'a, Usage>>,
    #[serde(borrow)]
    service_tier: Option<Text<'a>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct Choice<'a> {
    index: Option<u64>,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Text<'a>>,
    /// An object; a list on some servers.
    #[serde(borrow)]
    logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    content_filter_results: Option<&'a RawValue>,
    #[serde(borrow)]
    content_filter_offsets: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct LogProbs<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<Text<'a>>,
    #[serde(borrow)]
    refusal: Option<Text<'a>>,
    /// DeepSeek, vLLM, LiteLLM.
    #[serde(borrow)]
    reasoning_content: Option<Text<'a>>,
    /// OpenRouter, Ollama; an object elsewhere.
    #[serde(borrow)]
    reasoning: Option<&'a RawValue>,
    /// Not a list on every server, nor of objects.
    #[serde(borrow)]
    annotations: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<Vec<ToolCall<'a>>>,
}

#[derive(Debug, Deserialize)]
struct ToolCall<'a> {
    index: Option<u64>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    function: Option<Function<'a>>,
}

#[derive(Debug, Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    /// A string by the protocol, an object on some servers.
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
    /// DeepSeek.
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

impl Stream {
    /// Before the first event.
    pub fn new(attempt: Uuid) -> Self {
        Self {
            calls: Calls::new(attempt),
            annotations: Annotations::default(),
            tiered: false,
            finished: false,
        }
    }

    /// Whether the answer came to its end, whatever the connection does now.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Takes one event of the provider's stream apart, and tells what it adds.
    pub fn event(&mut self, data: &str, out: &mut impl FnMut(Upstream)) -> Result<Next, LlmError> {
        if data.trim() == "[DONE]" {
            if !self.finished {
                self.finish(Finish::Stop, out)?;
            }
            return Ok(Next::Done);
        }
        let frame: Frame<'_> = serde_json::from_str(data).map_err(malformed)?;
        if let Some(error) = frame.error.filter(|error| error.get() != "null") {
            // After the finish the answer is whole, whatever went wrong then.
            if self.finished {
                return Ok(Next::More);
            }
            let value = format!("{{\"error\":{}}}", error.get());
            return Err(from_event(&serde_json::from_str(&value).map_err(malformed)?, Timestamp::now()));
        }
        if let Some(Text(tier)) = frame.service_tier.filter(|tier| !tier.0.is_empty() && !self.tiered) {
            self.tiered = true;
            out(Upstream::Tier((*tier).into()));
        }
        for choice in frame.choices.into_iter().flatten() {
            // We ask for one.
            if choice.index.unwrap_or(0) == 0 {
                self.choice(choice, out)?;
            }
        }
        if let Some(told) = frame.usage {
            out(told.raw());
            if let Some(usage) = told.usage {
                out(Upstream::Usage(usage.normalised()));
            }
        }
        Ok(Next::More)
    }

    fn choice(&mut self, choice: Choice<'_>, out: &mut impl FnMut(Upstream)) -> Result<(), LlmError> {
        // A choice that comes with the usage, after the finish, says nothing new.
        if !self.finished
            && let Some(delta) = choice.delta
        {
            self.delta(delta, choice.logprobs, out)?;
        }
        let reason = choice.finish_reason.as_ref().map(|reason| reason.0.as_ref());
        // What was sent can be taken back after the finish too.
        if let Some(offsets) = choice.content_filter_offsets
            && let stops = reason == Some("content_filter")
            && let Some(keep) = self.annotations.judge(offsets, choice.content_filter_results, stops)
        {
            out(Upstream::Chunk(Chunk::Retract { keep }));
            return self.finish(Finish::ContentFilter, out);
        }
        match reason.filter(|_| !self.finished) {
            None | Some("") => Ok(()),
            Some("error") => Err(LlmError::new(ErrorClass::Server).charged(true)),
            Some("length" | "max_tokens") => self.finish(Finish::Length, out),
            Some("content_filter") => self.finish(Finish::ContentFilter, out),
            Some("tool_calls" | "function_call") => self.finish(Finish::ToolCalls, out),
            // stop, and what compatible servers call it: eos, end_turn.
            Some(_) => self.finish(Finish::Stop, out),
        }
    }

    fn delta(
        &mut self,
        delta: Delta<'_>,
        logprobs: Option<&RawValue>,
        out: &mut impl FnMut(Upstream),
    ) -> Result<(), LlmError> {
        let mut reasoned = false;
        if let Some(Text(delta)) = delta.reasoning_content.filter(|delta| !delta.0.is_empty()) {
            reasoned = true;
            out(Upstream::Chunk(Chunk::ReasoningText((*delta).into())));
        }
        // Some servers say it under both names.
        if let Some(raw) = delta.reasoning.filter(|raw| !reasoned && raw.get().starts_with('"')) {
            let Text(delta) = serde_json::from_str(raw.get()).map_err(malformed)?;
            if !delta.is_empty() {
                out(Upstream::Chunk(Chunk::ReasoningText((*delta).into())));
            }
        }
        let logprobs = logprobs.and_then(|raw| serde_json::from_str::<LogProbs<'_>>(raw.get()).ok()?.content);
        let content = delta.content.as_ref().map_or("", |delta| &delta.0);
        text(content, logprobs).into_iter().for_each(&mut *out);
        let annotations = delta.annotations.map(|raw| serde_json::from_str::<Vec<Value>>(raw.get()));
        for annotation in annotations.into_iter().flatten().flatten() {
            out(Upstream::Chunk(Chunk::Annotation(flat(annotation).to_string().into())));
        }
        if let Some(Text(delta)) = delta.refusal.filter(|delta| !delta.0.is_empty()) {
            out(Upstream::Chunk(Chunk::Refusal((*delta).into())));
        }
        for call in delta.tool_calls.into_iter().flatten() {
            let (name, raw) = match call.function {
                Some(function) => (function.name, function.arguments),
                None => (None, None),
            };
            let raw = raw.map_or("null", RawValue::get);
            let arguments = match raw.as_bytes().first() {
                Some(b'"') => serde_json::from_str::<Text<'_>>(raw).map_err(malformed)?.0,
                Some(b'{') => Cow::Borrowed(raw),
                _ => Cow::Borrowed(""),
            };
            let piece = Piece {
                index: call.index,
                id: call.id.as_ref().map(|id| id.0.as_ref()).filter(|id| !id.is_empty()),
                name: name.as_ref().map(|name| name.0.as_ref()).filter(|name| !name.is_empty()),
                arguments: &arguments,
            };
            self.calls.push(piece, out)?;
        }
        Ok(())
    }

    fn finish(&mut self, finish: Finish, out: &mut impl FnMut(Upstream)) -> Result<(), LlmError> {
        if finish != Finish::Length && finish != Finish::ContentFilter {
            self.calls.finish()?;
        }
        self.finished = true;
        out(finish_of(finish, self.calls.any()));
        Ok(())
    }
}

/// An annotation as Open Responses has it: what stands in an object named like its type, beside the type.
fn flat(annotation: Value) -> Value {
    let Value::Object(mut fields) = annotation else { return annotation };
    let kind = fields.get("type").and_then(Value::as_str).map(str::to_owned);
    let inner = kind.and_then(|kind| match fields.get_mut(&kind) {
        Some(Value::Object(inner)) => Some((kind, std::mem::take(inner))),
        _ => None,
    });
    if let Some((kind, inner)) = inner {
        fields.remove(&kind);
        fields.extend(inner);
    }
    Value::Object(fields)
}

impl Usage {
    /// What the parts cannot exceed is corrected upwards: some servers count reasoning beside the completion.
    fn normalised(&self) -> TokenUsage {
        let input = self.prompt_tokens.unwrap_or(0);
        let details = self.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens);
        let reasoning = self.completion_tokens_details.as_ref().and_then(|details| details.reasoning_tokens);
        let reasoning = reasoning.unwrap_or(0);
        let written = self.prompt_tokens_details.as_ref().and_then(|details| details.cache_write_tokens);
        let cached = details.or(self.prompt_cache_hit_tokens).unwrap_or(0).min(input);
        TokenUsage {
            input,
            cached,
            cache_written: written.unwrap_or(0).min(input - cached),
            output: self.completion_tokens.unwrap_or(0).max(reasoning),
            reasoning,
        }
    }
}
