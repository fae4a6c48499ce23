//! Streams of named events: Anthropic Messages, and an upstream Responses API.

use super::*;

const CLAUDE: ProviderKind = ProviderKind::Anthropic;

/// A Claude that thinks, speaks and calls a tool, with pings and an event nobody knows.
pub(super) fn claude() -> String {
    typed(&[
        r#"{"type":"message_start","message":{"id":"msg_1","content":[],"usage":{"input_tokens":5,"cache_read_input_tokens":100,"cache_creation_input_tokens":10,"output_tokens":1}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Let me sée"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EqQB"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"novelty","index":1,"surprise":[{}]}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Well"}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"citations_delta","citation":{"x":1}}}"#,
        r#"{"type":"content_block_stop","index":1}"#,
        r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_1","name":"f","input":{}}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"x\":1}"}}"#,
        r#"{"type":"content_block_stop","index":2}"#,
        r#"{"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"toolu_2","name":"g","input":{}}}"#,
        r#"{"type":"content_block_stop","index":3}"#,
        r#"{"type":"content_block_start","index":4,"content_block":{"type":"redacted_thinking","data":"ZGF0YQ"}}"#,
        r#"{"type":"content_block_stop","index":4}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":40}}"#,
        r#"{"type":"message_delta","delta":{},"usage":{"input_tokens":6,"output_tokens":42}}"#,
        r#"{"type":"message_stop"}"#,
    ])
}

#[test]
fn claude_thinks_signs_speaks_and_calls() {
    let sealed = |text: &str| Upstream::Chunk(Chunk::ReasoningEncrypted(text.into()));
    let usage = |input, output| {
        Upstream::Usage(TokenUsage { input, cached: 100, cache_written: 10, output, reasoning: 0 })
    };
    let wanted = [
        usage(115, 1),
        Upstream::Chunk(Chunk::ReasoningText("Let me sée".into())),
        sealed("dep~EqQB"),
        said("Well"),
        call(0, "toolu_1", "f"),
        arguments(0, "{\"x\":1}"),
        call(1, "toolu_2", "g"),
        arguments(1, "{}"),
        sealed("dep~redacted~ZGF0YQ"),
        usage(115, 40),
        finish(Finish::ToolCalls),
        usage(116, 42),
    ];
    assert_eq!(whole(CLAUDE, &claude()), wanted);
}

#[test]
fn claude_can_fail_and_be_cut_off_after_a_200() {
    let begin = [
        r#"{"type":"message_start","message":{"usage":{"input_tokens":5,"output_tokens":1}}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}"#,
    ];
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let text = typed(&[begin[0], begin[1], overloaded]);
    let error = read(CLAUDE, &[text.as_bytes()]).1.unwrap_err();
    assert_eq!((error.class, error.charged), (ErrorClass::Overloaded, true));
    let error = read(CLAUDE, &[typed(&begin).as_bytes()]).1.unwrap_err();
    assert_eq!(error.class, ErrorClass::Interrupted);
    for (word, wanted) in
        [("end_turn", Finish::Stop), ("max_tokens", Finish::Length), ("refusal", Finish::ContentFilter)]
    {
        let end = format!(
            r#"{{"type":"message_delta","delta":{{"stop_reason":"{word}"}},"usage":{{"output_tokens":9}}}}"#
        );
        let found = whole(CLAUDE, &typed(&[begin[0], begin[1], &end]));
        assert_eq!(found.last(), Some(&finish(wanted)), "{word}");
    }
}

/// An upstream Responses API with everything that we take from it.
pub(super) fn responses() -> String {
    typed(&[
        r#"{"type":"response.created","sequence_number":0,"response":{"id":"r","usage":null}}"#,
        r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"reasoning","id":"rs_1","summary":[]}}"#,
        r#"{"type":"response.reasoning_summary_part.added","output_index":0,"summary_index":0,"part":{"type":"summary_text","text":""}}"#,
        r#"{"type":"response.reasoning_summary_text.delta","output_index":0,"summary_index":0,"delta":"One."}"#,
        r#"{"type":"response.reasoning_summary_text.delta","output_index":0,"summary_index":1,"delta":"Two.","obfuscation":"x"}"#,
        r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"gAAA"}}"#,
        r#"{"type":"response.output_item.added","output_index":1,"item":{"type":"message","role":"assistant","content":[]}}"#,
        r#"{"type":"response.output_text.delta","output_index":1,"content_index":0,"delta":"Grüße","logprobs":[]}"#,
        r#"{"type":"response.output_text.done","output_index":1,"content_index":0,"text":"Grüße"}"#,
        r#"{"type":"response.refusal.delta","output_index":1,"content_index":1,"delta":"No"}"#,
        r#"{"type":"response.output_item.added","output_index":2,"item":{"type":"function_call","call_id":"c1","name":"f","arguments":""}}"#,
        r#"{"type":"response.output_item.added","output_index":3,"item":{"type":"function_call","call_id":"c2","name":"g","arguments":""}}"#,
        r#"{"type":"response.function_call_arguments.delta","output_index":3,"delta":"{}"}"#,
        r#"{"type":"response.function_call_arguments.done","output_index":3,"arguments":"{}"}"#,
        r#"{"type":"response.function_call_arguments.done","output_index":2,"arguments":"{\"x\":1}"}"#,
        r#"{"type":"response.output_item.done","output_index":2,"item":{"type":"function_call","call_id":"c1","name":"f","arguments":"{\"x\":1}"}}"#,
        r#"{"type":"response.output_item.done","output_index":4,"item":{"type":"web_search_call","id":"ws"}}"#,
        r#"{"type":"response.completed","response":{"status":"completed","usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":3,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":12}}}"#,
    ])
}

