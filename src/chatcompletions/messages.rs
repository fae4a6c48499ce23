//! Messages, as items.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::openresponses::{ApiError, Content, ContentPart, Detail, InputItem, Output, Role, excerpt};

/// One message. Fields that SDKs add when a caller sends back what it was given are taken.
#[derive(Debug, Deserialize)]
pub(super) struct ChatMessage {
    role: ChatRole,
    content: Option<ChatContent>,
    refusal: Option<String>,
    tool_calls: Option<Vec<ToolCall>>,
    tool_call_id: Option<String>,
    function_call: Option<IgnoredAny>,
    audio: Option<IgnoredAny>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ChatRole {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ChatContent {
    Text(String),
    Parts(Vec<Part>),
}

/// All kinds of parts in one; `type` tells which.
#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    refusal: Option<String>,
    image_url: Option<ImageUrl>,
    file: Option<File>,
    /// As vLLM and others take it.
    video_url: Option<VideoUrl>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ImageUrl {
    Object {
        url: String,
        #[serde(default)]
        detail: Option<Detail>,
    },
    Bare(String),
}

#[derive(Debug, Deserialize)]
struct File {
    filename: Option<String>,
    file_data: Option<String>,
    file_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct VideoUrl {
    url: String,
}

#[derive(Debug, Deserialize)]
struct ToolCall {
    id: Option<String>,
    function: Option<CalledFunction>,
}

#[derive(Debug, Deserialize)]
struct CalledFunction {
    name: String,
    arguments: String,
}

/// The items that messages are, and of which message each is one; that is empty where all are one item each. Errors name
/// the message.
pub(super) fn items(messages: Vec<ChatMessage>) -> Result<(Vec<InputItem>, Vec<usize>), ApiError> {
    if messages.is_empty() {
        let message = "Invalid 'messages': empty array. Expected at least one message.";
        return Err(ApiError::invalid("empty_array", "messages", message));
    }
    let mut items = Vec::with_capacity(messages.len());
    let mut sources = Vec::new();
    for (position, message) in messages.into_iter().enumerate() {
        let before = items.len();
        message.translate(&format!("messages[{position}]"), &mut items)?;
        let made = items.len() - before;
        if made != 1 && sources.is_empty() {
            sources.extend(0..position);
        }
        if made != 1 || !sources.is_empty() {
            sources.extend(std::iter::repeat_n(position, made));
        }
    }
    Ok((items, sources))
}

impl ChatMessage {
    fn translate(self, place: &str, items: &mut Vec<InputItem>) -> Result<(), ApiError> {
        for (field, used) in
            [("function_call", self.function_call.is_some()), ("audio", self.audio.is_some())]
        {
            if used {
                let place = format!("{place}.{field}");
                return Err(ApiError::unsupported(&place, format!("'{place}' is not supported.")));
            }
        }
        let calls = self.tool_calls.unwrap_or_default();
        if self.role != ChatRole::Assistant && !calls.is_empty() {
            let place = format!("{place}.tool_calls");
            let message = format!("'{place}': only messages of the assistant have tool calls.");
            return Err(ApiError::invalid_value(&place, message));
        }
        let role = match self.role {
            ChatRole::System => Role::System,
            ChatRole::Developer => Role::Developer,
            ChatRole::User => Role::User,
            ChatRole::Assistant => Role::Assistant,
            ChatRole::Tool => {
                let call_id = self.tool_call_id.ok_or_else(|| missing(place, "tool_call_id"))?;
                let content = self.content.ok_or_else(|| missing(place, "content"))?;
                items.push(InputItem {
                    kind: Some("function_call_output".to_owned()),
                    call_id: Some(call_id),
                    output: Some(Output::Text(content.text(place)?)),
                    ..InputItem::default()
                });
                return Ok(());
            }
        };
        let mut parts = match self.content {
            None => Vec::new(),
            // The model called tools and said nothing.
            Some(ChatContent::Text(text)) if text.is_empty() && !calls.is_empty() => Vec::new(),
            Some(ChatContent::Text(text)) => vec![said(role, text)],
            Some(ChatContent::Parts(parts)) => {
                let each = parts.into_iter().enumerate();
                let parts = each.map(|(at, part)| part.translate(role, &format!("{place}.content[{at}]")));
                parts.collect::<Result<_, _>>()?
            }
        };
        if role == Role::Assistant
            && let Some(refusal) = self.refusal.filter(|refusal| !refusal.is_empty())
        {
            parts.push(ContentPart::Refusal { refusal });
        }
        if parts.is_empty() && calls.is_empty() {
            return Err(missing(place, "content"));
        }
        if !parts.is_empty() {
            items.push(InputItem {
                kind: Some("message".to_owned()),
                role: Some(role),
                content: Some(Content::Parts(parts)),
                ..InputItem::default()
            });
        }
        for (position, call) in calls.into_iter().enumerate() {
            let place = format!("{place}.tool_calls[{position}]");
            let CalledFunction { name, arguments } =
                call.function.ok_or_else(|| missing(&place, "function"))?;
            items.push(InputItem {
                kind: Some("function_call".to_owned()),
                call_id: Some(call.id.ok_or_else(|| missing(&place, "id"))?),
                name: Some(name),
                arguments: Some(arguments),
                ..InputItem::default()
            });
        }
        Ok(())
    }
}

impl ChatContent {
    /// The text of a tool's output.
    fn text(self, place: &str) -> Result<String, ApiError> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Parts(parts) => {
                let texts = parts.into_iter().enumerate().map(|(at, part)| match (&*part.kind, part.text) {
                    ("text", Some(text)) => Ok(text),
                    _ => Err(not_here(&part.kind, &format!("{place}.content[{at}]"))),
                });
                Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
            }
        }
    }
}

impl Part {
    fn translate(self, role: Role, place: &str) -> Result<ContentPart, ApiError> {
        let user = role == Role::User;
        Ok(match &*self.kind {
            "text" => said(role, self.text.ok_or_else(|| missing(place, "text"))?),
            "refusal" if role == Role::Assistant => {
                ContentPart::Refusal { refusal: self.refusal.ok_or_else(|| missing(place, "refusal"))? }
            }
            "image_url" if user => {
                let (url, detail) = match self.image_url.ok_or_else(|| missing(place, "image_url"))? {
                    ImageUrl::Object { url, detail } => (url, detail.unwrap_or_default()),
                    ImageUrl::Bare(url) => (url, Detail::Auto),
                };
                ContentPart::InputImage { image_url: Some(url), file_id: None, detail }
            }
            "file" if user => {
                let File { filename, file_data, file_id } =
                    self.file.ok_or_else(|| missing(place, "file"))?;
                if file_data.is_none() && file_id.is_none() {
                    return Err(missing(place, "file.file_data"));
                }
                ContentPart::InputFile { filename, file_data, file_url: None, file_id }
            }
            "video_url" if user => ContentPart::InputVideo {
                video_url: self.video_url.ok_or_else(|| missing(place, "video_url"))?.url,
            },
            other => return Err(not_here(other, place)),
        })
    }
}

fn said(role: Role, text: String) -> ContentPart {
    match role {
        Role::Assistant => ContentPart::output_text(text),
        Role::User | Role::System | Role::Developer => ContentPart::InputText { text },
    }
}

fn missing(place: &str, field: &str) -> ApiError {
    ApiError::missing(&format!("{place}.{field}"))
}

fn not_here(kind: &str, place: &str) -> ApiError {
    let message = format!("Invalid value: '{}' is not a part of this role's messages.", excerpt(kind));
    ApiError::invalid_value(&format!("{place}.type"), message)
}
