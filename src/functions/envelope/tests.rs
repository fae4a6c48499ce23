//! Every payload shape of the contract, from `tests/fixtures/functions`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::functions::payload::{Binary, Json, Payload};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/functions")
}

fn fixture(name: &str) -> Vec<u8> {
    let path = folder().join(format!("{name}.json"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn queue(name: &str) -> QueueMessage<()> {
    let body = fixture(name);
    let envelope = Envelope::parse(&body).unwrap_or_else(|error| panic!("{name}: {error}"));
    envelope.queue_message("message").unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn timer(name: &str) -> Timer {
    let body = fixture(name);
    let envelope = Envelope::parse(&body).unwrap_or_else(|error| panic!("{name}: {error}"));
    envelope.timer("timer").unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn at(text: &str) -> Option<Timestamp> {
    Some(text.parse().expect("a timestamp"))
}

const TEXTS: &[(&str, &str)] = &[
    ("queue-json-object", r#"{"order":7,"items":["a"],"who":{"name":"Ada"}}"#),
    ("queue-json-array", "[1,2,3]"),
    ("queue-number", "42"),
    ("queue-boolean", "true"),
    ("queue-null", "null"),
    ("queue-quoted-string", "\"hi\""),
    ("queue-plain-text", "hi"),
    ("queue-empty-text", ""),
    ("queue-unicode", "Grüße \"Ada\"\n\\ €"),
    ("queue-versioned", r#"v1 {"delivery":"dlv_1","Id":"not the message id"}"#),
    ("queue-polluted", r#"{"Id":"forged","dequeuecount":99,"insertionTime":{"a":1},"list":[1]}"#),
    ("queue-dequeued-often", "again"),
    ("queue-bare", "hi"),
    ("queue-binary", "AP+AAQ=="),
    ("queue-invoked-by-admin", "hi"),
    ("queue-other-binding", "hi"),
    ("queue-retry", "hi"),
];

#[test]
fn the_text_is_what_was_put() {
    for (name, text) in TEXTS {
        assert_eq!(queue(name).text, *text, "{name}");
    }
}

#[test]
fn three_levels_reach_typed_json() {
    let decode = |name| Json::<Value>::decode(&queue(name).text).expect(name).0;
    assert_eq!(decode("queue-json-object"), json!({"order": 7, "items": ["a"], "who": {"name": "Ada"}}));
    assert_eq!(decode("queue-json-array"), json!([1, 2, 3]));
    assert_eq!(decode("queue-number"), json!(42));
    assert_eq!(decode("queue-boolean"), json!(true));
    assert_eq!(decode("queue-null"), Value::Null);
    assert_eq!(decode("queue-quoted-string"), json!("hi"), "the sender's quotes are the sender's");
    assert_eq!(decode("queue-bare-object"), json!({"order": 7}));
    assert_eq!(decode("queue-bare-array"), json!([1, 2]));
}

#[test]
fn binary_data_is_its_bytes() {
    let Binary(bytes) = Binary::decode(&queue("queue-binary").text).expect("base64");
    assert_eq!(bytes[..], [0, 0xFF, 0x80, 1]);
}

#[test]
fn metadata_is_taken_quoted_and_bare() {
    let quoted = queue("queue-plain-text");
    assert_eq!(quoted.id.as_deref(), Some("6f1c2a9e-0d1b-4c57-8f0a-2b7f4f1f9b11"));
    assert_eq!((quoted.dequeue_count, quoted.inserted_at), (1, at("2026-01-01T10:00:00Z")));
    let bare = queue("queue-bare");
    assert_eq!(bare.id.as_deref(), Some("6f1c2a9e"));
    assert_eq!((bare.dequeue_count, bare.inserted_at), (3, at("2026-01-01T10:00:00Z")));
    assert_eq!(queue("queue-dequeued-often").dequeue_count, 17);
}

#[test]
fn a_member_of_the_message_does_not_pass_for_metadata() {
    let polluted = queue("queue-polluted");
    assert_eq!((polluted.id, polluted.dequeue_count, polluted.inserted_at), (None, 1, None));
    let other = queue("queue-json-object");
    assert!(other.id.is_some(), "members of other names spoil nothing");
    let versioned = queue("queue-versioned");
    assert!(versioned.id.is_some_and(|id| id.starts_with("6f1c")), "the host does not parse this text");
}

#[test]
fn metadata_may_be_missing() {
    let message = queue("queue-invoked-by-admin");
    assert_eq!((message.id, message.dequeue_count, message.inserted_at), (None, 1, None));
}

#[test]
fn a_timer_knows_its_times() {
    let usual = timer("timer-usual");
    assert_eq!(
        usual,
        Timer {
            last: at("2026-01-01T10:00:00Z"),
            next: at("2026-01-01T10:05:00Z"),
            last_updated: at("2026-01-01T10:00:00Z"),
            past_due: false,
        }
    );
    let local = timer("timer-local-time");
    assert_eq!(local.last, at("2026-01-01T10:00:00.1234567Z"));
    assert_eq!(local.next, at("2026-01-01T08:05:00Z"));
    let late = timer("timer-past-due");
    assert!(late.past_due);
    assert_eq!(late.last, at("2025-12-31T22:00:00Z"));
    assert!(timer("timer-as-text").past_due);
}

#[test]
fn year_one_and_no_status_are_never() {
    for name in ["timer-never-run", "timer-never-run-without-offset"] {
        let first = timer(name);
        assert_eq!(first.last, None, "{name}");
        assert_eq!(first.next, at("2026-01-01T10:05:00Z"), "{name}");
    }
    assert_eq!(timer("timer-without-monitor"), Timer::default());
}

#[test]
fn the_retry_context_is_read_where_there_is_one() {
    let retry = |name: &str| Envelope::parse(&fixture(name)).expect(name).retry();
    assert_eq!(retry("queue-retry"), Some(RetryContext { count: 1, max: Some(2) }));
    assert_eq!(retry("timer-first-try"), Some(RetryContext { count: 0, max: None }));
    assert_eq!(retry("queue-plain-text"), None);
    assert_eq!(timer("timer-first-try").last, None);
}

#[test]
fn what_is_no_envelope_is_refused_without_being_quoted() {
    for name in ["not-an-envelope", "cut-off"] {
        let error = Envelope::parse(&fixture(name)).expect_err(name);
        assert!(matches!(error, EnvelopeError::NotAnEnvelope { .. }), "{name}: {error}");
        assert!(!error.to_string().contains("hi"), "{error}");
    }
    for name in ["no-data", "data-null"] {
        let body = fixture(name);
        let error = Envelope::parse(&body).expect(name).queue_message("message").expect_err(name);
        assert_eq!(error, EnvelopeError::NoData { binding: "message".to_owned() }, "{name}");
    }
    let body = fixture("timer-not-a-timer");
    let envelope = Envelope::parse(&body).expect("an envelope");
    assert_eq!(envelope.timer("timer"), Err(EnvelopeError::NotATimer));
}

#[test]
fn with_several_values_the_name_decides() {
    let body = br#"{"Data":{"a":"\"1\"","message":"\"2\""},"Metadata":{}}"#;
    let envelope = Envelope::parse(body).expect("an envelope");
    assert_eq!(envelope.queue_message("message").expect("named").text, "2");
    assert!(envelope.queue_message("other").is_err());
}

/// The names the tests of this module and of `functions::tests` use; a fixture nobody reads proves nothing.
#[test]
fn every_fixture_is_used() {
    let here = include_str!("tests.rs");
    let served = include_str!("../tests/envelopes.rs");
    let unused: BTreeSet<String> = std::fs::read_dir(folder())
        .expect("the fixtures")
        .map(|entry| {
            entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned()
        })
        .filter(|name| !here.contains(&format!("\"{name}\"")) && !served.contains(&format!("\"{name}\"")))
        .collect();
    assert_eq!(unused, BTreeSet::new());
}
