//! A turn as its viewers get it: server-sent events, or one JSON answer that keeps its connection alive.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use colloquy::access::Principal;
use colloquy::config::ServerConfig;
use colloquy::conversation::live::{Cut, Live, Seen, Viewer};
use colloquy::ids::ConversationId;
use colloquy::openresponses::{ApiError, Response as Resource};
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use warp::Reply;
use warp::reply::Response;

use crate::app::App;

/// What ends every stream of server-sent events that came to its end.
pub const DONE: &[u8] = b"data: [DONE]\n\n";
/// A comment: SSE clients skip it, and what stands between sees that the stream lives.
pub const HEARTBEAT: &[u8] = b": heartbeat\n\n";
const TOO_SLOW: &[u8] =
    b": read too slowly; a stored response is resumed with GET ?stream=true&starting_after=N\n\n";

/// Somebody who watches a turn, and writes what is seen as server-sent events.
pub trait Frames: Send + Sync + 'static {
    /// Appends everything that is new, without waiting. `false`: that was all.
    fn write(&mut self, out: &mut Vec<u8>) -> bool;

    /// Waits until there may be more.
    fn changed(&mut self) -> impl Future<Output = ()> + Send + Sync;
}

impl Frames for Viewer {
    fn write(&mut self, out: &mut Vec<u8>) -> bool {
        match self.poll(out) {
            Seen::More => return true,
            Seen::End(_) => out.extend_from_slice(DONE),
            // Without the terminal event, which SDKs take for a broken connection: so it is.
            Seen::Cut(cut) => out.extend_from_slice(hint(cut)),
        }
        false
    }

    async fn changed(&mut self) {
        Viewer::changed(self).await;
    }
}

/// A viewer who was let in by a grant, and leaves with it.
pub struct Granted {
    viewer: Viewer,
    revoked: CancellationToken,
    _watched: DropGuard,
}

impl Granted {
    /// `who` was granted to read this conversation.
    pub fn new(viewer: Viewer, app: &Arc<App>, who: Arc<Principal>, conversation: ConversationId) -> Self {
        /// How long a grant that was taken back may still show what is new.
        const ASKED_EVERY: Duration = Duration::from_secs(2);
        let (revoked, left) = (CancellationToken::new(), CancellationToken::new());
        let (app, told, gone) = (Arc::clone(app), revoked.clone(), left.clone());
        app.tasks.clone().spawn_until_stopped("grant watcher", async move {
            while gone.run_until_cancelled(sleep(ASKED_EVERY)).await.is_some() {
                if !app.engine.still_granted(&who, conversation).await {
                    return told.cancel();
                }
            }
        });
        Self { viewer, revoked, _watched: left.drop_guard() }
    }
}

impl Frames for Granted {
    fn write(&mut self, out: &mut Vec<u8>) -> bool {
        if self.revoked.is_cancelled() {
            out.extend_from_slice(b": the grant was taken back\n\n");
            return false;
        }
        self.viewer.write(out)
    }

    async fn changed(&mut self) {
        tokio::select! {
            () = self.revoked.cancelled() => {}
            () = self.viewer.changed() => {}
        }
    }
}

/// Streams a turn as server-sent events. Who takes longer than `WRITE_PATIENCE` for one piece of it is told so and cut.
pub fn sse(viewer: impl Frames, limits: &ServerConfig) -> Response {
    let (heartbeat, patience) = (limits.heartbeat, limits.write_patience);
    let begun = Some((viewer, Instant::now()));
    let events = stream::unfold(begun, move |state| async move {
        let (mut viewer, given) = state?;
        if given.elapsed() > patience {
            return Some((Ok::<Bytes, std::convert::Infallible>(Bytes::from_static(TOO_SLOW)), None));
        }
        let mut out = Vec::new();
        let silent_until = Instant::now() + heartbeat;
        loop {
            if !viewer.write(&mut out) {
                return Some((Ok(out.into()), None));
            }
            if !out.is_empty() {
                return Some((Ok(out.into()), Some((viewer, Instant::now()))));
            }
            if timeout_at(silent_until, viewer.changed()).await.is_err() {
                return Some((Ok(Bytes::from_static(HEARTBEAT)), Some((viewer, Instant::now()))));
            }
        }
    });
    let mut response = warp::reply::stream(events).into_response();
    as_events(response.headers_mut());
    response
}

