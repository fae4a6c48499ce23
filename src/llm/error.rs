//! What can go wrong between us and a provider, sorted by what has to follow.

mod body;
mod hints;

use std::time::Duration;

use http::StatusCode;

use crate::openresponses::{ApiError, ErrorType};

pub(crate) use body::{from_answer, from_event};

/// What kind of failure, hence what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The provider has no capacity for this model just now: the next deployment, without waiting.
    Capacity,
    /// The provider's limit for our account is reached: later, as it says, or elsewhere.
    RateLimited,
    /// Our own limit for the deployment is reached, and the wait would be too long. Nothing was sent.
    OwnQuota,
    /// The provider's account is out of money: no attempt will help.
    SpendLimit,
    /// The provider refuses the request itself: no deployment of the model will take it.
    BadRequest,
    /// The provider's filter refuses the prompt. Charged nevertheless.
    ContentFilter,
    /// The provider refuses our key or token.
    Auth,
    /// The provider does not know the model or the address.
    NotFound,
    /// 503, 529, `overloaded_error`.
    Overloaded,
    /// 5xx.
    Server,
    /// No connection, or one that broke before an answer came.
    Connect,
    /// No first event in time.
    FirstEvent,
    /// An answer stopped coming.
    Silence,
    /// A stream ended or broke before the answer did.
    Interrupted,
    /// Something that is not the provider's protocol.
    Protocol,
    /// Every deployment of the alias is being left alone after failures.
    Unavailable,
    /// The caller went away or stopped the turn.
    Cancelled,
}

/// A failed attempt at an answer. Holds no prompt and no key; `message` is for the caller, and not for logs, since a
/// provider may quote a request it refuses.
#[derive(Clone, PartialEq, Eq)]
pub struct LlmError {
    pub class: ErrorClass,
    /// Stable.
    pub code: &'static str,
    /// The provider's HTTP status, if it answered.
    pub status: Option<u16>,
    /// For the caller.
    pub message: String,
    /// The request's field at fault, as the provider names it.
    pub param: Option<String>,
    /// When to come again.
    pub retry_after: Option<Duration>,
    /// Whether the provider may have charged for the attempt.
    pub charged: bool,
}

impl std::fmt::Debug for LlmError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LlmError")
            .field("code", &self.code)
            .field("status", &self.status)
            .field("retry_after", &self.retry_after)
            .field("charged", &self.charged)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Display for LlmError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.status {
            Some(status) => write!(f, "{}: the provider answered {status}", self.code),
            None => f.write_str(self.code),
        }
    }
}

impl std::error::Error for LlmError {}

impl ErrorClass {
    /// Stable: the code of errors that have no more exact one.
    pub fn code(self) -> &'static str {
        match self {
            Self::Capacity => "provider_capacity",
            Self::RateLimited => "provider_rate_limited",
            Self::OwnQuota => "deployment_quota_exceeded",
            Self::SpendLimit => "provider_spend_limit",
            Self::BadRequest => "provider_refused_request",
            Self::ContentFilter => "content_filter",
            Self::Auth => "provider_auth_failed",
            Self::NotFound => "provider_model_not_found",
            Self::Overloaded => "provider_overloaded",
            Self::Server => "provider_error",
            Self::Connect => "provider_unreachable",
            Self::FirstEvent => "provider_first_event_timeout",
            Self::Silence => "provider_silent",
            Self::Interrupted => "provider_interrupted",
            Self::Protocol => "provider_protocol_error",
            Self::Unavailable => "provider_unavailable",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the same deployment may do better in a moment.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Capacity
                | Self::RateLimited
                | Self::Overloaded
                | Self::Server
                | Self::Connect
                | Self::FirstEvent
                | Self::Interrupted
        )
    }

    /// Whether a turn that can wait should: the provider is out, or used up to a limit, and that passes.
    pub fn is_outage(self) -> bool {
        self.is_retryable() || matches!(self, Self::Unavailable | Self::OwnQuota)
    }

    /// Whether another deployment may do better.
    pub fn may_fail_over(self) -> bool {
        self.is_retryable() || matches!(self, Self::Auth | Self::NotFound | Self::Protocol | Self::OwnQuota)
    }

    /// Whether the deployment seems broken. Limits and refused requests say nothing of that.
    pub fn trips_breaker(self) -> bool {
        matches!(
            self,
            Self::Auth
                | Self::NotFound
                | Self::Overloaded
                | Self::Server
                | Self::Connect
                | Self::FirstEvent
                | Self::Silence
                | Self::Interrupted
                | Self::Protocol
        )
    }

    fn words(self) -> &'static str {
        match self {
            Self::Capacity => "The model's provider has no capacity at the moment. Please try again.",
            Self::RateLimited => "The model's provider limits our requests. Please try again later.",
            Self::OwnQuota => "The model is used up to its limit at the moment. Please try again later.",
            Self::SpendLimit => "The provider's account of this model has reached its spending limit.",
            Self::BadRequest => "The model's provider refused the request.",
            Self::ContentFilter => {
                "The prompt was refused by the content filter of the model's provider. Please change it."
            }
            Self::Auth => "The model's provider refused this server's credentials.",
            Self::NotFound => "The model's provider does not know the model it is configured with.",
            Self::Overloaded => "The model's provider is overloaded. Please try again.",
            Self::Server => "The model's provider had an error. Please try again.",
            Self::Connect => "The model's provider cannot be reached. Please try again.",
            Self::FirstEvent => "The model did not begin to answer in time. Please try again.",
            Self::Silence => "The model stopped answering.",
            Self::Interrupted => "The model's answer was cut off by its provider.",
            Self::Protocol => "The model's provider sent something that cannot be understood.",
            Self::Unavailable => {
                "Every provider of this model has been failing; they are left alone for a moment. Please try again."
            }
            Self::Cancelled => "The request was cancelled.",
        }
    }
}

