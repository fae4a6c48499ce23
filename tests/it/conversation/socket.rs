//! Turns over a WebSocket.

mod opening;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::sse::Sse;
use crate::support::server::{API_KEY, Server, Servers};
use crate::support::{SOON, TestDatabase, TestStorage, eventually};

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(server: &Server, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
    let mut request = server.url("/v1/responses").replacen("http", "ws", 1).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

pub async fn open(server: &Server) -> Socket {
    connect(server, &[("authorization", &format!("Bearer {API_KEY}"))]).await.unwrap()
}

pub async fn send(socket: &mut Socket, message: Value) {
    socket.send(Message::text(message.to_string())).await.unwrap();
}

pub async fn receive(socket: &mut Socket) -> Value {
    loop {
        let message =
            tokio::time::timeout(SOON, socket.next()).await.expect("a message").expect("open").unwrap();
        if let Message::Text(text) = message {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

/// Sends a request and gives every event up to the last.
async fn turn(socket: &mut Socket, mut request: Value) -> Vec<Value> {
    request["type"] = "response.create".into();
    request["model"] = "demo".into();
    send(socket, request).await;
    let mut events = Vec::new();
    loop {
        let event = receive(socket).await;
        let kind = event["type"].as_str().unwrap().to_owned();
        events.push(event);
        if ["response.completed", "response.failed", "response.incomplete", "error"].contains(&kind.as_str())
        {
            return events;
        }
    }
}

fn text(events: &[Value]) -> String {
    let deltas = events.iter().filter(|event| event["type"] == "response.output_text.delta");
    deltas.filter_map(|event| event["delta"].as_str()).collect()
}

async fn server() -> (TestDatabase, Servers) {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server =
        Server::of(&database, &storage).set("CORS_ORIGINS", "https://chat.example.com").start_two().await;
    (database, server)
}

#[tokio::test]
async fn turns_follow_one_another_and_need_not_be_stored() {
    let (database, server) = server().await;
    let mut socket = open(&server).await;
    let first = turn(&mut socket, json!({ "input": "My name is Ada.", "store": false })).await;
    assert_eq!(first[0]["type"], "response.created");
    let numbers: Vec<_> = first.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..first.len() as u64).collect::<Vec<_>>());
    let id = first.last().unwrap()["response"]["id"].clone();
    let second =
        turn(&mut socket, json!({ "input": "What is my name?", "store": false, "previous_response_id": id }))
            .await;
    assert!(text(&second).contains("Ada"), "{second:?}");
    assert_eq!(database.count("SELECT count(*) FROM responses").await, 0, "nothing is stored");

    // What one connection remembers, no other does.
    let mut other = open(&server).await;
    let lost = turn(&mut other, json!({ "input": "And?", "store": false, "previous_response_id": id })).await;
    assert_eq!(
        (&lost[0]["status"], &lost[0]["error"]["code"]),
        (&json!(400), &json!("previous_response_not_found"))
    );

    // Stored turns are everybody's.
    let stored = turn(&mut socket, json!({ "input": "My name is Bob." })).await;
    let id = stored.last().unwrap()["response"]["id"].clone();
    let next = turn(&mut other, json!({ "input": "What is my name?", "previous_response_id": id })).await;
    assert!(text(&next).contains("Bob"), "{next:?}");
}

#[tokio::test]
async fn a_failed_continuation_forgets_what_it_continued_and_other_mistakes_do_not() {
    let (_database, server) = server().await;
    let mut socket = open(&server).await;
    let begun = async |socket: &mut Socket| {
        let first = turn(socket, json!({ "input": "My name is Ada.", "store": false })).await;
        first.last().unwrap()["response"]["id"].clone()
    };
    let follow =
        |id: &Value, input: Value| json!({ "input": input, "store": false, "previous_response_id": id });

    // These continue nothing.
    let id = begun(&mut socket).await;
    let refused = turn(&mut socket, json!({ "input": "hi", "temperature": 9 })).await;
    assert_eq!(refused[0]["error"]["param"], "temperature", "{refused:?}");
    let refused = turn(&mut socket, follow(&json!("resp_none"), json!("hi"))).await;
    assert_eq!(refused[0]["error"]["code"], "previous_response_not_found", "{refused:?}");
    send(&mut socket, json!({ "type": "response.creat" })).await;
    assert_eq!(receive(&mut socket).await["error"]["param"], "type");
    let second = turn(&mut socket, follow(&id, json!("What is my name?"))).await;
    assert!(text(&second).contains("Ada"), "{second:?}");

    // Refused in whole or in a part, before the first word, in the middle.
    let orphan = json!([{ "type": "function_call_output", "call_id": "call_none", "output": "x" }]);
    let story = json!("/fast /error Tell a story in 20 words.");
    for input in [json!(7), orphan, json!("/fail 500"), story] {
        let id = begun(&mut socket).await;
        let failed = turn(&mut socket, follow(&id, input)).await;
        let last = &failed.last().unwrap()["type"];
        assert!(["error", "response.failed"].contains(&last.as_str().unwrap()), "{failed:?}");
        let gone = turn(&mut socket, follow(&id, json!("hi"))).await;
        assert_eq!(gone[0]["error"]["code"], "previous_response_not_found", "{gone:?}");
    }
}

#[tokio::test]
async fn mistakes_are_told_and_the_connection_lives_on() {
    let (_database, server) = server().await;
    let mut socket = open(&server).await;
    for (message, param) in [
        (json!({ "model": "demo", "input": "x" }), "type"),
        (json!({ "type": "response.cancel" }), "type"),
        (json!({ "type": "response.create", "model": "demo", "input": "x", "stream": true }), "stream"),
        (
            json!({ "type": "response.create", "model": "demo", "input": "x", "background": true }),
            "background",
        ),
        (json!({ "type": "response.create", "model": "none", "input": "x" }), "model"),
    ] {
        send(&mut socket, message.clone()).await;
        let error = receive(&mut socket).await;
        assert_eq!(
            (&error["type"], &error["error"]["param"]),
            (&json!("error"), &json!(param)),
            "{message}: {error}"
        );
    }
    socket.send(Message::text("{")).await.unwrap();
    assert_eq!(receive(&mut socket).await["error"]["code"], "invalid_json");
    assert_eq!(
        turn(&mut socket, json!({ "input": "hello" })).await.last().unwrap()["type"],
        "response.completed"
    );
}

#[tokio::test]
async fn a_second_turn_beside_the_first_is_refused() {
    let (_database, server) = server().await;
    let mut socket = open(&server).await;
    let long =
        json!({ "type": "response.create", "model": "demo", "input": "Tell me a story in 100 words." });
    send(&mut socket, long.clone()).await;
    assert_eq!(receive(&mut socket).await["type"], "response.created");
    send(&mut socket, long).await;
    let mut refused = None;
    loop {
        let event = receive(&mut socket).await;
        match event["type"].as_str().unwrap() {
            "error" => refused = Some(event["error"]["code"].clone()),
            "response.completed" => break,
            _ => {}
        }
    }
    assert_eq!(refused, Some(json!("response_in_progress")));
}

#[tokio::test]
async fn only_those_with_a_key_and_a_known_origin_connect() {
    let (_database, server) = server().await;
    let bearer = format!("Bearer {API_KEY}");
    assert_eq!(connect(&server, &[]).await.err(), Some(401));
    assert_eq!(connect(&server, &[("authorization", "Bearer clq_wrong")]).await.err(), Some(401));
    let evil = [("authorization", bearer.as_str()), ("origin", "https://evil.example.com")];
    assert_eq!(connect(&server, &evil).await.err(), Some(403));
    let good = [("authorization", bearer.as_str()), ("origin", "https://chat.example.com")];
    assert!(connect(&server, &good).await.is_ok());
    // As a browser sends it.
    let protocols = format!("openresponses, openai-insecure-api-key.{API_KEY}");
    let browser = [("sec-websocket-protocol", protocols.as_str()), ("origin", "https://chat.example.com")];
    let mut socket = connect(&server, &browser).await.expect("the key as a subprotocol");
    assert_eq!(
        turn(&mut socket, json!({ "input": "hello" })).await.last().unwrap()["type"],
        "response.completed"
    );
}

#[tokio::test]
async fn a_connection_has_a_lifetime() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).set("WEBSOCKET_LIFETIME", "1s").start().await;
    let mut socket = open(&server).await;
    let error = receive(&mut socket).await;
    assert_eq!(error["error"]["code"], "websocket_connection_limit_reached");
    let end = tokio::time::timeout(SOON, socket.next()).await.unwrap();
    assert!(matches!(end, Some(Ok(Message::Close(_))) | None), "{end:?}");
}

