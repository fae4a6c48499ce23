//! What the host sends, for `scripts/fuzz`.

use super::Envelope;

/// An envelope is refused or read, and what a message says of itself is never taken for what the host says of it.
pub fn envelopes(data: &[u8]) {
    let Ok(envelope) = Envelope::parse(data) else { return };
    drop((envelope.retry(), envelope.timer("timer")));
    let Ok(message) = envelope.queue_message("message") else { return };
    // The host puts a message's own members over its metadata.
    let Ok(members) = serde_json::from_str::<serde_json::Value>(&message.text) else { return };
    let says = |name: &str| {
        members.as_object().is_some_and(|members| members.keys().any(|key| key.eq_ignore_ascii_case(name)))
    };
    assert!(message.id.is_none() || !says("Id"), "a message chose its own id");
    assert!(message.dequeue_count == 1 || !says("DequeueCount"), "a message chose how often it was tried");
    assert!(message.inserted_at.is_none() || !says("InsertionTime"), "a message chose its own age");
}
