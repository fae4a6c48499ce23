//! An answer that has begun.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Span;
use uuid::Uuid;

use super::client::interrupted;
use super::demo::DemoStream;
use super::deployment::Deployment;
use super::error::{ErrorClass, LlmError};
use super::prices::Price;
use super::providers::Parser;
use super::quota::Grant;
use super::router::tell_error;
use super::{TokenUsage, Upstream};
use crate::telemetry::metrics::{Metric, System, count, external, record, time};

/// How long the end of a body may take after the end of the answer, so that the connection can be used again.
const END_OF_BODY: Duration = Duration::from_millis(10);

/// Where an answer comes from.
#[derive(Debug)]
pub(super) enum Source {
    Http { response: reqwest::Response, parser: Box<Parser> },
    Demo(Box<DemoStream>),
}

/// Limits of one answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub first_event: Duration,
    pub silence: Duration,
}

/// An answer whose first event has come. Dropping it ends the call to the provider.
#[derive(Debug)]
pub struct OpenStream {
    deployment: Arc<Deployment>,
    attempt: Uuid,
    source: Source,
    patience: Patience,
    queue: VecDeque<Upstream>,
    failed: Option<LlmError>,
    ended: bool,
    /// `None` once told.
    telling: Option<Telling>,
    started: Instant,
    last_bytes: Instant,
    last_event: Instant,
    chunks: u64,
    first_chunk: Option<Instant>,
    usage: Option<TokenUsage>,
    grant: Grant,
}

/// What is told of the answer at its end, however it ends.
#[derive(Debug)]
struct Telling {
    span: Span,
}

impl OpenStream {
    pub(super) fn new(
        deployment: Arc<Deployment>,
        attempt: Uuid,
        source: Source,
        patience: Patience,
        started: Instant,
        grant: Grant,
        span: Span,
    ) -> Self {
        let now = Instant::now();
        Self {
            deployment,
            attempt,
            source,
            patience,
            queue: VecDeque::new(),
            failed: None,
            ended: false,
            telling: Some(Telling { span }),
            started,
            last_bytes: now,
            last_event: now,
            chunks: 0,
            first_chunk: None,
            usage: None,
            grant,
        }
    }

    /// The deployment's name in `colloquy.toml`.
    pub fn deployment(&self) -> &str {
        &self.deployment.name
    }

    /// The provider's name for the model.
    pub fn model(&self) -> &str {
        &self.deployment.model
    }

