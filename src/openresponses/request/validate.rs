//! What of a request is checked by itself.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{AllowedTool, CreateResponse, SpecificTool, TextFormat, Tool, ToolChoice, ToolMode};
use crate::openresponses::error::{ApiError, excerpt};

impl CreateResponse {
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
        fn word(name: &str, value: Option<&str>, supported: &[&str]) -> Result<(), ApiError> {
            let Some(other) = value.filter(|value| !supported.contains(value)) else { return Ok(()) };
            let list: Vec<String> = supported.iter().map(|word| format!("'{word}'")).collect();
            let message =
                format!("Invalid value: '{}'. Supported values are: {}.", excerpt(other), list.join(", "));
            Err(ApiError::invalid_value(name, message))
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
            if let Some(schema) = parameters {
                check_depth(&format!("tools[{position}].parameters"), schema)?;
            }
        }
        if let Some(TextFormat::JsonSchema(schema)) = self.text.as_ref().and_then(|text| text.format.as_ref())
        {
            check_name("text.format.name", &schema.name)?;
            check_depth("text.format.schema", &schema.schema)?;
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
        let reasoning = self.reasoning.as_ref();
        let cache = self.prompt_cache_options.as_ref();
        word(
            "reasoning.context",
            reasoning.and_then(|reasoning| reasoning.context.as_deref()),
            &["auto", "current_turn", "all_turns"],
        )?;
        word(
            "reasoning.mode",
            reasoning.and_then(|reasoning| reasoning.mode.as_deref()),
            &["standard", "pro"],
        )?;
        word(
            "prompt_cache_options.mode",
            cache.and_then(|options| options.mode.as_deref()),
            &["implicit", "explicit"],
        )?;
        word("prompt_cache_options.ttl", cache.and_then(|options| options.ttl.as_deref()), &["30m", "12h"])?;
        word("on_disconnect", self.on_disconnect.as_deref(), &["continue", "cancel"])?;
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

/// JSON that is kept as it came was not read, so nothing has refused it for its depth yet; whoever reads it later would, the
/// database first.
fn check_depth(place: &str, json: &RawValue) -> Result<(), ApiError> {
    const DEEPEST: usize = 100;
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json.get().bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST {
            let message = format!("Invalid '{place}': nested too deeply. Expected at most {DEEPEST} levels.");
            return Err(ApiError::invalid_value(place, message));
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
