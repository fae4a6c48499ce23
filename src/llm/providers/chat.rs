//! Chat completions: Azure OpenAI, OpenAI, and everything compatible.

mod annotations;
mod stream;

pub(super) use stream::Stream;

use std::sync::Arc;

use super::super::error::LlmError;
use super::super::json::Json;
use super::order::calls_before_outputs;
use super::{Call, Choice, offered, unopened};
use crate::config::app::{MaxTokensField, ProviderKind};
use crate::openresponses::{ContentPart, Item, Message, Output, Role, TextFormat, Tool, ToolMode};

pub(super) fn body(call: &Call<'_>) -> Result<Vec<u8>, LlmError> {
    let params = &call.request.params;
    let mut json = Json::with_capacity(4 * 1024);
    json.open(b'{').pair("model", call.model()).pair("stream", &true);
    json.key("stream_options").open(b'{').pair("include_usage", &true).close(b'}');
    json.key("messages").open(b'[');
    if let Some(instructions) = &params.instructions {
        json.open(b'{').pair("role", "system").pair("content", instructions).close(b'}');
    }
    Messages { call, json: &mut json, turn: Turn::None }.all(&call.request.items)?;
    json.close(b']');
    json.optional("temperature", params.temperature)
        .optional("top_p", params.top_p)
        .optional("presence_penalty", params.presence_penalty)
        .optional("frequency_penalty", params.frequency_penalty);
    if params.wants_logprobs() {
        json.pair("logprobs", &true).optional("top_logprobs", params.top_logprobs);
    }
    let limit = match call.config.max_tokens_field {
        MaxTokensField::MaxCompletionTokens => "max_completion_tokens",
        MaxTokensField::MaxTokens => "max_tokens",
    };
    json.optional(limit, params.max_output_tokens.map(|most| most.min(call.config.max_output_tokens)));
    if let Some(chat) = &params.chat {
        json.optional("stop", Some(&chat.stop).filter(|stop| !stop.is_empty())).optional("seed", chat.seed);
    }
    tools(call, &mut json);
    if let Some(text) = &params.text {
        format(text.format.as_ref(), &mut json);
        json.optional("verbosity", text.verbosity);
    }
    json.optional("reasoning_effort", params.reasoning.as_ref().and_then(|reasoning| reasoning.effort))
        .optional("service_tier", params.service_tier.as_deref())
        .optional("prompt_cache_key", params.prompt_cache_key.as_deref())
        .optional("prompt_cache_retention", params.prompt_cache_retention.as_deref())
        .optional("prompt_cache_options", params.prompt_cache_options.as_ref());
    match (call.config.provider, &params.safety_identifier) {
        // Azure's abuse monitoring reads `user`.
        (ProviderKind::Azure, Some(id)) => json.pair("user", id),
        (_, Some(id)) => json.pair("safety_identifier", id),
        (_, None) => json.optional("user", params.user.as_deref()),
    };
    json.close(b'}');
    Ok(json.finish())
}

fn tools(call: &Call<'_>, json: &mut Json) {
    let (tools, choice) = offered(&call.request.params);
    if tools.is_empty() {
        return;
    }
    json.key("tools").open(b'[');
    for Tool::Function { name, description, parameters, strict } in tools {
        json.open(b'{').pair("type", "function").key("function").open(b'{').pair("name", name);
        json.optional("description", description.as_deref())
            .optional("parameters", parameters.as_deref())
            .optional("strict", *strict);
        json.close(b'}').close(b'}');
    }
    json.close(b']');
    match choice {
        None => {}
        Some(Choice::Mode(mode)) => {
            json.pair("tool_choice", &mode);
        }
        Some(Choice::Function(name)) => {
            json.key("tool_choice").open(b'{').pair("type", "function").key("function");
            json.open(b'{').pair("name", name).close(b'}').close(b'}');
        }
    }
    if choice != Some(Choice::Mode(ToolMode::None)) {
        json.optional("parallel_tool_calls", call.request.params.parallel_tool_calls);
    }
}

fn format(format: Option<&TextFormat>, json: &mut Json) {
    match format {
        None | Some(TextFormat::Text) => {}
        Some(TextFormat::JsonObject) => {
            json.key("response_format").open(b'{').pair("type", "json_object").close(b'}');
        }
        Some(TextFormat::JsonSchema(schema)) => {
            json.key("response_format").open(b'{').pair("type", "json_schema").pair("json_schema", schema);
            json.close(b'}');
        }
    }
}

/// What of an assistant's message has been written: its text, then its calls, in one message as the format wants.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    None,
    /// The text stands, its object is open.
    Said,
    /// In the list of calls.
    Calling,
}

struct Messages<'c, 'j> {
    call: &'c Call<'c>,
    json: &'j mut Json,
    turn: Turn,
}

