//! Anthropic Messages.
//!
//! Structured output is `output_config.format` and effort `output_config.effort` (platform.claude.com, "Structured
//! outputs" and "Effort"; generally available since Claude 4.5 and 4.6). There is no counterpart of `json_object`.

mod stream;

pub(super) use stream::Stream;

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::super::error::LlmError;
use super::super::json::Json;
use super::order::calls_before_outputs;
use super::{Call, Choice, data_url, offered, opened_for, unopened};
use crate::config::app::ThinkingStyle;
use crate::openresponses::{
    ContentPart, Effort, Item, Message, Output, Reasoning, Role, TextFormat, Tool, ToolMode,
};

pub(super) fn body(call: &Call<'_>) -> Result<Vec<u8>, LlmError> {
    let params = &call.request.params;
    let most = params
        .max_output_tokens
        .map_or(call.config.max_output_tokens, |most| most.min(call.config.max_output_tokens));
    let mut json = Json::with_capacity(4 * 1024);
    json.open(b'{').pair("model", call.model()).pair("max_tokens", &most).pair("stream", &true);
    system(call, &mut json);
    json.key("messages").open(b'[');
    let mut messages = Messages { call, json: &mut json, speaker: None, turn: Turn::default() };
    messages.all()?;
    let turn = messages.turn;
    json.close(b']');
    let forced = tools(call, &mut json);
    thinking(call, most, forced, turn, &mut json);
    let stop = params.chat.as_ref().map(|chat| &chat.stop).filter(|stop| !stop.is_empty());
    json.optional("stop_sequences", stop);
    json.optional("temperature", params.temperature).optional("top_p", params.top_p);
    if let Some(user) = params.safety_identifier.as_deref().or(params.user.as_deref()) {
        json.key("metadata").open(b'{').pair("user_id", user).close(b'}');
    }
    json.close(b'}');
    Ok(json.finish())
}

/// Instructions, and the messages of the system and the developer wherever they stood: there is one place for them.
/// The mark at their end lets the provider cache them.
fn system(call: &Call<'_>, json: &mut Json) {
    let said = call.request.items.iter().filter_map(|item| match &**item {
        Item::Message(message) if matches!(message.role, Role::System | Role::Developer) => Some(message),
        _ => None,
    });
    let texts = said.flat_map(|message| message.content.iter().filter_map(ContentPart::text));
    let all: Vec<&str> = call
        .request
        .params
        .instructions
        .as_deref()
        .into_iter()
        .chain(texts)
        .filter(|text| !text.trim().is_empty())
        .collect();
    if all.is_empty() {
        return;
    }
    json.key("system").open(b'[').open(b'{').pair("type", "text").key("text").joined(all.into_iter(), "\n\n");
    cache_mark(json);
    json.close(b'}').close(b']');
}

fn cache_mark(json: &mut Json) {
    json.key("cache_control").open(b'{').pair("type", "ephemeral").close(b'}');
}

