//! `/admin/events`: what came in, what became of it, and running it again.

use std::sync::Arc;

use colloquy::database::inspect::{self, EventFilter};
use colloquy::events::state::EventState;
use colloquy::ids::EventId;
use colloquy::openresponses::ApiError;
use colloquy::telemetry::trace;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use warp::reply::Response;

use super::{Operator, body_or_default, failed, id, instant, page_of, state};
use crate::app::App;
use crate::http::{Request, list};
use crate::responses::{Page, flag, unknown_parameter};
use crate::routes::not_allowed;

/// The part of the map under `/admin/events`.
pub async fn dispatch(
    app: &Arc<App>,
    operator: &Operator,
    request: Request,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    match (request.method.clone(), rest) {
        (Method::GET, []) => ("admin.events.list", index(app, request).await),
        (Method::GET, [id]) => ("admin.events.get", get(app, request, id).await),
        (_, [] | [_]) => ("admin.events", Err(not_allowed("GET"))),
        (Method::POST, [id, "replay"]) => ("admin.events.replay", replay(app, operator, request, id).await),
        (_, [_, "replay"]) => ("admin.events", Err(not_allowed("POST"))),
        _ => ("unknown", Err(ApiError::not_found("Path", "/admin/events"))),
    }
}

async fn index(app: &Arc<App>, request: Request) -> Result<Response, ApiError> {
    let mut filter = EventFilter::default();
    let page = Page::with(&request, |name, value| {
        match name {
            "source" => filter.source = Some(value.to_owned()),
            "type" => filter.event_type = Some(value.to_owned()),
            "key" => filter.key = Some(value.to_owned()),
            "state" => filter.state = state::<EventState>(value)?,
            "since" => filter.since = instant("since", value)?,
            "before" => filter.before = instant("before", value)?,
            other => return Err(unknown_parameter(other)),
        }
        Ok(())
    })?;
    let page = page_of::<EventId>("event", &page)?;
    let found = inspect::events(&app.client().await?, &filter, page).await.map_err(App::away)?;
    Ok(list(&found.entries, |event| event.id, found.has_more))
}

/// With `payload=true` also what the sender sent: JSON as JSON, anything else as text.
async fn get(app: &Arc<App>, request: Request, text: &str) -> Result<Response, ApiError> {
    let mut payload = false;
    for (name, value) in request.params() {
        match &*name {
            "payload" => payload = flag("payload", &value)?,
            other => return Err(unknown_parameter(other)),
        }
    }
    let event = app.operations.event(id("Event", text)?).await.map_err(failed)?;
    let mut shown = serde_json::to_value(&event).map_err(|_| ApiError::internal())?;
    shown["trace_id"] = event.trace_parent.as_deref().and_then(trace::trace_id).into();
    if payload {
        let payload = app.operations.payload(&event).await.map_err(failed)?;
        shown["payload"] = serde_json::from_slice(&payload)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&payload).into_owned()));
    }
    Ok(crate::http::json(&shown))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Replay {
    new_ids: bool,
    dry_run: bool,
    reason: Option<String>,
}

async fn replay(
    app: &Arc<App>,
    operator: &Operator,
    mut request: Request,
    text: &str,
) -> Result<Response, ApiError> {
    let wanted: Replay = body_or_default(&mut request).await?;
    let plan = app.operations.plan_replay(id("Event", text)?).await.map_err(failed)?;
    if wanted.dry_run {
        return Ok(crate::http::json(&json!({
            "dry_run": true, "event": plan.event, "run": plan.run, "jobs": plan.jobs(), "callbacks": plan.callbacks(),
        })));
    }
    let actor = operator.because(wanted.reason.as_deref());
    let replayed = app.operations.replay_event(&plan, wanted.new_ids, actor).await.map_err(failed)?;
    Ok(crate::http::json(&replayed))
}
