//! One configured sender: its scheme, its adapter, its limits.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use jiff::Timestamp;

use super::delivery::VerifiedDelivery;
use super::event::{Collector, IncomingEvent, Kept, Malformed, Outcome, Reply, Stored, fingerprint, hex};
use super::problem::{Problem, ProblemKind};
use super::redact;
use super::schemes::Scheme;
use super::secrets::{Secrets, variable};
use super::sources::{self, Adapter, Sent};
use crate::config::app::{SourceConfig, SourceKind, Stop};

/// How much and what a source takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub max_body_bytes: u64,
    pub max_events: u32,
    /// Lower-case media types without parameters: `application/json`, `application/*+json`, `*/*`.
    pub content_types: Vec<String>,
}

impl Limits {
    /// Whether the request's `Content-Type` is among [`Self::content_types`]. Without a `Content-Type`,
    /// only `*/*` matches.
    pub fn takes_content_type(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let media = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        self.content_types.iter().any(|pattern| media_matches(pattern, &media))
    }
}

fn media_matches(pattern: &str, media: &str) -> bool {
    match pattern.split_once('*') {
        _ if pattern == "*/*" => true,
        Some((before, after)) => {
            media.len() > before.len() + after.len() && media.starts_with(before) && media.ends_with(after)
        }
        None => pattern == media,
    }
}

/// A mistake in a source's configuration; names the setting or the variable to change, never its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("source `{name}` has no secret: set {variable} (or {variable}__<LABEL>)")]
    NoSecret { name: String, variable: String },
    #[error("{variable} {problem}")]
    Secret { variable: String, problem: String },
    #[error("sources.{name}.{setting}: {problem}")]
    Setting { name: String, setting: &'static str, problem: String },
}

/// A request that [`Source::verify`] accepts.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed {
    /// Lower-case names; `content-type` among them.
    pub headers: Vec<(String, String)>,
    /// Query string with the secret, for sources that carry it there.
    pub query: Option<String>,
}

// Both may carry the secret itself.
impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Signed").field("headers", &names).finish_non_exhaustive()
    }
}

impl Signed {
    pub(super) fn header(name: &str, value: impl Into<String>) -> Self {
        Self { headers: vec![(name.to_owned(), value.into())], query: None }
    }
}

/// Nothing here can sign for this source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("source `{0}` expects a token from Microsoft Entra ID, which only Entra can sign")]
    Entra(String),
}

/// A sample of what a sender sends, as it would be kept.
#[derive(Debug)]
pub struct Sample {
    /// By lower-case name.
    pub headers: Vec<(String, String)>,
    pub events: Vec<IncomingEvent>,
}

/// The events of a sample body, split as a delivery's are: for checking what depends on them, without any secret.
/// `event`: what the event is called where its sender says so in a header or in the URL.
pub fn sample(
    name: &str,
    config: &SourceConfig,
    body: &Bytes,
    event: &str,
    now: Timestamp,
) -> Result<Sample, String> {
    let mut errors = Vec::new();
    let adapter = sources::adapter(name, config, &mut errors);
    if let Some(error) = errors.first() {
        return Err(error.to_string());
    }
    let defaults = adapter.defaults();
    let mut events = Collector::new(usize::MAX, defaults.key_lifetime, defaults.content_lifetime);
    let mut headers = Vec::new();
    let id = delivery_id(body, Some(event));
    let sent = Sent { body, id: &id, event: Some(event), now };
    sender_headers(&*adapter, &sent, &mut headers);
    let said = |error: Malformed| error.to_string();
    let (body, _) = redact::body(body, &adapter.secret_places(body).map_err(said)?).map_err(said)?;
    let stored = Stored { headers: &headers, body: &body, event_path: Some(event) };
    adapter.split(&stored, &mut events).map_err(said)?;
    let events = events.finish(name).map_err(said)?;
    Ok(Sample { headers, events })
}

/// Made from the body: the same body is the same delivery.
fn delivery_id(body: &[u8], event: Option<&str>) -> String {
    let hash = fingerprint([event.unwrap_or_default().as_bytes(), body]);
    format!("msg_{}", &hex(&hash)[..32])
}

/// Adds what a sender says beside its proof.
fn sender_headers(adapter: &dyn Adapter, sent: &Sent<'_>, headers: &mut Vec<(String, String)>) {
    adapter.sender_headers(sent, headers);
    if !headers.iter().any(|(name, _)| name == "content-type") {
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
    }
}

