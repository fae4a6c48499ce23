//! `/admin/dead-letters`: work that was given up, replayed or discarded, one or many.

use std::sync::Arc;

use colloquy::database::inspect::{self, DeadLetterFilter};
use colloquy::ids::DeadLetterId;
use colloquy::jobs::state::DeadLetterState;
use colloquy::openresponses::ApiError;
use colloquy::operations::{Batch, Found, LETTER_KINDS, MOST_AT_ONCE, MOST_PER_SECOND};
use http::Method;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use warp::reply::Response;

use super::{Because, Operator, body, body_or_default, failed, id, instant, needed, page_of};
use crate::app::App;
use crate::http::{Request, list};
use crate::responses::{Page, unknown_parameter};
use crate::routes::not_allowed;

/// The part of the map under `/admin/dead-letters`.
pub async fn dispatch(
    app: &Arc<App>,
    operator: &Operator,
    request: Request,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    match (request.method.clone(), rest) {
        (Method::GET, []) => ("admin.dead_letters.list", index(app, request).await),
        (_, []) => ("admin.dead_letters", Err(not_allowed("GET"))),
        (Method::POST, ["replay"]) => {
            ("admin.dead_letters.replay_all", replay_all(app, operator, request).await)
        }
        (Method::POST, ["discard"]) => {
            ("admin.dead_letters.discard_all", discard_all(app, operator, request).await)
        }
        (_, ["replay" | "discard"]) => ("admin.dead_letters", Err(not_allowed("POST"))),
        (Method::GET, [id]) => ("admin.dead_letters.get", get(app, id).await),
        (_, [_]) => ("admin.dead_letters", Err(not_allowed("GET"))),
        (Method::POST, [id, "replay"]) => {
            ("admin.dead_letters.replay", replay(app, operator, request, id).await)
        }
        (Method::POST, [id, "discard"]) => {
            ("admin.dead_letters.discard", discard(app, operator, request, id).await)
        }
        (_, [_, "replay" | "discard"]) => ("admin.dead_letters", Err(not_allowed("POST"))),
        _ => ("unknown", Err(ApiError::not_found("Path", "/admin/dead-letters"))),
    }
}

/// Open ones, unless `state` says otherwise; `*` is all.
async fn index(app: &Arc<App>, request: Request) -> Result<Response, ApiError> {
    let state = Some(DeadLetterState::Open.as_str().to_owned());
    let mut filter = DeadLetterFilter { state, ..DeadLetterFilter::default() };
    let page = Page::with(&request, |name, value| {
        let text = || Some(value.to_owned());
        match name {
            "kind" => filter.kind = Some(kind("kind", value)?),
            "queue" => filter.queue = text(),
            "source" => filter.source = text(),
            "route" => filter.route = text(),
            "code" => filter.reason_code = text(),
            "since" => filter.since = instant("since", value)?,
            "before" => filter.before = instant("before", value)?,
            "state" if value == "*" => filter.state = None,
            "state" if DeadLetterState::ALL.iter().any(|state| state.as_str() == value) => {
                filter.state = text()
            }
            "state" => {
                let message = "Supported values are: 'open', 'replayed', 'discarded' and '*'.";
                return Err(ApiError::invalid_value("state", message));
            }
            other => return Err(unknown_parameter(other)),
        }
        Ok(())
    })?;
    let page = page_of::<DeadLetterId>("dead letter", &page)?;
    let found = inspect::dead_letters(&app.client().await?, &filter, page).await.map_err(App::away)?;
    Ok(list(&found.entries, |letter| letter.id, found.has_more))
}

/// 400 unless there are dead letters of that kind.
fn kind(param: &str, value: &str) -> Result<String, ApiError> {
    let message = "Supported values are: 'job', 'callback' and 'message'.";
    let known = LETTER_KINDS.contains(&value).then(|| value.to_owned());
    known.ok_or_else(|| ApiError::invalid_value(param, message))
}

