//! What senders post: headers that prove where it comes from, and bodies that are to be taken apart.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

use super::{header_lines, split};
use crate::config::app::{AppConfig, SourceKind};
use crate::config::fixed;
use crate::events::message::{self, EventMessage, JobHint};
use crate::functions::Payload;
use crate::webhooks::{Delivery, KeySet, Outcome, Secrets, Source, Stored, VerifyError};

/// When every request arrives, in Unix seconds.
const NOW: i64 = 1_763_700_000;
/// In no input, so what is believed without it was believed wrongly.
const SECRET: &str = "Nn3zq1Ow6t8yKc5bR7vXs2LdHg4jFp9a";
const ENTRA: &str = "tenant = \"8a1f7b9e-2c3d-4e5f-8091-a2b3c4d5e6f7\", audience = \"api://colloquy\"";

/// A source of each kind, and of each way to prove oneself.
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let hmac = |terms: &str| format!("kind = \"hmac\"\nhmac = {{ header = \"x-signature\", {terms} }}");
    let mut tables: Vec<(String, String)> =
        ["stripe", "github", "espocrm", "event-grid", "azure-monitor", "runpod", "bearer"]
            .map(|kind| (format!("kind = \"{kind}\""), SECRET.to_owned()))
            .into();
    tables.extend([
        ("kind = \"azure-devops\"".to_owned(), format!("user:{SECRET}")),
        ("kind = \"basic\"".to_owned(), format!("user:{SECRET}")),
        ("kind = \"standard-webhooks\"".to_owned(), format!("whsec_{SECRET}")),
        (
            "kind = \"sailpoint\"\nsailpoint.callback_hosts = [\"acme.api.identitynow.com\"]".to_owned(),
            SECRET.to_owned(),
        ),
        (
            hmac(r#"prefix = "v0=", timestamp_header = "x-time", signed = "v0:{timestamp}:{body}""#),
            SECRET.to_owned(),
        ),
        (hmac(r#"encoding = "base64", algorithm = "sha512""#), SECRET.to_owned()),
        ("kind = \"bearer\"\nauth.header.name = \"x-token\"".to_owned(), SECRET.to_owned()),
        ("kind = \"bearer\"\nauth.query.name = \"token\"".to_owned(), SECRET.to_owned()),
        (
            "kind = \"bearer\"\nevent = { key_pointer = \"/n\", type_pointer = \"/t\", split_pointer = \"/list\" }"
                .to_owned(),
            SECRET.to_owned(),
        ),
        (
            "kind = \"bearer\"\nevent = { key_header = \"x-key\", type_header = \"x-type\" }".to_owned(),
            SECRET.to_owned(),
        ),
        (format!("kind = \"event-grid\"\nauth.entra = {{ {ENTRA} }}"), String::new()),
    ]);
    tables
        .into_iter()
        .map(|(table, secret)| {
            let text = format!("[sources.sender]\n{table}\n");
            let none: [(&str, &str); 0] = [];
            let app = AppConfig::parse(&text, Some(&fixed(none)), &[])
                .unwrap_or_else(|mistakes| panic!("{table}: {mistakes:?}"));
            let secrets = if secret.is_empty() { Secrets::default() } else { Secrets::one(secret) };
            Source::new("sender", &app.sources["sender"], secrets)
                .unwrap_or_else(|errors| panic!("{table}: {errors:?}"))
        })
        .collect()
});

static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    KeySet::parse(include_bytes!("../../tests/fixtures/keys/jwks.json")).expect("a set of keys")
});

/// An input as a request: what stands behind the path, headers one a line, an empty line, the body.
///
/// The first line is `event?query`, both of which may be left out.
fn delivery(data: &[u8]) -> Delivery {
    let (head, body) = split(data, b"\n\n");
    let (target, lines) = split(head, b"\n");
    let (path, query) = split(target, b"?");
    let text =
        |bytes: &[u8]| Some(String::from_utf8_lossy(bytes).into_owned()).filter(|text| !text.is_empty());
    Delivery {
        headers: header_lines(lines),
        query: text(query),
        event_path: text(path),
        body: Bytes::copy_from_slice(body),
        received_at: Timestamp::from_second(NOW).expect("a time"),
    }
}