#[test]
fn an_upstream_response_gives_all_it_has() {
    let summary = |part, text: &str| Upstream::Chunk(Chunk::ReasoningSummary { part, delta: text.into() });
    let wanted = [
        summary(0, "One."),
        summary(1, "Two."),
        Upstream::Chunk(Chunk::ReasoningEncrypted("dep~gAAA".into())),
        said("Grüße"),
        Upstream::Chunk(Chunk::Refusal("No".into())),
        call(0, "c1", "f"),
        call(1, "c2", "g"),
        arguments(1, "{}"),
        arguments(0, "{\"x\":1}"),
        tokens(9, 4, 3, 2),
        finish(Finish::ToolCalls),
    ];
    assert_eq!(whole(RESPONSES, &responses()), wanted);
}

#[test]
fn an_upstream_response_ends_in_four_ways() {
    let delta = r#"{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"Hi"}"#;
    let ended = |end: &str| read(RESPONSES, &[typed(&[delta, end]).as_bytes()]);
    for (reason, wanted) in [("max_output_tokens", Finish::Length), ("content_filter", Finish::ContentFilter)]
    {
        let end = format!(
            r#"{{"type":"response.incomplete","response":{{"incomplete_details":{{"reason":"{reason}"}}}}}}"#
        );
        assert_eq!(ended(&end).0, [said("Hi"), finish(wanted)]);
    }
    for (end, class) in [
        (
            r#"{"type":"response.failed","response":{"error":{"code":"server_error","message":"x"},"usage":{"input_tokens":2,"output_tokens":1}}}"#,
            ErrorClass::Server,
        ),
        (
            r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"x"}}}"#,
            ErrorClass::RateLimited,
        ),
        (r#"{"type":"error","code":"server_error","message":"x","param":null}"#, ErrorClass::Server),
        (
            r#"{"type":"error","error":{"type":"invalid_request_error","code":"context_length_exceeded","message":"x"}}"#,
            ErrorClass::BadRequest,
        ),
        (r#"{"type":"response.in_progress"}"#, ErrorClass::Interrupted),
    ] {
        assert_eq!(ended(end).1.unwrap_err().class, class, "{end}");
    }
    // A server that sends no deltas.
    let text = typed(&[
        r#"{"type":"response.output_text.done","output_index":0,"content_index":0,"text":"Whole"}"#,
        r#"{"type":"response.completed","response":{}}"#,
    ]);
    assert_eq!(whole(RESPONSES, &text), [said("Whole"), finish(Finish::Stop)]);
}

#[test]
fn usage_is_told_in_the_providers_own_words_too() {
    let raw = |provider, text: &str| {
        let told = read_all(provider, &[text.as_bytes()]).0;
        let told = told.into_iter().filter_map(|upstream| match upstream {
            Upstream::RawUsage(raw) => Some(raw),
            _ => None,
        });
        let last = told.last().expect("the usage");
        serde_json::from_str::<serde_json::Value>(&last).unwrap()
    };
    let chat = data(&[
        r#"{"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}],"usage":null}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"queue_time":0.5,"prompt_tokens_details":{"audio_tokens":0}}}"#,
    ]);
    let wanted = serde_json::json!({"prompt_tokens": 9, "completion_tokens": 3, "queue_time": 0.5,
                                    "prompt_tokens_details": {"audio_tokens": 0}});
    assert_eq!(raw(ProviderKind::Openai, &chat), wanted);
    // The last word on everything.
    let wanted = serde_json::json!({"input_tokens": 6, "cache_read_input_tokens": 100,
                                    "cache_creation_input_tokens": 10, "output_tokens": 42});
    assert_eq!(raw(CLAUDE, &claude()), wanted);
    assert_eq!(raw(RESPONSES, &responses())["total_tokens"], 12);
}

#[test]
fn an_answer_does_not_fail_for_how_its_tokens_are_counted() {
    let chat = |usage: &str| {
        let frame = format!(r#"{{"choices":[],"usage":{usage}}}"#);
        let said = r#"{"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}"#;
        whole(ProviderKind::Openai, &data(&[said, &frame, "[DONE]"]))
    };
    let answered = |provider, text: &str| {
        let mut found = whole(provider, text);
        found.retain(|upstream| !matches!(upstream, Upstream::Chunk(_) | Upstream::RawUsage(_)));
        found
    };
    for (usage, counted) in [
        (
            r#"{"prompt_tokens":3.0,"completion_tokens":2.0,"prompt_tokens_details":{"cached_tokens":1.0}}"#,
            true,
        ),
        (r#"{"prompt_tokens":3.5,"completion_tokens":2}"#, false),
        (r#"{"prompt_tokens":-3.0,"completion_tokens":2}"#, false),
        (r#"{"prompt_tokens":"3"}"#, false),
        (r#""many""#, false),
    ] {
        let mut wanted = vec![said("Hi"), finish(Finish::Stop)];
        wanted.extend(counted.then(|| tokens(3, 1, 2, 0)));
        assert_eq!(chat(usage), wanted, "{usage}");
    }
    let completed =
        r#"{"type":"response.completed","response":{"usage":{"input_tokens":3.0,"output_tokens":2.0}}}"#;
    assert_eq!(
        answered(ProviderKind::Responses, &typed(&[completed])),
        [tokens(3, 0, 2, 0), finish(Finish::Stop)]
    );
    let claude = typed(&[
        r#"{"type":"message_start","message":{"usage":{"input_tokens":5.0}}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":"two"}}"#,
        r#"{"type":"message_stop"}"#,
    ]);
    assert_eq!(answered(CLAUDE, &claude), [tokens(5, 0, 0, 0), finish(Finish::Stop)]);
}
