//! Chat completions, embeddings and models by plain requests: against the demo model, and against providers that do as
//! they are told.

use std::time::Duration;

use futures_util::StreamExt;
use http::Method;
use serde_json::{Value, json};

use crate::support::providers::{Ending, FakeProvider, Script, UsageForm, Wire};
use crate::support::server::{API_KEY, OTHER_KEY, Server, Servers};
use crate::support::{SOON, TestDatabase, TestStorage, eventually};

const PATH: &str = "/v1/chat/completions";

/// Nothing here needs the database, and none is there.
async fn server(config: Option<String>) -> Servers {
    let nowhere = "postgres://nobody:x@127.0.0.1:9/none";
    let mut builder = Server::on(nowhere, nowhere, &TestStorage::create())
        .set("DISCONNECT_GRACE", "100ms")
        .set("LLM_RETRIES", "0");
    if let Some(config) = config {
        builder = builder.config(config);
    }
    builder.start_two_without_database().await
}

async fn behind(provider: &FakeProvider) -> Servers {
    let deployment = provider.deployment("d", "requests_per_minute = 0\ntokens_per_minute = 0");
    server(Some(format!("{deployment}[models.it]\ndeployments = [\"d\"]\nsilence_seconds = 2\n"))).await
}

fn ask(model: &str, text: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": text }] })
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// A stream's frames, without the end mark; whether that came.
async fn frames(server: &Server, body: Value) -> (Vec<Value>, bool) {
    let body = with(body, json!({ "stream": true }));
    let answer =
        server.client().post(server.url(PATH)).bearer_auth(API_KEY).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream; charset=utf-8");
    let text = answer.text().await.unwrap();
    let data: Vec<&str> = text.split("\n\n").filter_map(|frame| frame.strip_prefix("data: ")).collect();
    let done = data.last() == Some(&"[DONE]");
    let frames = data.iter().filter(|data| **data != "[DONE]");
    (frames.map(|data| serde_json::from_str(data).unwrap()).collect(), done)
}

fn said(frames: &[Value]) -> String {
    frames.iter().filter_map(|frame| frame["choices"][0]["delta"]["content"].as_str()).collect()
}

fn finish(frames: &[Value]) -> Vec<&str> {
    frames.iter().filter_map(|frame| frame["choices"][0]["finish_reason"].as_str()).collect()
}

#[tokio::test]
async fn an_answer_comes_whole_and_in_pieces() {
    let server = server(None).await;
    let body = with(ask("demo", "/fast Say \"one two three\"."), json!({ "max_tokens": 50 }));
    let (status, whole) = server.post(PATH, body.clone()).await;
    assert_eq!((status, &whole["object"]), (200, &json!("chat.completion")), "{whole}");
    let choice = &whole["choices"][0];
    assert_eq!(
        (&choice["message"]["content"], &choice["finish_reason"]),
        (&json!("one two three"), &json!("stop"))
    );
    let usage = &whole["usage"];
    assert_eq!(
        usage["total_tokens"].as_u64().unwrap(),
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap()
    );
    let (pieces, done) = frames(&server, body.clone()).await;
    assert!(done);
    assert_eq!((said(&pieces).as_str(), finish(&pieces)), ("one two three", vec!["stop"]));
    assert_eq!(pieces[0]["choices"][0]["delta"]["role"], "assistant");
    assert!(
        pieces
            .iter()
            .all(|frame| frame["usage"].is_null() && !frame["choices"].as_array().unwrap().is_empty())
    );
    let (pieces, _) =
        frames(&server, with(body, json!({ "stream_options": { "include_usage": true } }))).await;
    let last = pieces.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), usage));
}

