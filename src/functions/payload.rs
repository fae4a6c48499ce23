//! Queue messages and what their text decodes to.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

/// A message of a queue function.
///
/// Everything but `text` and `payload` is the host's metadata. The host merges the members of a message that
/// is a JSON object into it, over its own; a value that such a member can have replaced is given as unknown.
/// Start the text with something that is not JSON (`v1 {…}`) to keep it.
#[derive(Clone, Debug)]
pub struct QueueMessage<T> {
    /// The storage queue's message id. A hint for logs; what a message *is* belongs in its payload.
    pub id: Option<String>,
    /// How often the message was taken, from 1; 1 if unknown.
    pub dequeue_count: u32,
    /// When the message was put.
    pub inserted_at: Option<Timestamp>,
    /// The text as put, base64 of the transport removed; with `dataType: binary` it is base64.
    pub text: String,
    /// The text, decoded.
    pub payload: T,
}

impl<T> QueueMessage<T> {
    pub(super) fn with<U>(self, payload: U) -> QueueMessage<U> {
        let Self { id, dequeue_count, inserted_at, text, .. } = self;
        QueueMessage { id, dequeue_count, inserted_at, text, payload }
    }
}

/// A type that a message's text decodes to.
///
/// `String` is the text itself, [`Json`] any deserialisable type, [`Binary`] the bytes of a binding with
/// `dataType: binary`.
pub trait Payload: Sized + Send + 'static {
    /// Whether the binding must have `"dataType": "binary"`, so that the text is base64 of bytes. Any other binding gives
    /// the text itself, and [`App::check`](super::App::check) refuses a `function.json` that says otherwise.
    const BINARY: bool = false;

    /// Decodes the text. A message with an error is dead-lettered at once; one whose error may mend (or without a
    /// [`Settlement`](super::Settlement)) fails the invocation, so that the host retries and at last moves it to the
    /// poison queue.
    fn decode(text: &str) -> Result<Self, PayloadError>;
}

/// A message that is not what its function takes. Logged, so it never quotes the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct PayloadError {
    /// Stable, `payload.…`.
    pub code: &'static str,
    /// What is wrong and where; never the text itself.
    pub detail: String,
    /// Another process, of another version, may be able to read it.
    pub may_mend: bool,
}

impl PayloadError {
    /// `code` should start with `payload.`.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), may_mend: false }
    }

    /// For a message that another version may be able to read.
    pub fn of_another_version(code: &'static str, detail: impl Into<String>) -> Self {
        Self { may_mend: true, ..Self::new(code, detail) }
    }
}

impl Payload for String {
    fn decode(text: &str) -> Result<Self, PayloadError> {
        Ok(text.to_owned())
    }
}

/// A payload in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned + Send + 'static> Payload for Json<T> {
    fn decode(text: &str) -> Result<Self, PayloadError> {
        serde_json::from_str(text).map(Json).map_err(|error| {
            // serde's message may quote the payload; its place does not.
            let what = match error.classify() {
                serde_json::error::Category::Data => "JSON of another shape",
                _ => "not JSON",
            };
            let (line, column) = (error.line(), error.column());
            PayloadError::new("payload.json", format!("the message is {what} (line {line}, column {column})"))
        })
    }
}

/// The bytes of a message whose binding has `"dataType": "binary"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary(pub Bytes);

impl Payload for Binary {
    const BINARY: bool = true;

    fn decode(text: &str) -> Result<Self, PayloadError> {
        STANDARD.decode(text).map(|bytes| Self(bytes.into())).map_err(|_| {
            PayloadError::new(
                "payload.base64",
                "the message is not base64; is the binding's dataType `binary`?",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Order {
        id: u32,
    }

    #[test]
    fn json_errors_give_the_place_and_not_the_text() {
        assert_eq!(Json::decode(r#"{"id":7}"#), Ok(Json(Order { id: 7 })));
        let wrong = Json::<Order>::decode(r#"{"id":"hunter2"}"#).expect_err("a string");
        assert_eq!(wrong.code, "payload.json");
        assert!(wrong.detail.contains("another shape") && wrong.detail.contains("line 1"), "{wrong}");
        assert!(!wrong.detail.contains("hunter2"), "{wrong}");
        let torn = Json::<Order>::decode(r#"{"id":"#).expect_err("torn");
        assert!(torn.detail.contains("not JSON"), "{torn}");
    }

    #[test]
    fn binary_is_base64() {
        assert_eq!(Binary::decode("AP8="), Ok(Binary(Bytes::from_static(&[0, 255]))));
        assert_eq!(Binary::decode("hello!").expect_err("text").code, "payload.base64");
    }
}
