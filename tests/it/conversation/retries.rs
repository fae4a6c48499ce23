//! Requests that are sent again because their answer was never seen, and viewers that come back to another instance.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::sse::{Sse, said};
use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::{API_KEY, OTHER_KEY, Server};
use crate::support::{SOON, TestDatabase, TestStorage, eventually};

struct Scene {
    provider: FakeProvider,
    database: TestDatabase,
    first: Server,
    second: Server,
}

/// Two servers; a turn that nobody watches is given up after two seconds.
async fn scene() -> Scene {
    let provider = FakeProvider::start(Wire::Chat);
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let config = format!("{}[models.it]\ndeployments = [\"d\"]\n", provider.deployment("d", ""));
    let start =
        || Server::of(&database, &storage).hurried().set("LLM_RETRIES", "0").config(config.clone()).start();
    let (first, second) = (start().await, start().await);
    Scene { provider, first, second, database }
}

impl Scene {
    /// As an SDK sends it, the first time or again.
    fn try_it(&self, server: &Server, body: &Value, tries: u32) -> reqwest::RequestBuilder {
        let post = server.client().post(server.url("/v1/responses")).json(body);
        post.header("x-stainless-retry-count", tries.to_string())
    }

    async fn rows(&self, table: &str) -> i64 {
        self.database.count(&format!("SELECT count(*) FROM {table}")).await
    }
}

/// One turn's words take longer than the grace of those that nobody watches.
fn long() -> Script {
    Script::words(100).pace(Duration::from_millis(80))
}

#[tokio::test]
async fn a_request_sent_again_finds_its_turn_on_any_instance() {
    let scene = scene().await;
    scene.provider.always(long());
    for stream in [true, false] {
        let body = json!({ "model": "it", "input": format!("stream: {stream}"), "stream": stream });
        // The answer is never seen: the connection breaks first.
        let first =
            scene.try_it(&scene.first, &body, 0).bearer_auth(API_KEY).timeout(Duration::from_millis(1_500));
        match first.send().await {
            Ok(answer) => {
                let mut pieces = answer.bytes_stream();
                while let Some(Ok(_)) = pieces.next().await {}
            }
            Err(error) => assert!(error.is_timeout(), "{error}"),
        }
        let (turns, rows) = (scene.rows("responses").await, scene.rows("usage").await);
        let again = scene.try_it(&scene.second, &body, 1);
        let (id, text) = if stream {
            let events = Sse::open(again).await.all().await;
            (events[0]["response"]["id"].clone(), said(&events))
        } else {
            let whole: Value = again.bearer_auth(API_KEY).send().await.unwrap().json().await.unwrap();
            (
                whole["id"].clone(),
                whole["output"][0]["content"][0]["text"].as_str().unwrap_or_default().to_owned(),
            )
        };
        assert_eq!(text.split_whitespace().count(), 100, "all of it, though its first viewer left: {text}");
        assert_eq!(
            (scene.rows("responses").await, scene.rows("usage").await),
            (turns, rows),
            "one turn, paid once"
        );
        let newest = scene.database.client().await;
        let newest =
            newest.query_one("SELECT id::text FROM responses ORDER BY id DESC LIMIT 1", &[]).await.unwrap();
        assert_eq!(
            id.as_str().unwrap().replace('-', ""),
            format!("resp_{}", newest.get::<_, String>(0).replace('-', ""))
        );
        // The same words again, not sent again: another turn. Another owner's: another turn.
        for (key, tries) in [(API_KEY, 0), (OTHER_KEY, 1)] {
            let post = scene.try_it(&scene.second, &body, tries).bearer_auth(key);
            let post = post.timeout(Duration::from_millis(1_000)).send().await;
            drop(post);
        }
        assert_eq!(scene.rows("responses").await, turns + 2);
    }
    assert_eq!(scene.provider.seen().len(), 6);
}

