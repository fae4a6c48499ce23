//! `/admin/keys`: API keys made at run time.

use std::sync::Arc;

use colloquy::access::issuing::{self, Issued, KeyRequest};
use colloquy::config::duration;
use colloquy::database::api_keys::{self, StoredKey};
use colloquy::database::responses::PageOf;
use colloquy::ids::KeyId;
use colloquy::openresponses::{ApiError, ErrorType, excerpt};
use http::{Method, StatusCode};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use warp::reply::Response;

use super::{Operator, body, body_or_default};
use crate::app::App;
use crate::http::{Request, json, list};
use crate::responses::{Page, unknown_parameter};
use crate::routes::not_allowed;

/// The part of the map under `/admin/keys`.
pub async fn dispatch(
    app: &Arc<App>,
    operator: &Operator,
    request: Request,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    match (request.method.clone(), rest) {
        (Method::GET, []) => ("admin.keys.list", index(app, request).await),
        (Method::POST, []) => ("admin.keys.create", create(app, operator, request).await),
        (_, []) => ("admin.keys", Err(not_allowed("GET, POST"))),
        (Method::GET, [id]) => ("admin.keys.get", get(app, id).await),
        (_, [_]) => ("admin.keys", Err(not_allowed("GET"))),
        (Method::POST, [id, "expire"]) => ("admin.keys.expire", expire(app, operator, request, id).await),
        (Method::POST, [id, "rotate"]) => ("admin.keys.rotate", rotate(app, operator, request, id).await),
        (_, [_, "expire" | "rotate"]) => ("admin.keys", Err(not_allowed("POST"))),
        _ => ("unknown", Err(ApiError::not_found("Path", "/admin/keys"))),
    }
}

async fn index(app: &Arc<App>, request: Request) -> Result<Response, ApiError> {
    let mut owner = None;
    let page = Page::with(&request, |name, value| match name {
        "owner" => {
            owner = Some(value.to_owned());
            Ok(())
        }
        other => Err(unknown_parameter(other)),
    })?;
    let after = page.after.as_deref().map(|after| {
        let message = format!("No key with id '{}'.", excerpt(after));
        after.parse::<KeyId>().map_err(|_| ApiError::invalid_value("after", message))
    });
    let page = PageOf { after: after.transpose()?, limit: page.limit, order: page.order };
    let client = app.client().await?;
    let found = api_keys::list(&client, owner.as_deref(), page).await.map_err(App::away)?;
    Ok(list(&found.entries, |key| key.id, found.has_more))
}

/// A key that was just made, with what is told once.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    stored: &'a StoredKey,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<&'a StoredKey>,
}

fn issued(issued: &Issued) -> Response {
    let Issued { key, stored, replaces } = issued;
    json(&Shown { stored, key: key.expose_secret(), replaces: replaces.as_ref() })
}

async fn create(app: &Arc<App>, operator: &Operator, mut request: Request) -> Result<Response, ApiError> {
    let wanted: KeyRequest = body(&mut request).await?;
    wanted.check(Timestamp::now(), &app.config.app.targets)?;
    let client = app.client().await?;
    let actor = operator.because(wanted.reason.as_deref());
    Ok(issued(&issuing::issue(&client, &wanted, actor).await.map_err(App::away)?))
}

async fn get(app: &Arc<App>, id: &str) -> Result<Response, ApiError> {
    let parsed = key_id(id)?;
    let found = api_keys::get(&app.client().await?, parsed).await.map_err(App::away)?;
    Ok(json(&found.ok_or_else(|| not_found(id))?))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Expire {
    /// When it ends; left out, or passed: now.
    at: Option<Timestamp>,
    reason: Option<String>,
}

async fn expire(
    app: &Arc<App>,
    operator: &Operator,
    mut request: Request,
    id: &str,
) -> Result<Response, ApiError> {
    let wanted: Expire = body_or_default(&mut request).await?;
    let parsed = key_id(id)?;
    let client = app.client().await?;
    let actor = operator.because(wanted.reason.as_deref());
    if let Some(ended) = api_keys::expire(&client, parsed, wanted.at, actor).await.map_err(App::away)? {
        return Ok(json(&ended));
    }
    let found = api_keys::get(&client, parsed).await.map_err(App::away)?;
    found.ok_or_else(|| not_found(id))?;
    Err(conflict("key_revoked", "The key was revoked already."))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rotate {
    /// How long the old one goes on, such as `24h`.
    overlap: Option<String>,
    /// When the new one ends; left out, it lives as long as the old one was made to.
    expires_at: Option<Timestamp>,
    reason: Option<String>,
}

async fn rotate(
    app: &Arc<App>,
    operator: &Operator,
    mut request: Request,
    id: &str,
) -> Result<Response, ApiError> {
    let wanted: Rotate = body_or_default(&mut request).await?;
    let parsed = key_id(id)?;
    issuing::check_future("expires_at", wanted.expires_at, Timestamp::now())?;
    let overlap = match wanted.overlap.as_deref() {
        Some(text) => duration(text).ok_or_else(|| {
            ApiError::invalid_value(
                "overlap",
                "Invalid 'overlap': expected a time with its unit, such as '24h'.",
            )
        })?,
        None => app.config.access.key_overlap,
    };
    let client = app.client().await?;
    let found = api_keys::get(&client, parsed).await.map_err(App::away)?.ok_or_else(|| not_found(id))?;
    if found.replaced_by.is_none() && found.is_in_force(Timestamp::now()) {
        issuing::check_successor(&found, &app.config.app.targets)?;
    }
    let actor = operator.because(wanted.reason.as_deref());
    let rotated = issuing::rotate(&client, parsed, overlap, wanted.expires_at, actor).await;
    if let Some(rotated) = rotated.map_err(App::away)? {
        return Ok(issued(&rotated));
    }
    let found = api_keys::get(&client, parsed).await.map_err(App::away)?;
    let found = found.ok_or_else(|| not_found(id))?;
    Err(match found.replaced_by {
        Some(successor) => {
            conflict("key_rotated", format!("The key was rotated already; its successor is '{successor}'."))
        }
        None => conflict("key_ended", "The key has ended; make another."),
    })
}

fn key_id(id: &str) -> Result<KeyId, ApiError> {
    id.parse().map_err(|_| not_found(id))
}

fn not_found(id: &str) -> ApiError {
    ApiError::not_found("Key", id)
}

/// 409, which trying again does not help.
fn conflict(code: &'static str, message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, ErrorType::ConflictError, code, message).should_retry(false)
}