/// In the middle of a turn too: the connection ends with the error, the turn goes on and is resumed elsewhere.
#[tokio::test]
async fn a_lifetime_ends_in_mid_turn_and_the_turn_goes_on() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let servers = Server::of(&database, &storage)
        .set("WEBSOCKET_LIFETIME", "3s")
        .set("LLM_DEMO_TOKENS_PER_SECOND", "20")
        .start_two()
        .await;
    let [first, second] = servers.both();
    let mut socket = open(first).await;
    let ask = json!({ "type": "response.create", "model": "demo", "input": "Tell me a story in 120 words." });
    send(&mut socket, ask).await;
    let mut events = vec![receive(&mut socket).await];
    let id = events[0]["response"]["id"].as_str().expect("an id").to_owned();
    let error = loop {
        let event = receive(&mut socket).await;
        if event["type"] == "error" {
            break event;
        }
        events.push(event);
    };
    assert_eq!(
        (&error["status"], &error["error"]["code"]),
        (&json!(400), &json!("websocket_connection_limit_reached"))
    );
    let end = tokio::time::timeout(SOON, socket.next()).await.unwrap();
    assert!(matches!(end, Some(Ok(Message::Close(Some(_))))), "{end:?}");
    let last = events.last().expect("an event")["sequence_number"].as_u64().expect("a number");
    assert!(last > 3 && !text(&events).is_empty(), "in the middle of the turn: {events:?}");
    events.extend(Sse::follow(second, &id, Some(last)).await.all().await);
    let response = &events.last().unwrap()["response"];
    assert_eq!(response["status"], "completed", "{response}");
    assert_eq!(response["output"][0]["content"][0]["text"], text(&events));
}

