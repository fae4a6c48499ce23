//! What a process leaves behind: no more of it is run at once than there is room for, and every attempt that was made has
//! its row, however soon the process died behind it.

use std::time::Duration;

use serde_json::json;

use super::{Scene, becomes, begin, status_of};
use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::{API_KEY, Server};
use crate::support::{Proxy, SOON, eventually};

/// Nothing of it comes while a test runs.
fn silent() -> Script {
    Script::says("Hello there").first_after(SOON * 3)
}

#[tokio::test]
async fn orphans_beyond_the_room_of_one_process_wait() {
    const ROOM: usize = 2;
    const ORPHANS: usize = 7;
    let scene = Scene::new().await;
    scene.provider.always(silent());
    let mut first = scene.server().start().await;
    let mut orphans = Vec::new();
    for _ in 0..ORPHANS {
        orphans.push(begin(&first, json!({ "callback": null })).await);
    }
    // Somebody watched this one: it is not run again, and so needs no room.
    let post = first.client().post(first.url("/v1/responses")).bearer_auth(API_KEY);
    let watching = tokio::spawn(post.json(&json!({ "model": "it", "input": "hi" })).send());
    eventually("all to be asked for", SOON, async || scene.provider.seen().len() == ORPHANS + 1).await;
    first.kill();
    assert!(watching.await.expect("an end").is_err(), "cut with its server");
    let second = scene.server().set("TURNS_MAX", ROOM.to_string()).start().await;
    let running = async || second.read("/health/status").await.1["turns"].as_array().map_or(0, Vec::len);
    eventually("its room to be taken", SOON, async || running().await == ROOM).await;
    let interrupted = "SELECT count(*) FROM responses WHERE state = 'incomplete'";
    eventually("the end of what needs none", SOON, async || scene.database.count(interrupted).await == 1)
        .await;
    // Sweeps come six times a lease, which is two seconds.
    let sweeps = tokio::time::Instant::now() + Duration::from_secs(3);
    while tokio::time::Instant::now() < sweeps {
        let held = "SELECT count(*) FROM responses WHERE state = 'in_progress' AND restarts > 0";
        assert_eq!(scene.database.count(held).await, ROOM as i64);
        assert_eq!(scene.provider.seen().len(), ORPHANS + 1 + ROOM);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // As they end, the others come in.
    scene.provider.always(Script::says("Hello there"));
    for id in &orphans {
        if status_of(&second, id).await == "in_progress" {
            let cancelled = second.post(&format!("/v1/responses/{id}/cancel"), json!({})).await;
            assert_eq!(cancelled.0, 200, "{cancelled:?}");
        }
    }
    let open = "SELECT count(*) FROM responses WHERE state IN ('queued', 'in_progress')";
    eventually("an end of every one", SOON, async || scene.database.count(open).await == 0).await;
    let twice = "SELECT count(*) FROM responses WHERE restarts > 1";
    assert_eq!(scene.database.count(twice).await, 0, "none was taken and dropped");
}

/// A server whose database takes a while, so that what it does not wait for is not there when it dies.
async fn far_from_its_database(scene: &Scene, config: String) -> (Server, Proxy) {
    let mut url: url::Url = scene.database.url.parse().expect("an address");
    let proxy = Proxy::to(url.port().expect("a port"), Duration::from_millis(150)).await;
    url.set_port(Some(proxy.port())).expect("an address with a port");
    let server = Server::on(url.as_str(), &scene.database.direct_url, &scene.storage)
        .hurried()
        .config(config)
        .set("SPEND_HEARTBEAT", "500ms")
        .set("SPEND_LEASE", "20s");
    (server.start().await, proxy)
}

/// What a dead process had asked for, at what was set aside for it.
const CRASHED: &str = "SELECT count(*) FROM usage WHERE reason = 'crashed' AND estimated AND cost_micros > 0";

#[tokio::test]
async fn every_attempt_of_a_stored_turn_has_a_row_before_its_provider_is_asked() {
    let scene = Scene::new().await;
    let other = FakeProvider::start(Wire::Chat);
    let free = "requests_per_minute = 0\ntokens_per_minute = 0\nprice = { input = \"1\", output = \"4\" }";
    let config = format!(
        "{}{}[models.it]\ndeployments = [\"d\", \"e\"]\n",
        scene.provider.deployment("d", free),
        other.deployment("e", free),
    );
    let second = scene.server().config(config.clone()).start().await;
    // The first attempt, the one that fails over, and that of a process that took the turn over.
    for (nth, case) in ["the first attempt", "the attempt after a failure"].into_iter().enumerate() {
        let (mut first, _proxy) = far_from_its_database(&scene, config.clone()).await;
        scene.provider.always(silent());
        other.always(silent());
        let (asked, deployment) = match nth {
            0 => (&scene.provider, "d"),
            _ => {
                scene.provider.next([Script::fails(500, "no")]);
                (&other, "e")
            }
        };
        let before = asked.seen().len();
        let body = json!({ "model": "it", "input": "hi", "stream": true });
        let post = first.client().post(first.url("/v1/responses")).bearer_auth(API_KEY).json(&body).send();
        let posting = tokio::spawn(post);
        eventually("the provider to be asked", SOON, async || asked.seen().len() > before).await;
        first.kill();
        drop(posting.await);
        let ended = "SELECT count(*) FROM responses WHERE state = 'incomplete'";
        eventually("its end by another", SOON, async || scene.database.count(ended).await == nth as i64 + 1)
            .await;
        let its_row = format!("{CRASHED} AND deployment = '{deployment}' AND response_id IS NOT NULL");
        assert!(scene.database.count(&its_row).await > 0, "{case}");
    }
    assert_eq!(scene.database.count("SELECT count(*) FROM usage WHERE state = 'open'").await, 0);
    assert_eq!(scene.database.count("SELECT count(*) FROM usage").await, 3);
    drop(second);
}

#[tokio::test]
async fn a_turn_that_was_taken_over_has_a_row_for_each_process_that_asked() {
    let scene = Scene::new().await;
    scene.provider.always(silent());
    let mut first = scene.server().start().await;
    let id = begin(&first, json!({ "callback": null })).await;
    eventually("the provider to be asked", SOON, async || scene.provider.seen().len() == 1).await;
    first.kill();
    let (mut second, _proxy) = far_from_its_database(&scene, scene.config()).await;
    eventually("it to be asked again", SOON, async || scene.provider.seen().len() == 2).await;
    second.kill();
    scene.provider.always(Script::says("Hello there"));
    first.start_again().await;
    becomes(&first, &id, "completed").await;
    assert_eq!(scene.database.count(CRASHED).await, 2);
    let rows = "SELECT count(*) FROM usage WHERE state = 'settled' AND response_id IS NOT NULL";
    eventually("the account of all three", SOON, async || scene.database.count(rows).await == 3).await;
}
