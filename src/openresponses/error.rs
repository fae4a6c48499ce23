//! Errors in OpenAI's shape: `{"error": {"message", "type", "code", "param"}}`, under the status their SDKs expect.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

/// The value of `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorType {
    InvalidRequestError,
    AuthenticationError,
    PermissionError,
    NotFoundError,
    ConflictError,
    RateLimitError,
    InsufficientQuota,
    ServerError,
    ServiceUnavailable,
}

/// What a caller is told. Holds nothing that is not for the caller: no secret, no prompt, no provider's own words
/// beyond its error message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    pub status: StatusCode,
    pub kind: ErrorType,
    /// Stable; documented in `docs/errors.md`.
    pub code: &'static str,
    pub message: String,
    /// The field at fault, as a path: `input[0].content`.
    pub param: Option<String>,
    /// Becomes `Retry-After` and `retry-after-ms`.
    pub retry_after: Option<Duration>,
    /// Becomes `x-should-retry`, which OpenAI's SDKs obey above their own rules.
    pub should_retry: Option<bool>,
    /// Further headers of the answer: `Allow`, rate limits.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    pub fn new(status: StatusCode, kind: ErrorType, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status,
            kind,
            code,
            message,
            param: None,
            retry_after: None,
            should_retry: None,
            headers: Vec::new(),
        }
    }

    /// 400 on the field `param`.
    pub fn invalid(code: &'static str, param: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorType::InvalidRequestError, code, message).on(param)
    }

    /// 400: the field's value is none of those allowed.
    pub fn invalid_value(param: &str, message: impl Into<String>) -> Self {
        Self::invalid("invalid_value", param, message)
    }

    /// 400: a field that must be there is not.
    pub fn missing(param: &str) -> Self {
        let message = format!("Missing required parameter: '{}'.", place_of(param));
        Self::invalid("missing_required_parameter", param, message)
    }

    /// 400: a field that the endpoint, or this model's provider, does not take.
    pub fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self::invalid("unsupported_parameter", param, message)
    }

    /// 404. The same words whether it never was, was deleted, or belongs to somebody else.
    pub fn not_found(what: &str, id: &str) -> Self {
        let message = format!("{what} with id '{}' not found.", excerpt(id));
        Self::new(StatusCode::NOT_FOUND, ErrorType::InvalidRequestError, "not_found", message)
    }

    /// 503: something this request needs is away; nothing was begun.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            retry_after: Some(Duration::from_secs(2)),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorType::ServiceUnavailable, code, message)
        }
    }

    /// 500: our fault, told without detail.
    pub fn internal() -> Self {
        let message = "The server had an error while processing your request. Please retry it; \
                       if it happens again, tell its operators the x-request-id.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorType::ServerError, "server_error", message)
    }

    /// The same, naming the field at fault.
    #[must_use]
    pub fn on(mut self, param: &str) -> Self {
        self.param = Some(place_of(param));
        self
    }

    /// The same, telling when to come again.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// The same, telling SDKs whether to come again by themselves.
    #[must_use]
    pub fn should_retry(mut self, yes: bool) -> Self {
        self.should_retry = Some(yes);
        self
    }

    /// The same, with one more header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// What stands under `error`.
    pub fn payload(&self) -> Value {
        json!({ "message": self.message, "type": self.kind, "code": self.code, "param": self.param })
    }

    /// The whole body.
    pub fn body(&self) -> Value {
        json!({ "error": self.payload() })
    }
}

/// A caller's own words in an error: short, on one line.
pub fn excerpt(text: &str) -> String {
    shortened(text, 64)
}

/// The same for the place of a mistake: longer than any place that the protocol has, and names in it may be the caller's.
pub(super) fn place_of(path: &str) -> String {
    shortened(path, 200)
}

fn shortened(text: &str, longest: usize) -> String {
    let mut short: String =
        text.chars().take(longest).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(longest).is_some() {
        short.push('…');
    }
    short
}