#[tokio::test]
async fn idle_connections_are_pinged() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).set("HEARTBEAT", "200ms").start().await;
    let mut socket = open(&server).await;
    let message = tokio::time::timeout(SOON, socket.next()).await.unwrap();
    assert!(matches!(message, Some(Ok(Message::Ping(_)))), "{message:?}");
}

/// Upgraded connections are the server's own from the handshake on; they must not be free of its limit.
#[tokio::test]
async fn a_socket_counts_as_a_connection_until_it_is_closed() {
    let (_database, servers) = server().await;
    let [server, _] = servers.both();
    let open_now = async || {
        let (status, told) = server.read("/health/status").await;
        assert_eq!(status, 200, "{told}");
        told["connections"]["open"].as_u64().expect("a number")
    };
    let before = open_now().await;
    let mut sockets = Vec::new();
    for _ in 0..10 {
        sockets.push(open(server).await);
    }
    let with_sockets = open_now().await;
    assert!(with_sockets >= before + 9, "{before}, then {with_sockets}");
    drop(sockets);
    eventually("the sockets to be gone", SOON, async || open_now().await <= before + 1).await;
}

#[tokio::test]
async fn what_a_connection_remembers_is_fitted_under_auto_and_bounded() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let config = "[deployments.demo]\nprovider = \"demo\"\ncontext_window = 2000\nmax_output_tokens = 200\n\
                  [models.demo]\ndeployments = [\"demo\"]\n";
    let server = Server::of(&database, &storage).config(config).set("WEBSOCKET_CONTEXT_MAX", "20000");
    let server = server.start().await;
    let mut socket = open(&server).await;
    let mut before = Value::Null;
    let asked = |input: String, truncation: &str, before: &Value| {
        let mut request = json!({ "input": input, "store": false, "truncation": truncation });
        if !before.is_null() {
            request["previous_response_id"] = before.clone();
        }
        request
    };
    // Each is 1,000 tokens by the estimate.
    for _ in 0..10 {
        let request = asked(format!("Say hello in 3 words. {}", "abc".repeat(1_000)), "auto", &before);
        let events = turn(&mut socket, request).await;
        let last = events.last().expect("an end");
        assert_eq!(last["type"], "response.completed", "{last}");
        let shown = last["response"]["usage"]["input_tokens"].as_u64().expect("a count");
        assert!(shown < 2_000, "{shown}");
        before = last["response"]["id"].clone();
    }
    let mut refused = None;
    for _ in 0..10 {
        let request = asked(format!("Say hello in 3 words. {}", "abc".repeat(1_000)), "disabled", &before);
        let events = turn(&mut socket, request).await;
        let last = events.last().expect("an end");
        if last["type"] == "error" {
            refused = Some(last.clone());
            break;
        }
        before = last["response"]["id"].clone();
    }
    let refused = refused.expect("it grows no further");
    let code = refused["error"]["code"].as_str().expect("a code");
    assert!(["context_length_exceeded", "connection_context_exceeded"].contains(&code), "{refused}");
    // What is refused begins anew.
    let events = turn(&mut socket, asked("Hello.".into(), "disabled", &Value::Null)).await;
    let mut before = events.last().expect("an end")["response"]["id"].clone();
    let picture = format!("data:image/png;base64,{}", "A".repeat(15_000));
    let image = json!([{ "role": "user", "content": [{ "type": "input_image", "image_url": picture }] }]);
    for (at, wanted) in ["response.completed", "error"].into_iter().enumerate() {
        let request = json!({ "input": image, "store": false, "previous_response_id": before });
        let events = turn(&mut socket, request).await;
        let last = events.last().expect("an end");
        assert_eq!(last["type"], wanted, "{at}: {last}");
        if wanted == "error" {
            assert_eq!(last["error"]["code"], "connection_context_exceeded", "{last}");
            assert_eq!(last["error"]["param"], "previous_response_id");
        }
        before = last["response"]["id"].clone();
    }
}