async fn get(app: &Arc<App>, text: &str) -> Result<Response, ApiError> {
    Ok(crate::http::json(&app.operations.dead_letter(id("Dead letter", text)?).await.map_err(failed)?))
}

async fn replay(
    app: &Arc<App>,
    operator: &Operator,
    mut request: Request,
    text: &str,
) -> Result<Response, ApiError> {
    let wanted: Because = body_or_default(&mut request).await?;
    let id = id("Dead letter", text)?;
    app.operations.replay(id, operator.because(wanted.reason.as_deref())).await.map_err(failed)?;
    get(app, text).await
}

async fn discard(
    app: &Arc<App>,
    operator: &Operator,
    mut request: Request,
    text: &str,
) -> Result<Response, ApiError> {
    let wanted: Because = body_or_default(&mut request).await?;
    needed(wanted.reason.as_deref())?;
    let id = id("Dead letter", text)?;
    app.operations.discard(id, operator.because(wanted.reason.as_deref())).await.map_err(failed)?;
    get(app, text).await
}

/// Which dead letters, as they are asked for.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    kind: Option<String>,
    queue: Option<String>,
    source: Option<String>,
    route: Option<String>,
    code: Option<String>,
    since: Option<Timestamp>,
    before: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Many {
    /// Empty: all.
    filter: Filter,
    limit: Option<u32>,
    /// A second; only to replay.
    rate: Option<u32>,
    #[serde(default)]
    dry_run: bool,
    reason: Option<String>,
}

impl Many {
    fn batch(&self) -> Result<Batch, ApiError> {
        let within = |name: &str, value: Option<u32>, default: u32, most: u32| match value {
            None => Ok(default),
            Some(value) if (1..=most).contains(&value) => Ok(value),
            Some(_) => Err(ApiError::invalid_value(name, format!("Invalid '{name}': expected 1 to {most}."))),
        };
        self.filter.kind.as_deref().map(|value| kind("filter.kind", value)).transpose()?;
        let Filter { kind, queue, source, route, code, since, before } = &self.filter;
        let filter = DeadLetterFilter {
            id: None,
            kind: kind.clone(),
            queue: queue.clone(),
            source: source.clone(),
            route: route.clone(),
            reason_code: code.clone(),
            state: None,
            since: *since,
            before: *before,
        };
        Ok(Batch {
            filter,
            limit: within("limit", self.limit, 1_000, MOST_AT_ONCE)?,
            rate: within("rate", self.rate, 20, MOST_PER_SECOND)?,
        })
    }
}

/// What would be done.
#[derive(Serialize)]
struct Would {
    dry_run: bool,
    #[serde(flatten)]
    found: Found,
}

async fn replay_all(app: &Arc<App>, operator: &Operator, mut request: Request) -> Result<Response, ApiError> {
    let wanted: Many = body(&mut request).await?;
    let batch = wanted.batch()?;
    let found = app.operations.found(&batch).await.map_err(failed)?;
    if wanted.dry_run {
        return Ok(crate::http::json(&Would { dry_run: true, found }));
    }
    let actor = operator.because(wanted.reason.as_deref());
    let replay = app.operations.replay_all(&batch, actor).await.map_err(failed)?;
    Ok(crate::http::json(&json!({
        "found": found.found,
        "replayed": replay.replayed,
        "unreadable": replay.unreadable,
        "last_due_at": replay.last_due_at,
    })))
}

async fn discard_all(
    app: &Arc<App>,
    operator: &Operator,
    mut request: Request,
) -> Result<Response, ApiError> {
    let wanted: Many = body(&mut request).await?;
    let batch = wanted.batch()?;
    let found = app.operations.found(&batch).await.map_err(failed)?;
    if wanted.dry_run {
        return Ok(crate::http::json(&Would { dry_run: true, found }));
    }
    needed(wanted.reason.as_deref())?;
    let actor = operator.because(wanted.reason.as_deref());
    let discarded = app.operations.discard_all(&batch, actor).await.map_err(failed)?;
    Ok(crate::http::json(&json!({ "found": found.found, "discarded": discarded })))
}
