//! Log probabilities, from the providers that give them.

use serde_json::{Value, json};

use super::conformance::Contract;
use super::sse::Sse;
use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::Server;
use crate::support::{TestDatabase, TestStorage};

const INCLUDE: &str = "message.output_text.logprobs";

/// Tokens and how likely the likeliest was, as a list of log probabilities says.
fn tokens(list: &Value) -> Vec<(String, f64, usize)> {
    let one = |logprob: &Value| {
        let token = logprob["token"].as_str().unwrap().to_owned();
        assert_eq!(logprob["bytes"], json!(token.as_bytes()), "{logprob}");
        let top = logprob["top_logprobs"].as_array().unwrap();
        (token, logprob["logprob"].as_f64().unwrap(), top.len())
    };
    list.as_array().unwrap_or_else(|| panic!("{list}")).iter().map(one).collect()
}

fn likely(words: &[&str]) -> Vec<(String, f64, usize)> {
    words.iter().map(|word| ((*word).to_owned(), -0.25, 2)).collect()
}

async fn behind(provider: &FakeProvider, database: &TestDatabase) -> Server {
    let config = format!("{}[models.it]\ndeployments = [\"d\"]\n", provider.deployment("d", ""));
    Server::of(database, &TestStorage::create()).config(config).start().await
}

#[tokio::test]
async fn they_come_with_deltas_and_stay_with_the_item() {
    for wire in [Wire::Chat, Wire::Azure, Wire::Responses] {
        let provider = FakeProvider::start(wire);
        provider.always(Script::says("Hëllo wide world").likely());
        let database = TestDatabase::create().await;
        let (first, second) = (behind(&provider, &database).await, behind(&provider, &database).await);
        let words = likely(&["Hëllo ", "wide ", "world"]);

        let ask = json!({ "model": "it", "input": "hi", "include": [INCLUDE], "top_logprobs": 2 });
        let events = Sse::post(&first, ask).await.all().await;
        let response = Contract::read().stream(&events);
        let of = |kind: &str| {
            let events = events.iter().filter(move |event| event["type"] == kind);
            events.flat_map(|event| tokens(&event["logprobs"])).collect::<Vec<_>>()
        };
        assert_eq!(of("response.output_text.delta"), words, "{wire:?}");
        assert_eq!(of("response.output_text.done"), words, "{wire:?}");
        assert_eq!(tokens(&response["output"][0]["content"][0]["logprobs"]), words);
        assert_eq!(response["top_logprobs"], 2);
        let seen = provider.seen().pop().unwrap().body;
        match wire {
            Wire::Responses => assert_eq!(seen["include"], json!([INCLUDE])),
            _ => assert_eq!(seen["logprobs"], true),
        }
        assert_eq!(seen["top_logprobs"], 2);

        // From the log of the other server, the same to the last digit.
        let id = response["id"].as_str().unwrap();
        assert_eq!(Sse::follow(&second, id, None).await.all().await, events, "{wire:?}");
        assert_eq!(second.read(&format!("/v1/responses/{id}")).await, (200, response.clone()));
        // The past is shown without them.
        let next = json!({ "model": "it", "input": "and?", "previous_response_id": id });
        assert_eq!(second.post("/v1/responses", next).await.0, 200);
        assert!(!provider.seen().pop().unwrap().body.to_string().contains("-0.25"));

        let chat = json!({ "model": "it", "messages": [{ "role": "user", "content": "hi" }], "logprobs": true, "top_logprobs": 2 });
        let (status, whole) = first.post("/v1/chat/completions", chat.clone()).await;
        assert_eq!(
            (status, tokens(&whole["choices"][0]["logprobs"]["content"])),
            (200, words.clone()),
            "{whole}"
        );
        let mut chat = chat;
        chat["stream"] = true.into();
        let frames =
            Sse::open(first.client().post(first.url("/v1/chat/completions")).json(&chat)).await.all().await;
        let streamed: Vec<_> = frames
            .iter()
            .filter(|frame| !frame["choices"][0]["logprobs"].is_null())
            .flat_map(|frame| tokens(&frame["choices"][0]["logprobs"]["content"]))
            .collect();
        assert_eq!(streamed, words);
    }
}

#[tokio::test]
async fn who_does_not_ask_gets_none_and_where_there_are_none_they_are_refused() {
    let provider = FakeProvider::start(Wire::Anthropic);
    let database = TestDatabase::create().await;
    let server = behind(&provider, &database).await;
    for (ask, param) in
        [(json!({ "include": [INCLUDE] }), "include"), (json!({ "top_logprobs": 1 }), "top_logprobs")]
    {
        let mut body = json!({ "model": "it", "input": "hi" });
        body.as_object_mut().unwrap().extend(ask.as_object().unwrap().clone());
        let (status, error) = server.post("/v1/responses", body).await;
        assert_eq!((status, &error["error"]["code"]), (400, &json!("unsupported_parameter")), "{error}");
        assert_eq!(error["error"]["param"], param);
    }
    let chat = json!({ "model": "it", "messages": [{ "role": "user", "content": "hi" }], "logprobs": true });
    let (status, error) = server.post("/v1/chat/completions", chat).await;
    assert_eq!((status, &error["error"]["param"]), (400, &json!("logprobs")), "{error}");
    assert_eq!(provider.seen().len(), 0);

    let provider = FakeProvider::start(Wire::Chat);
    let server = behind(&provider, &database).await;
    let (_, whole) = server.post("/v1/responses", json!({ "model": "it", "input": "hi" })).await;
    assert_eq!(whole["output"][0]["content"][0]["logprobs"], json!([]));
    assert_eq!(provider.seen()[0].body.get("logprobs"), None);
}
