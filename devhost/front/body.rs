//! Bodies that are watched while they stream: for silence, for a deadline, for a limit.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body of known bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// When bytes last moved in either direction of one exchange.
#[derive(Clone)]
pub struct Activity(Arc<Mutex<Instant>>);

impl Activity {
    pub fn new() -> Self {
        Activity(Arc::new(Mutex::new(Instant::now())))
    }

    pub fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends once nothing moved for `limit`.
    pub async fn silence(&self, limit: Duration) {
        loop {
            let end = self.last() + limit;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Cut {
    #[error("the request body is larger than {0} bytes")]
    TooLarge(u64),
    #[error("no bytes for {0:?}")]
    Silent(Duration),
    #[error("functionTimeout")]
    TimedOut,
}

/// Why a request body broke off: for its size, or by what its client sent or left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    TooLarge,
    ByClient,
}

/// A request body on its way to the handler: counted against the limit.
pub struct Upload {
    inner: Incoming,
    activity: Activity,
    limit: u64,
    left: u64,
    broken: Arc<Mutex<Option<Broken>>>,
}

impl Upload {
    /// `broken` is set when the body breaks off.
    pub fn new(inner: Incoming, activity: Activity, limit: u64, broken: Arc<Mutex<Option<Broken>>>) -> Self {
        Upload { inner, activity, limit, left: limit, broken }
    }

    fn breaks(&self, why: Broken) {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }
}

impl hyper::body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(cause)) => {
                self.breaks(Broken::ByClient);
                return Poll::Ready(Some(Err(cause.into())));
            }
            None => return Poll::Ready(None),
        };
        self.activity.touch();
        let length = frame.data_ref().map_or(0, |data| data.remaining() as u64);
        match self.left.checked_sub(length) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                self.breaks(Broken::TooLarge);
                Poll::Ready(Some(Err(Cut::TooLarge(self.limit).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer on its way to the client: cut after silence, and at the invocation's deadline.
pub struct Download {
    inner: Incoming,
    activity: Activity,
    silence: Duration,
    silence_timer: Pin<Box<Sleep>>,
    deadline: Option<Pin<Box<Sleep>>>,
    on_timeout: Option<Box<dyn FnOnce() + Send>>,
}

impl Download {
    /// `deadline` with what to do when it passes before the answer is complete.
    pub fn new(
        inner: Incoming,
        activity: Activity,
        silence: Duration,
        deadline: Option<(Instant, Box<dyn FnOnce() + Send>)>,
    ) -> Self {
        let silence_timer = Box::pin(sleep_until(activity.last() + silence));
        let (deadline, on_timeout) =
            deadline.map_or((None, None), |(at, act)| (Some(Box::pin(sleep_until(at))), Some(act)));
        Download { inner, activity, silence, silence_timer, deadline, on_timeout }
    }
}

impl hyper::body::Body for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            self.activity.touch();
            return Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)));
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll_elapsed(context)
        {
            if let Some(act) = self.on_timeout.take() {
                act();
            }
            return Poll::Ready(Some(Err(Cut::TimedOut.into())));
        }
        loop {
            if !self.silence_timer.as_mut().poll_elapsed(context) {
                return Poll::Pending;
            }
            // The other direction may have moved since the timer was set.
            let end = self.activity.last() + self.silence;
            if end <= Instant::now() {
                return Poll::Ready(Some(Err(Cut::Silent(self.silence).into())));
            }
            self.silence_timer.as_mut().reset(end);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

trait PollElapsed {
    fn poll_elapsed(self, context: &mut Context<'_>) -> bool;
}

impl PollElapsed for Pin<&mut Sleep> {
    fn poll_elapsed(self, context: &mut Context<'_>) -> bool {
        std::future::Future::poll(self, context).is_ready()
    }
}
