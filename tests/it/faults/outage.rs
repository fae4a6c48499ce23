//! PostgreSQL goes away while turns run.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::conversation::sse::{Came, Sse, said};
use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::Server;
use crate::support::{PrivatePostgres, SOON, TestDatabase, TestStorage, eventually};

const WORDS: usize = 120;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_postgresql_turns_go_on_unlogged_and_end_when_it_is_back() {
    let mut postgres = PrivatePostgres::start().await;
    let database = TestDatabase::within(&postgres).await;
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(Script::words(WORDS).pace(Duration::from_millis(50)));
    let config = format!("{}[models.it]\ndeployments = [\"d\"]\n", provider.deployment("d", ""));
    // Rows are counted in the database, however long this machine takes for an outage.
    let server = Server::of(&database, &TestStorage::create()).config(config).set("USAGE_SPOOL_AFTER", "10m");
    let server = server.start().await;

    let ask = |input: &str| json!({ "model": "it", "input": input });
    let mut background = ask("behind");
    background["background"] = true.into();
    let (_, background) = server.post("/v1/responses", background).await;
    let mut stream = Sse::post(&server, ask("streamed")).await;
    let mut seen = vec![stream.event().await];
    while said(&seen).split_whitespace().count() < 10 {
        seen.push(stream.event().await);
    }
    postgres.kill().await;

    // The stream goes on at once, and says that it cannot be resumed for now.
    while said(&seen).split_whitespace().count() < 60 {
        seen.push(stream.event().await);
    }
    assert!(stream.comments.iter().any(|comment| comment == "unlogged"), "{:?}", stream.comments);
    // New turns that are to be stored are refused at once, others run.
    let refused = Instant::now();
    let (status, error) = server.post("/v1/responses", ask("new")).await;
    let took = refused.elapsed();
    assert_eq!((status, &error["error"]["code"]), (503, &json!("database_unavailable")), "{error}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    crate::support::report("without PostgreSQL", &format!("a stored turn is refused after {took:.1?}"));
    provider.next([Script::says("Hello there")]);
    let (status, answer) =
        server.post("/v1/responses", json!({ "model": "it", "input": "hi", "store": false })).await;
    assert_eq!((status, &answer["status"]), (200, &json!("completed")), "{answer}");

    // All of it is shown; its end is not, since it is not stored.
    while said(&seen).split_whitespace().count() < WORDS {
        seen.push(stream.event().await);
    }
    let end = tokio::time::timeout(Duration::from_secs(2), stream.next()).await;
    assert!(end.is_err(), "{end:?}");
    postgres.start_again().await;
    let (rest, end) = stream.rest().await;
    seen.extend(rest);
    assert_eq!(end, Came::Done);
    let response = &seen.last().unwrap()["response"];
    assert_eq!((&response["status"], said(&seen).split_whitespace().count()), (&json!("completed"), WORDS));

    // What was stored is what was shown, for the other turn too, and the log has caught up.
    let id = response["id"].as_str().unwrap();
    assert_eq!(server.read(&format!("/v1/responses/{id}")).await, (200, response.clone()));
    let other = Server::of(&database, &TestStorage::create()).start().await;
    assert_eq!(Sse::follow(&other, id, None).await.all().await, seen);
    let path = format!("/v1/responses/{}", background["id"].as_str().unwrap());
    let mut behind = Value::Null;
    eventually("the turn in the background to end", SOON, async || {
        behind = other.read(&path).await.1;
        behind["status"] == "completed"
    })
    .await;
    let text = behind["output"][0]["content"][0]["text"].as_str().unwrap();
    assert_eq!(text.split_whitespace().count(), WORDS);
    eventually("every turn to be paid once", SOON, async || {
        database.count("SELECT count(*) FROM usage WHERE state = 'settled'").await == 3
            && database.count("SELECT count(*) FROM usage").await == 3
    })
    .await;
}