/// Writes the tools; whether the model must call one.
fn tools(call: &Call<'_>, json: &mut Json) -> bool {
    let params = &call.request.params;
    let (tools, choice) = offered(params);
    if tools.is_empty() {
        return false;
    }
    json.key("tools").open(b'[');
    for Tool::Function { name, description, parameters, strict } in tools {
        json.open(b'{').pair("name", name).optional("description", description.as_deref());
        let schema = parameters.as_ref().map(|schema| schema.get()).filter(|schema| *schema != "null");
        json.key("input_schema").raw(schema.unwrap_or(r#"{"type":"object"}"#));
        json.optional("strict", strict.filter(|strict| *strict)).close(b'}');
    }
    json.close(b']');
    let single = params.parallel_tool_calls == Some(false);
    let (kind, name) = match choice {
        None if single => ("auto", None),
        None => return false,
        Some(Choice::Mode(ToolMode::None)) => ("none", None),
        Some(Choice::Mode(ToolMode::Auto)) => ("auto", None),
        Some(Choice::Mode(ToolMode::Required)) => ("any", None),
        Some(Choice::Function(name)) => ("tool", Some(name)),
    };
    json.key("tool_choice").open(b'{').pair("type", kind).optional("name", name);
    if single && kind != "none" {
        json.pair("disable_parallel_tool_use", &true);
    }
    json.close(b'}');
    matches!(kind, "any" | "tool")
}

/// Thinking, effort and the form of the answer. A model that must call a tool may not think first, nor may one think by
/// a budget that has made its calls without thinking.
fn thinking(call: &Call<'_>, most: u32, forced: bool, turn: Turn, json: &mut Json) {
    let params = &call.request.params;
    let effort = params.reasoning.as_ref().and_then(|reasoning| reasoning.effort);
    let level = match effort {
        None | Some(Effort::None) => None,
        Some(Effort::Minimal | Effort::Low) => Some(("low", 2_048)),
        Some(Effort::Medium) => Some(("medium", 8_192)),
        Some(Effort::High) => Some(("high", 16_384)),
        Some(Effort::Xhigh) => Some(("xhigh", 32_768)),
        Some(Effort::Max) => Some(("max", 65_536)),
    };
    let schema = match params.text.as_ref().and_then(|text| text.format.as_ref()) {
        Some(TextFormat::JsonSchema(schema)) => Some(&schema.schema),
        _ => None,
    };
    let adaptive = call.config.thinking == ThinkingStyle::Adaptive;
    match level {
        Some(_) if forced => {}
        Some(_) if adaptive => {
            json.key("thinking").open(b'{').pair("type", "adaptive").close(b'}');
        }
        // The budget is part of max_tokens, and no less than 1,024.
        Some((_, budget)) if most > 1_024 && !turn.answers_thoughtless() => {
            let budget = budget.min(most - 1).max(1_024);
            json.key("thinking")
                .open(b'{')
                .pair("type", "enabled")
                .pair("budget_tokens", &budget)
                .close(b'}');
        }
        _ => {}
    }
    let word = level.map(|(word, _)| word).filter(|_| adaptive);
    if word.is_none() && schema.is_none() {
        return;
    }
    json.key("output_config").open(b'{').optional("effort", word);
    if let Some(schema) = schema {
        json.key("format").open(b'{').pair("type", "json_schema").key("schema").raw(schema.get()).close(b'}');
    }
    json.close(b'}');
}

struct Messages<'c, 'j> {
    call: &'c Call<'c>,
    json: &'j mut Json,
    /// Whose message is open. What one speaker says in a row is one message, as the format wants.
    speaker: Option<&'static str>,
    turn: Turn,
}

/// The assistant's last turn: its messages in a row, with nothing but results of tools between them.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    /// Whether it began with a thought. `None`: it has not begun.
    thoughtful: Option<bool>,
    /// The open message, or the one before it, has results.
    answered: bool,
}

impl Turn {
    /// Whether the model is to go on with a turn that began without a thought.
    fn answers_thoughtless(self) -> bool {
        self.answered && self.thoughtful == Some(false)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Thought,
    Result,
    Other,
}

impl Messages<'_, '_> {
    fn all(&mut self) -> Result<(), LlmError> {
        let items = calls_before_outputs(&self.call.request.items);
        // The mark goes to the last block of all, so that the next turn finds the whole conversation cached.
        let last = items.iter().rposition(|item| match item {
            Item::Message(message) => message.role == Role::User && message.content.iter().any(is_block),
            Item::FunctionCallOutput(_) => true,
            _ => false,
        });
        for (at, item) in items.into_iter().enumerate() {
            let mark = Some(at) == last;
            match item {
                Item::Message(message) => self.message(message, mark)?,
                Item::FunctionCall(call) => {
                    self.speak("assistant", Block::Other);
                    // Not every model that wrote them writes JSON.
                    let sound = serde_json::from_str::<&RawValue>(&call.arguments)
                        .is_ok_and(|value| value.get().starts_with('{'));
                    self.json.open(b'{').pair("type", "tool_use").pair("id", &*call_id(&call.call_id));
                    self.json.pair("name", &call.name).key("input");
                    self.json.raw(if sound { call.arguments.as_str() } else { "{}" }).close(b'}');
                }
                Item::FunctionCallOutput(output) => {
                    self.speak("user", Block::Result);
                    self.json.open(b'{').pair("type", "tool_result");
                    self.json.pair("tool_use_id", &*call_id(&output.call_id));
                    self.json.key("content");
                    match &output.output {
                        Output::Text(text) => {
                            self.json.value(text);
                        }
                        Output::Parts(parts) => {
                            self.json.open(b'[');
                            for part in parts.iter().filter(|part| is_block(part)) {
                                block(part, false, self.json)?;
                            }
                            self.json.close(b']');
                        }
                    }
                    if mark {
                        cache_mark(self.json);
                    }
                    self.json.close(b'}');
                }
                Item::Reasoning(reasoning) => self.thinking(reasoning),
                Item::Compaction(_) => return Err(unopened()),
            }
        }
        if self.speaker.is_some() {
            self.json.close(b']').close(b'}');
        }
        Ok(())
    }

    fn speak(&mut self, speaker: &'static str, block: Block) {
        let another = self.speaker != Some(speaker);
        if another && speaker == "assistant" && !self.turn.answered {
            self.turn.thoughtful = None;
        }
        if another && speaker == "user" {
            self.turn.answered = false;
        }
        if speaker == "assistant" {
            self.turn.thoughtful.get_or_insert(block == Block::Thought);
        }
        self.turn.answered |= block == Block::Result;
        if !another {
            return;
        }
        match self.speaker.replace(speaker) {
            Some(_) => {
                self.json.close(b']').close(b'}');
            }
            // The first message is the user's by the protocol; a window that was cut may begin elsewhere.
            None if speaker == "assistant" => {
                self.json
                    .open(b'{')
                    .pair("role", "user")
                    .pair("content", "(earlier turns left out)")
                    .close(b'}');
            }
            None => {}
        }
        self.json.open(b'{').pair("role", speaker).key("content").open(b'[');
    }

    fn message(&mut self, message: &Message, mark: bool) -> Result<(), LlmError> {
        let speaker = match message.role {
            Role::User => "user",
            Role::Assistant => "assistant",
            // These stand under `system`.
            Role::System | Role::Developer => return Ok(()),
        };
        let count = message.content.iter().filter(|part| is_block(part)).count();
        for (at, part) in message.content.iter().filter(|part| is_block(part)).enumerate() {
            self.speak(speaker, Block::Other);
            block(part, mark && at + 1 == count, self.json)?;
        }
        Ok(())
    }

    /// Only what this deployment signed, word for word; anything else would be refused.
    fn thinking(&mut self, reasoning: &Reasoning) {
        let content = reasoning.encrypted_content.as_deref();
        let Some(content) = content.and_then(|content| opened_for(self.call.deployment, content, false))
        else {
            return;
        };
        self.speak("assistant", Block::Thought);
        match content.strip_prefix("redacted~") {
            Some(data) => {
                self.json.open(b'{').pair("type", "redacted_thinking").pair("data", data).close(b'}');
            }
            None => {
                self.json.open(b'{').pair("type", "thinking").key("thinking");
                self.json.joined(reasoning.content.iter().filter_map(ContentPart::text), "");
                self.json.pair("signature", content).close(b'}');
            }
        }
    }
}

/// Texts that say nothing are refused there.
fn is_block(part: &ContentPart) -> bool {
    part.text().is_none_or(|text| !text.trim().is_empty())
}

/// A call's id in the letters that are taken there: the call may have been another provider's.
fn call_id(id: &str) -> Cow<'_, str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if id.chars().all(fits) {
        return Cow::Borrowed(id);
    }
    Cow::Owned(id.chars().map(|c| if fits(c) { c } else { '_' }).collect())
}

