//! What a caller asks for.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::messages::{ChatMessage, items};
use crate::openresponses::{
    AllowedTool, ApiError, CreateResponse, Effort, Include, Input, JsonSchema, OnlyChat, PromptCacheOptions,
    ReasoningParams, SpecificTool, TextFormat, TextParams, Tool, ToolChoice, ToolMode, Verbosity, excerpt,
    parse,
};

/// The body of `POST /v1/chat/completions`. `fields.rs` says what becomes of each field.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatRequest {
    model: Option<String>,
    messages: Option<Vec<ChatMessage>>,
    stream: Option<bool>,
    stream_options: Option<ChatStreamOptions>,
    tools: Option<Vec<ChatTool>>,
    tool_choice: Option<ChatToolChoice>,
    parallel_tool_calls: Option<bool>,
    response_format: Option<ResponseFormat>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    stop: Option<Stop>,
    seed: Option<i64>,
    n: Option<u32>,
    logprobs: Option<bool>,
    top_logprobs: Option<u32>,
    logit_bias: Option<BTreeMap<String, IgnoredAny>>,
    reasoning_effort: Option<Effort>,
    verbosity: Option<Verbosity>,
    service_tier: Option<String>,
    safety_identifier: Option<String>,
    prompt_cache_key: Option<String>,
    prompt_cache_retention: Option<String>,
    prompt_cache_options: Option<PromptCacheOptions>,
    user: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
    store: Option<bool>,
    modalities: Option<Vec<String>>,
    // Taken, and without effect on the answer.
    #[serde(rename = "prediction")]
    _prediction: Option<IgnoredAny>,
    audio: Option<IgnoredAny>,
    functions: Option<IgnoredAny>,
    function_call: Option<IgnoredAny>,
    moderation: Option<IgnoredAny>,
    web_search_options: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChatStreamOptions {
    include_usage: Option<bool>,
    #[serde(rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct ChatTool {
    #[serde(rename = "type")]
    kind: String,
    function: Option<Function>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Function {
    name: String,
    description: Option<String>,
    parameters: Option<Box<RawValue>>,
    strict: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ChatToolChoice {
    Mode(ToolMode),
    Named { function: Name },
    Allowed { allowed_tools: Allowed },
}

#[derive(Debug, Deserialize)]
struct Allowed {
    mode: ToolMode,
    tools: Vec<AllowedFunction>,
}

#[derive(Debug, Deserialize)]
struct AllowedFunction {
    function: Name,
}

#[derive(Debug, Deserialize)]
struct Name {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FormatKind {
    Text,
    JsonObject,
    JsonSchema,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: FormatKind,
    json_schema: Option<JsonSchema>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

/// A request in the terms of Open Responses, and how it wants to be answered.
#[derive(Debug)]
pub struct Asked {
    pub request: CreateResponse,
    pub stream: bool,
    pub include_usage: bool,
    pub terms: Terms,
}

/// What fields are called here that have other names in Open Responses.
#[derive(Clone, Debug)]
pub struct Terms {
    /// `max_tokens` or `max_completion_tokens`, as the caller wrote it.
    limit: &'static str,
    /// Of which message each item of the input is one. Empty: each is the one of its own place.
    sources: Vec<usize>,
}

impl ChatRequest {
    /// Reads a body. The error names the field.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        parse(body)
    }

    /// Checks what is a matter of this endpoint alone, and says the rest in the terms of Open Responses.
    pub fn translate(self) -> Result<Asked, ApiError> {
        self.refuse()?;
        let limit = if self.max_tokens.is_some() { "max_tokens" } else { "max_completion_tokens" };
        let messages = self.messages.ok_or_else(|| ApiError::missing("messages"))?;
        let include_usage = self.stream_options.and_then(|options| options.include_usage).unwrap_or(false);
        let stream = self.stream.unwrap_or(false);
        let format = self.response_format.map(ResponseFormat::translate).transpose()?;
        let text = (format.is_some() || self.verbosity.is_some())
            .then_some(TextParams { format, verbosity: self.verbosity });
        let reasoning = self
            .reasoning_effort
            .map(|effort| ReasoningParams { effort: Some(effort), ..ReasoningParams::default() });
        let tools = self.tools.map(tools).transpose()?;
        let (items, sources) = items(messages)?;
        let request = CreateResponse {
            model: self.model,
            input: Some(Input::Items(items)),
            tools: tools.filter(|tools| !tools.is_empty()),
            tool_choice: self.tool_choice.map(ToolChoice::from),
            parallel_tool_calls: self.parallel_tool_calls,
            metadata: self.metadata,
            text,
            reasoning,
            temperature: self.temperature,
            top_p: self.top_p,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            include: self.logprobs.filter(|wanted| *wanted).map(|_| vec![Include::OutputTextLogprobs]),
            top_logprobs: self.top_logprobs,
            max_output_tokens: self.max_completion_tokens.or(self.max_tokens),
            stream: Some(stream),
            store: Some(false),
            service_tier: self.service_tier,
            safety_identifier: self.safety_identifier,
            prompt_cache_key: self.prompt_cache_key,
            prompt_cache_retention: self.prompt_cache_retention,
            prompt_cache_options: self.prompt_cache_options,
            user: self.user,
            chat: Some(OnlyChat {
                stop: self.stop.map(Stop::all).transpose()?.unwrap_or_default(),
                seed: self.seed,
            }),
            ..CreateResponse::default()
        };
        Ok(Asked { request, stream, include_usage, terms: Terms { limit, sources } })
    }

    /// Fields of OpenAI's that nothing here can honour.
    fn refuse(&self) -> Result<(), ApiError> {
        let refused = [
            ("functions", self.functions.is_some(), "Use 'tools'."),
            ("function_call", self.function_call.is_some(), "Use 'tool_choice'."),
            ("n", self.n.is_some_and(|n| n != 1), "One answer is given for each request."),
            ("logit_bias", self.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty()), ""),
            (
                "modalities",
                self.modalities.as_ref().is_some_and(|all| all.iter().any(|modality| modality != "text")),
                "Answers are text.",
            ),
            ("audio", self.audio.is_some(), "Answers are text."),
            ("moderation", self.moderation.is_some(), ""),
            ("web_search_options", self.web_search_options.is_some(), ""),
            (
                "store",
                self.store == Some(true),
                "Chat completions are not stored; POST /v1/responses stores.",
            ),
        ];
        if let Some((field, _, why)) = refused.into_iter().find(|(_, used, _)| *used) {
            let message = format!("'{field}' is not supported here. {why}");
            return Err(ApiError::unsupported(field, message.trim_end()));
        }
        if self.stream_options.is_some() && self.stream != Some(true) {
            let message = "'stream_options' needs 'stream' to be true.";
            return Err(ApiError::invalid_value("stream_options", message));
        }
        if self.top_logprobs.is_some_and(|number| number > 0) && self.logprobs != Some(true) {
            let message = "'top_logprobs' needs 'logprobs' to be true.";
            return Err(ApiError::invalid_value("top_logprobs", message));
        }
        if self.max_tokens.is_some() && self.max_completion_tokens.is_some() {
            let message = "'max_tokens' and 'max_completion_tokens' are one and the same; give one of them.";
            return Err(ApiError::invalid("mutually_exclusive_parameters", "max_tokens", message));
        }
        Ok(())
    }
}

fn tools(tools: Vec<ChatTool>) -> Result<Vec<Tool>, ApiError> {
    let each = tools.into_iter().enumerate().map(|(position, tool)| {
        if tool.kind != "function" {
            let message =
                format!("Invalid value: '{}'. Supported values are: 'function'.", excerpt(&tool.kind));
            return Err(ApiError::invalid_value(&format!("tools[{position}].type"), message));
        }
        let Function { name, description, parameters, strict } =
            tool.function.ok_or_else(|| ApiError::missing(&format!("tools[{position}].function")))?;
        Ok(Tool::Function { name, description, parameters, strict })
    });
    each.collect()
}

impl From<ChatToolChoice> for ToolChoice {
    fn from(choice: ChatToolChoice) -> Self {
        match choice {
            ChatToolChoice::Mode(mode) => Self::Mode(mode),
            ChatToolChoice::Named { function: Name { name } } => {
                Self::Specific(SpecificTool::Function { name })
            }
            ChatToolChoice::Allowed { allowed_tools: Allowed { mode, tools } } => {
                let tools = tools.into_iter().map(|tool| AllowedTool::Function { name: tool.function.name });
                Self::Specific(SpecificTool::AllowedTools { mode, tools: tools.collect() })
            }
        }
    }
}

impl ResponseFormat {
    fn translate(self) -> Result<TextFormat, ApiError> {
        Ok(match self.kind {
            FormatKind::Text => TextFormat::Text,
            FormatKind::JsonObject => TextFormat::JsonObject,
            FormatKind::JsonSchema => TextFormat::JsonSchema(
                self.json_schema.ok_or_else(|| ApiError::missing("response_format.json_schema"))?,
            ),
        })
    }
}

impl Stop {
    fn all(self) -> Result<Vec<String>, ApiError> {
        const MOST: usize = 4;
        let all = match self {
            Self::One(one) => vec![one],
            Self::Several(several) => several,
        };
        if all.len() > MOST || all.iter().any(String::is_empty) {
            let message = format!("Invalid 'stop': expected at most {MOST} texts, none of them empty.");
            return Err(ApiError::invalid_value("stop", message));
        }
        Ok(all)
    }
}

impl Terms {
    /// An error in the names of this endpoint's fields.
    pub fn apply(&self, mut error: ApiError) -> ApiError {
        let Some(param) = error.param.take() else { return error };
        let here = self.name(&param);
        error.message = error.message.replace(&format!("'{param}'"), &format!("'{here}'"));
        error.param = Some(here);
        error
    }

    fn name(&self, param: &str) -> String {
        let function = |rest: &str, list: &str| {
            let (place, field) = rest.split_once("].")?;
            Some(format!("{list}[{place}].function.{field}"))
        };
        let renamed = if let Some(rest) = param.strip_prefix("tool_choice.tools[") {
            function(rest, "tool_choice.allowed_tools.tools")
        } else if let Some(rest) = param.strip_prefix("tools[") {
            // A provider of chat completions speaks in these terms already.
            function(rest, "tools").filter(|_| !rest.contains("].function") && !rest.contains("].type"))
        } else if let Some(rest) = param.strip_prefix("input[") {
            let item = rest.split_once(']').and_then(|(item, _)| item.parse::<usize>().ok());
            let message = item.map(|item| self.sources.get(item).copied().unwrap_or(item));
            Some(message.map_or_else(|| "messages".to_owned(), |message| format!("messages[{message}]")))
        } else if param == "input" {
            Some("messages".to_owned())
        } else {
            let name = match param {
                "max_output_tokens" => self.limit,
                "text.format.name" => "response_format.json_schema.name",
                "text.format" => "response_format",
                "text.verbosity" => "verbosity",
                "reasoning.effort" => "reasoning_effort",
                "include" => "logprobs",
                "tool_choice.name" => "tool_choice.function.name",
                _ => param,
            };
            Some(name.to_owned())
        };
        renamed.unwrap_or_else(|| param.to_owned())
    }
}
