//! Every oddity of `llm.md` D that is one of a stream.

use super::*;

const AZURE: ProviderKind = ProviderKind::Azure;
const OPENAI: ProviderKind = ProviderKind::Openai;
const CLAUDE: ProviderKind = ProviderKind::Anthropic;
const RESPONSES: ProviderKind = ProviderKind::Responses;

const HELLO: &str =
    r#"{"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}],"usage":null}"#;
const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}}"#;

/// An Azure stream with everything that Azure adds.
pub(super) fn azure() -> String {
    data(&[
        r#"{"id":"","object":"","created":0,"model":"","choices":[],"prompt_filter_results":[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false}}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"content_filter_results":{},"finish_reason":null}],"obfuscation":"xK","usage":null}"#,
        HELLO,
        r#"{"choices":[{"index":0,"finish_reason":null,"content_filter_offsets":{"check_offset":0,"start_offset":0,"end_offset":5},"content_filter_results":{"hate":{"filtered":false}}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":" wörld"},"finish_reason":null}],"usage":null}"#,
        STOP,
        r#"{"choices":[{"index":0,"content_filter_offsets":{"check_offset":5},"content_filter_results":{}}],"usage":null}"#,
        USAGE,
        "[DONE]",
    ])
}

/// Two calls in turns, with reasoning before.
pub(super) fn calls() -> String {
    data(&[
        r#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"b","function":{"name":"g","arguments":"{\"y\":"}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\":1}"}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"function":{"name":"g","arguments":"\"ü\"}"}}]}}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#,
        USAGE,
        "[DONE]",
    ])
}

#[test]
fn azures_frames_around_the_answer_are_passed_over() {
    let wanted = [said("Hello"), said(" wörld"), finish(Finish::Stop), tokens(9, 4, 3, 2)];
    assert_eq!(whole(AZURE, &azure()), wanted);
}

/// An annotation of Azure's asynchronous filter, as it stands in a choice.
fn annotation(start: u64, finish: &str, results: &str) -> String {
    let end = start + 5;
    format!(
        r#"{{"id":"","choices":[{{"index":0,"finish_reason":{finish},"content_filter_results":{results},"content_filter_offsets":{{"check_offset":44,"start_offset":{start},"end_offset":{end}}}}}],"usage":null}}"#
    )
}

