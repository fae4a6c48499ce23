//! Callbacks as messages: what a consumer receives, and how it is signed.
//!
//! Standard Webhooks 1.0.0 (`webhook-id`, `webhook-timestamp`, `webhook-signature`), so that every library that
//! verifies those verifies ours. The body of a callback is the same in every attempt; only the timestamp moves.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::Sha256;

use crate::ids::{CallbackId, EventId, ResponseId};

/// The event a callback tells of.
#[derive(Clone, Debug)]
pub struct CallbackEvent {
    pub id: EventId,
    pub source: String,
    pub event_type: String,
    pub received_at: Timestamp,
    pub payload: Bytes,
}

#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    event_type: &'a str,
    timestamp: Timestamp,
    id: EventId,
    source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

/// The body of a callback: `type`, `timestamp` (of arrival), `id`, `source`, and the payload as it came, byte for
/// byte: `data` when it is JSON, else `data_base64`.
pub fn render(event: &CallbackEvent) -> Result<Vec<u8>, serde_json::Error> {
    let data = serde_json::from_slice::<&RawValue>(&event.payload).ok();
    let data_base64 = data.is_none().then(|| BASE64_STANDARD.encode(&event.payload));
    serde_json::to_vec(&Envelope {
        event_type: &event.event_type,
        timestamp: event.received_at,
        id: event.id,
        source: &event.source,
        data,
        data_base64,
    })
}

#[derive(Serialize)]
struct TurnEnvelope<'a> {
    object: &'static str,
    id: EventId,
    #[serde(rename = "type")]
    event_type: &'a str,
    created_at: i64,
    data: TurnData,
}

#[derive(Serialize)]
struct TurnData {
    id: ResponseId,
}

/// The body of a callback that tells of a turn's end, as OpenAI's webhooks have it: an `event` whose id is the
/// callback's, whose `type` is `response.completed` or its like, and whose `data` names the response.
pub fn render_turn(
    id: CallbackId,
    event_type: &str,
    ended_at: Timestamp,
    response: ResponseId,
) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&TurnEnvelope {
        object: "event",
        id: EventId(id.0),
        event_type,
        created_at: ended_at.as_second(),
        data: TurnData { id: response },
    })
}

/// A signing key is not base64 of 24 to 64 bytes, with or without `whsec_` before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected base64 of 24 to 64 bytes, with or without `whsec_` before it")]
pub struct SigningKeyError;

/// A target's signing keys. While keys rotate, every one of them signs.
#[derive(Clone)]
pub struct Signer {
    keys: Vec<Hmac<Sha256>>,
}

impl Signer {
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Result<Self, SigningKeyError> {
        let keys = secrets
            .into_iter()
            .map(|secret| {
                let text = secret.expose_secret();
                let text = text.strip_prefix("whsec_").unwrap_or(text);
                let key = BASE64_STANDARD.decode(text).map_err(|_| SigningKeyError)?;
                if !(24..=64).contains(&key.len()) {
                    return Err(SigningKeyError);
                }
                Hmac::new_from_slice(&key).map_err(|_| SigningKeyError)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { keys })
    }

    /// The value of `webhook-signature`: one `v1,…` a key, separated by spaces.
    pub fn sign(&self, id: CallbackId, at: Timestamp, body: &[u8]) -> String {
        let head = format!("{id}.{}.", at.as_second());
        let signatures: Vec<String> = self
            .keys
            .iter()
            .map(|key| {
                let mut mac = key.clone();
                mac.update(head.as_bytes());
                mac.update(body);
                format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
            })
            .collect();
        signatures.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(payload: &'static [u8]) -> CallbackEvent {
        CallbackEvent {
            id: EventId::new(),
            source: "stripe".into(),
            event_type: "invoice.paid".into(),
            received_at: Timestamp::UNIX_EPOCH,
            payload: Bytes::from_static(payload),
        }
    }

    #[test]
    fn json_passes_byte_for_byte() {
        let body = render(&event(br#"{"n":1.10,"s":"a\/b"}"#)).unwrap();
        let text = String::from_utf8(body).unwrap();
        assert!(text.ends_with(r#""data":{"n":1.10,"s":"a\/b"}}"#), "{text}");
    }

    #[test]
    fn what_is_not_json_travels_as_base64() {
        let body = render(&event(&[0xff, 0x00])).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["data_base64"], "/wA=");
        assert!(value.get("data").is_none());
    }

    #[test]
    fn a_turns_end_is_told_of_as_openai_does() {
        let (id, response) = (CallbackId::new(), ResponseId::new());
        let body =
            render_turn(id, "response.completed", Timestamp::from_second(9).unwrap(), response).unwrap();
        let wanted = serde_json::json!({
            "object": "event", "id": format!("evt_{}", id.0), "type": "response.completed", "created_at": 9,
            "data": { "id": response.to_string() },
        });
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).unwrap(), wanted);
    }

    #[test]
    fn each_key_signs_and_malformed_keys_are_refused() {
        let old = SecretString::from("whsec_MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw");
        let new = SecretString::from("whsec_MTExMTExMTExMTExMTExMTExMTExMTEx");
        let id = CallbackId::new();
        let at = Timestamp::UNIX_EPOCH;
        let both = Signer::new([&new, &old]).unwrap().sign(id, at, b"{}");
        let alone = Signer::new([&old]).unwrap().sign(id, at, b"{}");
        assert_eq!(both.split(' ').count(), 2);
        assert_eq!(both.split(' ').nth(1), Some(alone.as_str()));
        for bad in ["", "whsec_", "whsec_short", "whsec_c2hvcnQ=", "c2hvcnQ="] {
            assert!(Signer::new([&SecretString::from(bad)]).is_err(), "{bad}");
        }
    }
}
