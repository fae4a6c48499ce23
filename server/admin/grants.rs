//! `/admin/grants`: everybody's grants.

use std::sync::Arc;

use colloquy::access::issuing::check_text;
use colloquy::database::conversations;
use colloquy::database::grants::{self, Grant, GrantFilter, GrantedAccess};
use colloquy::database::responses::PageOf;
use colloquy::ids::ConversationId;
use colloquy::openresponses::{ApiError, excerpt};
use http::Method;
use serde::Deserialize;
use warp::reply::Response;

use super::{Operator, body, body_or_default};
use crate::app::App;
use crate::conversations::{conversation_id, not_found};
use crate::grants::{decoded, own, taken_back};
use crate::http::{Request, json, list};
use crate::responses::{Page, unknown_parameter};
use crate::routes::not_allowed;

/// The part of the map under `/admin/grants`.
pub async fn dispatch(
    app: &Arc<App>,
    operator: &Operator,
    request: Request,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    match (request.method.clone(), rest) {
        (Method::GET, []) => ("admin.grants.list", index(app, request).await),
        (Method::POST, []) => ("admin.grants.create", give(app, operator, request).await),
        (_, []) => ("admin.grants", Err(not_allowed("GET, POST"))),
        (Method::DELETE, [conversation, grantee]) => {
            ("admin.grants.delete", revoke(app, operator, request, conversation, grantee).await)
        }
        (_, [_, _]) => ("admin.grants", Err(not_allowed("DELETE"))),
        _ => ("unknown", Err(ApiError::not_found("Path", "/admin/grants"))),
    }
}

/// What names a grant among all: `conv_…/grantee`.
fn id(grant: &Grant) -> String {
    format!("{}/{}", grant.conversation, grant.grantee)
}

fn parsed_id(text: &str) -> Option<(ConversationId, &str)> {
    let (conversation, grantee) = text.split_once('/')?;
    Some((conversation.parse().ok()?, grantee))
}

async fn index(app: &Arc<App>, request: Request) -> Result<Response, ApiError> {
    let (mut owner, mut grantee, mut conversation) = (None, None, None);
    let page = Page::with(&request, |name, value| {
        match name {
            "owner" => owner = Some(value.to_owned()),
            "grantee" => grantee = Some(value.to_owned()),
            "conversation" => {
                let message = format!("No conversation with id '{}'.", excerpt(value));
                let id = value.parse();
                conversation = Some(id.map_err(|_| ApiError::invalid_value("conversation", message))?);
            }
            other => return Err(unknown_parameter(other)),
        }
        Ok(())
    })?;
    let after = page.after.as_deref().map(|after| {
        let message = format!("No grant '{}': expected 'conv_…/grantee'.", excerpt(after));
        parsed_id(after).ok_or_else(|| ApiError::invalid_value("after", message))
    });
    let page = PageOf { after: after.transpose()?, limit: page.limit, order: page.order };
    let filter = GrantFilter { owner: owner.as_deref(), grantee: grantee.as_deref(), conversation };
    let client = app.client().await?;
    let found = grants::list_all(&client, filter, page).await.map_err(App::away)?;
    Ok(list(&found.entries, id, found.has_more))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Give {
    conversation: String,
    grantee: String,
    access: GrantedAccess,
    reason: Option<String>,
}

async fn give(app: &Arc<App>, operator: &Operator, mut request: Request) -> Result<Response, ApiError> {
    let wanted: Give = body(&mut request).await?;
    check_text("grantee", &wanted.grantee)?;
    let (id, grantee) = (wanted.conversation.as_str(), wanted.grantee.as_str());
    let parsed = conversation_id(id)?;
    let client = app.client().await?;
    let actor = operator.because(wanted.reason.as_deref());
    let given =
        grants::give(&client, None, parsed, grantee, wanted.access, actor).await.map_err(App::away)?;
    if let Some(given) = given {
        return Ok(json(&given));
    }
    let theirs = conversations::get(&client, grantee, parsed).await.map_err(App::away)?;
    Err(theirs.map_or_else(|| not_found(id), |_| own(grantee)))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Revoke {
    reason: Option<String>,
}

async fn revoke(
    app: &Arc<App>,
    operator: &Operator,
    mut request: Request,
    conversation: &str,
    grantee: &str,
) -> Result<Response, ApiError> {
    let wanted: Revoke = body_or_default(&mut request).await?;
    let parsed = conversation_id(conversation)?;
    taken_back(app, None, parsed, &decoded(grantee), operator.because(wanted.reason.as_deref())).await
}
