//! `/v1/embeddings`.

use std::sync::Arc;

use colloquy::llm::Embeddings;
use colloquy::openresponses::ApiError;
use http::{HeaderMap, StatusCode};
use warp::reply::Response;

use crate::app::App;
use crate::http::Request;

/// `POST /v1/embeddings`.
pub async fn create(app: &Arc<App>, mut request: Request) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let body = request.json_bytes().await?;
    let embeddings = Embeddings::parse(&body)?;
    let admitted = app.admit(&who, body.len())?;
    drop(body);
    let mut rates = HeaderMap::new();
    admitted.describe(&mut rates);
    let answer = app.engine.embed(&who, embeddings, admitted).await?;
    let mut response = crate::http::bytes(StatusCode::OK, answer.into());
    response.headers_mut().extend(rates);
    Ok(response)
}
