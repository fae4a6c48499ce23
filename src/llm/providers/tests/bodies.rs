//! What providers are asked.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::llm::ModelRequest;
use crate::openresponses::{CreateResponse, Input, Resolved};

fn config(provider: &str, more: &Value) -> DeploymentConfig {
    let mut config = json!({"provider": provider, "url": "https://x.example/v1", "model": "the-model"});
    config.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    serde_json::from_value(config).unwrap()
}

fn request(mut params: Value) -> ModelRequest {
    let items = params.as_object_mut().unwrap().remove("input").unwrap_or(json!([]));
    let Input::Items(items) = serde_json::from_value(items).unwrap() else { panic!("items") };
    let items = items
        .into_iter()
        .map(|item| match item.resolve("input[0]").unwrap() {
            Resolved::Item(item) => Arc::new(item),
            Resolved::Reference(_) => panic!("a reference"),
        })
        .collect();
    let params = CreateResponse::parse(params.to_string().as_bytes()).unwrap();
    ModelRequest { params: Arc::new(params), items }
}

fn built(provider: &str, more: Value, params: Value) -> Result<Value, LlmError> {
    let config = config(provider, &more);
    let request = request(params);
    let call = Call { deployment: "dep", config: &config, reasoning: false, request: &request };
    body(&call).map(|body| serde_json::from_slice(&body).unwrap())
}

/// A conversation with everything in it.
fn conversation() -> Value {
    json!([
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [
            {"type": "input_text", "text": "Look"},
            {"type": "input_image", "image_url": "data:image/png;base64,iVBO", "detail": "low"},
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}],
         "content": [{"type": "reasoning_text", "text": "raw "}, {"type": "reasoning_text", "text": "thought"}],
         "encrypted_content": "dep~SIGNED"},
        {"role": "assistant", "content": "I look."},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"x\":1}"},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "oops"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "t"}, {"type": "input_text", "text": "wo"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": "Go on"}
    ])
}

#[test]
fn log_probabilities_are_asked_for_in_each_ones_terms() {
    let named = json!({"include": ["message.output_text.logprobs"], "top_logprobs": 3});
    let counted = json!({"top_logprobs": 3});
    for provider in ["azure", "openai"] {
        for params in [&named, &counted] {
            let body = built(provider, json!({}), params.clone()).unwrap();
            assert_eq!((&body["logprobs"], &body["top_logprobs"]), (&json!(true), &json!(3)), "{provider}");
        }
        let body = built(provider, json!({}), json!({"top_logprobs": 0})).unwrap();
        assert_eq!((body.get("logprobs"), body.get("top_logprobs")), (None, None));
    }
    for params in [named, counted] {
        let body = built("responses", json!({}), params).unwrap();
        assert_eq!(body["include"], json!(["message.output_text.logprobs"]));
        assert_eq!(body["top_logprobs"], 3);
    }
    assert_eq!(built("responses", json!({}), json!({})).unwrap().get("include"), None);
}

#[test]
fn chat_completions_get_messages() {
    let params =
        json!({"instructions": "Hi", "input": conversation(), "temperature": 0.5, "max_output_tokens": 100});
    let body = built("azure", json!({}), params.clone()).unwrap();
    assert_eq!(
        body,
        json!({
            "model": "the-model", "stream": true, "stream_options": {"include_usage": true},
            "messages": [
                {"role": "system", "content": "Hi"},
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO", "detail": "low"}},
                    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}}]},
                {"role": "assistant", "content": "I look.", "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
                    {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "oops"}}]},
                {"role": "tool", "tool_call_id": "c1", "content": "one"},
                {"role": "tool", "tool_call_id": "c2", "content": "t\nwo"},
                {"role": "assistant", "content": "No."},
                {"role": "user", "content": "Go on"}],
            "temperature": 0.5, "max_completion_tokens": 100
        })
    );
    let compatible = built("openai", json!({"max_tokens_field": "max_tokens"}), params).unwrap();
    assert_eq!(
        (&compatible["messages"][1]["role"], &compatible["max_tokens"]),
        (&json!("system"), &json!(100))
    );
    let alone = json!({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]});
    let body = built("openai", json!({}), alone).unwrap();
    assert_eq!(body["messages"][0]["content"], Value::Null);
    assert_eq!(body["messages"][0]["tool_calls"][0]["id"], "c");
}

