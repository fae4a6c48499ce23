//! `/admin/turns`: the turns that run or wait, wherever they do, and stopping one.

use std::collections::HashMap;
use std::sync::Arc;

use colloquy::access::Principal;
use colloquy::conversation::engine::Snapshot;
use colloquy::database::dead_letters;
use colloquy::database::inspect::{self, TurnFilter, TurnLine};
use colloquy::ids::ResponseId;
use colloquy::openresponses::ApiError;
use http::Method;
use serde::Serialize;
use serde_json::json;
use warp::reply::Response;

use super::{Because, Operator, body_or_default, page_of};
use crate::app::App;
use crate::http::Request;
use crate::responses::{Page, unknown_parameter};
use crate::routes::not_allowed;

/// The part of the map under `/admin/turns`.
pub async fn dispatch(
    app: &Arc<App>,
    operator: &Operator,
    request: Request,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    match (request.method.clone(), rest) {
        (Method::GET, []) => ("admin.turns.list", index(app, request).await),
        (_, []) => ("admin.turns", Err(not_allowed("GET"))),
        (Method::POST, [id, "cancel"]) => ("admin.turns.cancel", cancel(app, operator, request, id).await),
        (_, [_, "cancel"]) => ("admin.turns", Err(not_allowed("POST"))),
        _ => ("unknown", Err(ApiError::not_found("Path", "/admin/turns"))),
    }
}

/// A turn, and what this process knows beyond its row.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    line: &'a TurnLine,
    /// Of a turn that runs in the process that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    here: Option<Here>,
}

#[derive(Serialize)]
struct Here {
    viewers: usize,
    /// What the provider has sent; each is about a token.
    chunks: usize,
    logged: usize,
    awaits: &'static str,
}

impl From<&Snapshot> for Here {
    fn from(turn: &Snapshot) -> Self {
        Self { viewers: turn.viewers, chunks: turn.chunks, logged: turn.logged, awaits: turn.awaits }
    }
}

async fn index(app: &Arc<App>, request: Request) -> Result<Response, ApiError> {
    let mut filter = TurnFilter::default();
    let page = Page::with(&request, |name, value| {
        match name {
            "owner" => filter.owner = Some(value.to_owned()),
            "model" => filter.model = Some(value.to_owned()),
            "state" if ["queued", "in_progress"].contains(&value) => filter.state = Some(value.to_owned()),
            "state" => {
                let message = "Supported values are: 'queued' and 'in_progress'.";
                return Err(ApiError::invalid_value("state", message));
            }
            other => return Err(unknown_parameter(other)),
        }
        Ok(())
    })?;
    let page = page_of::<ResponseId>("turn", &page)?;
    let found = inspect::turns(&app.client().await?, &filter, page).await.map_err(App::away)?;
    let here: HashMap<ResponseId, Snapshot> =
        app.engine.dump().into_iter().map(|turn| (turn.id, turn)).collect();
    let data: Vec<Shown<'_>> =
        found.entries.iter().map(|line| Shown { line, here: here.get(&line.id).map(Here::from) }).collect();
    // Turns that nobody stores are in the memory of their process alone.
    let unstored: Vec<&Snapshot> =
        here.values().filter(|turn| !turn.stored && turn.awaits != "nothing").collect();
    Ok(crate::http::json(&json!({
        "object": "list",
        "first_id": found.entries.first().map(|turn| turn.id),
        "last_id": found.entries.last().map(|turn| turn.id),
        "has_more": found.has_more,
        "data": data,
        "instance": app.engine.instance(),
        "unstored": unstored,
    })))
}

async fn cancel(
    app: &Arc<App>,
    operator: &Operator,
    mut request: Request,
    text: &str,
) -> Result<Response, ApiError> {
    let wanted: Because = body_or_default(&mut request).await?;
    let id: ResponseId = super::id("Turn", text)?;
    let client = app.client().await?;
    let owner = inspect::owner_of_turn(&client, id).await.map_err(App::away)?;
    let actor = operator.because(wanted.reason.as_deref());
    let state = match owner {
        Some(owner) => {
            let who = Principal { owner, ..Principal::default() };
            app.engine.cancel(&who, &id.to_string(), actor).await?.status
        }
        None => {
            let state = app.engine.stop_here(id).ok_or_else(|| ApiError::not_found("Turn", text))?;
            dead_letters::audit(&client, actor, "response.cancel", &id.to_string())
                .await
                .map_err(App::away)?;
            state
        }
    };
    Ok(crate::http::json(&json!({ "id": id, "state": state })))
}
