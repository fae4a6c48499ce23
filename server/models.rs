//! `/v1/models`: the aliases of `colloquy.toml`, with their window and price.

use std::sync::Arc;

use colloquy::llm::router::Alias;
use colloquy::openresponses::ApiError;
use http::HeaderMap;
use serde::Serialize;
use serde_json::json;
use warp::reply::Response;

use crate::app::App;

/// A model as OpenAI shows it, and what is ours beside it.
#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    owned_by: &'a str,
    description: Option<&'a str>,
    /// Tokens.
    context_window: u64,
    max_output_tokens: Option<u64>,
    /// Micro-units of the currency per million tokens, of the first deployment.
    price: Price,
}

#[derive(Serialize)]
struct Price {
    input: i64,
    cached_input: i64,
    cache_write: i64,
    output: i64,
}

/// `GET /v1/models`.
pub async fn list(app: &Arc<App>, headers: &HeaderMap) -> Result<Response, ApiError> {
    app.authenticate(headers).await?;
    let models: Vec<_> = app.engine.router().aliases().map(|alias| json!(model(app, alias))).collect();
    Ok(crate::http::json(&json!({ "object": "list", "data": models })))
}

/// `GET /v1/models/{id}`.
pub async fn get(app: &Arc<App>, headers: &HeaderMap, id: &str) -> Result<Response, ApiError> {
    app.authenticate(headers).await?;
    let alias = app.engine.router().alias(id).ok_or_else(|| ApiError::not_found("Model", id))?;
    Ok(crate::http::json(&model(app, &alias)))
}
