use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::llm::retraction::{redact, units};
use crate::openresponses::{CreateResponse, Dialect, Encoded, Form};

fn begun() -> (Response, Uuid) {
    let id = Uuid::from_u128(0x0193_6f00_0000_7000_8000_0000_0000_0001);
    (Response::begun(&CreateResponse::default(), format!("resp_{}", id.simple()), "demo".into(), 1), id)
}

fn completed() -> End {
    End {
        status: ResponseStatus::Completed,
        incomplete_reason: None,
        error: None,
        usage: None,
        service_tier: None,
        completed_at: Some(2),
    }
}

fn text(text: &str) -> Chunk {
    Chunk::Text(text.into())
}

/// Every event as JSON, in order.
fn events(chunks: &[Chunk], end: &End) -> Vec<Value> {
    events_in(Dialect::OpenResponses, chunks, end)
}

fn events_in(dialect: Dialect, chunks: &[Chunk], end: &End) -> Vec<Value> {
    let (response, id) = begun();
    let mut assembler = Assembler::new(response, id, false);
    let mut seen = Vec::new();
    let mut sink = |number: u64, event: &Event<'_>| {
        let mut out = Vec::new();
        event.write(number, Form { encoded: Encoded::Json, dialect }, &mut out);
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
fn a_call_that_closes_after_later_ones_finds_its_place() {
    let calls = [(2, "a"), (0, "b"), (1, "c"), (0, "d"), (0, "e"), (1, "f")];
    let chunks = calls.map(|(index, id)| Chunk::ToolCall { index, call_id: id.into(), name: "f".into() });
    let events = events(&chunks, &completed());
    let output = events.last().unwrap()["response"]["output"].as_array().unwrap();
    let ids: Vec<_> = output.iter().map(|item| item["call_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a", "b", "c", "d", "e", "f"]);
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

fn filtered() -> End {
    End::cut_short("content_filter")
}

#[test]
fn what_is_taken_back_is_told_and_kept_nowhere() {
    let chunks = [text("good "), text("bad "), text("worse"), Chunk::Retract { keep: 5 }];
    let seen = events(&chunks, &filtered());
    assert_eq!(
        kinds(&seen)[4..],
        [
            "output_text.delta",
            "output_text.delta",
            "output_text.delta",
            "colloquy:output_text_retracted",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "incomplete"
        ]
    );
    let told = &seen[7];
    assert_eq!(
        *told,
        serde_json::json!({"type": "colloquy:output_text_retracted", "sequence_number": 7, "item_id": seen[2]["item"]["id"],
            "output_index": 0, "content_index": 0, "text": "good ", "reason": "content_filter"})
    );
    let response = &seen.last().unwrap()["response"];
    assert_eq!(
        (&response["status"], &response["incomplete_details"]["reason"]),
        (&"incomplete".into(), &"content_filter".into())
    );
    assert_eq!(
        (&seen[8]["text"], &response["output"][0]["content"][0]["text"]),
        (&"good ".into(), &"good ".into())
    );
    // Who was not there is told as much, and shown none of it.
    let mut later = chunks.clone();
    redact(&mut later);
    let replayed = events(&later, &filtered());
    assert_eq!(kinds(&replayed), kinds(&seen));
    assert_eq!(replayed[7..], seen[7..]);
    assert!(!serde_json::to_string(&replayed).unwrap().contains("bad"));
    // Where an event of ours would be an error, the response as it stands says the same under the same number.
    let helped = events_in(Dialect::OpenAiHelper, &chunks, &filtered());
    assert_eq!(helped.len(), seen.len());
    assert_eq!(
        (&helped[7]["type"], &helped[7]["sequence_number"]),
        (&"response.in_progress".into(), &7.into())
    );
    let standing = &helped[7]["response"]["output"][0];
    assert_eq!(
        (&standing["status"], &standing["content"][0]["text"]),
        (&"in_progress".into(), &"good ".into())
    );
}

#[test]
fn what_is_taken_back_may_be_closed_already() {
    let call = Chunk::ToolCall { index: 0, call_id: "c".into(), name: "f".into() };
    let chunks = [text("good bad"), call, text("more"), Chunk::Retract { keep: 5 }];
    let seen = events(&chunks, &filtered());
    let told: Vec<&Value> =
        seen.iter().filter(|event| event["type"] == "colloquy:output_text_retracted").collect();
    let texts: Vec<_> =
        told.iter().map(|event| (event["output_index"].as_u64(), event["text"].as_str())).collect();
    assert_eq!(texts, [(Some(0), Some("good ")), (Some(2), Some(""))]);
    let output = &seen.last().unwrap()["response"]["output"];
    assert_eq!(
        (&output[0]["status"], &output[0]["content"][0]["text"]),
        (&"incomplete".into(), &"good ".into())
    );
    assert_eq!((&output[1]["type"], &output[2]["content"][0]["text"]), (&"function_call".into(), &"".into()));
}

#[test]
fn log_probabilities_stand_in_deltas_and_in_the_whole() {
    let likely = |token: &str| {
        let logprob = serde_json::json!({"token": token, "logprob": -0.5});
        Chunk::TextLogProbs {
            delta: token.into(),
            logprobs: vec![serde_json::from_value(logprob).unwrap()].into(),
        }
    };
    let seen = events(&[likely("a"), likely("b"), text("c")], &completed());
    let tokens = |list: &Value| -> String {
        list.as_array().unwrap().iter().map(|logprob| logprob["token"].as_str().unwrap()).collect()
    };
    assert_eq!((tokens(&seen[4]["logprobs"]), tokens(&seen[6]["logprobs"])), ("a".to_owned(), String::new()));
    assert_eq!(
        (&seen[7]["type"], tokens(&seen[7]["logprobs"])),
        (&"response.output_text.done".into(), "ab".to_owned())
    );
    assert_eq!(tokens(&seen.last().unwrap()["response"]["output"][0]["content"][0]["logprobs"]), "ab");
    // A part that was cut has none: some of them might speak of what is gone.
    let seen = events(&[likely("a"), likely("b"), Chunk::Retract { keep: 1 }], &filtered());
    assert_eq!(tokens(&seen.last().unwrap()["response"]["output"][0]["content"][0]["logprobs"]), "");
}

fn any_chunk() -> impl Strategy<Value = Chunk> {
    prop_oneof![
        "[a-z\u{1f600}]{0,3}".prop_map(|text| Chunk::Text(text.into())),
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
    /// Whatever was said before, and whoever sees it when: as many events under the same names and numbers, the same end,
    /// and nothing of what was taken back for those who come later.
    #[test]
    fn taking_back_looks_the_same_before_and_after(
        chunks in prop::collection::vec(any_chunk(), 0..30), keep in 0..20_u64,
    ) {
        let mut chunks = chunks;
        chunks.push(Chunk::Retract { keep });
        let seen = events(&chunks, &filtered());
        let all: String = chunks.iter().filter_map(|chunk| match chunk {
            Chunk::Text(text) => Some(&**text),
            _ => None,
        }).collect();
        redact(&mut chunks);
        let replayed = events(&chunks, &filtered());
        prop_assert_eq!(kinds(&replayed), kinds(&seen));
        prop_assert_eq!(replayed.last(), seen.last());
        let mut said = String::new();
        for event in replayed.iter().filter(|event| event["type"] == "response.output_text.delta") {
            said.push_str(event["delta"].as_str().unwrap());
        }
        prop_assert!(units(&said) <= keep || said == all);
        let helped = events_in(Dialect::OpenAiHelper, &chunks, &filtered());
        prop_assert_eq!(helped.len(), seen.len());
    }

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

#[test]
fn annotations_belong_to_the_text_that_is_being_written() {
    let annotation =
        |url: &str| Chunk::Annotation(json!({"type": "url_citation", "url": url}).to_string().into());
    let call = Chunk::ToolCall { index: 0, call_id: "c".into(), name: "f".into() };
    let chunks =
        [annotation("lost"), text("one"), annotation("a"), annotation("b"), call, annotation("lost")];
    let seen = events(&chunks, &completed());
    let added: Vec<_> = seen
        .iter()
        .filter(|event| event["type"] == "response.output_text.annotation.added")
        .map(|event| {
            (event["annotation"]["url"].as_str().unwrap(), event["annotation_index"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(added, [("a", 0), ("b", 1)]);
    let part = &seen.last().unwrap()["response"]["output"][0]["content"][0];
    assert_eq!(part["annotations"].as_array().map(Vec::len), Some(2));
}
