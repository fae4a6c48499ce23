//! `GET /api/health[/{check}]`: `live` and `ready` for platforms, `status` and `metrics` for operators.

use std::sync::Arc;
use std::time::Duration;

use colloquy::access::AccessError;
use colloquy::config::Scope;
use colloquy::database::maintenance::{self, Leased};
use colloquy::database::migrations;
use colloquy::functions::{HttpRequest, HttpResponse, Invocation, problem};
use colloquy::telemetry::metrics;
use colloquy::version::{COMMIT, VERSION};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use tracing::Instrument;

use crate::maintain;
use crate::problems;
use crate::services::Services;

/// What a probe waits for at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers one probe.
pub async fn health(services: Arc<Services>, request: HttpRequest, invocation: Invocation) -> HttpResponse {
    let request_id = invocation.request_id.as_str();
    let span = tracing::info_span!("health", otel.kind = "server", url.path = "/api/health", request_id);
    let mut response = answer(&services, &request).instrument(span).await;
    response.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn answer(services: &Services, request: &HttpRequest) -> HttpResponse {
    match request.params.get("check").map_or("live", String::as_str) {
        "" | "live" => HttpResponse::json(StatusCode::OK, &json!({ "status": "live" })),
        "ready" => ready(services).await,
        check @ ("status" | "metrics") => match operator(services, &request.headers) {
            Err(error) => refused(&error),
            Ok(()) if check == "status" => status(services).await,
            Ok(()) => prometheus(services).await,
        },
        _ => HttpResponse::refusal(&problems::UNKNOWN_CHECK, Some("Ask for live, ready, status or metrics.")),
    }
}

/// Operators have a key with the scope `operator`. On a developer's machine, loopback will do.
fn operator(services: &Services, headers: &HeaderMap) -> Result<(), AccessError> {
    if services.config.environment.is_dev() && from_loopback(headers) {
        return Ok(());
    }
    services.api_keys.authorize(headers, Scope::Operator, Timestamp::now()).map(drop).inspect_err(|error| {
        metrics::access_refused(error.code());
        tracing::warn!(code = error.code(), "an operator's page was refused");
    })
}

/// Whether the host's proxy says the caller is on this machine; without a proxy only this machine can call.
fn from_loopback(headers: &HeaderMap) -> bool {
    headers.get_all("x-forwarded-for").iter().all(|value| {
        value.to_str().is_ok_and(|list| {
            list.split(',').all(|address| {
                let address = address.trim().trim_start_matches('[');
                let address = address.split(']').next().unwrap_or_default();
                let without_port = address.rsplit_once(':').filter(|(host, _)| !host.contains(':'));
                let address = without_port.map_or(address, |(host, _)| host);
                address.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
            })
        })
    })
}

fn refused(error: &AccessError) -> HttpResponse {
    HttpResponse::refusal(&problems::access(error), Some(error.public_message()))
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

async fn checks(services: &Services) -> Vec<Check> {
    let (database, storage) = futures_util::join!(
        tokio::time::timeout(PATIENCE, migrations::readiness(&services.database)),
        tokio::time::timeout(PATIENCE, storage(services)),
    );
    let check = |name, result: Result<Result<String, String>, _>| match result {
        Ok(Ok(detail)) => Check { name, ok: true, detail: Some(detail) },
        Ok(Err(detail)) => Check { name, ok: false, detail: Some(detail) },
        Err(_) => Check { name, ok: false, detail: Some(format!("no answer within {PATIENCE:?}")) },
    };
    vec![check("database", database), check("storage", storage)]
}

async fn storage(services: &Services) -> Result<String, String> {
    match services.events_queue().properties().await {
        Ok(properties) => Ok(format!("about {} deliveries queued", properties.approximate_count)),
        Err(error) => Err(error.to_string()),
    }
}

/// Terse: which dependency is away, not why.
async fn ready(services: &Services) -> HttpResponse {
    let checks: Vec<Check> =
        checks(services).await.into_iter().map(|check| Check { detail: None, ..check }).collect();
    let ok = checks.iter().all(|check| check.ok);
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    HttpResponse::json(status, &json!({ "status": if ok { "ready" } else { "not ready" }, "checks": checks }))
}

async fn status(services: &Services) -> HttpResponse {
    let (checks, queues, switches) =
        futures_util::join!(checks(services), maintain::queues(services), services.switches.read());
    let (backlogs, leased) = futures_util::join!(told(maintain::backlogs(services)), told(leased(services)));
    HttpResponse::json(
        StatusCode::OK,
        &json!({
            "version": VERSION,
            "commit": COMMIT,
            "environment": services.config.environment.as_str(),
            "time": Timestamp::now(),
            "checks": checks,
            "queues": queues,
            "work": backlogs,
            "working": leased,
            "database_pool": services.database.pool_status(),
            "switches": switches.map_or_else(|error| json!({ "error": error.to_string() }), |s| json!(s)),
            "sources": services.config.app.sources.keys().collect::<Vec<_>>(),
        }),
    )
}

/// What came of a question to the database, or why nothing did.
async fn told<T: Serialize>(question: impl Future<Output = anyhow::Result<T>>) -> serde_json::Value {
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(Ok(answer)) => json!(answer),
        Ok(Err(error)) => json!({ "error": error.to_string() }),
        Err(_) => json!({ "error": format!("no answer within {PATIENCE:?}") }),
    }
}

async fn leased(services: &Services) -> anyhow::Result<Vec<Leased>> {
    /// More than one process works on at once; beyond, `work` has the count.
    const MOST: i64 = 200;
    Ok(maintenance::leased(&services.database.client().await?, MOST).await?)
}

/// Prometheus' text format. Gauges are measured now: on Flex Consumption each function has instances of its own, and
/// this one may never have run `maintain`.
async fn prometheus(services: &Services) -> HttpResponse {
    tokio::time::timeout(PATIENCE, maintain::measure(services)).await.unwrap_or_else(|_| {
        tracing::warn!(code = "measures_late", "gauges could not be measured in time for a scrape");
    });
    match metrics::prometheus_text() {
        Ok(text) => {
            let mut response = HttpResponse::text(StatusCode::OK, text);
            response.headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
            );
            response
        }
        Err(error) => {
            tracing::error!(code = "metrics_unreadable", %error, "metrics could not be written");
            HttpResponse::refusal(&problem::INTERNAL, Some("The metrics could not be written."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_judged_by_every_forwarded_address() {
        let with = |value: &'static str| {
            HeaderMap::from_iter([(
                http::HeaderName::from_static("x-forwarded-for"),
                HeaderValue::from_static(value),
            )])
        };
        assert!(from_loopback(&HeaderMap::new()));
        for near in ["127.0.0.1", "127.0.0.1:50112", "::1", "[::1]:50112", "::ffff:127.0.0.1"] {
            assert!(from_loopback(&with(near)), "{near}");
        }
        for far in ["10.0.0.1", "127.0.0.1, 203.0.113.9", "unknown", "", "2001:db8::1"] {
            assert!(!from_loopback(&with(far)), "{far}");
        }
    }
}
