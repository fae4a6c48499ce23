//! Errors as providers write them: `{"error": {…}}` of OpenAI and Azure, Anthropic's envelope, and what compatible
//! servers make of either.

use http::HeaderMap;
use jiff::Timestamp;
use serde_json::Value;

use super::{ErrorClass, LlmError, hints};

/// Longest of a provider's own words that is passed on.
const LONGEST: usize = 300;

/// An HTTP answer that is no stream: its status, headers, and the beginning of its body.
pub(crate) fn from_answer(status: u16, headers: &HeaderMap, body: &[u8], now: Timestamp) -> LlmError {
    let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let said = Said::of(&value);
    let class = classify(status, &said);
    let mut error = said.error(class, headers, now).status(status);
    // A prompt that the filter refused is charged; so may be what a gateway gave up on after the model had begun.
    error.charged = class == ErrorClass::ContentFilter || matches!(status, 408 | 504);
    error
}

/// An error inside a stream that began with 200.
pub(crate) fn from_event(value: &Value, now: Timestamp) -> LlmError {
    let said = Said::of(value);
    let status = said.status.unwrap_or(match said.kind {
        "overloaded_error" => 529,
        "rate_limit_error" | "rate_limit_exceeded" | "tokens" | "requests" => 429,
        "invalid_request_error" => 400,
        "authentication_error" => 401,
        "permission_error" => 403,
        "not_found_error" => 404,
        _ => match said.code {
            "rate_limit_exceeded" => 429,
            "server_is_overloaded" | "slow_down" => 503,
            "content_filter" | "context_length_exceeded" | "invalid_prompt" => 400,
            _ => 500,
        },
    });
    let class = classify(status, &said);
    said.error(class, &HeaderMap::new(), now).status(status).charged(true)
}

/// The parts of an error body that mean something.
#[derive(Default)]
struct Said<'v> {
    code: &'v str,
    kind: &'v str,
    message: &'v str,
    param: Option<&'v str>,
    inner_code: &'v str,
    spend_limit: bool,
    status: Option<u16>,
}

impl<'v> Said<'v> {
    fn of(value: &'v Value) -> Self {
        let error = match value.get("error") {
            Some(error @ Value::Object(_)) => error,
            // Ollama.
            Some(Value::String(text)) => return Self { message: text, ..Self::default() },
            // vLLM's older form, and Azure's gateway: the fields stand at the top.
            _ => value,
        };
        let text = |key: &str| error.get(key).and_then(Value::as_str);
        let inner = error.get("innererror").or_else(|| error.get("inner_error"));
        let details = error.pointer("/details/error_code").and_then(Value::as_str);
        let number = error.get("code").and_then(Value::as_u64).or_else(|| error.get("status")?.as_u64());
        let code = text("code").unwrap_or_default();
        Self {
            code,
            kind: text("type").unwrap_or_default(),
            message: text("message").or_else(|| text("detail")).unwrap_or_default(),
            param: text("param"),
            inner_code: inner.and_then(|inner| inner.get("code")?.as_str()).unwrap_or_default(),
            spend_limit: details == Some("enforced_spend_limit_reached"),
            status: number
                .and_then(|number| u16::try_from(number).ok())
                .or_else(|| code.parse().ok())
                .filter(|status| (400..600).contains(status)),
        }
    }

    fn error(&self, class: ErrorClass, headers: &HeaderMap, now: Timestamp) -> LlmError {
        let mut error = LlmError::new(class);
        match class {
            ErrorClass::SpendLimit => {}
            _ => error.retry_after = hints::wait(headers, self.message, now),
        }
        if class == ErrorClass::BadRequest {
            if self.is_too_long() {
                error.code = "context_length_exceeded";
            }
            if !self.message.is_empty() {
                error.message = passed_on(self.message);
            }
            error.param = self.param.map(passed_on);
        }
        error
    }

    fn is_filtered(&self) -> bool {
        self.code == "content_filter"
            || self.code == "content_policy_violation"
            || self.inner_code == "ResponsibleAIPolicyViolation"
    }

    fn is_too_long(&self) -> bool {
        self.code == "context_length_exceeded"
            || [
                "maximum context length",
                "prompt is too long",
                "context window",
                "context limit",
                "nput is too long",
            ]
            .iter()
            .any(|words| self.message.contains(words))
    }

    fn is_out_of_money(&self) -> bool {
        self.spend_limit
            || [self.code, self.kind].iter().any(|word| {
                matches!(*word, "insufficient_quota" | "billing_hard_limit_reached" | "billing_error")
            })
    }

    /// Azure names four causes of a 429, by message only. Lack of capacity and a temporary reduction are the
    /// provider's; the rest is our own limit.
    fn lacks_capacity(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        ["capacity", "overloaded", "high demand", "high load", "temporarily", "experiencing"]
            .iter()
            .any(|words| message.contains(words))
    }
}

fn classify(status: u16, said: &Said<'_>) -> ErrorClass {
    if said.is_out_of_money() {
        return ErrorClass::SpendLimit;
    }
    match status {
        _ if said.is_filtered() => ErrorClass::ContentFilter,
        429 if said.lacks_capacity() => ErrorClass::Capacity,
        429 => ErrorClass::RateLimited,
        // "On Your Data" wraps a 429 as text into a 400.
        400 if hints::in_words(said.message).is_some()
            && said.message.to_ascii_lowercase().contains("rate limit") =>
        {
            ErrorClass::RateLimited
        }
        401 | 403 => ErrorClass::Auth,
        402 => ErrorClass::SpendLimit,
        404 => ErrorClass::NotFound,
        408 => ErrorClass::Server,
        400..=499 => ErrorClass::BadRequest,
        503 | 529 => ErrorClass::Overloaded,
        500..=599 => ErrorClass::Server,
        _ => ErrorClass::Protocol,
    }
}

/// A provider's words for the caller: on one line, short, and without anything that looks like a key.
fn passed_on(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_whitespace() {
        let secret = word.contains("sk-") || word.to_ascii_lowercase().contains("bearer") || word.len() > 120;
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(if secret { "…" } else { word });
        if out.chars().count() > LONGEST {
            out = out.chars().take(LONGEST).collect();
            out.push('…');
            break;
        }
    }
    out
}
