//! Sources from the text of `colloquy.toml`, requests by hand, and the way from one to the other.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

use crate::config::app::AppConfig;
use crate::config::{LabelledSecret, fixed};
use crate::webhooks::{
    Delivery, IncomingEvent, Kept, KeySet, Malformed, Outcome, Reply, Secrets, Source, SourceError, Stored,
    VerifiedDelivery, VerifyError,
};

/// Unix seconds at which requests arrive unless they say otherwise.
pub const NOW: i64 = 1_763_700_000;

/// A source called `sender`, from what stands in its table of `colloquy.toml` and its secrets by label.
pub fn try_source(table: &str, secrets: &[(&str, &str)]) -> Result<Source, Vec<SourceError>> {
    let none: [(&str, &str); 0] = [];
    let text = format!("[sources.sender]\n{table}\n");
    let app = AppConfig::parse(&text, Some(&fixed(none)), &[]).unwrap();
    let labelled = |(label, value): &(&str, &str)| LabelledSecret {
        label: (*label).to_owned(),
        value: (*value).to_owned().into(),
    };
    Source::new("sender", &app.sources["sender"], Secrets::new(secrets.iter().map(labelled).collect()))
}

pub fn source(table: &str, secret: &str) -> Source {
    try_source(table, &[("default", secret)]).unwrap()
}

/// A source of each kind, with a secret that fits.
pub fn every_kind() -> Vec<Source> {
    let of = |kind: &str, secret: &str| source(&format!("kind = \"{kind}\""), secret);
    let timed = "kind = \"hmac\"\nhmac = { header = \"x-signature\", prefix = \"v0=\", timestamp_header = \"x-time\", \
                 signed = \"v0:{timestamp}:{body}\" }";
    vec![
        of("stripe", "whsec_test_secret"),
        of("standard-webhooks", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"),
        of("github", "It's a Secret to Everybody"),
        of("espocrm", "0123456789abcdef0123456789abcdef"),
        of("event-grid", "grid-secret"),
        of("azure-monitor", "monitor token&="),
        of("azure-devops", "user:pass:word"),
        of("sailpoint", "sailpoint-token"),
        of("runpod", "runpod-token"),
        source(timed, "slack-like"),
        source(
            "kind = \"hmac\"\nhmac = { header = \"x-signature\", encoding = \"base64\", algorithm = \"sha512\" }",
            "k",
        ),
        of("bearer", "bearer-token"),
        of("basic", ":only-a-password"),
    ]
}

/// A request before it is a [`Delivery`].
#[derive(Clone)]
pub struct Post(pub Delivery);

// In full, unlike a Delivery's: a case that fails has to be seen.
impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Post")
            .field(&self.0)
            .field(&self.0.headers)
            .field(&self.0.query)
            .field(&self.0.body)
            .finish()
    }
}

pub fn post(body: impl Into<Bytes>) -> Post {
    let delivery = Delivery {
        headers: HeaderMap::new(),
        query: None,
        event_path: None,
        body: body.into(),
        received_at: Timestamp::from_second(NOW).unwrap(),
    };
    Post(delivery).header("content-type", "application/json")
}

impl Post {
    /// Adds a header, also beside one of the same name; `content-type` is replaced.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        if name == http::header::CONTENT_TYPE {
            self.0.headers.insert(name, value);
        } else {
            self.0.headers.append(name, value);
        }
        self
    }

    pub fn query(mut self, query: &str) -> Self {
        self.0.query = Some(query.to_owned());
        self
    }

    pub fn path(mut self, event: &str) -> Self {
        self.0.event_path = Some(event.to_owned());
        self
    }

    pub fn at(mut self, seconds: i64) -> Self {
        self.0.received_at = Timestamp::from_second(seconds).unwrap();
        self
    }

    /// Signed by `source` at the time of arrival.
    pub fn signed_by(mut self, source: &Source) -> Self {
        let path = self.0.event_path.clone();
        let signed = source.sign(&self.0.body, self.0.received_at, path.as_deref()).unwrap();
        if let Some(query) = signed.query {
            self = self.query(&query);
        }
        signed.headers.iter().fold(self, |post, (name, value)| {
            let given = match name.as_str() {
                "content-type" => post.0.headers["content-type"] != "application/json",
                // What a source's events are named by in headers of its own choice.
                name => name.starts_with("x-event-") && post.0.headers.contains_key(name),
            };
            if given { post } else { post.header(name, value) }
        })
    }

    pub fn verify(&self, source: &Source) -> Result<VerifiedDelivery, VerifyError> {
        self.verify_by(source, None)
    }

    pub fn verify_with(&self, source: &Source, keys: &KeySet) -> Result<VerifiedDelivery, VerifyError> {
        self.verify_by(source, Some(keys))
    }

    fn verify_by(&self, source: &Source, keys: Option<&KeySet>) -> Result<VerifiedDelivery, VerifyError> {
        let verified = source.verify(self.0.clone(), keys).map_err(|refused| refused.reason);
        // What is refused before its body is read is refused with it, for the same reason.
        if let Err(early) = source.presented(&self.0.headers, self.0.query.as_deref()) {
            assert_eq!(verified.as_ref().err(), Some(&early), "{self:?}");
        }
        verified
    }

    /// What `source` makes of it once signed.
    pub fn receive(self, source: &Source) -> Result<Outcome, Malformed> {
        let verified = self.signed_by(source).verify(source).unwrap();
        source.receive(&verified)
    }

    pub fn kept(self, source: &Source) -> Kept {
        match self.receive(source).unwrap() {
            Outcome::Keep(kept) => kept,
            Outcome::Answer(reply) => panic!("answered with {reply:?}"),
        }
    }

    pub fn answered(self, source: &Source) -> Reply {
        match self.receive(source).unwrap() {
            Outcome::Answer(reply) => reply,
            Outcome::Keep(kept) => panic!("kept as {kept:?}"),
        }
    }

    /// Its events, split from what was kept and nothing else.
    pub fn events(self, source: &Source) -> Vec<IncomingEvent> {
        let path = self.0.event_path.clone();
        let kept = self.kept(source);
        let stored = Stored { headers: &kept.headers, body: &kept.body, event_path: path.as_deref() };
        let events = source.split(stored).unwrap();
        assert_eq!(events.len(), kept.events);
        events
    }

    /// Its one event.
    pub fn event(self, source: &Source) -> IncomingEvent {
        let events = self.events(source);
        assert_eq!(events.len(), 1);
        events.into_iter().next().unwrap()
    }
}

/// A file of `tests/fixtures/events`.
pub fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/events/{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

pub fn code(result: Result<VerifiedDelivery, VerifyError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(VerifyError::NotSigned { .. }) => "not_signed",
        Err(VerifyError::BadSignature { .. }) => "bad_signature",
        Err(VerifyError::Stale { .. }) => "stale",
        Err(VerifyError::NeedKeys) => "unknown_key",
    }
}
