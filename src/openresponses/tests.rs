use serde_json::{Value, json};

use super::*;

fn refused(body: Value) -> ApiError {
    let body = body.to_string();
    match CreateResponse::parse(body.as_bytes()) {
        Err(error) => error,
        Ok(request) => request.validate().expect_err(&body),
    }
}

#[test]
fn mistakes_name_their_field() {
    for (body, code, param) in [
        (json!({"modle": "x"}), "unknown_parameter", Some("modle")),
        (json!({"text": {"fromat": 1}}), "unknown_parameter", Some("text.fromat")),
        (json!({"temperature": "hot"}), "invalid_type", Some("temperature")),
        (json!({"temperature": 2.5}), "decimal_above_max_value", Some("temperature")),
        (json!({"max_output_tokens": 1}), "integer_below_min_value", Some("max_output_tokens")),
        (json!({"metadata": {"k": 1}}), "invalid_type", Some("metadata.k")),
        (json!({"tools": [{"type": "function", "name": "a b"}]}), "invalid_value", Some("tools[0].name")),
        (json!({"tool_choice": "required"}), "invalid_value", Some("tool_choice")),
        (
            json!({"tool_choice": {"type": "function", "name": "f"}}),
            "invalid_value",
            Some("tool_choice.name"),
        ),
        (json!({"on_disconnect": "maybe"}), "invalid_value", Some("on_disconnect")),
        (json!({"tools": [{"type": "function"}]}), "missing_required_parameter", Some("tools[0].name")),
        (
            json!({"text": {"format": {"type": "json_schema", "schema": {}}}}),
            "missing_required_parameter",
            Some("text.format.name"),
        ),
        (json!({"text": {"format": {}}}), "missing_required_parameter", Some("text.format.type")),
        (json!([]), "invalid_type", None),
    ] {
        let error = refused(body.clone());
        assert_eq!((error.code, error.param.as_deref()), (code, param), "{body}: {error:?}");
        assert_eq!(error.status, 400);
    }
    for broken in ["{", "", "{} {}", "\u{feff}"] {
        let error = CreateResponse::parse(broken.as_bytes()).unwrap_err();
        assert_eq!((error.code, error.param), ("invalid_json", None), "{broken:?}");
    }
}

#[test]
fn what_was_expected_is_told_in_jsons_words() {
    for (body, expected) in [
        (json!([]), "an object"),
        (json!(7), "an object"),
        (json!({"temperature": "hot"}), "a number"),
        (json!({"max_output_tokens": "many"}), "an integer"),
        (json!({"max_output_tokens": 1.5}), "an integer"),
        (json!({"max_output_tokens": -1}), "an integer from 0 to 4294967295"),
        (json!({"stream": "yes"}), "true or false"),
        (json!({"instructions": 7}), "a string"),
        (json!({"include": "all"}), "an array"),
        (json!({"tools": {}}), "an array"),
        (json!({"tools": [7]}), "an object"),
        (json!({"metadata": []}), "an object"),
        (json!({"text": 7}), "an object"),
        (json!({"truncation": 7}), "a string"),
        (json!({"context_management": [7]}), "an object"),
        (json!({"input": [{"role": "user", "content": [7]}]}), "an object"),
        (json!({"input": [{"type": "function_call", "call_id": 7}]}), "a string"),
    ] {
        let error = refused(body.clone());
        assert!(error.message.ends_with(&format!(": expected {expected}.")), "{body}: {}", error.message);
    }
}

