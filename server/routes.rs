//! Which request goes where. Every answer leaves through here, with its id and the headers that protect browsers.

use std::sync::Arc;
use std::time::Instant;

use bytes::Buf;
use colloquy::access;
use colloquy::openresponses::{ApiError, ErrorType};
use colloquy::request_id;
use colloquy::telemetry::{metrics, trace};
use futures_util::Stream;
use http::header::{ALLOW, CONNECTION, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tracing::Instrument;
use tracing::field::Empty;
use warp::Filter;
use warp::reply::Response;

use crate::app::App;
use crate::browser;
use crate::http::{Body, Head, REQUEST_ID, Request, refusal};

use crate::{admin, chat, console, conversations, embeddings, health, models, openapi, responses, usage};

/// All routes as one filter. The match below is the whole map; warp carries it.
pub fn filter(app: Arc<App>) -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::any()
        .map(move || Arc::clone(&app))
        .and(warp::method())
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(
            |app: Arc<App>,
             method: Method,
             path: warp::path::FullPath,
             query: String,
             headers: HeaderMap,
             body| { serve(app, method, path.as_str().to_owned(), query, headers, body) },
        )
}

async fn serve<B: Buf>(
    app: Arc<App>,
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>> + Send + Sync + 'static,
) -> Response {
    let started = Instant::now();
    let id = request_id::of(&headers);
    let limits = &app.config.server;
    let origin = headers.get(ORIGIN).cloned();
    let span = tracing::info_span!(
        "request",
        otel.name = method.as_str(),
        otel.kind = "server",
        otel.status_code = Empty,
        request_id = %id,
        http.request.method = method.as_str(),
        http.route = Empty,
        url.path = path,
        http.response.status_code = Empty,
    );
    trace::adopt(&span, headers.get("traceparent").and_then(|value| value.to_str().ok()));
    let body = Body::new(body, limits.body_max, limits.body_timeout);
    let (head, unread) = (Head::of(&headers), body.unread());
    let named = Named::of(&path, &headers);
    let request = Request { method, path, query, headers, body };
    let (route, mut response) = async {
        if request.method == Method::OPTIONS {
            return ("preflight", browser::preflight(&limits.cors, &request.headers));
        }
        // Boxed: a connection keeps room for what answers it, also while an answer streams or nothing is asked.
        match Box::pin(dispatch(&app, request)).await {
            (route, Ok(response)) => (route, response),
            (route, Err(error)) => {
                if error.status.is_server_error() {
                    tracing::warn!(code = error.code, route, "a request was answered with an error");
                } else {
                    tracing::debug!(code = error.code, route, "a request was refused");
                }
                if error.status == StatusCode::NOT_FOUND
                    && let Some(named) = named
                {
                    app.look_whose(&named.presented, &named.id).await;
                }
                (route, refusal(&error))
            }
        }
    }
    .instrument(span.clone())
    .await;
    span.record("http.response.status_code", response.status().as_u16()).record("http.route", route);
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    metrics::request(route, response.status().as_u16(), started.elapsed());
    let closes = unread.is_too_long(head, &app.config.server).await;
    let headers = response.headers_mut();
    if closes {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    headers.insert(REQUEST_ID, id.header_value());
    let elapsed = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    headers.insert("openai-processing-ms", HeaderValue::from(elapsed));
    browser::protect(headers, app.config.environment);
    browser::allow(headers, &limits.cors, origin.as_ref());
    response
}

/// A conversation or a response of a request's path, and who asks for it.
struct Named {
    id: String,
    presented: String,
}

impl Named {
    fn of(path: &str, headers: &HeaderMap) -> Option<Self> {
        let mut segments = path.strip_prefix("/v1/")?.split('/');
        let id = segments.find(|one| one.starts_with("conv_") || one.starts_with("resp_"))?;
        Some(Self { id: id.to_owned(), presented: access::presented(headers)?.to_owned() })
    }
}

/// The map. Gives the route's name, for metrics and logs, beside the answer.
async fn dispatch(app: &Arc<App>, mut request: Request) -> (&'static str, Result<Response, ApiError>) {
    let path = std::mem::take(&mut request.path);
    if let Err(error) = request.check_address(&path) {
        return ("unknown", Err(error));
    }
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let method = request.method.clone();
    let at = |allowed: &[Method]| allowed.contains(&method);
    use Method as M;
    match *segments.as_slice() {
        [""] | ["icon.svg"] | ["console.json"] | ["assets", _] => console::dispatch(app, &request, &path),
        ["health"] | ["health", "live"] => ("health", Ok(health::live())),
        ["openapi.json"] if at(&[M::GET]) => ("openapi", Ok(openapi::document())),
        ["openapi.json"] => ("openapi", Err(not_allowed("GET"))),
        ["health", check] => ("health", health::check(app, check, &request.headers).await),
        ["v1", "responses"] if at(&[M::POST]) => ("responses.create", responses::create(app, request).await),
        ["v1", "responses"] if at(&[M::GET]) => ("responses.connect", Err(upgrade_required())),
        ["v1", "responses"] => ("responses", Err(not_allowed("GET, POST"))),
        ["v1", "responses", "compact"] if at(&[M::POST]) => {
            ("responses.compact", responses::compact(app, request).await)
        }
        ["v1", "responses", "compact"] => ("responses", Err(not_allowed("POST"))),
        ["v1", "responses", id] if at(&[M::GET]) => ("responses.get", responses::get(app, request, id).await),
        ["v1", "responses", id] if at(&[M::DELETE]) => {
            ("responses.delete", responses::delete(app, request, id).await)
        }
        ["v1", "responses", _] => ("responses", Err(not_allowed("GET, DELETE"))),
        ["v1", "responses", id, "cancel"] if at(&[M::POST]) => {
            ("responses.cancel", responses::cancel(app, request, id).await)
        }
        ["v1", "responses", _, "cancel"] => ("responses", Err(not_allowed("POST"))),
        ["v1", "responses", id, "input_items"] if at(&[M::GET]) => {
            ("responses.input_items", responses::input_items(app, request, id).await)
        }
        ["v1", "responses", _, "input_items"] => ("responses", Err(not_allowed("GET"))),
        ["v1", "conversations", ..] => conversations::dispatch(app, request, &segments[2..]).await,
        ["admin", ..] => admin::dispatch(app, request, &segments[1..]).await,
        ["v1", "chat", "completions"] if at(&[M::POST]) => {
            ("chat.completions", chat::create(app, request).await)
        }
        ["v1", "chat", "completions"] => ("chat.completions", Err(not_allowed("POST"))),
        ["v1", "embeddings"] if at(&[M::POST]) => ("embeddings", embeddings::create(app, request).await),
        ["v1", "embeddings"] => ("embeddings", Err(not_allowed("POST"))),
        ["v1", "models"] if at(&[M::GET]) => ("models.list", models::list(app, request).await),
        ["v1", "models", ref id @ ..] if at(&[M::GET]) => ("models.get", models::get(app, request, id).await),
        ["v1", "models", ..] => ("models", Err(not_allowed("GET"))),
        ["v1", "usage"] if at(&[M::GET]) => ("usage", usage::get(app, request).await),
        ["v1", "usage"] => ("usage", Err(not_allowed("GET"))),
        _ => ("unknown", Err(unknown(&method, &path))),
    }
}

/// 404: no route has this address.
pub fn unknown(method: &Method, path: &str) -> ApiError {
    let message = format!(
        "Unknown request URL: {method} {}. Check the address; the API is under /v1, operators' routes are under /admin.",
        colloquy::openresponses::excerpt(path)
    );
    ApiError::new(StatusCode::NOT_FOUND, ErrorType::InvalidRequestError, "unknown_url", message)
}

/// 405; the header is set by [`refusal`]'s caller through the error's own words.
pub fn not_allowed(methods: &'static str) -> ApiError {
    let message = format!("The method is not allowed here. Allowed: {methods}.");
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        ErrorType::InvalidRequestError,
        "method_not_allowed",
        message,
    )
    .header(ALLOW, HeaderValue::from_static(methods))
}

fn upgrade_required() -> ApiError {
    let message =
        "GET /v1/responses opens a WebSocket; send the headers of an upgrade. To create a response, POST.";
    ApiError::new(StatusCode::UPGRADE_REQUIRED, ErrorType::InvalidRequestError, "upgrade_required", message)
        .header(http::header::UPGRADE, HeaderValue::from_static("websocket"))
}