/// What an answer of server-sent events says about itself.
pub fn as_events(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // Proxies of nginx's kind hold a stream back otherwise.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
}

/// For those who read comments: what to do next.
fn hint(cut: Cut) -> &'static [u8] {
    match cut {
        Cut::Draining => b": this process stops; resume with GET ?stream=true&starting_after=N\n\n",
        Cut::LostLease => {
            b": another process has the turn; resume with GET ?stream=true&starting_after=N\n\n"
        }
        // Its error event has said so.
        Cut::Deleted => b"",
    }
}

/// How a turn came to be answered in one piece.
pub enum Whole {
    Ended(Arc<Resource>),
    /// This process has it no more.
    Cut(Cut),
}

/// Waits for the end of a turn.
pub async fn ended(live: &Live) -> Whole {
    let mut changes = live.changes();
    loop {
        changes.borrow_and_update();
        match (live.result(), live.was_cut()) {
            (_, Some(Cut::Deleted)) => return Whole::Cut(Cut::Deleted),
            (Some(response), _) => return Whole::Ended(response),
            (None, Some(cut)) => return Whole::Cut(cut),
            (None, None) => {}
        }
        if changes.changed().await.is_err() {
            return Whole::Cut(Cut::LostLease);
        }
    }
}

/// Answers with what `write` makes of the finished response. When that takes longer than `patience`, the answer is
/// begun with spaces, one every `heartbeat`, since whatever stands between cuts silence, and SDKs then send the whole
/// request again.
pub async fn json<W>(
    live: Arc<Live>,
    patience: Duration,
    heartbeat: Duration,
    write: W,
) -> Result<Response, ApiError>
where
    W: Fn(&Resource) -> Result<Vec<u8>, ApiError> + Send + Sync + 'static,
{
    let watching = live.watch();
    let body = move |whole: Whole| match whole {
        Whole::Ended(response) => write(&response),
        Whole::Cut(Cut::Deleted) => Err(deleted()),
        Whole::Cut(Cut::LostLease | Cut::Draining) => Err(interrupted()),
    };
    if let Ok(whole) = tokio::time::timeout(patience, ended(&live)).await {
        drop(watching);
        return Ok(crate::http::bytes(StatusCode::OK, body(whole)?.into()));
    }
    let pieces = stream::unfold(Some((live, watching, body)), move |state| async move {
        let (live, watching, body) = state?;
        let piece = match tokio::time::timeout(heartbeat, ended(&live)).await {
            Err(_) => return Some((Ok(Bytes::from_static(b" ")), Some((live, watching, body)))),
            // The status is out; the error's shape is all that can still be said.
            Ok(whole) => body(whole).or_else(|error| serde_json::to_vec(&error.body())).unwrap_or_default(),
        };
        Some((Ok::<Bytes, std::convert::Infallible>(piece.into()), None))
    });
    let mut response = warp::reply::stream(pieces).into_response();
    response.headers_mut().insert(CONTENT_TYPE, crate::http::JSON);
    Ok(response)
}

/// The response itself, as JSON.
pub fn whole(response: &Resource) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(response).map_err(|error| {
        tracing::error!(code = "answer.unwritable", %error, "an answer could not be written as JSON");
        ApiError::internal()
    })
}

/// Not to be tried again: somebody wanted it gone.
fn deleted() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        colloquy::openresponses::ErrorType::InvalidRequestError,
        "not_found",
        "The response was deleted while it was being generated.",
    )
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
