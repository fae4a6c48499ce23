//! What a caller asks for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::chat::OnlyChat;
use super::error::{ApiError, excerpt};
use super::item::InputItem;
use super::raw::{FormatFields, ToolFields};

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

    /// Checks what needs nothing but the request itself: ranges, lengths, names, and that a turn has something to answer.
    pub fn validate(&self) -> Result<(), ApiError> {
        fn range(name: &str, value: Option<f64>, least: f64, most: f64) -> Result<(), ApiError> {
            match value {
                Some(value) if !(least..=most).contains(&value) => Err(ApiError::invalid(
                    if value < least { "decimal_below_min_value" } else { "decimal_above_max_value" },
                    name,
                    format!("Invalid '{name}': expected a value from {least} to {most}, but got {value}."),
                )),
                _ => Ok(()),
            }
        }
        fn whole(name: &str, value: Option<u32>, least: u32, most: u32) -> Result<(), ApiError> {
            match value {
                Some(value) if !(least..=most).contains(&value) => Err(ApiError::invalid(
                    if value < least { "integer_below_min_value" } else { "integer_above_max_value" },
                    name,
                    if most == u32::MAX {
                        format!("Invalid '{name}': expected a value of at least {least}, but got {value}.")
                    } else {
                        format!("Invalid '{name}': expected a value from {least} to {most}, but got {value}.")
                    },
                )),
                _ => Ok(()),
            }
        }
        fn length(name: &str, value: Option<&String>, most: usize) -> Result<(), ApiError> {
            match value {
                Some(text) if text.chars().count() > most => Err(ApiError::invalid(
                    "string_above_max_length",
                    name,
                    format!("Invalid '{name}': string too long. Expected at most {most} characters."),
                )),
                _ => Ok(()),
            }
        }
        range("temperature", self.temperature, 0.0, 2.0)?;
        range("top_p", self.top_p, 0.0, 1.0)?;
        range("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        whole("top_logprobs", self.top_logprobs, 0, 20)?;
        let shortest = if self.chat.is_some() { 1 } else { 16 };
        whole("max_output_tokens", self.max_output_tokens, shortest, u32::MAX)?;
        whole("max_tool_calls", self.max_tool_calls, 1, u32::MAX)?;
        length("safety_identifier", self.safety_identifier.as_ref(), 64)?;
        length("prompt_cache_key", self.prompt_cache_key.as_ref(), 64)?;
        length("user", self.user.as_ref(), 512)?;
        length("callback", self.callback.as_ref(), 2_048)?;
        if let Some(metadata) = &self.metadata {
            check_metadata(metadata)?;
        }
        for (position, tool) in self.tools.iter().flatten().enumerate() {
            let Tool::Function { name, parameters, .. } = tool;
            let place = format!("tools[{position}].name");
            check_name(&place, name)?;
            if parameters
                .as_ref()
                .is_some_and(|schema| !matches!(schema.get().as_bytes().first(), Some(b'{' | b'n')))
            {
                let place = format!("tools[{position}].parameters");
                return Err(ApiError::invalid(
                    "invalid_type",
                    &place,
                    "Invalid type: expected a JSON schema, an object.",
                ));
            }
        }
        if let Some(TextFormat::JsonSchema(schema)) = self.text.as_ref().and_then(|text| text.format.as_ref())
        {
            check_name("text.format.name", &schema.name)?;
        }
        match &self.tool_choice {
            Some(ToolChoice::Mode(ToolMode::Required)) if self.tools.iter().flatten().next().is_none() => {
                return Err(ApiError::invalid_value(
                    "tool_choice",
                    "'required' needs at least one tool in 'tools'.",
                ));
            }
            Some(ToolChoice::Specific(SpecificTool::Function { name })) => {
                self.offers("tool_choice.name", name)?
            }
            Some(ToolChoice::Specific(SpecificTool::AllowedTools { tools, .. })) => {
                for (position, AllowedTool::Function { name }) in tools.iter().enumerate() {
                    self.offers(&format!("tool_choice.tools[{position}].name"), name)?;
                }
            }
            _ => {}
        }
        if let Some(other) =
            self.on_disconnect.as_deref().filter(|policy| !matches!(*policy, "continue" | "cancel"))
        {
            let message = format!(
                "Invalid value: '{}'. Supported values are: 'continue' and 'cancel'.",
                excerpt(other)
            );
            return Err(ApiError::invalid_value("on_disconnect", message));
        }
        Ok(())
    }

    fn offers(&self, place: &str, name: &str) -> Result<(), ApiError> {
        if self.tools.iter().flatten().any(|tool| tool.name() == name) {
            return Ok(());
        }
        let message = format!("Tool choice '{}' not found in 'tools' parameter.", excerpt(name));
        Err(ApiError::invalid_value(place, message))
    }
}

/// At most 16 pairs, keys of 64 and values of 512 characters.
pub fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), ApiError> {
    if metadata.len() > 16 {
        let message = format!(
            "Invalid 'metadata': too many properties. Expected at most 16, but got {}.",
            metadata.len()
        );
        return Err(ApiError::invalid("object_above_max_properties", "metadata", message));
    }
    for (key, value) in metadata {
        if key.chars().count() > 64 {
            let message = "Invalid 'metadata': a key is too long. Expected at most 64 characters.";
            return Err(ApiError::invalid("property_name_above_max_length", "metadata", message));
        }
        if value.chars().count() > 512 {
            let place = format!("metadata.{key}");
            let message = format!("Invalid '{place}': string too long. Expected at most 512 characters.");
            return Err(ApiError::invalid("string_above_max_length", &place, message));
        }
    }
    Ok(())
}

fn check_name(place: &str, name: &str) -> Result<(), ApiError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        let message = format!("Invalid '{place}': expected 1 to 64 letters, digits, underscores and dashes.");
        return Err(ApiError::invalid_value(place, message));
    }
    Ok(())
}
