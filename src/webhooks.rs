//! Webhooks in: who signs how, what one delivery holds, what each sender is answered.
//!
//! Pure: no sockets, no SQL, no clock. A handler builds a [`Delivery`] from the raw request, and
//! [`Source::verify`] is the only way to a [`VerifiedDelivery`]; [`Source::receive`] turns that into what is
//! kept and what is answered. Later [`Source::split`] takes what was kept apart into [`IncomingEvent`]s, and
//! depends on nothing else, so that a replay finds the same events.
//!
//! - `schemes/`: how a request proves where it comes from.
//! - `sources/`: one adapter per sender: events, keys, answers, redaction.
//! - [`problem`]: every refusal, with its status and stable type.
//! - [`sealing`]: secrets that travel with a delivery, encrypted at rest.
//!
//! `docs/webhooks.md` is the table for people.

mod delivery;
mod event;
mod json;
pub mod problem;
mod redact;
mod schemes;
pub mod sealing;
mod secrets;
mod source;
mod sources;
#[cfg(test)]
mod tests;

pub use crate::access::{KeySet, KeySetError};
pub use delivery::{Delivery, Refused, VerifiedDelivery, VerifyError};
pub use event::{ExtractedSecret, IncomingEvent, Kept, Malformed, Outcome, Reply, Stored};
pub use problem::{Problem, ProblemKind};
pub use secrets::{Secrets, variable};
pub use source::{Limits, Sample, SignError, Signed, Source, SourceError, sample};
pub use sources::sailpoint::{Invocation, ResponseMode};