#[tokio::test]
async fn every_end_is_told() {
    let server = server(None).await;
    for (body, reason) in [
        (with(ask("demo", "/fast Tell a story in 90 words."), json!({ "max_tokens": 5 })), "length"),
        (ask("demo", "/fast /filter Tell a story in 20 words."), "content_filter"),
        (ask("demo", "/fast /refuse"), "stop"),
        (with(ask("demo", "/fast Say \"one two three\"."), json!({ "stop": ["two"] })), "stop"),
    ] {
        let (status, whole) = server.post(PATH, body.clone()).await;
        assert_eq!((status, &whole["choices"][0]["finish_reason"]), (200, &json!(reason)), "{whole}");
        let (pieces, done) = frames(&server, body).await;
        assert_eq!((finish(&pieces), done), (vec![reason], true));
        let content = whole["choices"][0]["message"]["content"].as_str().unwrap_or_default();
        assert_eq!(said(&pieces), content);
    }
    // Before the first piece an error has a status of its own; later, in a stream, a frame.
    let (status, error) = server.post(PATH, ask("demo", "/fail 500")).await;
    assert_eq!((status, &error["error"]["code"]), (503, &json!("provider_error")));
    let (status, error) = server.post(PATH, ask("demo", "/fast /error Tell a story in 20 words.")).await;
    assert_eq!((status, &error["error"]["code"]), (503, &json!("provider_error")), "{error}");
    let (pieces, done) = frames(&server, ask("demo", "/fast /error Tell a story in 20 words.")).await;
    assert_eq!((&pieces.last().unwrap()["error"]["code"], done), (&json!("provider_error"), false));
    assert!(!said(&pieces).is_empty());
}

#[tokio::test]
async fn refusals_name_the_field_and_methods_are_few() {
    let server = server(None).await;
    for (body, status, code, param) in [
        (ask("nothing", "hi"), 404, "model_not_found", json!("model")),
        (
            json!({ "messages": [{ "role": "user", "content": "hi" }] }),
            400,
            "missing_required_parameter",
            json!("model"),
        ),
        (
            with(ask("demo", "hi"), json!({ "max_tokens": 0 })),
            400,
            "integer_below_min_value",
            json!("max_tokens"),
        ),
        (with(ask("demo", "hi"), json!({ "input": "hi" })), 400, "unknown_parameter", json!("input")),
        (
            json!({ "model": "demo", "messages": [{ "role": "tool", "tool_call_id": "x", "content": "" }] }),
            400,
            "invalid_value",
            json!("messages[0]"),
        ),
    ] {
        let (found, error) = server.post(PATH, body).await;
        let told = (found, error["error"]["code"].clone(), error["error"]["param"].clone());
        assert_eq!(told, (status, json!(code), param), "{error}");
    }
    for (path, allowed) in
        [(PATH, "POST"), ("/v1/embeddings", "POST"), ("/v1/models", "GET"), ("/v1/models/demo", "GET")]
    {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            if method.as_str() == allowed {
                continue;
            }
            let answer =
                server.client().request(method, server.url(path)).bearer_auth(API_KEY).send().await.unwrap();
            assert_eq!(
                (answer.status().as_u16(), answer.headers()["allow"].to_str().unwrap()),
                (405, allowed)
            );
        }
        let answer =
            server.client().request(allowed.parse().unwrap(), server.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{path}");
    }
}

