//! Items: what a conversation is made of.

use serde::{Deserialize, Serialize};

use super::content::{Content, ContentPart};
use super::error::ApiError;

/// One item, in the form in which it is stored and shown.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Item {
    Message(Message),
    FunctionCall(FunctionCall),
    FunctionCallOutput(FunctionCallOutput),
    Reasoning(Reasoning),
    Compaction(Compaction),
}

/// How far an item has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemStatus {
    InProgress,
    #[default]
    Completed,
    Incomplete,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    User,
    Assistant,
    System,
    Developer,
}

/// Whether an assistant's message is the answer or a remark on the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Commentary,
    FinalAnswer,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Message {
    pub id: String,
    pub status: ItemStatus,
    pub role: Role,
    pub content: Vec<ContentPart>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
}

/// The model asks for a tool.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct FunctionCall {
    pub id: String,
    pub call_id: String,
    pub name: String,
    /// JSON, as the model wrote it; not checked.
    pub arguments: String,
    pub status: ItemStatus,
}

/// What the tool gave.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct FunctionCallOutput {
    pub id: String,
    pub call_id: String,
    pub output: Output,
    pub status: ItemStatus,
}

/// A tool's output: text, or parts.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Output {
    Text(String),
    Parts(Vec<ContentPart>),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Reasoning {
    pub id: String,
    pub summary: Vec<Summary>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content: Vec<ContentPart>,
    /// For the provider's eyes; shown only if `include` asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted_content: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ItemStatus>,
}

/// One part of a reasoning summary.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Summary {
    SummaryText { text: String },
}

/// Stands for everything before it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Compaction {
    pub id: String,
    pub encrypted_content: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
}

impl Item {
    pub fn id(&self) -> &str {
        match self {
            Self::Message(item) => &item.id,
            Self::FunctionCall(item) => &item.id,
            Self::FunctionCallOutput(item) => &item.id,
            Self::Reasoning(item) => &item.id,
            Self::Compaction(item) => &item.id,
        }
    }

    /// Gives the item another id.
    pub fn set_id(&mut self, id: String) {
        match self {
            Self::Message(item) => item.id = id,
            Self::FunctionCall(item) => item.id = id,
            Self::FunctionCallOutput(item) => item.id = id,
            Self::Reasoning(item) => item.id = id,
            Self::Compaction(item) => item.id = id,
        }
    }

    /// What public ids of this kind of item begin with.
    pub fn id_prefix(&self) -> &'static str {
        match self {
            Self::Message(_) => "msg",
            Self::FunctionCall(_) => "fc",
            Self::FunctionCallOutput(_) => "fco",
            Self::Reasoning(_) => "rs",
            Self::Compaction(_) => "cmp",
        }
    }

    /// The value of `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Message(_) => "message",
            Self::FunctionCall(_) => "function_call",
            Self::FunctionCallOutput(_) => "function_call_output",
            Self::Reasoning(_) => "reasoning",
            Self::Compaction(_) => "compaction",
        }
    }
}

/// An item as a caller writes it. All fields of all kinds in one, so that it is read in one pass and a mistake can
/// name its place; [`InputItem::resolve`] tells what it is.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct InputItem {
    #[serde(rename = "type", default)]
    pub kind: Option<String>,
    pub id: Option<String>,
    pub role: Option<Role>,
    pub content: Option<Content>,
    pub status: Option<ItemStatus>,
    pub phase: Option<Phase>,
    pub call_id: Option<String>,
    pub name: Option<String>,
    pub arguments: Option<String>,
    pub output: Option<Output>,
    pub summary: Option<Vec<Summary>>,
    pub encrypted_content: Option<String>,
}

/// What an input item turned out to be.
#[derive(Debug)]
pub enum Resolved {
    /// A new item; its id is empty until one is given.
    Item(Item),
    /// A reference to an item that is stored.
    Reference(String),
}

