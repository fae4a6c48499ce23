//! Work and messages that were given up, and how they come back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use colloquy::events::message::{self, EventMessage};
use serde_json::json;

use super::{dead_letters, deliver, event};
use crate::support::{Consumer, FunctionApp, Gate, SOON, TestDatabase, TestStorage, eventually};

/// Processed events.
const PROCESSED: &str = "SELECT count(*) FROM events WHERE state = 'processed'";

/// A delivery as it stands on the queue.
fn queued(source: &str, body: &str) -> String {
    let text = json!({
        "delivery": format!("dlv_{}", uuid::Uuid::now_v7()), "source": source, "request_id": "request-of-a-test-02",
        "received_at": jiff::Timestamp::now(), "verdict": { "scheme": "stripe" },
        "headers": [["content-type", "application/json"]], "body_bytes": body.len(), "body": { "text": body },
    });
    let message: EventMessage = serde_json::from_value(text).expect("a message");
    message::encode(&message).expect("its text")
}

#[tokio::test]
async fn a_poisoned_message_comes_home_as_a_dead_letter_and_its_replay_is_processed_once() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let app = FunctionApp::of(&database, &storage).hurried().consumer(&consumer).start().await;
    // Where the host puts what ended its process in every try.
    storage.put(&format!("{}-poison", storage.events), &queued("stripe", &event("evt_1"))).await;
    let mut letters = Vec::new();
    eventually("a dead letter", SOON, async || {
        letters = dead_letters(&app).await;
        letters.len() == 1
    })
    .await;
    assert_eq!(letters[0]["kind"], "message");
    assert_eq!(letters[0]["reason_code"], "message_poisoned");
    assert_eq!(letters[0]["source"], "stripe");
    assert_eq!(letters[0]["queue"], storage.events.as_str());
    assert_eq!(database.count(PROCESSED).await, 0);

    let replayed = app.json(&["dead-letters", "replay", "--yes", "--kind", "message", "--json"]).await;
    assert_eq!(replayed["replayed"], 1);
    eventually("the event", SOON, async || database.count(PROCESSED).await == 1).await;
    eventually("its callback", SOON, async || consumer.accepted().len() == 1).await;
    assert!(dead_letters(&app).await.is_empty());
}

#[tokio::test]
async fn a_message_nobody_can_read_ends_as_a_dead_letter_and_may_be_discarded() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    // The files may not say so: two tries are too few, and at once too soon.
    let builder = FunctionApp::of(&database, &storage).hurried();
    let builder = builder.set("AzureFunctionsJobHost__extensions__queues__maxDequeueCount", "2");
    let builder = builder.set("AzureFunctionsJobHost__extensions__queues__visibilityTimeout", "00:00:00");
    let app = builder.start().await;
    for queue in [&storage.events, &storage.jobs, &storage.callbacks] {
        storage.put(queue, "v9 of a later version").await;
    }
    let mut letters = Vec::new();
    eventually("three dead letters", SOON, async || {
        letters = dead_letters(&app).await;
        letters.len() == 3
    })
    .await;
    assert!(letters.iter().all(|letter| letter["reason_code"] == "message_version_unknown"), "{letters:?}");

    let replay = app.command(&["dead-letters", "replay", "--yes", "--all"]).await;
    let said = String::from_utf8_lossy(&replay.stderr);
    assert!(!replay.status.success() && said.contains("replay it with a version that can"), "{said}");
    assert_eq!(dead_letters(&app).await.len(), 3, "none goes round in a circle");
    let without_reason = app.command(&["dead-letters", "discard", "--yes", "--all"]).await;
    assert!(!without_reason.status.success(), "to discard takes a reason");
    let discarded =
        app.json(&["dead-letters", "discard", "--yes", "--all", "--reason", "a test's", "--json"]).await;
    assert_eq!(discarded["discarded"], 3);
    assert!(dead_letters(&app).await.is_empty());
    let all = app.json(&["dead-letters", "list", "--all", "--json"]).await;
    assert!(all.as_array().unwrap().iter().all(|letter| letter["state"] == "discarded"));
}