#[tokio::test]
async fn every_provider_answers_chat() {
    for wire in [Wire::Chat, Wire::Azure, Wire::Responses, Wire::Anthropic] {
        let provider = FakeProvider::start(wire);
        let server = behind(&provider).await;
        let tools = json!({ "tools": [{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }],
                            "max_completion_tokens": 77 });
        provider.next([Script::calls("f", "{\"x\":\"ü\"}").thinks("hm")]);
        let (status, called) = server.post(PATH, with(ask("it", "Call f."), tools.clone())).await;
        assert_eq!(
            (status, &called["choices"][0]["finish_reason"]),
            (200, &json!("tool_calls")),
            "{wire:?}: {called}"
        );
        let message = &called["choices"][0]["message"];
        assert_eq!(
            message["tool_calls"][0]["function"],
            json!({ "name": "f", "arguments": "{\"x\":\"ü\"}" })
        );
        assert_eq!(called["usage"]["prompt_tokens_details"]["cached_tokens"], 4, "{wire:?}");
        // What was given goes back as it is, with the tool's output.
        let messages = json!([
            { "role": "system", "content": "Be short." }, { "role": "user", "content": "Call f." }, message,
            { "role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "42" },
        ]);
        provider.next([Script::says("It is 42")]);
        let (pieces, done) =
            frames(&server, with(tools, json!({ "model": "it", "messages": messages }))).await;
        assert_eq!((said(&pieces).as_str(), done), ("It is 42", true), "{wire:?}");
        let seen = provider.seen().pop().unwrap().body.to_string();
        assert!(seen.contains("42") && seen.contains("Be short.") && seen.contains("77"), "{wire:?}: {seen}");
        // Without usage from the provider there is none to show.
        provider.next([Script::says("a b").usage(UsageForm::Never).ending(Ending::Proper)]);
        let (_, whole) = server.post(PATH, ask("it", "hi")).await;
        assert_eq!(whole["choices"][0]["message"]["content"], "a b", "{wire:?}");
        let stop = with(ask("it", "hi"), json!({ "stop": "x" }));
        let (status, answer) = server.post(PATH, stop).await;
        if wire == Wire::Responses {
            assert_eq!((status, &answer["error"]["param"]), (400, &json!("stop")));
        } else {
            assert_eq!(status, 200);
            assert!(provider.seen().pop().unwrap().body.to_string().contains("[\"x\"]"));
        }
    }
}

#[tokio::test]
async fn who_leaves_ends_the_call() {
    let provider = FakeProvider::start(Wire::Azure);
    provider.always(Script::words(1_000).pace(Duration::from_millis(20)));
    let server = behind(&provider).await;
    for stream in [true, false] {
        let before = provider.abandoned();
        let body = with(ask("it", "hi"), json!({ "stream": stream }));
        let request = server.client().post(server.url(PATH)).bearer_auth(API_KEY).json(&body);
        if stream {
            let mut pieces = request.send().await.unwrap().bytes_stream();
            pieces.next().await.unwrap().unwrap();
        } else {
            request.timeout(Duration::from_millis(500)).send().await.unwrap_err();
        }
        eventually("the provider to be left", SOON, async || provider.abandoned() > before).await;
    }
}

#[tokio::test]
async fn a_retry_of_what_failed_is_another_try() {
    let provider = FakeProvider::start(Wire::Chat);
    let server = behind(&provider).await;
    provider.next([Script::fails(500, "no")]);
    let body = ask("it", "hi");
    assert_eq!(server.post(PATH, body.clone()).await.0, 503);
    let again = server.client().post(server.url(PATH)).bearer_auth(API_KEY).json(&body);
    let again = again.header("x-stainless-retry-count", "1").send().await.unwrap();
    assert_eq!(again.status(), 200);
}

#[tokio::test]
async fn a_slow_answer_is_kept_alive() {
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(Script::says("a b c d").pace(Duration::from_millis(900)));
    let deployment = provider.deployment("d", "");
    let nowhere = "postgres://nobody:x@127.0.0.1:9/none";
    let server = Server::on(nowhere, nowhere, &TestStorage::create())
        .set("HEARTBEAT", "1s")
        .set("JSON_KEEP_ALIVE", "1s")
        .config(format!("{deployment}[models.it]\ndeployments = [\"d\"]\n"))
        .start_without_database()
        .await;
    let send = async |stream: bool| {
        let body = with(ask("it", "hi"), json!({ "stream": stream }));
        let answer =
            server.client().post(server.url(PATH)).bearer_auth(API_KEY).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.text().await.unwrap()
    };
    let whole = send(false).await;
    assert!(whole.starts_with(' '), "{whole}");
    let whole: Value = serde_json::from_str(whole.trim()).unwrap();
    assert_eq!(whole["choices"][0]["message"]["content"], "a b c d");
    provider.always(Script::says("a b").first_after(Duration::from_millis(2_500)));
    assert!(send(true).await.contains("\"finish_reason\":\"stop\""));
}

#[tokio::test]
async fn embeddings_are_passed_on() {
    let server = server(None).await;
    let (status, answer) =
        server.post("/v1/embeddings", json!({ "model": "demo", "input": ["a", "b"], "dimensions": 8 })).await;
    assert_eq!((status, answer["data"].as_array().map(Vec::len)), (200, Some(2)), "{answer}");
    assert_eq!(answer["data"][1]["embedding"].as_array().map(Vec::len), Some(8));
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 0);
    for (body, status, param) in [
        (json!({ "model": "demo" }), 400, "input"),
        (json!({ "input": "a" }), 400, "model"),
        (json!({ "model": "none", "input": "a" }), 404, "model"),
        (json!({ "model": "demo", "input": "a", "dimensions": 0 }), 400, "dimensions"),
    ] {
        let (found, error) = server.post("/v1/embeddings", body).await;
        assert_eq!((found, &error["error"]["param"]), (status, &json!(param)), "{error}");
    }
    let provider = FakeProvider::start(Wire::Azure);
    let server = behind(&provider).await;
    let (status, answer) =
        server.post("/v1/embeddings", json!({ "model": "it", "input": "a", "user": "u" })).await;
    assert_eq!((status, &answer["data"][0]["embedding"]), (200, &json!([0.5, -0.5])), "{answer}");
    assert_eq!(provider.seen()[0].body, json!({ "model": "m-d", "input": "a", "user": "u" }));
    provider.next([Script::fails(429, "Rate limit is exceeded. Try again in 90 seconds.")]);
    let (status, error) = server.post("/v1/embeddings", json!({ "model": "it", "input": "a" })).await;
    assert_eq!((status, &error["error"]["type"]), (429, &json!("rate_limit_error")), "{error}");
    let provider = FakeProvider::start(Wire::Anthropic);
    let server = behind(&provider).await;
    let (status, error) = server.post("/v1/embeddings", json!({ "model": "it", "input": "a" })).await;
    assert_eq!((status, &error["error"]["param"]), (400, &json!("model")), "{error}");
}

