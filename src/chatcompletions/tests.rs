use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use super::answer::Frames;
use super::*;
use crate::conversation::assembler::{Assembler, End, NoSink};
use crate::llm::Chunk;
use crate::openresponses::{ApiError, CreateResponse, Input, Resolved, Response, ResponseStatus};

fn asked(body: Value) -> Result<Asked, ApiError> {
    let body = body.to_string();
    let asked = ChatRequest::parse(body.as_bytes()).and_then(ChatRequest::translate)?;
    asked.request.validate().map_err(|error| asked.terms.apply(error))?;
    Ok(asked)
}

/// The items of these messages, as they would be stored.
fn items(messages: Value) -> Vec<Value> {
    let asked = asked(json!({"model": "m", "messages": messages})).unwrap();
    let Some(Input::Items(items)) = asked.request.input else { panic!("{:?}", asked.request) };
    let items = items.into_iter().map(|item| match item.resolve("input").unwrap() {
        Resolved::Item(item) => serde_json::to_value(item).unwrap(),
        Resolved::Reference(id) => panic!("{id}"),
    });
    items.collect()
}

#[test]
fn mistakes_in_items_name_their_message() {
    let user = json!({"role": "user", "content": "hi"});
    let call = json!({"id": "c", "function": {"name": "f", "arguments": "{}"}});
    let answer = json!({"role": "tool", "tool_call_id": "c", "content": ""});
    let named = |messages: Value, item: usize| {
        let asked = asked(json!({"model": "m", "messages": messages})).unwrap();
        let place = format!("input[{item}].content[0]");
        let error = asked.terms.apply(ApiError::invalid_value(&place, format!("Invalid '{place}'.")));
        assert!(error.message.contains("'messages["), "{error:?}");
        error.param.unwrap()
    };
    assert_eq!(named(json!([user, user]), 1), "messages[1]");
    let both = json!({"role": "assistant", "content": "x", "tool_calls": [call, call]});
    let messages = json!([user, both, answer, user]);
    let names: Vec<String> = (0..6).map(|item| named(messages.clone(), item)).collect();
    let places = [0, 1, 1, 1, 2, 3].map(|place| format!("messages[{place}]"));
    assert_eq!(names, places);
    assert_eq!(named(json!([both, answer]), 3), "messages[1]");
}

#[test]
fn messages_become_items() {
    let found = items(json!([
        {"role": "system", "content": "Be short."},
        {"role": "user", "name": "ann", "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
        ]},
        {"role": "assistant", "content": null, "refusal": null, "annotations": [], "audio": null, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{\"a\":1}"}},
        ]},
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "It is", "refusal": "no"},
    ]));
    let kinds: Vec<&str> = found.iter().map(|item| item["type"].as_str().unwrap()).collect();
    let (call, output) = ("function_call", "function_call_output");
    assert_eq!(kinds, ["message", "message", call, call, output, output, "message"]);
    assert_eq!(found[0]["role"], "system");
    let parts: Vec<&Value> =
        found[1]["content"].as_array().unwrap().iter().map(|part| &part["type"]).collect();
    assert_eq!(parts, ["input_text", "input_image", "input_file"]);
    assert_eq!(found[1]["content"][1]["detail"], "low");
    assert_eq!((&found[3]["call_id"], &found[3]["arguments"]), (&json!("call_2"), &json!("{\"a\":1}")));
    assert_eq!(found[5]["output"], "a\nb");
    assert_eq!(found[6]["content"][0]["type"], "output_text");
    assert_eq!(found[6]["content"][1], json!({"type": "refusal", "refusal": "no"}));
}

#[test]
fn a_request_says_the_same_in_other_words() {
    let asked = asked(json!({
        "model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": true,
        "stream_options": {"include_usage": true}, "max_tokens": 1, "stop": "\n", "seed": 7, "n": 1,
        "reasoning_effort": "low", "verbosity": "high", "logprobs": false, "logit_bias": {}, "modalities": ["text"],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object" }}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": { "type":"object"}}},
    }))
    .unwrap();
    assert!(asked.stream && asked.include_usage);
    let request = asked.request;
    assert!(!request.stores());
    assert_eq!(request.max_output_tokens, Some(1));
    let chat = request.chat.clone().unwrap();
    assert_eq!((chat.stop, chat.seed), (vec!["\n".to_owned()], Some(7)));
    let written = serde_json::to_value(&request).unwrap();
    assert_eq!(written["tool_choice"], json!({"type": "function", "name": "f"}));
    assert_eq!(written["reasoning"]["effort"], "low");
    assert_eq!(written["text"]["format"]["name"], "s");
    assert_eq!(written["tools"][0]["parameters"], json!({"type": "object"}));
}

