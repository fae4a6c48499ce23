//! The table of request fields: what each kind of provider makes of each.

use std::fmt::Write as _;

use self::Fate::{Here, Ignored, Passed, Refused};
use crate::config::app::ProviderKind;
use crate::openresponses::{ApiError, CreateResponse, Effort, Include, PromptCacheOptions, TextFormat};

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Honoured by Colloquy itself, whatever the provider.
    Here,
    /// Passed through in the provider's own terms.
    Passed,
    /// Left out: the answer is what it would be without, or only slower or dearer.
    Ignored,
    /// 400 with `param`.
    Refused,
}

/// One row: a field, or one use of it.
pub struct Field {
    /// As `param` names it.
    pub name: &'static str,
    /// Which use of the field is meant; empty for any.
    pub used: &'static str,
    /// At azure, openai, responses, anthropic, demo.
    pub fates: [Fate; 5],
    pub remark: &'static str,
    is_used: fn(&CreateResponse) -> bool,
}

const PROVIDERS: [ProviderKind; 5] = [
    ProviderKind::Azure,
    ProviderKind::Openai,
    ProviderKind::Responses,
    ProviderKind::Anthropic,
    ProviderKind::Demo,
];

const HERE: [Fate; 5] = [Here; 5];
const PASSED: [Fate; 5] = [Passed; 5];

const fn row(
    name: &'static str,
    used: &'static str,
    fates: [Fate; 5],
    remark: &'static str,
    is_used: fn(&CreateResponse) -> bool,
) -> Field {
    Field { name, used, fates, remark, is_used }
}