impl LlmError {
    /// An error in the class's own words, not charged.
    pub fn new(class: ErrorClass) -> Self {
        Self {
            class,
            code: class.code(),
            status: None,
            message: class.words().to_owned(),
            param: None,
            retry_after: None,
            charged: false,
        }
    }

    /// The same with the provider's status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// The same, perhaps charged.
    #[must_use]
    pub fn charged(mut self, charged: bool) -> Self {
        self.charged = charged;
        self
    }

    /// The same, saying when to come again.
    #[must_use]
    pub fn after(mut self, delay: Option<Duration>) -> Self {
        self.retry_after = delay;
        self
    }

    /// A request that no provider of this kind takes, found before sending.
    pub(crate) fn refused(param: &str, message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorClass::BadRequest);
        error.code = "unsupported_value";
        error.message = message.into();
        error.param = Some(param.to_owned());
        error
    }

    /// What the caller is told.
    pub fn to_api(&self) -> ApiError {
        let (status, kind) = match self.class {
            ErrorClass::Capacity | ErrorClass::RateLimited | ErrorClass::OwnQuota => {
                (StatusCode::TOO_MANY_REQUESTS, ErrorType::RateLimitError)
            }
            ErrorClass::SpendLimit => (StatusCode::TOO_MANY_REQUESTS, ErrorType::InsufficientQuota),
            ErrorClass::BadRequest | ErrorClass::ContentFilter => {
                (StatusCode::BAD_REQUEST, ErrorType::InvalidRequestError)
            }
            ErrorClass::Overloaded
            | ErrorClass::Unavailable
            | ErrorClass::Connect
            | ErrorClass::Server
            | ErrorClass::Cancelled => (StatusCode::SERVICE_UNAVAILABLE, ErrorType::ServiceUnavailable),
            ErrorClass::FirstEvent | ErrorClass::Silence => {
                (StatusCode::GATEWAY_TIMEOUT, ErrorType::ServerError)
            }
            ErrorClass::Auth | ErrorClass::NotFound | ErrorClass::Interrupted | ErrorClass::Protocol => {
                (StatusCode::BAD_GATEWAY, ErrorType::ServerError)
            }
        };
        let mut error = ApiError::new(status, kind, self.code, self.message.clone());
        error.param = self.param.clone();
        error.retry_after = self.retry_after;
        // Waiting does not help there, and SDKs would try again by themselves.
        if matches!(self.class, ErrorClass::SpendLimit | ErrorClass::Auth | ErrorClass::NotFound) {
            error.should_retry = Some(false);
        }
        error
    }
}

#[cfg(test)]
mod tests;