#[tokio::test]
async fn what_is_no_message_at_all_is_a_dead_letter_after_one_try() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    // By the host's tries it would take a hundred.
    let app = FunctionApp::of(&database, &storage).hurried().start().await;
    let text = r#"v1 {"of": "another shape"}"#;
    for queue in [&storage.events, &storage.jobs, &storage.callbacks] {
        storage.put(queue, text).await;
    }
    eventually("three dead letters", SOON, async || dead_letters(&app).await.len() == 3).await;
    let letters = dead_letters(&app).await;
    assert!(letters.iter().all(|letter| letter["reason_code"] == "message_malformed"), "{letters:?}");
    let tries = app.log().iter().filter(|line| line.contains(r#""code":"message_malformed""#)).count();
    assert!(tries <= 6, "one try each, and one line of upkeep: {tries}");

    let id = letters[0]["id"].as_str().unwrap();
    let replay = app.command(&["dead-letters", "replay", "--yes", id]).await;
    let said = String::from_utf8_lossy(&replay.stderr);
    assert!(!replay.status.success() && said.contains("discard it"), "{said}");
    let shown = app.json(&["dead-letters", "show", id, "--json"]).await;
    assert_eq!(shown["message"]["begins"], "v1 {of}");
    assert_eq!(shown["message"]["bytes"], text.len());
}

#[tokio::test]
async fn what_a_binary_binding_spoilt_is_read_and_can_be_replayed() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let app = FunctionApp::of(&database, &storage).hurried().consumer(&consumer).start().await;
    let spoilt = |id: &str| STANDARD.encode(queued("stripe", &event(id)));
    storage.put(&storage.events, &spoilt("evt_1")).await;
    eventually("the event", SOON, async || database.count(PROCESSED).await == 1).await;
    storage.put(&format!("{}-poison", storage.events), &spoilt("evt_2")).await;
    eventually("a dead letter", SOON, async || dead_letters(&app).await.len() == 1).await;
    // As an earlier version wrote it down.
    let as_it_came = "UPDATE dead_letters SET reason_code = 'message_malformed',
                             message = translate(encode(convert_to(message, 'UTF8'), 'base64'), E'\\n', '')";
    database.client().await.execute(as_it_came, &[]).await.expect("rewritten");
    let replayed =
        app.json(&["dead-letters", "replay", "--yes", "--code", "message_malformed", "--json"]).await;
    assert_eq!(replayed["replayed"], 1);
    eventually("the other event", SOON, async || database.count(PROCESSED).await == 2).await;
    assert!(dead_letters(&app).await.is_empty());
}

#[tokio::test]
async fn a_hint_on_the_poison_queue_is_dropped_since_its_row_is_the_truth() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let app = FunctionApp::of(&database, &storage).hurried().start().await;
    let poison = format!("{}-poison", storage.jobs);
    storage.put(&poison, &format!(r#"v1 {{"id":"job_{}"}}"#, uuid::Uuid::now_v7())).await;
    eventually("an empty poison queue", SOON, async || storage.is_empty().await).await;
    assert!(dead_letters(&app).await.is_empty());
}

#[tokio::test]
async fn deliveries_of_a_source_that_is_no_longer_configured_wait_as_dead_letters_for_its_return() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let mut app = FunctionApp::of(&database, &storage).hurried().start().await;
    storage.put(&storage.events, &queued("shop", &event("evt_1"))).await;
    let mut letters = Vec::new();
    eventually("a dead letter", SOON, async || {
        letters = dead_letters(&app).await;
        letters.len() == 1
    })
    .await;
    assert_eq!(letters[0]["reason_code"], "delivery_given_up");
    assert!(letters[0]["reason"].as_str().unwrap().contains("`shop`"), "{}", letters[0]);

    app.stop().await;
    let path = app.root().join("colloquy.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{config}\n[sources.shop]\nkind = \"stripe\"\n")).unwrap();
    app.set("WEBHOOK_SECRET_SHOP", "whsec_of_the_shop");
    app.start_again().await;
    let id = letters[0]["id"].as_str().unwrap();
    assert!(app.command(&["dead-letters", "replay", "--yes", id]).await.status.success());
    eventually("the event", SOON, async || database.count(PROCESSED).await == 1).await;
    assert!(dead_letters(&app).await.is_empty());
}

