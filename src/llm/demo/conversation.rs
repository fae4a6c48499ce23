//! What the demo model sees of a request.

use super::super::ModelRequest;
use super::tokens;
use crate::openresponses::{ContentPart, Item, Output, Role};

/// One thing that was said.
#[derive(Debug)]
pub(super) struct Said {
    pub role: Role,
    pub text: String,
}

/// A conversation in the demo model's eyes.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    pub said: Vec<Said>,
    /// What tools gave since the user last spoke, by the tools' names.
    pub outputs: Vec<(String, String)>,
    /// Images and files of the user's last message, described.
    pub attachments: Vec<String>,
    tokens: u64,
    /// Of these, before the last message.
    earlier: u64,
}

/// What an item costs beside its text, an image, a file.
const PER_ITEM: u64 = 4;
const PER_IMAGE: u64 = 85;

impl Conversation {
    /// What the demo model makes of a request.
    pub fn of(request: &ModelRequest) -> Self {
        let mut found = Self::default();
        if let Some(instructions) = &request.params.instructions {
            found.tokens += tokens::count(instructions) + PER_ITEM;
            found.said.push(Said { role: Role::System, text: instructions.clone() });
        }
        for tool in request.params.tools.iter().flatten() {
            found.tokens += serde_json::to_string(tool).map_or(0, |json| tokens::count(&json));
        }
        let mut names = Vec::new();
        for item in &request.items {
            match &**item {
                Item::Message(message) => {
                    let text: Vec<&str> = message.content.iter().filter_map(ContentPart::text).collect();
                    let text = text.join("\n");
                    if message.role == Role::User {
                        found.earlier = found.tokens;
                        found.outputs.clear();
                        found.attachments = message.content.iter().filter_map(attachment).collect();
                        found.tokens += PER_IMAGE * found.attachments.len() as u64;
                    }
                    found.tokens += tokens::count(&text) + PER_ITEM;
                    found.said.push(Said { role: message.role, text });
                }
                Item::FunctionCall(call) => {
                    names.push((call.call_id.as_str(), call.name.as_str()));
                    found.tokens += tokens::count(&call.arguments) + PER_ITEM;
                }
                Item::FunctionCallOutput(output) => {
                    let name =
                        names.iter().rfind(|(id, _)| *id == output.call_id).map_or("tool", |(_, name)| name);
                    let text = match &output.output {
                        Output::Text(text) => text.clone(),
                        Output::Parts(parts) => {
                            parts.iter().filter_map(ContentPart::text).collect::<Vec<_>>().join("\n")
                        }
                    };
                    found.tokens += tokens::count(&text) + PER_ITEM;
                    found.outputs.push((name.to_owned(), text));
                }
                Item::Reasoning(_) | Item::Compaction(_) => {}
            }
        }
        found
    }

    /// The user's last message.
    pub fn last_user(&self) -> &str {
        self.users().last().unwrap_or_default()
    }

    /// All the user's messages.
    pub fn users(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.said.iter().filter(|said| said.role == Role::User).map(|said| said.text.as_str())
    }

    /// Tokens of everything, and of everything before the last message.
    pub fn input_tokens(&self) -> (u64, u64) {
        (self.tokens, self.earlier)
    }
}

fn attachment(part: &ContentPart) -> Option<String> {
    match part {
        ContentPart::InputImage { image_url: Some(url), .. } => {
            let kind = url.strip_prefix("data:").and_then(|rest| rest.split([';', ',']).next());
            Some(match kind {
                Some(kind) => format!("an image ({kind}, {} bytes)", bytes_of(url)),
                None => "an image on the web".to_owned(),
            })
        }
        ContentPart::InputImage { .. } => Some("an image".to_owned()),
        ContentPart::InputFile { filename, .. } => {
            Some(format!("the file {}", filename.as_deref().unwrap_or("without a name")))
        }
        ContentPart::InputVideo { .. } => Some("a video".to_owned()),
        _ => None,
    }
}

fn bytes_of(url: &str) -> usize {
    let data = url.split_once(',').map_or("", |(_, data)| data).trim_end_matches('=');
    data.len() * 3 / 4
}