#[test]
fn what_azures_filter_takes_back_counts_from_the_answers_begin() {
    const SAFE: &str =
        r#"{"hate":{"filtered":false,"severity":"safe"},"jailbreak":{"detected":true,"filtered":false}}"#;
    const FOUND: &str =
        r#"{"hate":{"filtered":false},"protected_material_text":{"detected":true,"filtered":true}}"#;
    const LISTED: &str = r#"{"custom_blocklists":[{"id":"words","filtered":true}]}"#;
    let retract = |keep| Upstream::Chunk(Chunk::Retract { keep });
    let (fine, world) =
        (annotation(44, "null", SAFE), r#"{"choices":[{"index":0,"delta":{"content":" world"}}]}"#);
    // In the middle, with the finish in the same frame; nothing follows but the usage.
    for (finish_reason, results) in
        [("\"content_filter\"", FOUND), ("\"content_filter\"", "{}"), ("null", FOUND), ("null", LISTED)]
    {
        let bad = annotation(46, finish_reason, results);
        let text = data(&[HELLO, &fine, world, &bad, HELLO, STOP, USAGE, "[DONE]"]);
        let wanted =
            [said("Hello"), said(" world"), retract(2), finish(Finish::ContentFilter), tokens(9, 4, 3, 2)];
        assert_eq!(whole(AZURE, &text), wanted, "{bad}");
    }
    // After the finish, which then stands corrected; and the furthest back counts.
    let text = data(&[
        HELLO,
        &fine,
        world,
        STOP,
        &annotation(49, "null", FOUND),
        &annotation(46, "null", FOUND),
        "[DONE]",
    ]);
    let wanted = [
        said("Hello"),
        said(" world"),
        finish(Finish::Stop),
        retract(5),
        finish(Finish::ContentFilter),
        retract(2),
        finish(Finish::ContentFilter),
    ];
    assert_eq!(whole(AZURE, &text), wanted);
    // If nothing tells where the answer begins, all of it goes.
    let text = data(&[HELLO, STOP, &annotation(46, "null", FOUND), &annotation(99, "null", FOUND)]);
    let wanted = [said("Hello"), finish(Finish::Stop), retract(0), finish(Finish::ContentFilter)];
    assert_eq!(whole(AZURE, &text), wanted);
    // The default filter stops before it shows anything: it takes nothing back.
    let stopped = format!(
        r#"{{"choices":[{{"index":0,"delta":{{}},"finish_reason":"content_filter","content_filter_results":{FOUND}}}]}}"#
    );
    assert_eq!(whole(AZURE, &data(&[HELLO, &stopped])), [said("Hello"), finish(Finish::ContentFilter)]);
    assert_eq!(whole(AZURE, &data(&[HELLO, &fine, STOP])), [said("Hello"), finish(Finish::Stop)]);
}

#[test]
fn log_probabilities_come_with_their_text() {
    let likely = |delta: &str, logprobs: serde_json::Value| {
        let logprobs = serde_json::from_value::<Vec<LogProb>>(logprobs).unwrap();
        Upstream::Chunk(Chunk::TextLogProbs { delta: delta.into(), logprobs: logprobs.into() })
    };
    let plain =
        serde_json::json!([{"token": "Hé", "logprob": -0.25, "bytes": [72, 195, 169], "top_logprobs": []}]);
    let top = serde_json::json!([{"token": " b", "logprob": -1.5, "bytes": [32, 98],
        "top_logprobs": [{"token": " b", "logprob": -1.5, "bytes": [32, 98]}]}]);
    let chat = data(&[
        r#"{"choices":[{"delta":{"role":"assistant","content":""},"logprobs":null}]}"#,
        r#"{"choices":[{"delta":{"content":"Hé"},"logprobs":{"content":[{"token":"Hé","logprob":-0.25,"bytes":null,"top_logprobs":null}],"refusal":null}}]}"#,
        r#"{"choices":[{"delta":{"content":" b"},"logprobs":{"content":[{"token":" b","logprob":-1.5,"bytes":[32,98],"top_logprobs":[{"token":" b","logprob":-1.5}]}]}}]}"#,
        // As others have them, or make no sense: the text stays.
        r#"{"choices":[{"delta":{"content":"c"},"logprobs":[1]}]}"#,
        r#"{"choices":[{"delta":{"content":"d"},"logprobs":{"content":[{"token":7}]}}]}"#,
        STOP,
    ]);
    let wanted =
        [likely("Hé", plain.clone()), likely(" b", top.clone()), said("c"), said("d"), finish(Finish::Stop)];
    assert_eq!(whole(OPENAI, &chat), wanted);
    let responses = typed(&[
        r#"{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"Hé","logprobs":[{"token":"Hé","logprob":-0.25}]}"#,
        r#"{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":" b","logprobs":[{"token":" b","logprob":-1.5,"top_logprobs":[{"token":" b","logprob":-1.5}]}]}"#,
        r#"{"type":"response.completed","response":{}}"#,
    ]);
    assert_eq!(whole(RESPONSES, &responses), [likely("Hé", plain), likely(" b", top), finish(Finish::Stop)]);
}

#[test]
fn what_another_colloquy_takes_back_is_taken_back() {
    let delta = |index, text: &str| {
        format!(
            r#"{{"type":"response.output_text.delta","output_index":{index},"content_index":0,"delta":"{text}"}}"#
        )
    };
    let text = typed(&[
        &delta(0, "one"),
        &delta(2, "two "),
        &delta(2, "three"),
        r#"{"type":"colloquy:output_text_retracted","output_index":2,"content_index":0,"text":"two "}"#,
        r#"{"type":"response.output_text.done","output_index":2,"content_index":0,"text":"two "}"#,
        r#"{"type":"response.incomplete","response":{"incomplete_details":{"reason":"content_filter"}}}"#,
    ]);
    let wanted = [
        said("one"),
        said("two "),
        said("three"),
        Upstream::Chunk(Chunk::Retract { keep: 7 }),
        finish(Finish::ContentFilter),
    ];
    assert_eq!(whole(RESPONSES, &text), wanted);
}

#[test]
fn usage_is_found_in_whatever_frame_it_comes() {
    for usage in [
        USAGE.to_owned(),
        USAGE.replace("[]", "null"),
        USAGE.replace(r#""choices":[],"#, ""),
        USAGE.replace(
            "[]",
            r#"[{"index":0,"delta":{"content":"","role":"assistant"},"finish_reason":"stop"}]"#,
        ),
        USAGE.replace("[]", r#"[{"index":0,"delta":{"content":"again"}}]"#),
    ] {
        let wanted = [said("Hello"), finish(Finish::Stop), tokens(9, 4, 3, 2)];
        assert_eq!(whole(OPENAI, &data(&[HELLO, STOP, &usage, "[DONE]"])), wanted, "{usage}");
        // Without [DONE], and without a blank line at the end.
        let text = data(&[HELLO, STOP, &usage]);
        assert_eq!(whole(OPENAI, text.trim_end()), wanted, "{usage}");
    }
    // Some never send it, some count reasoning beside the completion.
    assert_eq!(whole(OPENAI, &data(&[HELLO, STOP, "[DONE]"])), [said("Hello"), finish(Finish::Stop)]);
    let odd = r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":9},"prompt_cache_hit_tokens":7}}"#;
    assert!(whole(OPENAI, &data(&[HELLO, STOP, odd])).contains(&tokens(1, 1, 9, 9)));
}

#[test]
fn comments_are_no_events() {
    let text = format!(
        ": OPENROUTER PROCESSING\n\n{}: OPENROUTER PROCESSING\n\n{}",
        data(&[HELLO]),
        data(&[STOP, "[DONE]"])
    );
    assert_eq!(whole(OPENAI, &text), [said("Hello"), finish(Finish::Stop)]);
}

#[test]
fn an_end_before_the_finish_is_an_interruption_and_one_after_it_is_none() {
    for text in [data(&[HELLO]), String::new(), format!("{}data: {{\"choi", data(&[HELLO]))] {
        let error = read(OPENAI, &[text.as_bytes()]).1.unwrap_err();
        assert_eq!((error.code, error.charged), ("provider_interrupted", true), "{text}");
    }
    for text in [data(&[HELLO, STOP]), format!("{}data: {{\"choi", data(&[HELLO, STOP]))] {
        assert_eq!(whole(OPENAI, &text), [said("Hello"), finish(Finish::Stop)]);
    }
    // The protocol's own end counts as a finish.
    assert_eq!(whole(OPENAI, &data(&[HELLO, "[DONE]"])), [said("Hello"), finish(Finish::Stop)]);
}

#[test]
fn an_error_inside_a_stream_ends_it() {
    for (frame, class) in [
        (
            r#"{"error":{"message":"The server had an error","type":"server_error","param":null,"code":null}}"#,
            ErrorClass::Server,
        ),
        (
            r#"{"error":{"code":429,"message":"slow down"},"choices":[{"delta":{"content":""},"finish_reason":"error"}]}"#,
            ErrorClass::RateLimited,
        ),
        (r#"{"choices":[{"delta":{"content":""},"finish_reason":"error"}]}"#, ErrorClass::Server),
    ] {
        let (found, end) = read(OPENAI, &[data(&[HELLO, frame]).as_bytes()]);
        assert_eq!((found, end.unwrap_err().class), (vec![said("Hello")], class), "{frame}");
    }
    let late = data(&[HELLO, STOP, r#"{"error":{"message":"late"}}"#]);
    assert_eq!(whole(OPENAI, &late), [said("Hello"), finish(Finish::Stop)]);
    for broken in ["{", "[]", "nonsense"] {
        let error = read(OPENAI, &[data(&[HELLO, broken, STOP]).as_bytes()]).1.unwrap_err();
        assert_eq!(error.class, ErrorClass::Protocol, "{broken}");
    }
}

#[test]
fn finishes_have_one_meaning() {
    for (word, wanted) in [
        ("stop", Finish::Stop),
        ("eos", Finish::Stop),
        ("length", Finish::Length),
        ("content_filter", Finish::ContentFilter),
    ] {
        let text = data(&[HELLO, &STOP.replace("stop", word), "[DONE]"]);
        assert_eq!(whole(OPENAI, &text), [said("Hello"), finish(wanted)], "{word}");
    }
}

#[test]
fn tool_calls_come_in_turns_with_names_repeated() {
    let wanted = [
        Upstream::Chunk(Chunk::ReasoningText("hm".into())),
        call(0, "a", "f"),
        call(1, "b", "g"),
        arguments(1, "{\"y\":"),
        arguments(0, "{\"x\":1}"),
        arguments(1, "\"ü\"}"),
        finish(Finish::ToolCalls),
        tokens(9, 4, 3, 2),
    ];
    assert_eq!(whole(OPENAI, &calls()), wanted);
}

#[test]
fn tool_calls_with_half_of_the_fields_missing_are_told_apart() {
    let delta = |calls: &str| format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{calls}]}}}}]}}"#);
    let made = |index: u16| format!("call_{}_{index}", ATTEMPT.simple());
    // Neither ids nor indexes, and arguments as an object: Ollama. `stop` though tools are called.
    let text = data(&[
        &delta(
            r#"{"function":{"name":"f","arguments":{"x":1}}},{"function":{"name":"f","arguments":{"x":2}}}"#,
        ),
        STOP,
        "[DONE]",
    ]);
    let wanted = [
        call(0, &made(0), "f"),
        arguments(0, r#"{"x":1}"#),
        call(1, &made(1), "f"),
        arguments(1, r#"{"x":2}"#),
        finish(Finish::ToolCalls),
    ];
    assert_eq!(whole(OPENAI, &text), wanted);
    // Every call under index 0: Gemini.
    let text = data(&[
        &delta(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}"#),
        &delta(r#"{"index":0,"id":"b","function":{"name":"g","arguments":"{}"}}"#),
        STOP,
    ]);
    let wanted = [
        call(0, "a", "f"),
        arguments(0, "{}"),
        call(1, "b", "g"),
        arguments(1, "{}"),
        finish(Finish::ToolCalls),
    ];
    assert_eq!(whole(OPENAI, &text), wanted);
    // The name after the arguments, ids null or empty.
    let text = data(&[
        &delta(r#"{"index":0,"id":null,"function":{"arguments":"{"}}"#),
        &delta(r#"{"index":0,"id":"","function":{"name":"f","arguments":"}"}}"#),
        STOP,
    ]);
    assert_eq!(whole(OPENAI, &text), [call(0, &made(0), "f"), arguments(0, "{}"), finish(Finish::ToolCalls)]);
    // A call without a name is nothing.
    let text = data(&[&delta(r#"{"index":0,"id":"a","function":{"arguments":"{}"}}"#), STOP]);
    assert_eq!(read(OPENAI, &[text.as_bytes()]).1.unwrap_err().class, ErrorClass::Protocol);
}

#[test]
fn reasoning_and_refusals_have_several_names() {
    let delta = |fields: &str| format!(r#"{{"choices":[{{"delta":{{{fields}}}}}]}}"#);
    let thought = |text: &str| Upstream::Chunk(Chunk::ReasoningText(text.into()));
    let text = data(&[
        &delta(r#""reasoning":"one","content":"""#),
        &delta(r#""reasoning":"two","reasoning_content":"two","content":null"#),
        &delta(r#""reasoning":{"effort":"x"}"#),
        &delta(r#""refusal":"No.""#),
        STOP,
    ]);
    let wanted =
        [thought("one"), thought("two"), Upstream::Chunk(Chunk::Refusal("No.".into())), finish(Finish::Stop)];
    assert_eq!(whole(OPENAI, &text), wanted);
}

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