/// No request is believed without the secret, and what is refused early is refused for the same reason.
pub fn signatures(data: &[u8]) {
    let delivery = delivery(data);
    for source in SOURCES.iter() {
        let early = source.presented(&delivery.headers, delivery.query.as_deref()).err();
        let verified = source.verify(delivery.clone(), Some(&KEYS)).map_err(|refused| refused.reason);
        let Err(reason) = verified else {
            panic!("{} believed a request that holds no secret", source.scheme_name());
        };
        if let Some(early) = early {
            assert_eq!(early, reason, "{}", source.scheme_name());
        }
    }
}

/// What is signed is believed, and what is signed and then changed is not; an authentic body of any form is taken apart
/// or refused, and what was kept of it gives the same events again.
pub fn deliveries(data: &[u8]) {
    let plain = delivery(data);
    for source in SOURCES.iter() {
        let Some(delivery) = signed(source, &plain) else { continue };
        if is_mac(source.kind()) {
            let mut changed = delivery.clone();
            changed.body = [&changed.body[..], b" "].concat().into();
            let refused = source.verify(changed, None).map(drop).map_err(|refused| refused.reason);
            assert!(
                matches!(refused, Err(VerifyError::BadSignature { .. })),
                "{}: {refused:?}",
                source.scheme_name()
            );
        }
        let path = delivery.event_path.clone();
        let verified = source
            .verify(delivery, None)
            .unwrap_or_else(|refused| panic!("{} refused its own: {}", source.scheme_name(), refused.reason));
        let Ok(Outcome::Keep(kept)) = source.receive(&verified) else { continue };
        let stored = || Stored { headers: &kept.headers, body: &kept.body, event_path: path.as_deref() };
        let events = source.split(stored()).expect("what was kept can be taken apart");
        assert_eq!(events.len(), kept.events);
        assert!(!events.is_empty());
        assert!(events == source.split(stored()).expect("again"), "splitting depends on something else");
        assert!(kept.headers.iter().all(|(_, value)| !value.contains(SECRET)), "a credential was kept");
        for event in &events {
            let fit =
                |text: &str, most: usize| text.chars().count() <= most && !text.chars().any(char::is_control);
            assert!(fit(&event.key, 300) && fit(&event.event_type, 200), "{event:?}");
            assert!(event.subject.as_deref().is_none_or(|subject| fit(subject, 500)), "{event:?}");
            assert!(
                !event.json || serde_json::from_slice::<&serde_json::value::RawValue>(&event.payload).is_ok(),
                "{event:?}"
            );
            // Looked at for every kind; only those of SailPoint name somebody to answer.
            if let Ok(Some(invocation)) = source.invocation(&event.payload) {
                let host = invocation.callback_url.host_str();
                assert_eq!(host, Some("acme.api.identitynow.com"), "another host is called");
            }
        }
    }
}

/// Messages of queues, which anybody with the account's key could have put.
pub fn messages(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let once = message::plain(text);
    assert_eq!(message::plain(&once), once);
    match EventMessage::decode(text) {
        Ok(event) => {
            let again = message::encode(&event).expect("JSON");
            let same = EventMessage::decode(&again).expect("a message of ours");
            assert_eq!(message::encode(&same).expect("JSON"), again);
        }
        // Logged; the columns it tells are all it may tell.
        Err(error) => assert!(error.detail.len() < 100, "{error}"),
    }
    if let Ok(hint) = JobHint::decode(text) {
        let again = message::encode(&hint).expect("JSON");
        assert_eq!(JobHint::decode(&again).expect("a hint of ours"), hint);
    }
}

fn is_mac(kind: SourceKind) -> bool {
    matches!(
        kind,
        SourceKind::Stripe
            | SourceKind::StandardWebhooks
            | SourceKind::Github
            | SourceKind::Espocrm
            | SourceKind::Hmac
    )
}

/// The request with the proof that its sender would give; none where nobody but Entra could give one.
fn signed(source: &Source, plain: &Delivery) -> Option<Delivery> {
    let mut delivery = plain.clone();
    let proof = source.sign(&delivery.body, delivery.received_at, delivery.event_path.as_deref()).ok()?;
    let mut added = HeaderMap::new();
    for (name, value) in proof.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
        // An event's name that cannot stand in a header is sent by nobody.
        added.append(name, HeaderValue::from_str(&value).ok()?);
    }
    // A sender's own headers stand where the input has others of these names; a second statement beside the first is
    // refused for itself.
    delivery.headers.extend(added);
    for other in ["svix-id", "svix-timestamp", "svix-signature"] {
        delivery.headers.remove(other);
    }
    delivery.query = proof.query.or(delivery.query);
    Some(delivery)
}
