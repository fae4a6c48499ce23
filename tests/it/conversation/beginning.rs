//! A caller that leaves while its turn is being committed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::{API_KEY, Server};
use crate::support::{SOON, TestDatabase, TestStorage, eventually};

#[tokio::test]
async fn a_turn_whose_caller_leaves_while_it_is_committed_is_run_and_locks_nothing() {
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(Script::says("Hello there"));
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let config = format!(
        "{}[models.it]\ndeployments = [\"d\"]\n",
        provider.deployment("d", "price = { input = \"1\", output = \"2\" }")
    );
    // Whoever falls silent is not noticed during the test.
    let servers = Server::of(&database, &storage).set("TURN_LEASE", "10m").config(config).start_two().await;
    let [first, second] = servers.both();
    let (_, conversation) = first.post("/v1/conversations", json!({})).await;
    let ask = |input: &str| json!({ "model": "it", "input": input, "conversation": conversation["id"] });
    // What the first turn has to find once: a connection, the day's partition.
    let (status, answer) = first.post("/v1/responses", ask("before")).await;
    assert_eq!(status, 200, "{answer}");

    let holding = database.client().await;
    holding.batch_execute("BEGIN; LOCK TABLE items IN EXCLUSIVE MODE").await.expect("a lock");
    let post = first.client().post(first.url("/v1/responses")).bearer_auth(API_KEY).json(&ask("left"));
    let leaving = tokio::spawn(post.send());
    let look = database.client().await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("the commit to be held up", SOON, async || {
        look.query_one(waiting, &[]).await.expect("a count").get::<_, i64>(0) > 0
    })
    .await;
    leaving.abort();
    assert!(leaving.await.is_err_and(|error| error.is_cancelled()), "it has left");
    // So that the server has seen that it left.
    eventually("the connection to be closed", SOON, async || {
        let (_, status) = second.read("/health/status").await;
        let (_, here) = first.read("/health/status").await;
        status.is_object() && here["connections"]["open"].as_u64() == Some(1)
    })
    .await;
    holding.batch_execute("COMMIT").await.expect("no lock");

    let mut answer = Value::Null;
    eventually("the conversation to be free", SOON, async || {
        let (status, next) = second.post("/v1/responses", ask("next")).await;
        assert!(status == 200 || next["error"]["code"] == "conversation_locked", "{next}");
        answer = next;
        status == 200
    })
    .await;
    assert_eq!(answer["status"], "completed", "{answer}");
    assert_eq!(provider.seen().len(), 3, "what was committed was asked, too");
    eventually("all to be paid", SOON, async || {
        database.count("SELECT count(*) FROM usage WHERE state = 'settled'").await == 3
    })
    .await;
    assert_eq!(database.count("SELECT count(*) FROM usage WHERE estimated").await, 0, "nothing is guessed");
    let states = "SELECT count(*) FROM responses WHERE state = 'completed'";
    assert_eq!(database.count(states).await, 3);
}

/// Before the commit nothing of it is to be found, and nothing goes on.
#[tokio::test]
async fn a_caller_that_leaves_before_the_commit_has_begun_no_turn() {
    let provider = FakeProvider::start(Wire::Chat);
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let config = format!("{}[models.it]\ndeployments = [\"d\"]\n", provider.deployment("d", ""));
    let servers = Server::of(&database, &storage).config(config).start_two().await;
    let [first, second] = servers.both();
    let (_, conversation) = first.post("/v1/conversations", json!({})).await;
    let ask = |input: &str| json!({ "model": "it", "input": input, "conversation": conversation["id"] });

    // Its window is what it waits for.
    let holding = database.client().await;
    holding.batch_execute("BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE").await.expect("a lock");
    let post = first.client().post(first.url("/v1/responses")).bearer_auth(API_KEY).json(&ask("left"));
    let left = tokio::time::timeout(Duration::from_secs(1), post.send()).await;
    assert!(left.is_err(), "it waits: {left:?}");
    eventually("the connection to be closed", SOON, async || {
        first.read("/health/status").await.1["connections"]["open"].as_u64() == Some(1)
    })
    .await;
    holding.batch_execute("COMMIT").await.expect("no lock");
    let (status, answer) = second.post("/v1/responses", ask("next")).await;
    assert_eq!((status, &answer["status"]), (200, &json!("completed")), "{answer}");
    assert_eq!(database.count("SELECT count(*) FROM responses").await, 1);
    assert_eq!(provider.seen().len(), 1);
}
