use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::openresponses::{CreateResponse, Input, Resolved};

fn request(mut params: Value, input: Value) -> ModelRequest {
    params["stream"] = json!(true);
    let Input::Items(items) = serde_json::from_value(input).unwrap() else { panic!("items") };
    let items = items.into_iter().map(|item| match item.resolve("input").unwrap() {
        Resolved::Item(item) => Arc::new(item),
        Resolved::Reference(_) => panic!("a reference"),
    });
    let items = items.collect();
    ModelRequest { params: Arc::new(CreateResponse::parse(params.to_string().as_bytes()).unwrap()), items }
}

/// What is said, how it ends, and how long it takes.
struct Played {
    found: Vec<Upstream>,
    end: Result<(), LlmError>,
    time: Duration,
}

/// The answer at 40 tokens a second, without waiting for it.
fn played(request: &ModelRequest) -> Result<Played, LlmError> {
    let stream = DemoStream::begin(request, Uuid::from_u128(1), 40)?;
    let mut played = Played { found: Vec::new(), end: Ok(()), time: Duration::ZERO };
    for step in stream.steps {
        played.time += step.after;
        match step.what {
            What::Say(upstream) => played.found.push(upstream),
            What::Fail(error) => played.end = Err(error),
        }
    }
    Ok(played)
}

fn text(found: &[Upstream]) -> String {
    found
        .iter()
        .filter_map(|upstream| match upstream {
            Upstream::Chunk(Chunk::Text(text)) => Some(&**text),
            _ => None,
        })
        .collect()
}

#[test]
fn it_gives_log_probabilities_and_takes_back_on_command() {
    let params = json!({"include": ["message.output_text.logprobs"], "top_logprobs": 2});
    let likely = played(&request(params, user("Say \"one two\"."))).unwrap().found;
    let mut tokens = 0;
    for upstream in &likely {
        if let Upstream::Chunk(Chunk::TextLogProbs { delta, logprobs }) = upstream {
            tokens += 1;
            let [logprob] = &**logprobs else { panic!("one token: {logprobs:?}") };
            assert_eq!((logprob.token.as_str(), logprob.bytes.as_slice()), (&**delta, delta.as_bytes()));
            assert_eq!((logprob.top_logprobs.len(), logprob.top_logprobs[0].token.as_str()), (2, &**delta));
            let again: crate::openresponses::LogProb = serde_json::from_value(json!(logprob)).unwrap();
            assert_eq!(again, *logprob, "written in full");
        }
    }
    assert_eq!(tokens, 2);
    assert_eq!(
        played(&request(json!({"top_logprobs": 2}), user("hi"))).map(|played| text(&played.found)).unwrap(),
        ""
    );
    let taken = played(&request(json!({}), user("/retract Say \"one two\"."))).unwrap().found;
    assert_eq!(text(&taken), "one two");
    let keep = Chunk::Retract { keep: 3 };
    assert!(
        taken.contains(&Upstream::Chunk(keep)) && taken.contains(&Upstream::Finish(Finish::ContentFilter))
    );
}

fn says(params: Value, input: Value) -> String {
    text(&played(&request(params, input)).unwrap().found)
}

