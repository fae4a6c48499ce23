//! A stream of server-sent events, read as it comes.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde_json::Value;

use crate::support::server::{API_KEY, Server};

type Pieces = Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>;

/// What was read and not yet given, and everything that is still to come.
pub struct Sse {
    pieces: Pieces,
    buffer: Vec<u8>,
    /// Comments so far.
    pub comments: Vec<String>,
}

/// How a stream went on.
#[derive(Clone, Debug, PartialEq)]
pub enum Came {
    Event(Value),
    /// `[DONE]`.
    Done,
    /// It ended without that.
    Broken,
}

impl Sse {
    /// Sends the request, with the harness's key.
    pub async fn open(request: reqwest::RequestBuilder) -> Self {
        let answer = request.bearer_auth(API_KEY).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let kind = answer.headers()["content-type"].to_str().expect("text");
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        Self { pieces: Box::pin(answer.bytes_stream()), buffer: Vec::new(), comments: Vec::new() }
    }

    /// A turn, streamed.
    pub async fn post(server: &Server, mut body: Value) -> Self {
        body["stream"] = true.into();
        Self::open(server.client().post(server.url("/v1/responses")).json(&body)).await
    }

    /// A response's events behind number `after`, or from the first.
    pub async fn follow(server: &Server, id: &str, after: Option<u64>) -> Self {
        let after = after.map(|after| format!("&starting_after={after}")).unwrap_or_default();
        Self::open(server.client().get(server.url(&format!("/v1/responses/{id}?stream=true{after}")))).await
    }

    pub async fn next(&mut self) -> Came {
        const PATIENCE: Duration = Duration::from_secs(20);
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let frame: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let text = String::from_utf8(frame).expect("UTF-8");
                if let Some(comment) = text.strip_prefix(':') {
                    self.comments.push(comment.trim().to_owned());
                    continue;
                }
                let data = text.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
                if data == "[DONE]" {
                    return Came::Done;
                }
                return Came::Event(serde_json::from_str(data).expect("JSON"));
            }
            match tokio::time::timeout(PATIENCE, self.pieces.next()).await.expect("more of the stream") {
                Some(Ok(piece)) => self.buffer.extend_from_slice(&piece),
                Some(Err(_)) | None => return Came::Broken,
            }
        }
    }

    /// The next event.
    pub async fn event(&mut self) -> Value {
        match self.next().await {
            Came::Event(event) => event,
            other => panic!("an event, not {other:?}"),
        }
    }

    /// The next event of this type; those before it are passed over.
    pub async fn until(&mut self, kind: &str) -> Value {
        loop {
            let event = self.event().await;
            if event["type"] == kind {
                return event;
            }
        }
    }

    /// Everything up to the end, and how it ended.
    pub async fn rest(&mut self) -> (Vec<Value>, Came) {
        let mut events = Vec::new();
        loop {
            match self.next().await {
                Came::Event(event) => events.push(event),
                end => return (events, end),
            }
        }
    }

    /// All events of a stream that comes to its end.
    pub async fn all(mut self) -> Vec<Value> {
        let (events, end) = self.rest().await;
        assert_eq!(end, Came::Done, "{events:?}");
        events
    }
}

/// The text that deltas make up.
pub fn said(events: &[Value]) -> String {
    let deltas = events.iter().filter(|event| event["type"] == "response.output_text.delta");
    deltas.filter_map(|event| event["delta"].as_str()).collect()
}

pub fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().expect("a type")).collect()
}
