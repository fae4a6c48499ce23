//! What a caller is given.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::item::Item;
use super::request::{
    CreateResponse, Effort, SummaryKind, TextFormat, Tool, ToolChoice, ToolMode, Truncation, Verbosity,
};

/// How far a response has come. These are also the states of a turn, and the words in SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseStatus {
    Queued,
    InProgress,
    Completed,
    Incomplete,
    Failed,
    Cancelled,
}

impl ResponseStatus {
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::InProgress, Self::Completed, Self::Incomplete, Self::Failed, Self::Cancelled];

    /// Whether nothing follows any more.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::InProgress)
    }

    /// Whether a turn may go from this state to another. An end is an end. From `InProgress` it goes back when it is put
    /// off, and to itself when its lease lapses; under the next epoch, both.
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Queued => matches!(next, Self::InProgress),
            Self::InProgress => true,
            Self::Completed | Self::Incomplete | Self::Failed | Self::Cancelled => false,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why an answer is not whole: `max_output_tokens`, `content_filter`, and ours: `interrupted`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct IncompleteDetails {
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ResponseError {
    pub code: String,
    pub message: String,
}

/// Tokens, normalised: `input_tokens` include cached ones, `output_tokens` include reasoning, as at OpenAI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Usage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub total_tokens: u64,
    pub input_tokens_details: InputTokensDetails,
    pub output_tokens_details: OutputTokensDetails,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct InputTokensDetails {
    pub cached_tokens: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct OutputTokensDetails {
    pub reasoning_tokens: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ConversationOf {
    pub id: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct TextEcho {
    pub format: TextFormat,
    pub verbosity: Verbosity,
}

#[derive(Clone, Debug, Serialize)]
pub struct ReasoningEcho {
    pub effort: Option<Effort>,
    pub summary: Option<SummaryKind>,
}

/// The response resource.
#[derive(Clone, Debug, Serialize)]
pub struct Response {
    pub id: String,
    pub object: &'static str,
    /// Unix seconds.
    pub created_at: i64,
    pub completed_at: Option<i64>,
    pub status: ResponseStatus,
    pub incomplete_details: Option<IncompleteDetails>,
    /// The alias that was asked for.
    pub model: String,
    pub previous_response_id: Option<String>,
    pub conversation: Option<ConversationOf>,
    pub instructions: Option<String>,
    pub output: Vec<Arc<Item>>,
    pub error: Option<ResponseError>,
    pub tools: Vec<Tool>,
    pub tool_choice: ToolChoice,
    pub truncation: Truncation,
    pub parallel_tool_calls: bool,
    pub text: TextEcho,
    pub top_p: f64,
    pub presence_penalty: f64,
    pub frequency_penalty: f64,
    pub top_logprobs: u32,
    pub temperature: f64,
    pub reasoning: ReasoningEcho,
    pub usage: Option<Usage>,
    pub max_output_tokens: Option<u32>,
    pub max_tool_calls: Option<u32>,
    pub store: bool,
    pub background: bool,
    pub service_tier: String,
    pub metadata: BTreeMap<String, String>,
    pub safety_identifier: Option<String>,
    pub prompt_cache_key: Option<String>,
}

impl Response {
    /// A response that has just begun: everything the request settles, nothing of the answer.
    pub fn begun(request: &CreateResponse, id: String, model: String, created_at: i64) -> Self {
        let text = request.text.clone().unwrap_or_default();
        let reasoning = request.reasoning.clone().unwrap_or_default();
        Self {
            id,
            object: "response",
            created_at,
            completed_at: None,
            status: ResponseStatus::InProgress,
            incomplete_details: None,
            model,
            previous_response_id: request.previous_response_id.clone(),
            conversation: request
                .conversation
                .as_ref()
                .map(|conversation| ConversationOf { id: conversation.id().to_owned() }),
            instructions: request.instructions.clone(),
            output: Vec::new(),
            error: None,
            tools: request.tools.clone().unwrap_or_default(),
            tool_choice: request.tool_choice.clone().unwrap_or(ToolChoice::Mode(ToolMode::Auto)),
            truncation: request.truncation.unwrap_or_default(),
            parallel_tool_calls: request.parallel_tool_calls.unwrap_or(true),
            text: TextEcho {
                format: text.format.unwrap_or_default(),
                verbosity: text.verbosity.unwrap_or(Verbosity::Medium),
            },
            top_p: request.top_p.unwrap_or(1.0),
            presence_penalty: request.presence_penalty.unwrap_or(0.0),
            frequency_penalty: request.frequency_penalty.unwrap_or(0.0),
            top_logprobs: request.top_logprobs.unwrap_or(0),
            temperature: request.temperature.unwrap_or(1.0),
            reasoning: ReasoningEcho {
                effort: reasoning.effort,
                summary: reasoning.summary.or(reasoning.generate_summary),
            },
            usage: None,
            max_output_tokens: request.max_output_tokens,
            max_tool_calls: request.max_tool_calls,
            store: request.stores(),
            background: request.background.unwrap_or(false),
            service_tier: request.service_tier.clone().unwrap_or_else(|| "default".to_owned()),
            metadata: request.metadata.clone().unwrap_or_default(),
            safety_identifier: request.safety_identifier.clone().or_else(|| request.user.clone()),
            prompt_cache_key: request.prompt_cache_key.clone(),
        }
    }
}
