//! Decoding the host's envelope, `{"Data":{…},"Metadata":{…}}`.
//!
//! A value that the host holds as an object comes as that object; everything else comes as a JSON *string*
//! holding the value's JSON text. So the text `hi` of a queue message arrives as `"\"hi\""`, a count of 1 as
//! `"1"`. Dates and bytes are exceptions: bare ISO text, bare base64. Older descriptions of the protocol show
//! values without the inner quotes, so both are taken.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::invocation::RetryContext;
use super::payload::QueueMessage;
use super::timer::Timer;

/// Not an envelope the contract knows. Never quotes the body.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EnvelopeError {
    #[error("the body is not {{\"Data\":{{…}},\"Metadata\":{{…}}}} (line {line}, column {column})")]
    NotAnEnvelope { line: usize, column: usize },
    #[error("Data has no value for the binding `{binding}`")]
    NoData { binding: String },
    #[error("the value of the trigger is not a TimerInfo object")]
    NotATimer,
}

/// The parts of an envelope, undecoded, borrowing from its bytes.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(rename = "Data", alias = "data", borrow, default)]
    data: Option<BTreeMap<String, &'a RawValue>>,
    #[serde(rename = "Metadata", alias = "metadata", borrow, default)]
    metadata: Option<HashMap<String, &'a RawValue>>,
}

impl<'a> Envelope<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, EnvelopeError> {
        serde_json::from_slice(body)
            .map_err(|error| EnvelopeError::NotAnEnvelope { line: error.line(), column: error.column() })
    }

    /// The trigger's value: under the binding's name, else the only one there is.
    fn trigger(&self, binding: &str) -> Result<&'a RawValue, EnvelopeError> {
        let data = self.data.iter().flatten();
        let named = data.clone().find(|(name, _)| *name == binding);
        let only = if data.clone().count() == 1 { data.clone().next() } else { None };
        named
            .or(only)
            .map(|(_, value)| *value)
            .ok_or_else(|| EnvelopeError::NoData { binding: binding.to_owned() })
    }

    pub(super) fn queue_message(&self, binding: &str) -> Result<QueueMessage<()>, EnvelopeError> {
        let text = text_of(self.trigger(binding)?);
        let polluted = members_of(&text);
        let known = |name: &str| {
            let unspoilt = !polluted.iter().any(|member| member.eq_ignore_ascii_case(name));
            self.metadata(name).filter(|_| unspoilt)
        };
        Ok(QueueMessage {
            id: known("Id"),
            dequeue_count: known("DequeueCount").and_then(|count| count.parse().ok()).unwrap_or(1),
            inserted_at: known("InsertionTime").as_deref().and_then(time_of),
            text,
            payload: (),
        })
    }

    pub(super) fn timer(&self, binding: &str) -> Result<Timer, EnvelopeError> {
        let value = self.trigger(binding)?;
        let json = if value.get().starts_with('{') { value.get().to_owned() } else { text_of(value) };
        Timer::decode(&json).map_err(|_| EnvelopeError::NotATimer)
    }

    /// Present only under a retry policy. A message's own `RetryContext` member would land here too, so a
    /// queue handler should not build on it.
    pub(super) fn retry(&self) -> Option<RetryContext> {
        #[derive(Deserialize)]
        struct Wire<'a> {
            #[serde(rename = "RetryCount", borrow)]
            count: &'a RawValue,
            #[serde(rename = "MaxRetryCount", borrow)]
            max: &'a RawValue,
        }
        let raw = self.metadata.as_ref()?.get("RetryContext")?;
        let wire: Wire<'_> = serde_json::from_str(raw.get()).ok()?;
        Some(RetryContext {
            count: scalar_of(wire.count)?.parse().ok()?,
            max: scalar_of(wire.max).and_then(|max| max.parse().ok()),
        })
    }

    fn metadata(&self, name: &str) -> Option<String> {
        scalar_of(self.metadata.as_ref()?.get(name)?)
    }
}

/// A value as text, one level of the host's quoting removed. Peels at most twice: what is inside belongs to
/// the sender.
fn text_of(value: &RawValue) -> String {
    let Ok(outer) = serde_json::from_str::<String>(value.get()) else { return value.get().to_owned() };
    serde_json::from_str::<String>(&outer).unwrap_or(outer)
}

/// A metadata value as text; `None` for what is no scalar, which the host never sends for a name of its own.
fn scalar_of(value: &RawValue) -> Option<String> {
    let text = value.get();
    if text.starts_with(['{', '[']) || text == "null" {
        return None;
    }
    Some(text_of(value)).filter(|text| text != "null" && !text.is_empty())
}

/// The top-level member names of a message that is a JSON object: those the host merges into the metadata.
fn members_of(text: &str) -> Vec<String> {
    if !text.trim_start().starts_with('{') {
        return Vec::new();
    }
    serde_json::from_str::<HashMap<String, IgnoredAny>>(text)
        .map(|members| members.into_keys().collect())
        .unwrap_or_default()
}

/// A time as the host writes it: with an offset, or without and then taken as UTC. What lies before 1970
/// (.NET's year 1) means that there is none.
pub(super) fn time_of(text: &str) -> Option<Timestamp> {
    let time = text.parse::<Timestamp>().ok().or_else(|| {
        let local: DateTime = text.parse().ok()?;
        local.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    })?;
    (time >= Timestamp::UNIX_EPOCH).then_some(time)
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
