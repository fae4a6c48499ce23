//! As Anthropic judges `messages`.

use serde_json::Value;

use super::{Told, list, told};

pub fn judge(body: &Value) -> Result<(), Told> {
    let refuse = |words: String| Err(told(words, Value::Null));
    let messages = list(body, "messages");
    if messages.is_empty() {
        return refuse("messages: at least one message is required".to_owned());
    }
    if messages[0]["role"] != "user" {
        return refuse("messages: first message must use the \"user\" role".to_owned());
    }
    for (at, message) in messages.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| &messages[before]);
        if before.is_some_and(|before| before["role"] == message["role"]) {
            let role = message["role"].as_str().unwrap_or_default();
            return refuse(format!(
                "messages: roles must alternate between \"user\" and \"assistant\", but found multiple \"{role}\" roles \
                 in a row"
            ));
        }
        let is_empty = message["content"].as_str().map_or(list(message, "content").is_empty(), str::is_empty);
        if is_empty {
            return refuse(format!(
                "messages.{at}: all messages must have non-empty content except for the optional final assistant message"
            ));
        }
        texts("messages", list(message, "content"))?;
        let next = messages.get(at + 1).map_or(&[][..], |next| list(next, "content"));
        calls(at, message, next)?;
        results(at, message, before)?;
        let thought = |block: &Value| block["type"] == "thinking" || block["type"] == "redacted_thinking";
        if message["role"] == "assistant" && list(message, "content").last().is_some_and(thought) {
            let last = list(message, "content").len() - 1;
            return refuse(format!(
                "messages.{at}.content.{last}: The final block in an assistant message cannot be `thinking`."
            ));
        }
    }
    // From Claude 4.6 on.
    if messages.last().is_some_and(|last| last["role"] == "assistant") {
        let words = "This model does not support assistant message prefill. The conversation must end with a user message.";
        return refuse(words.to_owned());
    }
    texts("system", list(body, "system"))?;
    thinking(body)
}

fn texts(place: &str, blocks: &[Value]) -> Result<(), Told> {
    for text in
        blocks.iter().filter(|block| block["type"] == "text").filter_map(|block| block["text"].as_str())
    {
        if text.is_empty() {
            return Err(told(format!("{place}: text content blocks must be non-empty"), Value::Null));
        }
        if text.trim().is_empty() {
            let words = format!("{place}: text content blocks must contain non-whitespace text");
            return Err(told(words, Value::Null));
        }
    }
    Ok(())
}

/// Results stand right behind their calls, before anything else that the user says.
fn calls(at: usize, message: &Value, next: &[Value]) -> Result<(), Told> {
    let results = next.iter().take_while(|block| block["type"] == "tool_result");
    let answered: Vec<&Value> = results.map(|block| &block["tool_use_id"]).collect();
    let calls = list(message, "content").iter().enumerate().filter(|(_, block)| block["type"] == "tool_use");
    let mut open = Vec::new();
    for (nth, call) in calls {
        let id = call["id"].as_str().unwrap_or_default();
        if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            let words = format!(
                "messages.{at}.content.{nth}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
            );
            return Err(told(words, Value::Null));
        }
        if !answered.contains(&&call["id"]) {
            open.push(id);
        }
    }
    if open.is_empty() {
        return Ok(());
    }
    let words = format!(
        "messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` \
         block must have a corresponding `tool_result` block in the next message.",
        open.join(", ")
    );
    Err(told(words, Value::Null))
}

fn results(at: usize, message: &Value, before: Option<&Value>) -> Result<(), Told> {
    let called: Vec<&Value> = before
        .map_or(&[][..], |before| list(before, "content"))
        .iter()
        .filter(|block| block["type"] == "tool_use")
        .map(|block| &block["id"])
        .collect();
    let results = list(message, "content").iter().enumerate();
    for (nth, result) in results.filter(|(_, block)| block["type"] == "tool_result") {
        if !called.contains(&&result["tool_use_id"]) {
            let words = format!(
                "messages.{at}.content.{nth}: unexpected `tool_use_id` found in `tool_result` blocks: {}. Each \
                 `tool_result` block must have a corresponding `tool_use` block in the previous message.",
                result["tool_use_id"].as_str().unwrap_or_default()
            );
            return Err(told(words, Value::Null));
        }
    }
    Ok(())
}

/// A model with a budget to think must have thought before the calls that are being answered.
fn thinking(body: &Value) -> Result<(), Told> {
    if body["thinking"]["type"] != "enabled" {
        return Ok(());
    }
    let budget = body["thinking"]["budget_tokens"].as_u64().unwrap_or_default();
    if budget < 1_024 {
        let words = "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024";
        return Err(told(words, Value::Null));
    }
    if body["max_tokens"].as_u64().unwrap_or_default() <= budget {
        let words = "`max_tokens` must be greater than `thinking.budget_tokens`.";
        return Err(told(words, Value::Null));
    }
    if matches!(body["tool_choice"]["type"].as_str(), Some("any" | "tool")) {
        let words = "Thinking may not be enabled when tool_choice forces tool use.";
        return Err(told(words, Value::Null));
    }
    // Calls and results in a row are one turn of the assistant's: its beginning counts.
    let messages = list(body, "messages");
    let is_answer =
        |message: &Value| list(message, "content").iter().any(|block| block["type"] == "tool_result");
    let turn = messages.iter().enumerate().rev();
    let turn = turn.take_while(|(_, message)| message["role"] == "assistant" || is_answer(message));
    let first = turn.filter(|(_, message)| message["role"] == "assistant").last();
    if let Some((at, message)) = first.filter(|_| messages.last().is_some_and(is_answer)) {
        let kind =
            list(message, "content").first().and_then(|block| block["type"].as_str()).unwrap_or_default();
        if !matches!(kind, "thinking" | "redacted_thinking") {
            let words = format!(
                "messages.{at}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{kind}`. When \
                 `thinking` is enabled, a final `assistant` message must start with a thinking block (preceeding the \
                 lastmost set of `tool_use` and `tool_result` blocks)."
            );
            return Err(told(words, Value::Null));
        }
    }
    Ok(())
}
