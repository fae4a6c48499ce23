//! What a provider is shown of the past: no half of a tool call, which every one refuses, and no more than its window.

use http::Method;
use serde_json::{Value, json};

use super::sse::Sse;
use crate::support::providers::{Ending, FakeProvider, Script, Tool, Wire};
use crate::support::server::{API_KEY, Server, Servers};
use crate::support::{TestDatabase, TestStorage};

struct Scene {
    provider: FakeProvider,
    _database: TestDatabase,
    server: Servers,
    /// Its id.
    conversation: String,
}

impl Scene {
    async fn start() -> Self {
        Self::with(Wire::Responses, "").await
    }

    /// Behind this provider, with these further keys of its deployment.
    async fn with(wire: Wire, more: &str) -> Self {
        let provider = FakeProvider::start(wire);
        let (database, storage) = (TestDatabase::create().await, TestStorage::create());
        let config = format!(
            "{}[models.it]\ndeployments = [\"d\"]\nfirst_event_seconds = 20\nsilence_seconds = 20\n",
            provider.deployment("d", &format!("context_window = 4000\nmax_output_tokens = 1200\n{more}"))
        );
        let server = Server::of(&database, &storage).hurried().config(config).start_two().await;
        let (_, conversation) = server.post("/v1/conversations", json!({})).await;
        let conversation = conversation["id"].as_str().expect("an id").to_owned();
        Self { provider, _database: database, server, conversation }
    }

    fn ask(&self, input: Value) -> Value {
        let tool = json!({ "type": "function", "name": "f", "parameters": { "type": "object" } });
        json!({ "model": "it", "conversation": self.conversation, "input": input, "tools": [tool] })
    }

    async fn turn(&self, input: Value) -> Value {
        self.turn_with(input, json!({})).await
    }

    async fn turn_with(&self, input: Value, more: Value) -> Value {
        let mut ask = self.ask(input);
        ask.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let (status, response) = self.server.post("/v1/responses", ask).await;
        assert_eq!((status, &response["status"]), (200, &json!("completed")), "{response}");
        response
    }

    /// Streams a turn, and cancels it elsewhere once this comes of it.
    async fn cancelled_at(&self, input: Value, kind: &str) {
        let mut stream = Sse::post(&self.server, self.ask(input)).await;
        let id = stream.until("response.created").await["response"]["id"].clone();
        stream.until(kind).await;
        let path = format!("/v1/responses/{}/cancel", id.as_str().expect("an id"));
        let (status, cancelled) = self.server.post(&path, json!({})).await;
        assert_eq!((status, &cancelled["status"]), (200, &json!("cancelled")), "{cancelled}");
    }

    /// Types of what the provider was shown last.
    fn shown(&self) -> Vec<String> {
        let seen = self.provider.seen();
        let items = seen.last().expect("a request").body["input"].as_array().expect("items").clone();
        let kind = |item: &Value| item["type"].as_str().unwrap_or("message").to_owned();
        items.iter().map(kind).collect()
    }

    fn items(&self) -> String {
        format!("/v1/conversations/{}/items", self.conversation)
    }
}

fn answer(call_id: &str) -> Value {
    json!({ "type": "function_call_output", "call_id": call_id, "output": "1" })
}

#[tokio::test]
async fn a_turn_cancelled_in_mid_call_leaves_no_call_for_the_next() {
    let scene = Scene::start().await;
    scene.provider.next([Script::calls("f", "{\"x\":").ending_after(2, Ending::Stall)]);
    scene.cancelled_at(json!("Call it."), "response.function_call_arguments.delta").await;
    let (_, items) = scene.server.read(&scene.items()).await;
    assert!(items.to_string().contains("\"function_call\""), "it is kept for who reads: {items}");

    scene.turn(json!("Never mind.")).await;
    assert_eq!(scene.shown(), ["message", "message"]);
}

