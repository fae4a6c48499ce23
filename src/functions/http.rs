//! HTTP as a handler sees it: the caller's raw bytes in, one response out.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Serialize;
use tokio::time::timeout_at;

use super::problem::{self, ProblemType};

/// What every problem's `type` starts with; the slug of a [`ProblemType`] follows.
pub const PROBLEM_TYPE: &str = "/problems/";

/// The media type of a problem's body.
pub(super) const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

pub(super) type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send + Sync>>;

/// A request as its caller sent it, body still on the wire.
///
/// Behind the host some headers are not the caller's: a proxying host replaces `Host` and adds
/// `X-Forwarded-*`; a forwarding one drops content headers other than `Content-Length` and `Content-Type`,
/// and chunked bodies.
pub struct HttpRequest {
    pub method: Method,
    /// The path as sent, prefix included, still encoded.
    pub path: String,
    /// The query as sent, without `?`.
    pub query: Option<String>,
    pub headers: HeaderMap,
    /// The template's parameters, percent-decoded; one left out by the caller is absent.
    pub params: BTreeMap<String, String>,
    body: Unread,
    most: u64,
}

/// What of a body has not been read. Shared with the dispatcher, which discards it before it answers: a host
/// that is still sending when the connection closes reports that, and not the answer.
#[derive(Clone)]
pub(super) struct Unread(Arc<Mutex<Option<BodyStream>>>);

impl Unread {
    pub(super) fn new(body: BodyStream) -> Self {
        Self(Arc::new(Mutex::new(Some(body))))
    }

    pub(super) fn take(&self) -> Option<BodyStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn give_back(&self, body: BodyStream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
    }

    /// Reads what is left, up to `most` bytes, and forgets it.
    pub(super) async fn discard(&self, most: u64) {
        let Some(mut body) = self.take() else { return };
        let mut discarded = 0;
        while let Some(Ok(chunk)) = body.next().await {
            discarded += chunk.len() as u64;
            if discarded > most {
                break;
            }
        }
    }
}

impl HttpRequest {
    pub(super) fn new(
        method: Method,
        path: String,
        query: Option<String>,
        headers: HeaderMap,
        params: BTreeMap<String, String>,
        body: Unread,
        most: u64,
    ) -> Self {
        Self { method, path, query, headers, params, body, most }
    }

    /// A request from nowhere, for calling a handler in a test.
    pub fn from_parts(
        method: Method,
        path: &str,
        headers: HeaderMap,
        params: BTreeMap<String, String>,
        body: Bytes,
    ) -> Self {
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (path.to_owned(), None),
        };
        let stream = Box::pin(futures_util::stream::iter([Ok(body)]));
        Self::new(method, path, query, headers, params, Unread::new(stream), u64::MAX)
    }

    /// The body's length as declared; `None` if it is chunked or there is none.
    pub fn content_length(&self) -> Option<u64> {
        if self.is_chunked() {
            return None;
        }
        self.headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
    }

    /// Whether the body's length is unknown until it ends.
    pub fn is_chunked(&self) -> bool {
        self.headers.contains_key(TRANSFER_ENCODING)
    }

    /// The whole body, unless it is longer than `limit` bytes (or than the host's own limit, if that is
    /// lower). A declared length over the limit is refused before anything is read, an undeclared one as soon
    /// as it is crossed.
    pub async fn bytes(&mut self, limit: u64) -> Result<Bytes, BodyError> {
        self.read(limit, |_| true).await
    }

    /// As [`Self::bytes`], for bodies nobody answers for yet: until `deadline`, and with room asked for each piece of
    /// so many bytes before it is kept. What is refused for either is not kept.
    pub async fn bytes_within(
        &mut self,
        limit: u64,
        deadline: Instant,
        room: impl FnMut(usize) -> bool + Send,
    ) -> Result<Bytes, BodyError> {
        match timeout_at(deadline.into(), self.read(limit, room)).await {
            Ok(read) => read,
            Err(_) => Err(BodyError::TooSlow),
        }
    }

    async fn read(&mut self, limit: u64, room: impl FnMut(usize) -> bool + Send) -> Result<Bytes, BodyError> {
        let limit = limit.min(self.most);
        let declared = self.content_length();
        let mut stream = self.body.take().ok_or(BodyError::AlreadyRead)?;
        let collected = collect(&mut stream, declared, limit, room).await;
        if matches!(collected, Err(BodyError::TooLarge { .. } | BodyError::NoRoom)) {
            self.body.give_back(stream);
        }
        collected
    }
}

