//! Every refusal of a delivery: its status, its stable type, and what the sender is told (RFC 9457).

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use super::delivery::VerifyError;
use super::event::Malformed;
use super::source::Source;

/// Media type of a problem's body.
pub const CONTENT_TYPE: &str = "application/problem+json";

macro_rules! problems {
    ($($(#[$doc:meta])* $kind:ident = $status:ident, $slug:literal, $title:literal;)*) => {
        /// What went wrong. They stand in the table of `docs/errors.md`, and a test compares them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ProblemKind { $($(#[$doc])* $kind,)* }

        impl ProblemKind {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The RFC 9457 `type`: stable, a path relative to the API's documentation.
            pub fn type_uri(self) -> &'static str {
                match self { $(Self::$kind => concat!("/problems/", $slug),)* }
            }

            /// Stable word for logs and metrics.
            pub fn code(self) -> &'static str {
                match self { $(Self::$kind => $slug,)* }
            }

            pub fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)* }
            }

            /// The usual status; [`Problem::rate_limited`] uses the source's own.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status,)* }
            }
        }
    };
}

problems! {
    /// No source of that name in `colloquy.toml`.
    UnknownSource = NOT_FOUND, "unknown-source", "Unknown source";
    /// The source is stopped and set to refuse.
    SourceStopped = SERVICE_UNAVAILABLE, "source-stopped", "Source stopped";
    /// Missing, wrong, unreadable or ambiguous proof of origin.
    BadSignature = UNAUTHORIZED, "bad-signature", "Signature missing or wrong";
    /// The proof is right but too old, or from the future.
    StaleSignature = UNAUTHORIZED, "stale-signature", "Signature too old or too new";
    /// Event Grid asks to validate a subscription that is not expected.
    UnknownSubscription = FORBIDDEN, "unknown-subscription", "Unknown subscription";
    /// Neither POST nor a handshake the source knows.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed";
    /// The body's length is not announced.
    LengthRequired = LENGTH_REQUIRED, "length-required", "Length required";
    /// The body is larger than the source takes.
    TooLarge = PAYLOAD_TOO_LARGE, "too-large", "Body too large";
    /// The media type is not among the source's.
    WrongType = UNSUPPORTED_MEDIA_TYPE, "wrong-type", "Media type not taken";
    /// Authentic, but not of the sender's usual shape.
    Malformed = BAD_REQUEST, "malformed", "Malformed delivery";
    /// Authentic, but names a callback host that is not allowed.
    CallbackRefused = BAD_REQUEST, "callback-refused", "Callback host not allowed";
    /// More requests than `rate_per_minute`.
    RateLimited = TOO_MANY_REQUESTS, "rate-limited", "Too many requests";
    /// The body took longer than `INGRESS_TIMEOUT`: send it again.
    TookTooLong = SERVICE_UNAVAILABLE, "took-too-long", "The request took too long";
    /// There is no room for the body now: send it again.
    Overloaded = SERVICE_UNAVAILABLE, "overloaded", "Too much at once";
    /// The delivery could not be made durable: send it again.
    QueueUnavailable = SERVICE_UNAVAILABLE, "queue-unavailable", "Cannot store the delivery now";
    /// The keys of Microsoft Entra ID could not be fetched: send it again.
    KeysUnavailable = SERVICE_UNAVAILABLE, "keys-unavailable", "Cannot check the token now";
    /// A fault of ours.
    Internal = INTERNAL_SERVER_ERROR, "internal", "Internal error";
}

/// One refusal, ready to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub kind: ProblemKind,
    pub status: StatusCode,
    /// For the person who configures the sender; never a secret, never a part of the body.
    pub detail: Cow<'static, str>,
    /// For the `Retry-After` header.
    pub retry_after: Option<Duration>,
    /// For the `Allow` header.
    pub allow: Option<&'static str>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
}

