//! Processes that end in mid-turn, and a database that is away when a turn ends.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Scene, becomes, begin, slow, uuid_of};
use crate::support::providers::Script;
use crate::support::server::API_KEY;
use crate::support::{PrivatePostgres, SOON, TestDatabase, eventually};

#[tokio::test]
async fn a_turn_of_a_killed_server_runs_again_and_is_told_of_once() {
    let scene = Scene::new().await;
    let (mut first, second) = (scene.server().start().await, scene.server().start().await);
    let _app = scene.app().start().await;
    scene.provider.next([slow()]);
    let id = begin(&first, json!({})).await;
    let logged = "SELECT count(*) FROM response_events";
    eventually("the answer to be under way", SOON, async || scene.database.count(logged).await > 0).await;
    first.kill();
    let told = scene.told(&id).await;
    assert_eq!(told.json()["type"], "response.completed");
    assert_eq!(
        second.read(&format!("/v1/responses/{id}")).await.1["output"][0]["content"][0]["text"],
        "Hello there"
    );
    // What was paid in vain is on the account, and says so.
    let wasted =
        "SELECT count(*) FROM usage WHERE reason = 'crashed' AND estimated AND response_id IS NOT NULL";
    eventually("its waste", SOON, async || scene.database.count(wasted).await == 1).await;
}

#[tokio::test]
async fn a_turn_that_somebody_followed_is_told_of_as_incomplete() {
    let scene = Scene::new().await;
    let (mut first, _second) = (scene.server().start().await, scene.server().start().await);
    let _app = scene.app().start().await;
    scene.provider.always(slow());
    let id = begin(&first, json!({})).await;
    let url = first.url(&format!("/v1/responses/{id}?stream=true"));
    let mut following = first.client().get(url).bearer_auth(API_KEY).send().await.expect("a stream");
    following.chunk().await.expect("an event");
    first.kill();
    assert_eq!(scene.told(&id).await.json()["type"], "response.incomplete");
}

#[tokio::test]
async fn the_fourth_death_of_its_process_ends_a_turn() {
    let scene = Scene::new().await;
    let mut server = scene.server().start().await;
    let app = scene.app();
    scene.provider.always(slow());
    let id = begin(&server, json!({})).await;
    for death in 1..=4_usize {
        eventually("a try", SOON, async || scene.provider.seen().len() == death).await;
        server.kill();
        server.start_again().await;
    }
    becomes(&server, &id, "failed").await;
    let (_, response) = server.read(&format!("/v1/responses/{id}")).await;
    assert_eq!(response["error"]["code"], "process_lost", "{response}");
    assert_eq!(scene.provider.seen().len(), 4, "three times again, and no more");
    let wasted = "SELECT count(*) FROM usage WHERE reason = 'crashed' AND estimated AND cost_micros > 0";
    eventually("what was paid in vain", SOON, async || scene.database.count(wasted).await == 4).await;
    // Written down long before there was anybody to send it.
    let _app = app.start().await;
    assert_eq!(scene.told(&id).await.json()["type"], "response.failed");
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_hands_over_the_promise_with_the_turn() {
    let scene = Scene::new().await;
    let (mut first, second) = (scene.server().start().await, scene.server().start().await);
    let _app = scene.app().start().await;
    scene.provider.next([slow()]);
    let id = begin(&first, json!({})).await;
    eventually("the answer to begin", SOON, async || scene.provider.seen().len() == 1).await;
    first.stop().await;
    becomes(&second, &id, "completed").await;
    assert_eq!(scene.told(&id).await.json()["type"], "response.completed");
}

#[tokio::test]
async fn a_turn_that_ends_while_the_database_is_away_is_told_of_once() {
    let mut postgres = PrivatePostgres::start().await;
    let scene = Scene::on(TestDatabase::within(&postgres).await).await;
    let server = scene.server().set("DB_CONNECT_TIMEOUT", "3s").set("DB_STATEMENT_TIMEOUT", "5s");
    let (server, _other) = (server.start().await, scene.server().start().await);
    let _app = scene.app().start().await;
    scene.provider.next([Script::words(20).pace(Duration::from_millis(50))]);
    let id = begin(&server, json!({})).await;
    eventually("the answer to begin", SOON, async || scene.provider.seen().len() == 1).await;
    postgres.stop().await;
    eventually("the provider to be done", SOON, async || scene.provider.answered().len() == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    postgres.start_again().await;
    assert_eq!(scene.told(&id).await.json()["type"], "response.completed");
    let row = format!("SELECT restarts::int8 FROM responses WHERE id = '{}'", uuid_of(&id));
    assert_eq!(scene.database.count(&row).await, 0, "whoever had it ended it");
    let _: Value = server.read("/v1/models").await.1;
}
