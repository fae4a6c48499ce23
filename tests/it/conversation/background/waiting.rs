//! While the provider is out: whoever waits for an answer is told so, whoever does not is told when it is done.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Scene, becomes, begin, uuid_of};
use crate::support::providers::Script;
use crate::support::server::API_KEY;
use crate::support::{SOON, eventually};

#[tokio::test]
async fn a_turn_waits_for_its_provider_and_is_told_of_when_it_is_done() {
    let scene = Scene::new().await;
    let (mut first, second) = (scene.server().start().await, scene.server().start().await);
    let _app = scene.app().start().await;
    scene.provider.always(Script::fails(503, "down"));
    let id = begin(&first, json!({})).await;
    becomes(&second, &id, "queued").await;
    eventually("some tries", SOON, async || scene.provider.seen().len() >= 3).await;
    assert!(scene.consumer.callbacks().is_empty(), "nothing to tell yet");
    // Nobody has it, so nobody's death is its own.
    becomes(&second, &id, "queued").await;
    first.kill();
    scene.provider.always(Script::says("Hello there"));
    let told = scene.told(&id).await;
    assert_eq!(told.json()["type"], "response.completed");
    let (_, response) = second.read(&format!("/v1/responses/{id}")).await;
    assert_eq!(response["output"][0]["content"][0]["text"], "Hello there", "{response}");
    let row = format!("SELECT waits::int8 FROM responses WHERE id = '{}'", uuid_of(&id));
    assert!(scene.database.count(&row).await >= 3);
}

#[tokio::test]
async fn a_turn_that_waits_is_cancelled_at_once_from_anywhere() {
    let scene = Scene::new().await;
    // Not due for a long time.
    let server =
        || scene.server().set("RETRY_BASE", "10m").set("RETRY_CAP", "10m").set("OUTAGE_RETRY", "10m");
    let (first, second) = (server().start().await, server().start().await);
    let _app = scene.app().start().await;
    scene.provider.always(Script::fails(503, "down"));
    let id = begin(&first, json!({})).await;
    becomes(&second, &id, "queued").await;
    let asked = Instant::now();
    let (status, stopped) = second.post(&format!("/v1/responses/{id}/cancel"), json!({})).await;
    assert_eq!((status, &stopped["status"]), (200, &json!("cancelled")), "{stopped}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(scene.told(&id).await.json()["type"], "response.cancelled");
    assert_eq!(scene.provider.seen().len(), 1);
}

#[tokio::test]
async fn a_turn_that_waited_long_enough_fails_with_what_its_provider_said() {
    let scene = Scene::new().await;
    let server = scene.server().set("BACKGROUND_MAX_WAIT", "3s").start().await;
    let _app = scene.app().start().await;
    scene.provider.always(Script::fails(503, "down"));
    let id = begin(&server, json!({})).await;
    becomes(&server, &id, "queued").await;
    becomes(&server, &id, "failed").await;
    let (_, response) = server.read(&format!("/v1/responses/{id}")).await;
    let code = response["error"]["code"].as_str().unwrap();
    assert!(code.starts_with("provider_"), "{response}");
    assert!(scene.provider.seen().len() >= 3);
    assert_eq!(scene.told(&id).await.json()["type"], "response.failed");
}

#[tokio::test]
async fn whoever_waits_for_the_answer_is_refused_at_once_and_readably() {
    let scene = Scene::new().await;
    let server = scene.server().set("LLM_BREAKER_PAUSE", "30s").start().await;
    scene.provider.always(Script::fails(503, "down"));
    let ask = |more: Value| {
        let mut ask = json!({ "model": "it", "input": "Hello" });
        ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ask
    };
    let mut refused = Value::Null;
    eventually("the breaker to open", SOON, async || {
        refused = server.post("/v1/responses", ask(json!({}))).await.1;
        refused["error"]["code"] == "provider_unavailable"
    })
    .await;
    for more in [
        json!({}),
        json!({ "stream": true }),
        json!({ "stream": true, "background": true, "callback": "consumer" }),
    ] {
        let asked = Instant::now();
        let url = server.url("/v1/responses");
        let answer =
            server.client().post(url).bearer_auth(API_KEY).json(&ask(more.clone())).send().await.unwrap();
        assert_eq!(answer.status(), 503, "{more}");
        let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=31).contains(&wait), "{wait}");
        let error: Value = answer.json().await.unwrap();
        assert!(error["error"]["message"].as_str().unwrap().contains("left alone for a moment"), "{error}");
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    }
    // In the background, but nobody would be told: it fails where its caller looks for it.
    let (_, begun) = server.post("/v1/responses", ask(json!({ "background": true }))).await;
    becomes(&server, begun["id"].as_str().unwrap(), "failed").await;
}

#[tokio::test]
async fn whoever_follows_a_turn_that_waits_sees_it_whole() {
    let scene = Scene::new().await;
    let (first, second) = (scene.server().start().await, scene.server().start().await);
    scene.provider.always(Script::fails(503, "down"));
    let id = begin(&first, json!({})).await;
    becomes(&second, &id, "queued").await;
    let url = second.url(&format!("/v1/responses/{id}?stream=true"));
    let following = second.client().get(url).bearer_auth(API_KEY).send().await.expect("a stream");
    scene.provider.always(Script::says("Hello there"));
    let events =
        tokio::time::timeout(SOON * 2, following.text()).await.expect("an end").expect("a whole stream");
    assert!(events.contains("event: response.completed"), "{events}");
    assert!(events.contains("Hello "), "{events}");
}
