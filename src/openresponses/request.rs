//! What a caller asks for.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::chat::OnlyChat;
use super::error::ApiError;
use super::item::InputItem;
use super::raw::{FormatFields, ToolFields};

mod validate;

pub use validate::check_metadata;

/// The body of `POST /v1/responses`, and of a WebSocket's `response.create` without its `type`.
///
/// Only what has a default in the protocol is optional in meaning; everything is `Option` here, so that what was
/// left out can be told from what was said.
///
/// Written, it is what is kept with a stored turn, to be shown and to be run again: everything but what is stored
/// elsewhere (the input, what goes before) or matters only while the caller waits.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CreateResponse {
    /// Only over a WebSocket: `response.create`.
    #[serde(rename = "type", skip_serializing)]
    pub kind: Option<String>,
    #[serde(skip_serializing)]
    pub model: Option<String>,
    #[serde(skip_serializing)]
    pub input: Option<Input>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    #[serde(skip_serializing)]
    pub previous_response_id: Option<String>,
    #[serde(skip_serializing)]
    pub conversation: Option<ConversationRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include: Option<Vec<Include>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<Tool>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tool_calls: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<TextParams>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<ReasoningParams>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u32>,
    #[serde(skip_serializing)]
    pub stream: Option<bool>,
    #[serde(skip_serializing)]
    pub stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub background: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncation: Option<Truncation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_management: Option<Vec<ContextManagement>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safety_identifier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_cache_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_cache_retention: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_cache_options: Option<PromptCacheOptions>,
    /// OpenAI's, of no meaning here: a prompt that it keeps.
    #[serde(skip_serializing)]
    pub prompt: Option<IgnoredAny>,
    /// OpenAI's.
    #[serde(skip_serializing)]
    pub moderation: Option<IgnoredAny>,
    /// OpenAI's.
    #[serde(skip_serializing)]
    pub access_programs: Option<IgnoredAny>,
    /// OpenAI's: how images are compressed in the context.
    #[serde(skip_serializing)]
    pub image: Option<IgnoredAny>,
    /// Deprecated at OpenAI in favour of `safety_identifier` and `prompt_cache_key`; taken as the former.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Ours: what happens to the turn when the last viewer leaves, `continue` or `cancel`.
    #[serde(skip_serializing)]
    pub on_disconnect: Option<String>,
    /// Ours: who is told of a background response's end, a target of `colloquy.toml` or a URL that one covers.
    #[serde(skip_serializing)]
    pub callback: Option<String>,
    /// Set if the request came as a chat completion.
    #[serde(skip)]
    pub chat: Option<OnlyChat>,
}

/// `input`: one text, or items.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Input {
    Text(String),
    Items(Vec<InputItem>),
}

/// A conversation by its id, bare or in an object.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum ConversationRef {
    Id(String),
    Object { id: String },
}

impl ConversationRef {
    pub fn id(&self) -> &str {
        match self {
            Self::Id(id) | Self::Object { id } => id,
        }
    }
}

/// What is shown only on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Include {
    #[serde(rename = "reasoning.encrypted_content")]
    ReasoningEncryptedContent,
    #[serde(rename = "message.output_text.logprobs")]
    OutputTextLogprobs,
    #[serde(rename = "message.input_image.image_url")]
    InputImageUrl,
}

/// A function the model may call. The caller runs it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case", from = "ToolFields")]
pub enum Tool {
    Function {
        name: String,
        description: Option<String>,
        /// A JSON schema, kept byte for byte.
        parameters: Option<Box<RawValue>>,
        strict: Option<bool>,
    },
}

impl Tool {
    pub fn name(&self) -> &str {
        match self {
            Self::Function { name, .. } => name,
        }
    }
}

/// Which tool the model uses.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum ToolChoice {
    Mode(ToolMode),
    Specific(SpecificTool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ToolMode {
    None,
    Auto,
    Required,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SpecificTool {
    Function { name: String },
    AllowedTools { mode: ToolMode, tools: Vec<AllowedTool> },
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AllowedTool {
    Function { name: String },
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TextParams {
    pub format: Option<TextFormat>,
    pub verbosity: Option<Verbosity>,
}

/// The form the answer must have.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case", try_from = "FormatFields")]
pub enum TextFormat {
    #[default]
    Text,
    JsonObject,
    JsonSchema(JsonSchema),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct JsonSchema {
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    pub schema: Box<RawValue>,
    #[serde(default)]
    pub strict: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verbosity {
    Low,
    Medium,
    High,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ReasoningParams {
    pub effort: Option<Effort>,
    pub summary: Option<SummaryKind>,
    /// Deprecated at OpenAI in favour of `summary`.
    pub generate_summary: Option<SummaryKind>,
    /// Which reasoning of earlier turns the model is shown: `auto`, `current_turn`, `all_turns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// How the model is run: `standard`, `pro`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// How the provider's prompt cache is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PromptCacheOptions {
    /// `implicit` or `explicit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// `30m` or `12h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Asks for no answer, only for a cache that is warm. Refused: a turn has an answer.
    #[serde(skip_serializing)]
    pub prewarm: Option<bool>,
    /// Another response of the provider's own. Refused: it knows none of ours.
    #[serde(skip_serializing)]
    pub comparison_response_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SummaryKind {
    Auto,
    Concise,
    Detailed,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// Taken and ignored: our frames are not padded.
    pub include_obfuscation: Option<bool>,
}

/// What happens when the input is longer than the model's window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Truncation {
    Auto,
    #[default]
    Disabled,
}

/// Compaction by itself, once the context is longer than the threshold.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContextManagement {
    Compaction { compact_threshold: Option<u32> },
}

/// The body of `POST /v1/responses/compact`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompactRequest {
    pub model: Option<String>,
    pub input: Option<Input>,
    pub previous_response_id: Option<String>,
    pub instructions: Option<String>,
    pub prompt_cache_key: Option<String>,
}

impl CreateResponse {
    /// Reads a body. The error names the field.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        super::parse(body)
    }

    /// Whether the turn is kept; the protocol's default is yes.
    pub fn stores(&self) -> bool {
        self.store.unwrap_or(true)
    }

    pub fn includes(&self, what: Include) -> bool {
        self.include.as_ref().is_some_and(|list| list.contains(&what))
    }

    /// Whether log probabilities of the answer's tokens are wanted: by name, or by how many of the likeliest.
    pub fn wants_logprobs(&self) -> bool {
        self.includes(Include::OutputTextLogprobs) || self.top_logprobs.is_some_and(|number| number > 0)
    }
}
