//! A turn whose provider has not said anything yet: the connection is heard and answered all the same.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{Socket, open, send};
use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::{Server, Servers};
use crate::support::{SOON, TestDatabase, TestStorage, eventually};

struct Scene {
    provider: FakeProvider,
    database: TestDatabase,
    servers: Servers,
}

/// A provider that thinks for longer than any test waits, and connections that may be silent for longer than that.
async fn scene() -> Scene {
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(Script::says("Hi").first_after(SOON * 3));
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let config = format!(
        "{}[models.it]\ndeployments = [\"d\"]\nfirst_event_seconds = 300\n",
        provider.deployment("d", "")
    );
    let servers =
        Server::of(&database, &storage).hurried().set("HEARTBEAT", "30s").config(config).start_two().await;
    Scene { provider, database, servers }
}

/// A connection on which a turn waits for its provider.
async fn waiting(scene: &Scene, server: &Server, stored: bool) -> Socket {
    let asked = scene.provider.seen().len();
    let mut socket = open(server).await;
    send(&mut socket, json!({ "type": "response.create", "model": "it", "input": "hi", "store": stored }))
        .await;
    eventually("the provider to be asked", SOON, async || scene.provider.seen().len() > asked).await;
    socket
}

#[tokio::test]
async fn a_peer_is_heard_and_answered_before_the_first_event() {
    let scene = scene().await;
    let [server, _] = scene.servers.both();
    for stored in [true, false] {
        let mut socket = waiting(&scene, server, stored).await;
        let began = Instant::now();
        socket.send(Message::Ping("alive?".into())).await.unwrap();
        send(&mut socket, json!({ "type": "response.create", "model": "it", "input": "and?" })).await;
        let (mut pong, mut refused) = (None, None);
        while pong.is_none() || refused.is_none() {
            match tokio::time::timeout(SOON, socket.next()).await.expect("an answer").expect("open").unwrap()
            {
                Message::Pong(payload) => pong = Some(payload),
                Message::Text(text) => refused = Some(serde_json::from_str::<Value>(&text).unwrap()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(pong.as_deref(), Some(&b"alive?"[..]));
        let refused = refused.expect("a refusal");
        assert_eq!(refused["error"]["code"], "response_in_progress", "{refused}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_peer_that_leaves_before_the_first_event_has_left_its_turn() {
    let scene = scene().await;
    let [server, _] = scene.servers.both();
    for (nth, stored) in [(1, true), (2, false)] {
        let mut socket = waiting(&scene, server, stored).await;
        if stored {
            socket.close(None).await.unwrap();
        }
        drop(socket);
        // After the grace, long before the provider would have said anything.
        eventually("the provider to be left", SOON, async || scene.provider.abandoned() == nth).await;
        let paid = "SELECT count(*) FROM usage WHERE state = 'settled' AND reason = 'disconnected'";
        eventually("its account", SOON, async || {
            scene.database.count(paid).await == i64::try_from(nth).unwrap()
        })
        .await;
    }
    let ended = "SELECT count(*) FROM responses WHERE state = 'cancelled'";
    assert_eq!(scene.database.count(ended).await, 1);
}
