//! The stream of Anthropic Messages. Pings and events that will be invented are passed over.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::super::error::{ErrorClass, LlmError, from_event};
use super::super::super::{Chunk, Finish, TokenUsage, Upstream};
use super::super::{Next, Told, finish_of, malformed, sealed_for, text};

/// How far a stream has come.
#[derive(Debug)]
pub(in crate::llm) struct Stream {
    deployment: String,
    blocks: Vec<(u64, Block)>,
    calls: u16,
    usage: Usage,
    raw: Map<String, Value>,
    finished: bool,
}

#[derive(Debug)]
enum Block {
    /// `index` is ours; the input that stood in the block's beginning counts if no more of it follows.
    Tool {
        index: u16,
        input: Option<String>,
    },
    Thinking {
        signature: String,
    },
    Other,
}

#[derive(Debug, Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    index: u64,
    #[serde(borrow)]
    message: Option<Message<'a>>,
    #[serde(borrow)]
    content_block: Option<ContentBlock<'a>>,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    usage: Option<Told<'a, Usage>>,
}

#[derive(Debug, Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    usage: Option<Told<'a, Usage>>,
}

#[derive(Debug, Deserialize)]
struct ContentBlock<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    thinking: Option<Text<'a>>,
    #[serde(borrow)]
    signature: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct Delta<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    thinking: Option<Text<'a>>,
    #[serde(borrow)]
    signature: Option<Text<'a>>,
    #[serde(borrow)]
    partial_json: Option<Text<'a>>,
    #[serde(borrow)]
    stop_reason: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Counts are cumulative, and whatever is said again replaces what was said before.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Usage {
    input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    service_tier: Option<Tier>,
}

/// One of the words in use; no count fails for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Tier {
    Standard,
    Priority,
    Batch,
    #[serde(other)]
    Other,
}

impl Tier {
    fn word(self) -> Option<&'static str> {
        match self {
            Self::Standard => Some("standard"),
            Self::Priority => Some("priority"),
            Self::Batch => Some("batch"),
            Self::Other => None,
        }
    }
}

impl Stream {
    /// Before the first event.
    pub fn new(deployment: &str) -> Self {
        Self {
            deployment: deployment.to_owned(),
            blocks: Vec::new(),
            calls: 0,
            usage: Usage::default(),
            raw: Map::new(),
            finished: false,
        }
    }

    /// Whether the answer came to its end, whatever the connection does now.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Takes one event of the provider's stream apart, and tells what it adds.
    pub fn event(&mut self, data: &str, out: &mut impl FnMut(Upstream)) -> Result<Next, LlmError> {
        let frame: Frame<'_> = serde_json::from_str(data).map_err(malformed)?;
        match frame.kind.as_ref() {
            "message_start" => {
                if let Some(told) = frame.message.and_then(|message| message.usage) {
                    self.count(&told, out);
                }
            }
            "content_block_start" => {
                if let Some(block) = frame.content_block {
                    self.start(frame.index, &block, out)?;
                }
            }
            "content_block_delta" => {
                if let Some(delta) = frame.delta {
                    self.delta(frame.index, &delta, out);
                }
            }
            "content_block_stop" => self.stop(frame.index, out),
            "message_delta" => {
                if let Some(told) = frame.usage {
                    self.count(&told, out);
                }
                let reason = frame.delta.and_then(|delta| delta.stop_reason);
                if let Some(Text(reason)) = reason.filter(|_| !self.finished) {
                    self.finished = true;
                    let finish = match reason.as_ref() {
                        "tool_use" => Finish::ToolCalls,
                        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
                        "refusal" => Finish::ContentFilter,
                        // end_turn, stop_sequence, pause_turn.
                        _ => Finish::Stop,
                    };
                    out(finish_of(finish, self.calls > 0));
                }
            }
            "message_stop" => {
                if !self.finished {
                    self.finished = true;
                    out(finish_of(Finish::Stop, self.calls > 0));
                }
                return Ok(Next::Done);
            }
            "error" if !self.finished => {
                let error: Value = serde_json::from_str(data).map_err(malformed)?;
                return Err(from_event(&error, Timestamp::now()));
            }
            _ => {}
        }
        Ok(Next::More)
    }

