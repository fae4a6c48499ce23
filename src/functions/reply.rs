//! What goes back over the wire.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;
use warp::reply::Response;

use super::http::HttpResponse;

/// The id every HTTP answer carries: the invocation's, unless the handler set one.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The body of a successful invocation. Never empty: to the host an empty 2xx is no answer, and it waits for
/// it until its timeout.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct InvocationResult<'a> {
    outputs: serde_json::Map<String, Value>,
    /// Shown in the host's log of the invocation.
    logs: [&'a str; 1],
    return_value: Option<()>,
}

/// 200 with a result, and one line for the invocation's log.
pub(super) fn done(log: &str) -> Response {
    let result = InvocationResult { outputs: serde_json::Map::new(), logs: [log], return_value: None };
    // A map of nothing and a string cannot fail to serialise; were it to, a shorter result is still a result.
    let body = serde_json::to_vec(&result)
        .unwrap_or_else(|_| br#"{"Outputs":{},"Logs":[],"ReturnValue":null}"#.to_vec());
    let mut response = Response::new(Bytes::from(body).into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A failed invocation. The host reads the status only; the problem is for whoever looks at the wire.
pub(super) fn failed(code: &str, title: &str) -> Response {
    response(HttpResponse::problem(StatusCode::INTERNAL_SERVER_ERROR, code, title, None))
}

/// A handler cut at its deadline.
pub(super) fn overran() -> HttpResponse {
    /// Long enough for a passing stall to pass.
    const RETRY: HeaderValue = HeaderValue::from_static("5");
    HttpResponse::problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "handler.overran",
        "The request took too long",
        None,
    )
    .header(RETRY_AFTER, RETRY)
}

pub(super) fn response(answer: HttpResponse) -> Response {
    let mut response = Response::new(answer.body.into());
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

/// As `response`, with the request id that the handler may have set itself.
pub(super) fn identified(mut answer: HttpResponse, id: &str) -> Response {
    if !answer.headers.contains_key(REQUEST_ID)
        && let Ok(id) = HeaderValue::from_str(id)
    {
        answer.headers.insert(REQUEST_ID, id);
    }
    response(answer)
}

/// A delay in a log line for people.
pub(super) fn in_words(delay: Option<Duration>) -> String {
    delay.map_or_else(|| "later".to_owned(), |delay| format!("in {delay:?}"))
}
