//! What upkeep does for sources that are gone, for bodies nobody names, and where the switches are unknown.

use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::{deliver, event};
use crate::support::{Consumer, FunctionApp, SOON, TestDatabase, TestStorage, eventually};

/// Without any source of the repository's.
const OTHERS: &str = "[sources.other]\nkind = \"stripe\"\n";
const HELD: &str = "SELECT count(*) FROM events WHERE state = 'held'";

#[tokio::test]
async fn deliveries_of_a_source_that_is_gone_are_kept_for_event_retention_and_no_longer() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let builder = || FunctionApp::of(&database, &storage).hurried();
    {
        let app = builder().start_without(&["maintain", "send-callback"]).await;
        deliver(&app, "evt_1").await;
        let done = "SELECT count(*) FROM jobs WHERE state = 'succeeded'";
        eventually("the event's effect", SOON, async || database.count(done).await == 1).await;
    }
    database.client().await.execute("DELETE FROM callbacks", &[]).await.expect("nothing left to do");
    let stored = "SELECT count(*) FROM deliveries";
    let patient = builder().config(OTHERS).start_handler().await;
    assert_eq!(patient.tick("maintain").await, 200);
    assert_eq!(database.count(stored).await, 1);
    let strict = builder().config(OTHERS).set("EVENT_RETENTION", "1ms").start_handler().await;
    assert_eq!(strict.tick("maintain").await, 200);
    assert_eq!(database.count(stored).await, 0);
}

#[tokio::test]
async fn held_events_of_a_source_that_is_gone_stay_held_until_it_is_back() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let builder = || FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    {
        let app = builder().set("SWITCH_CACHE", "0s").start_without(&["maintain"]).await;
        assert!(
            app.command(&["sources", "stop", "stripe", "--reason", "a test", "--yes"]).await.status.success()
        );
        deliver(&app, "evt_1").await;
        eventually("a held event", SOON, async || database.count(HELD).await == 1).await;
        assert!(app.command(&["sources", "start", "stripe", "--yes"]).await.status.success());
    }
    let without = builder().config(OTHERS).start_handler().await;
    assert_eq!(without.tick("maintain").await, 200);
    assert_eq!(database.count(HELD).await, 1, "released without its routes it would have no effect");
    let warned = without.log().iter().any(|line| line.contains("held_source_unknown"));
    assert!(warned, "{:?}", without.log());

    let _back = builder().start().await;
    eventually("its callback", SOON, async || consumer.accepted().len() == 1).await;
    assert_eq!(database.count(HELD).await, 0);
}

#[tokio::test]
async fn bodies_nobody_names_are_deleted_once_the_queue_was_empty_for_a_moment() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let handler = FunctionApp::of(&database, &storage).hurried().start_handler().await;
    let container = storage.account().container(&storage.container);
    let body = async |days: i64| {
        let day = Timestamp::now() - SignedDuration::from_hours(24 * days);
        let name = format!("deliveries/{}/dlv_{}", day.strftime("%Y/%m/%d"), uuid::Uuid::now_v7());
        container.put(&name, Bytes::from_static(b"{}"), "application/octet-stream").await.expect("a blob");
        name
    };
    let there = async |name: &str| container.get(name).await.expect("storage").is_some();
    let (fresh, old, older) = (body(1).await, body(8).await, body(20).await);
    // A delivery that was given up and may be replayed needs its body.
    let wanted = body(9).await;
    let delivery = wanted.rsplit('/').next().expect("its name");
    let letter = "INSERT INTO dead_letters (id, kind, subject_id, reason_code, reason, message)
                  VALUES (gen_random_uuid(), 'message', gen_random_uuid(), 'x', 'x', $1)";
    let client = database.client().await;
    client.execute(letter, &[&format!(r#"v1 {{"delivery":"{delivery}"}}"#)]).await.expect("a letter");

    // Its upkeep of every hour comes while a message waits.
    storage.put(&storage.events, "v1 any delivery").await;
    for _ in 0..3 {
        assert_eq!(handler.tick("maintain").await, 200);
    }
    assert!(there(&old).await && there(&older).await, "it may be the message's");
    let events = storage.queue(&storage.events);
    for message in events.receive(32, Duration::from_secs(30)).await.expect("the message") {
        events.delete(&message.receipt).await.expect("processed");
    }
    eventually("their end", SOON, async || {
        assert_eq!(handler.tick("maintain").await, 200);
        !there(&old).await && !there(&older).await
    })
    .await;
    assert!(there(&fresh).await && there(&wanted).await);
}

#[tokio::test]
async fn work_whose_message_may_still_be_in_its_queue_is_not_hinted_at_again() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let builder = || FunctionApp::of(&database, &storage).hurried();
    let queue = storage.queue(&storage.jobs);
    let depth = async || queue.properties().await.expect("properties").approximate_count;
    {
        let app = builder().start_without(&["maintain", "run-job", "send-callback"]).await;
        deliver(&app, "evt_1").await;
        eventually("the job's message", SOON, async || depth().await == 1).await;
    }
    let handler = builder().start_handler().await;
    let long_ago = "SELECT count(*) FROM jobs WHERE hinted_at < now() - interval '3 seconds'";
    // Well over the second that a row may wait for its message (`HINT_AFTER`).
    eventually("time to pass", SOON, async || database.count(long_ago).await == 1).await;
    assert_eq!(handler.tick("maintain").await, 200);
    assert_eq!(depth().await, 1, "a queue that is behind is not made longer");

    for message in queue.receive(32, Duration::from_secs(30)).await.expect("the message") {
        queue.delete(&message.receipt).await.expect("lost");
    }
    eventually("another message", SOON, async || {
        assert_eq!(handler.tick("maintain").await, 200);
        depth().await == 1
    })
    .await;
}

#[tokio::test]
async fn while_the_switches_are_unknown_deliveries_are_accepted_and_wait() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    // Queues answer and blobs do not: where nothing listens.
    let blobs = storage.connection_string.split(';').find(|part| part.starts_with("BlobEndpoint="));
    let blobs = blobs.expect("its blobs").to_owned();
    let away = storage.connection_string.replace(&blobs, "BlobEndpoint=http://127.0.0.1:9/devstoreaccount1");
    let builder = FunctionApp::of(&database, &storage).hurried().set("AzureWebJobsStorage", away);
    let handler = builder.start_handler().await;
    assert_eq!(handler.deliver_stripe(&event("evt_1")).await.status(), 200);
    let queue = storage.queue(&storage.events);
    let waiting = queue.peek(1).await.expect("a peek");
    let text = waiting[0].text.as_ref().expect("text").clone();
    assert_eq!(handler.message("process-event", &text, 1).await, 200);
    assert_eq!(database.count("SELECT count(*) FROM events").await, 0, "its source may be stopped");
    let depth = queue.properties().await.expect("properties").approximate_count;
    assert_eq!(depth, 2, "the test's, and the one put back");

    let app = FunctionApp::of(&database, &storage).hurried().start().await;
    let processed = "SELECT count(*) FROM events WHERE state = 'processed'";
    eventually("the event", SOON, async || database.count(processed).await == 1).await;
    drop(app);
}

