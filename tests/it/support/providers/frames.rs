//! A script in each wire format.

use serde_json::{Value, json};

use super::{Finding, Script, UsageForm, Wire};

/// One event of a stream.
#[derive(Clone, Debug)]
pub struct Frame {
    pub text: String,
    /// Whether it carries a piece of the answer.
    pub piece: bool,
}

fn data(value: &Value) -> Frame {
    Frame { text: format!("data: {value}\n\n"), piece: false }
}

fn typed(value: &Value) -> Frame {
    let kind = value["type"].as_str().unwrap_or_default();
    Frame { text: format!("event: {kind}\ndata: {value}\n\n"), piece: false }
}

fn piece(frame: Frame) -> Frame {
    Frame { piece: true, ..frame }
}

/// The whole stream, the protocol's end mark last.
pub fn of(script: &Script, wire: Wire) -> Vec<Frame> {
    match wire {
        Wire::Chat => chat(script, false),
        Wire::Azure => chat(script, true),
        Wire::Responses => responses(script),
        Wire::Anthropic => anthropic(script),
    }
}

fn chat(script: &Script, azure: bool) -> Vec<Frame> {
    let chunk = |delta: Value, finish: Value| {
        let mut choice = json!({"index": 0, "delta": delta, "finish_reason": finish, "logprobs": null});
        let mut frame =
            json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"});
        if azure {
            choice["content_filter_results"] = json!({});
            frame["usage"] = Value::Null;
            frame["obfuscation"] = json!("x9");
        }
        if let Some(tier) = script.tier {
            frame["service_tier"] = json!(tier);
        }
        frame["choices"] = json!([choice]);
        frame
    };
    // Offsets count from the beginning of the prompt.
    const PROMPT: usize = 44;
    let length = |texts: &[String]| texts.iter().map(|text| text.encode_utf16().count()).sum::<usize>();
    let end = PROMPT + length(&script.text);
    let annotated = |start: usize, finish: Value, results: Value| {
        let offsets = json!({"check_offset": PROMPT, "start_offset": start, "end_offset": end});
        data(
            &json!({"id": "", "object": "", "created": 0, "model": "", "usage": null, "choices": [{"index": 0,
            "finish_reason": finish, "content_filter_results": results, "content_filter_offsets": offsets}]}),
        )
    };
    let annotation = annotated(PROMPT, Value::Null, json!({"hate": {"filtered": false, "severity": "safe"}}));
    let found = |Finding { kept, late }: Finding| {
        let finish = if late { Value::Null } else { json!("content_filter") };
        let results = json!({"violence": {"filtered": true, "severity": "high"}});
        annotated(PROMPT + length(&script.text[..kept]), finish, results)
    };
    let mut frames = Vec::new();
    if azure {
        let name = if script.older_prompt_frame { "prompt_annotations" } else { "prompt_filter_results" };
        frames.push(data(&json!({"id": "", "object": "", "created": 0, "model": "", "choices": [],
            name: [{"prompt_index": 0, "content_filter_results": {}}]})));
    }
    frames.push(data(&chunk(json!({"role": "assistant", "content": "", "refusal": null}), Value::Null)));
    if let Some(reasoning) = &script.reasoning {
        frames.push(piece(data(&chunk(json!({"reasoning_content": reasoning}), Value::Null))));
    }
    for text in &script.text {
        let mut frame = chunk(json!({"content": text}), Value::Null);
        if script.likely {
            let mut token = logprob(text);
            token["bytes"] = Value::Null;
            frame["choices"][0]["logprobs"] = json!({"content": [token], "refusal": null});
        }
        frames.push(piece(data(&frame)));
    }
    if let Some(refusal) = &script.refusal {
        frames.push(piece(data(&chunk(json!({"refusal": refusal}), Value::Null))));
    }
    if !script.annotations.is_empty() {
        let nested = |flat: &Value| {
            let mut citation = flat.clone();
            citation.as_object_mut().expect("an object").remove("type");
            json!({"type": "url_citation", "url_citation": citation})
        };
        let all: Vec<Value> = script.annotations.iter().map(nested).collect();
        frames.push(data(&chunk(json!({ "annotations": all }), Value::Null)));
    }
    let annotates = azure && script.bursts.is_none();
    if annotates {
        frames.push(annotation.clone());
    }
    for (index, tool) in script.tools.iter().enumerate() {
        let begin = json!({"index": index, "id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": ""}});
        frames.push(piece(data(&chunk(json!({"tool_calls": [begin]}), Value::Null))));
        let (first, second) = tool.arguments.split_at(tool.arguments.len() / 2);
        for part in [first, second] {
            let more = json!({"index": index, "function": {"arguments": part}});
            frames.push(piece(data(&chunk(json!({"tool_calls": [more]}), Value::Null))));
        }
    }
    match script.finds.filter(|_| azure) {
        Some(finding) if !finding.late => frames.push(found(finding)),
        finding => {
            frames.push(data(&chunk(json!({}), json!(script.finish))));
            if annotates {
                frames.push(annotation);
            }
            frames.extend(finding.map(found));
        }
    }
    let (input, cached, output, reasoning) = script.usage;
    let mut last = json!({"id": "chatcmpl-1", "choices": [], "usage": {"prompt_tokens": input, "completion_tokens": output,
        "total_tokens": input + output, "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning}}});
    match script.usage_form {
        UsageForm::EmptyChoices | UsageForm::Never => {}
        UsageForm::NullChoices => last["choices"] = Value::Null,
        UsageForm::NoChoices => drop(last.as_object_mut().and_then(|last| last.remove("choices"))),
        UsageForm::RealChoice => {
            last["choices"] = json!([{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}])
        }
    }
    if script.usage_form != UsageForm::Never {
        frames.push(data(&last));
    }
    frames.push(Frame { text: "data: [DONE]\n\n".to_owned(), piece: false });
    frames
}

/// Of one token.
fn logprob(token: &str) -> Value {
    let top =
        |token: &str, logprob: f64| json!({"token": token, "logprob": logprob, "bytes": token.as_bytes()});
    let mut all = top(token, -0.25);
    all["top_logprobs"] = json!([top(token, -0.25), top("else", -1.75)]);
    all
}

fn responses(script: &Script) -> Vec<Frame> {
    let mut frames = vec![typed(
        &json!({"type": "response.created", "sequence_number": 0, "response": {"id": "resp_up", "status": "in_progress"}}),
    )];
    let mut at = 0;
    if let Some(reasoning) = &script.reasoning {
        frames.push(piece(typed(&json!({"type": "response.reasoning_summary_text.delta", "output_index": at, "summary_index": 0, "delta": reasoning}))));
        frames.push(typed(&json!({"type": "response.output_item.done", "output_index": at,
            "item": {"type": "reasoning", "id": "rs_up", "summary": [], "encrypted_content": "gAAAup"}})));
        at += 1;
    }
    for text in &script.text {
        frames.push(piece(typed(&json!({"type": "response.output_text.delta", "output_index": at, "content_index": 0, "delta": text,
            "logprobs": if script.likely { json!([logprob(text)]) } else { json!([]) }}))));
    }
    for (nth, annotation) in script.annotations.iter().enumerate() {
        frames.push(typed(
            &json!({"type": "response.output_text.annotation.added", "output_index": at, "content_index": 0,
            "item_id": "msg_up", "annotation_index": nth, "annotation": annotation}),
        ));
    }
    if let Some(refusal) = &script.refusal {
        frames.push(piece(typed(&json!({"type": "response.refusal.delta", "output_index": at, "content_index": 0, "delta": refusal}))));
    }
    for tool in &script.tools {
        at += 1;
        let item = json!({"type": "function_call", "call_id": tool.id.unwrap_or("call_up"), "name": tool.name, "arguments": ""});
        frames.push(piece(typed(
            &json!({"type": "response.output_item.added", "output_index": at, "item": item}),
        )));
        frames.push(piece(typed(&json!({"type": "response.function_call_arguments.delta", "output_index": at, "delta": tool.arguments}))));
    }
    let (input, cached, output, reasoning) = script.usage;
    let mut response = json!({"id": "resp_up", "status": "completed"});
    if let Some(tier) = script.tier {
        response["service_tier"] = json!(tier);
    }
    if script.usage_form != UsageForm::Never {
        response["usage"] = json!({"input_tokens": input, "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": output, "output_tokens_details": {"reasoning_tokens": reasoning}, "total_tokens": input + output});
    }
    let reason = match script.finish {
        "length" => Some("max_output_tokens"),
        "content_filter" => Some("content_filter"),
        _ => None,
    };
    let kind = if reason.is_some() { "response.incomplete" } else { "response.completed" };
    if let Some(reason) = reason {
        response["incomplete_details"] = json!({ "reason": reason });
    }
    frames.push(typed(&json!({"type": kind, "response": response})));
    frames
}

fn anthropic(script: &Script) -> Vec<Frame> {
    // Cache tokens stand beside the input there.
    let (input, cached, output, _) = script.usage;
    let mut begin = json!({"type": "message_start", "message": {"id": "msg_up", "type": "message", "role": "assistant", "content": []}});
    if script.usage_form != UsageForm::Never {
        begin["message"]["usage"] = json!({"input_tokens": input - cached, "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": 0, "output_tokens": 1});
        if let Some(tier) = script.tier {
            begin["message"]["usage"]["service_tier"] = json!(tier);
        }
    }
    let mut frames = vec![typed(&begin), typed(&json!({"type": "ping"}))];
    let mut index = 0;
    let mut block = |frames: &mut Vec<Frame>, begin: Value, deltas: Vec<Value>| {
        frames.push(typed(&json!({"type": "content_block_start", "index": index, "content_block": begin})));
        for delta in deltas {
            frames
                .push(piece(typed(&json!({"type": "content_block_delta", "index": index, "delta": delta}))));
        }
        frames.push(typed(&json!({"type": "content_block_stop", "index": index})));
        frames.push(typed(&json!({"type": "invented_later", "index": index})));
        index += 1;
    };
    if let Some(data) = script.redacted {
        block(&mut frames, json!({"type": "redacted_thinking", "data": data}), Vec::new());
    }
    if let Some(reasoning) = &script.reasoning {
        let deltas = vec![
            json!({"type": "thinking_delta", "thinking": reasoning}),
            json!({"type": "signature_delta", "signature": "SIG"}),
        ];
        block(&mut frames, json!({"type": "thinking", "thinking": "", "signature": ""}), deltas);
    }
    if !script.text.is_empty() {
        let deltas = script.text.iter().map(|text| json!({"type": "text_delta", "text": text})).collect();
        block(&mut frames, json!({"type": "text", "text": ""}), deltas);
    }
    for tool in &script.tools {
        let (first, second) = tool.arguments.split_at(tool.arguments.len() / 2);
        let deltas =
            ["", first, second].map(|part| json!({"type": "input_json_delta", "partial_json": part}));
        block(
            &mut frames,
            json!({"type": "tool_use", "id": tool.id.unwrap_or("toolu_up"), "name": tool.name, "input": {}}),
            deltas.into(),
        );
    }
    let stop = match script.finish {
        "length" => "max_tokens",
        "content_filter" => "refusal",
        "tool_calls" => "tool_use",
        _ => "end_turn",
    };
    let mut end = json!({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": null}});
    if script.restated {
        // Counts so far; the last one stands.
        for part in [output / 3, output / 2] {
            frames.push(typed(
                &json!({"type": "message_delta", "delta": {"stop_reason": null, "stop_sequence": null},
                "usage": {"input_tokens": input - cached, "cache_read_input_tokens": cached,
                    "cache_creation_input_tokens": 0, "output_tokens": part}}),
            ));
        }
    }
    if script.usage_form != UsageForm::Never {
        end["usage"] = json!({ "output_tokens": output });
        if script.restated {
            end["usage"]["input_tokens"] = json!(input - cached);
            end["usage"]["cache_read_input_tokens"] = json!(cached);
        }
    }
    frames.push(typed(&end));
    frames.push(typed(&json!({"type": "message_stop"})));
    frames
}
