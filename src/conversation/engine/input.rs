//! From what a caller wrote to items with ids.

use std::sync::Arc;

use uuid::Uuid;

use super::past::parse_item;
use super::{Engine, away};
use crate::access::Principal;
use crate::database::threads::{self, NewItem};
use crate::ids::ConversationId;
use crate::openresponses::{
    ApiError, ContentPart, Input, Item, ItemStatus, Message, Resolved, Role, excerpt,
};

/// An item of this turn's own input or output.
#[derive(Clone, Debug)]
pub struct OwnItem {
    pub uuid: Uuid,
    pub item: Arc<Item>,
    pub tokens: u64,
    /// As stored.
    pub json: String,
}

impl OwnItem {
    /// Gives an item the public id that belongs to `uuid`.
    pub fn new(mut item: Item, uuid: Uuid) -> Result<Self, ApiError> {
        item.set_id(format!("{}_{uuid}", item.id_prefix()));
        Self::of(Arc::new(item), uuid)
    }

    /// An item that has its id already.
    pub fn of(item: Arc<Item>, uuid: Uuid) -> Result<Self, ApiError> {
        let json = serde_json::to_string(&*item).map_err(|error| {
            tracing::error!(code = "item.unwritable", %error, "an item could not be written as JSON");
            ApiError::internal()
        })?;
        Ok(Self { uuid, tokens: crate::llm::estimate_item(&item), item, json })
    }

    /// The item as it is stored.
    pub fn row(&self) -> NewItem<'_> {
        let role = match &*self.item {
            Item::Message(message) => Some(role_word(message.role)),
            _ => None,
        };
        NewItem {
            id: self.uuid,
            kind: self.item.kind(),
            role,
            tokens: i32::try_from(self.tokens).unwrap_or(i32::MAX),
            data: &self.json,
        }
    }
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::System => "system",
        Role::Developer => "developer",
    }
}

/// One entry of the input: a new item, or the id of one that is stored.
#[derive(Debug)]
pub enum Entry {
    New(OwnItem),
    Reference { uuid: Uuid, place: String },
}

/// The UUID behind an item's public id.
pub fn item_uuid(id: &str) -> Option<Uuid> {
    let (_, uuid) = id.split_once('_')?;
    Uuid::try_parse(uuid).ok()
}

/// Reads `input`. A bare text is a user's message.
pub fn entries(input: Option<Input>) -> Result<Vec<Entry>, ApiError> {
    let items = match input {
        None => return Ok(Vec::new()),
        Some(Input::Text(text)) => {
            let message = Item::Message(Message {
                id: String::new(),
                status: ItemStatus::Completed,
                role: Role::User,
                content: vec![ContentPart::InputText { text }],
                phase: None,
            });
            return Ok(vec![Entry::New(OwnItem::new(message, Uuid::now_v7())?)]);
        }
        Some(Input::Items(items)) => items,
    };
    let resolve = |(position, item): (usize, crate::openresponses::InputItem)| {
        let place = format!("input[{position}]");
        Ok(match item.resolve(&place)? {
            Resolved::Item(item) => Entry::New(OwnItem::new(item, Uuid::now_v7())?),
            Resolved::Reference(id) => {
                let uuid = item_uuid(&id).ok_or_else(|| no_such_item(&id, &place))?;
                Entry::Reference { uuid, place }
            }
        })
    };
    items.into_iter().enumerate().map(resolve).collect()
}

impl Engine {
    /// Puts stored items in the place of references.
    pub(super) async fn resolve(
        &self,
        who: &Principal,
        entries: Vec<Entry>,
    ) -> Result<Vec<OwnItem>, ApiError> {
        let wanted: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Reference { uuid, .. } => Some(*uuid),
                Entry::New(_) => None,
            })
            .collect();
        let mut found = std::collections::HashMap::new();
        if !wanted.is_empty() {
            let client = self.client().await?;
            for stored in threads::items_by_id(&client, &who.owner, &wanted).await.map_err(away)? {
                let item: Item = parse_item(&stored.data)?;
                found.insert(stored.id, Arc::new(item));
            }
        }
        let own = entries.into_iter().map(|entry| match entry {
            Entry::New(own) => Ok(own),
            Entry::Reference { uuid, place } => match found.get(&uuid) {
                // A copy with an id of its own: an item has one place.
                Some(item) => OwnItem::new((**item).clone(), Uuid::now_v7()),
                None => Err(no_such_item(&uuid.to_string(), &place)),
            },
        });
        own.collect()
    }
}

/// 400: a reference that leads nowhere.
pub fn no_such_item(id: &str, place: &str) -> ApiError {
    let message = format!("Item with id '{}' not found. Only stored items can be referred to.", excerpt(id));
    ApiError::invalid("item_not_found", &format!("{place}.id"), message)
}

/// Every tool output needs its call, in what is shown before it. `past`: so many of the items are none of the input.
pub fn check_outputs<'a>(items: impl Iterator<Item = &'a Item>, past: usize) -> Result<(), ApiError> {
    let mut calls = std::collections::HashSet::new();
    for (at, item) in items.enumerate() {
        match item {
            Item::FunctionCall(call) => {
                calls.insert(call.call_id.as_str());
            }
            Item::FunctionCallOutput(output) if !calls.contains(output.call_id.as_str()) => {
                let message = format!(
                    "No tool call found for function call output with call_id {}.",
                    excerpt(&output.call_id)
                );
                return Err(ApiError::invalid_value(&format!("input[{}]", at.saturating_sub(past)), message));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A conversation's title, where it was given none: the beginning of what its user said first.
pub(super) fn title(own: &[OwnItem]) -> Option<String> {
    const LONGEST: usize = 80;
    let text = own.iter().find_map(|own| match &*own.item {
        Item::Message(message) if message.role == Role::User => {
            message.content.iter().find_map(ContentPart::text)
        }
        _ => None,
    })?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    if line.chars().count() <= LONGEST {
        return Some(line.to_owned());
    }
    let short: String = line.chars().take(LONGEST).collect();
    let whole_words = short.rsplit_once(' ').map_or(short.as_str(), |(words, _)| words);
    Some(format!("{whole_words} …"))
}

/// What is no id at all is the request's mistake, as OpenAI has it; what is one of nothing is not found.
pub(super) fn conversation_id(id: &str) -> Result<ConversationId, ApiError> {
    id.parse().map_err(|_| {
        if id.starts_with(ConversationId::PREFIX) {
            return ApiError::not_found("Conversation", id).on("conversation");
        }
        let (id, prefix) = (excerpt(id), ConversationId::PREFIX);
        let message = format!("Invalid 'conversation': '{id}'. Expected an ID that begins with '{prefix}_'.");
        ApiError::invalid_value("conversation", message)
    })
}