#[tokio::test]
async fn retention_says_what_it_would_delete_by_source_and_owner_and_deletes_that() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let config = format!("{OTHERS}[retention.owners.\"ada\"]\nresponses_days = 7\nconversations_days = 7\n");
    let app = FunctionApp::of(&database, &storage).config(&config).start_without(&["maintain"]).await;
    let client = database.client().await;
    // Ten days old: of ada, whose time is a week, and of bob, who has the 30 days of everybody.
    for owner in ["ada", "bob"] {
        let rows = format!(
            "INSERT INTO threads (id, owner, head_position, head_tokens) VALUES (gen_random_uuid(), '{owner}', 0, 0);
             INSERT INTO conversations (id, owner, thread_id, created_at, updated_at)
             SELECT (left(uuid_floor(at)::text, 24) || right(md5(owner), 12))::uuid, owner, id, at, at
             FROM threads, (SELECT now() - interval '10 days' AS at) past WHERE owner = '{owner}'"
        );
        client.batch_execute(&rows).await.expect("rows");
    }
    // Told of turns ten days ago, and a log of then.
    let told = "
        INSERT INTO callbacks (id, webhook_id, response_id, owner, target, run, route, type, state, due_at, created_at, finished_at)
        SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), owner, 't', 0, '', 'response.completed', 'delivered', at, at, at
        FROM unnest(ARRAY['ada', 'bob']) AS owner, (SELECT now() - interval '10 days' AS at) AS past;
        SELECT ensure_day_partition('response_events', now() - interval '10 days');
        INSERT INTO response_events (response_id, part, data) SELECT uuid_floor(now() - interval '10 days'), 0, 'x'";
    client.batch_execute(told).await.expect("rows");
    let dry = app.command(&["retention", "--dry-run", "--json"]).await;
    let dry: serde_json::Value = serde_json::from_slice(&dry.stdout).expect("JSON");
    let of = |line: &serde_json::Value| {
        (
            line["what"].as_str().unwrap().to_owned(),
            line["of"].as_str().unwrap().to_owned(),
            line["rows"].as_i64(),
        )
    };
    let mut found: Vec<_> = dry.as_array().expect("a list").iter().map(of).collect();
    found.sort();
    let expected = [("callbacks", "ada"), ("conversations", "ada"), ("response_events", "")];
    assert_eq!(found, expected.map(|(what, of)| (what.to_owned(), of.to_owned(), Some(1))));
    let there = "SELECT count(*) FROM conversations";
    assert_eq!(database.count(there).await, 2, "nothing was changed");

    let refused = app.command(&["retention"]).await;
    assert!(!refused.status.success(), "nobody is there to agree");
    let done = app.command(&["retention", "--yes", "--json", "--reason", "a test"]).await;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let done: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(done["left"], serde_json::json!([]));
    assert_eq!(database.count("SELECT count(*) FROM conversations WHERE owner = 'bob'").await, 1);
    assert_eq!(database.count(there).await, 1);
    assert_eq!(database.count("SELECT count(*) FROM threads").await, 1);
    assert_eq!(database.count("SELECT count(*) FROM callbacks").await, 1, "bob's");
    assert_eq!(database.count("SELECT count(*) FROM response_events").await, 0);
    let order = "SELECT count(*) FROM api_audit b JOIN api_audit r ON r.id > b.id
                 WHERE b.action = 'retention.begin' AND (b.detail->'expected'->>'callbacks')::int = 1
                   AND r.action = 'retention.run'";
    assert_eq!(database.count(order).await, 1);

    // A sweep that fails: what went before it has its row all the same.
    let failing = "
        UPDATE conversations SET owner = 'ada';
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON conversations FOR EACH ROW EXECUTE FUNCTION refuse()";
    client.batch_execute(failing).await.expect("a trigger");
    assert!(!app.command(&["retention", "--yes"]).await.status.success());
    let begun = "SELECT count(*) FROM api_audit WHERE action = 'retention.begin'";
    assert_eq!(database.count(begun).await, 2);
    assert_eq!(database.count("SELECT count(*) FROM api_audit WHERE action = 'retention.run'").await, 1);
}
