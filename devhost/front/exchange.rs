//! One request at the front, and how it fails.

use std::net::SocketAddr;

use http::{HeaderMap, Response, StatusCode, header};

use super::body::{self, Body};

/// What is known of a request besides itself.
pub struct Exchange {
    /// The invocation id.
    pub id: String,
    pub peer: SocketAddr,
}

/// The host's own answer, with the reason for the log. Callers see the status only, as with the real host.
#[derive(Debug)]
pub struct Failure {
    pub status: StatusCode,
    pub reason: String,
}

impl Failure {
    pub fn new(status: StatusCode, reason: String) -> Self {
        Failure { status, reason }
    }

    pub fn internal(reason: String) -> Self {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, reason)
    }

    /// The handler gave no answer, or not a whole one.
    pub fn broken_off(cause: impl std::fmt::Display) -> Self {
        Failure::internal(format!("cannot reach the handler, or it broke off: {cause}"))
    }

    /// `functionTimeout` has passed.
    pub fn timed_out() -> Self {
        Failure::internal("functionTimeout".to_owned())
    }

    pub fn too_large(limit: u64) -> Self {
        Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request body is larger than {limit} bytes (FUNCTIONS_REQUEST_BODY_SIZE_LIMIT)"),
        )
    }

    pub fn response(&self) -> Response<Body> {
        answer(self.status, body::empty())
    }
}

/// An answer of the host itself.
pub fn answer(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// A JSON answer of the host itself.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut response = answer(status, body::full(value.to_string()));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

/// The declared length, if there is one.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
