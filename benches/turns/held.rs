//! Many connections in one process: idle WebSockets, and streams at a human pace beside them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::load::{self, Ask, Shape, Spread};
use super::parts::{self, Database, KEY, Part, number, record};

/// 20 pieces a second.
const PACE: u64 = 50;
/// One piece, and then nothing for an hour.
const SILENT: Shape = Shape::stream(1, 3_600_000);

pub async fn run(database: &Database) -> anyhow::Result<()> {
    let sockets = number("COLLOQUY_BENCH_SOCKETS", 10_000)?;
    let streams = number("COLLOQUY_BENCH_STREAMS", 1_000)?;
    let watched = Duration::from_secs(number("COLLOQUY_BENCH_HELD_SECONDS", 20)? as u64);
    let (_provider, url) = parts::provider()?;
    idle_streams(database, &url, streams).await?;
    // Three quarters of the time, so that all of it is seen while all of them flow.
    let pieces = usize::try_from(watched.as_millis() as u64 * 3 / 4 / PACE)?;
    let shape = Shape::stream(pieces, PACE);
    let shapes = [shape];
    let (server, address) = parts::server(&url, &shapes, &database.pooled, &database.direct, &[]).await?;
    let empty = server.memory()?;
    println!("\nserver, empty: {:.1} MiB", mebibytes(empty));

    let (over, ended) = watch::channel(());
    let (lost, pings) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut held = JoinSet::new();
    let (started, opening) = (Instant::now(), Arc::new(Semaphore::new(64)));
    for _ in 0..sockets {
        let permit = Arc::clone(&opening).acquire_owned().await?;
        let (address, ended) = (address.clone(), ended.clone());
        let (lost, pings) = (Arc::clone(&lost), Arc::clone(&pings));
        held.spawn(async move {
            let socket = connect(&address).await;
            drop(permit);
            hold(socket, ended, &lost, &pings).await;
        });
    }
    drop(opening.acquire_many(64).await?);
    let opened = started.elapsed();
    settle().await;
    let with_sockets = server.memory()?;
    println!(
        "{sockets} idle WebSockets, opened in {opened:.1?}: {:.1} MiB, {:.1} KiB each",
        mebibytes(with_sockets),
        each(empty, with_sockets, sockets)
    );
    let before = server.busy()?;
    tokio::time::sleep(watched).await;
    let idle = server.busy()? - before;
    println!(
        "idle for {watched:?}: {} of one core, {} pings",
        share(idle, watched.as_secs_f64()),
        pings.load(Ordering::Relaxed)
    );
    record(
        &json!({ "what": "sockets", "count": sockets, "empty_bytes": empty, "opened_s": opened.as_secs_f64(),
                    "bytes": with_sockets, "each_kib": each(empty, with_sockets, sockets),
                    "idle_cpu_share": idle.as_secs_f64() / watched.as_secs_f64() }),
    )?;

    for store in [false, true] {
        paced(&server, &Ask::server(&address, store, shape), shape, streams, watched).await?;
    }
    println!(
        "WebSockets lost meanwhile: {}; pings in all: {}",
        lost.load(Ordering::Relaxed),
        pings.load(Ordering::Relaxed)
    );
    drop(over);
    while held.join_next().await.is_some() {}
    ensure!(lost.load(Ordering::Relaxed) == 0, "connections were lost");
    Ok(())
}

/// What all streams have seen so far.
#[derive(Debug, Default)]
struct Progress {
    begun: AtomicUsize,
    pieces: AtomicUsize,
}

