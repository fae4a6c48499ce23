//! Which spans leave the process: whole traces at a bounded rate, and everything of a trace in which something failed.
//!
//! Whether a trace is kept is decided where it begins and travels on in `traceparent`. What is not kept is recorded all
//! the same until its part in this process has ended: then it is exported if a span of it failed, and forgotten
//! otherwise. So of a trace that was not chosen, the processes in which nothing failed are missing.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use opentelemetry::trace::{Link, Span as _, SpanContext, SpanKind, Status, TraceContextExt, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SamplingDecision, SamplingResult, ShouldSample, Span, SpanData, SpanProcessor,
};

use super::trace::Foreign;
use crate::config::{Kept, Sampling};

/// Spans of traces that were not chosen, held until their part in this process has ended. About a kilobyte each.
const MOST_HELD: usize = 8_192;
/// Traces of which such spans are held.
const MOST_TRACES: usize = 2_048;

/// The sampler for a choice. `None` where nothing is exported.
pub(super) fn sampler(sampling: Option<Sampling>) -> Box<dyn ShouldSample> {
    match sampling {
        None => Box::new(Sampler::AlwaysOff),
        // Told to be silent, also about errors.
        Some(Sampling { kept: Kept::Share(share), follow_parent: false }) if share <= 0.0 => {
            Box::new(Sampler::AlwaysOff)
        }
        Some(Sampling { kept, follow_parent }) => {
            let chosen = match kept {
                Kept::Share(share) => Chosen::Share(share),
                Kept::PerSecond(rate) => Chosen::PerSecond(limiter(rate).map(Box::new)),
            };
            Box::new(Choice { chosen: std::sync::Arc::new(chosen), follow_parent })
        }
    }
}

/// `None`: none a second.
fn limiter(rate: f64) -> Option<DefaultDirectRateLimiter> {
    let period = Duration::try_from_secs_f64(rate.recip()).ok()?;
    // A second's worth may come at once.
    let burst = NonZeroU32::new(rate.ceil() as u32)?;
    Some(RateLimiter::direct(Quota::with_period(period)?.allow_burst(burst)))
}

#[derive(Clone, Debug)]
struct Choice {
    chosen: std::sync::Arc<Chosen>,
    follow_parent: bool,
}

#[derive(Debug)]
enum Chosen {
    /// By the trace's id, so every process chooses the same ones.
    Share(f64),
    PerSecond(Option<Box<DefaultDirectRateLimiter>>),
}

impl Choice {
    fn is_limited(&self) -> bool {
        matches!(*self.chosen, Chosen::PerSecond(_))
    }

    fn chooses(&self, trace: TraceId) -> bool {
        match &*self.chosen {
            Chosen::Share(share) => {
                let by_id = Sampler::TraceIdRatioBased(*share);
                let result = by_id.should_sample(None, trace, "", &SpanKind::Internal, &[], &[]);
                result.decision == SamplingDecision::RecordAndSample
            }
            Chosen::PerSecond(limiter) => limiter.as_ref().is_some_and(|limiter| limiter.check().is_ok()),
        }
    }
}

impl ShouldSample for Choice {
    fn should_sample(
        &self,
        context: Option<&Context>,
        trace: TraceId,
        _name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        let parent = context.map(|context| context.span().span_context().clone());
        let parent = parent.filter(SpanContext::is_valid);
        let foreign = context.is_some_and(|context| context.get::<Foreign>().is_some());
        // A share is decided by the trace's id, wherever the question is asked.
        let carried_on = self.follow_parent || (self.is_limited() && !foreign);
        let decision = match &parent {
            // A platform's probes are not worth a trace.
            _ if is_probe(attributes) => SamplingDecision::Drop,
            // Nor, where there is room for few, is a call that no request asked for: the log's writer, leases.
            None if *kind == SpanKind::Client && self.is_limited() => decision(false),
            Some(parent) if !parent.is_remote() || carried_on => decision(parent.is_sampled()),
            _ => decision(self.chooses(trace)),
        };
        let trace_state = parent.map(|parent| parent.trace_state().clone()).unwrap_or_default();
        SamplingResult { decision, attributes: Vec::new(), trace_state }
    }
}

