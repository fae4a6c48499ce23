use bytes::BytesMut;
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
        logprobs: [],
    };
    let mut out = BytesMut::new();
    event.write(7, Encoded::Sse, &mut out);
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
        (json!({"tools": [{"type": "function"}]}), "tools[0]"),
        (json!({"text": {"format": {"type": "json_schema", "name": "n"}}}), "text.format"),
        (json!({"text": {"format": {"type": "xml"}}}), "text.format.type"),
    ] {
        assert_eq!(refused(body.clone()).param.as_deref(), Some(param), "{body}");
    }
}
