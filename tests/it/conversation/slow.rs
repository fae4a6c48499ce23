//! Viewers that read slowly, or not at all.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::sse::Sse;
use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::{API_KEY, Server};
use crate::support::{SOON, TestDatabase, TestStorage, eventually, report, resident_kib};

/// A server that is out of patience after so many seconds, and a long turn that is over.
async fn scene(patience: &str, script: Script) -> (TestDatabase, FakeProvider, Server, Vec<Value>) {
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(script);
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let config = format!("{}[models.it]\ndeployments = [\"d\"]\n", provider.deployment("d", ""));
    let server = Server::of(&database, &storage)
        .set("WRITE_PATIENCE", patience)
        .set("SEND_BUFFER", "16384")
        .set("TURN_KEPT", "5m")
        .config(config)
        .start()
        .await;
    let events = Sse::post(&server, json!({ "model": "it", "input": "hi" })).await.all().await;
    (database, provider, server, events)
}

/// Asks for a response's events, with so much room for them on the way.
async fn ask(server: &Server, id: &str, room: u32) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(room).unwrap();
    let mut stream = socket.connect(([127, 0, 0, 1], server.port()).into()).await.unwrap();
    let request = format!(
        "GET /v1/responses/{id}?stream=true HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {API_KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// The number of the last whole event in what came over the wire.
fn last_number(text: &str) -> u64 {
    let whole = &text[..text.rfind("\n\n").expect("a whole event")];
    let at = whole.rfind("\"sequence_number\":").expect("an event") + "\"sequence_number\":".len();
    whole[at..].split(',').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn who_reads_nothing_is_cut_and_costs_next_to_nothing() {
    const VIEWERS: usize = 40;
    let (_database, _provider, mut server, events) = scene("1s", Script::words(20_000)).await;
    let id = events[0]["response"]["id"].as_str().unwrap();
    let pid = server.process().pid();
    let before = resident_kib(pid);
    let mut deaf = Vec::new();
    for _ in 0..VIEWERS {
        deaf.push(ask(&server, id, 4 * 1024).await);
    }
    let mut most = before;
    eventually("all to be cut", SOON, async || {
        most = most.max(resident_kib(pid));
        let cut = server.process().log().iter().filter(|line| line.contains("connection.stalled")).count();
        cut == VIEWERS
    })
    .await;
    // Each of them was offered four megabytes.
    let each = (most - before) / VIEWERS as i64;
    report("slow viewers", &format!("{each} KiB for each viewer that reads nothing"));
    assert!(each < 512, "{each} KiB for each");
    // What was on its way arrives, without an end; from there it goes on elsewhere, and nothing is missing.
    let mut text = Vec::new();
    let read = tokio::time::timeout(SOON, deaf.pop().unwrap().read_to_end(&mut text)).await.expect("an end");
    drop(read);
    let text = String::from_utf8_lossy(&text);
    assert!(!text.contains("[DONE]"));
    let last = last_number(&text);
    let rest = Sse::follow(&server, id, Some(last)).await.all().await;
    assert_eq!(rest, events[usize::try_from(last).unwrap() + 1..]);
}

#[tokio::test]
async fn who_reads_too_slowly_is_told_to_resume() {
    // So long that 256 of them, which is a piece, are far more than what is on its way.
    let words = format!("{} ", "w".repeat(1_000)).repeat(2_000);
    let (_database, _provider, server, events) = scene("2s", Script::says(&words)).await;
    let id = events[0]["response"]["id"].as_str().unwrap();
    let mut stream = ask(&server, id, 64 * 1024).await;
    let (mut text, mut piece) = (Vec::new(), [0; 8 * 1024]);
    // Always something, never enough.
    while !text.ends_with(b"\r\n0\r\n\r\n") {
        let read = tokio::time::timeout(SOON, stream.read(&mut piece)).await;
        let length = read.expect("more").expect("a connection");
        assert!(length > 0, "it was cut although it reads");
        text.extend_from_slice(&piece[..length]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let text = String::from_utf8_lossy(&text);
    let comment = text.find(": read too slowly").expect("told to resume");
    assert!(text[comment..].contains("starting_after=N") && !text.contains("[DONE]"));
    let last = last_number(&text[..comment]);
    let rest = Sse::follow(&server, id, Some(last)).await.all().await;
    assert!(!rest.is_empty());
    assert_eq!(rest, events[usize::try_from(last).unwrap() + 1..]);
}
