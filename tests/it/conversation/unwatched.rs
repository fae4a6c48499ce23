//! Turns that go on with nobody watching, and how many of them there may be.

use std::time::Duration;

use serde_json::{Value, json};

use super::sse::Sse;
use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::Server;
use crate::support::{SOON, TestDatabase, TestStorage, eventually};

async fn server(provider: &FakeProvider, most: &str) -> (TestDatabase, Server) {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let config = format!("{}[models.it]\ndeployments = [\"d\"]\n", provider.deployment("d", ""));
    let server = Server::of(&database, &storage).hurried().set("UNWATCHED_TURNS_MAX", most).config(config);
    (database, server.start().await)
}

fn long() -> Script {
    Script::words(200).pace(Duration::from_millis(50))
}

async fn status(server: &Server, response: &Value) -> String {
    let path = format!("/v1/responses/{}", response["id"].as_str().unwrap_or_else(|| panic!("{response}")));
    server.read(&path).await.1["status"].as_str().unwrap().to_owned()
}

/// Streams a turn that is to go on, leaves it, and gives its response.
async fn left(server: &Server) -> Value {
    let ask = json!({ "model": "it", "input": "hi", "on_disconnect": "continue" });
    let mut stream = Sse::post(server, ask).await;
    let created = stream.event().await;
    stream.until("response.output_text.delta").await;
    created["response"].clone()
}

#[tokio::test]
async fn background_turns_beyond_the_limit_are_refused() {
    let provider = FakeProvider::start(Wire::Chat);
    // None of them comes to its end here, however slow this machine is.
    provider.always(long().pace(Duration::from_millis(200)));
    let (_database, server) = server(&provider, "2").await;
    let ask = json!({ "model": "it", "input": "hi", "background": true });
    let mut running = Vec::new();
    // Whether it is watched or not: it was promised to go on.
    let mut watched = ask.clone();
    watched["stream"] = true.into();
    let mut stream = Sse::post(&server, watched.clone()).await;
    running.push(stream.event().await["response"].clone());
    let (taken, second) = server.post("/v1/responses", ask.clone()).await;
    assert_eq!(taken, 200, "{second}");
    running.push(second);
    for body in [&ask, &watched] {
        let answer = server.client().post(server.url("/v1/responses")).json(body);
        let answer = answer.bearer_auth(crate::support::server::API_KEY).send().await.unwrap();
        assert_eq!(answer.status(), 429);
        assert!(answer.headers().contains_key("retry-after"));
        let error: Value = answer.json().await.unwrap();
        assert_eq!(error["error"]["code"], "unwatched_turns_limit");
        assert_eq!(
            (&error["error"]["type"], &error["error"]["param"]),
            (&json!("rate_limit_error"), &json!("background"))
        );
        assert!(error["error"]["message"].as_str().unwrap().contains("UNWATCHED_TURNS_MAX"));
    }
    // What is watched needs no place. The others have asked by then, or one of them would be told this.
    eventually("both to have asked", SOON, async || provider.seen().len() == 2).await;
    provider.next([Script::says("Hi")]);
    assert_eq!(server.post("/v1/responses", json!({ "model": "it", "input": "hi" })).await.0, 200);
    // A place comes back with the end of its turn, and nobody loses one that he has.
    drop(stream);
    let cancel = format!("/v1/responses/{}/cancel", running[1]["id"].as_str().unwrap());
    assert_eq!(server.post(&cancel, json!({})).await.1["status"], "cancelled");
    eventually("a place", SOON, async || server.post("/v1/responses", ask.clone()).await.0 == 200).await;
    assert_eq!(status(&server, &running[0]).await, "in_progress");
}

#[tokio::test]
async fn a_turn_that_is_left_takes_a_place_or_is_cancelled() {
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(long());
    let (_database, server) = server(&provider, "1").await;
    let both = [left(&server).await, left(&server).await];
    let mut going = Vec::new();
    eventually("one of them to be given up", SOON, async || {
        going.clear();
        for turn in &both {
            match status(&server, turn).await.as_str() {
                "in_progress" => going.push(turn),
                other => assert_eq!(other, "cancelled"),
            }
        }
        going.len() == 1
    })
    .await;
    let background = json!({ "model": "it", "input": "hi", "background": true });
    assert_eq!(server.post("/v1/responses", background.clone()).await.0, 429);
    // Who comes back gives the place back.
    let mut back = Sse::follow(&server, going[0]["id"].as_str().unwrap(), None).await;
    back.until("response.output_text.delta").await;
    eventually("a place", SOON, async || server.post("/v1/responses", background.clone()).await.0 == 200)
        .await;
    let (rest, _) = back.rest().await;
    assert_eq!(rest.last().unwrap()["response"]["status"], "completed");
}

#[tokio::test]
async fn with_no_places_nothing_goes_on_alone() {
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(long());
    let (database, server) = server(&provider, "0").await;
    let background = json!({ "model": "it", "input": "hi", "background": true });
    assert_eq!(server.post("/v1/responses", background).await.0, 429);
    let response = left(&server).await;
    eventually("it to be given up", SOON, async || status(&server, &response).await == "cancelled").await;
    eventually("the provider to be left", SOON, async || provider.abandoned() == 1).await;
    // What it had cost until then is written down, and that nobody but us counted it.
    let paid = "SELECT count(*) FROM usage WHERE state = 'settled' AND reason = 'disconnected' AND estimated
                AND input_tokens > 0 AND output_tokens > 5";
    assert_eq!((database.count(paid).await, database.count("SELECT count(*) FROM usage").await), (1, 1));
}
