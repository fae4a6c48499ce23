//! Limits of an account, as providers tell of them.

use std::time::Duration;

use serde_json::json;

use super::{Script, Wire};

/// What headers say of an account's limits, with every answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests and tokens; -1 where the provider does not know, as Azure's Responses API has sent.
    pub limit: i64,
    pub remaining_requests: i64,
    pub remaining_tokens: i64,
    /// When both begin anew.
    pub reset: Duration,
}

impl Limits {
    pub fn unknown() -> Self {
        Self { limit: -1, remaining_requests: -1, remaining_tokens: -1, reset: Duration::ZERO }
    }

    /// Nothing of one of them is left.
    pub fn no_tokens(reset: Duration) -> Self {
        Self { limit: 1_000, remaining_requests: 9, remaining_tokens: 0, reset }
    }

    /// In the provider's form.
    pub fn headers(&self, wire: Wire) -> Vec<(&'static str, String)> {
        let Self { limit, remaining_requests, remaining_tokens, reset } = self;
        let remaining = [remaining_requests, remaining_tokens].map(i64::to_string);
        if wire == Wire::Anthropic {
            let at = (jiff::Timestamp::now() + jiff::SignedDuration::try_from(*reset).expect("a time"))
                .to_string();
            let [requests, tokens] = remaining;
            return vec![
                ("anthropic-ratelimit-requests-limit", limit.to_string()),
                ("anthropic-ratelimit-requests-remaining", requests),
                ("anthropic-ratelimit-requests-reset", at.clone()),
                ("anthropic-ratelimit-tokens-limit", limit.to_string()),
                ("anthropic-ratelimit-tokens-remaining", tokens.clone()),
                ("anthropic-ratelimit-tokens-reset", at.clone()),
                ("anthropic-ratelimit-input-tokens-limit", limit.to_string()),
                ("anthropic-ratelimit-input-tokens-remaining", tokens.clone()),
                ("anthropic-ratelimit-input-tokens-reset", at.clone()),
                ("anthropic-ratelimit-output-tokens-limit", limit.to_string()),
                ("anthropic-ratelimit-output-tokens-remaining", tokens),
                ("anthropic-ratelimit-output-tokens-reset", at),
            ];
        }
        let [requests, tokens] = remaining;
        // Azure writes seconds, OpenAI `1s` and `500ms`.
        let reset = match wire {
            Wire::Azure => reset.as_secs_f64().to_string(),
            _ => format!("{}ms", reset.as_millis()),
        };
        vec![
            ("x-ratelimit-limit-requests", limit.to_string()),
            ("x-ratelimit-remaining-requests", requests),
            ("x-ratelimit-reset-requests", reset.clone()),
            ("x-ratelimit-limit-tokens", limit.to_string()),
            ("x-ratelimit-remaining-tokens", tokens),
            ("x-ratelimit-reset-tokens", reset),
        ]
    }
}

/// The four causes of Azure's 429, which only its words tell apart, and the same hidden in a 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// The deployment's own limit.
    OwnQuota,
    /// The region has no capacity.
    Capacity,
    /// The limit was lowered for a while.
    Reduced,
    /// What the request might take was too much: its characters and `max_tokens`.
    Estimate,
    /// "On Your Data" tells it as text in a 400, without headers.
    Wrapped,
}

impl Script {
    /// A 429 as Azure words it, to be tried again in a second.
    pub fn lacks(shortage: Shortage) -> Self {
        let (status, message) = match shortage {
            Shortage::OwnQuota => (429, "Rate limit is exceeded. Try again in 1 seconds."),
            Shortage::Capacity => (
                429,
                "The system is currently experiencing high demand and cannot process your request. Your request exceeds \
                 the maximum usage size allowed during peak load.",
            ),
            Shortage::Reduced => (
                429,
                "Your requests to this deployment have exceeded its rate limit, which is temporarily reduced. Please \
                 retry after 1 seconds.",
            ),
            Shortage::Estimate => (
                429,
                "Requests to the ChatCompletions_Create Operation have exceeded token rate limit of your current OpenAI \
                 S0 pricing tier, as estimated from the prompt and max_tokens. Please retry after 1 seconds.",
            ),
            Shortage::Wrapped => (400, "Error 429: Rate limit is exceeded. Try again in 1 seconds."),
        };
        Self::fails_with(status, json!({"error": {"code": status.to_string(), "message": message}}))
    }
}