#[test]
fn mistakes_within_the_input_name_their_place() {
    let user = |part: Value| json!({"role": "user", "content": [{"type": "input_text", "text": "x"}, part]});
    for (item, code, place) in [
        (json!(7), "invalid_type", ""),
        (json!({"role": "usr", "content": "x"}), "invalid_value", ".role"),
        (json!({"role": "user", "content": 7}), "invalid_type", ".content"),
        (json!({"role": "user", "content": ["x"]}), "invalid_type", ".content[0]"),
        (user(json!({"type": "input_image", "image_url": 7})), "invalid_type", ".content[1].image_url"),
        (
            user(json!({"type": "input_image", "image_url": "x", "detail": "no"})),
            "invalid_value",
            ".content[1].detail",
        ),
        (user(json!({"type": "input_text"})), "missing_required_parameter", ".content[1].text"),
        (user(json!({"type": "input_text", "text": null})), "invalid_type", ".content[1].text"),
        (user(json!({"type": "text", "text": "x"})), "invalid_value", ".content[1].type"),
        (user(json!({"text": "x"})), "missing_required_parameter", ".content[1].type"),
        (json!({"type": "function_call", "call_id": 7}), "invalid_type", ".call_id"),
        (
            json!({"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": {}}]}),
            "invalid_type",
            ".output[0].text",
        ),
        (
            json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": []}]}),
            "invalid_type",
            ".summary[0].text",
        ),
    ] {
        let body = json!({"input": [{"role": "user", "content": "hello"}, item]});
        let error = refused(body.clone());
        let place = format!("input[1]{place}");
        assert_eq!((error.code, error.param.as_deref()), (code, Some(&*place)), "{body}: {error:?}");
        assert!(error.message.contains(&place) && error.status == 400, "{error:?}");
    }
    let error = refused(json!({"input": {"role": "user"}}));
    assert_eq!((error.code, error.param.as_deref()), ("invalid_type", Some("input")));
    let secret = user(json!({"type": "input_image", "image_url": "x", "detail": "my secret"}));
    assert!(!refused(json!({"input": [secret]})).message.contains("secret"));
}

#[test]
fn what_was_sent_is_not_repeated() {
    let error = refused(json!({"temperature": "my secret"}));
    assert!(!error.message.contains("secret"), "{}", error.message);
}

fn resolve(item: Value) -> Result<Resolved, ApiError> {
    serde_json::from_value::<InputItem>(item).unwrap().resolve("input[0]")
}

#[test]
fn items_come_in_every_form_that_callers_write() {
    let forms = [
        json!({"role": "user", "content": "hi"}),
        json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}),
    ];
    for form in forms {
        let Resolved::Item(item) = resolve(form).unwrap() else { panic!("an item") };
        let wanted = json!({"type": "message", "id": "", "status": "completed", "role": "user",
                            "content": [{"type": "input_text", "text": "hi"}]});
        assert_eq!(serde_json::to_value(&item).unwrap(), wanted);
    }
    let Resolved::Item(answer) = resolve(json!({"role": "assistant", "content": "yes"})).unwrap() else {
        panic!("an item")
    };
    assert_eq!(
        serde_json::to_value(&answer).unwrap()["content"],
        json!([{"type": "output_text", "text": "yes", "annotations": [], "logprobs": []}])
    );
    assert!(matches!(resolve(json!({"id": "msg_1"})).unwrap(), Resolved::Reference(id) if id == "msg_1"));
    for (item, param) in [
        (json!({"type": "message", "content": "x"}), "input[0].role"),
        (json!({"type": "function_call_output", "output": "x"}), "input[0].call_id"),
        (json!({"type": "web_search_call"}), "input[0].type"),
        (
            json!({"role": "user", "content": [{"type": "output_text", "text": "x"}]}),
            "input[0].content[0].type",
        ),
    ] {
        assert_eq!(resolve(item.clone()).unwrap_err().param.as_deref(), Some(param), "{item}");
    }
}