/// Every field of `POST /v1/responses`.
pub const FIELDS: &[Field] = &[
    row("type", "", HERE, "`response.create`, over a WebSocket", |p| p.kind.is_some()),
    row("model", "", HERE, "an alias of `colloquy.toml`", |p| p.model.is_some()),
    row("input", "", PASSED, "parts that a provider does not take are refused when they come up", |p| {
        p.input.is_some()
    }),
    row("instructions", "", PASSED, "", |p| p.instructions.is_some()),
    row("previous_response_id", "", HERE, "", |p| p.previous_response_id.is_some()),
    row("conversation", "", HERE, "", |p| p.conversation.is_some()),
    row("include", "reasoning.encrypted_content", HERE, "shown where the provider gives it", |p| {
        p.includes(Include::ReasoningEncryptedContent)
    }),
    row("include", "message.input_image.image_url", HERE, "", |p| p.includes(Include::InputImageUrl)),
    row(
        "include",
        "message.output_text.logprobs",
        [Passed, Passed, Passed, Refused, Passed],
        "anthropic gives no log probabilities",
        |p| p.includes(Include::OutputTextLogprobs),
    ),
    row("tools", "", PASSED, "", |p| p.tools.is_some()),
    row(
        "tool_choice",
        "",
        PASSED,
        "a list of allowed tools becomes a shorter `tools` but at responses",
        |p| p.tool_choice.is_some(),
    ),
    row("parallel_tool_calls", "", PASSED, "", |p| p.parallel_tool_calls.is_some()),
    row("max_tool_calls", "", [Ignored; 5], "counts tools that a provider runs; there are none", |p| {
        p.max_tool_calls.is_some()
    }),
    row("metadata", "", HERE, "", |p| p.metadata.is_some()),
    row("text.format", "text", PASSED, "", |p| matches!(format(p), Some(TextFormat::Text))),
    row("text.format", "json_schema", PASSED, "at anthropic `output_config.format`", |p| {
        matches!(format(p), Some(TextFormat::JsonSchema(_)))
    }),
    row(
        "text.format",
        "json_object",
        [Passed, Passed, Passed, Refused, Passed],
        "anthropic has no counterpart; use json_schema",
        |p| matches!(format(p), Some(TextFormat::JsonObject)),
    ),
    row("text.verbosity", "", [Passed, Passed, Passed, Ignored, Ignored], "", |p| {
        p.text.as_ref().is_some_and(|text| text.verbosity.is_some())
    }),
    row(
        "reasoning.effort",
        "",
        PASSED,
        "`minimal` to `max`, as far as the model takes it; at anthropic `output_config.effort`, or a budget (`thinking` of \
         the deployment)",
        |p| p.reasoning.as_ref().is_some_and(|reasoning| reasoning.effort.is_some_and(|e| e != Effort::None)),
    ),
    row(
        "reasoning.effort",
        "none",
        [Passed, Passed, Passed, Passed, Passed],
        "at anthropic by leaving it out",
        |p| p.reasoning.as_ref().is_some_and(|reasoning| reasoning.effort == Some(Effort::None)),
    ),
    row(
        "reasoning.summary",
        "",
        [Ignored, Ignored, Passed, Ignored, Passed],
        "chat completions and anthropic give the reasoning itself, or none",
        |p| {
            p.reasoning
                .as_ref()
                .is_some_and(|reasoning| reasoning.summary.or(reasoning.generate_summary).is_some())
        },
    ),
    row(
        "reasoning.context",
        "not auto",
        [Refused, Refused, Passed, Refused, Ignored],
        "responses APIs only",
        |p| p.reasoning.as_ref().is_some_and(|reasoning| is_other(reasoning.context.as_deref(), "auto")),
    ),
    row(
        "reasoning.mode",
        "not standard",
        [Refused, Refused, Passed, Refused, Ignored],
        "responses APIs only",
        |p| p.reasoning.as_ref().is_some_and(|reasoning| is_other(reasoning.mode.as_deref(), "standard")),
    ),
    row("temperature", "", [Passed, Passed, Passed, Passed, Ignored], "", |p| {
        p.temperature.is_some_and(|temperature| temperature <= 1.0)
    }),
    row(
        "temperature",
        "above 1",
        [Passed, Passed, Passed, Refused, Ignored],
        "anthropic takes 0 to 1",
        |p| p.temperature.is_some_and(|temperature| temperature > 1.0),
    ),
    row("top_p", "", [Passed, Passed, Passed, Passed, Ignored], "", |p| p.top_p.is_some()),
    row("presence_penalty", "not 0", [Passed, Passed, Passed, Refused, Ignored], "", |p| {
        p.presence_penalty.is_some_and(|penalty| penalty != 0.0)
    }),
    row("frequency_penalty", "not 0", [Passed, Passed, Passed, Refused, Ignored], "", |p| {
        p.frequency_penalty.is_some_and(|penalty| penalty != 0.0)
    }),
    row(
        "top_logprobs",
        "not 0",
        [Passed, Passed, Passed, Refused, Passed],
        "asks for log probabilities without `include`, too; anthropic gives none",
        |p| p.top_logprobs.is_some_and(|number| number > 0),
    ),
    row("max_output_tokens", "", PASSED, "at most the deployment's `max_output_tokens`", |p| {
        p.max_output_tokens.is_some()
    }),
    row("stream", "", HERE, "providers are always asked for a stream", |p| p.stream.is_some()),
    row("stream_options", "", [Ignored; 5], "our frames are not padded", |p| p.stream_options.is_some()),
    row("background", "", HERE, "", |p| p.background.is_some()),
    row("store", "", HERE, "nothing is stored at the provider", |p| p.store.is_some()),
    row("truncation", "", HERE, "", |p| p.truncation.is_some()),
    row("context_management", "", HERE, "", |p| p.context_management.is_some()),
    row("service_tier", "", [Passed, Passed, Passed, Ignored, Ignored], "", |p| p.service_tier.is_some()),
    row(
        "safety_identifier",
        "",
        [Passed, Passed, Passed, Passed, Ignored],
        "azure: `user`; anthropic: `metadata.user_id`",
        |p| p.safety_identifier.is_some(),
    ),
    row(
        "prompt_cache_key",
        "",
        [Passed, Passed, Passed, Ignored, Ignored],
        "at anthropic the end of the prompt is always marked for the cache",
        |p| p.prompt_cache_key.is_some(),
    ),
    row("prompt_cache_retention", "", [Passed, Passed, Passed, Ignored, Ignored], "", |p| {
        p.prompt_cache_retention.is_some()
    }),
    row(
        "prompt_cache_options",
        "mode or ttl",
        [Passed, Passed, Passed, Ignored, Ignored],
        "at anthropic the end of the prompt is always marked for the cache",
        |p| cache_options(p).is_some_and(|options| options.mode.is_some() || options.ttl.is_some()),
    ),
    row("prompt_cache_options", "prewarm", [Refused; 5], "a turn has an answer", |p| {
        cache_options(p).is_some_and(|options| options.prewarm == Some(true))
    }),
    row(
        "prompt_cache_options",
        "comparison_response_id",
        [Refused; 5],
        "nothing is stored at the provider that it could be compared with",
        |p| cache_options(p).is_some_and(|options| options.comparison_response_id.is_some()),
    ),
    row("prompt", "", [Refused; 5], "prompts that OpenAI keeps; send `instructions` and `input`", |p| {
        p.prompt.is_some()
    }),
    row("moderation", "", [Refused; 5], "", |p| p.moderation.is_some()),
    row("access_programs", "", [Refused; 5], "", |p| p.access_programs.is_some()),
    row("image", "", [Refused; 5], "", |p| p.image.is_some()),
    row("user", "", [Passed, Passed, Passed, Passed, Ignored], "taken as `safety_identifier`", |p| {
        p.user.is_some()
    }),
    row("on_disconnect", "", HERE, "ours", |p| p.on_disconnect.is_some()),
    row("callback", "", HERE, "ours", |p| p.callback.is_some()),
];

