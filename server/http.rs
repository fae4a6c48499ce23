//! Requests as routes see them, and what goes back.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use colloquy::config::ServerConfig;
use colloquy::openresponses::{ApiError, ErrorType, excerpt};
use futures_util::{Stream, StreamExt};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use warp::reply::Response;

/// The id that finds a request in answers, logs and rows.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// The media type of every answer that is no stream.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// One request, its body still on the wire.
pub struct Request {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Body,
}

type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send + Sync>>;

/// A body, and how much of it is taken.
pub struct Body {
    stream: Pieces,
    whole: bool,
    limit: usize,
    patience: Duration,
    unread: Unread,
}

/// What was left of a body when its request was answered.
#[derive(Clone, Default)]
pub struct Unread(Arc<Mutex<Option<Pieces>>>);

impl Body {
    /// `limit`: in bytes. `patience`: how long it may take to arrive.
    pub fn new<B: Buf>(
        stream: impl Stream<Item = Result<B, warp::Error>> + Send + Sync + 'static,
        limit: usize,
        patience: Duration,
    ) -> Self {
        let stream = stream.map(|piece| piece.map(|mut piece| piece.copy_to_bytes(piece.remaining())));
        Self { stream: Box::pin(stream), whole: false, limit, patience, unread: Unread::default() }
    }

    /// A share in what will be left of it.
    pub fn unread(&self) -> Unread {
        self.unread.clone()
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if !self.whole {
            let nothing = Box::pin(futures_util::stream::empty());
            let rest = std::mem::replace(&mut self.stream, nothing);
            *self.unread.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
        }
    }
}

impl Unread {
    /// Reads a rest of at most `UNREAD_BODY_MAX`, for at most `UNREAD_BODY_TIMEOUT`, so that the connection can be used
    /// again. Says whether it must be closed instead.
    pub async fn is_too_long(&self, head: Head, limits: &ServerConfig) -> bool {
        let rest = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut rest) = rest else { return false };
        // Reading would ask a caller who waits for leave to send it all.
        if head.awaits_leave || head.length.is_some_and(|length| length > limits.unread_max) {
            return true;
        }
        let drained = async {
            let mut read = 0;
            while let Some(piece) = rest.next().await {
                let Ok(piece) = piece else { return false };
                read += piece.len();
                if read > limits.unread_max {
                    return false;
                }
            }
            true
        };
        !tokio::time::timeout(limits.unread_timeout, drained).await.unwrap_or(false)
    }
}

/// What a request's head says of its body.
#[derive(Clone, Copy)]
pub struct Head {
    length: Option<usize>,
    awaits_leave: bool,
}

impl Head {
    pub fn of(headers: &HeaderMap) -> Self {
        Self { length: declared(headers), awaits_leave: headers.contains_key(EXPECT) }
    }
}

fn declared(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok())
}

