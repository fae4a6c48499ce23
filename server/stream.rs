//! A turn as its viewers get it: server-sent events, or one JSON answer that keeps its connection alive.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use colloquy::conversation::live::{Cut, Live, Seen, Viewer};
use colloquy::openresponses::{ApiError, Response as Resource};
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::time::{Instant, timeout_at};
use warp::Reply;
use warp::reply::Response;

/// What ends every stream of server-sent events that came to its end.
const DONE: &[u8] = b"data: [DONE]\n\n";
const HEARTBEAT: &[u8] = b": heartbeat\n\n";

/// Streams a turn as server-sent events.
pub fn sse(viewer: Viewer, heartbeat: Duration) -> Response {
    let events = stream::unfold(Some(viewer), move |viewer| async move {
        let mut viewer = viewer?;
        let mut out = BytesMut::new();
        let silent_until = Instant::now() + heartbeat;
        loop {
            match viewer.poll(&mut out) {
                Seen::End(_) => {
                    out.extend_from_slice(DONE);
                    return Some((Ok::<Bytes, std::convert::Infallible>(out.freeze()), None));
                }
                // Without the terminal event, which SDKs take for a broken connection: so it is.
                Seen::Cut(cut) => {
                    out.extend_from_slice(hint(cut));
                    return Some((Ok(out.freeze()), None));
                }
                Seen::More if !out.is_empty() => return Some((Ok(out.freeze()), Some(viewer))),
                Seen::More => {}
            }
            if timeout_at(silent_until, viewer.changed()).await.is_err() {
                return Some((Ok(Bytes::from_static(HEARTBEAT)), Some(viewer)));
            }
        }
    });
    let mut response = warp::reply::stream(events).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // Proxies of nginx's kind hold a stream back otherwise.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// For those who read comments: what to do next.
fn hint(cut: Cut) -> &'static [u8] {
    match cut {
        Cut::Draining => b": this process stops; resume with GET ?stream=true&starting_after=N\n\n",
        Cut::LostLease => {
            b": another process has the turn; resume with GET ?stream=true&starting_after=N\n\n"
        }
    }
}

/// How a turn came to be answered in one piece.
pub enum Whole {
    Ended(Arc<Resource>),
    /// This process has it no more.
    Cut,
}

/// Waits for the end of a turn.
pub async fn ended(live: &Live) -> Whole {
    let mut changes = live.changes();
    loop {
        changes.borrow_and_update();
        if let Some(response) = live.result() {
            return Whole::Ended(response);
        }
        if live.was_cut().is_some() || changes.changed().await.is_err() {
            return Whole::Cut;
        }
    }
}

/// Answers with the finished response. When that takes longer than `patience`, the answer is begun with spaces, one
/// every `heartbeat`, since whatever stands between cuts silence, and SDKs then send the whole request again.
pub async fn json(live: Arc<Live>, patience: Duration, heartbeat: Duration) -> Result<Response, ApiError> {
    let watching = live.watch();
    match tokio::time::timeout(patience, ended(&live)).await {
        Ok(Whole::Ended(response)) => {
            drop(watching);
            return Ok(crate::http::json(&*response));
        }
        Ok(Whole::Cut) => return Err(interrupted()),
        Err(_) => {}
    }
    let pieces = stream::unfold(Some((live, watching)), move |state| async move {
        let (live, watching) = state?;
        let whole = tokio::time::timeout(heartbeat, ended(&live)).await;
        let body = match whole {
            Err(_) => return Some((Ok(Bytes::from_static(b" ")), Some((live, watching)))),
            Ok(Whole::Ended(response)) => serde_json::to_vec(&*response).unwrap_or_default(),
            // The status is out; the error's shape is all that can still be said.
            Ok(Whole::Cut) => serde_json::to_vec(&interrupted().body()).unwrap_or_default(),
        };
        Some((Ok::<Bytes, std::convert::Infallible>(body.into()), None))
    });
    let mut response = warp::reply::stream(pieces).into_response();
    response.headers_mut().insert(CONTENT_TYPE, crate::http::JSON);
    Ok(response)
}

fn interrupted() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        colloquy::openresponses::ErrorType::ServiceUnavailable,
        "turn_handed_over",
        "The process that worked on this response stops; another one finishes it. Retrieve it by its id, or send the \
         same request again.",
    )
    .retry_after(Duration::from_secs(2))
}
