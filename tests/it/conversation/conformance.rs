//! Everything the server says, held against the published schema of Open Responses and the order of its events; and
//! what the public compliance suite asks, as tests of ours.

mod contract;
mod suite;

use serde_json::{Value, json};

use crate::support::server::{API_KEY, Server, Servers};
use crate::support::{SOON, TestDatabase, TestStorage, eventually};
pub use contract::Contract;

struct Fixture {
    contract: Contract,
    _database: TestDatabase,
    server: Servers,
}

impl Fixture {
    async fn start() -> Self {
        let (database, storage) = (TestDatabase::create().await, TestStorage::create());
        let server = Server::of(&database, &storage).set("LLM_DEMO_TOKENS_PER_SECOND", "0").start_two().await;
        Self { contract: Contract::read(), _database: database, server }
    }

    /// A request of the demo model as a stream. Gives its events.
    async fn streamed(&self, mut request: Value) -> Vec<Value> {
        request["model"] = "demo".into();
        request["stream"] = true.into();
        let post = self.server.client().post(self.server.url("/v1/responses"));
        let answer = post.bearer_auth(API_KEY).json(&request).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let kind = answer.headers()["content-type"].to_str().expect("text").to_owned();
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        events(&answer.text().await.expect("a stream"))
    }

    /// The same request streamed, in one piece, and not stored: all are right, and they say the same. Gives the response.
    async fn everywhere(&self, request: Value) -> Value {
        let streamed = self.contract.stream(&self.streamed(request.clone()).await);
        let id = streamed["id"].as_str().expect("an id");
        let (status, read) = self.server.read(&format!("/v1/responses/{id}")).await;
        assert_eq!((status, &read), (200, &streamed), "what is read is what was streamed");
        for store in [true, false] {
            let mut request = request.clone();
            request["model"] = "demo".into();
            request["store"] = store.into();
            let (status, whole) = self.server.post("/v1/responses", request).await;
            assert_eq!(status, 200, "{whole}");
            self.contract.resource(&whole);
            assert_eq!(whole["store"], store);
            assert_eq!((&whole["status"], &whole["usage"]), (&streamed["status"], &streamed["usage"]));
            assert_eq!(said(&whole), said(&streamed));
        }
        streamed
    }
}

/// The events of a stream that came to its end.
fn events(text: &str) -> Vec<Value> {
    let mut frames: Vec<&str> = text.split("\n\n").filter(|frame| !frame.starts_with(':')).collect();
    assert_eq!(frames.pop(), Some(""), "a blank line ends the last event");
    assert_eq!(frames.pop(), Some("data: [DONE]"));
    let event = |frame: &&str| {
        let (name, data) = frame.split_once('\n').expect("two lines");
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str(), "the name is the type");
        data
    };
    frames.iter().map(event).collect()
}

/// The output without its ids.
fn said(response: &Value) -> Value {
    let mut output = response["output"].clone();
    for item in output.as_array_mut().into_iter().flatten() {
        item["id"] = Value::Null;
        item["call_id"] = Value::Null;
    }
    output
}

fn weather() -> Value {
    json!({ "type": "function", "name": "get_weather", "description": "The weather of a place",
            "parameters": { "type": "object", "properties": { "location": { "type": "string" } },
                            "required": ["location"], "additionalProperties": false }, "strict": true })
}

