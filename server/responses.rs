//! `/v1/responses`: create, retrieve, follow, cancel, delete, list its input.

use std::sync::Arc;
use std::time::Instant;

use colloquy::access::{Admitted, Principal};
use colloquy::conversation::combinations::Transport;
use colloquy::conversation::engine::{Call, Followed, Turn};
use colloquy::database::audit::Actor;
use colloquy::database::responses::Order;
use colloquy::openresponses::{
    ApiError, CompactRequest, CreateResponse, Dialect, Encoded, Form, excerpt, parse,
};
use http::{HeaderMap, StatusCode};
use serde_json::json;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use warp::reply::Response;

use crate::app::App;
use crate::http::{Request, with_status};
use crate::{patience, stream};

/// `POST /v1/responses`.
pub async fn create(app: &Arc<App>, mut request: Request) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let body = request.json_bytes().await?;
    let parameters = CreateResponse::parse(&body)?;
    let admitted = app.admit(&who, body.len())?;
    let mut rates = HeaderMap::new();
    admitted.describe(&mut rates);
    let form = form(&request.headers, Encoded::Sse);
    let call = call(&request.headers, Transport::Http, &body)?;
    drop(body);
    let limits = &app.config.server;
    let mut response = if parameters.context_management.as_ref().is_some_and(|asked| !asked.is_empty()) {
        // A summary may be written first, which takes as long as an answer.
        let (form_of, patience) = match parameters.stream {
            Some(true) => (patience::Form::Sse, limits.heartbeat),
            _ => (patience::Form::Json, limits.json_keep_alive),
        };
        let (app, who) = (Arc::clone(app), Arc::clone(&who));
        let answer = async move { answer(&app, &who, parameters, call, admitted, form).await };
        patience::within(answer, form_of, patience, limits.heartbeat).await?
    } else {
        answer(app, &who, parameters, call, admitted, form).await?
    };
    response.headers_mut().extend(rates);
    Ok(response)
}

async fn answer(
    app: &Arc<App>,
    who: &Arc<Principal>,
    parameters: CreateResponse,
    call: Call,
    admitted: Admitted,
    form: Form,
) -> Result<Response, ApiError> {
    let asked = Instant::now();
    let (streamed, background) = (parameters.stream.unwrap_or(false), parameters.background.unwrap_or(false));
    let turn = app.engine.create(who, parameters, call, admitted).await?;
    let limits = &app.config.server;
    if streamed {
        app.engine.viewed(&turn).await?;
        let viewer = turn.viewer(form, None);
        turn.opened(limits.heartbeat.saturating_sub(asked.elapsed())).await?;
        return Ok(stream::sse(viewer, limits));
    }
    if background {
        return Ok(crate::http::json(&app.engine.accepted(who, &turn).await?));
    }
    let _watching = turn.live.watch();
    refused_early(app, &turn).await?;
    stream::json(Arc::clone(&turn.live), limits.json_keep_alive, limits.heartbeat, stream::whole).await
}

/// A refusal that comes soon has a status of its own; one that comes late is told in the stream.
pub async fn refused_early(app: &App, turn: &Turn) -> Result<(), ApiError> {
    turn.opened(app.config.server.heartbeat).await
}

/// What a request says about itself.
pub fn call(headers: &HeaderMap, transport: Transport, body: &[u8]) -> Result<Call, ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let idempotency_key = text("idempotency-key").filter(|key| !key.is_empty()).map(str::to_owned);
    if idempotency_key.as_ref().is_some_and(|key| key.len() > 255) {
        return Err(ApiError::invalid(
            "idempotency_key_too_long",
            "Idempotency-Key",
            "At most 255 characters.",
        ));
    }
    let is_retry = text("x-stainless-retry-count").is_some_and(|count| count != "0");
    Ok(Call {
        transport,
        idempotency_key,
        is_retry,
        digest: Sha256::digest(body).into(),
        local: None,
        job: None,
    })
}

/// The form in which a caller gets events: OpenAI's SDKs say who they are, and which helper of theirs calls.
pub fn form(headers: &HeaderMap, encoded: Encoded) -> Form {
    let dialect = match headers.get("x-stainless-helper-method") {
        Some(helper) if helper == "stream" => Dialect::OpenAiHelper,
        _ if headers.contains_key("x-stainless-lang") => Dialect::OpenAi,
        _ => Dialect::OpenResponses,
    };
    Form { encoded, dialect }
}

/// `GET /v1/responses/{id}`, also as a stream.
pub async fn get(app: &Arc<App>, request: Request, id: &str) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let mut streamed = false;
    let mut after = None;
    let mut encrypted = false;
    for (name, value) in request.params() {
        match &*name {
            "stream" => streamed = flag("stream", &value)?,
            "starting_after" => {
                let message = format!(
                    "Invalid 'starting_after': expected a sequence number, not '{}'.",
                    excerpt(&value)
                );
                let number = value.parse::<u64>();
                after = Some(number.map_err(|_| ApiError::invalid_value("starting_after", message))?);
            }
            "include" | "include[]" => encrypted |= value == "reasoning.encrypted_content",
            "include_obfuscation" => {}
            other => return Err(unknown_parameter(other)),
        }
    }
    if after.is_some() && !streamed {
        let message = "'starting_after' needs 'stream' to be true.";
        return Err(ApiError::invalid_value("starting_after", message));
    }
    if streamed {
        let form = form(&request.headers, Encoded::Sse);
        let Followed { viewer, by_grant } = app.engine.follow(&who, id, form, after, encrypted).await?;
        let limits = &app.config.server;
        return Ok(match by_grant {
            None => stream::sse(viewer, limits),
            Some(conversation) => stream::sse(stream::Granted::new(viewer, app, who, conversation), limits),
        });
    }
    Ok(crate::http::json(&app.engine.get(&who, id, encrypted).await?))
}

