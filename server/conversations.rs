//! `/v1/conversations`: OpenAI's endpoints, and ours beyond them: list, search, title, fork.

use std::collections::BTreeMap;
use std::sync::Arc;

use colloquy::access::Principal;
use colloquy::conversation::engine::{Entry, OwnItem, entries, item_uuid};
use colloquy::database::audit::{Actor, Caller};
use colloquy::database::conversations::{self as store, Added, Conversation, Fork, NewConversation, Update};
use colloquy::database::grants::GrantedAccess;
use colloquy::database::responses::PageOf;
use colloquy::database::threads::NewItem;
use colloquy::ids::ConversationId;
use colloquy::openresponses::{ApiError, Input, InputItem, check_metadata, excerpt, parse};
use http::{Method, StatusCode};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use warp::reply::Response;

use crate::app::App;
use crate::grants;
use crate::http::{Request, json, with_status};
use crate::responses::{Page, flag, list, unknown_parameter};
use crate::routes::not_allowed;

/// Items that one request may add.
const ITEMS_MAX: usize = 20;
/// Characters of a title.
const TITLE_MAX: usize = 256;

/// The part of the map under `/v1/conversations`. `rest` is what follows it.
pub async fn dispatch(
    app: &Arc<App>,
    request: Request,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    let method = request.method.clone();
    match (method, rest) {
        (Method::POST, []) => ("conversations.create", create(app, request).await),
        (Method::GET, []) => ("conversations.list", index(app, request).await),
        (_, []) => ("conversations", Err(not_allowed("GET, POST"))),
        (Method::GET, [id]) => ("conversations.get", get(app, request, id).await),
        (Method::POST, [id]) => ("conversations.update", update(app, request, id).await),
        (Method::DELETE, [id]) => ("conversations.delete", delete(app, request, id).await),
        (_, [_]) => ("conversations", Err(not_allowed("GET, POST, DELETE"))),
        (Method::POST, [id, "fork"]) => ("conversations.fork", fork(app, request, id).await),
        (_, [_, "fork"]) => ("conversations", Err(not_allowed("POST"))),
        (Method::GET, [id, "items"]) => ("conversations.items.list", items(app, request, id).await),
        (Method::POST, [id, "items"]) => ("conversations.items.create", add(app, request, id).await),
        (_, [_, "items"]) => ("conversations", Err(not_allowed("GET, POST"))),
        (Method::GET, [id, "items", item]) => {
            ("conversations.items.get", get_item(app, request, id, item).await)
        }
        (Method::DELETE, [id, "items", item]) => {
            ("conversations.items.delete", delete_item(app, request, id, item).await)
        }
        (_, [_, "items", _]) => ("conversations", Err(not_allowed("GET, DELETE"))),
        (_, [id, "grants", rest @ ..]) => grants::dispatch(app, request, id, rest).await,
        _ => ("unknown", Err(ApiError::not_found("Path", "/v1/conversations"))),
    }
}

/// A conversation as it is shown. What stands behind `metadata` is ours.
#[derive(Serialize)]
struct Shown<'a> {
    id: ConversationId,
    object: &'static str,
    created_at: i64,
    metadata: &'a RawValue,
    title: Option<&'a str>,
    updated_at: i64,
    /// Of somebody else's: whose it is, and what the caller was granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<GrantedAccess>,
}

fn shown(conversation: &Conversation) -> Result<Shown<'_>, ApiError> {
    Ok(Shown {
        id: conversation.id,
        object: "conversation",
        created_at: conversation.created_at.as_second(),
        metadata: serde_json::from_str(&conversation.metadata).map_err(|_| ApiError::internal())?,
        title: conversation.title.as_deref(),
        updated_at: conversation.updated_at.as_second(),
        owner: conversation.granted.map(|_| conversation.owner.as_str()),
        access: conversation.granted,
    })
}

/// Who makes a change, as its audit row names them.
fn actor(name: &str) -> Actor<'_> {
    Actor { name, reason: None }
}

fn caller<'a>(who: &'a Principal, name: &'a str) -> Caller<'a> {
    Caller { owner: &who.owner, actor: Some(actor(name)) }
}

fn answer(conversation: &Conversation) -> Result<Response, ApiError> {
    Ok(json(&shown(conversation)?))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    items: Option<Vec<InputItem>>,
    metadata: Option<BTreeMap<String, String>>,
    title: Option<String>,
}

