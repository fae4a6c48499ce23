//! Turns by plain requests, two servers on one database.

use http::Method;
use serde_json::{Value, json};

use crate::support::server::{API_KEY, OTHER_KEY, Server};
use crate::support::{SOON, TestDatabase, TestStorage, eventually};

async fn two() -> (TestDatabase, Server, Server) {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let first = Server::of(&database, &storage).hurried().start().await;
    let second = Server::of(&database, &storage).hurried().start().await;
    (database, first, second)
}

fn text(response: &Value) -> &str {
    response["output"][0]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{response}"))
}

#[tokio::test]
async fn a_turn_follows_another_on_either_server() {
    let (_database, first, second) = two().await;
    let (status, one) =
        first.post("/v1/responses", json!({ "model": "demo", "input": "My name is Ada." })).await;
    assert_eq!((status, &one["status"]), (200, &json!("completed")), "{one}");
    let follow = json!({ "model": "demo", "input": "What is my name?", "previous_response_id": one["id"] });
    let (_, two) = second.post("/v1/responses", follow.clone()).await;
    assert!(text(&two).contains("Ada"), "{two}");
    // The same turn continued twice forks: neither knows of the other.
    let (status, other) = first.post("/v1/responses", follow).await;
    assert_eq!(status, 200, "{other}");
    let id = two["id"].as_str().unwrap();
    assert_eq!(second.read(&format!("/v1/responses/{id}")).await, (200, two.clone()));
    assert_eq!(first.read(&format!("/v1/responses/{id}")).await, (200, two.clone()), "both say the same");
}

#[tokio::test]
async fn another_owners_turn_is_the_same_404_as_none() {
    let (_database, first, _second) = two().await;
    let (_, mine) = first.post("/v1/responses", json!({ "model": "demo", "input": "hello" })).await;
    let id = mine["id"].as_str().unwrap();
    let none = id.replace(&id[id.len() - 4..], "0000");
    for (method, suffix) in [
        (Method::GET, ""),
        (Method::DELETE, ""),
        (Method::POST, "/cancel"),
        (Method::GET, "/input_items"),
        (Method::GET, "?stream=true"),
    ] {
        let theirs =
            first.call(method.clone(), &format!("/v1/responses/{id}{suffix}"), None, OTHER_KEY).await;
        let nobodys =
            first.call(method.clone(), &format!("/v1/responses/{none}{suffix}"), None, OTHER_KEY).await;
        assert_eq!(theirs.0, 404, "{method} {suffix}");
        assert_eq!(theirs.1.to_string().replace(id, "X"), nobodys.1.to_string().replace(&none, "X"));
    }
    let follow = json!({ "model": "demo", "input": "and?", "previous_response_id": id });
    let (status, error) = first.call(Method::POST, "/v1/responses", Some(follow), OTHER_KEY).await;
    assert_eq!((status, &error["error"]["code"]), (400, &json!("previous_response_not_found")));
}

#[tokio::test]
async fn a_conversation_takes_one_turn_at_a_time() {
    let (_database, first, second) = two().await;
    let (_, conversation) = first.post("/v1/conversations", json!({})).await;
    let slow = json!({ "model": "demo", "input": "Tell me a story in 300 words.", "conversation": conversation["id"],
                       "background": true });
    let (status, running) = first.post("/v1/responses", slow.clone()).await;
    assert_eq!(status, 200, "{running}");
    for server in [&first, &second] {
        let (status, error) = server.post("/v1/responses", slow.clone()).await;
        assert_eq!((status, &error["error"]["code"]), (400, &json!("conversation_locked")), "{error}");
    }
    // Cancelled from the other server.
    let path = format!("/v1/responses/{}/cancel", running["id"].as_str().unwrap());
    let (status, cancelled) = second.post(&path, json!({})).await;
    assert_eq!((status, &cancelled["status"]), (200, &json!("cancelled")), "{cancelled}");
    let (status, next) = second
        .post("/v1/responses", json!({ "model": "demo", "input": "hi", "conversation": conversation["id"] }))
        .await;
    assert_eq!(status, 200, "{next}");
}