fn everything() -> Value {
    json!({
        "input": [{"role": "user", "content": "x"}],
        "tools": [{"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": true},
                  {"type": "function", "name": "g"}],
        "tool_choice": {"type": "function", "name": "f"}, "parallel_tool_calls": false,
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": true}, "verbosity": "low"},
        "reasoning": {"effort": "high", "summary": "auto"},
        "top_p": 0.9, "presence_penalty": 0.1, "frequency_penalty": 0.2, "service_tier": "flex",
        "safety_identifier": "u1", "prompt_cache_key": "k", "prompt_cache_retention": "24h",
        "prompt_cache_options": {"mode": "explicit", "ttl": "30m"}
    })
}

#[test]
fn chat_completions_get_every_parameter_under_their_names() {
    let body = built("openai", json!({}), everything()).unwrap();
    assert_eq!(
        body["tools"][0]["function"],
        json!({"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": true})
    );
    assert_eq!(body["tools"][1], json!({"type": "function", "function": {"name": "g"}}));
    assert_eq!(body["tool_choice"], json!({"type": "function", "function": {"name": "f"}}));
    assert_eq!(
        body["response_format"],
        json!({"type": "json_schema", "json_schema": {"name": "n", "description": null, "schema": {"type": "object"}, "strict": true}})
    );
    for (field, wanted) in [
        ("parallel_tool_calls", json!(false)),
        ("verbosity", json!("low")),
        ("reasoning_effort", json!("high")),
        ("top_p", json!(0.9)),
        ("presence_penalty", json!(0.1)),
        ("frequency_penalty", json!(0.2)),
        ("service_tier", json!("flex")),
        ("safety_identifier", json!("u1")),
        ("prompt_cache_key", json!("k")),
        ("prompt_cache_retention", json!("24h")),
        ("prompt_cache_options", json!({"mode": "explicit", "ttl": "30m"})),
    ] {
        assert_eq!(body[field], wanted, "{field}");
    }
    let azure = built("azure", json!({}), everything()).unwrap();
    assert_eq!((&azure["user"], &azure["safety_identifier"]), (&json!("u1"), &Value::Null));
    let mut listed = everything();
    listed["tool_choice"] =
        json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]});
    let body = built("openai", json!({}), listed.clone()).unwrap();
    assert_eq!((body["tools"].as_array().unwrap().len(), &body["tool_choice"]), (1, &json!("required")));
    let body = built("responses", json!({}), listed).unwrap();
    assert_eq!(
        (body["tools"].as_array().unwrap().len(), &body["tool_choice"]["type"]),
        (2, &json!("allowed_tools"))
    );
}

#[test]
fn an_upstream_responses_api_gets_items_and_its_own_reasoning() {
    let mut items = conversation();
    items
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "reasoning", "summary": [], "encrypted_content": "other~X"}));
    items
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}));
    let body = built("responses", json!({}), json!({"instructions": "Hi", "input": items})).unwrap();
    assert_eq!(
        (&body["store"], &body["stream"], &body["include"]),
        (&json!(false), &json!(true), &Value::Null)
    );
    let input = body["input"].as_array().unwrap();
    assert!(input.iter().all(|item| item.get("id").is_none()));
    let reasoning: Vec<&Value> = input.iter().filter(|item| item["type"] == "reasoning").collect();
    assert_eq!(reasoning.len(), 2, "another deployment's reasoning stays here");
    assert_eq!(reasoning[0]["encrypted_content"], "SIGNED");
    assert_eq!(reasoning[1]["encrypted_content"], "gAAA");
    assert_eq!(
        input[1]["content"][1],
        json!({"type": "input_image", "image_url": "data:image/png;base64,iVBO", "detail": "low"})
    );
    assert_eq!(
        input[4],
        json!({"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"x\":1}"})
    );
    let body = built("responses", json!({}), everything()).unwrap();
    assert_eq!(body["include"], json!(["reasoning.encrypted_content"]));
    assert_eq!(body["reasoning"], json!({"effort": "high", "summary": "auto"}));
    assert_eq!(body["text"]["format"]["name"], "n");
    assert_eq!(body["tool_choice"], json!({"type": "function", "name": "f"}));
    assert_eq!(body["safety_identifier"], "u1");
}

