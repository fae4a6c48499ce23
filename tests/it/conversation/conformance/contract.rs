//! The published schema, and the rules of a stream that a schema cannot say.

use std::collections::BTreeMap;
use std::sync::Arc;

use colloquy::schema::Schema;
use serde_json::{Value, json};

const SCHEMA: &str = include_str!("../../../fixtures/openresponses/openapi.json");

/// The published schemas.
pub struct Contract {
    /// The name of the schema by the event's `type`.
    events: BTreeMap<String, String>,
    document: Arc<Value>,
}

impl Contract {
    pub fn read() -> Self {
        let mut document: Value = serde_json::from_str(SCHEMA).expect("the published schema");
        // It allows nothing but null where every server, OpenAI's first, gives back the schema it was sent.
        let format =
            &mut document["components"]["schemas"]["JsonSchemaResponseFormat"]["properties"]["schema"];
        assert_eq!(*format, json!({ "anyOf": [{ "type": "null" }] }), "still so");
        *format = json!({ "type": "object" });
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        let events = schemas
            .iter()
            .filter(|(name, _)| name.ends_with("StreamingEvent"))
            .map(|(name, schema)| {
                let kind = schema["properties"]["type"]["enum"][0].as_str().expect("a type");
                (kind.to_owned(), name.clone())
            })
            .collect();
        Self { events, document: Arc::new(document) }
    }

    fn fits(&self, name: &str, value: &Value) {
        let schema = Schema::within(&self.document, &format!("/components/schemas/{name}"));
        let errors = schema.unwrap_or_else(|error| panic!("{name}: {error}")).misfits(value, 20);
        assert!(errors.is_empty(), "{name}: {errors:#?}\n{value:#}");
    }

    pub fn resource(&self, response: &Value) {
        self.fits("ResponseResource", response);
        assert_eq!(response["object"], "response");
    }

    pub fn compacted(&self, response: &Value) {
        self.fits("CompactResource", response);
    }

    pub fn socket_error(&self, message: &Value) {
        self.fits("WebSocketErrorEvent", message);
    }

    /// A whole stream: every event, their numbers, their order, and that the pieces make up the whole. Gives the
    /// response of the last event.
    pub fn stream(&self, events: &[Value]) -> Value {
        for (number, event) in (0_u64..).zip(events) {
            let kind = event["type"].as_str().expect("a type");
            assert_eq!(event["sequence_number"], number, "{event}");
            // Extensions begin with their implementor's name; the protocol asks nothing more of them.
            if !kind.starts_with("colloquy:") {
                let schema = self.events.get(kind).unwrap_or_else(|| panic!("'{kind}' is no event: {event}"));
                self.fits(schema, event);
            }
        }
        let last = events.last().expect("an event");
        assert_eq!(events[0]["type"], "response.created");
        assert!(events[0]["response"]["output"].as_array().expect("output").is_empty());
        let terminal = ["response.completed", "response.incomplete", "response.failed"];
        let ends: Vec<_> = events.iter().filter(|event| terminal.contains(&kind(event))).collect();
        assert_eq!(ends, [last], "one end, and it is the last");
        let status = last["response"]["status"].as_str().expect("a status");
        assert!(kind(last).ends_with(if status == "cancelled" { "incomplete" } else { status }), "{last}");
        for event in events.iter().filter(|event| event.get("response").is_some()) {
            self.resource(&event["response"]);
            assert_eq!(event["response"]["id"], last["response"]["id"]);
        }
        let output = last["response"]["output"].as_array().expect("output");
        for (index, item) in output.iter().enumerate() {
            let own: Vec<&Value> = events.iter().filter(|event| event["output_index"] == index).collect();
            item_events(&own, item);
        }
        let beyond = events.iter().filter_map(|event| event["output_index"].as_u64());
        assert!(beyond.max().is_none_or(|most| most < output.len() as u64), "events of no item");
        last["response"].clone()
    }
}

fn kind(event: &Value) -> &str {
    event["type"].as_str().unwrap_or_default()
}

