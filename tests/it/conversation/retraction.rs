//! What the provider's asynchronous filter takes back after it was shown.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::conformance::Contract;
use super::sse::{Came, Sse, kinds, said};
use crate::support::providers::{Ending, FakeProvider, Script, UsageForm, Wire};
use crate::support::server::{API_KEY, Server};
use crate::support::{SOON, TestDatabase, TestStorage, eventually};

const RETRACTED: &str = "colloquy:output_text_retracted";

struct Scene {
    provider: FakeProvider,
    database: TestDatabase,
    first: Server,
    second: Server,
}

impl Scene {
    async fn start() -> Self {
        let provider = FakeProvider::start(Wire::Azure);
        let (database, storage) = (TestDatabase::create().await, TestStorage::create());
        let config = format!(
            "{}[models.it]\ndeployments = [\"d\"]\nfirst_event_seconds = 20\nsilence_seconds = 20\n",
            provider.deployment("d", "price = { input = \"1\", output = \"2\" }")
        );
        let start = || Server::of(&database, &storage).hurried().config(config.clone()).start();
        let (first, second) = (start().await, start().await);
        Self { provider, first, second, database }
    }

    async fn rows_with(&self, table: &str, text: &str) -> i64 {
        self.database.count(&format!("SELECT count(*) FROM {table} WHERE data LIKE '%{text}%'")).await
    }

    /// Nobody who comes now is shown what was taken back: on either server, as a whole and as a stream of these events.
    async fn is_gone(&self, id: &str, response: &Value, events: &[Value]) {
        for server in [&self.first, &self.second] {
            let (status, read) = server.read(&format!("/v1/responses/{id}")).await;
            assert_eq!((status, &read), (200, response));
            let replay = Sse::follow(server, id, None).await.all().await;
            assert_eq!(kinds(&replay), kinds(events));
            assert_eq!(said(&replay), "one two ");
            assert_eq!(replay.last(), events.last());
            let resumed = Sse::follow(server, id, Some(2)).await.all().await;
            assert_eq!(resumed, replay[3..]);
        }
        for table in ["items", "response_events"] {
            assert_eq!(self.rows_with(table, "three").await, 0, "{table}");
            assert_eq!(self.rows_with(table, "two").await, 1, "{table}");
        }
    }
}

#[tokio::test]
async fn viewers_are_told_and_nothing_keeps_it() {
    let scene = Scene::start().await;
    // With the finish, and behind it.
    for late in [false, true] {
        let words = Script::says("one two three four five").pace(Duration::from_millis(40));
        let usage = if late { UsageForm::EmptyChoices } else { UsageForm::Never };
        scene.provider.next([words.filtered_behind(2, late).usage(usage)]);
        let ask = json!({ "model": "it", "input": format!("late: {late}") });
        let mut here = Sse::post(&scene.first, ask).await;
        let created = here.event().await;
        let id = created["response"]["id"].as_str().unwrap().to_owned();
        let mut there = Sse::follow(&scene.second, &id, None).await;
        let mut seen = vec![created];
        seen.extend(here.rest().await.0);
        let also_seen = there.rest().await.0;

        let response = Contract::read().stream(&seen);
        assert!(said(&seen).starts_with("one two three"), "it was shown: {seen:?}");
        let told = seen.iter().find(|event| event["type"] == RETRACTED).expect("an event");
        assert_eq!((&told["text"], &told["reason"]), (&json!("one two "), &json!("content_filter")));
        assert_eq!(
            (&response["status"], &response["incomplete_details"]["reason"]),
            (&json!("incomplete"), &json!("content_filter"))
        );
        assert_eq!(response["output"][0]["content"][0]["text"], "one two ");
        // On the other server the same events under the same numbers.
        assert_eq!(kinds(&also_seen), kinds(&seen));
        assert_eq!(also_seen.last(), seen.last());
        scene.is_gone(&id, &response, &seen).await;
        // It was paid for: as the provider counts or, if it does not, with everything that was said.
        let tokens = scene.database.count("SELECT output_tokens FROM usage ORDER BY id DESC LIMIT 1").await;
        assert!(if late { tokens == 7 } else { tokens >= 12 }, "{tokens}");
        let own_words =
            "SELECT coalesce((raw->>'completion_tokens')::int8, 0) FROM usage ORDER BY id DESC LIMIT 1";
        assert_eq!(scene.database.count(own_words).await, if late { 7 } else { 0 });
        // The next turn is shown what stayed.
        scene.provider.next([Script::says("Yes")]);
        let next = json!({ "model": "it", "input": "and?", "previous_response_id": id });
        let (status, _) = scene.second.post("/v1/responses", next).await;
        let asked = scene.provider.seen().pop().unwrap().body.to_string();
        assert!(status == 200 && asked.contains("one two ") && !asked.contains("three"), "{asked}");
        scene.database.client().await.batch_execute("TRUNCATE response_events, items").await.unwrap();
    }
}