/// Streams at the same time; each checks that every piece came.
async fn paced(
    server: &Part,
    ask: &Ask,
    shape: Shape,
    streams: usize,
    watched: Duration,
) -> anyhow::Result<()> {
    let store = ask.body.contains("\"store\":true");
    let client = load::client()?;
    let memory = server.memory()?;
    let seen = Arc::new(Progress::default());
    let mut tasks = JoinSet::new();
    for nth in 0..streams {
        let (ask, client, seen) = (ask.clone(), client.clone(), Arc::clone(&seen));
        tasks.spawn(async move {
            // Not all in the same millisecond.
            tokio::time::sleep(Duration::from_micros(nth as u64 * 2_000)).await;
            watch_one(&ask, &client, &seen).await
        });
    }
    while seen.begun.load(Ordering::Relaxed) < streams {
        ensure!(
            tasks.len() == streams,
            "streams end before all have begun: this machine cannot make the load"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Some(ended) = tasks.try_join_next() {
            ended??;
        }
    }
    let count = || seen.pieces.load(Ordering::Relaxed);
    let (before, pieces_before, started) = (server.busy()?, count(), Instant::now());
    tokio::time::sleep(watched * 7 / 20).await;
    let (busy, seconds) = (server.busy()? - before, started.elapsed().as_secs_f64());
    let meanwhile = count() - pieces_before;
    let during = server.memory()?;
    let mut gaps = Vec::new();
    while let Some(task) = tasks.join_next().await {
        gaps.extend(task??);
    }
    let pieces = gaps.len();
    let late = gaps.iter().filter(|gap| **gap > 10 * Duration::from_millis(PACE)).count();
    let Spread { p50, p99, p999 } = Spread::of(gaps);
    println!(
        "{streams} streams, {:.0} pieces/s, store: {store}: {} of one core, {:.1} µs a piece, {:.1} KiB each",
        meanwhile as f64 / seconds,
        share(busy, seconds),
        busy.as_secs_f64() * 1e6 / meanwhile as f64,
        each(memory, during, streams),
    );
    println!(
        "  between two pieces p50 {p50:.1?}, p99 {p99:.1?}, p99.9 {p999:.1?}; later than ten times the pace: {late}; \
         {pieces} of {} pieces",
        streams * shape.pieces,
    );
    let gap_ms = [p50, p99, p999].map(|gap| gap.as_secs_f64() * 1e3);
    record(&json!({ "what": "paced", "count": streams, "store": store,
                    "per_second": meanwhile as f64 / seconds, "cpu_share": busy.as_secs_f64() / seconds,
                    "piece_us": busy.as_secs_f64() * 1e6 / meanwhile as f64,
                    "each_kib": each(memory, during, streams), "pieces": pieces,
                    "wanted": streams * shape.pieces, "late": late,
                    "gap_ms": gap_ms }))?;
    ensure!(pieces == streams * shape.pieces, "pieces were lost");
    Ok(())
}

/// What a stream takes through which nothing flows: with a turn of its own behind it, and as one of many that watch the
/// same turn.
async fn idle_streams(database: &Database, url: &str, streams: usize) -> anyhow::Result<()> {
    for store in [false, true] {
        let (server, address) =
            parts::server(url, &[SILENT], &database.pooled, &database.direct, &[]).await?;
        let (ask, client) = (Ask::server(&address, store, SILENT), load::client()?);
        let mut open = vec![begun(&ask, &client).await?];
        let one = server.memory()?;
        for _ in 1..streams {
            open.push(begun(&ask, &client).await?);
        }
        settle().await;
        let many = server.memory()?;
        record(&json!({ "what": "silent", "count": streams, "store": store,
                        "each_kib": each(one, many, streams - 1) }))?;
        println!(
            "{streams} idle streams, each a turn and a call to the provider, store: {store}: {:.1} KiB each",
            each(one, many, streams - 1)
        );
    }
    let (server, address) = parts::server(url, &[SILENT], &database.pooled, &database.direct, &[]).await?;
    let (ask, client) = (Ask::server(&address, true, SILENT), load::client()?);
    let (_turn, id) = begun(&ask, &client).await?;
    let viewer = client.get(format!("{}/{id}?stream=true", ask.url)).bearer_auth(KEY);
    let mut open = Vec::new();
    let one = server.memory()?;
    for _ in 0..streams {
        let mut answer = viewer.try_clone().context("a request without a body")?.send().await?;
        ensure!(answer.chunk().await?.is_some(), "the stream is empty");
        open.push(answer);
    }
    settle().await;
    let many = server.memory()?;
    record(&json!({ "what": "watching", "count": streams, "each_kib": each(one, many, streams) }))?;
    println!("{streams} idle streams that watch one turn: {:.1} KiB each", each(one, many, streams));
    Ok(())
}

/// A stream whose first piece has come, and its turn's id.
async fn begun(ask: &Ask, client: &reqwest::Client) -> anyhow::Result<(reqwest::Response, String)> {
    let request = client.post(&ask.url).bearer_auth(KEY).header("content-type", "application/json");
    let mut answer = request.body(ask.body.clone()).send().await?;
    ensure!(answer.status() == 200, "{}", answer.status());
    let mut received = Vec::new();
    while !received.windows(ask.piece.len()).any(|window| window == ask.piece) {
        received.extend_from_slice(&answer.chunk().await?.context("the stream has ended")?);
    }
    let text = std::str::from_utf8(&received)?;
    let (_, rest) = text.split_once("\"id\":\"").context("an id")?;
    let (id, _) = rest.split_once('"').context("its end")?;
    Ok((answer, id.to_owned()))
}

/// Times between pieces; fails if one is missing or doubled.
async fn watch_one(ask: &Ask, client: &reqwest::Client, seen: &Progress) -> anyhow::Result<Vec<Duration>> {
    let request = client.post(&ask.url).bearer_auth(KEY).header("content-type", "application/json");
    let answer = request.body(ask.body.clone()).send().await?;
    ensure!(answer.status() == 200, "{}", answer.text().await?);
    let mut stream = answer.bytes_stream();
    let (mut gaps, mut last) = (Vec::with_capacity(ask.pieces), Instant::now());
    let (mut buffer, mut number, mut done) = (Vec::new(), 0_u64, false);
    while let Some(piece) = stream.next().await {
        buffer.extend_from_slice(&piece?);
        while let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
            let frame: Vec<u8> = buffer.drain(..end + 2).collect();
            let frame = std::str::from_utf8(&frame)?;
            if frame.starts_with(':') {
                continue;
            }
            if frame == "data: [DONE]\n\n" {
                done = true;
                continue;
            }
            let (_, rest) = frame.split_once("\"sequence_number\":").context("a number")?;
            let digits = rest.find(|c: char| !c.is_ascii_digit()).context("its end")?;
            ensure!(
                rest[..digits].parse::<u64>()? == number,
                "number {} instead of {number}",
                &rest[..digits]
            );
            number += 1;
            if frame.as_bytes().starts_with(ask.piece) {
                if gaps.is_empty() {
                    seen.begun.fetch_add(1, Ordering::Relaxed);
                }
                seen.pieces.fetch_add(1, Ordering::Relaxed);
                gaps.push(last.elapsed());
                last = Instant::now();
            }
        }
    }
    ensure!(done && gaps.len() == ask.pieces, "{} of {} pieces", gaps.len(), ask.pieces);
    Ok(gaps)
}

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn connect(address: &str) -> anyhow::Result<Socket> {
    let mut request = format!("{}/v1/responses", address.replacen("http", "ws", 1)).into_client_request()?;
    request.headers_mut().insert("authorization", format!("Bearer {KEY}").parse()?);
    // 10,000 of them are here as well as there.
    let config = WebSocketConfig::default().read_buffer_size(1024).write_buffer_size(0);
    let stream = TcpStream::connect(address.trim_start_matches("http://")).await?;
    stream.set_nodelay(true)?;
    Ok(tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?.0)
}

/// Reads, and so answers pings, until all is over.
async fn hold(
    socket: anyhow::Result<Socket>,
    mut ended: watch::Receiver<()>,
    lost: &AtomicUsize,
    pings: &AtomicUsize,
) {
    let Ok(mut socket) = socket else {
        lost.fetch_add(1, Ordering::Relaxed);
        return;
    };
    loop {
        tokio::select! {
            _ = ended.changed() => break,
            message = socket.next() => match message {
                Some(Ok(Message::Ping(_))) => {
                    pings.fetch_add(1, Ordering::Relaxed);
                    socket.flush().await.ok();
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => {
                    lost.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            },
        }
    }
    socket.close(None).await.ok();
}

/// Until buffers of handshakes are freed.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

fn each(before: u64, after: u64, count: usize) -> f64 {
    after.saturating_sub(before) as f64 / 1_024.0 / count.max(1) as f64
}

fn share(busy: Duration, seconds: f64) -> String {
    format!("{:.1} %", busy.as_secs_f64() / seconds * 100.0)
}
