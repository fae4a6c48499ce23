//! The pieces a model's answer comes in, the same for every provider.

use std::sync::Arc;

use crate::openresponses::LogProb;

/// A piece of an answer. The log of a turn is a sequence of these, and every viewer's events follow from them alone,
/// so that a stream can be resumed anywhere, by any process, under the same sequence numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Chunk {
    /// More of the answer's text.
    Text(Arc<str>),
    /// The same with the log probabilities of its tokens.
    TextLogProbs { delta: Arc<str>, logprobs: Arc<[LogProb]> },
    /// The provider's filter takes back what it let pass: of the answer's text only so much stays, in UTF-16 code
    /// units from its start. Nothing of it follows.
    Retract { keep: u64 },
    /// An annotation of the text so far, a source that is cited for example: a JSON object as the protocol has it.
    Annotation(Arc<str>),
    /// More of a refusal.
    Refusal(Arc<str>),
    /// More of the reasoning's summary; a new `part` begins the next paragraph.
    ReasoningSummary { part: u16, delta: Arc<str> },
    /// More of the raw reasoning.
    ReasoningText(Arc<str>),
    /// What the provider wants back next time (encrypted reasoning, a signature). Ends the reasoning item.
    ReasoningEncrypted(Arc<str>),
    /// The past was summarised before this answer: the sealed summary stands for everything before it. Ours, never a
    /// provider's.
    Compaction(Arc<str>),
    /// A tool call begins. `index` tells parallel calls of one answer apart.
    ToolCall { index: u16, call_id: Arc<str>, name: Arc<str> },
    /// More of a call's arguments.
    ToolArguments { index: u16, delta: Arc<str> },
}

impl Chunk {
    /// Bytes of what the model wrote. What only the provider can read is not counted: it stands for more or less than it
    /// is long.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Refusal(text) | Self::ReasoningText(text) => text.len(),
            Self::TextLogProbs { delta, .. }
            | Self::ReasoningSummary { delta, .. }
            | Self::ToolArguments { delta, .. } => delta.len(),
            Self::ToolCall { name, .. } => name.len(),
            Self::Retract { .. }
            | Self::Annotation(_)
            | Self::ReasoningEncrypted(_)
            | Self::Compaction(_) => 0,
        }
    }
}

/// What a provider's stream says.
#[derive(Clone, Debug, PartialEq)]
pub enum Upstream {
    Chunk(Chunk),
    /// Tokens so far; a later count replaces an earlier one.
    Usage(TokenUsage),
    /// The same in the provider's own words: a JSON object.
    RawUsage(Arc<str>),
    /// The service tier that serves it, in the provider's word.
    Tier(Arc<str>),
    /// Why the model stopped. Usage may still follow; the end of the stream is the end.
    Finish(Finish),
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finish {
    /// It was done.
    Stop,
    /// It wants tools to be called.
    ToolCalls,
    /// `max_output_tokens`, or the model's own limit.
    Length,
    /// The provider's filter cut it.
    ContentFilter,
}

impl Finish {
    /// The word of OpenTelemetry's conventions, which is that of chat completions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::ToolCalls => "tool_calls",
            Self::Length => "length",
            Self::ContentFilter => "content_filter",
        }
    }
}

/// Tokens as we count them: `input` includes what was read from and written to the provider's cache, `output`
/// includes reasoning. (Anthropic reports cache tokens beside the input; its adapter adds them.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TokenUsage {
    pub input: u64,
    /// Part of `input` read from the provider's cache.
    pub cached: u64,
    /// Part of `input` written to the provider's cache.
    pub cache_written: u64,
    pub output: u64,
    /// Part of `output`.
    pub reasoning: u64,
}