async fn create(app: &Arc<App>, mut request: Request) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let body = request.json_bytes().await?;
    let new: Create = if body.is_empty() { Create::default() } else { parse(&body)? };
    check_title(new.title.as_deref())?;
    let metadata = metadata(new.metadata.as_ref())?.unwrap_or_else(|| "{}".to_owned());
    let items = new_items(new.items.unwrap_or_default())?;
    let rows: Vec<NewItem<'_>> = items.iter().map(OwnItem::row).collect();
    let conversation = NewConversation {
        id: ConversationId::new(),
        owner: &who.owner,
        title: new.title.as_deref(),
        metadata: &metadata,
        items: &rows,
    };
    let client = app.client().await?;
    let name = who.actor();
    let made = store::create(&client, &conversation, Some(actor(&name))).await.map_err(App::away)?;
    answer(&made)
}

async fn index(app: &Arc<App>, request: Request) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let (mut search, mut shared) = (None, false);
    let page = Page::with(&request, |name, value| {
        match name {
            "search" => search = Some(value.to_owned()),
            "shared" => shared = flag("shared", value)?,
            other => return Err(unknown_parameter(other)),
        }
        Ok(())
    })?;
    let after = page.after.as_deref().map(|after| {
        let message = format!("No conversation with id '{}'.", excerpt(after));
        after.parse().map_err(|_| ApiError::invalid_value("after", message))
    });
    let page = PageOf { after: after.transpose()?, limit: page.limit, order: page.order };
    let client = app.client().await?;
    let search = search.as_deref();
    let found = if shared {
        store::list_shared(&client, &who.owner, page, search).await
    } else {
        store::list(&client, &who.owner, page, search).await
    };
    let found = found.map_err(App::away)?;
    let data = found.entries.iter().map(shown).collect::<Result<Vec<_>, _>>()?;
    Ok(crate::http::list(&data, |shown| shown.id, found.has_more))
}

async fn get(app: &Arc<App>, request: Request, id: &str) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let parsed = conversation_id(id)?;
    let client = app.client().await?;
    let found = store::get(&client, &who.owner, parsed).await.map_err(App::away)?;
    answer(&found.ok_or_else(|| not_found(id))?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    metadata: Option<BTreeMap<String, String>>,
    /// `null` takes it away.
    #[serde(default, deserialize_with = "given")]
    title: Option<Option<String>>,
}

/// Tells a field that is null from one that is not there.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(deserializer).map(Some)
}

async fn update(app: &Arc<App>, mut request: Request, id: &str) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let change: Change = parse(&request.json_bytes().await?)?;
    let parsed = conversation_id(id)?;
    check_title(change.title.as_ref().and_then(|title| title.as_deref()))?;
    let metadata = metadata(change.metadata.as_ref())?;
    let update =
        Update { title: change.title.as_ref().map(|title| title.as_deref()), metadata: metadata.as_deref() };
    let client = app.client().await?;
    let name = who.actor();
    let changed = store::update(&client, caller(&who, &name), parsed, update).await.map_err(App::away)?;
    answer(&changed.ok_or_else(|| not_found(id))?)
}

async fn delete(app: &Arc<App>, request: Request, id: &str) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let parsed = conversation_id(id)?;
    app.engine.delete_conversation(&who, parsed).await?;
    Ok(with_status(StatusCode::OK, &json!({ "id": id, "object": "conversation.deleted", "deleted": true })))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ForkAt {
    /// The last item both have. Left out: all of it.
    item_id: Option<String>,
    title: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
}

async fn fork(app: &Arc<App>, mut request: Request, id: &str) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let body = request.json_bytes().await?;
    let wanted: ForkAt = if body.is_empty() { ForkAt::default() } else { parse(&body)? };
    check_title(wanted.title.as_deref())?;
    let metadata = metadata(wanted.metadata.as_ref())?;
    let at = wanted.item_id.as_deref().map(|item| item_uuid(item).ok_or_else(|| no_item(item)));
    let fork = Fork {
        source: conversation_id(id)?,
        at: at.transpose()?,
        id: ConversationId::new(),
        title: wanted.title.as_deref(),
        metadata: metadata.as_deref(),
    };
    let client = app.client().await?;
    let name = who.actor();
    let made = store::fork(&client, caller(&who, &name), &fork).await.map_err(App::away)?;
    let made = made.ok_or_else(|| match wanted.item_id.as_deref() {
        Some(item) => no_item(item),
        None => not_found(id),
    })?;
    answer(&made)
}

