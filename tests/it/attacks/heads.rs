//! Heads that are too much, too slow, or mean two things; and what is asked without the right to.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Operation;
use crate::support::server::{API_KEY, OTHER_KEY, Server};
use crate::support::{SOON, TestDatabase, TestStorage, eventually};

async fn server() -> (TestDatabase, TestStorage, Server) {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).set("REQUEST_HEAD_TIMEOUT", "2s").start().await;
    (database, storage, server)
}

/// What came back until the connection ended, which it must.
async fn answered(server: &Server, request: &[u8]) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.expect("a connection");
        // It may be answered and closed before all of it was sent.
        stream.write_all(request).await.ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::time::timeout(SOON, exchange).await.expect("an end")
}

#[tokio::test]
async fn heads_that_are_too_much_or_mean_two_things_are_refused_and_the_connection_ends() {
    let (_database, _storage, server) = server().await;
    let post = |more: &str, body: &str| {
        format!(
            "POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {API_KEY}\r\n\
             content-type: application/json\r\n{more}\r\n{body}"
        )
    };
    let long = "a".repeat(1024 * 1024);
    let many: String = (0..500).map(|n| format!("x-{n}: 1\r\n")).collect();
    let body = r#"{"model":"demo","input":"hi"}"#;
    for (what, request) in [
        ("a long header", post(&format!("x-long: {long}\r\n"), "")),
        ("a long path", format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n")),
        ("many headers", post(&many, "")),
        ("a header of two lines", post("x-a: 1\r\n folded\r\ncontent-length: 0\r\n", "")),
        ("a space before the colon", post("content-length : 0\r\n", "")),
        ("two lengths", post("content-length: 5\r\ncontent-length: 6\r\n", "hello!")),
        ("a length below zero", post("content-length: -1\r\n", "")),
        ("a length beyond numbers", post("content-length: 99999999999999999999999\r\n", "")),
        ("an encoding nobody knows", post("transfer-encoding: gzip\r\n", "x")),
        (
            "a chunk without a size",
            post("transfer-encoding: chunked\r\nconnection: close\r\n", "zz\r\nhello\r\n"),
        ),
        ("a NUL", post("x-a: a\0b\r\n", "")),
        ("another protocol", "\x16\x03\x01\x02\0\x01\0\x01\x0c\x03\x03".to_owned()),
    ] {
        let answer = answered(&server, request.as_bytes()).await;
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(refused && answer.matches("HTTP/1.1").count() <= 1, "{what}: {answer}");
    }
    // Of a length and chunks one must win, for everybody on the way alike: what follows is never a second request.
    let smuggled = "0\r\n\r\nGET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n";
    let both = format!("content-length: {}\r\ntransfer-encoding: chunked\r\n", smuggled.len());
    let answer = answered(&server, post(&both, smuggled).as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    let close = format!("content-length: {}\r\nconnection: close\r\n", body.len());
    assert!(answered(&server, post(&close, body).as_bytes()).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_head_that_drips_is_cut_and_others_are_served_meanwhile() {
    let (_database, _storage, server) = server().await;
    let mut dripping = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.expect("a connection");
        stream.write_all(b"POST /v1/responses HTTP/1.1\r\nhost: x\r\nx-slow: ").await.expect("a beginning");
        dripping.push(stream);
    }
    let started = Instant::now();
    let cut = futures_util::future::join_all(dripping.into_iter().map(|mut stream| async move {
        // A byte at a time moves no limit.
        loop {
            let mut answer = [0; 256];
            let read = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut answer)).await;
            match read {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(_)) => {}
                Err(_) if stream.write_all(b"a").await.is_err() => return,
                Err(_) => {}
            }
        }
    }));
    let served = async {
        let (status, answer) = server.post("/v1/responses", json!({ "model": "demo", "input": "hi" })).await;
        assert_eq!(status, 200, "{answer}");
    };
    let both = async { tokio::join!(cut, served) };
    tokio::time::timeout(SOON, both).await.expect("all of them to be cut");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    eventually("their connections to be given back", SOON, async || {
        let (_, status) = server.read("/health/status").await;
        status["connections"]["open"].as_u64().is_none_or(|open| open < 10)
    })
    .await;
}

#[tokio::test]
async fn no_route_answers_without_a_key_and_none_of_operators_without_theirs() {
    let (database, _storage, server) = server().await;
    let mut tried = 0;
    for operation in Operation::all().into_iter().filter(|of| !of.open && !of.path.starts_with("/health")) {
        let address = operation.address();
        let told = format!("{} {}", operation.method, operation.path);
        for (what, header, value) in [
            ("no key", "x-nothing", String::new()),
            ("an empty key", "authorization", "Bearer ".to_owned()),
            ("a key that never was", "authorization", format!("Bearer {API_KEY}x")),
            ("half a key", "authorization", format!("Bearer {}", &API_KEY[..API_KEY.len() - 1])),
            ("another scheme", "authorization", format!("Basic {API_KEY}")),
            (
                "a token of nobody",
                "authorization",
                "Bearer eyJhbGciOiJub25lIiwia2lkIjoiayJ9.eyJpc3MiOiJ4In0.".to_owned(),
            ),
        ] {
            let request = server.client().request(operation.method.clone(), server.url(&address));
            let answer = request.header(header, value).send().await.expect("an answer");
            // Of a GET that should have been a handshake nothing is asked.
            let expected = if told == "GET /v1/responses" { 426 } else { 401 };
            assert_eq!(answer.status(), expected, "{told} with {what}");
        }
        if operation.path.starts_with("/admin") {
            let (status, answer) = server.call(operation.method, &address, None, OTHER_KEY).await;
            assert_eq!(
                (status, &answer["error"]["type"]),
                (403, &json!("permission_error")),
                "{told}: {answer}"
            );
        }
        tried += 1;
    }
    assert!(tried > 50, "{tried}");
    assert_eq!(database.count("SELECT count(*) FROM api_audit").await, 0);
}
