//! What a verified delivery becomes: what is kept, what is answered, and the events inside.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use secrecy::SecretString;
use sha2::{Digest, Sha256};

/// An answer that is the adapter's to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: StatusCode,
    /// Besides `content-type`.
    pub headers: Vec<(&'static str, String)>,
    pub content_type: &'static str,
    pub body: Bytes,
}

impl Reply {
    pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), content_type: "application/json", body: body.into() }
    }
}

/// What to do with a verified delivery.
#[derive(Debug)]
pub enum Outcome {
    /// A handshake: answer it, keep nothing.
    Answer(Reply),
    /// Make it durable, then answer [`Kept::reply`].
    Keep(Kept),
}

/// What of a delivery is stored, and the answer owed once it is.
pub struct Kept {
    /// Headers by lower-case name, those that splitting needs first; values that may be secret say `[redacted]`.
    pub headers: Vec<(String, String)>,
    /// The body, byte for byte except for extracted secrets.
    pub body: Bytes,
    /// Secrets taken out of the body; the caller seals them (see [`super::sealing`]).
    pub secrets: Vec<ExtractedSecret>,
    /// Number of events inside.
    pub events: usize,
    /// What the sender is told when storing succeeded.
    pub reply: Reply,
}

// Payloads are nobody's business in a log; their sizes may help.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("headers", &self.headers.len())
            .field("body_bytes", &self.body.len())
            .field("secrets", &self.secrets.len())
            .field("events", &self.events)
            .field("status", &self.reply.status)
            .finish_non_exhaustive()
    }
}

/// A secret that stood in a body, where `[redacted]` stands now.
#[derive(Clone, Debug)]
pub struct ExtractedSecret {
    /// JSON pointer to where it stood.
    pub pointer: &'static str,
    pub value: SecretString,
}

/// A delivery as it was kept: all that splitting may depend on.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    /// [`Kept::headers`].
    pub headers: &'a [(String, String)],
    /// [`Kept::body`].
    pub body: &'a Bytes,
    pub event_path: Option<&'a str>,
}

impl<'a> Stored<'a> {
    /// The first header of that (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// One event of a delivery.
#[derive(Clone, PartialEq, Eq)]
pub struct IncomingEvent {
    /// Place in the delivery, from 0.
    pub position: u32,
    /// What makes it the same event when it comes again: unique per source. At most `MAX_KEY_CHARS`
    /// printable characters.
    pub key: String,
    /// Differs if the same key comes with another content.
    pub fingerprint: [u8; 32],
    /// For routes: `invoice.paid`, `Account.create`. Printable, bounded.
    pub event_type: String,
    /// What it is about, if the sender says so: an object's id, a path. Printable, bounded.
    pub subject: Option<String>,
    /// The event's own bytes, as signed.
    pub payload: Bytes,
    /// Whether `payload` is JSON; if not it is the sender's bytes, whatever they are.
    pub json: bool,
    /// How long the key stays claimed.
    pub key_lifetime: Duration,
}

impl fmt::Debug for IncomingEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingEvent")
            .field("position", &self.position)
            .field("key", &self.key)
            .field("event_type", &self.event_type)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// The delivery is authentic but not what its sender's conventions promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not the expected shape.
    #[error("{0}")]
    Shape(String),
    /// More events than the source takes.
    #[error(
        "the delivery holds more than {limit} events; the limit is set by `sources.{source_name}.max_events`"
    )]
    TooManyEvents { limit: u32, source_name: String },
    /// The validation was for an Event Grid subscription that is not expected.
    #[error("the subscription is not among the `subscriptions` of this source in colloquy.toml")]
    UnknownSubscription,
    /// The body asks us to call a host that is not allowed.
    #[error(
        "`callbackURL` names a host that is not among `sailpoint.callback_hosts` of this source in colloquy.toml"
    )]
    CallbackHost,
}

impl Malformed {
    pub(super) fn shape(text: impl Into<String>) -> Self {
        Self::Shape(text.into())
    }
}

/// Longest key kept as it is; longer or unprintable ones are replaced by their hash.
pub const MAX_KEY_CHARS: usize = 300;
const MAX_TYPE_CHARS: usize = 200;
const MAX_SUBJECT_CHARS: usize = 500;

/// An event as an adapter finds it; the rest is the same for all.
pub(super) struct Found<'a> {
    pub identity: Identity<'a>,
    pub event_type: &'a str,
    pub subject: Option<&'a str>,
    pub payload: Bytes,
    pub json: bool,
}

/// What makes an event the same event.
pub(super) enum Identity<'a> {
    /// The sender names it.
    Named { key: String, fingerprint: [u8; 32] },
    /// The sender does not: its content, counted within the delivery, for a short time.
    Content { scope: Option<&'a str> },
}

/// SHA-256 over parts, each preceded by its length so that no two lists of parts collide.
pub(super) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Numbers the events of one delivery and gives them their final keys.
pub(super) struct Collector {
    events: Vec<IncomingEvent>,
    seen: HashMap<[u8; 32], u32>,
    limit: usize,
    overflow: bool,
    named_lifetime: Duration,
    content_lifetime: Duration,
}

impl Collector {
    pub fn new(limit: usize, named_lifetime: Duration, content_lifetime: Duration) -> Self {
        Self {
            events: Vec::new(),
            seen: HashMap::new(),
            limit,
            overflow: false,
            named_lifetime,
            content_lifetime,
        }
    }

    pub fn add(&mut self, found: Found<'_>) {
        if self.events.len() >= self.limit {
            self.overflow = true;
            return;
        }
        let position = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        let (key, fingerprint, key_lifetime) = match found.identity {
            Identity::Named { key, fingerprint } => (key, fingerprint, self.named_lifetime),
            Identity::Content { scope } => {
                let hash = fingerprint([scope.unwrap_or_default().as_bytes(), &found.payload[..]]);
                // A sender without ids may rightly say the same thing twice in one delivery (a field
                // set, changed and set again); only the delivery as a whole is repeated by a retry.
                let count = self.seen.entry(hash).and_modify(|n| *n += 1).or_insert(1);
                let key = format!("{}:content:{}:{count}", scope.unwrap_or("-"), hex(&hash));
                (key, hash, self.content_lifetime)
            }
        };
        self.events.push(IncomingEvent {
            position,
            key: bounded_key(key),
            fingerprint,
            event_type: printable(found.event_type, MAX_TYPE_CHARS),
            subject: found.subject.map(|subject| printable(subject, MAX_SUBJECT_CHARS)),
            payload: found.payload,
            json: found.json,
            key_lifetime,
        });
    }

    pub fn finish(self, source_name: &str) -> Result<Vec<IncomingEvent>, Malformed> {
        if self.overflow {
            let limit = u32::try_from(self.limit).unwrap_or(u32::MAX);
            return Err(Malformed::TooManyEvents { limit, source_name: source_name.to_owned() });
        }
        if self.events.is_empty() {
            return Err(Malformed::shape("the delivery holds no event"));
        }
        Ok(self.events)
    }
}

/// PostgreSQL takes no NUL in text and no index entry over 2.7 kB; a hash is as unique as what it replaces.
fn bounded_key(key: String) -> String {
    if key.chars().count() <= MAX_KEY_CHARS && !key.chars().any(char::is_control) {
        return key;
    }
    format!("sha256:{}", hex(&fingerprint([key.as_bytes()])))
}

fn printable(text: &str, limit: usize) -> String {
    text.chars().take(limit).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