#[tokio::test]
async fn what_failed_or_was_given_up_is_tried_anew_and_a_lock_of_ones_own_is_none() {
    let scene = scene().await;
    scene.provider.next([Script::fails(500, "no")]);
    let body = json!({ "model": "it", "input": "fails" });
    let failed = scene.try_it(&scene.first, &body, 0).bearer_auth(API_KEY).send().await.unwrap();
    assert_eq!(failed.status(), 503);
    let again = scene.try_it(&scene.second, &body, 1).bearer_auth(API_KEY).send().await.unwrap();
    let again: Value = again.json().await.unwrap();
    assert_eq!((scene.provider.seen().len(), &again["status"]), (2, &json!("completed")), "{again}");

    scene.provider.next([long()]);
    let body = json!({ "model": "it", "input": "left", "stream": true });
    let mut left = Sse::open(scene.try_it(&scene.first, &body, 0)).await;
    left.until("response.output_text.delta").await;
    drop(left);
    let given_up = "SELECT count(*) FROM responses WHERE state = 'cancelled'";
    eventually("the turn to be given up", SOON, async || scene.database.count(given_up).await == 1).await;
    let again = Sse::open(scene.try_it(&scene.second, &body, 1)).await.all().await;
    assert_eq!((scene.provider.seen().len(), said(&again).as_str()), (4, "Hello there"));

    // In a conversation the first try holds the lock that its own second try meets; with a key as without.
    let (_, conversation) = scene.first.post("/v1/conversations", json!({})).await;
    for key in [None, Some("the-key")] {
        scene.provider.next([long()]);
        let body = json!({ "model": "it", "input": format!("{key:?}"), "stream": true, "conversation": conversation["id"] });
        let request = |server: &Server, tries: u32| match key {
            Some(key) => {
                server.client().post(server.url("/v1/responses")).json(&body).header("idempotency-key", key)
            }
            None => scene.try_it(server, &body, tries),
        };
        let mut first = Sse::open(request(&scene.first, 0)).await;
        let id = first.event().await["response"]["id"].clone();
        first.until("response.output_text.delta").await;
        drop(first);
        let again = Sse::open(request(&scene.second, 1)).await.all().await;
        assert_eq!(
            (&again[0]["response"]["id"], said(&again).split_whitespace().count()),
            (&id, 100),
            "{key:?}"
        );
    }
}

#[tokio::test]
async fn a_key_with_another_body_is_refused_wherever_it_comes_and_the_same_body_finds_its_response() {
    let scene = scene().await;
    for store in [true, false] {
        let key = format!("key-{store}");
        let post = async |server: &Server, input: &str| {
            let body = json!({ "model": "it", "input": input, "store": store });
            let post = server.client().post(server.url("/v1/responses")).bearer_auth(API_KEY).json(&body);
            let answer = post.header("idempotency-key", &key).send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        };
        let (status, first) = post(&scene.first, "one").await;
        assert_eq!(status, 200, "{first}");
        // What is not stored only its own process remembers.
        for server in [&scene.first, &scene.second].into_iter().take(if store { 2 } else { 1 }) {
            let (status, other) = post(server, "another").await;
            assert_eq!((status, &other["error"]["code"]), (409, &json!("idempotency_key_reused")), "{store}");
            let (status, again) = post(server, "one").await;
            assert_eq!((status, &again["id"]), (200, &first["id"]), "{store}: {again}");
        }
    }
    assert_eq!(scene.provider.seen().len(), 2);
}

/// Leaving one instance and coming back to another is no leaving.
#[tokio::test]
async fn a_turn_that_is_resumed_elsewhere_goes_on() {
    let scene = scene().await;
    scene.provider.next([long()]);
    let mut here = Sse::post(&scene.first, json!({ "model": "it", "input": "hi" })).await;
    let id = here.event().await["response"]["id"].as_str().unwrap().to_owned();
    let last = here.until("response.output_text.delta").await["sequence_number"].as_u64();
    drop(here);
    let rest = Sse::follow(&scene.second, &id, last).await.all().await;
    assert_eq!(rest[0]["sequence_number"].as_u64(), last.map(|last| last + 1));
    assert_eq!(rest.last().unwrap()["response"]["status"], "completed");
    assert_eq!(said(&rest).split_whitespace().count(), 99);
    // And left there too, it is given up.
    scene.provider.next([Script::words(400).pace(Duration::from_millis(80))]);
    let mut here = Sse::post(&scene.first, json!({ "model": "it", "input": "hi again" })).await;
    let id = here.event().await["response"]["id"].as_str().unwrap().to_owned();
    drop(here);
    let mut there = Sse::follow(&scene.second, &id, None).await;
    for _ in 0..40 {
        there.until("response.output_text.delta").await;
    }
    drop(there);
    eventually("the turn to be given up", SOON, async || {
        scene.second.read(&format!("/v1/responses/{id}")).await.1["status"] == "cancelled"
    })
    .await;
}
