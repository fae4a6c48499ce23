//! `/v1/conversations/{id}/grants`: what an owner lets others do with a conversation.

use std::borrow::Cow;
use std::sync::Arc;

use colloquy::access::issuing::check_text;
use colloquy::database::audit::Actor;
use colloquy::database::grants::{self, Grant, GrantedAccess, Revoked};
use colloquy::database::responses::PageOf;
use colloquy::ids::ConversationId;
use colloquy::openresponses::{ApiError, parse};
use http::Method;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::json;
use warp::reply::Response;

use crate::app::App;
use crate::conversations::{conversation_id, not_found};
use crate::http::{Request, json, list};
use crate::responses::Page;
use crate::routes::not_allowed;

/// The part of the map under `/v1/conversations/{id}/grants`.
pub async fn dispatch(
    app: &Arc<App>,
    request: Request,
    id: &str,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    match (request.method.clone(), rest) {
        (Method::GET, []) => ("conversations.grants.list", index(app, request, id).await),
        (Method::POST, []) => ("conversations.grants.create", give(app, request, id).await),
        (_, []) => ("conversations", Err(not_allowed("GET, POST"))),
        (Method::DELETE, [grantee]) => {
            ("conversations.grants.delete", revoke(app, request, id, grantee).await)
        }
        (_, [_]) => ("conversations", Err(not_allowed("DELETE"))),
        _ => ("unknown", Err(ApiError::not_found("Path", "/v1/conversations"))),
    }
}

/// A grant as an owner sees it.
#[derive(Serialize)]
struct Shown<'a> {
    object: &'static str,
    conversation: ConversationId,
    grantee: &'a str,
    access: GrantedAccess,
    created_by: &'a str,
    created_at: i64,
}

impl<'a> From<&'a Grant> for Shown<'a> {
    fn from(grant: &'a Grant) -> Self {
        Self {
            object: "conversation.grant",
            conversation: grant.conversation,
            grantee: &grant.grantee,
            access: grant.access,
            created_by: &grant.created_by,
            created_at: grant.created_at.as_second(),
        }
    }
}

async fn index(app: &Arc<App>, request: Request, id: &str) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let page = Page::of(&request)?;
    let parsed = conversation_id(id)?;
    let page = PageOf { after: page.after.as_deref(), limit: page.limit, order: page.order };
    let client = app.client().await?;
    let found = grants::list(&client, &who.owner, parsed, page).await.map_err(App::away)?;
    let found = found.ok_or_else(|| not_found(id))?;
    let data: Vec<Shown<'_>> = found.entries.iter().map(Shown::from).collect();
    Ok(list(&data, |grant| grant.grantee.to_owned(), found.has_more))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Give {
    grantee: String,
    access: GrantedAccess,
}

async fn give(app: &Arc<App>, mut request: Request, id: &str) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let Give { grantee, access } = parse(&request.json_bytes().await?)?;
    check_text("grantee", &grantee)?;
    let parsed = conversation_id(id)?;
    if grantee == who.owner {
        return Err(own(&grantee));
    }
    let client = app.client().await?;
    let name = who.actor();
    let actor = Actor { name: &name, reason: None };
    let given = grants::give(&client, Some(&who.owner), parsed, &grantee, access, actor).await;
    let given = given.map_err(App::away)?.ok_or_else(|| not_found(id))?;
    Ok(json(&Shown::from(&given)))
}

async fn revoke(app: &Arc<App>, request: Request, id: &str, grantee: &str) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let parsed = conversation_id(id)?;
    let grantee = decoded(grantee);
    let name = who.actor();
    let actor = Actor { name: &name, reason: None };
    taken_back(app, Some(&who.owner), parsed, &grantee, actor).await
}

/// Takes access back and says so. The same for owners and operators.
pub async fn taken_back(
    app: &Arc<App>,
    owner: Option<&str>,
    conversation: ConversationId,
    grantee: &str,
    actor: Actor<'_>,
) -> Result<Response, ApiError> {
    let mut client = app.client().await?;
    match grants::revoke(&mut client, owner, conversation, grantee, actor).await.map_err(App::away)? {
        Revoked::NoConversation => Err(not_found(&conversation.to_string())),
        Revoked::NoGrant => Err(ApiError::not_found("Grant", grantee)),
        Revoked::Revoked { stopped } => {
            if let Some(id) = stopped {
                app.engine.tell_cancelled(id);
            }
            Ok(json(&json!({
                "object": "conversation.grant.deleted",
                "conversation": conversation,
                "grantee": grantee,
                "deleted": true,
            })))
        }
    }
}

/// A grantee out of a path. An owner's name may hold anything, slashes too.
pub fn decoded(segment: &str) -> Cow<'_, str> {
    percent_decode_str(segment).decode_utf8_lossy()
}

/// 400: nobody is granted what they own.
pub fn own(grantee: &str) -> ApiError {
    let grantee = colloquy::openresponses::excerpt(grantee);
    ApiError::invalid_value("grantee", format!("'{grantee}' owns the conversation and needs no grant."))
}
