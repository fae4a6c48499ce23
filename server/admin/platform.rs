//! `/admin/queues` and `/admin/migrations`: what the work goes over, and the schema it stands on.

use std::sync::Arc;

use colloquy::database::migrations::{self, Migrations};
use colloquy::openresponses::ApiError;
use http::Method;
use serde_json::json;
use warp::reply::Response;

use super::failed;
use crate::app::App;
use crate::http::Request;
use crate::responses::unknown_parameter;
use crate::routes::not_allowed;

/// The part of the map under `/admin/queues`.
pub async fn queues(
    app: &Arc<App>,
    request: Request,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    match (request.method.clone(), rest) {
        (Method::GET, []) => ("admin.queues", measured(app, &request).await),
        (_, []) => ("admin.queues", Err(not_allowed("GET"))),
        _ => ("unknown", Err(ApiError::not_found("Path", "/admin/queues"))),
    }
}

/// The part of the map under `/admin/migrations`.
pub async fn migrations(
    app: &Arc<App>,
    request: Request,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    match (request.method.clone(), rest) {
        (Method::GET, []) => ("admin.migrations", standing(app, &request).await),
        (_, []) => ("admin.migrations", Err(not_allowed("GET"))),
        _ => ("unknown", Err(ApiError::not_found("Path", "/admin/migrations"))),
    }
}

async fn measured(app: &Arc<App>, request: &Request) -> Result<Response, ApiError> {
    without_parameters(request)?;
    let (queues, work) = app.operations.queues().await.map_err(failed)?;
    Ok(crate::http::json(&json!({ "queues": queues, "work": work })))
}

async fn standing(app: &Arc<App>, request: &Request) -> Result<Response, ApiError> {
    without_parameters(request)?;
    let known = Migrations::embedded().map_err(|error| {
        tracing::error!(code = error.code(), %error, "this build's migrations cannot be read");
        ApiError::internal()
    })?;
    let standing = migrations::standing(&app.database, &known).await.map_err(App::away)?;
    Ok(crate::http::json(&standing))
}

fn without_parameters(request: &Request) -> Result<(), ApiError> {
    request.params().next().map_or(Ok(()), |(name, _)| Err(unknown_parameter(&name)))
}
