//! A server that is told to stop while summaries are written, before any turn has begun.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Scene, asks, compacts, slow};
use crate::support::providers::Script;
use crate::support::server::{API_KEY, Server};
use crate::support::{SOON, eventually};

type Asking = tokio::task::JoinHandle<reqwest::Result<reqwest::Response>>;

fn ask(server: &Server, path: &str, body: &Value) -> Asking {
    tokio::spawn(server.client().post(server.url(path)).bearer_auth(API_KEY).json(body).send())
}

async fn answered(asking: Asking) -> (u16, Value) {
    let answer = asking.await.expect("an end").expect("an answer");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("its body");
    (status, serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// What the process that has ended leaves to nobody.
async fn nothing_is_held(scene: &Scene) {
    for rows in [
        "conversations WHERE active_response IS NOT NULL",
        "responses WHERE state IN ('queued', 'in_progress')",
        "usage WHERE state = 'open'",
        "usage WHERE reason = 'crashed'",
    ] {
        assert_eq!(scene.database.count(&format!("SELECT count(*) FROM {rows}")).await, 0, "{rows}");
    }
}

#[tokio::test]
async fn a_summary_and_its_turn_have_until_drain_to_end() {
    let mut scene = Scene::start(|server| server.set("DRAIN", "20s")).await;
    let conversation = scene.conversation(9_000).await;
    scene.small.always(slow(Script::says("They spoke of blue maps.")));
    let turn = ask(&scene.servers.each()[0], "/v1/responses", &asks(&conversation));
    let compacted = ask(&scene.servers.each()[0], "/v1/responses/compact", &compacts());
    eventually("both summaries to be asked for", SOON, async || scene.small.seen().len() == 2).await;
    scene.servers.each()[0].stop().await;
    let (status, turn) = answered(turn).await;
    assert_eq!((status, &turn["output"][0]["type"]), (200, &json!("compaction")), "{turn}");
    assert_eq!(turn["status"], "completed", "{turn}");
    let (status, compacted) = answered(compacted).await;
    assert_eq!((status, &compacted["object"]), (200, &json!("response.compaction")), "{compacted}");
    nothing_is_held(&scene).await;
    scene.settled(2).await;
}

#[tokio::test]
async fn a_summary_that_takes_longer_is_given_up_and_leaves_nothing_behind() {
    let mut scene = Scene::start(|server| server.set("DRAIN", "1s")).await;
    let conversation = scene.conversation(9_000).await;
    scene.small.always(Script::words(600).pace(Duration::from_millis(100)));
    let turn = ask(&scene.servers.each()[0], "/v1/responses", &asks(&conversation));
    let compacted = ask(&scene.servers.each()[0], "/v1/responses/compact", &compacts());
    eventually("both summaries to be under way", SOON, async || scene.small.charged().output > 4).await;
    assert_eq!(scene.small.seen().len(), 2);
    scene.servers.each()[0].stop().await;
    for asking in [turn, compacted] {
        let (status, refused) = answered(asking).await;
        assert_eq!((status, &refused["error"]["code"]), (503, &json!("server_restarting")), "{refused}");
    }
    assert_eq!(scene.small.abandoned(), 2, "the small model is left");
    assert_eq!(scene.model.seen().len(), 0, "no turn began");
    nothing_is_held(&scene).await;
    let paid = "model = 'short' AND state = 'settled' AND reason = 'disconnected' AND estimated AND output_tokens > 0";
    assert_eq!(scene.counted(paid).await, 2, "what they took until then is charged");
    // Whoever comes again finds everything as it was.
    scene.small.always(Script::says("They spoke of blue maps."));
    let again = ask(&scene.servers.each()[1], "/v1/responses", &asks(&conversation));
    let (status, again) = answered(again).await;
    assert_eq!((status, &again["output"][0]["type"]), (200, &json!("compaction")), "{again}");
    scene.settled(3).await;
}
