//! The cases of the public compliance suite (openresponses.org/compliance), each streamed, in one piece and not stored.

use serde_json::{Value, json};

use super::{Fixture, weather};

/// One red pixel.
const PIXEL: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";

fn message(role: &str, content: Value) -> Value {
    json!({ "type": "message", "role": role, "content": content })
}

/// A completed response whose only item is an assistant's message. Gives its text.
fn answered(response: &Value) -> String {
    assert_eq!(response["status"], "completed", "{response}");
    let [item] = &response["output"].as_array().expect("output")[..] else { panic!("one item: {response}") };
    assert_eq!((&item["type"], &item["role"]), (&json!("message"), &json!("assistant")));
    let text = item["content"][0]["text"].as_str().expect("text").to_owned();
    assert!(!text.is_empty());
    text
}

#[tokio::test]
async fn basic_text() {
    let fixture = Fixture::start().await;
    let input = json!([message("user", json!("Say hello in exactly 3 words."))]);
    let response = fixture.everywhere(json!({ "input": input })).await;
    assert_eq!(answered(&response).split_whitespace().count(), 3);
}

#[tokio::test]
async fn streaming_order() {
    let fixture = Fixture::start().await;
    let input = json!([message("user", json!("Count from 1 to 5."))]);
    let events = fixture.streamed(json!({ "input": input })).await;
    answered(&fixture.contract.stream(&events));
    let mut kinds: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
}

#[tokio::test]
async fn system_prompt() {
    let fixture = Fixture::start().await;
    for role in ["system", "developer"] {
        let input = json!([
            message(role, json!("You are a pirate. Always respond in pirate speak.")),
            message("user", json!("Say hello.")),
        ]);
        answered(&fixture.everywhere(json!({ "input": input })).await);
    }
}

#[tokio::test]
async fn tool_calling() {
    let fixture = Fixture::start().await;
    let question = message("user", json!("What's the weather like in San Francisco?"));
    let response = fixture.everywhere(json!({ "input": [question], "tools": [weather()] })).await;
    let call = &response["output"][0];
    assert_eq!((&call["type"], &call["name"]), (&json!("function_call"), &json!("get_weather")));
    // And back, both ways: by what was stored, and with everything sent again.
    let output =
        json!({ "type": "function_call_output", "call_id": call["call_id"], "output": "18 °C and sunny" });
    let stored = json!({ "input": [output], "tools": [weather()], "previous_response_id": response["id"] });
    let again = json!({ "input": [question, call, output], "tools": [weather()] });
    for request in [stored, again] {
        assert!(answered(&fixture.everywhere(request).await).contains("18"));
    }
}

#[tokio::test]
async fn image_input() {
    let fixture = Fixture::start().await;
    let content = json!([
        { "type": "input_text", "text": "What do you see in this image? Answer in one sentence." },
        { "type": "input_image", "image_url": PIXEL },
    ]);
    answered(&fixture.everywhere(json!({ "input": [message("user", content)] })).await);
}

#[tokio::test]
async fn multi_turn() {
    let fixture = Fixture::start().await;
    let input = json!([
        message("user", json!("My name is Alice.")),
        message("assistant", json!("Hello Alice! Nice to meet you. How can I help you today?")),
        message("user", json!("What is my name?")),
    ]);
    assert!(answered(&fixture.everywhere(json!({ "input": input })).await).contains("Alice"));
}

#[tokio::test]
async fn errors_over_a_socket() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    let fixture = Fixture::start().await;
    let address = fixture.server.url("/v1/responses").replacen("http", "ws", 1);
    let mut request = address.into_client_request().expect("a request");
    let bearer = format!("Bearer {}", crate::support::server::API_KEY);
    request.headers_mut().insert("authorization", bearer.parse().expect("a header"));
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.expect("a connection");
    let mut receive = async |message: Value| {
        socket.send(Message::text(message.to_string())).await.expect("sent");
        let mut events: Vec<Value> = Vec::new();
        loop {
            let Message::Text(text) = socket.next().await.expect("open").expect("a message") else {
                continue;
            };
            let event: Value = serde_json::from_str(&text).expect("JSON");
            let last = event["type"] == "error" || event["response"]["status"] == "completed";
            events.push(event);
            if last {
                return events;
            }
        }
    };
    for wrong in [
        json!({ "type": "response.create", "model": "none", "input": "hi" }),
        json!({ "type": "response.create", "model": "demo" }),
        json!({ "type": "response.create", "model": "demo", "input": "hi", "previous_response_id": "resp_none" }),
    ] {
        let events = receive(wrong).await;
        assert_eq!(events.len(), 1);
        fixture.contract.socket_error(&events[0]);
    }
    let events = receive(json!({ "type": "response.create", "model": "demo", "input": "hi" })).await;
    answered(&fixture.contract.stream(&events));
}