impl Request {
    /// The whole body.
    ///
    /// Errors: 413 beyond `REQUEST_BODY_MAX`, 408 if it takes longer than `REQUEST_BODY_TIMEOUT`, 400 if it breaks off.
    pub async fn bytes(&mut self) -> Result<Bytes, ApiError> {
        let limit = self.body.limit;
        let declared = declared(&self.headers);
        if declared.is_some_and(|length| length > limit) {
            return Err(too_large(limit));
        }
        let stream = &mut self.body.stream;
        let collected = async {
            let Some(first) = stream.next().await else { return Ok(Bytes::new()) };
            let first = first.map_err(|_| broken_off())?;
            if declared == Some(first.len()) {
                return Ok(first);
            }
            let mut whole = BytesMut::with_capacity(declared.unwrap_or(first.len()));
            whole.extend_from_slice(&first);
            while let Some(piece) = stream.next().await {
                whole.extend_from_slice(&piece.map_err(|_| broken_off())?);
                if whole.len() > limit {
                    return Err(too_large(limit));
                }
            }
            Ok(whole.freeze())
        };
        let late = || {
            let message = format!(
                "The body did not arrive within {} s (REQUEST_BODY_TIMEOUT).",
                self.body.patience.as_secs()
            );
            ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                ErrorType::InvalidRequestError,
                "body_timeout",
                message,
            )
        };
        let body = tokio::time::timeout(self.body.patience, collected).await.map_err(|_| late())??;
        self.body.whole = true;
        Ok(body)
    }

    /// The body of a JSON endpoint; 415 if it says it is something else.
    pub async fn json_bytes(&mut self) -> Result<Bytes, ApiError> {
        let kind = self.headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
        if let Some(kind) = kind {
            let media = kind.split(';').next().unwrap_or_default().trim();
            if !media.eq_ignore_ascii_case("application/json") {
                return Err(ApiError::new(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    ErrorType::InvalidRequestError,
                    "unsupported_content_type",
                    "Unsupported content type: send 'application/json'.",
                ));
            }
        }
        self.bytes().await
    }

    /// 400 if the path or a parameter of the query holds control characters. No head comes this far that has them as they
    /// are, so they can only be encoded.
    pub fn check_address(&self, path: &str) -> Result<(), ApiError> {
        let controlled = |text: &str| text.contains(char::is_control);
        if path.contains('%') && controlled(&percent_decode_str(path).decode_utf8_lossy()) {
            return Err(control_characters("path"));
        }
        if !self.query.contains('%') {
            return Ok(());
        }
        match self.params().find(|(name, value)| controlled(name) || controlled(value)) {
            Some((name, _)) => Err(control_characters(&excerpt(&name))),
            None => Ok(()),
        }
    }

    /// Parameters of the query, decoded, in order.
    pub fn params(&self) -> impl Iterator<Item = (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)> {
        url::form_urlencoded::parse(self.query.as_bytes())
    }
}

/// 400: neither what is named in paths and queries nor what operators say has control characters.
pub fn control_characters(param: &str) -> ApiError {
    ApiError::invalid_value(param, format!("Invalid '{param}': it holds control characters."))
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        ErrorType::InvalidRequestError,
        "request_too_large",
        format!("The body is larger than {limit} bytes (REQUEST_BODY_MAX)."),
    )
}

fn broken_off() -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        ErrorType::InvalidRequestError,
        "body_incomplete",
        "The body broke off.",
    )
}

/// 200 with a JSON body.
pub fn json(value: &impl Serialize) -> Response {
    with_status(StatusCode::OK, value)
}

/// A JSON body under a status.
pub fn with_status(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => bytes(status, body.into()),
        Err(error) => {
            tracing::error!(code = "answer.unwritable", %error, "an answer could not be written as JSON");
            refusal(&ApiError::internal())
        }
    }
}

/// A page of a list, in OpenAI's shape. `id`: what its `after` takes.
pub fn list<T: Serialize, I: Serialize>(data: &[T], id: impl Fn(&T) -> I, has_more: bool) -> Response {
    json(&serde_json::json!({
        "object": "list",
        "first_id": data.first().map(&id),
        "last_id": data.last().map(&id),
        "has_more": has_more,
        "data": data,
    }))
}

/// A body that is JSON already.
pub fn bytes(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// An error in OpenAI's shape, with the headers its SDKs go by.
pub fn refusal(error: &ApiError) -> Response {
    let body = serde_json::to_vec(&error.body()).unwrap_or_default();
    let mut response = bytes(error.status, body.into());
    let headers = response.headers_mut();
    for (name, value) in &error.headers {
        headers.insert(name, value.clone());
    }
    if let Some(delay) = error.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(delay.as_millis().div_ceil(1_000) as u64));
        headers.insert(RETRY_AFTER_MS, HeaderValue::from(delay.as_millis() as u64));
    }
    if let Some(yes) = error.should_retry {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static(if yes { "true" } else { "false" }));
    }
    response
}