impl Messages<'_, '_> {
    fn all(mut self, items: &[Arc<Item>]) -> Result<(), LlmError> {
        for item in calls_before_outputs(items) {
            match item {
                // Nothing was said.
                Item::Message(message) if message.content.is_empty() => {}
                Item::Message(message) => {
                    self.end_turn();
                    self.message(message)?;
                }
                Item::FunctionCall(call) => {
                    self.begin_calls();
                    self.json.open(b'{').pair("id", &call.call_id).pair("type", "function").key("function");
                    self.json.open(b'{').pair("name", &call.name).pair("arguments", &call.arguments);
                    self.json.close(b'}').close(b'}');
                }
                Item::FunctionCallOutput(output) => {
                    self.end_turn();
                    self.json.open(b'{').pair("role", "tool").pair("tool_call_id", &output.call_id);
                    self.json.key("content");
                    match &output.output {
                        Output::Text(text) => self.json.value(text),
                        Output::Parts(parts) if parts.iter().all(|part| part.text().is_some()) => {
                            self.json.joined(parts.iter().filter_map(ContentPart::text), "\n")
                        }
                        Output::Parts(_) => {
                            return Err(LlmError::refused(
                                "input",
                                "This model takes only text in the output of a tool.",
                            ));
                        }
                    };
                    self.json.close(b'}');
                }
                // The format has no place for it.
                Item::Reasoning(_) => {}
                Item::Compaction(_) => return Err(unopened()),
            }
        }
        self.end_turn();
        Ok(())
    }

    fn begin_calls(&mut self) {
        match self.turn {
            Turn::Calling => return,
            Turn::Said => {}
            Turn::None => {
                self.json.open(b'{').pair("role", "assistant").pair("content", &None::<&str>);
            }
        }
        self.json.key("tool_calls").open(b'[');
        self.turn = Turn::Calling;
    }

    fn end_turn(&mut self) {
        match std::mem::replace(&mut self.turn, Turn::None) {
            Turn::None => {}
            Turn::Said => {
                self.json.close(b'}');
            }
            Turn::Calling => {
                self.json.close(b']').close(b'}');
            }
        }
    }

    fn message(&mut self, message: &Message) -> Result<(), LlmError> {
        let role = match message.role {
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Developer if self.knows_developers() => "developer",
            Role::System | Role::Developer => "system",
        };
        self.json.open(b'{').pair("role", role).key("content");
        let plain = message.content.iter().all(|part| part.text().is_some());
        match message.content.as_slice() {
            [part] if plain => {
                self.json.value(part.text().unwrap_or_default());
            }
            // A refusal is what the model said; what it was called does not matter to the next answer.
            parts if message.role == Role::Assistant => {
                self.json.joined(parts.iter().filter_map(ContentPart::text), "\n");
            }
            parts => {
                self.json.open(b'[');
                for part in parts {
                    self.part(part)?;
                }
                self.json.close(b']');
            }
        }
        if message.role == Role::Assistant {
            // Its calls may follow.
            self.turn = Turn::Said;
        } else {
            self.json.close(b'}');
        }
        Ok(())
    }

    /// Compatible servers often render roles through a template that does not know this one.
    fn knows_developers(&self) -> bool {
        self.call.config.provider == ProviderKind::Azure
            || self.call.config.url.as_deref().is_some_and(|url| url.starts_with("https://api.openai.com/"))
    }

    fn part(&mut self, part: &ContentPart) -> Result<(), LlmError> {
        let json = &mut *self.json;
        match part {
            ContentPart::InputImage { image_url: Some(url), detail, .. } => {
                json.open(b'{').pair("type", "image_url").key("image_url").open(b'{').pair("url", url);
                json.pair("detail", detail).close(b'}').close(b'}');
            }
            ContentPart::InputFile { filename, file_data, file_id, file_url: None }
                if file_data.is_some() || file_id.is_some() =>
            {
                json.open(b'{').pair("type", "file").key("file").open(b'{');
                json.optional("filename", filename.as_deref())
                    .optional("file_data", file_data.as_deref())
                    .optional("file_id", file_id.as_deref());
                json.close(b'}').close(b'}');
            }
            ContentPart::InputVideo { video_url } if self.call.config.provider == ProviderKind::Openai => {
                json.open(b'{').pair("type", "video_url").key("video_url").open(b'{').pair("url", video_url);
                json.close(b'}').close(b'}');
            }
            ContentPart::InputImage { .. } => {
                return Err(LlmError::refused(
                    "input",
                    "This model takes images by URL or as data, not by file_id.",
                ));
            }
            ContentPart::InputFile { .. } => {
                return Err(LlmError::refused("input", "This model takes files as file_data or by file_id."));
            }
            ContentPart::InputVideo { .. } => {
                return Err(LlmError::refused("input", "This model takes no video."));
            }
            ContentPart::InputText { .. }
            | ContentPart::OutputText { .. }
            | ContentPart::Refusal { .. }
            | ContentPart::ReasoningText { .. } => {
                json.open(b'{')
                    .pair("type", "text")
                    .pair("text", part.text().unwrap_or_default())
                    .close(b'}');
            }
        }
        Ok(())
    }
}