#[tokio::test]
async fn what_a_model_can_say_fits_the_contract() {
    let fixture = Fixture::start().await;
    let text = fixture.everywhere(json!({ "input": "Say hello." })).await;
    assert_eq!((&text["status"], &text["output"][0]["type"]), (&json!("completed"), &json!("message")));

    let refused = fixture.everywhere(json!({ "input": "/refuse Say hello." })).await;
    assert_eq!(refused["output"][0]["content"][0]["type"], "refusal", "{refused}");

    let thought =
        fixture.everywhere(json!({ "input": "/think Say hello.", "reasoning": { "summary": "auto" } })).await;
    assert_eq!(thought["output"][0]["type"], "reasoning", "{thought}");
    assert!(thought["usage"]["output_tokens_details"]["reasoning_tokens"].as_u64() > Some(0));

    let request = json!({ "input": "What is the weather in Paris?", "tools": [weather()] });
    let called = fixture.everywhere(request).await;
    let call = &called["output"][0];
    assert_eq!((&call["type"], &call["name"]), (&json!("function_call"), &json!("get_weather")));
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().expect("text")).expect("JSON");
    assert!(arguments["location"].is_string(), "{arguments}");

    let schema = json!({ "type": "object", "properties": { "name": { "type": "string" }, "age": { "type": "integer" } },
                         "required": ["name", "age"], "additionalProperties": false });
    let format = json!({ "type": "json_schema", "name": "person", "schema": schema, "strict": true });
    let filled = fixture.everywhere(json!({ "input": "Ada is 36.", "text": { "format": format } })).await;
    let json = filled["output"][0]["content"][0]["text"].as_str().expect("text");
    let person: Value = serde_json::from_str(json).expect("JSON");
    let schema = colloquy::schema::Schema::new(schema).expect("a schema");
    assert_eq!(schema.misfits(&person, 9), [], "what was asked for");

    let request = json!({ "input": "Say hello.", "instructions": "Be brief.", "metadata": { "a": "b" }, "temperature": 0.5,
        "top_p": 0.9, "max_output_tokens": 500, "truncation": "auto", "parallel_tool_calls": false, "max_tool_calls": 3,
        "prompt_cache_key": "k", "safety_identifier": "u", "service_tier": "auto", "tool_choice": "auto",
        "tools": [weather()], "reasoning": { "effort": "low", "summary": "auto" }, "text": { "verbosity": "low" },
        "top_logprobs": 0, "include": ["reasoning.encrypted_content"], "stream_options": { "include_obfuscation": false } });
    let mut streamed = request.clone();
    streamed["stream_options"] = json!({ "include_obfuscation": false });
    let full = fixture.contract.stream(&fixture.streamed(streamed).await);
    for field in [
        "instructions",
        "metadata",
        "temperature",
        "top_p",
        "max_output_tokens",
        "truncation",
        "parallel_tool_calls",
        "max_tool_calls",
        "prompt_cache_key",
        "safety_identifier",
        "tool_choice",
    ] {
        assert_eq!(full[field], request[field], "{field} comes back");
    }
}

#[tokio::test]
async fn what_is_compacted_fits_the_contract() {
    let fixture = Fixture::start().await;
    let past = json!([{ "role": "user", "content": "My name is Ada." }, { "role": "assistant", "content": "Hello Ada." }]);
    let ask = json!({ "model": "demo", "input": past });
    let (status, compacted) = fixture.server.post("/v1/responses/compact", ask).await;
    assert_eq!(status, 200, "{compacted}");
    fixture.contract.compacted(&compacted);

    let (_, conversation) = fixture.server.post("/v1/conversations", json!({})).await;
    let ask = |input: &str| {
        json!({ "input": input, "conversation": conversation["id"],
                                    "context_management": [{ "type": "compaction", "compact_threshold": 1000 }] })
    };
    fixture.contract.stream(&fixture.streamed(ask(&"blue maps ".repeat(1_000))).await);
    let short = fixture.contract.stream(&fixture.streamed(ask("Say hello.")).await);
    assert_eq!(short["output"][0]["type"], "compaction", "{short}");
}

