//! The Responses API of OpenAI, Azure OpenAI, or another Open Responses server as an upstream. State stays ours:
//! `store` is false, and reasoning comes back encrypted.

mod stream;

pub(super) use stream::Stream;

use super::super::error::LlmError;
use super::super::json::Json;
use super::{Call, Choice, offered, opened_for, unopened};
use crate::openresponses::{ContentPart, Include, Item, Role, SpecificTool, TextFormat, ToolChoice};

pub(super) fn body(call: &Call<'_>) -> Result<Vec<u8>, LlmError> {
    let params = &call.request.params;
    let mut json = Json::with_capacity(4 * 1024);
    json.open(b'{').pair("model", call.model()).pair("stream", &true).pair("store", &false);
    json.optional("instructions", params.instructions.as_deref());
    // Models that do not reason refuse to be asked for it.
    let encrypted =
        call.reasoning || params.reasoning.is_some() || params.includes(Include::ReasoningEncryptedContent);
    let logprobs = params.wants_logprobs();
    let wanted = [(Include::ReasoningEncryptedContent, encrypted), (Include::OutputTextLogprobs, logprobs)];
    let include: Vec<Include> = wanted.into_iter().filter(|(_, is)| *is).map(|(what, _)| what).collect();
    json.optional("include", Some(include).filter(|include| !include.is_empty()))
        .optional("top_logprobs", params.top_logprobs.filter(|_| logprobs));
    json.key("input").open(b'[');
    for item in &call.request.items {
        self::item(call, item, &mut json)?;
    }
    json.close(b']');
    let (tools, choice) = offered(params);
    if !tools.is_empty() {
        match &params.tool_choice {
            // It knows lists of allowed tools, and keeps its cache for the whole list.
            Some(listed @ ToolChoice::Specific(SpecificTool::AllowedTools { .. })) => {
                json.optional("tools", params.tools.as_ref()).pair("tool_choice", listed);
            }
            _ => {
                json.pair("tools", &tools);
                match choice {
                    Some(Choice::Mode(mode)) => json.pair("tool_choice", &mode),
                    Some(Choice::Function(_)) => json.optional("tool_choice", params.tool_choice.as_ref()),
                    None => &mut json,
                };
            }
        }
        json.optional("parallel_tool_calls", params.parallel_tool_calls);
    }
    json.optional(
        "max_output_tokens",
        params.max_output_tokens.map(|most| most.min(call.config.max_output_tokens)),
    )
    .optional("temperature", params.temperature)
    .optional("top_p", params.top_p)
    .optional("presence_penalty", params.presence_penalty)
    .optional("frequency_penalty", params.frequency_penalty);
    if let Some(text) = &params.text {
        json.key("text").open(b'{');
        if let Some(format @ (TextFormat::JsonObject | TextFormat::JsonSchema(_))) = &text.format {
            json.pair("format", format);
        }
        json.optional("verbosity", text.verbosity).close(b'}');
    }
    if let Some(reasoning) = &params.reasoning {
        json.key("reasoning").open(b'{').optional("effort", reasoning.effort);
        json.optional("summary", reasoning.summary.or(reasoning.generate_summary))
            .optional("context", reasoning.context.as_deref())
            .optional("mode", reasoning.mode.as_deref())
            .close(b'}');
    }
    json.optional("service_tier", params.service_tier.as_deref())
        .optional("safety_identifier", params.safety_identifier.as_deref().or(params.user.as_deref()))
        .optional("prompt_cache_key", params.prompt_cache_key.as_deref())
        .optional("prompt_cache_retention", params.prompt_cache_retention.as_deref())
        .optional("prompt_cache_options", params.prompt_cache_options.as_ref());
    json.close(b'}');
    Ok(json.finish())
}

/// An item without its id, which is ours and means nothing there.
fn item(call: &Call<'_>, item: &Item, json: &mut Json) -> Result<(), LlmError> {
    match item {
        // Nothing was said.
        Item::Message(message) if message.content.is_empty() => {}
        Item::Message(message) => {
            json.open(b'{').pair("type", "message").pair("role", &message.role);
            if message.role == Role::Assistant {
                json.pair("status", &message.status);
            }
            json.optional("phase", message.phase).key("content").open(b'[');
            for part in &message.content {
                match part {
                    // Annotations and log probabilities are of no use to the model.
                    ContentPart::OutputText { text, .. } => {
                        json.open(b'{').pair("type", "output_text").pair("text", text);
                        json.key("annotations").open(b'[').close(b']').close(b'}');
                    }
                    part => {
                        json.value(part);
                    }
                }
            }
            json.close(b']').close(b'}');
        }
        Item::FunctionCall(call) => {
            json.open(b'{').pair("type", "function_call").pair("call_id", &call.call_id);
            json.pair("name", &call.name).pair("arguments", &call.arguments).close(b'}');
        }
        Item::FunctionCallOutput(output) => {
            json.open(b'{').pair("type", "function_call_output").pair("call_id", &output.call_id);
            json.pair("output", &output.output).close(b'}');
        }
        Item::Reasoning(reasoning) => {
            let content = reasoning.encrypted_content.as_deref();
            if let Some(content) = content.and_then(|content| opened_for(call.deployment, content, true)) {
                json.open(b'{').pair("type", "reasoning").pair("summary", &reasoning.summary);
                json.pair("encrypted_content", content).close(b'}');
            }
        }
        Item::Compaction(_) => return Err(unopened()),
    }
    Ok(())
}
