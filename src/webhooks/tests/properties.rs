//! What holds for every request, whoever made it up.

use std::sync::LazyLock;

use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

use super::support::{NOW, Post, every_kind, post};
use crate::webhooks::{Source, Stored};

static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(every_kind);

/// Headers that some scheme or adapter looks at.
const NAMES: &[&str] = &[
    "stripe-signature",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "svix-id",
    "svix-timestamp",
    "svix-signature",
    "x-hub-signature-256",
    "x-github-delivery",
    "x-github-event",
    "signature",
    "x-signature",
    "x-time",
    "authorization",
    "x-webhook-secret",
    "aeg-event-type",
    "aeg-subscription-name",
    "ce-specversion",
    "ce-id",
    "ce-source",
    "ce-type",
    "content-type",
];

/// Values of any bytes, and such as come close to a proof.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..60),
        "(t=[0-9]{0,14},)?v[01a]{1,2}[=,][A-Za-z0-9+/=]{0,90}( v1,[A-Za-z0-9+/=]{0,50})?"
            .prop_map(String::into_bytes),
        "(sha256=|v0=|Bearer |Basic |bearer)[A-Za-z0-9+/=.]{0,130}".prop_map(String::into_bytes),
        "[0-9+.-]{0,20}".prop_map(String::into_bytes),
        Just(b"SubscriptionValidation".to_vec()),
        Just(b"application/x-www-form-urlencoded".to_vec()),
        Just(b"application/cloudevents-batch+json".to_vec()),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..200),
        r#"[\[\]{}":,a-z0-9\\ue. -]{0,80}"#.prop_map(String::into_bytes),
        r#"\[?\{"(id|type|_metadata|eventType|data|payload|status)":("[a-z]{0,3}"|[0-9]{1,3}|\{\}|null|\[\])(,"(id|type|status|eventType)":"[a-z]{0,3}"){0,3}\}\]?"#
            .prop_map(String::into_bytes),
    ]
}

fn request() -> impl Strategy<Value = Post> {
    let headers = vec((prop::sample::select(NAMES), value()), 0..8);
    let query = prop::option::of("(token=)?[a-z%&=0-9]{0,30}");
    let path = prop::option::of("[ -~]{0,20}");
    (headers, body(), query, path, -2_000_000_000_i64..253_000_000_000).prop_map(
        |(headers, body, query, path, at)| {
            let mut post = post(body).at(at);
            for (name, value) in headers {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    post.0.headers.append(HeaderName::from_static(name), value);
                }
            }
            post.0.query = query;
            post.0.event_path = path;
            post
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn nothing_made_up_is_believed_and_nothing_panics(request in request()) {
        for source in SOURCES.iter() {
            prop_assert!(request.verify(source).is_err());
        }
    }

    #[test]
    fn nothing_authentic_panics_and_what_is_kept_splits_the_same(request in request()) {
        for source in SOURCES.iter() {
            // Signed as it is, save for the headers that would make it ambiguous.
            let mut bare = post(request.0.body.clone()).at(NOW);
            bare.0.event_path = request.0.event_path.clone();
            for name in ["content-type", "aeg-subscription-name", "ce-specversion", "ce-id", "ce-source", "ce-type"] {
                if let Some(value) = request.0.headers.get(name) {
                    bare.0.headers.insert(name, value.clone());
                }
            }
            let path = bare.0.event_path.clone();
            if let Ok(crate::webhooks::Outcome::Keep(kept)) = bare.receive(source) {
                let stored = Stored { headers: &kept.headers, body: &kept.body, event_path: path.as_deref() };
                let events = source.split(stored).unwrap();
                prop_assert_eq!(events.len(), kept.events);
                for event in events {
                    prop_assert!(!event.key.chars().any(char::is_control) && !event.event_type.contains('\0'));
                }
            }
        }
    }

    #[test]
    fn what_a_sender_signs_is_believed_at_any_time(body in vec(any::<u8>(), 0..300), at in 0_i64..253_000_000_000) {
        for source in SOURCES.iter() {
            let signed = post(body.clone()).at(at).signed_by(source);
            let verified = signed.verify(source);
            prop_assert!(verified.is_ok(), "{:?}: {:?}", source, verified);
            let seconds = verified.ok().and_then(|verified| verified.signed_at()).map(Timestamp::as_second);
            prop_assert!(seconds.is_none_or(|seconds| seconds == at));
        }
    }

    #[test]
    fn a_signed_body_cannot_change(body in vec(any::<u8>(), 1..300), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        for source in SOURCES.iter().filter(|source| source.scheme_name() == "hmac" || is_signed(source)) {
            let mut changed = post(body.clone()).signed_by(source);
            let mut bytes = body.clone();
            bytes[at.index(body.len())] ^= 1 << bit;
            changed.0.body = bytes.into();
            prop_assert!(changed.verify(source).is_err(), "{:?}", source);
        }
    }

    #[test]
    fn a_proof_cannot_change(at in any::<prop::sample::Index>(), replacement in 0x21_u8..0x7f) {
        for source in SOURCES.iter().filter(|source| source.kind() != crate::config::app::SourceKind::Espocrm) {
            let signed = post("{}").signed_by(source);
            let proof = ["stripe-signature", "webhook-signature", "x-hub-signature-256", "x-signature", "x-webhook-secret"]
                .into_iter()
                .find(|name| signed.0.headers.contains_key(*name));
            let Some(name) = proof else { continue };
            let mut bytes = signed.0.headers[name].as_bytes().to_vec();
            let place = at.index(bytes.len());
            // Generic senders may write hexadecimal in either case.
            if bytes[place].eq_ignore_ascii_case(&replacement) {
                continue;
            }
            bytes[place] = replacement;
            let mut changed = signed.clone();
            changed.0.headers.insert(name, HeaderValue::from_bytes(&bytes).unwrap());
            prop_assert!(changed.verify(source).is_err(), "{:?} {}", source, String::from_utf8_lossy(&bytes));
        }
    }
}

fn is_signed(source: &Source) -> bool {
    matches!(source.scheme_name(), "stripe" | "standard-webhooks" | "github" | "espocrm")
}
