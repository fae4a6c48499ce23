//! What keeps a server and its connections going: signs of life, an orderly end, memory that stays what it was.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use http::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::sse::{Came, Sse, said};
use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::{API_KEY, Server};
use crate::support::{SOON, TestDatabase, TestStorage, eventually, report, resident_kib};

fn config(provider: &FakeProvider) -> String {
    format!(
        "{}[models.it]\ndeployments = [\"d\"]\n",
        provider.deployment("d", "requests_per_minute = 0\ntokens_per_minute = 0")
    )
}

#[tokio::test]
async fn silence_is_filled_in_every_form_of_answer() {
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(Script::says("Hello there").first_after(Duration::from_millis(4_500)));
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).set("HEARTBEAT", "1s").set("JSON_KEEP_ALIVE", "1s");
    let server = server.config(config(&provider)).start_two().await;
    let ask = json!({ "model": "it", "input": "hi" });
    let mut streamed = Sse::post(&server, ask.clone()).await;
    let (events, end) = streamed.rest().await;
    assert_eq!((said(&events).as_str(), end), ("Hello there", Came::Done));
    assert!(
        streamed.comments.iter().filter(|comment| *comment == "heartbeat").count() >= 1,
        "{:?}",
        streamed.comments
    );
    let whole = server.client().post(server.url("/v1/responses")).bearer_auth(API_KEY).json(&ask);
    let whole = whole.send().await.unwrap().text().await.unwrap();
    assert!(whole.starts_with(' '), "{whole}");
    let whole: Value = serde_json::from_str(whole.trim()).unwrap();
    assert_eq!(whole["output"][0]["content"][0]["text"], "Hello there");
}

#[tokio::test]
async fn a_server_that_stops_ends_its_streams_and_its_sockets() {
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(Script::words(1_000).pace(Duration::from_millis(30)));
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let start = || Server::of(&database, &storage).hurried().config(config(&provider)).start();
    let (mut first, second) = (start().await, start().await);
    let address = first.url("/v1/responses").replacen("http", "ws", 1);
    let mut request = address.into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {API_KEY}").parse().unwrap());
    let (mut idle, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let mut streamed = Sse::post(&first, json!({ "model": "it", "input": "hi" })).await;
    let mut seen = vec![streamed.event().await];

    // An open stream and an idle connection keep it from nothing.
    let ((), (rest, end)) = tokio::join!(first.stop(), streamed.rest());
    seen.extend(rest);
    assert_eq!(end, Came::Done, "the stream has its end");
    let response = &seen.last().unwrap()["response"];
    assert_eq!(
        (&response["status"], &response["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("interrupted"))
    );
    assert!(!said(&seen).is_empty() && response["output"][0]["content"][0]["text"] == said(&seen));
    let path = format!("/v1/responses/{}", response["id"].as_str().unwrap());
    assert_eq!(second.read(&path).await, (200, response.clone()));
    let closed = tokio::time::timeout(SOON, idle.next()).await.unwrap();
    let Some(Ok(Message::Close(Some(frame)))) = closed else { panic!("{closed:?}") };
    assert_eq!(frame.code, CloseCode::Restart);
}

#[tokio::test]
async fn a_server_on_an_old_schema_is_not_ready_and_answers_what_needs_none() {
    let (database, storage) = (TestDatabase::empty().await, TestStorage::create());
    let server = Server::of(&database, &storage).start_without_database().await;
    let (status, ready) = server.call(Method::GET, "/health/ready", None, API_KEY).await;
    assert_eq!((status, &ready["checks"][0]), (503, &json!({ "name": "database", "ok": false })), "{ready}");
    let ask = json!({ "model": "demo", "input": "/fast hi", "store": false });
    let (status, answer) = server.post("/v1/responses", ask).await;
    assert_eq!((status, &answer["status"]), (200, &json!("completed")), "{answer}");
}

/// Turns of all kinds, again and again: what a turn needed is given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_what_it_was() {
    const TURNS: usize = 150;
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(Script::words(300));
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).set("TURN_KEPT", "1s").config(config(&provider));
    let mut server = server.start().await;
    let pid = server.process().pid();
    let mut after = Vec::new();
    for _ in 0..4 {
        stream::iter(0..TURNS)
            .for_each_concurrent(16, async |at| {
                let ask = json!({ "model": "it", "input": "hi", "store": at % 3 > 0 });
                if at % 2 == 0 {
                    assert_eq!(server.post("/v1/responses", ask).await.0, 200);
                } else {
                    let mut streamed = Sse::post(&server, ask).await;
                    // Some leave in the middle.
                    for _ in 0..5 {
                        streamed.event().await;
                    }
                    if at % 5 > 0 {
                        streamed.rest().await;
                    }
                }
            })
            .await;
        eventually("all turns to be forgotten", SOON * 3, async || {
            let (_, status) = server.read("/health/status").await;
            status["turns"] == json!([]) && status["connections"]["open"].as_u64() < Some(40)
        })
        .await;
        after.push(resident_kib(pid));
    }
    report("memory of the conversation server", &format!("{after:?} KiB resident after each {TURNS} turns"));
    let grown = after[3] - after[1];
    assert!(grown < 8 * 1024, "{after:?} KiB");
}