fn user(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

#[test]
fn it_speaks_at_a_human_pace_and_always_the_same() {
    let request = request(json!({}), user("Tell me something in 40 words."));
    let first = played(&request).unwrap();
    let tokens = first.found.iter().filter(|upstream| matches!(upstream, Upstream::Chunk(_))).count();
    let pace = tokens as f64 / first.time.as_secs_f64();
    assert!((39.0..=41.0).contains(&pace), "{pace}");
    assert_eq!(text(&first.found).split_whitespace().count(), 40);
    assert_eq!(played(&request).unwrap().found, first.found);
    let Some(Upstream::Usage(usage)) = first.found.last() else { panic!("usage") };
    assert_eq!((usage.output, usage.cached, usage.reasoning), (tokens as u64, 0, 0));
    assert!(usage.input > 8);
}

#[test]
fn it_says_what_it_is_asked_to_say() {
    for (message, wanted) in [
        ("Say hello in exactly 3 words.", 3),
        ("Count in five words", 5),
        ("Write an essay of 500 words", 500),
    ] {
        let words = says(json!({}), user(message));
        assert_eq!(words.split_whitespace().count(), wanted, "{words}");
    }
    assert_eq!(says(json!({}), user("Say hello in five words.")), "Hello from the demo model.");
    for length in 1..60 {
        for message in ["Tell me", "What is \"this\", in a talk about \"that thing\"? Summarise"] {
            let said = says(json!({}), user(&format!("{message} in {length} words")));
            assert_eq!(said.split_whitespace().count(), length, "{said}");
            assert!(said.ends_with('.') && said.matches('"').count().is_multiple_of(2), "{said}");
        }
    }
    let three = says(json!({}), user("Answer in 3 sentences: why is the sky blue?"));
    assert_eq!((three.matches('.').count(), three.ends_with('.')), (3, true), "{three}");
    assert_eq!(says(json!({}), user("Please say \"pong\" now")), "pong");
    assert_eq!(says(json!({}), user("Reply with exactly: all good")), "all good");
}

#[test]
fn it_remembers() {
    let talk = |question: &str| {
        json!([{"role": "user", "content": "Hello! My name is Ada Lovelace, by the way."},
               {"role": "assistant", "content": "Hi."},
               {"role": "user", "content": "The secret code is 4711."},
               {"role": "assistant", "content": "Noted."},
               {"role": "user", "content": question}])
    };
    for (question, wanted) in [
        ("What is my name?", "Ada Lovelace"),
        ("what was the secret code?", "4711"),
        ("What did I say first?", "Hello! My name is"),
        ("What did I just say?", "The secret code"),
        ("Summarise our conversation", "The user said: Hello!"),
    ] {
        let answer = says(json!({}), talk(question));
        assert!(answer.contains(wanted), "{question}: {answer}");
    }
}

fn tools() -> Value {
    json!([
        {"type": "function", "name": "get_weather", "description": "Current weather at a place",
         "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}},
        {"type": "function", "name": "send_email", "description": "Sends a mail to somebody", "parameters": {"type": "object", "properties": {}}}
    ])
}

#[test]
fn it_calls_a_tool_when_that_is_asked_for_and_uses_what_it_gives() {
    let calls = |params: Value, message: &str| {
        let found = played(&request(params, user(message))).unwrap().found;
        let names = found.iter().filter_map(|upstream| match upstream {
            Upstream::Chunk(Chunk::ToolCall { name, .. }) => Some(name.to_string()),
            _ => None,
        });
        let names: Vec<String> = names.collect();
        let arguments = found.iter().filter_map(|upstream| match upstream {
            Upstream::Chunk(Chunk::ToolArguments { delta, .. }) => Some(delta.to_string()),
            _ => None,
        });
        (names, arguments.collect::<String>())
    };
    let (names, arguments) = calls(json!({"tools": tools()}), "What's the weather like in Paris today?");
    assert_eq!(
        (names.as_slice(), arguments.as_str()),
        (&["get_weather".to_owned()][..], r#"{"location":"Paris"}"#)
    );
    for (message, location) in [
        ("How is the weather in San Francisco, CA right now?", "San Francisco, CA"),
        ("The weather in Rio de Janeiro?", "Rio"),
        ("Weather for New York. Thanks!", "New York"),
        ("Please tell Ada Lovelace about the weather", "Ada Lovelace"),
    ] {
        let (_, arguments) = calls(json!({"tools": tools()}), message);
        assert_eq!(arguments, json!({ "location": location }).to_string(), "{message}");
    }
    assert_eq!(calls(json!({"tools": tools()}), "Tell me a joke").0.len(), 0);
    assert_eq!(calls(json!({"tools": tools(), "tool_choice": "none"}), "weather").0.len(), 0);
    assert_eq!(calls(json!({"tools": tools(), "tool_choice": "required"}), "Tell me a joke").0.len(), 1);
    let named = json!({"tools": tools(), "tool_choice": {"type": "function", "name": "send_email"}});
    assert_eq!(calls(named, "weather").0, ["send_email"]);
    assert_eq!(calls(json!({"tools": tools()}), "Send an email about the weather in Rome").0.len(), 2);
    let single = json!({"tools": tools(), "parallel_tool_calls": false});
    assert_eq!(calls(single, "Send an email about the weather in Rome").0.len(), 1);

    let answered = json!([
        {"role": "user", "content": "What's the weather in Paris?"},
        {"type": "function_call", "call_id": "c", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "21 °C and sunny"}]);
    for choice in ["auto", "required"] {
        let answer = says(json!({"tools": tools(), "tool_choice": choice}), answered.clone());
        assert!(answer.contains("21 °C and sunny"), "{answer}");
    }
}

#[test]
fn it_fills_schemas_sees_images_and_stops_at_its_limit() {
    let schema = json!({"text": {"format": {"type": "json_schema", "name": "n", "schema": {
        "type": "object", "properties": {"city": {"type": "string"}, "age": {"type": "integer"}}, "required": ["city", "age"]}}}});
    let answer: Value = serde_json::from_str(&says(schema, user("Ada, 36, lives in London"))).unwrap();
    assert_eq!(answer, json!({"city": "London", "age": 36}));
    let object = says(json!({"text": {"format": {"type": "json_object"}}}), user("Hi"));
    assert!(serde_json::from_str::<Value>(&object).unwrap().is_object());
    let image = json!([{"role": "user", "content": [{"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}]}]);
    let answer = says(json!({}), image);
    assert!(answer.contains("an image (image/png, 8 bytes)"), "{answer}");
    let Played { found, .. } =
        played(&request(json!({"max_output_tokens": 16}), user("Write 100 words"))).unwrap();
    assert!(found.contains(&Upstream::Finish(Finish::Length)), "{found:?}");
}

#[test]
fn it_misbehaves_on_command() {
    let run = |message: &str| played(&request(json!({}), user(message)));
    let error = run("/fail 429").err().unwrap();
    assert_eq!((error.class, error.retry_after), (ErrorClass::RateLimited, Some(Duration::from_secs(1))));
    assert_eq!(run("/fail").err().unwrap().status, Some(500));
    for (command, class) in [("/cut Hello", ErrorClass::Interrupted), ("/error Hello", ErrorClass::Server)] {
        let Played { found, end, .. } = run(command).unwrap();
        assert!(!text(&found).is_empty());
        assert_eq!(end.unwrap_err().class, class);
    }
    let Played { found, .. } = run("/filter Hello").unwrap();
    assert!(found.contains(&Upstream::Finish(Finish::ContentFilter)));
    let Played { found, .. } = run("/refuse").unwrap();
    assert!(matches!(&found[0], Upstream::Chunk(Chunk::Refusal(_))));
    let Played { found, .. } = run("/think Hello").unwrap();
    assert!(matches!(&found[0], Upstream::Chunk(Chunk::ReasoningText(_))));
    let Some(Upstream::Usage(usage)) = found.last() else { panic!("usage") };
    assert!(usage.reasoning > 0 && usage.reasoning < usage.output);
    assert_eq!(run("/stall 40 /fast Hello").unwrap().time.as_secs(), 40);
    assert_eq!(run("/late 7 /fast Hello").unwrap().time.as_secs(), 7);
}

#[test]
fn long_conversations_are_cached() {
    let long = "word ".repeat(2_000);
    let talk = json!([{"role": "user", "content": long}, {"role": "assistant", "content": "ok"}, {"role": "user", "content": "/fast Hi"}]);
    let Played { found, .. } = played(&request(json!({}), talk)).unwrap();
    let Some(Upstream::Usage(usage)) = found.last() else { panic!("usage") };
    assert!(usage.cached >= 1_920 && usage.cached % 128 == 0 && usage.cached < usage.input, "{usage:?}");
}

#[tokio::test]
async fn steps_come_when_they_are_due() {
    let request = request(json!({}), user("/slow 200 Tell me something in 20 words"));
    let mut stream = DemoStream::begin(&request, Uuid::from_u128(1), 40).unwrap();
    let (mut queue, began) = (VecDeque::new(), Instant::now());
    while stream.read(&mut queue).await.unwrap() {}
    assert!(began.elapsed() >= played(&request).unwrap().time, "{:?}", began.elapsed());
    assert_eq!(Vec::from(queue), played(&request).unwrap().found);
}
