//! Sources that an operator has stopped.

use super::deliver;
use crate::support::{Consumer, FunctionApp, SOON, TestDatabase, TestStorage, eventually};

#[tokio::test]
async fn what_a_held_source_sends_is_kept_and_processed_when_it_is_started() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let builder = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    let app = builder.set("SWITCH_CACHE", "0s").start().await;
    assert!(app.command(&["sources", "stop", "stripe", "--reason", "a test"]).await.status.success());
    for id in ["evt_1", "evt_2"] {
        deliver(&app, id).await;
    }
    let held = "SELECT count(*) FROM events WHERE state = 'held'";
    eventually("two held events", SOON, async || database.count(held).await == 2).await;
    assert_eq!(database.count("SELECT count(*) FROM jobs").await, 0);
    let listed = app.json(&["sources", "list", "--json"]).await;
    let stripe = listed.as_array().unwrap().iter().find(|source| source["source"] == "stripe").unwrap();
    assert_eq!(stripe["stopped"], "hold");
    assert_eq!(stripe["switch"]["reason"], "a test");
    assert_eq!(consumer.callbacks().len(), 0);

    assert!(app.command(&["sources", "start", "stripe"]).await.status.success());
    eventually("both callbacks", SOON, async || consumer.accepted().len() == 2).await;
    assert_eq!(database.count(held).await, 0);
    let counted = "SELECT coalesce(sum(events), 0)::int8 FROM event_counts";
    eventually("both effects", SOON, async || database.count(counted).await == 2).await;
}

#[tokio::test]
async fn a_stop_may_end_by_itself() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let builder = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    let app = builder.set("SWITCH_CACHE", "0s").start().await;
    assert!(app.command(&["sources", "stop", "stripe", "--for", "3s"]).await.status.success());
    deliver(&app, "evt_1").await;
    eventually("the callback", SOON, async || consumer.accepted().len() == 1).await;
    assert_eq!(app.json(&["events", "list", "--json"]).await[0]["state"], "processed");
}