#[tokio::test]
async fn whole_answers_chat_completions_and_sockets_have_none_of_it() {
    let scene = Scene::start().await;
    scene.provider.always(Script::says("one two three").filtered_behind(2, true));
    for store in [true, false] {
        let ask = json!({ "model": "it", "input": "hi", "store": store });
        let (status, whole) = scene.first.post("/v1/responses", ask).await;
        assert_eq!(
            (status, &whole["incomplete_details"]["reason"]),
            (200, &json!("content_filter")),
            "{whole}"
        );
        assert_eq!(whole["output"][0]["content"][0]["text"], "one two ");
    }
    let mut chat = json!({ "model": "it", "messages": [{ "role": "user", "content": "hi" }] });
    let (status, whole) = scene.first.post("/v1/chat/completions", chat.clone()).await;
    let choice = &whole["choices"][0];
    assert_eq!((status, &choice["finish_reason"]), (200, &json!("content_filter")));
    assert_eq!(choice["message"]["content"], "one two ");
    chat["stream"] = true.into();
    let chat = scene.first.client().post(scene.first.url("/v1/chat/completions")).json(&chat);
    let frames = Sse::open(chat).await.all().await;
    assert_eq!(frames.last().unwrap()["choices"][0]["finish_reason"], "content_filter");

    let address = scene.second.url("/v1/responses").replacen("http", "ws", 1);
    let mut request = address.into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {API_KEY}").parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let ask = json!({ "type": "response.create", "model": "it", "input": "hi", "store": false });
    socket.send(Message::text(ask.to_string())).await.unwrap();
    let mut events: Vec<Value> = Vec::new();
    while events.last().is_none_or(|event| event["type"] != "response.incomplete") {
        let message = tokio::time::timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap();
        if let Message::Text(text) = message {
            events.push(serde_json::from_str(&text).unwrap());
        }
    }
    assert!(kinds(&events).contains(&RETRACTED));
    // What the connection remembers of it is what stayed.
    scene.provider.next([Script::says("Yes")]);
    let id = &events.last().unwrap()["response"]["id"];
    let next = json!({ "type": "response.create", "model": "it", "input": "and?", "store": false, "previous_response_id": id });
    socket.send(Message::text(next.to_string())).await.unwrap();
    eventually("the next turn", SOON, async || {
        scene.provider.seen().last().unwrap().body.to_string().contains("and?")
    })
    .await;
    let asked = scene.provider.seen().pop().unwrap().body.to_string();
    assert!(asked.contains("one two ") && !asked.contains("three"), "{asked}");
}

/// The server dies between the retraction and the turn's end: whoever takes over knows of it from the log.
#[tokio::test]
async fn a_killed_servers_retraction_holds() {
    let mut scene = Scene::start().await;
    let words = Script::says("one two three four").pace(Duration::from_millis(40)).filtered_behind(2, true);
    scene.provider.next([words.ending(Ending::Stall)]);
    let mut here = Sse::post(&scene.first, json!({ "model": "it", "input": "hi" })).await;
    let id = here.event().await["response"]["id"].as_str().unwrap().to_owned();
    here.until(RETRACTED).await;
    assert!(scene.rows_with("response_events", "three").await > 0, "its end would empty it");
    scene.first.kill();
    assert_eq!(here.rest().await.1, Came::Broken);
    let mut response = Value::Null;
    eventually("the other server to end it", SOON, async || {
        response = scene.second.read(&format!("/v1/responses/{id}")).await.1;
        response["status"] == "incomplete"
    })
    .await;
    assert_eq!(response["incomplete_details"]["reason"], "content_filter");
    assert_eq!(response["output"][0]["content"][0]["text"], "one two ");
    let replay = Sse::follow(&scene.second, &id, None).await.all().await;
    assert_eq!((said(&replay).as_str(), &replay.last().unwrap()["response"]), ("one two ", &response));
    assert!(kinds(&replay).contains(&RETRACTED));
    assert_eq!(scene.rows_with("response_events", "three").await, 0);
}
