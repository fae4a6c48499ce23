//! A server that is frozen for longer than its turns' leases, and wakes up.

use std::time::Duration;

use super::hurried;
use super::upstream::{MODELS, Upstreams};
use super::viewer::{Seen, Viewers};
use crate::support::providers::Script;
use crate::support::{SOON, TestDatabase, TestStorage, eventually};

const LOGGED: &str = "SELECT count(DISTINCT response_id) FROM response_events";
const INCOMPLETE: &str = "SELECT count(*) FROM responses WHERE state = 'incomplete'";

/// Waking up is not waiting for the log.
#[tokio::test]
async fn what_a_server_shows_that_was_frozen_is_what_is_stored() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let upstreams = Upstreams::always(&Script::words(400).pace(Duration::from_millis(10)));
    let builder = || hurried(&database, &storage, &upstreams);
    let (mut frozen, other) = (builder().start().await, builder().start().await);
    let address = frozen.url("");
    let watching = futures_util::future::join_all((0..20).map(|_| Viewers::once(&address, MODELS[2])));
    let freezing = async {
        eventually("all to be under way", SOON, async || database.count(LOGGED).await == 20).await;
        frozen.process().signal("STOP");
        eventually("all to be taken over", SOON, async || database.count(INCOMPLETE).await == 20).await;
        frozen.process().signal("CONT");
    };
    let (seen, ()) = tokio::join!(watching, freezing);
    for seen in seen {
        let id = seen.id.as_deref().expect("an id");
        let replay = Viewers::replay(&other.url(""), id).await;
        assert!(!seen.whole && replay.whole, "one is cut, the other ends");
        assert_is_beginning(&seen, &replay);
    }
}

#[tokio::test]
async fn a_viewer_elsewhere_sees_the_end_of_a_frozen_servers_turn_and_nothing_of_its_waking() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let upstreams = Upstreams::always(&Script::words(2_000).pace(Duration::from_millis(10)));
    let builder = || hurried(&database, &storage, &upstreams);
    let (mut frozen, other) = (builder().start().await, builder().start().await);
    let (here, there) = (frozen.url(""), other.url(""));
    let id = async {
        let id = "SELECT id::text FROM responses WHERE state = 'in_progress'";
        eventually("the turn to be under way", SOON, async || database.count(LOGGED).await == 1).await;
        let row = database.client().await.query_one(id, &[]).await.expect("the turn");
        format!("resp_{}", row.get::<_, &str>(0))
    };
    let elsewhere = async {
        let id = id.await;
        let replay = Viewers::replay(&there, &id);
        let freezing = async {
            // Whoever watches has seen something by then, and goes on.
            let parts = "SELECT coalesce(max(part), 0)::int8 FROM response_events";
            let before = database.count(parts).await;
            eventually("the log to grow", SOON, async || database.count(parts).await > before + 20).await;
            frozen.process().signal("STOP");
            eventually("it to be taken over", SOON, async || database.count(INCOMPLETE).await == 1).await;
            frozen.process().signal("CONT");
        };
        let (replay, ()) = tokio::join!(replay, freezing);
        (id, replay)
    };
    let (seen, (id, elsewhere)) = tokio::join!(Viewers::once(&here, MODELS[2]), elsewhere);
    assert!(elsewhere.whole, "who watches elsewhere sees the end: {:?}", elsewhere.refused);
    let last = elsewhere.events.last().expect("events");
    assert_eq!(last["type"], "response.incomplete", "{last}");
    assert_eq!(last["response"]["incomplete_details"]["reason"], "interrupted", "{last}");
    assert!(!seen.whole, "who watched the frozen one is sent away");
    assert_is_beginning(&seen, &elsewhere);
    eventually("the one that woke to let go of its provider", SOON, async || upstreams.abandoned() == 1)
        .await;
    for server in [&here, &there] {
        assert_eq!(Viewers::replay(server, &id).await.events, elsewhere.events, "as {server} tells it");
    }
    // Paid once: by whoever took it over, then by the one that woke and knew better.
    eventually("the one that woke to say what it cost", SOON, async || {
        database.count("SELECT count(*) FROM usage WHERE reason = 'interrupted' AND estimated").await == 1
    })
    .await;
    assert_eq!(database.count("SELECT count(*) FROM usage").await, 1);
    assert_eq!(database.count("SELECT epoch FROM responses").await, 2);
}

fn assert_is_beginning(seen: &Seen, replay: &Seen) {
    assert!(
        replay.events.starts_with(&seen.events),
        "{:?}: {:?} was shown, {:?} is the end",
        seen.id,
        seen.events.last(),
        replay.events.last()
    );
}
