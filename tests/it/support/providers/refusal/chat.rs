//! As OpenAI and Azure judge `messages`.

use serde_json::Value;

use super::{Told, empty_array, list, told};

pub fn judge(body: &Value) -> Result<(), Told> {
    let messages = list(body, "messages");
    if messages.is_empty() {
        return Err(empty_array("messages"));
    }
    // Calls that are not answered yet.
    let mut open: Vec<&str> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        let place = |rest: &str| format!("messages.[{at}].{rest}");
        if role == "tool" {
            let id = message["tool_call_id"].as_str().unwrap_or_default();
            let Some(answered) = open.iter().position(|open| *open == id) else {
                let words = "Invalid parameter: messages with role 'tool' must be a response to a preceeding message \
                             with 'tool_calls'.";
                return Err(told(words, place("role")));
            };
            open.swap_remove(answered);
        } else {
            answered(&open, at)?;
        }
        let calls = &message["tool_calls"];
        match (&message["content"], role) {
            (Value::Null, "assistant") if calls.is_array() => {}
            (Value::String(_), _) => {}
            (Value::Array(parts), _) if parts.is_empty() => {
                return Err(empty_array(&format!("messages[{at}].content")));
            }
            (Value::Array(_), _) => {}
            _ => {
                let words = "Invalid value for 'content': expected a string, got null.";
                return Err(told(words, place("content")));
            }
        }
        if let Some(calls) = calls.as_array() {
            if calls.is_empty() {
                return Err(empty_array(&format!("messages[{at}].tool_calls")));
            }
            for (nth, call) in calls.iter().enumerate() {
                let id = call["id"].as_str().unwrap_or_default();
                if id.len() > 40 {
                    let place = format!("messages[{at}].tool_calls[{nth}].id");
                    let words = format!(
                        "Invalid '{place}': string too long. Expected a string with maximum length 40, but got a string \
                         with length {} instead.",
                        id.len()
                    );
                    return Err(Told { code: "string_above_max_length".into(), ..told(words, place) });
                }
                open.push(id);
            }
        }
    }
    answered(&open, messages.len())?;
    for field in ["tool_choice", "parallel_tool_calls"] {
        if !body[field].is_null() && list(body, "tools").is_empty() {
            let words =
                format!("Invalid value for '{field}': '{field}' is only allowed when 'tools' are specified.");
            return Err(told(words, field));
        }
    }
    Ok(())
}

fn answered(open: &[&str], at: usize) -> Result<(), Told> {
    if open.is_empty() {
        return Ok(());
    }
    let words = format!(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The \
         following tool_call_ids did not have response messages: {}",
        open.join(", ")
    );
    Err(told(words, format!("messages.[{at}].role")))
}