fn decision(kept: bool) -> SamplingDecision {
    if kept { SamplingDecision::RecordAndSample } else { SamplingDecision::RecordOnly }
}

fn is_probe(attributes: &[KeyValue]) -> bool {
    let path = attributes.iter().find(|attribute| attribute.key.as_str() == "url.path");
    path.is_some_and(|path| {
        let path = path.value.as_str();
        path.starts_with("/health") || path.starts_with("/api/health")
    })
}

/// Passes on the spans of chosen traces as they end, and of the others those in whose part something failed.
#[derive(Debug)]
pub(super) struct KeepErrors {
    next: Vec<Box<dyn SpanProcessor>>,
    held: Mutex<Held>,
}

/// What is not decided yet.
#[derive(Debug, Default)]
struct Held {
    traces: HashMap<TraceId, Part>,
    spans: usize,
}

/// A trace's spans in this process.
#[derive(Debug, Default)]
struct Part {
    open: usize,
    failed: bool,
    ended: Vec<SpanData>,
}

impl KeepErrors {
    pub fn new(next: Vec<Box<dyn SpanProcessor>>) -> Self {
        Self { next, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, span: SpanData) {
        if let Some((last, others)) = self.next.split_last() {
            others.iter().for_each(|next| next.on_end(span.clone()));
            last.on_end(span);
        }
    }

    /// What an exporter is to see of a trace that was not chosen: that it was kept after all.
    fn pass_kept(&self, mut span: SpanData) {
        let context = &span.span_context;
        span.span_context = SpanContext::new(
            context.trace_id(),
            context.span_id(),
            context.trace_flags().with_sampled(true),
            context.is_remote(),
            context.trace_state().clone(),
        );
        self.pass(span);
    }
}

impl Held {
    fn begin(&mut self, trace: TraceId) {
        if self.traces.len() < MOST_TRACES || self.traces.contains_key(&trace) {
            self.traces.entry(trace).or_default().open += 1;
        }
    }

    /// Takes an ended span in; gives what is to be exported now.
    fn end(&mut self, span: SpanData) -> Vec<SpanData> {
        let failed = matches!(span.status, Status::Error { .. });
        let trace = span.span_context.trace_id();
        let Some(part) = self.traces.get_mut(&trace) else {
            // There was no room to hold it with its trace.
            return if failed { vec![span] } else { Vec::new() };
        };
        part.open = part.open.saturating_sub(1);
        part.failed |= failed;
        if part.failed || self.spans < MOST_HELD {
            part.ended.push(span);
            self.spans += 1;
        }
        let kept = if part.failed { std::mem::take(&mut part.ended) } else { Vec::new() };
        self.spans -= kept.len();
        if part.open == 0 {
            self.spans -= part.ended.len();
            self.traces.remove(&trace);
        }
        kept
    }
}

impl SpanProcessor for KeepErrors {
    fn on_start(&self, span: &mut Span, context: &Context) {
        if !span.span_context().is_sampled() {
            self.held().begin(span.span_context().trace_id());
        }
        self.next.iter().for_each(|next| next.on_start(span, context));
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            return self.pass(span);
        }
        let kept = self.held().end(span);
        kept.into_iter().for_each(|span| self.pass_kept(span));
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.next.iter().try_for_each(|next| next.force_flush())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        // Each is ended, whatever became of the others.
        let results: Vec<_> = self.next.iter().map(|next| next.shutdown_with_timeout(timeout)).collect();
        results.into_iter().collect()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.next.iter_mut().for_each(|next| next.set_resource(resource));
    }
}

#[cfg(test)]
mod tests;