impl InputItem {
    /// Checks the item and gives its canonical form, with an empty id. `place` is where it stands in the request, such
    /// as `input[2]`, for errors.
    pub fn resolve(self, place: &str) -> Result<Resolved, ApiError> {
        let missing = |field: &str| ApiError::missing(&format!("{place}.{field}"));
        let item = match self.kind.as_deref() {
            None | Some("message") if self.role.is_some() => {
                let role = self.role.ok_or_else(|| missing("role"))?;
                let content = self.content.ok_or_else(|| missing("content"))?;
                Item::Message(Message {
                    id: String::new(),
                    status: self.status.unwrap_or_default(),
                    role,
                    content: parts(content, role, place)?,
                    phase: self.phase,
                })
            }
            Some("message") => return Err(missing("role")),
            None | Some("item_reference") => {
                return Ok(Resolved::Reference(
                    self.id.ok_or_else(|| missing(if self.kind.is_none() { "type" } else { "id" }))?,
                ));
            }
            Some("function_call") => Item::FunctionCall(FunctionCall {
                id: String::new(),
                call_id: self.call_id.ok_or_else(|| missing("call_id"))?,
                name: self.name.ok_or_else(|| missing("name"))?,
                arguments: self.arguments.ok_or_else(|| missing("arguments"))?,
                status: self.status.unwrap_or_default(),
            }),
            Some("function_call_output") => Item::FunctionCallOutput(FunctionCallOutput {
                id: String::new(),
                call_id: self.call_id.ok_or_else(|| missing("call_id"))?,
                output: self.output.ok_or_else(|| missing("output"))?,
                status: self.status.unwrap_or_default(),
            }),
            Some("reasoning") => Item::Reasoning(Reasoning {
                id: String::new(),
                summary: self.summary.unwrap_or_default(),
                content: match self.content {
                    Some(Content::Parts(parts)) => parts,
                    Some(Content::Text(_)) | None => Vec::new(),
                },
                encrypted_content: self.encrypted_content,
                status: self.status,
            }),
            Some("compaction") => Item::Compaction(Compaction {
                id: String::new(),
                encrypted_content: self.encrypted_content.ok_or_else(|| missing("encrypted_content"))?,
                created_by: None,
            }),
            Some(other) => {
                let message = format!(
                    "Invalid value: '{}'. Supported item types are: 'message', 'function_call', \
                     'function_call_output', 'reasoning', 'compaction' and 'item_reference'.",
                    super::error::excerpt(other)
                );
                return Err(ApiError::invalid_value(&format!("{place}.type"), message));
            }
        };
        Ok(Resolved::Item(item))
    }
}

/// A message's parts: a bare text becomes the part that suits its role, and a part that its role cannot have is refused.
fn parts(content: Content, role: Role, place: &str) -> Result<Vec<ContentPart>, ApiError> {
    let parts = match content {
        Content::Text(text) if role == Role::Assistant => return Ok(vec![ContentPart::output_text(text)]),
        Content::Text(text) => return Ok(vec![ContentPart::InputText { text }]),
        // Of an answer that was cut before its first word there is nothing, and it may be given back.
        Content::Parts(parts) if parts.is_empty() && role != Role::Assistant => {
            let place = format!("{place}.content");
            let message = format!("Invalid '{place}': empty array. Expected at least one part.");
            return Err(ApiError::invalid("empty_array", &place, message));
        }
        Content::Parts(parts) => parts,
    };
    for (position, part) in parts.iter().enumerate() {
        let fits = match part {
            ContentPart::OutputText { .. } | ContentPart::Refusal { .. } => role == Role::Assistant,
            ContentPart::InputText { .. } => role != Role::Assistant,
            ContentPart::InputImage { .. }
            | ContentPart::InputFile { .. }
            | ContentPart::InputVideo { .. } => role == Role::User,
            ContentPart::ReasoningText { .. } => false,
        };
        if !fits {
            let message = format!("Invalid value: '{}' is not a part of this role's messages.", part.kind());
            return Err(ApiError::invalid_value(&format!("{place}.content[{position}].type"), message));
        }
    }
    Ok(parts)
}