impl fmt::Debug for HttpRequest {
    /// Without values: paths and headers carry secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest").field("method", &self.method).finish_non_exhaustive()
    }
}

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the body is longer than {limit} bytes")]
    TooLarge { limit: u64 },
    /// It was not complete at the deadline given for it.
    #[error("the body was not complete in time")]
    TooSlow,
    /// There was no room for a piece of it.
    #[error("there is no room for the body now")]
    NoRoom,
    /// The caller went away, or its framing is broken.
    #[error("the body ended before it was complete")]
    Interrupted,
    /// A defect of the handler.
    #[error("the body was read before")]
    AlreadyRead,
}

impl BodyError {
    /// 413, 503, 400 or 500.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow | Self::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
            Self::Interrupted => StatusCode::BAD_REQUEST,
            Self::AlreadyRead => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Collects a body, holding at no time more than `limit` bytes of it and one chunk.
pub(super) async fn collect(
    stream: &mut BodyStream,
    declared: Option<u64>,
    limit: u64,
    mut room: impl FnMut(usize) -> bool + Send,
) -> Result<Bytes, BodyError> {
    /// Reserved ahead on the caller's word alone.
    const TRUSTED: u64 = 64 * 1024;
    if declared.is_some_and(|length| length > limit) {
        return Err(BodyError::TooLarge { limit });
    }
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| BodyError::Interrupted)?;
        if (first.len() + whole.len() + chunk.len()) as u64 > limit {
            return Err(BodyError::TooLarge { limit });
        }
        if !room(chunk.len()) {
            return Err(BodyError::NoRoom);
        }
        if first.is_empty() && whole.is_empty() {
            // Most bodies are one chunk, which is then never copied.
            first = chunk;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(declared.unwrap_or(0).min(TRUSTED) as usize);
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

/// An answer to an HTTP caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl HttpResponse {
    /// Without a body.
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// `text/plain` in UTF-8.
    pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self::with_type(status, HeaderValue::from_static("text/plain; charset=utf-8"), text.into())
    }

    /// `application/json`. What cannot be serialised (a map with keys that are no strings) becomes a 500.
    pub fn json(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => Self::with_type(status, HeaderValue::from_static("application/json"), json.into()),
            Err(error) => {
                tracing::error!(code = "response.unserialisable", %error, "a response is not JSON; this is a defect");
                Self::refusal(&problem::INTERNAL, None)
            }
        }
    }

    /// `application/problem+json` (RFC 9457) of a documented type. Title and detail are public. The SDK adds the member
    /// `request_id`.
    pub fn refusal(problem: &ProblemType, detail: Option<&str>) -> Self {
        let mut body = serde_json::json!({
            "type": format!("{PROBLEM_TYPE}{}", problem.slug),
            "title": problem.title,
            "status": problem.status.as_u16(),
        });
        if let Some(detail) = detail {
            body["detail"] = detail.into();
        }
        let media_type = HeaderValue::from_static(PROBLEM_MEDIA_TYPE);
        Self::with_type(problem.status, media_type, body.to_string().into())
    }

    /// Sets a header, replacing what it was.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    fn with_type(status: StatusCode, media_type: HeaderValue, body: Bytes) -> Self {
        Self { body, ..Self::new(status) }.header(CONTENT_TYPE, media_type)
    }
}