#[test]
fn mistakes_name_the_fields_of_this_endpoint() {
    let with = |more: Value| {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let tool = |name: &str| json!([{"type": "function", "function": {"name": name}}]);
    for (body, code, param) in [
        (json!({"model": "m"}), "missing_required_parameter", "messages"),
        (with(json!({"messages": []})), "empty_array", "messages"),
        (with(json!({"messages": [{"role": "user"}]})), "missing_required_parameter", "messages[0].content"),
        (with(json!({"messages": [{"role": "king", "content": ""}]})), "invalid_type", "messages[0].role"),
        (
            with(json!({"messages": [{"role": "tool", "content": ""}]})),
            "missing_required_parameter",
            "messages[0].tool_call_id",
        ),
        (
            with(json!({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]})),
            "invalid_value",
            "messages[0].content[0].type",
        ),
        (with(json!({"max_output_tokens": 3})), "unknown_parameter", "max_output_tokens"),
        (with(json!({"max_tokens": 0})), "integer_below_min_value", "max_tokens"),
        (with(json!({"max_completion_tokens": 0})), "integer_below_min_value", "max_completion_tokens"),
        (
            with(json!({"max_completion_tokens": 9, "max_tokens": 9})),
            "mutually_exclusive_parameters",
            "max_tokens",
        ),
        (with(json!({"n": 2})), "unsupported_parameter", "n"),
        (with(json!({"top_logprobs": 2})), "invalid_value", "top_logprobs"),
        (with(json!({"logprobs": true, "top_logprobs": 21})), "integer_above_max_value", "top_logprobs"),
        (with(json!({"functions": []})), "unsupported_parameter", "functions"),
        (with(json!({"store": true})), "unsupported_parameter", "store"),
        (with(json!({"stop": ["a", "b", "c", "d", "e"]})), "invalid_value", "stop"),
        (with(json!({"stream_options": {"include_usage": true}})), "invalid_value", "stream_options"),
        (with(json!({"temperature": 3})), "decimal_above_max_value", "temperature"),
        (with(json!({"tools": [{"type": "custom"}]})), "invalid_value", "tools[0].type"),
        (with(json!({"tools": [{"type": "function"}]})), "missing_required_parameter", "tools[0].function"),
        (
            with(json!({"tools": [{"type": "function", "function": {}}]})),
            "missing_required_parameter",
            "tools[0].function.name",
        ),
        (
            with(json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}})),
            "missing_required_parameter",
            "response_format.json_schema.name",
        ),
        (with(json!({"tools": tool("a b")})), "invalid_value", "tools[0].function.name"),
        (
            with(json!({"tools": tool("f"), "tool_choice": {"type": "function", "function": {"name": "g"}}})),
            "invalid_value",
            "tool_choice.function.name",
        ),
        (with(json!({"response_format": {"type": "xml"}})), "invalid_type", "response_format.type"),
        (
            with(
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}}),
            ),
            "invalid_value",
            "response_format.json_schema.name",
        ),
    ] {
        let error = asked(body.clone()).unwrap_err();
        assert_eq!((error.code, error.param.as_deref()), (code, Some(param)), "{body}: {error:?}");
        assert_eq!(error.status, 400);
        assert!(!error.message.contains("max_output_tokens") || param == "max_output_tokens", "{error:?}");
    }
}

fn begun() -> Response {
    Response::begun(&CreateResponse::default(), "resp_1".to_owned(), "m".to_owned(), 5)
}