#[tokio::test]
async fn a_background_turn_of_a_killed_server_runs_again() {
    let (_database, mut first, second) = two().await;
    let ask = json!({ "model": "demo", "input": "Tell me a story in 100 words.", "background": true });
    let (_, running) = first.post("/v1/responses", ask).await;
    first.kill();
    let path = format!("/v1/responses/{}", running["id"].as_str().unwrap());
    let mut last = Value::Null;
    eventually("the turn to be completed by the other server", SOON, async || {
        last = second.read(&path).await.1;
        last["status"] == "completed"
    })
    .await;
    assert!(text(&last).split_whitespace().count() >= 80, "{last}");
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_hands_its_turns_over() {
    let (database, mut first, second) = two().await;
    let ask = json!({ "model": "demo", "input": "Tell me a story in 400 words.", "background": true });
    let (_, running) = first.post("/v1/responses", ask).await;
    first.stop().await;
    let path = format!("/v1/responses/{}", running["id"].as_str().unwrap());
    eventually("the turn to be completed by the other server", SOON * 2, async || {
        second.read(&path).await.1["status"] == "completed"
    })
    .await;
    assert_eq!(database.count("SELECT max(restarts)::int8 FROM responses").await, 1);
}

#[tokio::test]
async fn without_the_database_what_needs_none_goes_on() {
    let storage = TestStorage::create();
    // Nobody listens there.
    let nowhere = "postgres://nobody:x@127.0.0.1:9/none";
    let server = Server::on(nowhere, nowhere, &storage).start_without_database().await;
    let (status, answer) =
        server.post("/v1/responses", json!({ "model": "demo", "input": "hi", "store": false })).await;
    assert_eq!((status, &answer["status"]), (200, &json!("completed")), "{answer}");
    let started = std::time::Instant::now();
    let (status, error) = server.post("/v1/responses", json!({ "model": "demo", "input": "hi" })).await;
    assert_eq!((status, &error["error"]["code"]), (503, &json!("database_unavailable")), "{error}");
    assert!(started.elapsed().as_secs() < 5, "it says so at once");
    assert_eq!(server.call(Method::GET, "/health/live", None, API_KEY).await.0, 200);
    assert_eq!(server.call(Method::GET, "/health/ready", None, API_KEY).await.0, 503);
}

#[tokio::test]
async fn usage_is_shown_to_its_owner_and_to_operators() {
    let (_database, first, second) = two().await;
    first.post("/v1/responses", json!({ "model": "demo", "input": "hello" })).await;
    second
        .call(Method::POST, "/v1/responses", Some(json!({ "model": "demo", "input": "hello" })), OTHER_KEY)
        .await;
    let owners = |usage: &Value| -> Vec<String> {
        usage["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|day| day["owner"].as_str().unwrap().to_owned())
            .collect()
    };
    let (status, mine) = second.call(Method::GET, "/v1/usage", None, OTHER_KEY).await;
    assert_eq!((status, owners(&mine)), (200, vec!["somebody-else".to_owned()]), "{mine}");
    assert_eq!((&mine["data"][0]["turns"], &mine["data"][0]["model"]), (&json!(1), &json!("demo")));
    assert!(mine["data"][0]["output_tokens"].as_i64().unwrap() > 0);
    let (_, all) = first.read("/v1/usage?owner=*").await;
    assert_eq!(owners(&all).len(), 2, "{all}");
    let (status, error) = second.call(Method::GET, "/v1/usage?owner=*", None, OTHER_KEY).await;
    assert_eq!(status, 403, "{error}");
    let (status, error) = first.read("/v1/usage?from=yesterday").await;
    assert_eq!((status, &error["error"]["param"]), (400, &json!("from")));
}
