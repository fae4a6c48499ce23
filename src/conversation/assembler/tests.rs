use bytes::BytesMut;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::openresponses::{CreateResponse, Encoded};

fn begun() -> (Response, Uuid) {
    let id = Uuid::now_v7();
    (Response::begun(&CreateResponse::default(), format!("resp_{}", id.simple()), "demo".into(), 1), id)
}

fn completed() -> End {
    End {
        status: ResponseStatus::Completed,
        incomplete_reason: None,
        error: None,
        usage: None,
        completed_at: Some(2),
    }
}

fn text(text: &str) -> Chunk {
    Chunk::Text(text.into())
}

/// Every event as JSON, in order.
fn events(chunks: &[Chunk], end: &End) -> Vec<Value> {
    let (response, id) = begun();
    let mut assembler = Assembler::new(response, id, false);
    let mut seen = Vec::new();
    let mut sink = |number: u64, event: &Event<'_>| {
        let mut out = BytesMut::new();
        event.write(number, Encoded::Json, &mut out);
        seen.push(serde_json::from_slice::<Value>(&out).unwrap());
    };
    assembler.begin(&mut sink);
    for chunk in chunks {
        assembler.push(chunk, &mut sink);
    }
    assembler.finish(end, &mut sink);
    seen
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap().trim_start_matches("response.")).collect()
}

#[test]
fn a_text_answer_comes_in_the_protocols_order() {
    let events = events(&[text("Hel"), text("lo")], &completed());
    assert_eq!(
        kinds(&events),
        [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed"
        ]
    );
    for (number, event) in (0_u64..).zip(&events) {
        assert_eq!(event["sequence_number"], number);
    }
    assert_eq!(events[2]["item"]["content"], serde_json::json!([]));
    assert_eq!(events[6]["text"], "Hello");
    assert_eq!(events[9]["response"]["output"][0]["content"][0]["text"], "Hello");
    assert_eq!(events[9]["response"]["output"][0]["id"], events[2]["item"]["id"]);
}

#[test]
fn parallel_calls_may_interleave_and_keep_their_places() {
    let call = |index, id: &str| Chunk::ToolCall { index, call_id: id.into(), name: "f".into() };
    let arguments = |index, delta: &str| Chunk::ToolArguments { index, delta: delta.into() };
    let chunks = [
        text("I look."),
        call(0, "a"),
        call(1, "b"),
        arguments(1, "{\"x\":"),
        arguments(0, "{}"),
        arguments(1, "1}"),
    ];
    let events = events(&chunks, &completed());
    let output = &events.last().unwrap()["response"]["output"];
    assert_eq!(output[0]["type"], "message");
    assert_eq!((&output[1]["call_id"], &output[1]["arguments"]), (&"a".into(), &"{}".into()));
    assert_eq!((&output[2]["call_id"], &output[2]["arguments"]), (&"b".into(), &"{\"x\":1}".into()));
}

#[test]
fn reasoning_has_parts_and_keeps_its_secret() {
    let summary = |part, delta: &str| Chunk::ReasoningSummary { part, delta: delta.into() };
    let chunks =
        [summary(0, "one"), summary(1, "two"), Chunk::ReasoningEncrypted("sealed".into()), text("so")];
    let events = events(&chunks, &completed());
    let text = serde_json::to_string(&events).unwrap();
    assert!(!text.contains("sealed"), "encrypted reasoning is shown only on request");
    let output = &events.last().unwrap()["response"]["output"];
    assert_eq!(output[0]["summary"][1]["text"], "two");
    assert_eq!(output[1]["content"][0]["text"], "so");
    let parts = kinds(&events).iter().filter(|kind| **kind == "reasoning_summary_part.added").count();
    assert_eq!(parts, 2);
}

#[test]
fn what_is_cut_short_says_so() {
    let end = End {
        status: ResponseStatus::Incomplete,
        incomplete_reason: Some("max_output_tokens".into()),
        completed_at: None,
        ..completed()
    };
    let events = events(&[text("Hel")], &end);
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(last["response"]["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(last["response"]["output"][0]["status"], "incomplete");
}

fn any_chunk() -> impl Strategy<Value = Chunk> {
    prop_oneof![
        "[a-z]{0,3}".prop_map(|text| Chunk::Text(text.into())),
        "[a-z]{0,3}".prop_map(|text| Chunk::Refusal(text.into())),
        (0..3_u16, "[a-z]{0,3}")
            .prop_map(|(part, delta)| Chunk::ReasoningSummary { part, delta: delta.into() }),
        "[a-z]{0,3}".prop_map(|text| Chunk::ReasoningText(text.into())),
        Just(Chunk::ReasoningEncrypted("sealed".into())),
        (0..3_u16).prop_map(|index| Chunk::ToolCall { index, call_id: "c".into(), name: "f".into() }),
        (0..3_u16, "[a-z]{0,3}")
            .prop_map(|(index, delta)| Chunk::ToolArguments { index, delta: delta.into() }),
    ]
}

proptest! {
    /// Whatever a provider sends: numbers without gap, every item that opens closes under its own id and index, and
    /// the deltas of an item add up to its text.
    #[test]
    fn any_pieces_make_a_well_formed_stream(chunks in prop::collection::vec(any_chunk(), 0..40)) {
        let events = events(&chunks, &completed());
        let mut added = Vec::new();
        let mut done = Vec::new();
        let mut deltas = std::collections::HashMap::<(String, u64), String>::new();
        for (number, event) in (0_u64..).zip(&events) {
            prop_assert_eq!(&event["sequence_number"], &Value::from(number));
            let of = || (event["output_index"].as_u64().unwrap(), event["item"]["id"].as_str().unwrap().to_owned());
            match event["type"].as_str().unwrap() {
                "response.output_item.added" => added.push(of()),
                "response.output_item.done" => done.push(of()),
                "response.output_text.delta" => {
                    let key = (event["item_id"].as_str().unwrap().to_owned(), event["content_index"].as_u64().unwrap());
                    deltas.entry(key).or_default().push_str(event["delta"].as_str().unwrap());
                }
                "response.output_text.done" => {
                    let key = (event["item_id"].as_str().unwrap().to_owned(), event["content_index"].as_u64().unwrap());
                    prop_assert_eq!(&deltas[&key], event["text"].as_str().unwrap());
                }
                _ => {}
            }
        }
        done.sort();
        prop_assert_eq!(&added, &done);
        let output = &events.last().unwrap()["response"]["output"];
        prop_assert_eq!(output.as_array().unwrap().len(), added.len());
        for (index, id) in &added {
            prop_assert_eq!(output[usize::try_from(*index).unwrap()]["id"].as_str(), Some(id.as_str()));
        }
    }
}
