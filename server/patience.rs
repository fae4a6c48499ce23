//! Answers that are begun before there is anything to say: whatever stands between cuts silence.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use colloquy::openresponses::ApiError;
use futures_util::stream;
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::time::timeout;
use tracing::Instrument;
use warp::Reply;
use warp::reply::Response;

use crate::stream::{DONE, HEARTBEAT, as_events};

/// What an answer is, and so how it stays alive and tells of a failure once its status is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON text: spaces before it; an error is the body.
    Json,
    /// Server-sent events: comments before them; an error is the only event.
    Sse,
}

/// Gives `answer` if that comes within `patience`, with its own status. Else a 200 that says every `heartbeat` that it is
/// alive, until `answer` comes and takes its place. Whoever drops what this gives drops `answer`.
pub async fn within<F>(
    answer: F,
    form: Form,
    patience: Duration,
    heartbeat: Duration,
) -> Result<Response, ApiError>
where
    F: Future<Output = Result<Response, ApiError>> + Send + 'static,
{
    let mut answer = Box::pin(answer.in_current_span());
    if let Ok(answer) = timeout(patience, answer.as_mut()).await {
        return answer;
    }
    // The first sign at once: as long as it may be silent it was.
    let state = State::Awaiting { answer: Exclusive(Mutex::new(answer)), patience: Duration::ZERO };
    let pieces = stream::unfold(state, move |state| async move {
        let mut body = match state {
            State::Awaiting { mut answer, patience } => match timeout(patience, &mut answer).await {
                Err(_) => {
                    return Some((
                        Ok::<Bytes, warp::Error>(Bytes::from_static(form.alive())),
                        State::Awaiting { answer, patience: heartbeat },
                    ));
                }
                Ok(Ok(response)) => response.into_body(),
                Ok(Err(error)) => return Some((Ok(form.failed(&error)), State::Ended)),
            },
            State::Answering(body) => body,
            State::Ended => return None,
        };
        loop {
            match body.frame().await? {
                Ok(frame) => {
                    if let Ok(piece) = frame.into_data() {
                        return Some((Ok(piece), State::Answering(body)));
                    }
                }
                Err(error) => return Some((Err(error), State::Ended)),
            }
        }
    });
    let mut response = warp::reply::stream(pieces).into_response();
    *response.status_mut() = StatusCode::OK;
    match form {
        Form::Json => {
            response.headers_mut().insert(http::header::CONTENT_TYPE, crate::http::JSON);
        }
        Form::Sse => as_events(response.headers_mut()),
    }
    Ok(response)
}

enum State<F, B> {
    /// Its next sign of life is due after `patience`.
    Awaiting {
        answer: Exclusive<F>,
        patience: Duration,
    },
    Answering(B),
    Ended,
}

impl Form {
    fn alive(self) -> &'static [u8] {
        match self {
            Self::Json => b" ",
            Self::Sse => HEARTBEAT,
        }
    }

    /// The status is out; this is all that can still be said.
    fn failed(self, error: &ApiError) -> Bytes {
        tracing::warn!(code = error.code, "an answer that had begun ended with an error");
        match self {
            Self::Json => error.body().to_string().into(),
            Self::Sse => {
                let event = json!({ "type": "error", "sequence_number": 0, "error": error.payload() });
                let mut out = format!("event: error\ndata: {event}\n\n").into_bytes();
                out.extend_from_slice(DONE);
                out.into()
            }
        }
    }
}

/// A future that may be shared, as bodies must be, since only its owner polls it: nobody ever waits for the lock.
struct Exclusive<F>(Mutex<Pin<Box<F>>>);

impl<F: Future> Future for Exclusive<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.get_mut().0.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll(context)
    }
}
