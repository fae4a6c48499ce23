//! Tokens of a request before anybody counted them: cheap, and rather too many than too few.

use serde_json::value::RawValue;

use super::ModelRequest;
use crate::openresponses::{ContentPart, CreateResponse, Detail, Item, Output, TextFormat, Tool};

/// English runs at four bytes a token, code and JSON at three, most other scripts at two or three bytes a token.
const BYTES_PER_TOKEN: u64 = 3;
/// Text that people write, and code, has fewer; only runs of one character have more.
const MOST_BYTES_PER_TOKEN: u64 = 8;
/// What a message costs beside its text.
const PER_ITEM: u64 = 4;
/// A large image at high detail; one at low detail.
const PER_IMAGE: u64 = 1_600;
const PER_SMALL_IMAGE: u64 = 90;
/// A file known only by its address.
const PER_FILE: u64 = 5_000;
/// A page of a document is some 1,500 tokens and, encoded, some 50 kB.
const FILE_BYTES_PER_TOKEN: u64 = 32;

/// Input tokens that a request has at the very least. What is no text counts nothing.
pub fn least_tokens<'i>(params: &CreateResponse, items: impl Iterator<Item = &'i Item>) -> u64 {
    let length = |part: &ContentPart| part.text().map_or(0, str::len);
    let written = |item: &Item| match item {
        Item::Message(message) => message.content.iter().map(length).sum(),
        Item::FunctionCall(call) => call.name.len() + call.arguments.len(),
        Item::FunctionCallOutput(output) => match &output.output {
            Output::Text(output) => output.len(),
            Output::Parts(parts) => parts.iter().map(length).sum(),
        },
        // A provider may leave it out of what it counts.
        Item::Reasoning(_) | Item::Compaction(_) => 0,
    };
    let instructions = params.instructions.as_deref().map_or(0, str::len);
    (instructions + items.map(written).sum::<usize>()) as u64 / MOST_BYTES_PER_TOKEN
}

/// Input tokens of a request to a model.
pub fn estimate_tokens(request: &ModelRequest) -> u64 {
    let items: u64 = request.items.iter().map(|item| estimate_item(item)).sum();
    estimate_params(&request.params) + items
}

/// Tokens of one item.
pub fn estimate_item(item: &Item) -> u64 {
    PER_ITEM
        + match item {
            Item::Message(message) => message.content.iter().map(part).sum(),
            Item::FunctionCall(call) => text(&call.name) + text(&call.arguments) + PER_ITEM,
            Item::FunctionCallOutput(output) => match &output.output {
                Output::Text(output) => text(output),
                Output::Parts(parts) => parts.iter().map(part).sum(),
            },
            Item::Reasoning(reasoning) => {
                let seen: u64 = reasoning.content.iter().map(part).sum();
                seen + reasoning.encrypted_content.as_deref().map_or(0, text)
            }
            Item::Compaction(compaction) => text(&compaction.encrypted_content),
        }
}

/// Tokens of what stands beside the items: instructions, tools, the form of the answer.
pub fn estimate_params(params: &CreateResponse) -> u64 {
    let json = |json: &RawValue| text(json.get());
    let tools: u64 = params
        .tools
        .iter()
        .flatten()
        .map(|Tool::Function { name, description, parameters, .. }| {
            text(name)
                + description.as_deref().map_or(0, text)
                + parameters.as_deref().map_or(0, json)
                + 2 * PER_ITEM
        })
        .sum();
    let schema = match params.text.as_ref().and_then(|text| text.format.as_ref()) {
        Some(TextFormat::JsonSchema(schema)) => json(&schema.schema),
        _ => 0,
    };
    params.instructions.as_deref().map_or(0, |instructions| text(instructions) + PER_ITEM) + tools + schema
}

fn text(text: &str) -> u64 {
    (text.len() as u64).div_ceil(BYTES_PER_TOKEN)
}

fn part(part: &ContentPart) -> u64 {
    match part {
        ContentPart::InputImage { detail: Detail::Low, .. } => PER_SMALL_IMAGE,
        ContentPart::InputImage { .. } => PER_IMAGE,
        ContentPart::InputFile { file_data: Some(data), .. } => {
            (data.len() as u64).div_ceil(FILE_BYTES_PER_TOKEN).max(PER_IMAGE)
        }
        ContentPart::InputFile { .. } | ContentPart::InputVideo { .. } => PER_FILE,
        part => part.text().map_or(0, text),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::openresponses::{InputItem, Resolved};

    fn estimate(params: &str, content: serde_json::Value) -> u64 {
        let item: InputItem = serde_json::from_value(json!({"role": "user", "content": content})).unwrap();
        let Ok(Resolved::Item(item)) = item.resolve("input") else { panic!("an item") };
        let params = Arc::new(CreateResponse::parse(params.as_bytes()).unwrap());
        estimate_tokens(&ModelRequest { params, items: vec![Arc::new(item)] })
    }

    #[test]
    fn the_least_is_never_too_many() {
        let item: InputItem =
            serde_json::from_value(json!({"role": "user", "content": "The quick brown fox. ".repeat(100)}))
                .unwrap();
        let Ok(Resolved::Item(item)) = item.resolve("input") else { panic!("an item") };
        let least = least_tokens(&CreateResponse::default(), std::iter::once(&item));
        // GPT's tokenizer makes 500 of it.
        assert!((200..=500).contains(&least), "{least}");
    }

    #[test]
    fn rather_too_many_than_too_few() {
        let english = "The quick brown fox jumps over the lazy dog. ".repeat(10);
        let tokens = estimate("{}", json!(english));
        // GPT's tokenizer makes 100 of it.
        assert!((100..=200).contains(&tokens), "{tokens}");
        let tools = r#"{"instructions": "Be brief.", "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}]}"#;
        assert!(estimate(tools, json!("x")) > estimate("{}", json!("x")) + 10);
        let image = |detail| json!([{"type": "input_image", "image_url": "data:image/png;base64,".to_owned() + &"A".repeat(300_000), "detail": detail}]);
        assert!(estimate("{}", image("high")) < 2_000, "an image is no text");
        assert!(estimate("{}", image("low")) < 200);
        let file = json!([{"type": "input_file", "file_data": "A".repeat(1_000_000)}]);
        assert!((20_000..50_000).contains(&estimate("{}", file)));
    }
}
