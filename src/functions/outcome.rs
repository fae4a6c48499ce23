//! What a queue or timer handler decides, and who carries it out.

use std::time::Duration;

use futures_util::future::BoxFuture;

/// How an invocation ended.
///
/// | outcome | queue | timer |
/// |---|---|---|
/// | `Done` | the message is deleted | the tick succeeded |
/// | `Retry` | [`Settlement::retry`], then deleted; without it, the host retries and counts | shown as failed; the next tick comes on schedule |
/// | `DeadLetter` | [`Settlement::dead_letter`], then deleted; without it, the host retries | shown as failed |
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Finished; also the answer to a message whose work is already done, taken, or not due.
    Done,
    /// Not now. `after` is the delay asked for; `None` leaves it to the settlement.
    Retry {
        after: Option<Duration>,
        /// For the log and the host's invocation log: no payloads, no secrets.
        reason: String,
    },
    /// Never. The message is kept for a person to look at.
    DeadLetter {
        /// As for `Retry`.
        reason: String,
    },
}

impl Outcome {
    /// Not now, with the settlement's own delay.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { after: None, reason: reason.into() }
    }

    /// Not before `after` has passed.
    pub fn retry_after(after: Duration, reason: impl Into<String>) -> Self {
        Self::Retry { after: Some(after), reason: reason.into() }
    }

    /// Never.
    pub fn dead_letter(reason: impl Into<String>) -> Self {
        Self::DeadLetter { reason: reason.into() }
    }
}

/// Carries out `Retry` and `DeadLetter` of queue messages.
///
/// Called before the host is answered: `Ok` means that the message at hand may be deleted, so it must be
/// durable elsewhere by then. `Err`, a panic, or taking longer than the settlement limit makes the host retry
/// the message. `queue` is as registered (`%QUEUE_JOBS%` stays unresolved), `text` the message as it came;
/// with `dataType: binary` that is base64. The error is logged: what failed and what to do, no payloads.
pub trait Settlement: Send + Sync + 'static {
    /// Puts the message back, to be seen again no sooner than `after`.
    fn retry<'a>(
        &'a self,
        function: &'a str,
        queue: &'a str,
        text: &'a str,
        after: Option<Duration>,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<(), String>>;

    /// Keeps the message where a person finds it.
    fn dead_letter<'a>(
        &'a self,
        function: &'a str,
        queue: &'a str,
        text: &'a str,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<(), String>>;
}
