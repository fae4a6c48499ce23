//! What the vendors refuse, in their words: half of a tool call, messages out of order, nothing said, and so on.

mod anthropic;
mod chat;
mod responses;

use http::HeaderMap;
use serde_json::{Value, json};

use super::Wire;

/// A status and a body.
pub type Refusal = (u16, Value);

/// What the vendor would answer instead, if it did not take the request.
pub fn of(wire: Wire, path: &str, body: &Value) -> Option<Refusal> {
    let known = match wire {
        Wire::Chat => path == "/v1/chat/completions",
        Wire::Azure => path == "/openai/v1/chat/completions" || is_dated(path),
        Wire::Responses => path == "/v1/responses",
        Wire::Anthropic => path == "/v1/messages",
    };
    if !known {
        let words = "Resource not found";
        return Some((404, error(wire, 404, words)));
    }
    let judged = match wire {
        Wire::Chat | Wire::Azure => chat::judge(body),
        Wire::Responses => responses::judge(body),
        Wire::Anthropic => anthropic::judge(body),
    };
    judged.err().map(|told| match (wire, told) {
        (Wire::Anthropic, Told { message, .. }) => (400, error(wire, 400, &message)),
        (_, Told { message, param, code }) => {
            let kind = "invalid_request_error";
            (400, json!({"error": {"message": message, "type": kind, "param": param, "code": code}}))
        }
    })
}

/// `/openai/deployments/{deployment}/chat/completions?api-version=2024-10-21`.
fn is_dated(path: &str) -> bool {
    let rest = path.strip_prefix("/openai/deployments/").unwrap_or_default();
    let Some((deployment, rest)) = rest.split_once('/') else { return false };
    let version = rest.strip_prefix("chat/completions?api-version=");
    !deployment.is_empty() && version.is_some_and(|version| version.len() >= 10)
}

/// If only tokens for one audience are taken: what any other gets.
pub fn of_token(headers: &HeaderMap, accepted: Option<&str>) -> Option<Refusal> {
    let bearer =
        |token| headers.get("authorization").is_some_and(|value| value == &format!("Bearer {token}"));
    let refused = accepted.is_some_and(|token| !bearer(token));
    refused.then(|| {
        let message = "Access token is missing, invalid, audience is incorrect (https://cognitiveservices.azure.com), \
                       or have expired.";
        (401, json!({"error": {"code": "Unauthorized", "message": message}}))
    })
}

/// An error in the vendor's envelope.
pub fn error(wire: Wire, status: u16, message: &str) -> Value {
    if wire == Wire::Anthropic {
        let kind = match status {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            529 => "overloaded_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        };
        return json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_up"});
    }
    json!({"error": {"message": message, "type": "error", "code": status.to_string(), "param": null}})
}

/// Why a request is refused.
struct Told {
    message: String,
    param: Value,
    code: Value,
}

fn told(message: impl Into<String>, param: impl Into<Value>) -> Told {
    Told { message: message.into(), param: param.into(), code: Value::Null }
}

fn empty_array(place: &str) -> Told {
    let message = format!(
        "Invalid '{place}': empty array. Expected an array with minimum length 1, but got an empty array instead."
    );
    Told { code: json!("empty_array"), ..told(message, place) }
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}
