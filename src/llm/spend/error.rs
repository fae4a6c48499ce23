//! Why a turn may not spend.

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;

use super::Scope;
use crate::openresponses::{ApiError, ErrorType};

/// A refused reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpendError {
    /// What is left of the day's budget does not cover the turn.
    #[error("the day's budget ({scope}) is spent until {until}")]
    Spent { scope: Scope, until: Timestamp, wait: Duration },
    /// The database is away and what this process holds does not cover the turn.
    #[error(
        "the database cannot be reached and the budget in hand is spent; SPEND_WITHOUT_DATABASE=allow would go on"
    )]
    Unavailable,
}

impl SpendError {
    /// Stable, for logs, metrics and callers.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Spent { .. } => "budget_spent",
            Self::Unavailable => "budget_unavailable",
        }
    }
}

impl From<SpendError> for ApiError {
    fn from(error: SpendError) -> Self {
        match error {
            SpendError::Spent { scope, until, wait } => {
                let whose = match scope {
                    Scope::Owner => "Your daily budget",
                    Scope::Key => "The daily budget of this API key",
                    Scope::Total => "The daily budget of this service",
                };
                let message = format!("{whose} does not cover this request. It is renewed at {until}.");
                Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorType::InsufficientQuota, error.code(), message)
                    .retry_after(wait)
                    .should_retry(false)
            }
            SpendError::Unavailable => Self::unavailable(
                error.code(),
                "The budget cannot be checked: the database is away. Please retry in a moment.",
            ),
        }
    }
}
