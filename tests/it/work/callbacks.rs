//! Callbacks: when they are tried again, when no more, and where they never go.

use std::time::Duration;

use serde_json::Value;

use super::{dead_letters, deliver};
use crate::support::{Answer, Consumer, FunctionApp, SOON, TestDatabase, TestStorage, eventually};

const STATE: &str = "SELECT count(*) FROM callbacks WHERE state = 'delivered'";

#[tokio::test]
async fn a_refused_callback_is_sent_again_by_the_schedule_with_the_same_id_and_body() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    consumer.next([Answer::Status(500), Answer::Cut, Answer::Long(404, 100_000)]);
    let builder = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    let app = builder.set("CALLBACK_SCHEDULE", "0s,300ms,600ms,100ms").start().await;
    deliver(&app, "evt_1").await;
    eventually("the callback to be accepted", SOON, async || consumer.accepted().len() == 1).await;

    let tries = consumer.callbacks();
    assert_eq!(tries.len(), 4);
    assert!(
        tries.iter().all(|one| one.verified.is_ok() && one.id == tries[0].id && one.body == tries[0].body)
    );
    for (pair, least) in tries.windows(2).zip([300, 600, 100]) {
        let waited = pair[1].at.duration_since(pair[0].at);
        assert!(waited >= Duration::from_millis(least), "{waited:?} instead of {least} ms");
    }
    eventually("the row to say so", SOON, async || database.count(STATE).await == 1).await;
    let listed = app.json(&["callbacks", "list", "--json"]).await;
    let callback = &listed["callbacks"][0];
    assert_eq!(callback["attempts"], 4);
    assert_eq!(callback["state"], "delivered");
    let statuses: Vec<&Value> =
        callback["tries"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
    assert_eq!(serde_json::to_string(&statuses).unwrap(), "[500,null,404,200]");
    let kept = callback["tries"][2]["response"].as_str().unwrap().len();
    assert_eq!(kept, 4096, "of a long answer the beginning is kept");
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    consumer.next([Answer::With(503, vec![("retry-after", "3".to_owned())])]);
    let builder = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    let app = builder.set("CALLBACK_SCHEDULE", "0s,100ms").start().await;
    deliver(&app, "evt_1").await;
    eventually("the callback to be accepted", SOON, async || consumer.accepted().len() == 1).await;
    let tries = consumer.callbacks();
    let waited = tries[1].at.duration_since(tries[0].at);
    assert!(waited >= Duration::from_millis(2_900), "{waited:?} after being asked for 3 s");
}

#[tokio::test]
async fn a_consumer_that_is_gone_is_left_alone_until_it_is_enabled() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    consumer.always(Answer::Status(410));
    let builder = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    let app = builder.set("CALLBACK_SCHEDULE", "0s,100ms").start().await;
    deliver(&app, "evt_1").await;
    eventually("the target to be disabled", SOON, async || {
        let listed = app.json(&["callbacks", "list", "--json"]).await;
        listed["disabled_targets"][0]["target"] == "consumer"
    })
    .await;
    for id in ["evt_2", "evt_3"] {
        deliver(&app, id).await;
    }
    eventually("three events", SOON, async || database.count("SELECT count(*) FROM events").await == 3).await;
    eventually("no message left", SOON, async || storage.is_empty().await).await;
    assert_eq!(consumer.callbacks().len(), 1, "nobody is told who wants to hear no more");
    assert!(dead_letters(&app).await.is_empty(), "what waits is not dead");

    consumer.always(Answer::Status(200));
    let enabled = app.command(&["callbacks", "enable", "consumer", "--yes", "--reason", "it is back"]).await;
    assert!(enabled.status.success());
    eventually("all three callbacks", SOON, async || consumer.accepted().len() == 3).await;
    eventually("the rows to say so", SOON, async || database.count(STATE).await == 3).await;
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let (consumer, other) = (Consumer::start().await, Consumer::start().await);
    consumer.next([301, 302, 307, 308].map(|status| Answer::With(status, vec![("location", other.url())])));
    let builder = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    let app = builder.set("CALLBACK_SCHEDULE", "0s,50ms,50ms,50ms,50ms").start().await;
    deliver(&app, "evt_1").await;
    eventually("the callback to be accepted", SOON, async || consumer.accepted().len() == 1).await;
    assert_eq!(consumer.callbacks().len(), 5);
    assert_eq!(other.callbacks().len(), 0);
}

#[tokio::test]
async fn a_callback_given_up_is_a_dead_letter_and_a_replay_delivers_it_under_its_id() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    consumer.always(Answer::Status(500));
    let builder = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    let app = builder.set("CALLBACK_SCHEDULE", "0s,100ms").start().await;
    deliver(&app, "evt_1").await;
    let mut letters = Vec::new();
    eventually("a dead letter", SOON, async || {
        letters = dead_letters(&app).await;
        letters.len() == 1
    })
    .await;
    assert_eq!(letters[0]["kind"], "callback");
    assert_eq!(letters[0]["reason_code"], "callback_refused");
    assert_eq!(letters[0]["attempts"], 2);
    assert_eq!(letters[0]["source"], "stripe");
    assert_eq!(consumer.callbacks().len(), 2);

    consumer.always(Answer::Status(200));
    let id = letters[0]["id"].as_str().unwrap();
    let replayed =
        app.json(&["dead-letters", "replay", "--yes", id, "--reason", "it is well again", "--json"]).await;
    assert_eq!(replayed["replayed"], 1);
    eventually("the callback to be accepted", SOON, async || consumer.accepted().len() == 1).await;
    assert_eq!(consumer.ids().len(), 1, "the same callback, not another");
    eventually("the row to say so", SOON, async || database.count(STATE).await == 1).await;
    assert!(dead_letters(&app).await.is_empty());
    let again = app.command(&["dead-letters", "replay", "--yes", id]).await;
    assert!(!again.status.success(), "what is settled stays settled");
}