fn ended(chunks: &[Chunk], status: ResponseStatus, reason: Option<&str>) -> Response {
    let mut assembler = Assembler::new(begun(), Uuid::now_v7(), false);
    assembler.begin(&mut NoSink);
    for chunk in chunks {
        assembler.push(chunk, &mut NoSink);
    }
    let end = End {
        status,
        incomplete_reason: reason.map(str::to_owned),
        error: None,
        usage: None,
        service_tier: None,
        completed_at: None,
    };
    assembler.finish(&end, &mut NoSink).0
}

fn frames(chunks: &[Chunk], response: &Response, failure: Option<&ApiError>) -> Vec<String> {
    let mut out = Vec::new();
    let mut frames = Frames::new(&begun(), true);
    chunks.iter().for_each(|chunk| frames.push(chunk, &mut out));
    frames.finish(response, failure, &mut out);
    let text = String::from_utf8(out.clone()).unwrap();
    text.split_terminator("\n\n").map(|frame| frame.strip_prefix("data: ").unwrap().to_owned()).collect()
}

fn calls() -> Vec<Chunk> {
    let call = |index, id: &str| Chunk::ToolCall { index, call_id: id.into(), name: "f".into() };
    let more = |index, delta: &str| Chunk::ToolArguments { index, delta: delta.into() };
    // A provider may count from anywhere, and interleave.
    vec![
        Chunk::ReasoningText("hm".into()),
        call(3, "a"),
        call(1, "b"),
        more(3, "{"),
        more(1, "[]"),
        more(3, "}"),
    ]
}

#[test]
fn frames_and_completion_say_the_same() {
    let chunks = calls();
    let response = ended(&chunks, ResponseStatus::Completed, None);
    let frames = frames(&chunks, &response, None);
    assert_eq!(frames.last().unwrap(), "[DONE]");
    let frames: Vec<Value> =
        frames[..frames.len() - 1].iter().map(|frame| serde_json::from_str(frame).unwrap()).collect();
    assert_eq!(frames[0]["choices"][0]["delta"]["role"], "assistant");
    for frame in &frames {
        assert_eq!(
            (&frame["object"], &frame["id"], &frame["usage"]),
            (&json!("chat.completion.chunk"), &json!("chatcmpl-1"), &Value::Null)
        );
    }
    assert_eq!(frames.last().unwrap()["choices"], json!([]), "the usage frame");
    let finish: Vec<&Value> = frames.iter().map(|frame| &frame["choices"][0]["finish_reason"]).collect();
    assert_eq!(*finish[finish.len() - 2], "tool_calls");
    let mut arguments = [String::new(), String::new()];
    for frame in &frames {
        let call = &frame["choices"][0]["delta"]["tool_calls"][0];
        if let Some(index) = call["index"].as_u64() {
            arguments[usize::try_from(index).unwrap()] += call["function"]["arguments"].as_str().unwrap();
        }
    }
    let whole: Value = serde_json::from_slice(&completion(&response, None).unwrap()).unwrap();
    let choice = &whole["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &Value::Null)
    );
    let listed = choice["message"]["tool_calls"].as_array().unwrap();
    for (at, (call, id)) in listed.iter().zip(["a", "b"]).enumerate() {
        assert_eq!((&call["id"], &call["type"]), (&json!(id), &json!("function")));
        assert_eq!(call["function"]["arguments"], arguments[at]);
    }
}

#[test]
fn log_probabilities_stand_beside_what_they_belong_to() {
    let asked = asked(json!({
        "model": "m", "messages": [{"role": "user", "content": "hi"}], "logprobs": true, "top_logprobs": 2,
    }));
    let request = asked.unwrap().request;
    assert!(request.wants_logprobs() && request.top_logprobs == Some(2));
    let likely = |token: &str| {
        let logprob = json!({"token": token, "logprob": -0.5, "bytes": token.as_bytes(), "top_logprobs": []});
        Chunk::TextLogProbs {
            delta: token.into(),
            logprobs: vec![serde_json::from_value(logprob).unwrap()].into(),
        }
    };
    let chunks = [likely("a"), likely(" b")];
    let response = ended(&chunks, ResponseStatus::Completed, None);
    let tokens = |choice: &Value| -> Vec<String> {
        let content = choice["logprobs"]["content"].as_array().into_iter().flatten();
        content.map(|logprob| logprob["token"].as_str().unwrap().to_owned()).collect()
    };
    let frames = frames(&chunks, &response, None);
    let frames = frames.iter().filter(|frame| *frame != "[DONE]");
    let streamed: Vec<String> = frames
        .flat_map(|frame| tokens(&serde_json::from_str::<Value>(frame).unwrap()["choices"][0]))
        .collect();
    let whole: Value = serde_json::from_slice(&completion(&response, None).unwrap()).unwrap();
    assert_eq!(
        (tokens(&whole["choices"][0]), streamed),
        (vec!["a".to_owned(), " b".to_owned()], vec!["a".into(), " b".into()])
    );
    assert_eq!(whole["choices"][0]["logprobs"]["refusal"], Value::Null);
}

