//! Sources that an operator has stopped.

use super::deliver;
use crate::support::{Consumer, FunctionApp, SOON, TestDatabase, TestStorage, eventually};

#[tokio::test]
async fn what_a_held_source_sends_is_kept_and_processed_when_it_is_started() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let builder = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    let app = builder.set("SWITCH_CACHE", "0s").start().await;
    assert!(
        app.command(&["sources", "stop", "stripe", "--yes", "--reason", "a test"]).await.status.success()
    );
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

    assert!(app.command(&["sources", "start", "stripe", "--yes"]).await.status.success());
    eventually("both callbacks", SOON, async || consumer.accepted().len() == 2).await;
    assert_eq!(database.count(held).await, 0);
    let counted = "SELECT coalesce(sum(events), 0)::int8 FROM event_counts";
    eventually("both effects", SOON, async || database.count(counted).await == 2).await;
}

#[tokio::test]
async fn of_many_switches_set_at_once_none_is_lost() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let app = FunctionApp::of(&database, &storage).start().await;
    let listed = app.json(&["sources", "list", "--json"]).await;
    let sources: Vec<&str> =
        listed.as_array().unwrap().iter().filter_map(|source| source["source"].as_str()).take(8).collect();
    assert_eq!(sources.len(), 8);
    let all = |verb: &'static str| {
        futures_util::future::join_all(
            sources
                .iter()
                .map(|source| async { app.json(&["sources", verb, *source, "--yes", "--json"]).await })
                .collect::<Vec<_>>(),
        )
    };
    for stopped in all("stop").await {
        assert_eq!((&stopped["stopped"], &stopped["switch"]["stop"]), (&"hold".into(), &"hold".into()));
    }
    let held = async || {
        let listed = app.json(&["sources", "list", "--json"]).await;
        listed.as_array().unwrap().iter().filter(|source| source["stopped"] == "hold").count()
    };
    assert_eq!(held().await, 8);
    assert!(all("start").await.iter().all(|started| started["started"] == true));
    assert_eq!(held().await, 0);
    assert!(all("start").await.iter().all(|started| started["started"] == false));
    let audited = "SELECT count(*) FROM api_audit WHERE action = 'source.start'";
    assert_eq!(database.count(audited).await, 8, "what was not done has no row");
}

#[tokio::test]
async fn a_time_that_is_none_or_no_calendar_holds_is_refused() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let app = FunctionApp::of(&database, &storage).start().await;
    for arguments in [
        ["sources", "stop", "stripe", "--for", "0s"],
        ["sources", "stop", "stripe", "--for", "5000000d"],
        ["events", "list", "--json", "--since", "5000000d"],
        ["events", "list", "--json", "--since", "2500000d"],
    ] {
        let output = app.command(&arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains("above zero with its unit, at most 36500d"), "{arguments:?}: {said}");
    }
    assert!(
        app.json(&["events", "list", "--json", "--since", "36500d"]).await.as_array().unwrap().is_empty()
    );
    assert!(app.command(&["sources", "stop", "stripe", "--yes", "--for", "36500d"]).await.status.success());
}

#[tokio::test]
async fn a_stop_may_end_by_itself() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let builder = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    let app = builder.set("SWITCH_CACHE", "0s").start().await;
    assert!(app.command(&["sources", "stop", "stripe", "--yes", "--for", "3s"]).await.status.success());
    deliver(&app, "evt_1").await;
    eventually("the callback", SOON, async || consumer.accepted().len() == 1).await;
    assert_eq!(app.json(&["events", "list", "--json"]).await[0]["state"], "processed");
}
