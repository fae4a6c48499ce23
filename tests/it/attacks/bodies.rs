//! Bodies made to hurt, on every route that reads one.

use std::time::{Duration, Instant};

use super::Operation;
use crate::conversation::socket::{open, receive};
use crate::support::server::{API_KEY, Server};
use crate::support::{TestDatabase, TestStorage, repository, resident_kib};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

/// `REQUEST_BODY_MAX` of these tests.
const LIMIT: usize = 512 * 1024;
/// What a server may grow by under all of it. One bomb alone holds more.
const GROWTH_KIB: i64 = 24 * 1024;

async fn server() -> (TestDatabase, TestStorage, Server) {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).set("REQUEST_BODY_MAX", LIMIT.to_string()).start().await;
    (database, storage, server)
}

/// What it is, and whether the head says that it is compressed.
fn bodies() -> Vec<(&'static str, bool, Vec<u8>)> {
    let deep = |open: &str, close: &str, depth: usize| open.repeat(depth) + &close.repeat(depth);
    let inside = |value: String| format!(r#"{{"model":"demo","input":{value}}}"#).into_bytes();
    let bomb = std::fs::read(repository().join("tests/fixtures/attacks/bomb.json.gz")).expect("a bomb");
    vec![
        ("arrays without end", false, b"[".repeat(100_000)),
        ("an array in an object's place", false, br#"[null,"demo","hi"]"#.to_vec()),
        ("arrays in arrays", false, deep("[", "]", 100_000).into_bytes()),
        ("objects in objects", false, deep("{\"a\":", "}", 60_000).replace(":}", ":1}").into_bytes()),
        ("a deep input", false, inside(deep("[", "]", 100_000))),
        ("a deep schema", false, {
            let schema = deep("{\"items\":", "}", 20_000).replace(":}", ":true}");
            format!(r#"{{"model":"demo","input":"x","tools":[{{"type":"function","name":"f","parameters":{schema},"x":1}}]}}"#)
                .into_bytes()
        }),
        ("half a surrogate", false, inside(r#""\ud800""#.to_owned())),
        ("no UTF-8", false, [&b"{\"model\":\""[..], &[0xff, 0xfe], b"\"}"].concat()),
        ("a number without end", false, inside("9".repeat(200_000))),
        ("a name that is long", false, format!("{{\"{}\":1}}", "n".repeat(200_000)).into_bytes()),
        ("many names", false, {
            let names: String = (0..20_000).map(|n| format!("\"n{n}\":0,")).collect();
            format!("{{{names}\"z\":0}}").into_bytes()
        }),
        ("a bomb", true, bomb.clone()),
        ("a bomb that says nothing", false, bomb),
        ("too much", false, vec![b' '; LIMIT + 1]),
        ("nothing", false, Vec::new()),
        ("a zero", false, vec![0]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_made_to_hurt_are_refused_on_every_route_and_cost_next_to_nothing() {
    let (database, _storage, mut server) = server().await;
    let pid = server.process().pid();
    let (before, started) = (resident_kib(pid), Instant::now());
    let mut tried = 0;
    for operation in Operation::all().into_iter().filter(|operation| operation.takes_body) {
        for (what, compressed, body) in bodies() {
            let told = format!("{what} to {} {}", operation.method, operation.path);
            let request = server.client().request(operation.method.clone(), server.url(&operation.address()));
            let mut request = request.bearer_auth(API_KEY).header("content-type", "application/json");
            if compressed {
                request = request.header("content-encoding", "gzip");
            }
            // What is too large may be refused while it is still sent.
            let Ok(answer) = request.body(body).send().await else {
                assert_eq!(what, "too much", "{told}: no answer");
                continue;
            };
            let status = answer.status();
            let text = answer.text().await.unwrap_or_else(|error| panic!("{told}: {error}"));
            // An empty body is no mistake where all of it is optional, nor a tool's schema where no tool is read.
            let harmless = what == "nothing" || what == "a deep schema" && operation.path == "/v1/embeddings";
            if harmless && status.is_success() {
                continue;
            }
            assert!(status.is_client_error(), "{told}: {status} {text}");
            assert!(text.len() < 2_000, "{told}: {} bytes of answer", text.len());
            tried += 1;
        }
    }
    assert!(tried > 300, "{tried}");
    let grown = resident_kib(pid) - before;
    assert!(grown < GROWTH_KIB, "{grown} KiB");
    assert_eq!(server.read("/v1/models").await.0, 200);
    assert_eq!(database.count("SELECT count(*) FROM responses").await, 0);
    crate::support::report(
        "attacks by body",
        &format!("{tried} bodies made to hurt in {:.1?}; the server grew by {grown} KiB", started.elapsed()),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_refuses_deep_messages_and_ends_at_one_that_is_too_large() {
    let (_database, _storage, mut server) = server().await;
    let pid = server.process().pid();
    let before = resident_kib(pid);
    let mut socket = open(&server).await;
    let deep = format!(r#"{{"type":"response.create","model":"demo","input":{}"#, "[".repeat(50_000));
    for (body, code) in [("[".repeat(100_000), "invalid_type"), (deep, "invalid_json")] {
        socket.send(Message::text(body)).await.unwrap();
        let event = receive(&mut socket).await;
        assert_eq!((&event["type"], &event["error"]["code"]), (&json!("error"), &json!(code)), "{event}");
    }
    // In pieces, each below the limit: what counts is the whole.
    socket.send(Message::text(" ".repeat(LIMIT + 1))).await.ok();
    let end = tokio::time::timeout(Duration::from_secs(10), async {
        while let Some(Ok(message)) = socket.next().await {
            assert!(!matches!(message, Message::Text(_)), "{message:?}");
        }
    });
    end.await.expect("the end of the connection");
    assert!(resident_kib(pid) - before < GROWTH_KIB);
    assert_eq!(server.read("/v1/models").await.0, 200, "others are served on");
}
