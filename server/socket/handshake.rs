//! The handshake: who connects, from where, and what the connection speaks.

use std::sync::Arc;

use colloquy::access;
use colloquy::openresponses::{ApiError, Encoded, ErrorType};
use colloquy::request_id;
use colloquy::switches::Feature;
use http::header::{
    CONNECTION, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::body::Incoming;
use secrecy::{ExposeSecret, SecretString};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use warp::reply::Response;

use super::serve;
use crate::app::App;
use crate::browser;
use crate::http::refusal;
use crate::responses::form;

/// A browser cannot send headers: its key comes as a subprotocol behind this.
const KEY_PROTOCOL: &str = "openai-insecure-api-key.";

/// Whether a request asks for a WebSocket on the path that has one.
pub fn is_upgrade(request: &hyper::Request<Incoming>) -> bool {
    let websocket = request
        .headers()
        .get(UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    websocket && request.method() == http::Method::GET && request.uri().path() == "/v1/responses"
}

/// Answers the handshake, and serves the connection behind it.
pub async fn accept(app: Arc<App>, request: hyper::Request<Incoming>) -> Response {
    match handshake(app, request).await {
        Ok(response) => response,
        Err(error) => refusal(&error),
    }
}

async fn handshake(app: Arc<App>, mut request: hyper::Request<Incoming>) -> Result<Response, ApiError> {
    let headers = request.headers();
    if let Some(origin) = headers.get(ORIGIN)
        && !browser::allows(&app.config.server.cors, origin)
    {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            ErrorType::PermissionError,
            "origin_not_allowed",
            "Pages of this origin may not connect. Its operator adds it to CORS_ORIGINS.",
        ));
    }
    let bad = |message: &str| {
        ApiError::new(StatusCode::BAD_REQUEST, ErrorType::InvalidRequestError, "bad_handshake", message)
    };
    if headers.get("sec-websocket-version").is_none_or(|version| version != "13") {
        return Err(bad("Sec-WebSocket-Version must be 13.")
            .header(http::header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| bad("Sec-WebSocket-Key is missing."))?;
    let accept =
        HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| bad("Sec-WebSocket-Key."))?;
    let (token, protocol) = protocols(headers);
    let request_id = request_id::of(headers);
    let presented = access::presented(headers).or(token).map(SecretString::from);
    let who = app.verify(presented.as_ref().map(ExposeSecret::expose_secret)).await?;
    app.engine.permit_feature(Feature::Websocket).await?;
    let form = form(headers, Encoded::Json);

    let mut response = Response::new("".into());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let tasks = app.tasks.clone();
    tasks.spawn("websocket", async move {
        match upgrade.await {
            Ok(upgraded) => serve(app, who, presented, form, upgraded, request_id).await,
            Err(error) => tracing::debug!(code = "connection.broken", %error, "an upgrade did not happen"),
        }
    });
    Ok(response)
}

/// The key among the offered subprotocols, and the one to choose: browsers fail a connection that chooses none.
fn protocols(headers: &HeaderMap) -> (Option<&str>, Option<HeaderValue>) {
    let offered = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(',').map(str::trim));
    let (mut token, mut chosen) = (None, None);
    for protocol in offered {
        match protocol.strip_prefix(KEY_PROTOCOL) {
            Some(key) => token = Some(key),
            None if chosen.is_none() => chosen = HeaderValue::from_str(protocol).ok(),
            None => {}
        }
    }
    (token, chosen)
}
