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

async fn played(request: &ModelRequest) -> Result<(Vec<Upstream>, Result<(), LlmError>), LlmError> {
    let mut stream = DemoStream::begin(request, Uuid::from_u128(1), 40)?;
    let mut queue = VecDeque::new();
    let end = loop {
        match stream.read(&mut queue).await {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    Ok((queue.into(), end))
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

async fn says(params: Value, input: Value) -> String {
    text(&played(&request(params, input)).await.unwrap().0)
}

fn user(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

#[tokio::test(start_paused = true)]
async fn it_speaks_at_a_human_pace_and_always_the_same() {
    let request = request(json!({}), user("Tell me something in 40 words."));
    let began = Instant::now();
    let first = played(&request).await.unwrap();
    let tokens = first.0.iter().filter(|upstream| matches!(upstream, Upstream::Chunk(_))).count();
    let pace = tokens as f64 / began.elapsed().as_secs_f64();
    assert!((39.0..=41.0).contains(&pace), "{pace}");
    assert_eq!(text(&first.0).split_whitespace().count(), 40);
    assert_eq!(played(&request).await.unwrap().0, first.0);
    let Some(Upstream::Usage(usage)) = first.0.last() else { panic!("usage") };
    assert_eq!((usage.output, usage.cached, usage.reasoning), (tokens as u64, 0, 0));
    assert!(usage.input > 8);
}

#[tokio::test(start_paused = true)]
async fn it_says_what_it_is_asked_to_say() {
    for (message, wanted) in [
        ("Say hello in exactly 3 words.", 3),
        ("Count in five words", 5),
        ("Write an essay of 500 words", 500),
    ] {
        let words = says(json!({}), user(message)).await;
        assert_eq!(words.split_whitespace().count(), wanted, "{words}");
    }
    assert_eq!(says(json!({}), user("Please say \"pong\" now")).await, "pong");
    assert_eq!(says(json!({}), user("Reply with exactly: all good")).await, "all good");
}

#[tokio::test(start_paused = true)]
async fn it_remembers() {
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
        let answer = says(json!({}), talk(question)).await;
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

#[tokio::test(start_paused = true)]
async fn it_calls_a_tool_when_that_is_asked_for_and_uses_what_it_gives() {
    let calls = async |params: Value, message: &str| {
        let found = played(&request(params, user(message))).await.unwrap().0;
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
    let (names, arguments) =
        calls(json!({"tools": tools()}), "What's the weather like in Paris today?").await;
    assert_eq!(
        (names.as_slice(), arguments.as_str()),
        (&["get_weather".to_owned()][..], r#"{"location":"Paris"}"#)
    );
    assert_eq!(calls(json!({"tools": tools()}), "Tell me a joke").await.0.len(), 0);
    assert_eq!(calls(json!({"tools": tools(), "tool_choice": "none"}), "weather").await.0.len(), 0);
    assert_eq!(
        calls(json!({"tools": tools(), "tool_choice": "required"}), "Tell me a joke").await.0.len(),
        1
    );
    let named = json!({"tools": tools(), "tool_choice": {"type": "function", "name": "send_email"}});
    assert_eq!(calls(named, "weather").await.0, ["send_email"]);
    assert_eq!(calls(json!({"tools": tools()}), "Send an email about the weather in Rome").await.0.len(), 2);
    let single = json!({"tools": tools(), "parallel_tool_calls": false});
    assert_eq!(calls(single, "Send an email about the weather in Rome").await.0.len(), 1);

    let answered = json!([
        {"role": "user", "content": "What's the weather in Paris?"},
        {"type": "function_call", "call_id": "c", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "21 °C and sunny"}]);
    for choice in ["auto", "required"] {
        let answer = says(json!({"tools": tools(), "tool_choice": choice}), answered.clone()).await;
        assert!(answer.contains("21 °C and sunny"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_fills_schemas_sees_images_and_stops_at_its_limit() {
    let schema = json!({"text": {"format": {"type": "json_schema", "name": "n", "schema": {
        "type": "object", "properties": {"city": {"type": "string"}, "age": {"type": "integer"}}, "required": ["city", "age"]}}}});
    let answer: Value = serde_json::from_str(&says(schema, user("Ada, 36, lives in London")).await).unwrap();
    assert_eq!(answer, json!({"city": "London", "age": 36}));
    let object = says(json!({"text": {"format": {"type": "json_object"}}}), user("Hi")).await;
    assert!(serde_json::from_str::<Value>(&object).unwrap().is_object());
    let image = json!([{"role": "user", "content": [{"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}]}]);
    let answer = says(json!({}), image).await;
    assert!(answer.contains("an image (image/png, 8 bytes)"), "{answer}");
    let (found, _) =
        played(&request(json!({"max_output_tokens": 16}), user("Write 100 words"))).await.unwrap();
    assert!(found.contains(&Upstream::Finish(Finish::Length)), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn it_misbehaves_on_command() {
    let run = async |message: &str| played(&request(json!({}), user(message))).await;
    let error = run("/fail 429").await.unwrap_err();
    assert_eq!((error.class, error.retry_after), (ErrorClass::RateLimited, Some(Duration::from_secs(1))));
    assert_eq!(run("/fail").await.unwrap_err().status, Some(500));
    for (command, class) in [("/cut Hello", ErrorClass::Interrupted), ("/error Hello", ErrorClass::Server)] {
        let (found, end) = run(command).await.unwrap();
        assert!(!text(&found).is_empty());
        assert_eq!(end.unwrap_err().class, class);
    }
    let (found, _) = run("/filter Hello").await.unwrap();
    assert!(found.contains(&Upstream::Finish(Finish::ContentFilter)));
    let (found, _) = run("/refuse").await.unwrap();
    assert!(matches!(&found[0], Upstream::Chunk(Chunk::Refusal(_))));
    let (found, _) = run("/think Hello").await.unwrap();
    assert!(matches!(&found[0], Upstream::Chunk(Chunk::ReasoningText(_))));
    let Some(Upstream::Usage(usage)) = found.last() else { panic!("usage") };
    assert!(usage.reasoning > 0 && usage.reasoning < usage.output);
    let began = Instant::now();
    run("/stall 40 /fast Hello").await.unwrap().1.unwrap();
    assert_eq!(began.elapsed().as_secs(), 40);
    let began = Instant::now();
    run("/late 7 /fast Hello").await.unwrap().1.unwrap();
    assert_eq!(began.elapsed().as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn long_conversations_are_cached() {
    let long = "word ".repeat(2_000);
    let talk = json!([{"role": "user", "content": long}, {"role": "assistant", "content": "ok"}, {"role": "user", "content": "/fast Hi"}]);
    let (found, _) = played(&request(json!({}), talk)).await.unwrap();
    let Some(Upstream::Usage(usage)) = found.last() else { panic!("usage") };
    assert!(usage.cached >= 1_920 && usage.cached % 128 == 0 && usage.cached < usage.input, "{usage:?}");
}