#[tokio::test]
async fn a_target_on_a_private_address_is_never_connected_to() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let config = |target: &str| {
        format!(
            "[sources.stripe]\nkind = \"stripe\"\n[targets.inside]\n{target}\n\
             [[routes]]\nsource = \"stripe\"\naction = \"forward\"\ntarget = \"inside\"\n"
        )
    };
    // A network that is allowed opens itself alone; where clouds keep credentials no list opens.
    for target in [
        r#"url = "https://10.0.0.1/""#,
        r#"url = "https://0x0a000001/""#,
        r#"url = "https://[::ffff:10.0.0.1]/""#,
        "url = \"http://10.0.0.1/\"\nallow_http = true\nallow_networks = [\"10.1.0.0/16\"]",
        "url = \"http://169.254.169.254/metadata\"\nallow_http = true\nallow_networks = [\"169.254.0.0/16\"]",
    ] {
        let builder = FunctionApp::of(&database, &storage).hurried().config(&config(target));
        let app = builder.set("CALLBACK_SCHEDULE", "0s").start().await;
        let output = app.command(&["callbacks", "test", "inside"]).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!output.status.success(), "{target}: {out}");
        assert!(format!("{out}{err}").contains("address"), "{target}: {out}{err}");
    }
    let target = r#"url = "https://10.0.0.1/""#;
    let builder = FunctionApp::of(&database, &storage).hurried().config(&config(target));
    let app = builder.set("CALLBACK_SCHEDULE", "0s").start().await;
    deliver(&app, "evt_1").await;
    let mut letters = Vec::new();
    eventually("a dead letter", SOON, async || {
        letters = dead_letters(&app).await;
        letters.len() == 1
    })
    .await;
    assert_eq!(letters[0]["reason_code"], "address_refused");
    let tell = letters[0]["reason"].as_str().unwrap();
    assert!(tell.contains("allow_networks"), "it says what to do: {tell}");
}

#[tokio::test]
async fn while_keys_rotate_every_key_signs() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let next = "whsec_bmV4dC1zZWNyZXQtb2YtdGhlLXRlc3RzLTAwMDAwMDAy";
    let builder = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    let app = builder.set("CALLBACK_SECRET_CONSUMER__NEXT", next).start().await;
    deliver(&app, "evt_1").await;
    eventually("a callback", SOON, async || consumer.accepted().len() == 1).await;
    consumer.trust(&[next]);
    deliver(&app, "evt_2").await;
    eventually("another", SOON, async || consumer.accepted().len() == 2).await;
    assert!(consumer.callbacks().iter().all(|callback| callback.verified.is_ok()));
}

/// Nothing is sent on the word of the day on which a callback was written down: each attempt asks `colloquy.toml` and the
/// targets that are disabled.
#[tokio::test]
async fn a_replay_sends_nothing_to_a_target_that_is_gone_or_disabled() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let app = |config: Option<&str>| {
        let builder = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
        let builder = builder.set("CALLBACK_SCHEDULE", "0s,100ms");
        config.map_or(builder, |config| FunctionApp::of(&database, &storage).hurried().config(config))
    };
    let letter = async |app: &FunctionApp, code: &str| {
        let mut letters = Vec::new();
        eventually(code, SOON, async || {
            letters = dead_letters(app).await;
            letters.len() == 1 && letters[0]["reason_code"] == code
        })
        .await;
        letters[0]["id"].as_str().unwrap().to_owned()
    };
    let replay = async |app: &FunctionApp, letter: &str| {
        let replayed = app.json(&["dead-letters", "replay", "--yes", letter, "--json"]).await;
        assert_eq!(replayed["replayed"], 1);
    };
    consumer.always(Answer::Status(500));
    let with = app(None).start().await;
    deliver(&with, "evt_1").await;
    let first = letter(&with, "callback_refused").await;
    let heard = consumer.callbacks().len();
    drop(with);

    let without = app(Some("[sources.stripe]\nkind = \"stripe\"\n")).start().await;
    replay(&without, &first).await;
    let second = letter(&without, "target_unknown").await;
    assert_ne!(first, second);
    assert_eq!(consumer.callbacks().len(), heard, "nothing is sent to a target that is gone");
    drop(without);

    // Another event's callback tells that the consumer wants no more.
    consumer.always(Answer::Status(410));
    let with = app(None).start().await;
    deliver(&with, "evt_2").await;
    let disabled = "SELECT count(*) FROM callback_targets WHERE disabled_at IS NOT NULL";
    eventually("a disabled target", SOON, async || database.count(disabled).await == 1).await;
    let heard = consumer.callbacks().len();
    consumer.always(Answer::Status(200));
    replay(&with, &second).await;
    let event = with.json(&["events", "list", "--json"]).await[0]["id"].as_str().unwrap().to_owned();
    with.json(&["events", "replay", "--yes", &event, "--json"]).await;
    eventually("no message left", SOON, async || storage.is_empty().await).await;
    let waiting = "SELECT count(*) FROM callbacks WHERE state = 'pending'";
    assert_eq!((consumer.callbacks().len(), database.count(waiting).await), (heard, 3));
    assert!(with.command(&["callbacks", "enable", "consumer", "--yes"]).await.status.success());
    eventually("all three", SOON, async || database.count(STATE).await == 3).await;
}
