//! What operators are shown of a process.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::Server;
use crate::support::{Answer, Consumer, FunctionApp, SOON, TestDatabase, TestStorage, eventually};

#[tokio::test]
async fn a_server_shows_its_turns_breakers_budgets_and_what_they_await() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let (slow, broken) = (FakeProvider::start(Wire::Chat), FakeProvider::start(Wire::Chat));
    slow.always(Script::says("s3cret-answer").first_after(Duration::from_secs(30)));
    broken.always(Script::fails(500, "x"));
    let config = format!(
        "{}{}[models.slow]\ndeployments = [\"slow\"]\n[models.broken]\ndeployments = [\"broken\"]\n[budgets]\ntotal = 5\n",
        slow.deployment("slow", "price = { output = \"1\" }"),
        broken.deployment("broken", "")
    );
    let server = Server::of(&database, &storage).config(config).set("LLM_RETRIES", "0");
    let server = server.set("LLM_BREAKER_FAILURES", "1").start().await;
    let ask = json!({ "model": "slow", "input": "s3cret-question", "background": true });
    let (status, turn) = server.post("/v1/responses", ask).await;
    assert_eq!(status, 200, "{turn}");
    assert_eq!(server.post("/v1/responses", json!({ "model": "broken", "input": "x" })).await.0, 503);

    let mut told = Value::Null;
    eventually("the turn and its money", SOON, async || {
        told = server.read("/health/status").await.1;
        told["turns"].as_array().is_some_and(|turns| turns.iter().any(|shown| shown["id"] == turn["id"]))
            && told["budgets"]["slices"].as_array().is_some_and(|slices| !slices.is_empty())
    })
    .await;
    let shown = told["turns"].as_array().unwrap().iter().find(|shown| shown["id"] == turn["id"]).unwrap();
    assert_eq!(
        (&shown["id"], &shown["model"], &shown["awaits"]),
        (&turn["id"], &json!("slow"), &json!("model"))
    );
    assert_eq!(
        (&shown["stored"], &shown["background"], &shown["viewers"]),
        (&json!(true), &json!(true), &json!(0))
    );
    assert!(shown["age_seconds"].is_u64(), "{shown}");
    assert_eq!(told["deployments"].as_array().map(Vec::len), Some(2));
    let breaker = |name: &str| {
        let all = told["deployments"].as_array().unwrap();
        all.iter().find(|deployment| deployment["name"] == name).unwrap()["breaker"].clone()
    };
    assert_eq!((breaker("slow"), breaker("broken")), (json!("closed"), json!("open")));
    assert!(
        told["connections"]["open"].as_u64() >= Some(1) && told["connections"]["limit"].as_u64() > Some(1)
    );
    assert_eq!(told["budgets"]["slices"][0]["scope"], "total");
    assert!(told["budgets"]["slices"][0]["reserved_micros"].as_i64() > Some(0), "{told}");
    assert_eq!((&told["budgets"]["tracked"], &told["stopping"]), (&json!(true), &json!(false)));
    assert!(told["database_pool"]["max_size"].is_u64() && told["instance"].is_string());
    assert!(!told.to_string().contains("s3cret"), "{told}");
}

#[tokio::test]
async fn a_function_app_shows_what_is_worked_on() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let app = FunctionApp::of(&database, &storage).hurried().consumer(&consumer).start().await;
    consumer.always(Answer::After(Duration::from_secs(8), Box::new(Answer::Status(200))));
    assert_eq!(app.deliver_stripe(r#"{"id":"evt_1","type":"a"}"#).await.status(), 200);
    let mut told = Value::Null;
    eventually("a callback under way", SOON, async || {
        told = app.get("/api/health/status").await.json().await.unwrap();
        told["working"].as_array().is_some_and(|all| all.iter().any(|one| one["kind"] == "callback"))
    })
    .await;
    let working = told["working"].as_array().unwrap().iter().find(|one| one["kind"] == "callback").unwrap();
    assert_eq!((&working["object"], &working["attempts"]), (&json!("consumer"), &json!(1)));
    assert_eq!(working["awaits"], "its attempt");
    assert!(
        working["id"].as_str().is_some_and(|id| id.starts_with("cb_")) && working["age_seconds"].is_f64()
    );
    eventually("nothing under way", SOON, async || {
        let told: Value = app.get("/api/health/status").await.json().await.unwrap();
        told["working"] == json!([])
    })
    .await;
}
