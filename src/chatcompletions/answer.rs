//! What a caller is given: a completion in one piece, or its chunks.

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use crate::llm::Chunk;
use crate::openresponses::{
    ApiError, ContentPart, ErrorType, Item, LogProb, Response, ResponseStatus, Usage as Tokens,
};

/// What completions and chunks begin with.
#[derive(Clone, Debug, Serialize)]
struct Head {
    id: String,
    object: &'static str,
    /// Unix seconds.
    created: i64,
    /// The alias that was asked for.
    model: String,
    service_tier: String,
    system_fingerprint: Option<()>,
}

impl Head {
    fn of(response: &Response, object: &'static str) -> Self {
        let id = response.id.strip_prefix("resp_").unwrap_or(&response.id);
        Self {
            id: format!("chatcmpl-{id}"),
            object,
            created: response.created_at,
            model: response.model.clone(),
            service_tier: response.service_tier.clone(),
            system_fingerprint: None,
        }
    }
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Serialize)]
struct PromptDetails {
    cached_tokens: u64,
    audio_tokens: u64,
}

#[derive(Serialize)]
struct CompletionDetails {
    reasoning_tokens: u64,
    audio_tokens: u64,
    accepted_prediction_tokens: u64,
    rejected_prediction_tokens: u64,
}

impl From<Tokens> for Usage {
    fn from(tokens: Tokens) -> Self {
        Self {
            prompt_tokens: tokens.input_tokens,
            completion_tokens: tokens.output_tokens,
            total_tokens: tokens.total_tokens,
            prompt_tokens_details: PromptDetails {
                cached_tokens: tokens.input_tokens_details.cached_tokens,
                audio_tokens: 0,
            },
            completion_tokens_details: CompletionDetails {
                reasoning_tokens: tokens.output_tokens_details.reasoning_tokens,
                audio_tokens: 0,
                accepted_prediction_tokens: 0,
                rejected_prediction_tokens: 0,
            },
        }
    }
}

#[derive(Serialize)]
struct Function<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

#[derive(Serialize)]
struct ToolCall<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Completion<'a> {
    #[serde(flatten)]
    head: Head,
    choices: [Choice<'a>; 1],
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    message: Message<'a>,
    logprobs: Option<LogProbs<'a>>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct LogProbs<'a> {
    content: Vec<&'a LogProb>,
    /// Nobody gives them.
    refusal: Option<()>,
}

impl<'a> LogProbs<'a> {
    fn of(content: impl IntoIterator<Item = &'a LogProb>) -> Option<Self> {
        let content: Vec<_> = content.into_iter().collect();
        (!content.is_empty()).then_some(Self { content, refusal: None })
    }
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Option<String>,
    refusal: Option<String>,
    annotations: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall<'a>>,
}

/// An annotation in this format's form, which has one for sources from the web alone.
fn nested(annotation: &Value) -> Option<Value> {
    let mut citation = annotation.as_object()?.clone();
    let kind = citation.remove("type").filter(|kind| kind == "url_citation")?;
    Some(serde_json::json!({ "type": kind, "url_citation": citation }))
}

/// The `chat.completion` that a turn ended as.
///
/// Errors: what it ended as is no answer. `failure` says of what it failed, where that is known.
pub fn completion(response: &Response, failure: Option<&ApiError>) -> Result<Vec<u8>, ApiError> {
    let finish_reason = finish_reason(response, failure)?;
    let mut message = Message {
        role: "assistant",
        content: None,
        refusal: None,
        annotations: Vec::new(),
        tool_calls: Vec::new(),
    };
    let mut likely = Vec::new();
    for item in &response.output {
        match &**item {
            Item::Message(said) => {
                for part in &said.content {
                    match part {
                        ContentPart::OutputText { text, annotations, logprobs } => {
                            message.annotations.extend(annotations.iter().filter_map(nested));
                            message.content.get_or_insert_default().push_str(text);
                            likely.extend(logprobs);
                        }
                        ContentPart::Refusal { refusal } => {
                            message.refusal.get_or_insert_default().push_str(refusal);
                        }
                        _ => {}
                    }
                }
            }
            Item::FunctionCall(call) => message.tool_calls.push(ToolCall {
                index: None,
                id: Some(&call.call_id),
                kind: Some("function"),
                function: Function { name: Some(&call.name), arguments: &call.arguments },
            }),
            // Nothing of these is shown here.
            Item::FunctionCallOutput(_) | Item::Reasoning(_) | Item::Compaction(_) => {}
        }
    }
    if message.refusal.is_none() && message.tool_calls.is_empty() {
        // An answer without a word is one all the same.
        message.content.get_or_insert_default();
    }
    let completion = Completion {
        head: Head::of(response, "chat.completion"),
        choices: [Choice { index: 0, message, logprobs: LogProbs::of(likely), finish_reason }],
        usage: response.usage.map(Usage::from),
    };
    serde_json::to_vec(&completion).map_err(|error| {
        tracing::error!(code = "answer.unwritable", %error, "an answer could not be written as JSON");
        ApiError::internal()
    })
}

fn finish_reason(response: &Response, failure: Option<&ApiError>) -> Result<&'static str, ApiError> {
    let reason = response.incomplete_details.as_ref().map(|details| details.reason.as_str());
    match (response.status, reason) {
        (ResponseStatus::Completed, _) => {
            let called = response.output.iter().any(|item| matches!(**item, Item::FunctionCall(_)));
            Ok(if called { "tool_calls" } else { "stop" })
        }
        (ResponseStatus::Incomplete, Some("max_output_tokens")) => Ok("length"),
        (ResponseStatus::Incomplete, Some("content_filter")) => Ok("content_filter"),
        (ResponseStatus::Failed, _) => Err(failure.cloned().unwrap_or_else(|| {
            let message = response.error.as_ref().map_or("", |error| &error.message);
            ApiError::new(StatusCode::BAD_GATEWAY, ErrorType::ServerError, "provider_error", message)
        })),
        // The server stops, or the turn was stopped.
        _ => Err(ApiError::unavailable(
            "completion_interrupted",
            "The answer was cut off. Please send the request again.",
        )),
    }
}

