//! Turns that go on with nobody watching, and how many of them there may be.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::sse::Sse;
use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::{API_KEY, OTHER_KEY, Server, ServerBuilder};
use crate::support::{SOON, TestDatabase, TestStorage, eventually};

async fn server(provider: &FakeProvider, most: &str) -> (TestDatabase, Server) {
    let (database, builder) = builder(provider).await;
    (database, builder.set("UNWATCHED_TURNS_MAX", most).start().await)
}

async fn builder(provider: &FakeProvider) -> (TestDatabase, ServerBuilder) {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let config = format!("{}[models.it]\ndeployments = [\"d\"]\n", provider.deployment("d", ""));
    let builder = Server::of(&database, &storage).hurried().config(config);
    (database, builder)
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
        let answer = answer.bearer_auth(API_KEY).send().await.unwrap();
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

#[tokio::test]
async fn background_turns_of_one_owner_are_limited_wherever_they_run() {
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(long().pace(Duration::from_millis(200)));
    let (_database, builder) = builder(&provider).await;
    let servers = builder.set("UNWATCHED_TURNS_PER_OWNER_MAX", "2").start_two().await;
    let [first, second] = servers.both();
    let ask = json!({ "model": "it", "input": "hi", "background": true });
    let mut running = Vec::new();
    for server in [first, second] {
        let (taken, turn) = server.post("/v1/responses", ask.clone()).await;
        assert_eq!(taken, 200, "{turn}");
        running.push(turn);
    }
    for (nth, server) in [first, second].into_iter().enumerate() {
        let (refused, error) = server.post("/v1/responses", ask.clone()).await;
        assert_eq!(
            (refused, &error["error"]["code"]),
            (429, &json!("owner_unwatched_turns_limit")),
            "{error}"
        );
        assert_eq!(error["error"]["param"], "background");
        let message = error["error"]["message"].as_str().expect("a message");
        assert!(message.contains("UNWATCHED_TURNS_PER_OWNER_MAX"), "{message}");
        // It is about this owner alone, and about turns that nobody needs to watch.
        let (taken, turn) = server.call(Method::POST, "/v1/responses", Some(ask.clone()), OTHER_KEY).await;
        assert_eq!(taken, 200, "{turn}");
        // All have asked by then, or one of them would be told this.
        eventually("it to have asked", SOON, async || provider.seen().len() == 3 + 2 * nth).await;
        provider.next([Script::says("Hi")]);
        assert_eq!(server.post("/v1/responses", json!({ "model": "it", "input": "hi" })).await.0, 200);
    }
    let cancel = format!("/v1/responses/{}/cancel", running[1]["id"].as_str().unwrap());
    assert_eq!(first.post(&cancel, json!({})).await.1["status"], "cancelled");
    eventually("a place", SOON, async || first.post("/v1/responses", ask.clone()).await.0 == 200).await;
}

#[tokio::test]
async fn turns_that_one_owner_leaves_are_limited_too() {
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(long());
    let (_database, builder) = builder(&provider).await;
    let server = builder.set("UNWATCHED_TURNS_PER_OWNER_MAX", "1").start().await;
    let both = [left(&server).await, left(&server).await];
    eventually("one of them to be given up", SOON, async || {
        let ways = [status(&server, &both[0]).await, status(&server, &both[1]).await];
        ways.iter().filter(|status| *status == "cancelled").count() == 1
    })
    .await;
    let background = json!({ "model": "it", "input": "hi", "background": true });
    let (status, error) = server.post("/v1/responses", background.clone()).await;
    assert_eq!((status, &error["error"]["code"]), (429, &json!("owner_unwatched_turns_limit")), "{error}");
    let (status, turn) = server.call(Method::POST, "/v1/responses", Some(background), OTHER_KEY).await;
    assert_eq!(status, 200, "{turn}");
}