    /// OpenTelemetry's `gen_ai.provider.name`.
    pub fn provider(&self) -> &'static str {
        self.deployment.provider
    }

    /// UUIDv7; the id of the usage row.
    pub fn attempt(&self) -> Uuid {
        self.attempt
    }

    /// Of the deployment that answers, per million tokens.
    pub fn price(&self) -> Price {
        self.deployment.price
    }

    /// Tokens as far as the provider has told.
    pub fn usage(&self) -> Option<TokenUsage> {
        self.usage
    }

    /// The next piece; `None` after the end of a whole answer, and after an error. May be dropped while it waits, and
    /// called again: nothing is lost, and the limits on silence go on running.
    ///
    /// Bytes without an event (pings, comments) count against silence, but not for longer than the first event may
    /// take: a server that only says that it is alive is given up too.
    pub async fn next(&mut self) -> Option<Result<Upstream, LlmError>> {
        loop {
            if let Some(upstream) = self.queue.pop_front() {
                self.observe(&upstream);
                return Some(Ok(upstream));
            }
            if let Some(error) = self.failed.take() {
                self.ended = true;
                if error.class.trips_breaker() {
                    self.deployment.breaker.failure();
                    external(System::Model, &self.deployment.name, Some(error.code));
                }
                self.tell(error.code);
                return Some(Err(error));
            }
            if self.ended {
                if self.telling.is_some() {
                    self.deployment.breaker.success();
                    external(System::Model, &self.deployment.name, None);
                    self.tell("");
                }
                return None;
            }
            let event_due = self.last_event + self.patience.first_event.max(self.patience.silence);
            let due = event_due.min(self.last_bytes + self.patience.silence);
            self.read(due, ErrorClass::Silence).await;
        }
    }

    /// The next piece, if it has come already. What a connection has read arrives one piece at a time, each time its task
    /// has run: it is asked again after all tasks that are ready have had their turn.
    pub async fn ready(&mut self) -> Option<Option<Result<Upstream, LlmError>>> {
        for last in [false, true] {
            while self.queue.is_empty() && self.failed.is_none() && !self.ended {
                match self.read_some().now_or_never() {
                    Some(read) => self.took(read).await,
                    None => break,
                }
            }
            if !self.queue.is_empty() || self.failed.is_some() || self.ended {
                return Some(self.next().await);
            }
            if !last {
                give_way().await;
            }
        }
        None
    }

    /// Waits for the first piece of an answer or its end, until `due`. A count of tokens alone shows nobody anything:
    /// what fails behind it may still be tried elsewhere.
    pub(super) async fn begin(&mut self, due: Instant) -> Result<(), LlmError> {
        let counted = |upstream: &Upstream| {
            matches!(upstream, Upstream::Usage(_) | Upstream::RawUsage(_) | Upstream::Tier(_))
        };
        while self.queue.iter().all(counted) {
            if let Some(error) = self.failed.take() {
                // What counted the input has read it, and may bill it.
                let charged = error.charged || !self.queue.is_empty();
                return Err(error.charged(charged));
            }
            if self.ended {
                return Err(LlmError::new(ErrorClass::Interrupted).charged(true));
            }
            self.read(due, ErrorClass::FirstEvent).await;
        }
        Ok(())
    }

    async fn read(&mut self, due: Instant, late: ErrorClass) {
        let read = timeout_at(due, self.read_some()).await;
        self.took(read.unwrap_or_else(|_| Err(LlmError::new(late).charged(true)))).await;
    }

    /// Reads once. Says whether there may be more.
    async fn read_some(&mut self) -> Result<bool, LlmError> {
        let Self { source, queue, .. } = self;
        match source {
            Source::Demo(demo) => demo.read(queue).await,
            Source::Http { response, parser } => {
                let mut out = |upstream| queue.push_back(upstream);
                match response.chunk().await.map_err(interrupted)? {
                    Some(bytes) => parser.push(&bytes, &mut out)?,
                    None => {
                        parser.finish(&mut out)?;
                        return Ok(false);
                    }
                }
                Ok(!parser.is_done())
            }
        }
    }

    async fn took(&mut self, read: Result<bool, LlmError>) {
        let Self { source, queue, ended, .. } = self;
        match read {
            Ok(more) => *ended = !more,
            // A connection that broke after the answer's end broke nothing.
            Err(error) if error.class == ErrorClass::Interrupted => {
                let whole = match source {
                    Source::Http { parser, .. } => {
                        parser.finish(&mut |upstream| queue.push_back(upstream)).is_ok()
                    }
                    Source::Demo(_) => false,
                };
                if whole {
                    *ended = true;
                } else {
                    self.failed = Some(error);
                }
            }
            Err(error) => self.failed = Some(error),
        }
        if self.ended {
            self.end_of_body().await;
        }
        let now = Instant::now();
        self.last_bytes = now;
        if !self.queue.is_empty() {
            self.last_event = now;
        }
    }

    /// An HTTP/1.1 connection goes back to the pool only once its body was read to the end.
    async fn end_of_body(&mut self) {
        if let Source::Http { response, .. } = &mut self.source {
            let mut drain = std::pin::pin!(async { while let Ok(Some(_)) = response.chunk().await {} });
            // Mostly it has come already, and only its task has to run.
            for _ in 0..2 {
                if drain.as_mut().now_or_never().is_some() {
                    return;
                }
                give_way().await;
            }
            // If it takes longer, the connection is closed instead.
            if timeout(END_OF_BODY, drain).await.is_err() {
                tracing::debug!(deployment = &*self.deployment.name, "a body went on after the answer's end");
            }
        }
    }

    fn observe(&mut self, upstream: &Upstream) {
        match upstream {
            Upstream::Chunk(_) => {
                self.chunks += 1;
                if self.first_chunk.is_none() {
                    self.first_chunk = Some(Instant::now());
                }
            }
            Upstream::Usage(usage) => self.usage = Some(*usage),
            Upstream::RawUsage(_) | Upstream::Tier(_) => {}
            Upstream::Finish(reason) => {
                if let Some(Telling { span }) = &self.telling {
                    span.record("gen_ai.response.finish_reasons", reason.as_str());
                }
            }
        }
    }

    /// The end of the call: what it took, for limits, metrics and the trace. `error` is empty for a success.
    fn tell(&mut self, error: &str) {
        let Some(Telling { span }) = self.telling.take() else { return };
        let usage = self.usage.unwrap_or_default();
        if self.usage.is_some() {
            self.grant.settle(usage.input.saturating_add(usage.output));
        }
        let (provider, model) = (self.deployment.provider, &*self.deployment.model);
        let attributes = ["chat", provider, model];
        time(Metric::GenAiDuration, self.started.elapsed(), &["chat", provider, model, error]);
        if let Some(first) = self.first_chunk {
            time(Metric::GenAiFirstChunk, first - self.started, &attributes);
            span.record("gen_ai.response.time_to_first_chunk", (first - self.started).as_secs_f64());
            if let Ok(gaps @ 1..) = u32::try_from(self.chunks.saturating_sub(1)) {
                time(Metric::GenAiPerChunk, first.elapsed() / gaps, &attributes);
            }
        }
        if self.usage.is_some() {
            record(Metric::GenAiTokens, usage.input, &["chat", provider, model, "input"]);
            record(Metric::GenAiTokens, usage.output, &["chat", provider, model, "output"]);
            span.record("gen_ai.usage.input_tokens", usage.input)
                .record("gen_ai.usage.output_tokens", usage.output)
                .record("gen_ai.usage.cache_read.input_tokens", usage.cached)
                .record("gen_ai.usage.cache_creation.input_tokens", usage.cache_written)
                .record("gen_ai.usage.reasoning.output_tokens", usage.reasoning);
        }
        if !error.is_empty() {
            tell_error(&span, error);
        }
        let outcome = if error.is_empty() { "succeeded" } else { error };
        count(Metric::LlmAttempts, 1, &[&self.deployment.name, outcome]);
    }

    /// Nothing is told of an attempt that never began to answer; the router tells of it.
    pub(super) fn hush(&mut self) {
        self.telling = None;
    }
}

/// Lets every task run that is ready. Unlike the runtime's own way to yield, it asks the kernel for nothing meanwhile.
async fn give_way() {
    let mut given = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.tell(ErrorClass::Cancelled.code());
    }
}