/// Of one item: added, its parts, done; the pieces of each part make up what its end says.
fn item_events(events: &[&Value], item: &Value) {
    let (first, last) = (events[0], events[events.len() - 1]);
    assert_eq!(kind(first), "response.output_item.added", "{item}");
    assert_eq!(kind(last), "response.output_item.done", "{item}");
    assert_eq!(last["item"], *item, "the item as it was done is the item of the response");
    assert_eq!((&first["item"]["id"], &first["item"]["type"]), (&item["id"], &item["type"]));
    assert!(first["item"].get("status").is_none_or(|status| status == "in_progress"), "{first}");
    let inner = &events[1..events.len() - 1];
    assert!(inner.iter().all(|event| event["item_id"] == item["id"]), "{inner:?}");
    match item["type"].as_str().unwrap_or_default() {
        "message" => {
            for (at, part) in item["content"].as_array().expect("content").iter().enumerate() {
                let own: Vec<&Value> =
                    inner.iter().copied().filter(|event| event["content_index"] == at).collect();
                let (name, text) = match part["type"].as_str().unwrap_or_default() {
                    "output_text" => ("output_text", "text"),
                    "refusal" => ("refusal", "refusal"),
                    other => panic!("a part '{other}'"),
                };
                part_events(&own, "response.content_part", name, text, part);
            }
        }
        "function_call" => {
            let (done, deltas) = inner.split_last().expect("arguments");
            assert_eq!(kind(done), "response.function_call_arguments.done");
            assert_eq!(done["arguments"], item["arguments"]);
            assert_eq!(
                pieces(deltas, "response.function_call_arguments.delta"),
                item["arguments"].as_str().unwrap()
            );
        }
        "reasoning" => {
            for (at, part) in item["summary"].as_array().expect("a summary").iter().enumerate() {
                let own: Vec<&Value> =
                    inner.iter().copied().filter(|event| event["summary_index"] == at).collect();
                part_events(&own, "response.reasoning_summary_part", "reasoning_summary_text", "text", part);
            }
        }
        // Whole from the start.
        "compaction" => assert!(inner.is_empty(), "{inner:?}"),
        other => panic!("an item '{other}'"),
    }
}

fn part_events(events: &[&Value], frame: &str, name: &str, text: &str, part: &Value) {
    let [added, deltas @ .., done, closed] = events else { panic!("too few events: {events:?}") };
    assert_eq!(kind(added), format!("{frame}.added"));
    assert_eq!(kind(closed), format!("{frame}.done"));
    assert_eq!(closed["part"], *part);
    assert_eq!(kind(done), format!("response.{name}.done"));
    assert_eq!(done[text], part[text]);
    let (taken_back, deltas): (Vec<&Value>, Vec<&Value>) =
        deltas.iter().partition(|event| kind(event) == "colloquy:output_text_retracted");
    let (annotated, deltas): (Vec<&Value>, Vec<&Value>) =
        deltas.into_iter().partition(|event| kind(event) == "response.output_text.annotation.added");
    if taken_back.is_empty() && name == "output_text" {
        let told: Vec<&Value> = annotated.iter().map(|event| &event["annotation"]).collect();
        let kept: Vec<&Value> = part["annotations"].as_array().expect("annotations").iter().collect();
        assert_eq!(told, kept);
    }
    assert!((0_u64..).zip(&annotated).all(|(at, event)| event["annotation_index"] == at), "{annotated:?}");
    let (said, whole) =
        (pieces(&deltas, &format!("response.{name}.delta")), part[text].as_str().expect("text"));
    match taken_back.last() {
        Some(last) => assert!(last["text"] == whole && said.starts_with(whole), "{said}: {last}"),
        None => assert_eq!(said, whole),
    }
}

fn pieces(events: &[&Value], name: &str) -> String {
    assert!(events.iter().all(|event| kind(event) == name), "only {name}: {events:?}");
    events.iter().filter_map(|event| event["delta"].as_str()).collect()
}