#[tokio::test]
async fn many_dead_letters_are_replayed_by_filter_and_a_dry_run_changes_nothing() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    consumer.always(crate::support::Answer::Status(500));
    let builder = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    let app = builder.set("CALLBACK_SCHEDULE", "0s").start().await;
    for n in 0..3 {
        deliver(&app, &format!("evt_{n}")).await;
    }
    eventually("three dead letters", SOON, async || dead_letters(&app).await.len() == 3).await;
    consumer.always(crate::support::Answer::Status(200));
    let filter = ["dead-letters", "replay", "--yes", "--kind", "callback", "--code", "callback_refused"];
    assert!(app.command(&[&filter[..], &["--dry-run"]].concat()).await.status.success());
    assert_eq!(dead_letters(&app).await.len(), 3);
    let bare = app.command(&["dead-letters", "replay", "--yes"]).await;
    assert!(!bare.status.success(), "everything is replayed only if one says so");
    let replayed = app.json(&[&filter[..], &["--json"]].concat()).await;
    assert_eq!(replayed["replayed"], 3);
    eventually("three callbacks", SOON, async || consumer.accepted().len() == 3).await;
}

mod faults {
    use super::*;

    #[tokio::test]
    async fn a_filtered_replay_that_is_cut_and_begun_again_replays_each_once() {
        let (database, storage) = (TestDatabase::create().await, TestStorage::create());
        let consumer = Consumer::start().await;
        consumer.always(crate::support::Answer::Status(500));
        let builder = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
        let app = builder.set("CALLBACK_SCHEDULE", "0s").start().await;
        for n in 0..3 {
            deliver(&app, &format!("evt_{n}")).await;
        }
        eventually("three dead callbacks", SOON, async || dead_letters(&app).await.len() == 3).await;
        for n in 3..6 {
            let poison = format!("{}-poison", storage.events);
            storage.put(&poison, &queued("stripe", &event(&format!("evt_{n}")))).await;
        }
        eventually("three messages beside them", SOON, async || dead_letters(&app).await.len() == 6).await;
        consumer.always(crate::support::Answer::Status(200));
        let replay =
            ["dead-letters", "replay", "--yes", "--source", "stripe", "--rate", "1000", "--reason", "cut"];
        let cut = async |kind: &str| {
            let rows = format!("NEW.state = 'replayed' AND NEW.kind = '{kind}'");
            let gate = Gate::shut(&database, "dead_letters", "UPDATE", &rows).await;
            gate.cut(app.begin(&replay)).await;
        };

        // In the one statement of all callbacks: none is back.
        cut("callback").await;
        assert_eq!(dead_letters(&app).await.len(), 6);
        assert_eq!(consumer.accepted().len(), 0);
        // Between a message's put and its letter's end: it is back, and its letter open.
        cut("message").await;
        eventually("the callbacks and the message", SOON, async || {
            consumer.accepted().len() == 4 && database.count(PROCESSED).await == 4
        })
        .await;
        let open = dead_letters(&app).await;
        assert_eq!(open.iter().filter(|letter| letter["puts"] == 1).count(), 1, "{open:?}");
        assert_eq!(open.len(), 3, "{open:?}");

        assert!(app.command(&replay).await.status.success());
        assert!(dead_letters(&app).await.is_empty());
        eventually("all six", SOON, async || consumer.accepted_by_id().len() == 6).await;
        eventually("empty queues", SOON, async || storage.is_empty().await).await;
        assert_eq!(database.count(PROCESSED).await, 6);
        assert!(consumer.accepted_by_id().values().all(|times| *times == 1), "each has its effect once");
        let audited = "SELECT count(*) FROM api_audit WHERE action = 'dead_letter.replay'";
        assert_eq!(database.count(audited).await, 6, "each is replayed once");
        assert_eq!(
            database.count("SELECT sum(puts)::int8 FROM dead_letters").await,
            4,
            "the second put is counted"
        );
    }
}
