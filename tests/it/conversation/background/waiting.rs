//! While the provider is out.

use serde_json::json;

use super::{Scene, becomes, begin};
use crate::support::providers::Script;
use crate::support::{SOON, eventually};

#[tokio::test]
async fn a_turn_waits_for_its_provider_and_is_told_of_when_it_is_done() {
    let scene = Scene::new().await;
    let (first, second) = (scene.server().start().await, scene.server().start().await);
    let _app = scene.app().start().await;
    scene.provider.always(Script::fails(503, "down"));
    let id = begin(&first, json!({})).await;
    becomes(&second, &id, "queued").await;
    eventually("some tries", SOON, async || scene.provider.seen().len() >= 3).await;
    assert!(scene.consumer.callbacks().is_empty(), "nothing to tell yet");
    scene.provider.always(Script::says("Hello there"));
    let told = scene.told(&id).await;
    assert_eq!(told.json()["type"], "response.completed");
    let (_, response) = second.read(&format!("/v1/responses/{id}")).await;
    assert_eq!(response["output"][0]["content"][0]["text"], "Hello there", "{response}");
}
