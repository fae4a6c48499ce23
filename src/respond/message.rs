//! What a callback target is told: the answer to an event.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::answer::Answer;
use super::event::EventData;
use super::route::Route;
use crate::openresponses::Response;

/// An answer on its way to a target.
#[derive(Debug)]
pub struct Told<'a> {
    pub route: &'a Route,
    pub event: &'a EventData,
    pub response: &'a Response,
    pub answer: &'a Answer,
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: Timestamp,
    id: &'a str,
    source: &'a str,
    route: &'a str,
    event: Value,
    response: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    calls: Option<Value>,
}

/// The body of the callback, the same however often it is made.
pub fn render(told: &Told<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let Told { route, event, response, answer } = told;
    let answered_at = response.completed_at.unwrap_or(response.created_at);
    let (data, text, calls) = match answer {
        Answer::Json(value) => (Some(value), None, None),
        Answer::Text(text) => (None, Some(text.as_str()), None),
        Answer::Calls(calls) => {
            let calls = calls.iter().map(
                |call| json!({ "call_id": call.call_id, "name": call.name, "arguments": call.arguments }),
            );
            (None, None, Some(calls.collect()))
        }
    };
    serde_json::to_vec(&Message {
        kind: "event.responded",
        timestamp: Timestamp::from_second(answered_at).unwrap_or_default(),
        id: &response.id,
        source: &event.source,
        route: &route.name,
        event: json!({
            "id": event.id, "type": event.event_type, "key": event.key, "subject": event.subject,
            "received_at": event.received_at, "run": event.run,
        }),
        response: json!({
            "id": response.id, "conversation": response.conversation, "model": response.model,
            "usage": response.usage, "metadata": response.metadata,
        }),
        data,
        text,
        calls,
    })
}
