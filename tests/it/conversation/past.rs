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
        Self::with(Wire::Responses, "context_window = 2000\nmax_output_tokens = 200").await
    }

    /// Behind this provider, with these keys of its deployment.
    async fn with(wire: Wire, keys: &str) -> Self {
        let provider = FakeProvider::start(wire);
        let (database, storage) = (TestDatabase::create().await, TestStorage::create());
        let config = format!(
            "{}[models.it]\ndeployments = [\"d\"]\nfirst_event_seconds = 20\nsilence_seconds = 20\n",
            provider.deployment("d", keys)
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
    let unpaired = json!([{ "role": "user", "content": "There." }, answer("call_1")]);
    let (status, error) = scene.server.post("/v1/responses", scene.ask(unpaired)).await;
    assert_eq!((status, &error["error"]["param"]), (400, &json!("input[1]")), "{error}");
    let message = error["error"]["message"].as_str().expect("a message");
    assert!(message.starts_with("No tool call found"), "{error}");
}

#[tokio::test]
async fn the_past_makes_room_for_new_input_if_it_may_be_cut() {
    let scene = Scene::start().await;
    // Some 900 tokens each, of 2,000 of which 200 are kept for the answer.
    let long = "ab ".repeat(900);
    for (truncation, shown) in [("disabled", 3), ("auto", 2)] {
        let (_, first) = scene.server.post("/v1/responses", json!({ "model": "it", "input": long })).await;
        let next = json!({ "model": "it", "input": long, "previous_response_id": first["id"],
                           "truncation": truncation });
        let (status, response) = scene.server.post("/v1/responses", next).await;
        assert_eq!((status, &response["status"]), (200, &json!("completed")), "{response}");
        assert_eq!(scene.shown().len(), shown, "{truncation}");
    }
}

/// About so many tokens, as they are estimated; a provider counts fewer.
fn words(tokens: usize) -> String {
    "abc".repeat(tokens)
}

#[tokio::test]
async fn what_surely_does_not_fit_is_refused_before_anybody_is_asked() {
    let scene = Scene::start().await;
    let too_long = |body: &Value| {
        assert_eq!(body["error"]["code"], "context_length_exceeded", "{body}");
        assert!(
            ["input", "messages"].contains(&body["error"]["param"].as_str().unwrap_or_default()),
            "{body}"
        );
    };
    // A first turn, with nothing before it: 2,000 tokens fit, and no text has 8 bytes a token.
    let first = |input: Value| json!({ "model": "it", "input": input, "store": false });
    let (status, refused) = scene.server.post("/v1/responses", first(json!("x".repeat(16_100)))).await;
    assert_eq!(status, 400);
    too_long(&refused);
    let messages = json!([{ "role": "user", "content": "x".repeat(16_100) }]);
    let (status, refused) =
        scene.server.post("/v1/chat/completions", json!({ "model": "it", "messages": messages })).await;
    assert_eq!(status, 400);
    too_long(&refused);
    assert!(scene.provider.seen().is_empty());
    // What only seems too long is the provider's to say.
    let error = json!({ "message": "too long", "type": "invalid_request_error",
                        "code": "context_length_exceeded", "param": "input" });
    scene.provider.next([Script::fails_with(400, json!({ "error": error }))]);
    let (status, refused) = scene.server.post("/v1/responses", first(json!("x".repeat(15_000)))).await;
    assert_eq!(status, 400);
    too_long(&refused);
    assert_eq!(scene.provider.seen().len(), 1);

    // The same of a conversation that has grown: three times what the estimate says is surely too much.
    for _ in 0..2 {
        scene.turn(json!(words(1_500))).await;
    }
    assert_eq!(scene.shown().len(), 3, "3,000 by the estimate, and shown whole");
    scene.turn(json!(words(2_000))).await;
    let (status, refused) = scene.server.post("/v1/responses", scene.ask(json!(words(2_000)))).await;
    assert_eq!(status, 400);
    too_long(&refused);
    let mut asked = scene.ask(json!("And now?"));
    asked["truncation"] = "auto".into();
    assert_eq!(scene.server.post("/v1/responses", asked).await.0, 200);
}

#[tokio::test]
async fn under_auto_a_first_input_is_cut_from_its_start() {
    let scene = Scene::start().await;
    let said = |role: &str, text: String| json!({ "role": role, "content": text });
    let input = json!([
        said("developer", "Be brief.".into()),
        said("user", words(900)),
        { "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}" },
        { "type": "function_call_output", "call_id": "c", "output": words(700) },
        said("user", words(800)),
        said("user", "What was that?".into()),
    ]);
    let body = json!({ "model": "it", "input": input, "truncation": "auto", "store": false });
    let (status, answer) = scene.server.post("/v1/responses", body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(scene.shown(), ["message", "function_call", "function_call_output", "message", "message"]);
    let shown = scene.provider.seen()[0].body["input"].clone();
    assert_eq!((&shown[0]["role"], &shown[3]["role"]), (&json!("developer"), &json!("user")));

    // The last one alone is too long: surely, so nobody is asked.
    let body = json!({ "model": "it", "input": [said("user", "x".repeat(16_100))], "truncation": "auto" });
    let (status, refused) = scene.server.post("/v1/responses", body).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("context_length_exceeded")), "{refused}");
    assert_eq!(scene.provider.seen().len(), 1);
}

#[tokio::test]
async fn a_summary_leaves_a_call_that_is_answered_only_now() {
    let scene = Scene::start().await;
    let asked = |input: Value| {
        let mut asked = scene.ask(input);
        asked["context_management"] = json!([{ "type": "compaction", "compact_threshold": 1000 }]);
        asked
    };
    scene.provider.next([Script::calls("f", "{\"x\": 1}")]);
    let (status, called) = scene.server.post("/v1/responses", asked(json!(words(900)))).await;
    assert_eq!((status, &called["output"][0]["type"]), (200, &json!("function_call")), "{called}");
    let answered = json!([{ "type": "function_call_output", "call_id": "call_1", "output": words(200) }]);
    let (status, answer) = scene.server.post("/v1/responses", asked(answered)).await;
    assert_eq!((status, &answer["output"][0]["type"]), (200, &json!("compaction")), "{answer}");
    assert_eq!(
        scene.shown(),
        ["message", "function_call", "function_call_output"],
        "the summary, and the pair"
    );
    assert_eq!(scene.provider.seen().len(), 3);
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
        // Wide enough for a budget of thoughts.
        let keys = format!("context_window = 4000\nmax_output_tokens = 1200\n{more}");
        let scene = Scene::with(wire, &keys).await;
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