    fn count(&mut self, told: &Told<'_, Usage>, out: &mut impl FnMut(Upstream)) {
        self.raw.extend(serde_json::from_str::<Map<_, _>>(told.raw.get()).unwrap_or_default());
        out(Upstream::RawUsage(Value::Object(self.raw.clone()).to_string().into()));
        let (Some(usage), known) = (told.usage, self.usage) else { return };
        if let Some(tier) = usage.service_tier.filter(|_| known.service_tier.is_none()).and_then(Tier::word) {
            out(Upstream::Tier(tier.into()));
        }
        self.usage = Usage {
            input_tokens: usage.input_tokens.or(known.input_tokens),
            cache_read_input_tokens: usage.cache_read_input_tokens.or(known.cache_read_input_tokens),
            cache_creation_input_tokens: usage
                .cache_creation_input_tokens
                .or(known.cache_creation_input_tokens),
            output_tokens: usage.output_tokens.or(known.output_tokens),
            service_tier: usage.service_tier.or(known.service_tier),
        };
        out(Upstream::Usage(self.usage.normalised()));
    }

    fn start(
        &mut self,
        at: u64,
        block: &ContentBlock<'_>,
        out: &mut impl FnMut(Upstream),
    ) -> Result<(), LlmError> {
        let said = |text: &Option<Text<'_>>| text.as_ref().map_or(String::new(), |text| text.0.to_string());
        let kind = match block.kind.as_ref() {
            "tool_use" => {
                let index = self.calls;
                let (Some(Text(id)), Some(Text(name))) = (&block.id, &block.name) else {
                    return Err(LlmError::new(ErrorClass::Protocol).charged(true));
                };
                self.calls = self.calls.saturating_add(1);
                out(Upstream::Chunk(Chunk::ToolCall {
                    index,
                    call_id: (**id).into(),
                    name: (**name).into(),
                }));
                Block::Tool { index, input: Some(block.input.map_or("{}", RawValue::get).to_owned()) }
            }
            "thinking" => {
                thought(block.thinking.as_ref(), out);
                Block::Thinking { signature: said(&block.signature) }
            }
            "redacted_thinking" => {
                let data = format!("redacted~{}", said(&block.data));
                out(Upstream::Chunk(sealed_for(&self.deployment, &data)));
                Block::Other
            }
            "text" => {
                block.text.as_ref().and_then(|delta| text(&delta.0, None)).into_iter().for_each(out);
                Block::Other
            }
            _ => Block::Other,
        };
        self.blocks.retain(|(index, _)| *index != at);
        self.blocks.push((at, kind));
        Ok(())
    }

    fn delta(&mut self, at: u64, delta: &Delta<'_>, out: &mut impl FnMut(Upstream)) {
        let block = self.blocks.iter_mut().find(|(index, _)| *index == at).map(|(_, block)| block);
        match (delta.kind.as_ref().map(|kind| kind.0.as_ref()), block) {
            (Some("text_delta"), _) => {
                delta.text.as_ref().and_then(|delta| text(&delta.0, None)).into_iter().for_each(out);
            }
            (Some("thinking_delta"), _) => thought(delta.thinking.as_ref(), out),
            (Some("signature_delta"), Some(Block::Thinking { signature })) => {
                signature.push_str(delta.signature.as_ref().map_or("", |signature| &signature.0));
            }
            (Some("input_json_delta"), Some(Block::Tool { index, input })) => {
                // The first is often empty.
                if let Some(Text(json)) = delta.partial_json.as_ref().filter(|json| !json.0.is_empty()) {
                    *input = None;
                    out(Upstream::Chunk(Chunk::ToolArguments { index: *index, delta: (**json).into() }));
                }
            }
            _ => {}
        }
    }

    fn stop(&mut self, at: u64, out: &mut impl FnMut(Upstream)) {
        let Some(place) = self.blocks.iter().position(|(index, _)| *index == at) else { return };
        match self.blocks.swap_remove(place).1 {
            Block::Tool { index, input: Some(input) } => {
                out(Upstream::Chunk(Chunk::ToolArguments { index, delta: input.into() }));
            }
            Block::Thinking { signature } if !signature.is_empty() => {
                out(Upstream::Chunk(sealed_for(&self.deployment, &signature)));
            }
            Block::Tool { .. } | Block::Thinking { .. } | Block::Other => {}
        }
    }
}

fn thought(delta: Option<&Text<'_>>, out: &mut impl FnMut(Upstream)) {
    if let Some(Text(delta)) = delta.filter(|delta| !delta.0.is_empty()) {
        out(Upstream::Chunk(Chunk::ReasoningText((**delta).into())));
    }
}

impl Usage {
    /// The provider counts the cache beside the input; we count it within.
    fn normalised(&self) -> TokenUsage {
        let cached = self.cache_read_input_tokens.unwrap_or(0);
        let cache_written = self.cache_creation_input_tokens.unwrap_or(0);
        TokenUsage {
            input: self.input_tokens.unwrap_or(0).saturating_add(cached).saturating_add(cache_written),
            cached,
            cache_written,
            output: self.output_tokens.unwrap_or(0),
            reasoning: 0,
        }
    }
}
