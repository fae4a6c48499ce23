//! Requests that are answered before their body was read.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::server::{API_KEY, Server};
use crate::support::{SOON, TestDatabase, TestStorage};

/// Sends a head and, apart from it, a body; gives the head and the body of the answer.
async fn post(stream: &mut TcpStream, path: &str, more: &str, body: &[u8]) -> (String, String) {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{more}content-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    post_rest(stream, body).await
}

/// The body, and what is answered.
async fn post_rest(stream: &mut TcpStream, body: &[u8]) -> (String, String) {
    // It may be refused on the way: what was answered counts.
    stream.write_all(body).await.ok();
    let answer = async {
        let mut text = String::new();
        loop {
            let mut piece = [0; 4_096];
            let read = stream.read(&mut piece).await.unwrap_or(0);
            text.push_str(&String::from_utf8_lossy(&piece[..read]));
            let parts = text.split_once("\r\n\r\n");
            let whole = parts.is_some_and(|(head, body)| {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                length
                    .and_then(|length| length.parse().ok())
                    .is_some_and(|length: usize| body.len() >= length)
            });
            if whole || read == 0 {
                let (head, body) = parts.unwrap_or_else(|| panic!("no answer: {text:?}"));
                return (head.to_lowercase(), body.to_owned());
            }
        }
    };
    tokio::time::timeout(SOON, answer).await.expect("an answer")
}

#[tokio::test]
async fn an_answer_before_a_long_body_says_that_the_connection_ends_and_after_a_short_one_it_goes_on() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).start().await;
    let connect = || TcpStream::connect(("127.0.0.1", server.port()));
    let refused =
        [("/v1/responses", "authorization: Bearer wrong\r\n", " 401 "), ("/v1/nothing", "", " 404 ")];

    let long = vec![b' '; 300_000];
    for (path, more, status) in refused {
        let (head, body) = post(&mut connect().await.unwrap(), path, more, &long).await;
        assert!(head.lines().next().unwrap().contains(status), "{head}");
        assert!(head.contains("\r\nconnection: close"), "{head}");
        assert!(body.contains("\"error\""), "{body}");
    }

    let mut stream = connect().await.unwrap();
    for (path, more, status) in refused {
        let (head, _) = post(&mut stream, path, more, &vec![b' '; 20_000]).await;
        assert!(head.lines().next().unwrap().contains(status), "{head}");
        assert!(!head.contains("connection: close"), "{head}");
    }
    // What is read to its end never ends a connection, and the same one still serves.
    let body = json!({ "model": "nobody", "input": "x".repeat(200_000) }).to_string();
    let key = format!("authorization: Bearer {API_KEY}\r\n");
    for _ in 0..2 {
        let (head, body) = post(&mut stream, "/v1/responses", &key, body.as_bytes()).await;
        assert!(!head.contains("connection: close") && body.contains("\"error\""), "{head}\n{body}");
    }
}

#[tokio::test]
async fn how_much_is_read_and_how_long_is_waited_is_a_setting() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server =
        Server::of(&database, &storage).set("UNREAD_BODY_MAX", "1000").set("UNREAD_BODY_TIMEOUT", "10s");
    let server = server.start().await;
    let connect = || TcpStream::connect(("127.0.0.1", server.port()));
    for (length, ends) in [(1_001, true), (1_000, false)] {
        let mut stream = connect().await.unwrap();
        let (head, _) = post(&mut stream, "/v1/nothing", "", &vec![b' '; length]).await;
        assert_eq!(head.contains("\r\nconnection: close"), ends, "{length}: {head}");
    }
    // Its second half comes late, but comes.
    let mut stream = connect().await.unwrap();
    let head = "POST /v1/nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n0123456789";
    stream.write_all(head.as_bytes()).await.unwrap();
    let waits = tokio::time::timeout(std::time::Duration::from_millis(500), stream.readable()).await;
    assert!(waits.is_err(), "the answer waits for the rest");
    let (head, _) = post_rest(&mut stream, b"0123456789").await;
    assert!(!head.contains("\r\nconnection: close"), "{head}");
}
