//! Every oddity of `llm.md` D that is one of a stream.

use super::*;

const AZURE: ProviderKind = ProviderKind::Azure;
const OPENAI: ProviderKind = ProviderKind::Openai;

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
