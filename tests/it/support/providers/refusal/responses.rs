//! As OpenAI's Responses API judges `input`.

use serde_json::{Value, json};

use super::{Told, empty_array, list, told};

pub fn judge(body: &Value) -> Result<(), Told> {
    let items = list(body, "input");
    if items.is_empty() {
        let words =
            "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation' must be provided.";
        return Err(Told { code: json!("missing_required_parameter"), ..told(words, "input") });
    }
    let kind = |item: &Value| item["type"].as_str().unwrap_or("message").to_owned();
    let id = |item: &Value| item["call_id"].as_str().unwrap_or_default().to_owned();
    let ids = |of: &[Value], wanted: &str| -> Vec<String> {
        of.iter().filter(|item| kind(item) == wanted).map(id).collect()
    };
    for (at, item) in items.iter().enumerate() {
        let id = id(item);
        match kind(item).as_str() {
            "function_call_output" if !ids(&items[..at], "function_call").contains(&id) => {
                let words = format!("No tool call found for function call output with call_id {id}.");
                return Err(told(words, "input"));
            }
            "function_call" if !ids(&items[at..], "function_call_output").contains(&id) => {
                return Err(told(format!("No tool output found for function call {id}."), "input"));
            }
            "reasoning" => {
                let next = items[at..].iter().find(|item| kind(item) != "reasoning");
                let follows =
                    next.is_some_and(|next| kind(next) == "function_call" || next["role"] == "assistant");
                if !follows {
                    let words =
                        "Item 'rs_up' of type 'reasoning' was provided without its required following item.";
                    return Err(told(words, "input"));
                }
            }
            "message" => content(item, at)?,
            _ => {}
        }
    }
    Ok(())
}

fn content(item: &Value, at: usize) -> Result<(), Told> {
    let parts = match &item["content"] {
        Value::String(_) => return Ok(()),
        Value::Array(parts) if !parts.is_empty() => parts,
        _ => return Err(empty_array(&format!("input[{at}].content"))),
    };
    let said = item["role"] == "assistant";
    let supported: &[&str] =
        if said { &["output_text", "refusal"] } else { &["input_text", "input_image", "input_file"] };
    for (nth, part) in parts.iter().enumerate() {
        let kind = part["type"].as_str().unwrap_or_default();
        if !supported.contains(&kind) {
            let list: Vec<_> = supported.iter().map(|kind| format!("'{kind}'")).collect();
            let words = format!("Invalid value: '{kind}'. Supported values are: {}.", list.join(", "));
            let place = format!("input[{at}].content[{nth}]");
            return Err(Told { code: json!("invalid_value"), ..told(words, place) });
        }
    }
    Ok(())
}
