//! `/admin/jobs`, `/admin/callbacks`, `/admin/targets`: work that waits, runs or is done, and whom callbacks go to.

use std::sync::Arc;

use colloquy::database::inspect::{self, WorkFilter};
use colloquy::ids::{CallbackId, JobId};
use colloquy::jobs::state::{WorkKind, WorkState};
use colloquy::openresponses::{ApiError, excerpt};
use http::Method;
use serde_json::json;
use uuid::Uuid;
use warp::reply::Response;

use super::{Because, Operator, body_or_default, failed, page_of, state};
use crate::app::App;
use crate::http::{Request, list};
use crate::responses::{Page, unknown_parameter};
use crate::routes::not_allowed;

/// The part of the map under `/admin/jobs`.
pub async fn jobs(
    app: &Arc<App>,
    request: Request,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    match (request.method.clone(), rest) {
        (Method::GET, []) => ("admin.jobs.list", index(app, request, WorkKind::Job).await),
        (Method::GET, [text]) => ("admin.jobs.get", one(app, WorkKind::Job, text).await),
        (_, [] | [_]) => ("admin.jobs", Err(not_allowed("GET"))),
        _ => ("unknown", Err(ApiError::not_found("Path", "/admin/jobs"))),
    }
}

/// The part of the map under `/admin/callbacks`.
pub async fn callbacks(
    app: &Arc<App>,
    request: Request,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    match (request.method.clone(), rest) {
        (Method::GET, []) => ("admin.callbacks.list", index(app, request, WorkKind::Callback).await),
        (Method::GET, [text]) => ("admin.callbacks.get", one(app, WorkKind::Callback, text).await),
        (_, [] | [_]) => ("admin.callbacks", Err(not_allowed("GET"))),
        _ => ("unknown", Err(ApiError::not_found("Path", "/admin/callbacks"))),
    }
}

/// The part of the map under `/admin/targets`.
pub async fn targets(
    app: &Arc<App>,
    operator: &Operator,
    request: Request,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    match (request.method.clone(), rest) {
        (Method::GET, []) => ("admin.targets.list", all_targets(app).await),
        (_, []) => ("admin.targets", Err(not_allowed("GET"))),
        (Method::POST, [name, "enable"]) => {
            ("admin.targets.enable", enable(app, operator, request, name).await)
        }
        (_, [_, "enable"]) => ("admin.targets", Err(not_allowed("POST"))),
        _ => ("unknown", Err(ApiError::not_found("Path", "/admin/targets"))),
    }
}

/// What names a row among those of its kind.
fn row(kind: WorkKind, text: &str) -> Option<Uuid> {
    match kind {
        WorkKind::Job => text.parse::<JobId>().ok().map(|id| id.0),
        WorkKind::Callback => text.parse::<CallbackId>().ok().map(|id| id.0),
    }
}

async fn index(app: &Arc<App>, request: Request, kind: WorkKind) -> Result<Response, ApiError> {
    let object = match kind {
        WorkKind::Job => "kind",
        WorkKind::Callback => "target",
    };
    let mut filter = WorkFilter::default();
    let page = Page::with(&request, |name, value| {
        match name {
            "route" => filter.route = Some(value.to_owned()),
            "state" => filter.state = state::<WorkState>(value)?,
            "event" => {
                let message = format!("No event with id '{}'.", excerpt(value));
                let id = value.parse().map_err(|_| ApiError::invalid_value("event", message))?;
                filter.event = Some(id);
            }
            name if name == object => filter.object = Some(value.to_owned()),
            other => return Err(unknown_parameter(other)),
        }
        Ok(())
    })?;
    let bare = page.after.map(|text| row(kind, &text).map_or(text, |id| id.to_string()));
    let page = page_of::<Uuid>(kind.as_str(), &Page { after: bare, ..page })?;
    let found = inspect::work(&app.client().await?, kind, &filter, page).await.map_err(App::away)?;
    Ok(list(&found.entries, |work| work.id.clone(), found.has_more))
}

async fn one(app: &Arc<App>, kind: WorkKind, text: &str) -> Result<Response, ApiError> {
    let what = match kind {
        WorkKind::Job => "Job",
        WorkKind::Callback => "Callback",
    };
    let not_found = || ApiError::not_found(what, text);
    let id = row(kind, text).ok_or_else(not_found)?;
    let found = inspect::work_of(&app.client().await?, kind, id).await.map_err(App::away)?;
    Ok(crate::http::json(&found.ok_or_else(not_found)?))
}

async fn all_targets(app: &Arc<App>) -> Result<Response, ApiError> {
    let targets = app.operations.targets().await.map_err(failed)?;
    Ok(list(&targets, |target| target.target.clone(), false))
}

async fn enable(
    app: &Arc<App>,
    operator: &Operator,
    mut request: Request,
    name: &str,
) -> Result<Response, ApiError> {
    let wanted: Because = body_or_default(&mut request).await?;
    let actor = operator.because(wanted.reason.as_deref());
    let was_disabled = app.operations.enable_target(name, actor).await.map_err(failed)?;
    Ok(crate::http::json(&json!({ "target": name, "enabled": true, "was_disabled": was_disabled })))
}
