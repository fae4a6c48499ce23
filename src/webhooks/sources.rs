//! One adapter per kind of sender. An adapter owns everything that differs between senders except the proof
//! of origin: events and their keys, answers, what is redacted, sizes and media types.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use super::delivery::Delivery;
use super::event::{Collector, Malformed, Reply, Stored};
use super::source::SourceError;
use crate::config::app::{AuthConfig, SourceConfig, SourceKind};

mod azure_devops;
mod azure_monitor;
mod espocrm;
mod event_grid;
mod generic;
mod github;
mod runpod;
pub mod sailpoint;
mod standard_webhooks;
mod stripe;

/// How long a key named by its sender stays claimed: longer than any sender's retry or manual resend.
const NAMED: Duration = Duration::from_secs(400 * 24 * 3600);
/// How long a content hash stays claimed. EspoCRM's four attempts are ten minutes apart, each at the next run of its
/// cron, and no sender here without ids retries for longer. Beyond it, equal content is a new event.
const CONTENT: Duration = Duration::from_secs(60 * 60);

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// What applies unless `colloquy.toml` says otherwise.
pub(super) struct Defaults {
    pub max_body_bytes: u64,
    pub content_types: &'static [&'static str],
    /// For keys that the sender names.
    pub key_lifetime: Duration,
    /// For keys made from content.
    pub content_lifetime: Duration,
    /// Proof of origin, for kinds without a payload signature.
    pub auth: Option<AuthConfig>,
    pub auth_may_be_set: bool,
}

impl Defaults {
    /// For a sender that signs its payloads.
    const fn signed(max_body_bytes: u64, content_types: &'static [&'static str]) -> Self {
        Self {
            max_body_bytes,
            content_types,
            key_lifetime: NAMED,
            content_lifetime: CONTENT,
            auth: None,
            auth_may_be_set: false,
        }
    }

    /// For a sender that shows a credential.
    const fn credential(
        max_body_bytes: u64,
        content_types: &'static [&'static str],
        auth: AuthConfig,
    ) -> Self {
        Self {
            max_body_bytes,
            content_types,
            key_lifetime: NAMED,
            content_lifetime: CONTENT,
            auth: Some(auth),
            auth_may_be_set: true,
        }
    }
}

/// A secret in a body.
#[derive(Clone, Copy)]
pub(super) struct SecretPlace {
    /// JSON pointer.
    pub pointer: &'static str,
    /// Whether it is needed later, and so kept encrypted.
    pub needed: bool,
}

/// A delivery as its sender makes it.
#[derive(Clone, Copy)]
pub(super) struct Sent<'a> {
    pub body: &'a [u8],
    /// The same for the same body.
    pub id: &'a str,
    /// What the event is called, where the sender says so beside the body.
    pub event: Option<&'a str>,
    pub now: Timestamp,
}

/// One sender's conventions.
pub(super) trait Adapter: Send + Sync {
    fn defaults(&self) -> Defaults;

    /// Adds every event of the delivery, in order. Must depend on nothing but its arguments.
    fn split(&self, stored: &Stored<'_>, events: &mut Collector) -> Result<(), Malformed>;

    /// The answer once the delivery is durable.
    fn acknowledge(&self, _body: &Bytes) -> Result<Reply, Malformed> {
        Ok(Reply::json(StatusCode::OK, "{}"))
    }

    /// For a rate limit or trouble of ours.
    fn busy_status(&self) -> StatusCode {
        StatusCode::TOO_MANY_REQUESTS
    }

    /// Lower-case names of headers whose values splitting needs. They are kept, must not be repeated, and may
    /// end in `*`.
    fn kept_headers(&self) -> Vec<String> {
        Vec::new()
    }

    /// Where secrets stand in this body; they are taken out before anything is stored.
    fn secret_places(&self, _body: &Bytes) -> Result<Vec<SecretPlace>, Malformed> {
        Ok(Vec::new())
    }

    /// The answer to `OPTIONS`, if the sender asks before it sends.
    fn options(&self, _headers: &HeaderMap, _rate_per_minute: u32) -> Option<Reply> {
        None
    }

    /// The answer to a verified handshake that is not an event.
    fn validation(&self, _delivery: &Delivery) -> Result<Option<Reply>, Malformed> {
        Ok(None)
    }

    /// See [`Source::invocation`](super::source::Source::invocation).
    fn invocation(&self, _payload: &Bytes) -> Result<Option<sailpoint::Invocation>, Malformed> {
        Ok(None)
    }

    /// Headers the sender sets besides its proof. Those that `headers` has already stay as they are.
    fn sender_headers(&self, _sent: &Sent<'_>, _headers: &mut Vec<(String, String)>) {}
}

/// The adapter of a source; mistakes in its part of the configuration are added to `errors`.
pub(super) fn adapter(name: &str, config: &SourceConfig, errors: &mut Vec<SourceError>) -> Box<dyn Adapter> {
    let wrong = |setting: &'static str, problem: &str| SourceError::Setting {
        name: name.to_owned(),
        setting,
        problem: problem.to_owned(),
    };
    let generic = matches!(config.kind, SourceKind::Hmac | SourceKind::Bearer | SourceKind::Basic);
    if config.event.is_some() && !generic {
        errors.push(wrong(
            "event",
            "only for the kinds `hmac`, `bearer` and `basic`; this kind knows its events",
        ));
    }
    if config.hmac.is_some() != (config.kind == SourceKind::Hmac) {
        errors.push(wrong("hmac", "required for the kind `hmac`, and only there"));
    }
    if config.sailpoint.is_some() && config.kind != SourceKind::Sailpoint {
        errors.push(wrong("sailpoint", "only for the kind `sailpoint`"));
    }
    if !config.subscriptions.is_empty() && config.kind != SourceKind::EventGrid {
        errors.push(wrong("subscriptions", "only for the kind `event-grid`"));
    }
    match config.kind {
        SourceKind::Stripe => Box::new(stripe::Stripe),
        SourceKind::StandardWebhooks => Box::new(standard_webhooks::StandardWebhooks),
        SourceKind::Github => Box::new(github::Github),
        SourceKind::Espocrm => Box::new(espocrm::Espocrm),
        SourceKind::EventGrid => {
            Box::new(event_grid::EventGrid { subscriptions: config.subscriptions.clone() })
        }
        SourceKind::AzureMonitor => Box::new(azure_monitor::AzureMonitor),
        SourceKind::AzureDevops => Box::new(azure_devops::AzureDevops),
        SourceKind::Sailpoint => {
            Box::new(sailpoint::Sailpoint::new(config.sailpoint.clone().unwrap_or_default()))
        }
        SourceKind::Runpod => Box::new(runpod::Runpod),
        SourceKind::Hmac | SourceKind::Bearer | SourceKind::Basic => Box::new(generic::Generic::new(
            name,
            config.kind,
            config.event.clone().unwrap_or_default(),
            errors,
        )),
    }
}