fn block(part: &ContentPart, mark: bool, json: &mut Json) -> Result<(), LlmError> {
    match part {
        ContentPart::InputImage { image_url: Some(url), .. } => {
            json.open(b'{').pair("type", "image");
            source(url, json);
        }
        ContentPart::InputFile { filename, file_data: Some(data), .. } => {
            json.open(b'{').pair("type", "document");
            // Bare base64 is what some SDKs send; a PDF is what they mean.
            match data_url(data) {
                Some(_) => source(data, json),
                None => base64("application/pdf", data, json),
            }
            json.optional("title", filename.as_deref());
        }
        ContentPart::InputFile { filename, file_url: Some(url), .. } => {
            json.open(b'{').pair("type", "document");
            source(url, json);
            json.optional("title", filename.as_deref());
        }
        ContentPart::InputImage { .. } | ContentPart::InputFile { .. } => {
            return Err(LlmError::refused(
                "input",
                "This model takes images and files by URL or as data, not by file_id.",
            ));
        }
        ContentPart::InputVideo { .. } => {
            return Err(LlmError::refused("input", "This model takes no video."));
        }
        ContentPart::InputText { .. }
        | ContentPart::OutputText { .. }
        | ContentPart::Refusal { .. }
        | ContentPart::ReasoningText { .. } => {
            json.open(b'{').pair("type", "text").pair("text", part.text().unwrap_or_default());
        }
    }
    if mark {
        cache_mark(json);
    }
    json.close(b'}');
    Ok(())
}

fn source(url: &str, json: &mut Json) {
    match data_url(url) {
        Some((media_type, data)) => base64(media_type, data, json),
        None => {
            json.key("source").open(b'{').pair("type", "url").pair("url", url).close(b'}');
        }
    }
}

fn base64(media_type: &str, data: &str, json: &mut Json) {
    json.key("source").open(b'{').pair("type", "base64").pair("media_type", media_type);
    json.pair("data", data).close(b'}');
}
