//! A PostgreSQL that crashes: nobody waits for its disk when a turn's log grows, so it loses the last moments.

use std::time::Duration;

use futures_util::future::join_all;

use super::hurried;
use super::upstream::{MODELS, Upstreams};
use super::viewer::Viewers;
use crate::support::providers::Script;
use crate::support::{PrivatePostgres, SOON, TestDatabase, TestStorage, eventually};

const TURNS: usize = 12;

#[tokio::test]
async fn what_postgresql_loses_in_a_crash_is_logged_again_as_it_was_seen() {
    let mut postgres = PrivatePostgres::start().await;
    let (database, storage) = (TestDatabase::within(&postgres).await, TestStorage::create());
    let upstreams = Upstreams::always(&Script::words(600).pace(Duration::from_millis(10)));
    // Whoever watches is told that there is somebody while the log waits.
    let builder = || hurried(&database, &storage, &upstreams).set("HEARTBEAT", "1s");
    let (mut server, other) = (builder().start().await, builder().start().await);
    let (here, there) = (server.url(""), other.url(""));
    let lost = |log: Vec<String>| log.iter().any(|line| line.contains("log.shortened"));
    let mut crashes = 0;
    // Whether anything is lost is chance, but not often.
    while !lost(server.process().log()) {
        crashes += 1;
        assert!(crashes <= 5, "PostgreSQL loses nothing");
        let watching = join_all((0..TURNS).map(|_| Viewers::once(&here, MODELS[2])));
        let crash = async {
            let running = "SELECT count(*) FROM responses WHERE state = 'in_progress'
                           AND (SELECT max(part) FROM response_events WHERE response_id = id) > 5";
            let all = i64::try_from(TURNS).expect("few");
            eventually("all to be under way", SOON, async || database.count(running).await == all).await;
            let sql = "SELECT id::text FROM responses WHERE state = 'in_progress'";
            let rows = database.client().await.query(sql, &[]).await.expect("turns");
            let ids: Vec<String> = rows.iter().map(|row| format!("resp_{}", row.get::<_, &str>(0))).collect();
            // Whoever watches elsewhere reads the log before the crash and after it.
            let elsewhere = join_all(ids.iter().map(|id| Viewers::replay(&there, id)));
            let killing = async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                postgres.kill().await;
                postgres.start_again().await;
            };
            tokio::join!(elsewhere, killing).0
        };
        let (seen, elsewhere) = tokio::join!(watching, crash);
        for one in seen.iter().chain(&elsewhere) {
            assert!(one.whole, "{:?} was cut: {:?}", one.id, one.events.last());
            let id = one.id.as_deref().expect("an id");
            let replay = Viewers::replay(&there, id).await;
            assert_eq!(one.events.len(), replay.events.len(), "{id}");
            assert!(one.events == replay.events, "{id}: what was seen is not what is logged");
        }
    }
}