#[test]
fn claude_gets_blocks_and_its_own_thoughts() {
    let body = built("anthropic", json!({}), json!({"instructions": "Hi", "input": conversation()})).unwrap();
    let mark = json!({"type": "ephemeral"});
    assert_eq!(
        body,
        json!({
            "model": "the-model", "max_tokens": 16_384, "stream": true,
            "system": [{"type": "text", "text": "Hi\n\nBe brief.", "cache_control": mark}],
            "messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
                    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}, "title": "a.pdf"}]},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "raw thought", "signature": "SIGNED"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}},
                    {"type": "tool_use", "id": "c2", "name": "g", "input": {}}]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "one"},
                    {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "t"}, {"type": "text", "text": "wo"}]}]},
                {"role": "assistant", "content": [{"type": "text", "text": "No."}]},
                {"role": "user", "content": [{"type": "text", "text": "Go on", "cache_control": mark}]}]
        })
    );
    let redacted = json!([{"role": "user", "content": "x"}, {"type": "reasoning", "summary": [], "encrypted_content": "dep~redacted~ZGF0"}]);
    let body = built("anthropic", json!({}), json!({"input": redacted})).unwrap();
    assert_eq!(body["messages"][1]["content"], json!([{"type": "redacted_thinking", "data": "ZGF0"}]));
    let headless = json!([{"role": "assistant", "content": "I"}]);
    let body = built("anthropic", json!({}), json!({"input": headless})).unwrap();
    assert_eq!(body["messages"][0]["role"], "user");
}

