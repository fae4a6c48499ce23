//! Long pasts made short.

use http::Method;
use serde_json::{Value, json};

use crate::support::server::{OTHER_KEY, Server, Servers};
use crate::support::{TestDatabase, TestStorage};

async fn server() -> (TestDatabase, Servers) {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).start_two().await;
    (database, server)
}

fn text(response: &Value) -> String {
    let parts = response["output"].as_array().into_iter().flatten();
    let parts =
        parts.filter(|item| item["type"] == "message").flat_map(|item| item["content"].as_array().unwrap());
    parts.filter_map(|part| part["text"].as_str()).collect()
}

#[tokio::test]
async fn a_summary_stands_for_what_it_summarises_and_only_for_its_owner() {
    let (database, server) = server().await;
    let past = json!([
        { "role": "user", "content": "My name is Ada and I collect maps." },
        { "role": "assistant", "content": "Nice to meet you, Ada." },
    ]);
    let (status, compacted) =
        server.post("/v1/responses/compact", json!({ "model": "demo", "input": past })).await;
    assert_eq!((status, &compacted["object"]), (200, &json!("response.compaction")), "{compacted}");
    let output = compacted["output"].as_array().unwrap();
    let kinds: Vec<_> = output.iter().map(|item| item["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["message", "compaction"], "the user's messages, then what stands for everything");
    assert_eq!(output[0]["content"][0]["text"], "My name is Ada and I collect maps.");
    assert!(!output[1].to_string().contains("Ada"), "the summary is sealed");
    assert!(compacted["usage"]["total_tokens"].as_u64().unwrap() > 0);

    let follow = json!({ "model": "demo", "store": false,
                         "input": [output[0], output[1], { "role": "user", "content": "What is my name?" }] });
    let (_, answer) = server.post("/v1/responses", follow.clone()).await;
    assert!(text(&answer).contains("Ada"), "{answer}");
    let again = json!({ "model": "demo", "input": [output[1], { "role": "user", "content": "I am off." }] });
    let (_, again) = server.post("/v1/responses/compact", again).await;
    let words: Vec<_> =
        again["output"].as_array().unwrap().iter().map(|item| &item["content"][0]["text"]).collect();
    assert_eq!(words, [&json!("I am off."), &json!(null)], "a summary is no user's message: {again}");

    let (status, error) = server.call(Method::POST, "/v1/responses", Some(follow), OTHER_KEY).await;
    assert_eq!((status, &error["error"]["code"]), (400, &json!("compaction_unreadable")), "{error}");
    let rows = "SELECT count(*) FROM usage WHERE state = 'settled' AND NOT estimated AND model = 'small'";
    crate::support::eventually("both summaries to be paid", crate::support::SOON, async || {
        database.count(rows).await == 2
    })
    .await;
}

#[tokio::test]
async fn a_conversation_is_made_short_once_it_is_longer_than_asked() {
    let (_database, server) = server().await;
    let (_, conversation) = server.post("/v1/conversations", json!({})).await;
    let ask = |input: &str| {
        json!({ "model": "demo", "input": input, "conversation": conversation["id"],
                "context_management": [{ "type": "compaction", "compact_threshold": 1000 }] })
    };
    let (_, first) = server.post("/v1/responses", ask("My name is Ada.")).await;
    assert_eq!(first["status"], "completed", "{first}");
    let long = format!("Remember this: {} and say hello in 3 words.", "blue maps ".repeat(600));
    server.post("/v1/responses", ask(&long)).await;
    let (status, short) = server.post("/v1/responses", ask("What is my name?")).await;
    assert_eq!(status, 200, "{short}");
    assert_eq!(short["output"][0]["type"], "compaction", "{short}");
    let (_, next) = server.post("/v1/responses", ask("Say bye in 3 words.")).await;
    assert_eq!(next["output"][0]["type"], "message", "short enough now: {next}");
    let used = |response: &Value| response["usage"]["input_tokens"].as_u64().unwrap();
    assert!(used(&next) < 1_000, "what was summarised is not shown any more: {next}");
}
