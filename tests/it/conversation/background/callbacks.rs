//! What a consumer receives, and who may have it sent.

use serde_json::{Value, json};

use super::{Scene, becomes, begin, slow};
use crate::support::providers::Script;
use crate::support::server::OTHER_KEY;
use crate::support::{Answer, SOON, eventually};

#[tokio::test]
async fn the_end_of_a_background_turn_is_told_once_and_signed() {
    let scene = Scene::new().await;
    let (first, _second) = (scene.server().start().await, scene.server().start().await);
    let _app = scene.app().start().await;
    let id = begin(&first, json!({})).await;
    let told = scene.told(&id).await;
    assert_eq!(told.path, "/callbacks");
    assert_eq!(told.headers["content-type"], "application/json");
    let body = told.json();
    let webhook_id = told.id.strip_prefix("cb_").expect("cb_");
    let (_, response) = first.read(&format!("/v1/responses/{id}")).await;
    let wanted = json!({
        "object": "event", "id": format!("evt_{webhook_id}"), "type": "response.completed",
        "created_at": response["completed_at"], "data": { "id": id },
    });
    assert_eq!(body, wanted);
}

#[tokio::test]
async fn a_url_below_a_target_is_told_instead_of_it() {
    let scene = Scene::new().await;
    let server = scene.server().start().await;
    let _app = scene.app().start().await;
    let url = format!("{}/of/mine?token=1", scene.consumer.url());
    let id = begin(&server, json!({ "callback": url })).await;
    assert_eq!(scene.told(&id).await.path, "/callbacks/of/mine?token=1");
}