/// What only chat completions can ask for.
const ONLY_CHAT: &[Field] = &[
    row(
        "stop",
        "",
        [Passed, Passed, Refused, Passed, Passed],
        "chat completions only; responses APIs have no such field",
        |p| p.chat.as_ref().is_some_and(|chat| !chat.stop.is_empty()),
    ),
    row("seed", "", [Passed, Passed, Ignored, Ignored, Ignored], "chat completions only", |p| {
        p.chat.as_ref().is_some_and(|chat| chat.seed.is_some())
    }),
];

fn all() -> impl Iterator<Item = &'static Field> {
    FIELDS.iter().chain(ONLY_CHAT)
}

fn format(params: &CreateResponse) -> Option<&TextFormat> {
    params.text.as_ref()?.format.as_ref()
}

fn cache_options(params: &CreateResponse) -> Option<&PromptCacheOptions> {
    params.prompt_cache_options.as_ref()
}

fn is_other(word: Option<&str>, usual: &str) -> bool {
    word.is_some_and(|word| word != usual)
}

impl Field {
    /// What becomes of it at `provider`.
    pub fn fate(&self, provider: ProviderKind) -> Fate {
        let at = PROVIDERS.iter().position(|each| *each == provider);
        at.and_then(|at| self.fates.get(at)).copied().unwrap_or(Refused)
    }
}

/// Refuses what the provider does not take: 400 with `param`.
pub fn check(params: &CreateResponse, provider: ProviderKind) -> Result<(), ApiError> {
    let refused = all().find(|field| field.fate(provider) == Refused && (field.is_used)(params));
    let Some(Field { name, used, remark, .. }) = refused else { return Ok(()) };
    let what = if used.is_empty() { String::new() } else { format!(" ({used})") };
    let why = if remark.is_empty() { String::new() } else { format!(": {remark}") };
    Err(ApiError::unsupported(name, format!("'{name}'{what} is not supported with this model{why}.")))
}

/// The table in `docs/models.md`.
pub fn fields_markdown() -> String {
    let mut page = String::from(
        "| field | used as | azure | openai | responses | anthropic | demo | |\n|---|---|---|---|---|---|---|---|\n",
    );
    for Field { name, used, fates, remark, .. } in all() {
        let used = if used.is_empty() { String::new() } else { format!("`{used}`") };
        let fates = fates.map(|fate| match fate {
            Here => "honoured",
            Passed => "passed",
            Ignored => "ignored",
            Refused => "**refused**",
        });
        // Writing to a string cannot fail.
        let written = writeln!(page, "| `{name}` | {used} | {} | {remark} |", fates.join(" | "));
        debug_assert!(written.is_ok());
    }
    page
}

#[cfg(test)]
mod tests;
