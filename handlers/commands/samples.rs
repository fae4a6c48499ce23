//! A sample of what each kind of sender sends: the files of `tests/fixtures/events`, compiled in.

use colloquy::config::app::{SourceConfig, SourceKind};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../tests/fixtures/events/", $name, ".json"))
    };
}

/// The body of a sample, and where its id stands.
pub fn of(config: &SourceConfig) -> (&'static str, &str) {
    match config.kind {
        SourceKind::Stripe => (fixture!("stripe"), "/id"),
        SourceKind::StandardWebhooks => (fixture!("standard-webhooks"), "/data/id"),
        SourceKind::Github => (fixture!("github"), "/after"),
        SourceKind::Espocrm => (fixture!("espocrm"), "/0/id"),
        SourceKind::EventGrid => (fixture!("event-grid"), "/0/id"),
        SourceKind::AzureMonitor => (fixture!("azure-monitor"), "/data/essentials/alertId"),
        SourceKind::AzureDevops => (fixture!("azure-devops"), "/id"),
        SourceKind::Sailpoint => (fixture!("sailpoint"), "/accessRequestId"),
        SourceKind::Runpod => (fixture!("runpod"), "/id"),
        SourceKind::Hmac | SourceKind::Bearer | SourceKind::Basic => {
            let pointer = config.event.as_ref().and_then(|event| event.key_pointer.as_deref());
            (fixture!("generic"), pointer.unwrap_or("/id"))
        }
    }
}

/// Every sample of what a source's kind sends.
pub fn all(config: &SourceConfig) -> impl Iterator<Item = &'static str> {
    let more = match config.kind {
        SourceKind::AzureMonitor => Some(fixture!("azure-monitor-resolved")),
        SourceKind::Sailpoint => Some(fixture!("sailpoint-async")),
        _ => None,
    };
    [of(config).0].into_iter().chain(more)
}
