//! What was deleted is not there any more from that moment on: on no server, from no memory, for nobody who watches.

mod words;

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::socket;
use super::sse::{Came, Sse, kinds, said};
use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::{API_KEY, Server, Servers};
use crate::support::{Proxy, SOON, TestDatabase, TestStorage, eventually};

struct Scene {
    provider: FakeProvider,
    database: TestDatabase,
    servers: Servers,
}

/// Two servers that keep what has ended in memory for the whole test.
async fn scene() -> Scene {
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(Script::says("Hello there"));
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let config = format!("{}[models.it]\ndeployments = [\"d\"]\n", provider.deployment("d", ""));
    let servers = Server::of(&database, &storage).set("TURN_KEPT", "10m").config(config).start_two().await;
    Scene { provider, database, servers }
}

fn id(response: &Value) -> String {
    response["id"].as_str().unwrap_or_else(|| panic!("an id: {response}")).to_owned()
}

async fn delete(server: &Server, path: &str) {
    let (status, deleted) = server.call(Method::DELETE, path, None, API_KEY).await;
    assert_eq!(status, 200, "{deleted}");
}

/// A turn under this key.
async fn ask(server: &Server, key: &str, more: Value) -> (u16, Value) {
    let mut body = json!({ "model": "it", "input": "hi" });
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let post = server.client().post(server.url("/v1/responses")).bearer_auth(API_KEY).json(&body);
    let answer = post.header("idempotency-key", key).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

/// Whatever is asked about it, here as there.
async fn is_gone(scene: &Scene, id: &str, case: &str) {
    for (at, server) in scene.servers.both().into_iter().enumerate() {
        for (method, path) in [
            (Method::GET, ""),
            (Method::GET, "?stream=true"),
            (Method::GET, "?stream=true&starting_after=1"),
            (Method::GET, "/input_items"),
            (Method::POST, "/cancel"),
            (Method::DELETE, ""),
        ] {
            let (status, answer) =
                server.call(method.clone(), &format!("/v1/responses/{id}{path}"), None, API_KEY).await;
            let told = (status, &answer["error"]["code"]);
            assert_eq!(told, (404, &json!("not_found")), "{case}: {method} {path} of server {at}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_deleted_response_is_gone_from_the_server_that_ran_it() {
    let scene = scene().await;
    let [first, second] = scene.servers.both();
    for (key, deleting) in [("here", first), ("elsewhere", second)] {
        let (status, response) = ask(first, key, json!({})).await;
        assert_eq!(status, 200, "{response}");
        let path = format!("/v1/responses/{}", id(&response));
        assert_eq!(first.read(&path).await.1["output"], response["output"]);
        delete(deleting, &path).await;
        is_gone(&scene, &id(&response), key).await;
        for server in scene.servers.both() {
            let (status, again) = ask(server, key, json!({})).await;
            assert_eq!((status, &again["error"]["code"]), (404, &json!("not_found")), "{again}");
        }
        // The same words without a key, sent again: another turn.
        let body = json!({ "model": "it", "input": key });
        let (_, first_try) = first.post("/v1/responses", body.clone()).await;
        delete(deleting, &format!("/v1/responses/{}", id(&first_try))).await;
        let again = first.client().post(first.url("/v1/responses")).bearer_auth(API_KEY).json(&body);
        let again = again.header("x-stainless-retry-count", "1").send().await.expect("an answer");
        let again: Value = again.json().await.expect("JSON");
        assert_eq!(again["status"], "completed", "{again}");
        assert_ne!(id(&again), id(&first_try));
    }
}

#[tokio::test]
async fn a_deleted_conversation_takes_its_responses_along() {
    let scene = scene().await;
    let [first, second] = scene.servers.both();
    for (key, deleting) in [("here", first), ("elsewhere", second)] {
        let (_, conversation) = first.post("/v1/conversations", json!({})).await;
        let (status, response) = ask(first, key, json!({ "conversation": conversation["id"] })).await;
        assert_eq!(status, 200, "{response}");
        delete(deleting, &format!("/v1/conversations/{}", id(&conversation))).await;
        is_gone(&scene, &id(&response), key).await;
        let (status, again) = ask(first, key, json!({ "conversation": conversation["id"] })).await;
        assert_eq!(status, 404, "{again}");
    }
}

#[tokio::test]
async fn a_deleted_item_is_in_no_response_and_no_stream() {
    let scene = scene().await;
    let [first, second] = scene.servers.both();
    for (key, deleting) in [("here", first), ("elsewhere", second)] {
        let (_, conversation) = first.post("/v1/conversations", json!({})).await;
        let (_, response) = ask(first, key, json!({ "conversation": conversation["id"] })).await;
        let item = id(&response["output"][0]);
        delete(deleting, &format!("/v1/conversations/{}/items/{item}", id(&conversation))).await;
        for server in scene.servers.both() {
            let (status, read) = server.read(&format!("/v1/responses/{}", id(&response))).await;
            assert_eq!((status, &read["output"]), (200, &json!([])), "{key}");
            let events = Sse::follow(server, &id(&response), None).await.all().await;
            assert!(!json!(events).to_string().contains("Hello"), "{key}: {events:?}");
            assert_eq!(kinds(&events).last(), Some(&"response.completed"));
            // What was counted is not to be had any more.
            let path = format!("/v1/responses/{}?stream=true&starting_after=3", id(&response));
            let (status, error) = server.read(&path).await;
            assert_eq!((status, &error["error"]["code"]), (400, &json!("stream_expired")), "{error}");
        }
    }
}

/// Of a stream that was cut by a deletion: no end but an error, which names the response.
async fn was_cut(mut stream: Sse, id: &str, case: &str) {
    let (events, end) = stream.rest().await;
    assert_eq!(end, Came::Broken, "{case}: {events:?}");
    let last = events.last().expect("an error");
    assert_eq!(
        (&last["type"], &last["error"]["code"]),
        (&json!("error"), &json!("not_found")),
        "{case}: {last}"
    );
    assert!(last["error"]["message"].as_str().is_some_and(|message| message.contains(id)), "{last}");
    assert!(kinds(&events).iter().all(|kind| !kind.starts_with("response.incomplete")), "{case}: {events:?}");
}

#[tokio::test]
async fn what_is_deleted_in_mid_turn_is_gone_at_once_and_ends_for_all_who_watch() {
    let scene = scene().await;
    let [first, second] = scene.servers.both();
    for (number, by_conversation) in [(1, false), (2, true)] {
        let case = if by_conversation { "its conversation" } else { "itself" };
        scene.provider.next([Script::words(600).pace(Duration::from_millis(50))]);
        let (_, conversation) = first.post("/v1/conversations", json!({})).await;
        let body = json!({ "model": "it", "input": "hi", "conversation": conversation["id"] });
        let mut here = Sse::post(first, body).await;
        let response = id(&here.until("response.created").await["response"]);
        here.until("response.output_text.delta").await;
        let mut there = Sse::follow(second, &response, None).await;
        there.until("response.output_text.delta").await;
        let path = match by_conversation {
            true => format!("/v1/conversations/{}", id(&conversation)),
            false => format!("/v1/responses/{response}"),
        };
        delete(second, &path).await;
        is_gone(&scene, &response, case).await;
        tokio::join!(was_cut(here, &response, case), was_cut(there, &response, case));
        let ended = "SELECT count(*) FROM responses r JOIN usage u ON u.response_id = r.id
                     WHERE r.state = 'cancelled' AND u.state = 'settled' AND u.reason = 'cancelled'";
        eventually("its end", SOON, async || scene.database.count(ended).await == number).await;
        is_gone(&scene, &response, case).await;
        if !by_conversation {
            let (status, next) = second
                .post(
                    "/v1/responses",
                    json!({ "model": "it", "input": "on", "conversation": conversation["id"] }),
                )
                .await;
            assert_eq!((status, &next["status"]), (200, &json!("completed")), "{next}");
        }
    }
}

#[tokio::test]
async fn who_waits_for_a_deleted_turn_in_one_piece_or_on_a_socket_is_told() {
    let scene = scene().await;
    let [first, second] = scene.servers.both();
    let newest = async || {
        let client = scene.database.client().await;
        let sql = "SELECT id FROM responses WHERE state = 'in_progress' AND
                   EXISTS (SELECT FROM response_events e WHERE e.response_id = responses.id)";
        let row = client.query_opt(sql, &[]).await.expect("an answer")?;
        Some(format!("resp_{}", row.get::<_, uuid::Uuid>(0)))
    };
    let long = || Script::words(600).pace(Duration::from_millis(50));
    let under_way = async || {
        let mut id = None;
        eventually("a turn that is under way", SOON, async || {
            id = newest().await;
            id.is_some()
        })
        .await;
        id.expect("its id")
    };

    scene.provider.next([long()]);
    let deletes = async {
        let id = under_way().await;
        delete(second, &format!("/v1/responses/{id}")).await;
    };
    let ((status, answer), ()) = tokio::join!(ask(first, "waits", json!({})), deletes);
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("not_found")), "{answer}");

    scene.provider.next([long()]);
    let mut socket = socket::open(first).await;
    let create = json!({ "type": "response.create", "model": "it", "input": "hi" });
    socket::send(&mut socket, create).await;
    let id = id(&socket::receive(&mut socket).await["response"]);
    assert_eq!(under_way().await, id);
    delete(second, &format!("/v1/responses/{id}")).await;
    let error = loop {
        let event = socket::receive(&mut socket).await;
        if event["type"] == "error" || event["type"] == "response.incomplete" {
            break event;
        }
    };
    assert_eq!((&error["status"], &error["error"]["code"]), (&json!(404), &json!("not_found")), "{error}");
    // The connection lives on.
    socket::send(&mut socket, json!({ "type": "response.create", "model": "it", "input": "hi" })).await;
    while socket::receive(&mut socket).await["type"] != "response.completed" {}
}

#[tokio::test]
async fn while_the_database_is_away_memory_answers() {
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(Script::says("Hello there"));
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let mut url: url::Url = database.url.parse().expect("an address");
    let proxy = Proxy::to(url.port().expect("a port"), Duration::ZERO).await;
    url.set_port(Some(proxy.port())).expect("an address with a port");
    let config = format!("{}[models.it]\ndeployments = [\"d\"]\n", provider.deployment("d", ""));
    let server = Server::on(url.as_str(), &database.direct_url, &storage).set("TURN_KEPT", "10m");
    let server = server.config(config).start().await;
    let (_, response) = ask(&server, "key", json!({})).await;
    proxy.cut();
    let (status, read) = server.read(&format!("/v1/responses/{}", id(&response))).await;
    assert_eq!((status, &read), (200, &response));
    let events = Sse::follow(&server, &id(&response), None).await.all().await;
    assert_eq!(said(&events), "Hello there");
    let (status, again) = ask(&server, "key", json!({})).await;
    assert_eq!((status, &again["id"]), (200, &response["id"]), "{again}");
}