#[tokio::test]
async fn models_are_listed_with_window_and_price() {
    let config = "[deployments.one]\nprovider = \"demo\"\ncontext_window = 9000\nmax_output_tokens = 700\n\
                  price = { input = \"2.50\", output = \"10\" }\n\
                  [models.\"team/one\"]\ndeployments = [\"one\"]\ndescription = \"The first.\"\nowned_by = \"us\"\n";
    let server = server(Some(config.to_owned())).await;
    let (status, list) = server.read("/v1/models").await;
    assert_eq!((status, &list["object"]), (200, &json!("list")));
    let wanted = json!({
        "id": "team/one", "object": "model", "created": 0, "owned_by": "us", "description": "The first.",
        "context_window": 9000, "max_output_tokens": 700, "embeddings": true,
        "price": { "input": 2_500_000, "cached_input": 2_500_000, "cache_write": 2_500_000, "output": 10_000_000 },
    });
    assert_eq!(list["data"], json!([wanted.clone()]));
    for path in ["/v1/models/team/one", "/v1/models/team%2Fone"] {
        assert_eq!(server.call(Method::GET, path, None, OTHER_KEY).await, (200, wanted.clone()));
    }
    let (status, error) = server.read("/v1/models/other").await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!("model_not_found")));
}

#[tokio::test]
async fn what_is_asked_here_is_paid() {
    let provider = FakeProvider::start(Wire::Azure);
    let deployment = provider.deployment("d", "price = { input = \"1\", output = \"2\" }");
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage)
        .config(format!("{deployment}[models.it]\ndeployments = [\"d\"]\n"))
        .set("LLM_RETRIES", "0")
        .start_two()
        .await;
    assert_eq!(server.post(PATH, ask("it", "hi")).await.0, 200);
    frames(&server, ask("it", "hi")).await;
    assert_eq!(server.post("/v1/embeddings", json!({ "model": "it", "input": "a" })).await.0, 200);
    provider.next([Script::fails(400, "no")]);
    assert_eq!(server.post("/v1/embeddings", json!({ "model": "it", "input": "a" })).await.0, 400);
    eventually("a row for every attempt", SOON, async || {
        database.count("SELECT count(*) FROM usage WHERE state = 'settled'").await == 4
    })
    .await;
    let count = async |what: &str| {
        database
            .count(&format!("SELECT coalesce(sum({what}), 0)::int8 FROM usage WHERE owner = 'tester'"))
            .await
    };
    let charged = provider.charged();
    let (input, output) = (count("input_tokens").await, count("output_tokens").await);
    // The fake provider counts an answer's tokens for embeddings too, which have none.
    assert_eq!((input, output), (charged.input as i64, 2 * 7), "{charged:?}");
    assert_eq!(count("cost_micros").await, 3 * 11 + 2 * 2 * 7);
    assert_eq!(count("estimated::int").await, 0);
}