#[derive(Serialize)]
struct Frame<'a> {
    #[serde(flatten)]
    head: &'a Head,
    choices: &'a [ChunkChoice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: u32,
    delta: Delta<'a>,
    logprobs: Option<LogProbs<'a>>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<[Value; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[ToolCall<'a>; 1]>,
}

/// Writes a turn as `chat.completion.chunk` frames.
#[derive(Debug)]
pub(super) struct Frames {
    head: Head,
    include_usage: bool,
    begun: bool,
    /// Indexes of calls as the provider gave them, in the order of their appearance: ours count from 0.
    calls: Vec<u16>,
}

impl Frames {
    /// `begun`: the response as it was when the turn began.
    pub fn new(begun: &Response, include_usage: bool) -> Self {
        let head = Head::of(begun, "chat.completion.chunk");
        Self { head, include_usage, begun: false, calls: Vec::new() }
    }

    /// The first frame, which says who speaks.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            let delta = Delta { role: Some("assistant"), content: Some(""), ..Delta::default() };
            self.frame(delta, None, None, out);
        }
    }

    /// The frame of one piece. Reasoning has no place in this format.
    pub fn push(&mut self, chunk: &Chunk, out: &mut Vec<u8>) {
        self.begin(out);
        let mut likely = None;
        let delta = match chunk {
            Chunk::Text(text) => Delta { content: Some(text), ..Delta::default() },
            Chunk::TextLogProbs { delta, logprobs } => {
                likely = LogProbs::of(&**logprobs);
                Delta { content: Some(delta), ..Delta::default() }
            }
            Chunk::Annotation(annotation) => {
                let flat = serde_json::from_str::<Value>(annotation).unwrap_or_default();
                let Some(annotation) = nested(&flat) else { return };
                Delta { annotations: Some([annotation]), ..Delta::default() }
            }
            Chunk::Refusal(text) => Delta { refusal: Some(text), ..Delta::default() },
            Chunk::ToolCall { index, call_id, name } => {
                self.calls.push(*index);
                let call = ToolCall {
                    index: Some(self.calls.len() - 1),
                    id: Some(call_id),
                    kind: Some("function"),
                    function: Function { name: Some(name), arguments: "" },
                };
                Delta { tool_calls: Some([call]), ..Delta::default() }
            }
            Chunk::ToolArguments { index, delta } => {
                // The same index again is another call.
                let Some(at) = self.calls.iter().rposition(|call| call == index) else { return };
                let function = Function { name: None, arguments: delta };
                let call = ToolCall { index: Some(at), id: None, kind: None, function };
                Delta { tool_calls: Some([call]), ..Delta::default() }
            }
            // Nor is there a way to take something back: the end says that it was filtered.
            Chunk::Retract { .. }
            | Chunk::ReasoningSummary { .. }
            | Chunk::ReasoningText(_)
            | Chunk::ReasoningEncrypted(_)
            | Chunk::Compaction(_) => return,
        };
        self.frame(delta, likely, None, out);
    }

    /// The frames of the end.
    pub fn finish(&mut self, response: &Response, failure: Option<&ApiError>, out: &mut Vec<u8>) {
        self.begin(out);
        self.head.service_tier.clone_from(&response.service_tier);
        match finish_reason(response, failure) {
            Ok(reason) => {
                self.frame(Delta::default(), None, Some(reason), out);
                if self.include_usage {
                    let usage = Some(response.usage.map(Usage::from));
                    data(&Frame { head: &self.head, choices: &[], usage }, out);
                }
                out.extend_from_slice(b"data: [DONE]\n\n");
            }
            // Without the end mark: what came before is not an answer.
            Err(error) => data(&error.body(), out),
        }
    }

    fn frame(
        &self,
        delta: Delta<'_>,
        logprobs: Option<LogProbs<'_>>,
        finish_reason: Option<&'static str>,
        out: &mut Vec<u8>,
    ) {
        let choices = &[ChunkChoice { index: 0, delta, logprobs, finish_reason }];
        data(&Frame { head: &self.head, choices, usage: self.include_usage.then_some(None) }, out);
    }
}

fn data(value: &impl Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    // Our own types always serialise, and a buffer takes everything.
    let written = serde_json::to_writer(&mut *out, value);
    debug_assert!(written.is_ok());
    out.extend_from_slice(b"\n\n");
}
