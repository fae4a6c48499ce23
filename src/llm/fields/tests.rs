use serde_json::{Value, json};

use super::*;

/// A request that uses a row's field as the row says, and nothing else.
fn using(field: &Field) -> Value {
    let key = |name: &str, value: Value| json!({ name: value });
    match (field.name, field.used) {
        ("type" | "model" | "input" | "instructions" | "previous_response_id" | "conversation", _)
        | (
            "service_tier" | "safety_identifier" | "prompt_cache_key" | "prompt_cache_retention" | "user",
            _,
        ) => key(field.name, json!("x")),
        ("include", used) => key("include", json!([used])),
        ("tools", _) => key("tools", json!([{"type": "function", "name": "f"}])),
        ("tool_choice", _) => key("tool_choice", json!("auto")),
        ("parallel_tool_calls" | "stream" | "background" | "store", _) => key(field.name, json!(true)),
        ("max_tool_calls", _) => key("max_tool_calls", json!(3)),
        ("metadata", _) => key("metadata", json!({})),
        ("text.format", "json_schema") => {
            key("text", json!({"format": {"type": "json_schema", "name": "n", "schema": {}}}))
        }
        ("text.format", used) => key("text", json!({"format": {"type": used}})),
        ("text.verbosity", _) => key("text", json!({"verbosity": "low"})),
        ("reasoning.effort", "none") => key("reasoning", json!({"effort": "none"})),
        ("reasoning.effort", _) => key("reasoning", json!({"effort": "low"})),
        ("reasoning.context", _) => key("reasoning", json!({"context": "all_turns"})),
        ("reasoning.mode", _) => key("reasoning", json!({"mode": "pro"})),
        ("prompt_cache_options", "mode or ttl") => key("prompt_cache_options", json!({"ttl": "30m"})),
        ("prompt_cache_options", "prewarm") => key("prompt_cache_options", json!({"prewarm": true})),
        ("prompt_cache_options", _) => {
            key("prompt_cache_options", json!({"comparison_response_id": "resp_1"}))
        }
        ("prompt" | "moderation" | "access_programs" | "image", _) => key(field.name, json!({"id": "x"})),
        ("reasoning.summary", _) => key("reasoning", json!({"summary": "auto"})),
        ("temperature", "above 1") => key("temperature", json!(1.5)),
        ("temperature" | "top_p" | "presence_penalty" | "frequency_penalty", _) => {
            key(field.name, json!(0.5))
        }
        ("top_logprobs", _) => key("top_logprobs", json!(3)),
        ("max_output_tokens", _) => key("max_output_tokens", json!(100)),
        ("stream_options", _) => key("stream_options", json!({})),
        ("truncation", _) => key("truncation", json!("auto")),
        ("context_management", _) => key("context_management", json!([])),
        ("on_disconnect", _) => key("on_disconnect", json!("cancel")),
        ("callback", _) => key("callback", json!("crm")),
        (name, used) => panic!("no request uses {name} {used}"),
    }
}

#[test]
fn every_row_decides_what_it_says() {
    for field in FIELDS {
        let params = CreateResponse::parse(using(field).to_string().as_bytes()).unwrap();
        let used: Vec<&str> =
            FIELDS.iter().filter(|each| (each.is_used)(&params)).map(|each| each.name).collect();
        assert_eq!(used, [field.name], "{}", field.used);
        for provider in PROVIDERS {
            let outcome = check(&params, provider);
            if field.fate(provider) == Refused {
                let error = outcome.unwrap_err();
                assert_eq!(
                    (error.status.as_u16(), error.param.as_deref()),
                    (400, Some(field.name)),
                    "{provider:?}"
                );
            } else {
                assert_eq!(outcome, Ok(()), "{} at {provider:?}", field.name);
            }
        }
    }
}

#[test]
fn what_only_chat_completions_ask_for_has_its_fate() {
    let chat = crate::openresponses::OnlyChat { stop: vec!["x".into()], seed: Some(1) };
    let params = CreateResponse { chat: Some(chat), ..CreateResponse::default() };
    let used: Vec<&str> = all().filter(|each| (each.is_used)(&params)).map(|each| each.name).collect();
    assert_eq!(used, ["stop", "seed"]);
    assert_eq!(check(&params, ProviderKind::Responses).unwrap_err().param.as_deref(), Some("stop"));
    assert_eq!(check(&params, ProviderKind::Anthropic), Ok(()));
}

#[test]
fn every_field_of_a_request_has_a_row() {
    let error = CreateResponse::parse(br#"{"no_such_field": 1}"#).unwrap_err();
    assert_eq!(error.code, "unknown_parameter");
    // serde lists them all when one is unknown.
    let list = serde_json::from_str::<CreateResponse>(r#"{"no_such_field": 1}"#).unwrap_err().to_string();
    let names: Vec<&str> = list.split('`').skip(3).step_by(2).collect();
    assert!(names.len() > 25, "{list}");
    for name in names {
        let row =
            FIELDS.iter().any(|field| field.name == name || field.name.starts_with(&format!("{name}.")));
        assert!(row, "{name} has no row");
    }
}

#[test]
fn the_page_holds_the_tables() {
    let tables = [("fields", fields_markdown()), ("commands", crate::llm::commands_markdown())];
    crate::testing::assert_tables("docs/models.md", &tables, "llm::fields");
}