#[test]
fn an_event_is_one_json_object_and_one_frame() {
    let event = Event::OutputTextDelta {
        item_id: "msg_1",
        output_index: 0,
        content_index: 0,
        delta: "a\n\"b\"",
        logprobs: &[],
    };
    let mut out = Vec::new();
    event.write(7, Encoded::Sse.into(), &mut out);
    let text = std::str::from_utf8(&out).unwrap();
    let data =
        text.strip_prefix("event: response.output_text.delta\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
    assert!(!data.contains('\n'));
    let value: Value = serde_json::from_str(data).unwrap();
    assert_eq!(
        value,
        json!({"type": "response.output_text.delta", "sequence_number": 7, "item_id": "msg_1", "output_index": 0,
               "content_index": 0, "delta": "a\n\"b\"", "logprobs": []})
    );
}

#[test]
fn each_dialect_has_its_names_and_all_have_the_same_numbers() {
    let response = Response::begun(&CreateResponse::default(), "resp_1".into(), "demo".into(), 1);
    let (item_id, output_index, content_index) = ("rs_1", 0, 0);
    let delta = Event::ReasoningDelta { item_id, output_index, content_index, delta: "hm" };
    let done = Event::ReasoningDone { item_id, output_index, content_index, text: "hm" };
    let reason = "content_filter";
    let retracted = Event::OutputTextRetracted {
        item_id,
        output_index,
        content_index,
        text: "a",
        reason,
        response: &response,
    };
    let written = |event: &Event<'_>, dialect| {
        let mut out = Vec::new();
        event.write(3, Form { encoded: Encoded::Json, dialect }, &mut out);
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["sequence_number"], 3);
        value
    };
    for (dialect, names) in [
        (
            Dialect::OpenResponses,
            ["response.reasoning.delta", "response.reasoning.done", "colloquy:output_text_retracted"],
        ),
        (
            Dialect::OpenAi,
            [
                "response.reasoning_text.delta",
                "response.reasoning_text.done",
                "colloquy:output_text_retracted",
            ],
        ),
        (
            Dialect::OpenAiHelper,
            ["response.reasoning_text.delta", "response.reasoning_text.done", "response.in_progress"],
        ),
    ] {
        let all = [&delta, &done, &retracted].map(|event| written(event, dialect));
        assert_eq!(all.each_ref().map(|event| event["type"].as_str().unwrap()), names);
        assert_eq!((&all[0]["delta"], &all[1]["text"]), (&json!("hm"), &json!("hm")));
        let told = if dialect == Dialect::OpenAiHelper { &all[2]["response"]["id"] } else { &all[2]["text"] };
        assert!(told == "resp_1" || told == "a", "{told}");
        assert_eq!(all[2].get("response").is_some(), dialect == Dialect::OpenAiHelper);
    }
}

#[test]
fn log_probabilities_say_the_same_wherever_they_are_read() {
    for (written, read) in [
        ("-0.123456789012345", -0.123456789),
        ("-5.5122365e-7", -5.5122365e-7),
        ("-9999.0", -9999.0),
        ("-1e-20", 0.0),
        ("0", 0.0),
    ] {
        let json = format!(r#"{{"token":"\u00fc","logprob":{written},"bytes":null}}"#);
        let first: LogProb = serde_json::from_str(&json).unwrap();
        assert_eq!((first.logprob, first.bytes.as_slice()), (read, &[0xc3_u8, 0xbc][..]), "{written}");
        let again = serde_json::to_string(&first).unwrap();
        let second: LogProb = serde_json::from_str(&again).unwrap();
        assert_eq!((serde_json::to_string(&second).unwrap(), &second), (again, &first));
    }
    let lists: [Value; 2] = [
        json!({"type": "output_text", "text": "x"}),
        json!({"type": "output_text", "text": "x", "logprobs": []}),
    ];
    for list in lists {
        assert_eq!(
            serde_json::to_value(serde_json::from_value::<ContentPart>(list).unwrap()).unwrap()["logprobs"],
            json!([])
        );
    }
}

#[test]
fn schemas_are_kept_byte_for_byte() {
    let body = r#"{"tools": [{"type": "function", "name": "f", "parameters": {"b" : 1, "a":2.50}}],
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"z" :1}}},
        "input": [{"role": "assistant", "content": [{"type": "output_text", "text": "x", "annotations": [{"y": 1}]}]}]}"#;
    let request = CreateResponse::parse(body.as_bytes()).unwrap();
    let tools = serde_json::to_string(&request.tools).unwrap();
    assert!(tools.contains(r#""parameters":{"b" : 1, "a":2.50}"#), "{tools}");
    let format = serde_json::to_string(&request.text.unwrap().format).unwrap();
    assert!(
        format.contains(r#""schema":{"z" :1}"#) && format.contains(r#""type":"json_schema""#),
        "{format}"
    );
    for (body, param) in [
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"tools": [{"type": "function"}]}), "tools[0].name"),
        (json!({"text": {"format": {"type": "json_schema", "name": "n"}}}), "text.format.schema"),
        (json!({"text": {"format": {"type": "xml"}}}), "text.format.type"),
    ] {
        assert_eq!(refused(body.clone()).param.as_deref(), Some(param), "{body}");
    }
}