async fn items(app: &Arc<App>, request: Request, id: &str) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let page = Page::of(&request)?;
    let parsed = conversation_id(id)?;
    let after = page.after.as_deref().map(|after| item_uuid(after).ok_or_else(|| no_item(after)));
    let page = PageOf { after: after.transpose()?, limit: page.limit, order: page.order };
    let client = app.client().await?;
    let found = store::list_items(&client, &who.owner, parsed, page).await.map_err(App::away)?;
    let found = found.ok_or_else(|| not_found(id))?;
    Ok(list(found.entries.iter().map(|item| item.data.as_str()), found.has_more))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Add {
    items: Vec<InputItem>,
}

async fn add(app: &Arc<App>, mut request: Request, id: &str) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let add: Add = parse(&request.json_bytes().await?)?;
    let parsed = conversation_id(id)?;
    let items = new_items(add.items)?;
    let rows: Vec<NewItem<'_>> = items.iter().map(OwnItem::row).collect();
    let client = app.client().await?;
    let name = who.actor();
    match store::add_items(&client, caller(&who, &name), parsed, &rows).await.map_err(App::away)? {
        Added::Added => Ok(list(items.iter().map(|item| item.json.as_str()), false)),
        Added::Locked => Err(ApiError::invalid(
            "conversation_locked",
            "conversation",
            "A turn of this conversation is in progress. Wait for its end, or cancel it.",
        )),
        Added::NotFound => Err(not_found(id)),
    }
}

async fn get_item(app: &Arc<App>, request: Request, id: &str, item: &str) -> Result<Response, ApiError> {
    let (who, parsed, uuid) = named(app, &request, id, item).await?;
    let client = app.client().await?;
    let found = store::get_item(&client, &who.owner, parsed, uuid).await.map_err(App::away)?;
    let found = found.ok_or_else(|| no_item(item))?;
    Ok(crate::http::bytes(StatusCode::OK, found.data.into()))
}

async fn delete_item(app: &Arc<App>, request: Request, id: &str, item: &str) -> Result<Response, ApiError> {
    let (who, parsed, uuid) = named(app, &request, id, item).await?;
    let mut client = app.client().await?;
    let name = who.actor();
    let left = store::delete_item(&mut client, caller(&who, &name), parsed, uuid).await.map_err(App::away)?;
    answer(&left.ok_or_else(|| no_item(item))?)
}

async fn named(
    app: &Arc<App>,
    request: &Request,
    id: &str,
    item: &str,
) -> Result<(Arc<Principal>, ConversationId, uuid::Uuid), ApiError> {
    let who = app.authenticate(&request.headers).await?;
    Ok((who, conversation_id(id)?, item_uuid(item).ok_or_else(|| no_item(item))?))
}

/// Items as they are stored, with ids of ours.
fn new_items(items: Vec<InputItem>) -> Result<Vec<OwnItem>, ApiError> {
    if items.len() > ITEMS_MAX {
        let message = format!("Invalid 'items': array too long. Expected at most {ITEMS_MAX} items.");
        return Err(ApiError::invalid("array_above_max_length", "items", message));
    }
    let entries = entries(Some(Input::Items(items))).map_err(|mut error| {
        // The words are those of a response's input.
        error.param = error.param.map(|param| param.replacen("input[", "items[", 1));
        error.message = error.message.replace("input[", "items[");
        error
    })?;
    let each = entries.into_iter().map(|entry| match entry {
        Entry::New(item) => Ok(item),
        Entry::Reference { place, .. } => {
            Err(ApiError::invalid_value(&place, "Only new items can be added to a conversation."))
        }
    });
    each.collect()
}

fn metadata(metadata: Option<&BTreeMap<String, String>>) -> Result<Option<String>, ApiError> {
    let Some(metadata) = metadata else { return Ok(None) };
    check_metadata(metadata)?;
    serde_json::to_string(metadata).map(Some).map_err(|_| ApiError::internal())
}

fn check_title(title: Option<&str>) -> Result<(), ApiError> {
    match title {
        Some(title) if title.chars().count() > TITLE_MAX => Err(ApiError::invalid(
            "string_above_max_length",
            "title",
            format!("Invalid 'title': string too long. Expected at most {TITLE_MAX} characters."),
        )),
        _ => Ok(()),
    }
}

/// The id in a path. What is no id is the same 404 as what is not there.
pub fn conversation_id(id: &str) -> Result<ConversationId, ApiError> {
    let parsed = id.starts_with("conv_").then(|| id.parse().ok()).flatten();
    parsed.ok_or_else(|| not_found(id))
}

/// 404, for what is not there and for what is another owner's.
pub fn not_found(id: &str) -> ApiError {
    ApiError::not_found("Conversation", id)
}

fn no_item(id: &str) -> ApiError {
    ApiError::not_found("Item", id)
}
