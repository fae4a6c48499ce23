//! One adapter per wire format: a request's body out, a stream of events in. No network here.

mod anthropic;
mod arguments;
mod chat;
mod order;
mod responses;
#[cfg(test)]
mod tests;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::error::{ErrorClass, LlmError};
use super::sse::Frames;
use super::{Chunk, Finish, ModelRequest, Upstream};
use crate::config::app::{DeploymentConfig, ProviderKind};
use crate::openresponses::{AllowedTool, CreateResponse, LogProb, SpecificTool, Tool, ToolChoice, ToolMode};

/// What a body is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    /// The deployment's name, under which its encrypted reasoning comes back.
    pub deployment: &'a str,
    pub config: &'a DeploymentConfig,
    /// Whether the alias says that the model reasons.
    pub reasoning: bool,
    pub request: &'a ModelRequest,
}

impl Call<'_> {
    /// What the provider calls the model.
    pub fn model(&self) -> &str {
        self.config.model.as_deref().unwrap_or(self.deployment)
    }
}

/// The body of the request, always for a stream.
pub(crate) fn body(call: &Call<'_>) -> Result<Vec<u8>, LlmError> {
    match call.config.provider {
        ProviderKind::Azure | ProviderKind::Openai => chat::body(call),
        ProviderKind::Responses => responses::body(call),
        ProviderKind::Anthropic => anthropic::body(call),
        ProviderKind::Demo => Err(LlmError::new(ErrorClass::Protocol)),
    }
}

/// Turns the bytes of an answer into pieces of it.
#[derive(Debug)]
pub(crate) struct Parser {
    frames: Frames,
    format: Format,
    done: bool,
}

#[derive(Debug)]
enum Format {
    Chat(chat::Stream),
    Responses(responses::Stream),
    Anthropic(anthropic::Stream),
}

/// Whether a stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    More,
    /// The protocol's own end; what follows is ignored.
    Done,
}

impl Parser {
    /// `attempt` seeds the ids of tool calls to which a provider gives none.
    pub fn new(provider: ProviderKind, deployment: &str, attempt: Uuid, event_max_bytes: usize) -> Self {
        let format = match provider {
            ProviderKind::Responses => Format::Responses(responses::Stream::new(deployment)),
            ProviderKind::Anthropic => Format::Anthropic(anthropic::Stream::new(deployment)),
            ProviderKind::Azure | ProviderKind::Openai | ProviderKind::Demo => {
                Format::Chat(chat::Stream::new(attempt))
            }
        };
        Self { frames: Frames::new(event_max_bytes), format, done: false }
    }

    /// Takes more bytes. After an error nothing more may be pushed.
    pub fn push(&mut self, bytes: &[u8], out: &mut impl FnMut(Upstream)) -> Result<(), LlmError> {
        let Self { frames, format, done } = self;
        frames.push(bytes, &mut |event| {
            if !*done && !event.data.is_empty() {
                *done = format.event(event.data, out)? == Next::Done;
            }
            Ok(())
        })
    }

    /// The bytes have ended: right after an end that the protocol gave in any form, else [`ErrorClass::Interrupted`].
    pub fn finish(&mut self, out: &mut impl FnMut(Upstream)) -> Result<(), LlmError> {
        let Self { frames, format, done } = self;
        // What is cut in the middle of its JSON was interrupted, not malformed.
        let last = frames.finish(&mut |event| {
            if !*done && !event.data.is_empty() {
                *done = format.event(event.data, out)? == Next::Done;
            }
            Ok(())
        });
        let ended = *done
            || match format {
                Format::Chat(stream) => stream.is_finished(),
                Format::Responses(_) => false,
                Format::Anthropic(stream) => stream.is_finished(),
            };
        match last {
            Err(error) if error.class != ErrorClass::Protocol => Err(error),
            _ if ended => Ok(()),
            _ => Err(LlmError::new(ErrorClass::Interrupted).charged(true)),
        }
    }

    /// Whether the answer is whole; what the provider still sends does not matter.
    pub fn is_done(&self) -> bool {
        self.done
    }
}

impl Format {
    fn event(&mut self, data: &str, out: &mut impl FnMut(Upstream)) -> Result<Next, LlmError> {
        match self {
            Self::Chat(stream) => stream.event(data, out),
            Self::Responses(stream) => stream.event(data, out),
            Self::Anthropic(stream) => stream.event(data, out),
        }
    }
}

