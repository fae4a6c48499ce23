//! Many connections, in small; `scripts/bench turns` does the same with 10,000 and 1,000 in one process. What they
//! take is printed and not judged: this is a debug build beside other tests. That nothing is lost is judged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::socket;
use super::sse::{Came, Sse};
use crate::support::server::{Server, Servers};
use crate::support::{TestDatabase, TestStorage, report, resident_kib};

const SOCKETS: usize = 200;
const STREAMS: usize = 20;
const PIECES_PER_SECOND: u32 = 20;
const WORDS: usize = 60;

/// What both take.
fn resident(pids: [u32; 2]) -> i64 {
    pids.into_iter().map(resident_kib).sum()
}

/// Every frame of a turn in its order, and the longest time between two pieces of text.
async fn watch(server: &Server, store: bool) -> (usize, Duration) {
    let ask =
        json!({ "model": "demo", "input": format!("Tell me a story in {WORDS} words."), "store": store });
    let mut stream = Sse::post(server, ask).await;
    let (mut number, mut said, mut pieces) = (0, String::new(), 0);
    let (mut last, mut longest) = (None, Duration::ZERO);
    let mut ended = None;
    loop {
        let event = match stream.next().await {
            Came::Event(event) => event,
            Came::Done => break,
            Came::Broken => panic!("the stream broke off after {number} frames"),
        };
        assert_eq!(event["sequence_number"], number, "a frame is lost or doubled");
        number += 1;
        match event["type"].as_str().expect("a type") {
            "response.output_text.delta" => {
                said.push_str(event["delta"].as_str().expect("text"));
                pieces += 1;
                let now = Instant::now();
                if let Some(last) = last.replace(now) {
                    longest = longest.max(now.duration_since(last));
                }
            }
            "response.completed" => ended = Some(event["response"].clone()),
            _ => {}
        }
    }
    let ended = ended.expect("its end");
    assert_eq!(
        ended["output"][0]["content"][0]["text"],
        said.as_str(),
        "what was shown is what it says it said"
    );
    assert!(pieces > WORDS / 2, "{pieces} pieces");
    (pieces, longest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_sockets_and_paced_streams_are_held_without_a_frame_lost() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let mut servers: Servers = Server::of(&database, &storage)
        .set("LLM_DEMO_TOKENS_PER_SECOND", PIECES_PER_SECOND.to_string())
        // So that there are pings while they are held.
        .set("HEARTBEAT", "1s")
        .set("RATE_CONCURRENT_TURNS", "1000")
        .start_two()
        .await;
    let pids = servers.pids();
    let server = Arc::new(servers);
    // What the first connection of each kind needs once.
    for server in server.both() {
        drop(socket::open(server).await);
        watch(server, true).await;
    }

    let empty = resident(pids);
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS / 20 {
        sockets.extend(join_all((0..20).map(|_| socket::open(&server))).await);
    }
    let with_sockets = resident(pids);
    let mut held = JoinSet::new();
    let (over, ended) = tokio::sync::watch::channel(());
    for mut socket in sockets {
        let mut ended = ended.clone();
        held.spawn(async move {
            let mut pings = 0;
            loop {
                tokio::select! {
                    _ = ended.changed() => return pings,
                    message = socket.next() => match message {
                        Some(Ok(Message::Ping(_))) => pings += 1,
                        other => panic!("an idle socket got {other:?}"),
                    },
                }
            }
        });
    }

    let (mut most, mut pieces, mut longest) = (with_sockets, 0, Duration::ZERO);
    let mut streams = JoinSet::new();
    for nth in 0..STREAMS {
        let server = Arc::clone(&server);
        streams.spawn(async move { watch(&server, nth % 2 == 0).await });
    }
    while let Some(watched) = streams.join_next().await {
        let (count, gap) = watched.expect("a whole stream");
        (most, pieces, longest) = (most.max(resident(pids)), pieces + count, longest.max(gap));
    }
    drop(over);
    let mut pings = 0;
    while let Some(of_one) = held.join_next().await {
        let of_one: u32 = of_one.expect("a socket that was held");
        assert!(of_one > 0, "an idle socket was never asked whether it lives");
        pings += of_one;
    }
    let each = |before: i64, after: i64, count: usize| (after - before) as f64 / count as f64;
    report(
        "held",
        &format!(
            "{SOCKETS} idle WebSockets: {:.1} KiB each, {pings} pings answered, none lost\n\
             {STREAMS} streams beside them, {PIECES_PER_SECOND} pieces/s: {:.1} KiB each, {pieces} pieces, longest gap \
             {longest:.1?}, no frame lost (debug build)",
            each(empty, with_sockets, SOCKETS),
            each(with_sockets, most, STREAMS),
        ),
    );
}
