//! What goes back over the wire.

use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;
use warp::reply::Response;

use super::http::{HttpResponse, PROBLEM_MEDIA_TYPE};
use super::problem;

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
pub(super) fn done(log: &str, id: &str) -> Response {
    let result = InvocationResult { outputs: serde_json::Map::new(), logs: [log], return_value: None };
    // A map of nothing and a string cannot fail to serialise; were it to, a shorter result is still a result.
    let body = serde_json::to_vec(&result)
        .unwrap_or_else(|_| br#"{"Outputs":{},"Logs":[],"ReturnValue":null}"#.to_vec());
    let mut answer = HttpResponse::new(StatusCode::OK);
    answer.body = body.into();
    identified(answer.header(CONTENT_TYPE, HeaderValue::from_static("application/json")), id)
}

/// A failed invocation. The host reads the status only; the problem is for whoever looks at the wire.
pub(super) fn failed(code: &str, why: &str, id: &str) -> Response {
    identified(HttpResponse::refusal(&problem::INVOCATION_FAILED, Some(&format!("{code}: {why}"))), id)
}

/// A handler cut at its deadline.
pub(super) fn overran() -> HttpResponse {
    /// Long enough for a passing stall to pass.
    const RETRY: HeaderValue = HeaderValue::from_static("5");
    HttpResponse::refusal(&problem::TOOK_TOO_LONG, None).header(RETRY_AFTER, RETRY)
}

pub(super) fn response(answer: HttpResponse) -> Response {
    let mut response = Response::new(answer.body.into());
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

/// As `response`, with the request id that the handler may have set itself: as a header, and in a problem also as its
/// member `request_id`, for whoever is only shown bodies.
pub(super) fn identified(mut answer: HttpResponse, id: &str) -> Response {
    if !answer.headers.contains_key(REQUEST_ID)
        && let Ok(id) = HeaderValue::from_str(id)
    {
        answer.headers.insert(REQUEST_ID, id);
    }
    if answer.headers.get(CONTENT_TYPE).is_some_and(|media_type| media_type == PROBLEM_MEDIA_TYPE)
        && let Some(id) = answer.headers.get(REQUEST_ID).and_then(|id| id.to_str().ok())
        && let Ok(Value::Object(mut problem)) = serde_json::from_slice(&answer.body)
        && !problem.contains_key("request_id")
    {
        problem.insert("request_id".to_owned(), id.into());
        answer.body = Value::Object(problem).to_string().into();
    }
    response(answer)
}

/// A delay in a log line for people.
pub(super) fn in_words(delay: Option<Duration>) -> String {
    delay.map_or_else(|| "later".to_owned(), |delay| format!("in {delay:?}"))
}