#[tokio::test]
async fn a_call_is_shown_with_its_output_or_not_at_all() {
    let scene = Scene::start().await;
    scene.provider.next([Script::calls("f", "{}")]);
    let called = scene.turn(json!("Call it.")).await;
    let call = &called["output"][0];
    assert_eq!(call["type"], "function_call", "{called}");

    // Not answered.
    let response = scene.turn(json!("Wait.")).await;
    assert_eq!(scene.shown(), ["message", "message"]);
    assert_eq!(response["output"][0]["type"], "message");
    // Answered later.
    scene.turn(json!([answer("call_1")])).await;
    assert_eq!(scene.shown(), ["message", "function_call", "message", "message", "function_call_output"]);

    // An output without its call: put there, and left by a deletion.
    let (status, added) = scene.server.post(&scene.items(), json!({ "items": [answer("none")] })).await;
    assert_eq!(status, 200, "{added}");
    let path = format!("{}/{}", scene.items(), call["id"].as_str().expect("an id"));
    let (status, deleted) = scene.server.call(Method::DELETE, &path, None, API_KEY).await;
    assert_eq!(status, 200, "{deleted}");
    scene.turn(json!("Go on.")).await;
    let shown = scene.shown();
    assert!(shown.iter().all(|kind| kind == "message"), "{shown:?}");

    // What is new has to have its call.
    let (status, error) = scene.server.post("/v1/responses", scene.ask(json!([answer("call_1")]))).await;
    assert_eq!(status, 400, "{error}");
    let message = error["error"]["message"].as_str().expect("a message");
    assert!(message.starts_with("No tool call found"), "{error}");
}

#[tokio::test]
async fn the_past_makes_room_for_new_input_if_it_may_be_cut() {
    let scene = Scene::start().await;
    // Some 1,700 tokens each, of 4,000 of which 1,000 are kept for the answer.
    let long = "ab ".repeat(1_700);
    for (truncation, shown) in [("disabled", 3), ("auto", 2)] {
        let (_, first) = scene.server.post("/v1/responses", json!({ "model": "it", "input": long })).await;
        let next = json!({ "model": "it", "input": long, "previous_response_id": first["id"],
                           "truncation": truncation });
        let (status, response) = scene.server.post("/v1/responses", next).await;
        assert_eq!((status, &response["status"]), (200, &json!("completed")), "{response}");
        assert_eq!(scene.shown().len(), shown, "{truncation}");
    }
}

/// Whatever has become of a conversation, its next turn is one that the provider takes. The fake ones refuse what real
/// ones refuse.
#[tokio::test]
async fn no_past_is_one_that_a_provider_refuses() {
    for (wire, more) in [
        (Wire::Chat, ""),
        (Wire::Azure, ""),
        (Wire::Responses, ""),
        (Wire::Anthropic, ""),
        (Wire::Anthropic, "thinking = \"budget\""),
    ] {
        let scene = Scene::with(wire, more).await;
        // Cut while it thought, and in the middle of a call.
        let thinks = Script::says("never").thinks("hm").redacts("sealed");
        scene.provider.next([thinks.ending_after(1, Ending::Stall)]);
        let first = if wire == Wire::Responses {
            "response.reasoning_summary_text.delta"
        } else {
            "response.reasoning.delta"
        };
        scene.cancelled_at(json!("Think."), first).await;
        scene.turn(json!("Never mind.")).await;
        scene.provider.next([Script::calls("f", "{\"x\":").ending_after(2, Ending::Stall)]);
        scene.cancelled_at(json!("Call it."), "response.function_call_arguments.delta").await;
        // Nothing that anybody could read.
        scene.turn(json!(" ")).await;

        // Called without a thought, not answered, gone on, answered later, and asked to think then.
        let mut calls = Script::calls("f", "{}");
        calls.tools[0].id = Some("call.1:a");
        calls.tools.push(Tool { id: Some("call_2"), name: "f", arguments: "{}" });
        if wire == Wire::Anthropic {
            calls.tools[0].id = Some("toolu_1");
        }
        let id = calls.tools[0].id.expect("an id");
        scene.provider.next([calls]);
        scene.turn(json!("Call both.")).await;
        scene.turn(json!("Wait.")).await;
        scene.turn(json!([answer("call_2")])).await;
        scene.turn(json!([answer(id), { "role": "user", "content": "And?" }])).await;
        let thinking = json!({ "reasoning": { "effort": "low" } });
        scene.turn_with(json!("Think about it."), thinking.clone()).await;
        scene.provider.next([Script::calls("f", "{}")]);
        scene.turn(json!("Call it again.")).await;
        scene.turn_with(json!([answer("call_1")]), thinking.clone()).await;
        // With a thought before the call, that comes back with it.
        scene.provider.next([Script::calls("f", "{}").thinks("hm")]);
        scene.turn_with(json!("And again."), thinking.clone()).await;
        scene.turn_with(json!([answer("call_1")]), thinking).await;
        assert_eq!(scene.provider.refused(), [""; 0], "{wire:?}");
        if !more.is_empty() {
            let body = scene.provider.seen().pop().expect("a request").body;
            assert_eq!(body["thinking"]["type"], "enabled", "{body}");
        }
    }
}
