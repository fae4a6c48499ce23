//! `/health` and its four: `live` and `ready` for platforms, `status` and `metrics` for operators.

use std::sync::Arc;
use std::time::Duration;

use colloquy::config::Scope;
use colloquy::database::migrations;
use colloquy::llm::BreakerState;
use colloquy::openresponses::ApiError;
use colloquy::telemetry::metrics;
use colloquy::version::{COMMIT, VERSION};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use warp::reply::Response;

use crate::app::App;
use crate::http::{bytes, with_status};

/// What a probe waits for at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// The process runs.
pub fn live() -> Response {
    fresh(bytes(StatusCode::OK, r#"{"status":"live"}"#.into()))
}

/// The other checks.
pub async fn check(app: &Arc<App>, check: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    match check {
        "ready" => Ok(fresh(ready(app).await)),
        "status" => {
            operator(app, headers).await?;
            Ok(fresh(status(app).await))
        }
        "metrics" => {
            operator(app, headers).await?;
            prometheus(app).map(fresh)
        }
        other => Err(ApiError::not_found("Check", other)),
    }
}

fn fresh(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Operators have a key with the scope `operator`. On a developer's machine anybody is one.
async fn operator(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    if app.config.environment.is_dev() && app.config.server.bind.is_loopback() {
        return Ok(());
    }
    let who = app.authenticate(headers).await?;
    app.require(&who, Scope::Operator)
}

/// One dependency, as a probe sees it.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    /// For operators only.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

async fn checks(app: &App) -> Vec<Check> {
    let database = match tokio::time::timeout(PATIENCE, migrations::readiness(&app.database)).await {
        Ok(Ok(detail)) => Check { name: "database", ok: true, detail: Some(detail) },
        Ok(Err(detail)) => Check { name: "database", ok: false, detail: Some(detail) },
        Err(_) => {
            Check { name: "database", ok: false, detail: Some(format!("no answer within {PATIENCE:?}")) }
        }
    };
    let stopping = app.stopping.is_cancelled();
    vec![
        database,
        Check { name: "process", ok: !stopping, detail: stopping.then(|| "is stopping".to_owned()) },
    ]
}

/// Terse: which dependency is away, not why. Without the database `store: false` goes on, but a slot that cannot reach
/// it must not be swapped in.
async fn ready(app: &App) -> Response {
    let checks: Vec<Check> =
        checks(app).await.into_iter().map(|check| Check { detail: None, ..check }).collect();
    let ok = checks.iter().all(|check| check.ok);
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    with_status(status, &json!({ "status": if ok { "ready" } else { "not ready" }, "checks": checks }))
}

async fn status(app: &App) -> Response {
    let checks = checks(app).await;
    let turns = app.engine.dump();
    let deployments: Vec<_> = app
        .engine
        .router()
        .health()
        .iter()
        .map(|health| {
            let breaker = match health.breaker {
                BreakerState::Closed => "closed",
                BreakerState::Open => "open",
                BreakerState::HalfOpen => "half-open",
            };
            json!({ "name": health.name, "provider": health.provider, "breaker": breaker })
        })
        .collect();
    let spend = app.engine.spend();
    let slices: Vec<_> = spend
        .slices()
        .into_iter()
        .map(|(budget, [drawn, spent, reserved])| {
            json!({
                "scope": budget.scope.as_str(), "subject": &*budget.subject, "day": budget.day,
                "drawn_micros": drawn, "spent_micros": spent, "reserved_micros": reserved,
            })
        })
        .collect();
    with_status(
        StatusCode::OK,
        &json!({
            "version": VERSION,
            "commit": COMMIT,
            "environment": app.config.environment.as_str(),
            "time": Timestamp::now(),
            "instance": app.engine.instance(),
            "stopping": app.stopping.is_cancelled(),
            "checks": checks,
            "connections": { "open": app.connections.open(), "limit": app.connections.limit },
            "turns": turns,
            "database_pool": app.database.pool_status(),
            "deployments": deployments,
            "budgets": { "tracked": spend.is_tracking(), "slices": slices, "rows": spend.writer_status() },
            "shared": app.engine.is_shared(),
        }),
    )
}

fn prometheus(app: &App) -> Result<Response, ApiError> {
    app.measure();
    let text = metrics::prometheus_text().map_err(|error| {
        tracing::error!(code = "metrics_unreadable", %error, "metrics could not be written");
        ApiError::internal()
    })?;
    // Counters are a process's own, and whoever asks twice may meet two.
    let text = format!("# instance {}\n{text}", app.engine.instance());
    let mut response = bytes(StatusCode::OK, text.into());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    Ok(response)
}