impl Problem {
    pub fn new(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, status: kind.status(), detail: detail.into(), retry_after: None, allow: None }
    }

    fn retry(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    pub fn unknown_source() -> Self {
        Self::new(ProblemKind::UnknownSource, "No source of this name is configured.")
    }

    pub fn source_stopped(retry_after: Duration) -> Self {
        Self::new(ProblemKind::SourceStopped, "This source is stopped. Send the delivery again later.")
            .retry(retry_after)
    }

    /// `allow` is the value of the `Allow` header, from [`Source::methods`].
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let mut problem = Self::new(ProblemKind::MethodNotAllowed, "Deliveries are sent with POST.");
        problem.allow = Some(allow);
        problem
    }

    pub fn length_required() -> Self {
        Self::new(
            ProblemKind::LengthRequired,
            "The request announces no Content-Length and its body was not received.",
        )
    }

    /// `limit` in bytes; `setting` is the name of what sets it, see [`Source::body_limit_setting`].
    pub fn too_large(limit: u64, setting: &str) -> Self {
        Self::new(
            ProblemKind::TooLarge,
            format!("The body is larger than {limit} bytes. The limit is set by `{setting}`."),
        )
    }

    /// For a source's rate limit, with the status its sender takes as "later".
    pub fn rate_limited(source: &Source, retry_after: Duration) -> Self {
        let mut problem = Self::new(
            ProblemKind::RateLimited,
            format!("More requests than `sources.{}.rate_per_minute` allows.", source.name()),
        );
        problem.status = source.busy_status();
        problem.retry(retry_after)
    }

    pub fn took_too_long(retry_after: Duration) -> Self {
        Self::new(ProblemKind::TookTooLong, "The body did not arrive in time. Send it again.")
            .retry(retry_after)
    }

    pub fn overloaded(retry_after: Duration) -> Self {
        Self::new(ProblemKind::Overloaded, "Too many deliveries are being received. Send it again.")
            .retry(retry_after)
    }

    pub fn queue_unavailable(retry_after: Duration) -> Self {
        Self::new(ProblemKind::QueueUnavailable, "The delivery could not be stored. Send it again.")
            .retry(retry_after)
    }

    pub fn keys_unavailable(retry_after: Duration) -> Self {
        Self::new(
            ProblemKind::KeysUnavailable,
            "The keys that sign the token could not be fetched. Send it again.",
        )
        .retry(retry_after)
    }

    pub fn internal() -> Self {
        Self::new(ProblemKind::Internal, "Something went wrong here. The request id finds it in the logs.")
    }

    /// The body: a JSON object with `type`, `title`, `status`, `detail` and `request_id`.
    pub fn body(&self, request_id: &str) -> Bytes {
        let body = Body {
            r#type: self.kind.type_uri(),
            title: self.kind.title(),
            status: self.status.as_u16(),
            detail: &self.detail,
            request_id,
        };
        // Strings and a number cannot fail to serialise; an empty object is the honest fallback.
        serde_json::to_vec(&body).map_or_else(|_| Bytes::from_static(b"{}"), Bytes::from)
    }
}

impl From<&VerifyError> for Problem {
    fn from(error: &VerifyError) -> Self {
        let kind = match error {
            VerifyError::NotSigned { .. } | VerifyError::BadSignature { .. } | VerifyError::NeedKeys => {
                ProblemKind::BadSignature
            }
            VerifyError::Stale { .. } => ProblemKind::StaleSignature,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<&Malformed> for Problem {
    fn from(error: &Malformed) -> Self {
        let kind = match error {
            Malformed::Shape(_) => ProblemKind::Malformed,
            Malformed::TooManyEvents { .. } => ProblemKind::TooLarge,
            Malformed::UnknownSubscription => ProblemKind::UnknownSubscription,
            Malformed::CallbackHost => ProblemKind::CallbackRefused,
        };
        Self::new(kind, error.to_string())
    }
}