#[tokio::test]
async fn an_answer_that_is_cut_short_fits_the_contract() {
    let fixture = Fixture::start().await;
    let short =
        fixture.everywhere(json!({ "input": "Tell me a story in 60 words.", "max_output_tokens": 16 })).await;
    assert_eq!(
        (&short["status"], &short["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    let filtered = fixture.everywhere(json!({ "input": "/filter Tell me a story in 60 words." })).await;
    assert_eq!(filtered["incomplete_details"]["reason"], "content_filter");
    for command in ["/error", "/cut"] {
        let request = json!({ "input": format!("{command} Tell me a story in 60 words.") });
        let failed = fixture.contract.stream(&fixture.streamed(request).await);
        assert_eq!(failed["status"], "failed", "{failed}");
        assert!(
            failed["error"]["code"].is_string() && failed["output"][0]["status"] == "incomplete",
            "{failed}"
        );
        let id = failed["id"].as_str().expect("an id");
        assert_eq!(fixture.server.read(&format!("/v1/responses/{id}")).await, (200, failed.clone()));
    }
}

#[tokio::test]
async fn background_and_cancelled_turns_fit_the_contract() {
    let fixture = Fixture::start().await;
    let ask = json!({ "model": "demo", "input": "Say hello.", "background": true });
    let (status, begun) = fixture.server.post("/v1/responses", ask).await;
    fixture.contract.resource(&begun);
    assert_eq!((status, &begun["background"], &begun["status"]), (200, &json!(true), &json!("queued")));
    let path = format!("/v1/responses/{}", begun["id"].as_str().expect("an id"));
    let mut ended = Value::Null;
    eventually("its end", SOON, async || {
        ended = fixture.server.read(&path).await.1;
        ended["status"] == "completed"
    })
    .await;
    fixture.contract.resource(&ended);

    let ask =
        json!({ "model": "demo", "input": "/slow 5 Tell me a story in 100 words.", "background": true });
    let (_, begun) = fixture.server.post("/v1/responses", ask).await;
    let path = format!("/v1/responses/{}", begun["id"].as_str().expect("an id"));
    let (_, cancelled) = fixture.server.post(&format!("{path}/cancel"), json!({})).await;
    fixture.contract.resource(&cancelled);
    assert_eq!(cancelled["status"], "cancelled");
    let replay = fixture.server.client().get(fixture.server.url(&format!("{path}?stream=true")));
    let replay = replay.bearer_auth(API_KEY).send().await.expect("an answer").text().await.expect("a stream");
    assert_eq!(fixture.contract.stream(&events(&replay)), cancelled);

    let ask = json!({ "model": "demo", "input": "Say hello.", "background": true, "stream": true });
    let url = fixture.server.url("/v1/responses");
    let streamed =
        fixture.server.client().post(url).bearer_auth(API_KEY).json(&ask).send().await.expect("an answer");
    let streamed = events(&streamed.text().await.expect("a stream"));
    assert_eq!(fixture.contract.stream(&streamed)["status"], "completed");
    let first: Vec<_> =
        streamed[..3].iter().map(|event| (&event["type"], &event["response"]["status"])).collect();
    let lifecycle = [
        (&json!("response.created"), &json!("queued")),
        (&json!("response.queued"), &json!("queued")),
        (&json!("response.in_progress"), &json!("in_progress")),
    ];
    assert_eq!(first, lifecycle);
}

/// However far the turn is when its caller is answered: it is told what every caller is told. Only who asks again, or for
/// the same once more, learns how it stands.
#[tokio::test]
async fn a_background_turn_is_queued_when_it_is_accepted() {
    let fixture = Fixture::start().await;
    let begin = async |key: String| {
        let url = fixture.server.url("/v1/responses");
        let ask = json!({ "model": "demo", "input": "Hi", "background": true });
        let asking = fixture.server.client().post(url).bearer_auth(API_KEY).header("idempotency-key", key);
        asking.json(&ask).send().await.expect("an answer").json::<Value>().await.expect("a response")
    };
    for nth in 0..20 {
        assert_eq!(begin(format!("key-{nth}")).await["status"], "queued");
    }
    let first = begin("again".to_owned()).await;
    let path = format!("/v1/responses/{}", first["id"].as_str().expect("an id"));
    eventually("its end", SOON, async || fixture.server.read(&path).await.1["status"] == "completed").await;
    let again = begin("again".to_owned()).await;
    assert_eq!((&again["id"], &again["status"]), (&first["id"], &json!("completed")), "{again}");
}

/// What failed in a conversation leaves no items there, and the next turn takes their places: the failed one must not
/// show the next one's.
#[tokio::test]
async fn a_turn_that_failed_in_a_conversation_keeps_what_it_said() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let start = || Server::of(&database, &storage).set("LLM_DEMO_TOKENS_PER_SECOND", "0").start();
    let (one, other) = (start().await, start().await);
    let (_, conversation) = one.post("/v1/conversations", json!({})).await;
    let ask = |text: &str| json!({ "model": "demo", "input": text, "conversation": conversation["id"] });
    let (_, failed) = one.post("/v1/responses", ask("/error Tell me a story in 60 words.")).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    let (status, next) = one.post("/v1/responses", ask("Say hello.")).await;
    assert_eq!((status, &next["status"]), (200, &json!("completed")), "{next}");
    let path = format!("/v1/responses/{}", failed["id"].as_str().expect("an id"));
    for server in [&one, &other] {
        assert_eq!(server.read(&path).await, (200, failed.clone()));
        let (_, input) = server.read(&format!("{path}/input_items")).await;
        assert_eq!(input["data"], json!([]), "its input left the conversation");
    }
    let items = format!("/v1/conversations/{}/items", conversation["id"].as_str().expect("an id"));
    assert_eq!(
        other.read(&items).await.1["data"].as_array().map(Vec::len),
        Some(2),
        "one question, one answer"
    );
}

/// What cannot be an id is the request's mistake; what could be one and is nobody's is not found.
#[tokio::test]
async fn a_conversation_that_is_none_is_refused_as_openai_refuses_it() {
    let fixture = Fixture::start().await;
    let nobodys = "conv_01890a5d-ac96-774b-bcce-b302099a8057";
    for (id, status) in [("my conversation", 400), ("conv_x", 404), (nobodys, 404)] {
        let ask = json!({ "model": "demo", "input": "Hi", "conversation": id });
        let (refused, error) = fixture.server.post("/v1/responses", ask).await;
        assert_eq!((refused, &error["error"]["param"]), (status, &json!("conversation")), "{id}: {error}");
    }
}