/// `DELETE /v1/responses/{id}`.
pub async fn delete(app: &Arc<App>, request: Request, id: &str) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    app.engine.delete(&who, id).await?;
    Ok(with_status(StatusCode::OK, &json!({ "id": id, "object": "response", "deleted": true })))
}

/// `POST /v1/responses/{id}/cancel`.
pub async fn cancel(app: &Arc<App>, request: Request, id: &str) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let name = who.actor();
    let response = app.engine.cancel(&who, id, Actor { name: &name, reason: None }).await?;
    Ok(crate::http::json(&response))
}

/// `GET /v1/responses/{id}/input_items`.
pub async fn input_items(app: &Arc<App>, request: Request, id: &str) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let page = Page::of(&request)?;
    let items = app.engine.input_items(&who, id, page.after.as_deref(), page.limit, page.order).await?;
    Ok(list(items.entries.iter().map(|entry| entry.data.as_str()), items.has_more))
}

/// What a list is asked for with.
pub struct Page {
    pub after: Option<String>,
    /// 1 to 100.
    pub limit: u32,
    pub order: Order,
}

impl Page {
    /// From the query. Parameters that are none of a list's are refused.
    pub fn of(request: &Request) -> Result<Self, ApiError> {
        Self::with(request, |name, _| Err(unknown_parameter(name)))
    }

    /// The same, with further parameters.
    pub fn with(
        request: &Request,
        mut other: impl FnMut(&str, &str) -> Result<(), ApiError>,
    ) -> Result<Self, ApiError> {
        let mut page = Self { after: None, limit: 20, order: Order::Descending };
        for (name, value) in request.params() {
            match &*name {
                "after" => page.after = Some(value.into_owned()),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=100).contains(limit));
                    let message = format!("Invalid 'limit': expected 1 to 100, not '{}'.", excerpt(&value));
                    page.limit = limit.ok_or_else(|| ApiError::invalid_value("limit", message))?;
                }
                "order" => page.order = order(&value)?,
                "include" | "include[]" => {}
                name => other(name, &value)?,
            }
        }
        Ok(page)
    }
}

/// The order of a list, out of a query.
pub fn order(value: &str) -> Result<Order, ApiError> {
    match value {
        "asc" => Ok(Order::Ascending),
        "desc" => Ok(Order::Descending),
        _ => Err(ApiError::invalid_value("order", "Supported values are: 'asc' and 'desc'.")),
    }
}

/// A list of items that are JSON already.
pub fn list<'a>(items: impl Iterator<Item = &'a str>, has_more: bool) -> Response {
    let data: Vec<&RawValue> = items.filter_map(|json| serde_json::from_str(json).ok()).collect();
    let id = |item: Option<&&RawValue>| {
        #[derive(serde::Deserialize)]
        struct Id<'a> {
            #[serde(borrow)]
            id: std::borrow::Cow<'a, str>,
        }
        item.and_then(|item| serde_json::from_str::<Id<'_>>(item.get()).ok()).map(|id| id.id.into_owned())
    };
    crate::http::json(&json!({
        "object": "list",
        "first_id": id(data.first()),
        "last_id": id(data.last()),
        "has_more": has_more,
        "data": data,
    }))
}

/// 400: a query parameter that the route does not know.
pub fn unknown_parameter(name: &str) -> ApiError {
    let name = excerpt(name);
    ApiError::invalid("unknown_parameter", &name, format!("Unknown parameter: '{name}'."))
}

/// A query parameter that is true or false, as OpenAI's SDKs write it.
pub fn flag(name: &str, value: &str) -> Result<bool, ApiError> {
    match value {
        "true" | "True" | "1" => Ok(true),
        "false" | "False" | "0" => Ok(false),
        _ => Err(ApiError::invalid_value(name, format!("Invalid '{name}': expected true or false."))),
    }
}

/// `POST /v1/responses/compact`.
pub async fn compact(app: &Arc<App>, mut request: Request) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let body = request.json_bytes().await?;
    let asked: CompactRequest = parse(&body)?;
    let admitted = app.admit(&who, body.len())?;
    let mut rates = HeaderMap::new();
    admitted.describe(&mut rates);
    drop(body);
    let limits = &app.config.server;
    let app = Arc::clone(app);
    let answer = async move { Ok(crate::http::json(&app.engine.compact(&who, asked, admitted).await?)) };
    let form = patience::Form::Json;
    let mut response = patience::within(answer, form, limits.json_keep_alive, limits.heartbeat).await?;
    response.headers_mut().extend(rates);
    Ok(response)
}