/// The format has no way to take back what was shown: its end says that it was filtered.
#[test]
fn what_was_taken_back_is_not_in_the_whole() {
    let chunks = [Chunk::Text("good ".into()), Chunk::Text("bad".into()), Chunk::Retract { keep: 5 }];
    let response = ended(&chunks, ResponseStatus::Incomplete, Some("content_filter"));
    let whole: Value = serde_json::from_slice(&completion(&response, None).unwrap()).unwrap();
    let choice = &whole["choices"][0];
    assert_eq!(
        (&choice["message"]["content"], &choice["finish_reason"]),
        (&json!("good "), &json!("content_filter"))
    );
    let frames = frames(&chunks, &response, None);
    assert!(frames[frames.len() - 3].contains("\"finish_reason\":\"content_filter\""), "{frames:?}");
}

#[test]
fn every_end_has_its_word() {
    let said = [Chunk::Text("a".into())];
    for (status, reason, wanted) in [
        (ResponseStatus::Completed, None, Some("stop")),
        (ResponseStatus::Incomplete, Some("max_output_tokens"), Some("length")),
        (ResponseStatus::Incomplete, Some("content_filter"), Some("content_filter")),
        (ResponseStatus::Incomplete, Some("interrupted"), None),
        (ResponseStatus::Cancelled, None, None),
        (ResponseStatus::Failed, None, None),
    ] {
        let response = ended(&said, status, reason);
        let failure = ApiError::unavailable("provider_error", "It failed.");
        let failure = (status == ResponseStatus::Failed).then_some(&failure);
        let frames = frames(&said, &response, failure);
        match (wanted, completion(&response, failure)) {
            (Some(wanted), Ok(whole)) => {
                let whole: Value = serde_json::from_slice(&whole).unwrap();
                assert_eq!(whole["choices"][0]["finish_reason"], wanted);
                assert!(frames[frames.len() - 3].contains(&format!("\"finish_reason\":\"{wanted}\"")));
                assert_eq!(frames.last().unwrap(), "[DONE]");
            }
            (None, Err(error)) => {
                assert_eq!(error.status, 503);
                let told: Value = serde_json::from_str(frames.last().unwrap()).unwrap();
                assert_eq!(told, error.body());
            }
            (wanted, whole) => panic!("{status:?}: {wanted:?} {whole:?}"),
        }
    }
    let refused = [Chunk::Refusal("I cannot".into())];
    let whole = completion(&ended(&refused, ResponseStatus::Completed, None), None).unwrap();
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(
        (&whole["choices"][0]["message"]["content"], &whole["choices"][0]["message"]["refusal"]),
        (&Value::Null, &json!("I cannot"))
    );
    let silent = completion(&ended(&[], ResponseStatus::Completed, None), None).unwrap();
    assert!(String::from_utf8(silent).unwrap().contains("\"content\":\"\""));
}

#[test]
fn every_field_has_a_row() {
    // serde lists them all when one is unknown.
    let list = serde_json::from_str::<ChatRequest>(r#"{"no_such_field": 1}"#).unwrap_err().to_string();
    let read: BTreeSet<&str> = list.split('`').skip(3).step_by(2).collect();
    let rows: BTreeSet<&str> = fields::FIELDS.iter().map(|(name, _)| *name).collect();
    assert_eq!(read, rows);
}

#[test]
fn the_page_shows_the_table() {
    crate::testing::assert_tables("docs/protocol.md", &[("chat fields", markdown())], "chatcompletions");
}
