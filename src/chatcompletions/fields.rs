//! The table of request fields: what becomes of each.

use std::fmt::Write as _;

/// What becomes of a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// The same as of that field of `POST /v1/responses`.
    As(&'static str),
    /// Honoured here.
    Here(&'static str),
    /// Taken, without effect on the answer.
    Ignored(&'static str),
    /// 400 with `param`, if used as it says.
    Refused(&'static str),
}

use Fate::{As, Here, Ignored, Refused};

/// Every field of `POST /v1/chat/completions`.
pub(super) const FIELDS: &[(&str, Fate)] = &[
    ("model", As("model")),
    (
        "messages",
        Here("roles system, developer, user, assistant, tool; parts text, image_url, file, refusal"),
    ),
    ("stream", Here("")),
    ("stream_options", Here("`include_usage`")),
    ("tools", Here("functions")),
    ("tool_choice", As("tool_choice")),
    ("parallel_tool_calls", As("parallel_tool_calls")),
    ("response_format", As("text.format")),
    ("max_tokens", As("max_output_tokens")),
    ("max_completion_tokens", As("max_output_tokens")),
    ("temperature", As("temperature")),
    ("top_p", As("top_p")),
    ("presence_penalty", As("presence_penalty")),
    ("frequency_penalty", As("frequency_penalty")),
    ("stop", As("stop")),
    ("seed", As("seed")),
    ("logprobs", As("include: message.output_text.logprobs")),
    ("top_logprobs", As("top_logprobs")),
    ("reasoning_effort", As("reasoning.effort")),
    ("verbosity", As("text.verbosity")),
    ("service_tier", As("service_tier")),
    ("safety_identifier", As("safety_identifier")),
    ("prompt_cache_key", As("prompt_cache_key")),
    ("prompt_cache_retention", As("prompt_cache_retention")),
    ("prompt_cache_options", As("prompt_cache_options")),
    ("user", As("user")),
    ("metadata", Ignored("checked; nothing is stored")),
    ("prediction", Ignored("the answer is the same, only slower")),
    ("n", Refused("other than 1")),
    ("logit_bias", Refused("not empty")),
    ("modalities", Refused("other than text")),
    ("store", Refused("true")),
    ("audio", Refused("")),
    ("functions", Refused("")),
    ("function_call", Refused("")),
    ("moderation", Refused("")),
    ("web_search_options", Refused("")),
];

/// The table in `docs/protocol.md`.
pub fn markdown() -> String {
    let mut page = String::from("| field | what becomes of it |\n|---|---|\n");
    for (name, fate) in FIELDS {
        let (what, more) = match fate {
            As(field) if field == name => ("as at `POST /v1/responses`".to_owned(), ""),
            As(field) => (format!("as `{field}`"), ""),
            Here(more) => ("honoured".to_owned(), *more),
            Ignored(more) => ("ignored".to_owned(), *more),
            Refused(more) => ("**refused**".to_owned(), *more),
        };
        let between = if more.is_empty() { "" } else { ": " };
        // Writing to a string cannot fail.
        let written = writeln!(page, "| `{name}` | {what}{between}{more} |");
        debug_assert!(written.is_ok());
    }
    page
}