#[test]
fn claude_gets_schemas_effort_and_choices_in_its_own_terms() {
    let mut params = everything();
    params.as_object_mut().unwrap().remove("presence_penalty");
    let body = built("anthropic", json!({}), params.clone()).unwrap();
    assert_eq!(
        body["tools"][0],
        json!({"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": true})
    );
    assert_eq!(body["tools"][1], json!({"name": "g", "input_schema": {"type": "object"}}));
    assert_eq!(body["tool_choice"], json!({"type": "tool", "name": "f", "disable_parallel_tool_use": true}));
    assert_eq!(
        body["output_config"],
        json!({"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}})
    );
    assert_eq!((&body["thinking"], &body["metadata"]["user_id"]), (&Value::Null, &json!("u1")));
    params["tool_choice"] = json!("auto");
    let body = built("anthropic", json!({}), params.clone()).unwrap();
    assert_eq!(body["thinking"], json!({"type": "adaptive"}));
    let body = built("anthropic", json!({"thinking": "budget"}), params).unwrap();
    assert_eq!(body["thinking"], json!({"type": "enabled", "budget_tokens": 16_383}));
    assert_eq!(body["output_config"]["effort"], Value::Null);
}

#[test]
fn what_a_format_has_no_place_for_is_refused() {
    let content = |part: Value| json!({"input": [{"role": "user", "content": [part]}]});
    let image = content(json!({"type": "input_image", "file_id": "file_1"}));
    let file = content(json!({"type": "input_file", "file_url": "https://x.example/a.pdf"}));
    let video = content(json!({"type": "input_video", "video_url": "https://x.example/a.mp4"}));
    let output = json!({"input": [{"type": "function_call_output", "call_id": "c",
                                    "output": [{"type": "input_image", "image_url": "https://x.example/a.png"}]}]});
    let compaction = json!({"input": [{"type": "compaction", "encrypted_content": "x"}]});
    for (provider, params) in [
        ("azure", &image),
        ("anthropic", &image),
        ("azure", &file),
        ("azure", &video),
        ("anthropic", &video),
        ("openai", &output),
        ("openai", &compaction),
        ("responses", &compaction),
        ("anthropic", &compaction),
    ] {
        let error = built(provider, json!({}), params.clone()).unwrap_err();
        assert_eq!(
            (error.class, error.param.as_deref()),
            (ErrorClass::BadRequest, Some("input")),
            "{provider} {params}"
        );
    }
    for (provider, params) in
        [("responses", &image), ("anthropic", &file), ("openai", &video), ("anthropic", &output)]
    {
        assert!(built(provider, json!({}), params.clone()).is_ok(), "{provider} {params}");
    }
}

#[test]
fn the_most_effort_and_how_it_is_spent_go_to_those_who_know_them() {
    let params = json!({"reasoning": {"effort": "max", "context": "all_turns", "mode": "pro"}, "max_output_tokens": 4_000});
    let body = built("responses", json!({}), params.clone()).unwrap();
    assert_eq!(body["reasoning"], json!({"effort": "max", "context": "all_turns", "mode": "pro"}));
    assert_eq!(built("azure", json!({}), params.clone()).unwrap()["reasoning_effort"], "max");
    let adaptive = built("anthropic", json!({"max_output_tokens": 4_000}), params.clone()).unwrap();
    assert_eq!(adaptive["output_config"], json!({"effort": "max"}));
    let budget =
        built("anthropic", json!({"thinking": "budget", "max_output_tokens": 4_000}), params).unwrap();
    assert_eq!(budget["thinking"], json!({"type": "enabled", "budget_tokens": 3_999}));
}

/// As Anthropic wants it, whatever another model wrote or the conversation became.
#[test]
fn anthropic_gets_what_it_takes() {
    let call = |id: &str| json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"});
    let output = |id: &str| json!({"type": "function_call_output", "call_id": id, "output": "1"});
    let said = |text: &str| json!({"role": "user", "content": text});
    let thought = json!({"type": "reasoning", "summary": [], "encrypted_content": "dep~SIG"});
    let input = json!([
        said("Call it."),
        call("functions.f:0"),
        said("  \n"),
        said("Wait."),
        output("functions.f:0")
    ]);
    let body = built("anthropic", json!({}), json!({"input": input})).unwrap();
    let content = |at: usize| body["messages"][at]["content"].as_array().unwrap();
    assert_eq!(
        (body["messages"].as_array().unwrap().len(), content(0).len(), content(1).len(), content(2).len()),
        (3, 2, 1, 1),
        "{body}"
    );
    assert_eq!((&content(0)[1]["text"], &content(1)[0]["id"]), (&json!("Wait."), &json!("functions_f_0")));
    assert_eq!(
        (&content(2)[0]["type"], &content(2)[0]["tool_use_id"]),
        (&json!("tool_result"), &json!("functions_f_0"))
    );

    // With a budget to think, a turn that goes on must have begun with a thought.
    let ask = |input: Value| {
        let params = json!({"input": input, "reasoning": {"effort": "low"}});
        built("anthropic", json!({"thinking": "budget", "max_output_tokens": 4_000}), params).unwrap()
    };
    for (input, thinks) in [
        (json!([said("Hi")]), true),
        (json!([said("Hi"), call("a"), output("a")]), false),
        (json!([said("Hi"), thought, call("a"), output("a")]), true),
        (json!([said("Hi"), thought, call("a"), output("a"), call("b"), output("b")]), true),
        (json!([said("Hi"), call("a"), output("a"), thought, call("b"), output("b")]), false),
        (
            json!([said("Hi"), call("a"), output("a"), {"role": "assistant", "content": "1"}, said("And?")]),
            true,
        ),
    ] {
        assert_eq!(ask(input.clone()).get("thinking").is_some(), thinks, "{input}");
    }
}
