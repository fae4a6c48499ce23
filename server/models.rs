//! `/v1/models`: the aliases of `colloquy.toml`, with their window and price.

use std::sync::Arc;

use colloquy::llm::{Alias, Price};
use colloquy::openresponses::ApiError;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::json;
use warp::reply::Response;

use crate::app::App;
use crate::http::Request;

/// A model as OpenAI shows it, and what is ours beside it.
#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    /// Nothing tells when a provider made it.
    created: i64,
    owned_by: &'a str,
    description: Option<&'a str>,
    /// Input and output together, in tokens.
    context_window: u64,
    /// Tokens.
    max_output_tokens: u32,
    /// Micro-units of the currency per million tokens, at its dearest deployment.
    price: Cost,
    /// Whether `POST /v1/embeddings` takes it.
    embeddings: bool,
}

#[derive(Serialize)]
struct Cost {
    input: u64,
    cached_input: u64,
    cache_write: u64,
    output: u64,
}

impl<'a> From<&'a Alias> for Model<'a> {
    fn from(alias: &'a Alias) -> Self {
        let Price { input, cached_input, cache_write, output } = alias.price();
        Self {
            id: alias.name(),
            object: "model",
            created: 0,
            owned_by: alias.owned_by(),
            description: Some(&*alias.config().description).filter(|text| !text.is_empty()),
            context_window: alias.context_window(),
            max_output_tokens: alias.max_output_tokens(),
            price: Cost { input, cached_input, cache_write, output },
            embeddings: alias.embeds(),
        }
    }
}

/// `GET /v1/models`.
pub async fn list(app: &Arc<App>, request: Request) -> Result<Response, ApiError> {
    app.authenticate(&request.headers).await?;
    let models: Vec<Model<'_>> = app.engine.router().aliases().map(|alias| Model::from(&**alias)).collect();
    Ok(crate::http::json(&json!({ "object": "list", "data": models })))
}

/// `GET /v1/models/{id}`. An id may hold slashes, which SDKs escape and others do not.
pub async fn get(app: &Arc<App>, request: Request, id: &[&str]) -> Result<Response, ApiError> {
    app.authenticate(&request.headers).await?;
    let id = id.join("/");
    let id = percent_decode_str(&id).decode_utf8_lossy();
    let alias = app.engine.router().alias(&id).ok_or_else(|| colloquy::llm::no_such_model(&id))?;
    Ok(crate::http::json(&Model::from(&**alias)))
}