/// An event that is not what the protocol says. The problem is not told further: it would quote the answer.
fn malformed(_: serde_json::Error) -> LlmError {
    LlmError::new(ErrorClass::Protocol).charged(true)
}

/// A piece of text, if it says anything. `logprobs` is a list as providers write it; what makes no sense is left out.
fn text(delta: &str, logprobs: Option<&RawValue>) -> Option<Upstream> {
    let logprobs: Vec<LogProb> =
        logprobs.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let chunk = match (delta.is_empty(), logprobs.is_empty()) {
        (true, true) => return None,
        (false, true) => Chunk::Text(delta.into()),
        (_, false) => Chunk::TextLogProbs { delta: delta.into(), logprobs: logprobs.into() },
    };
    Some(Upstream::Chunk(chunk))
}

/// What a provider told of its usage: as it said it, and read.
#[derive(Debug)]
struct Told<'a, U> {
    raw: &'a RawValue,
    /// `None` if it cannot be read: no answer fails for how its tokens are counted.
    usage: Option<U>,
}

impl<U> Told<'_, U> {
    fn raw(&self) -> Upstream {
        Upstream::RawUsage(self.raw.get().into())
    }
}

impl<'de: 'a, 'a, U: DeserializeOwned> Deserialize<'de> for Told<'a, U> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        let usage = serde_json::from_str(raw.get()).ok().or_else(|| leniently(raw.get()));
        Ok(Self { raw, usage })
    }
}

/// Usage of servers that write whole numbers as floats: `3.0`.
fn leniently<U: DeserializeOwned>(raw: &str) -> Option<U> {
    let mut usage: Value = serde_json::from_str(raw).ok()?;
    make_whole(&mut usage);
    serde_json::from_value(usage).ok()
}

fn make_whole(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(make_whole),
        Value::Number(number) => {
            // What an f64 holds exactly; there are no more tokens.
            let whole = |float: &f64| float.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(float);
            if let Some(float) = number.as_f64().filter(whole) {
                *value = (float as u64).into();
            }
        }
        _ => {}
    }
}

/// A finish without tool calls, corrected where tools were called: some servers say `stop` then.
fn finish_of(finish: Finish, calls: bool) -> Upstream {
    Upstream::Finish(if calls && finish == Finish::Stop { Finish::ToolCalls } else { finish })
}

/// Puts the writer's name before what only it can read.
fn sealed_for(deployment: &str, content: &str) -> Chunk {
    Chunk::ReasoningEncrypted(format!("{deployment}~{content}").into())
}

/// What of an `encrypted_content` may go to `deployment`.
fn opened_for<'c>(deployment: &str, content: &'c str, bare: bool) -> Option<&'c str> {
    match content.split_once('~') {
        Some((name, content)) => (name == deployment).then_some(content),
        None => bare.then_some(content),
    }
}

/// The tools that may be called, and how, once a list of allowed ones is applied: few providers know such lists.
fn offered(params: &CreateResponse) -> (Vec<&Tool>, Option<Choice<'_>>) {
    let all = params.tools.iter().flatten();
    match &params.tool_choice {
        None => (all.collect(), None),
        Some(ToolChoice::Mode(mode)) => (all.collect(), Some(Choice::Mode(*mode))),
        Some(ToolChoice::Specific(SpecificTool::Function { name })) => {
            (all.collect(), Some(Choice::Function(name)))
        }
        Some(ToolChoice::Specific(SpecificTool::AllowedTools { mode, tools })) => {
            let allowed =
                |name: &str| tools.iter().any(|AllowedTool::Function { name: allowed }| allowed == name);
            (all.filter(|tool| allowed(tool.name())).collect(), Some(Choice::Mode(*mode)))
        }
    }
}

/// Which of the offered tools is to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice<'a> {
    Mode(ToolMode),
    Function(&'a str),
}

/// A `data:` URL's media type and base64 text.
fn data_url(url: &str) -> Option<(&str, &str)> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let media_type = head.strip_suffix(";base64")?;
    Some((media_type.split(';').next().unwrap_or(media_type), data))
}

/// An item that the caller should have replaced.
fn unopened() -> LlmError {
    LlmError::refused("input", "A compaction item must be opened before it goes to a model.")
}
