//! One request, before and after verification.

use std::fmt;

use bytes::Bytes;
use http::HeaderMap;
use jiff::Timestamp;

use super::source::Source;
use crate::access::KeySet;

/// One POST as it arrived. Nothing in it may be believed yet.
#[derive(Clone)]
pub struct Delivery {
    pub headers: HeaderMap,
    /// Query string, without the `?`.
    pub query: Option<String>,
    /// What follows the source's name in the path: the event's name for senders that put it there.
    pub event_path: Option<String>,
    /// Exactly the bytes received; signatures cover these and no re-serialised form.
    pub body: Bytes,
    /// The age of a signature is judged against this, once.
    pub received_at: Timestamp,
}

// Headers, query and body may hold secrets and personal data: a debug print shows sizes alone.
impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("headers", &self.headers.len())
            .field("event_path", &self.event_path)
            .field("body_bytes", &self.body.len())
            .field("received_at", &self.received_at)
            .finish_non_exhaustive()
    }
}

/// A delivery whose origin is proven. Made by [`Source::verify`] and by nothing else.
#[derive(Debug)]
pub struct VerifiedDelivery {
    delivery: Delivery,
    label: Option<String>,
    signed_at: Option<Timestamp>,
}

impl VerifiedDelivery {
    pub fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// Which secret matched; none for Entra tokens. Shows when an old secret is no longer used.
    pub fn secret_label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// The time that was signed, for schemes that sign one (Stripe, Standard Webhooks, HMAC with a time's header).
    pub fn signed_at(&self) -> Option<Timestamp> {
        self.signed_at
    }
}

/// Why a delivery is not believed. Says nothing a forger could use: no computed value, no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The headers that carry the proof are absent.
    #[error("the request is not signed: {expected} is missing")]
    NotSigned {
        /// Header or parameter that was looked for.
        expected: String,
    },
    /// The proof is present and wrong, unreadable or ambiguous.
    #[error("the signature does not match: {reason}")]
    BadSignature {
        /// What kind of wrong; fixed text.
        reason: &'static str,
    },
    /// The proof is right but its time lies too far from arrival.
    #[error("signed {off_by_seconds} s away from its arrival; at most {tolerance_seconds} s are allowed")]
    Stale {
        /// Arrival minus time of signing; negative if signed in the future.
        off_by_seconds: i64,
        tolerance_seconds: i64,
    },
    /// The token names a signing key that the given [`KeySet`] does not hold: fetch it anew (at most once
    /// a minute, since anyone can name a key) and verify again. Final if the fresh set lacks it too.
    #[error("the token's signing key is not among the tenant's keys")]
    NeedKeys,
}

impl VerifyError {
    pub(super) fn bad(reason: &'static str) -> Self {
        Self::BadSignature { reason }
    }

    pub(super) fn missing(expected: impl Into<String>) -> Self {
        Self::NotSigned { expected: expected.into() }
    }
}

/// A refused delivery, handed back so that it can be verified again after [`VerifyError::NeedKeys`].
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    pub reason: VerifyError,
    pub delivery: Box<Delivery>,
}

impl Source {
    /// What of the proof can be judged before the body is read, so that nothing is read for a request that cannot be
    /// believed whatever its body is.
    pub fn presented(&self, headers: &HeaderMap, query: Option<&str>) -> Result<(), VerifyError> {
        self.scheme.presented(headers, query)
    }

    /// Believes the delivery or says why not.
    ///
    /// `keys` matter to sources with Entra tokens alone (see [`Source::jwks_url`]); without them such a
    /// source answers [`VerifyError::NeedKeys`].
    pub fn verify(&self, delivery: Delivery, keys: Option<&KeySet>) -> Result<VerifiedDelivery, Refused> {
        match self.scheme.verify(&delivery, self.tolerance_seconds, keys) {
            Ok(proof) => Ok(VerifiedDelivery {
                label: proof.label.map(str::to_owned),
                signed_at: proof.signed_at.and_then(|seconds| Timestamp::from_second(seconds).ok()),
                delivery,
            }),
            Err(reason) => Err(Refused { reason, delivery: Box::new(delivery) }),
        }
    }
}
