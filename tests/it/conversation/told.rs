//! What a provider tells beside the answer: annotations of its text, and the service tier that served it.

use serde_json::{Value, json};

use super::conformance::Contract;
use super::sse::{Sse, kinds};
use crate::support::providers::{Ending, FakeProvider, Script, Wire};
use crate::support::server::{Server, ServerBuilder};
use crate::support::{SOON, TestDatabase, TestStorage, eventually};

const ADDED: &str = "response.output_text.annotation.added";

fn behind(provider: &FakeProvider, database: &TestDatabase) -> ServerBuilder {
    let config = format!("{}[models.it]\ndeployments = [\"d\"]\n", provider.deployment("d", ""));
    Server::of(database, &TestStorage::create()).hurried().config(config)
}

fn cited() -> Value {
    json!({ "type": "url_citation", "start_index": 0, "end_index": 5, "url": "https://example.com/a", "title": "A source" })
}

#[tokio::test]
async fn annotations_come_with_their_text_and_stay_with_it() {
    for wire in [Wire::Chat, Wire::Azure, Wire::Responses] {
        let provider = FakeProvider::start(wire);
        provider.always(Script::says("Hello there").cites("https://example.com/a", 0, 5));
        let database = TestDatabase::create().await;
        let servers = behind(&provider, &database).start_two().await;
        let [first, second] = servers.both();
        let events = Sse::post(first, json!({ "model": "it", "input": "hi" })).await.all().await;
        let response = Contract::read().stream(&events);
        let added = events.iter().find(|event| event["type"] == ADDED).expect("an event");
        assert_eq!((&added["annotation"], &added["annotation_index"]), (&cited(), &json!(0)), "{wire:?}");
        let part = &response["output"][0]["content"][0];
        assert_eq!((&part["annotations"], &part["text"]), (&json!([cited()]), &json!("Hello there")));
        // From the log of the other server, as its item, and once that is all there is.
        let id = response["id"].as_str().unwrap();
        assert_eq!(Sse::follow(second, id, None).await.all().await, events, "{wire:?}");
        let (status, read) = second.read(&format!("/v1/responses/{id}")).await;
        assert_eq!((status, &read), (200, &response));
        database.client().await.execute("UPDATE responses SET log_until = now()", &[]).await.unwrap();
        let mut replay = Vec::new();
        eventually("the first server to have forgotten the turn", SOON, async || {
            replay = Sse::follow(first, id, None).await.all().await;
            replay.iter().any(|event| event["delta"] == "Hello there")
        })
        .await;
        assert!(kinds(&replay).contains(&ADDED));
        assert_eq!(replay.last().unwrap()["response"]["output"], response["output"]);

        let nested = json!({ "type": "url_citation", "url_citation": { "start_index": 0, "end_index": 5,
            "url": "https://example.com/a", "title": "A source" } });
        let mut chat = json!({ "model": "it", "messages": [{ "role": "user", "content": "hi" }] });
        let (status, whole) = servers.post("/v1/chat/completions", chat.clone()).await;
        assert_eq!(
            (status, &whole["choices"][0]["message"]["annotations"]),
            (200, &json!([nested])),
            "{whole}"
        );
        chat["stream"] = true.into();
        let frames =
            Sse::open(first.client().post(first.url("/v1/chat/completions")).json(&chat)).await.all().await;
        let annotated =
            frames.iter().filter(|frame| frame["choices"][0]["delta"]["annotations"] == json!([nested]));
        assert_eq!(annotated.count(), 1, "{frames:?}");
    }
}

/// What is behind the text that stays goes with what is taken back, since it may quote it.
#[tokio::test]
async fn annotations_of_what_is_taken_back_go_with_it() {
    let provider = FakeProvider::start(Wire::Azure);
    let script = Script::says("one two three").cites("https://example.com/secret", 4, 7);
    provider.always(script.filtered_behind(1, true));
    let database = TestDatabase::create().await;
    let servers = behind(&provider, &database).start_two().await;
    let events = Sse::post(&servers, json!({ "model": "it", "input": "hi" })).await.all().await;
    let response = Contract::read().stream(&events);
    assert_eq!(response["output"][0]["content"][0]["annotations"], json!([]), "{response}");
    for table in ["items", "response_events"] {
        let kept = format!("SELECT count(*) FROM {table} WHERE data LIKE '%secret%'");
        assert_eq!(database.count(&kept).await, 0, "{table}");
    }
    let id = response["id"].as_str().unwrap();
    for server in servers.both() {
        let replay = Sse::follow(server, id, None).await.all().await;
        assert_eq!((kinds(&replay), replay.last()), (kinds(&events), events.last()));
    }
}

#[tokio::test]
async fn the_tier_that_served_is_what_is_told_at_the_end() {
    for (wire, tier) in [
        (Wire::Chat, "priority"),
        (Wire::Azure, "priority"),
        (Wire::Responses, "flex"),
        (Wire::Anthropic, "standard"),
    ] {
        let provider = FakeProvider::start(wire);
        provider.always(Script::says("Hello there").tier(tier));
        let database = TestDatabase::create().await;
        let servers = behind(&provider, &database).start_two().await;
        let [first, second] = servers.both();
        let ask = json!({ "model": "it", "input": "hi", "service_tier": "auto" });
        let events = Sse::post(first, ask.clone()).await.all().await;
        assert_eq!(events[0]["response"]["service_tier"], "auto", "what was asked for: {wire:?}");
        let response = &events.last().unwrap()["response"];
        assert_eq!(response["service_tier"], tier, "{wire:?}");
        let id = response["id"].as_str().unwrap();
        assert_eq!(second.read(&format!("/v1/responses/{id}")).await, (200, response.clone()));
        assert_eq!(Sse::follow(second, id, None).await.all().await, events, "{wire:?}");
        let (_, whole) =
            servers.post("/v1/responses", json!({ "model": "it", "input": "hi", "store": false })).await;
        assert_eq!(whole["service_tier"], tier, "{wire:?}");
        let chat = json!({ "model": "it", "messages": [{ "role": "user", "content": "hi" }] });
        assert_eq!(servers.post("/v1/chat/completions", chat).await.1["service_tier"], tier, "{wire:?}");
        // Who fails behind that tells it too; who tells none is not contradicted.
        provider
            .next([Script::says("Hello there").tier(tier).ending_after(1, Ending::Eof), Script::says("Hi")]);
        let (_, failed) = servers.post("/v1/responses", ask.clone()).await;
        let told = if wire == Wire::Responses { "auto" } else { tier };
        assert_eq!(
            (&failed["status"], &failed["service_tier"]),
            (&json!("failed"), &json!(told)),
            "{failed}"
        );
        assert_eq!(servers.post("/v1/responses", ask).await.1["service_tier"], "auto");
    }
}
