//! What can go wrong with storage, by what the caller should do about it.

use std::fmt;
use std::time::Duration;

use azure_core::error::ErrorKind;
use azure_core::http::StatusCode;

use super::tokens::TokenError;

/// Which call failed: the operation (`queue.put`) and what it was about (`events`, `payloads/dlv_…`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `queue.` or `blob.` and the operation.
    pub operation: &'static str,
    /// The queue, the container, or container and blob. Never an address.
    pub resource: String,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.resource)
    }
}

/// A storage call that failed.
///
/// Holds no URL, signature, token or message text, in `Display` and `Debug` alike, so it may be logged and kept.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No connection, or one that broke.
    #[error(
        "{call}: the storage account cannot be reached ({reason}); \
         check that it is running and that the endpoints of AzureWebJobsStorage are right"
    )]
    Unreachable { call: Call, reason: String },
    /// No answer within the call's time.
    #[error(
        "{call}: the storage account did not answer within {after:?}; check its health and the network path to it"
    )]
    Timeout { call: Call, after: Duration },
    /// The service answered that it cannot at present (408, 429, 5xx).
    #[error(
        "{call}: the storage account is busy or failing (status {status}, {service_code}); it will be tried again"
    )]
    Busy { call: Call, status: u16, service_code: String },
    /// Key or role not accepted (401, 403).
    #[error(
        "{call}: the storage account refused the credential (status {status}, {service_code}); check the account \
         key, this machine's clock, or the roles Storage Queue Data Contributor and Storage Blob Data Owner"
    )]
    Denied { call: Call, status: u16, service_code: String },
    /// No Entra token to call with.
    #[error("{call}: no token for the storage account: {reason}")]
    NoToken { call: Call, reason: TokenError },
    /// The message does not fit; found before anything was sent. Put the body in a blob and name it instead.
    #[error(
        "{call}: the message takes {bytes} bytes as base64 and a queue takes {limit}; keep the body in a blob"
    )]
    TooLarge { call: Call, bytes: usize, limit: usize },
    /// What the call was about does not exist.
    #[error("{call}: not found ({service_code})")]
    NotFound { call: Call, service_code: String },
    /// The service understood and refused: wrong name, wrong state, failed condition.
    #[error("{call}: the storage account refused the request (status {status}, {service_code})")]
    Refused { call: Call, status: u16, service_code: String },
    /// An answer that cannot be read, or a request that cannot be built. A defect on one of the two sides.
    #[error("{call}: {reason}")]
    Malformed { call: Call, reason: String },
}

impl StorageError {
    /// Whether the cause lies with the storage account, the network or our access to it, not with the work
    /// in hand: such a failure is tried again later and never counts towards a dead letter.
    ///
    /// A refused credential is such a cause: the work is right, the operator has something to mend.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Busy { .. }
            | Self::Denied { .. }
            | Self::NoToken { .. } => true,
            Self::TooLarge { .. } | Self::NotFound { .. } | Self::Refused { .. } | Self::Malformed { .. } => {
                false
            }
        }
    }

    /// Stable name of the kind of failure, for logs, metrics and programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "storage_unreachable",
            Self::Timeout { .. } => "storage_timeout",
            Self::Busy { .. } => "storage_busy",
            Self::Denied { .. } => "storage_denied",
            Self::NoToken { .. } => "storage_no_token",
            Self::TooLarge { .. } => "storage_message_too_large",
            Self::NotFound { .. } => "storage_not_found",
            Self::Refused { .. } => "storage_refused",
            Self::Malformed { .. } => "storage_malformed",
        }
    }

    /// Whether another try within the same call may succeed. Credentials are not tried again: they would
    /// only use up the caller's time.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Busy { .. })
    }

    /// Rebuilds an SDK error without anything it may carry: addresses, headers, response bodies.
    pub(super) fn from_sdk(call: Call, error: azure_core::Error) -> Self {
        match error.kind() {
            ErrorKind::HttpResponse { status, error_code, .. } => {
                let service_code = printable(error_code.as_deref());
                Self::from_status(call, u16::from(*status), service_code)
            }
            ErrorKind::Connection | ErrorKind::Io => {
                let reason = super::transport::reason_of(&error);
                Self::Unreachable { call, reason }
            }
            ErrorKind::Credential => match error.into_downcast::<TokenError>() {
                Ok(reason) => Self::NoToken { call, reason },
                Err(_) => Self::NoToken { call, reason: TokenError::opaque() },
            },
            ErrorKind::DataConversion => Self::Malformed {
                call,
                reason: "the answer of the storage account cannot be read".to_owned(),
            },
            _ => Self::Malformed { call, reason: "the storage client refused the request".to_owned() },
        }
    }

    fn from_status(call: Call, status: u16, service_code: String) -> Self {
        match status {
            401 | 403 => Self::Denied { call, status, service_code },
            404 => Self::NotFound { call, service_code },
            408 | 429 | 500..=599 => Self::Busy { call, status, service_code },
            // The service's own "I am deleting it, come back": a queue or container recreated too soon.
            409 if service_code.ends_with("BeingDeleted") => Self::Busy { call, status, service_code },
            _ => Self::Refused { call, status, service_code },
        }
    }
}

/// The service's error code if `error` is an answer with one, such as `QueueNotFound`.
pub(super) fn service_code(error: &azure_core::Error) -> Option<&str> {
    match error.kind() {
        ErrorKind::HttpResponse { error_code, .. } => error_code.as_deref(),
        _ => None,
    }
}

/// Whether `error` is an answer with this status.
pub(super) fn is_status(error: &azure_core::Error, status: StatusCode) -> bool {
    error.http_status() == Some(status)
}

/// The service's code, or nothing if it is not one: a proxy may put anything in that place.
fn printable(code: Option<&str>) -> String {
    match code {
        Some(code)
            if !code.is_empty() && code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric()) =>
        {
            code.to_owned()
        }
        _ => "no error code".to_owned(),
    }
}

#[cfg(test)]
mod tests;