/// It becomes an event's type and part of its key.
const MAX_PATH_CHARS: usize = 200;

/// One sender, ready to verify and to take deliveries apart.
pub struct Source {
    name: String,
    kind: SourceKind,
    limits: Limits,
    rate_per_minute: u32,
    retention: Option<Duration>,
    stopped: Option<Stop>,
    key_lifetime: Option<Duration>,
    pub(super) tolerance_seconds: i64,
    pub(super) scheme: Scheme,
    adapter: Box<dyn Adapter>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Source {
    /// Checks the configuration and prepares every key. All mistakes are reported together.
    pub fn new(name: &str, config: &SourceConfig, secrets: Secrets) -> Result<Self, Vec<SourceError>> {
        let mut errors = Vec::new();
        let adapter = sources::adapter(name, config, &mut errors);
        let defaults = adapter.defaults();
        let auth = config.auth.clone().or(defaults.auth);
        if config.auth.is_some() && !defaults.auth_may_be_set {
            errors.push(SourceError::Setting {
                name: name.to_owned(),
                setting: "auth",
                problem: "this kind signs its deliveries and takes no other proof".to_owned(),
            });
        }
        let scheme = Scheme::new(name, config, auth, secrets, &mut errors);
        let identity = config.event.as_ref().and_then(|event| event.key_header.as_deref());
        let credential = scheme.as_ref().and_then(Scheme::credential_header);
        if identity.is_some_and(|name| credential.is_some_and(|other| other.eq_ignore_ascii_case(name))) {
            errors.push(SourceError::Setting {
                name: name.to_owned(),
                setting: "event.key_header",
                problem: "names the header that carries the credential, which is the same for every event"
                    .to_owned(),
            });
        }
        let content_types: Vec<String> = match &config.content_types {
            Some(types) => types.iter().map(|t| t.trim().to_ascii_lowercase()).collect(),
            None => defaults.content_types.iter().map(|&t| t.to_owned()).collect(),
        };
        if content_types.iter().any(|t| !t.contains('/')) || content_types.is_empty() {
            errors.push(SourceError::Setting {
                name: name.to_owned(),
                setting: "content_types",
                problem: "expected media types like `application/json` or `*/*`".to_owned(),
            });
        }
        match scheme {
            Some(scheme) if errors.is_empty() => Ok(Self {
                name: name.to_owned(),
                kind: config.kind,
                limits: Limits {
                    max_body_bytes: config.max_body_bytes.unwrap_or(defaults.max_body_bytes),
                    max_events: config.max_events.unwrap_or(5_000),
                    content_types,
                },
                rate_per_minute: config.rate_per_minute,
                retention: config.retention_days.map(|days| Duration::from_secs(u64::from(days) * 24 * 3600)),
                stopped: config.stopped,
                key_lifetime: config.key_lifetime_seconds.map(Duration::from_secs),
                tolerance_seconds: i64::try_from(config.tolerance().as_secs()).unwrap_or(i64::MAX),
                scheme,
                adapter,
            }),
            _ => Err(errors),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn kind(&self) -> SourceKind {
        self.kind
    }

    /// Stable name of the scheme that verifies: `stripe`, `standard-webhooks`, `github`, `espocrm`, `hmac`, `bearer`,
    /// `basic`, `header`, `query` or `entra`.
    pub fn scheme_name(&self) -> &'static str {
        self.scheme.name()
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Requests a minute one process takes; 0 is no limit.
    pub fn rate_per_minute(&self) -> u32 {
        self.rate_per_minute
    }

    /// How long events are kept; `None` leaves it to `EVENT_RETENTION`.
    pub fn retention(&self) -> Option<Duration> {
        self.retention
    }

    /// What `colloquy.toml` says; a switch may say otherwise.
    pub fn stopped(&self) -> Option<Stop> {
        self.stopped
    }

    /// What sets the body limit, for messages: `sources.stripe.max_body_bytes`.
    pub fn body_limit_setting(&self) -> String {
        format!("sources.{}.max_body_bytes", self.name)
    }

    /// For the `Allow` header.
    pub fn methods(&self) -> &'static str {
        if self.kind == SourceKind::EventGrid { "POST, OPTIONS" } else { "POST" }
    }

    /// Where the keys for [`Self::verify`] are fetched, for sources with Entra tokens.
    pub fn jwks_url(&self) -> Option<&str> {
        self.scheme.jwks_url()
    }

    /// The status this sender takes as "send it again later" (EspoCRM gives up on 429, for one).
    pub fn busy_status(&self) -> StatusCode {
        self.adapter.busy_status()
    }

    /// The checks before the body is read: method, media type, announced length.
    /// `Ok(Some(reply))` is a handshake to answer.
    pub fn open(
        &self,
        method: &Method,
        headers: &HeaderMap,
        content_length: Option<u64>,
    ) -> Result<Option<Reply>, Problem> {
        if method == Method::OPTIONS
            && let Some(reply) = self.adapter.options(headers, self.rate_per_minute)
        {
            return Ok(Some(reply));
        }
        if method != Method::POST {
            return Err(Problem::method_not_allowed(self.methods()));
        }
        if content_length.is_some_and(|length| length > self.limits.max_body_bytes) {
            return Err(Problem::too_large(self.limits.max_body_bytes, &self.body_limit_setting()));
        }
        if !self.limits.takes_content_type(headers) {
            return Err(Problem::new(
                ProblemKind::WrongType,
                format!(
                    "This source takes {}. The list is set by `sources.{}.content_types`.",
                    self.limits.content_types.join(", "),
                    self.name
                ),
            ));
        }
        Ok(None)
    }

    /// Decides what is kept of a verified delivery and what its sender is told.
    ///
    /// Splits the delivery exactly as [`Self::split`] will, so that whatever was accepted can be taken apart
    /// later, and a malformed delivery is refused while its sender still listens.
    pub fn receive(&self, verified: &VerifiedDelivery) -> Result<Outcome, Malformed> {
        let delivery = verified.delivery();
        if delivery.body.is_empty() {
            return Err(Malformed::shape("the body is empty"));
        }
        let unusable =
            |path: &str| path.chars().count() > MAX_PATH_CHARS || path.chars().any(char::is_control);
        if delivery.event_path.as_deref().is_some_and(unusable) {
            return Err(Malformed::shape(format!(
                "the event's name in the path is longer than {MAX_PATH_CHARS} characters or not printable"
            )));
        }
        if let Some(reply) = self.adapter.validation(delivery)? {
            return Ok(Outcome::Answer(reply));
        }
        let kept_names = self.adapter.kept_headers();
        redact::identity_headers_are_usable(&delivery.headers, &kept_names)?;
        let headers = redact::headers(&delivery.headers, &kept_names, self.scheme.credential_header());
        let (body, secrets) = redact::body(&delivery.body, &self.adapter.secret_places(&delivery.body)?)?;
        let stored = Stored { headers: &headers, body: &body, event_path: delivery.event_path.as_deref() };
        let events = self.split(stored)?.len();
        let reply = self.adapter.acknowledge(&body)?;
        Ok(Outcome::Keep(Kept { headers, body, secrets, events, reply }))
    }

    /// The events of a delivery that was kept. Depends on `stored` and the configuration alone; one or more.
    pub fn split(&self, stored: Stored<'_>) -> Result<Vec<IncomingEvent>, Malformed> {
        let defaults = self.adapter.defaults();
        let mut events = Collector::new(
            self.limits.max_events as usize,
            self.key_lifetime.unwrap_or(defaults.key_lifetime),
            self.key_lifetime.unwrap_or(defaults.content_lifetime),
        );
        self.adapter.split(&stored, &mut events)?;
        events.finish(&self.name)
    }

    /// For SailPoint sources: how the event's invocation is to be completed; none for other kinds and for
    /// events that need no completion. The callback's host has been checked again.
    pub fn invocation(&self, payload: &Bytes) -> Result<Option<sources::sailpoint::Invocation>, Malformed> {
        self.adapter.invocation(payload)
    }

    /// Signs as the sender would, with the first secret. `webhooks send` and tests use it.
    ///
    /// Where an id travels in a header it is made from the body: the same body signed again is the same delivery sent
    /// again.
    pub fn sign(&self, body: &[u8], now: Timestamp, event_path: Option<&str>) -> Result<Signed, SignError> {
        let id = delivery_id(body, event_path);
        let mut signed =
            self.scheme.sign(&id, body, now).ok_or_else(|| SignError::Entra(self.name.clone()))?;
        let sent = Sent { body, id: &id, event: event_path, now };
        sender_headers(&*self.adapter, &sent, &mut signed.headers);
        Ok(signed)
    }

    /// The variable of this source's secret `label`.
    pub fn variable(&self, label: &str) -> String {
        variable(&self.name, label)
    }
}
