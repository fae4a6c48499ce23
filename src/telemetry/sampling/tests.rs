use std::sync::Arc;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Span;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::telemetry::trace;

/// Remembers the names of what it is passed.
#[derive(Clone, Debug, Default)]
struct Passed(Arc<Mutex<Vec<SpanData>>>);

impl Passed {
    fn take(&self) -> Vec<String> {
        let mut spans = std::mem::take(&mut *self.0.lock().unwrap());
        spans.sort_by_key(|span| span.start_time);
        spans.into_iter().map(|span| span.name.into_owned()).collect()
    }
}

impl SpanProcessor for Passed {
    fn on_start(&self, _span: &mut opentelemetry_sdk::trace::Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        assert!(span.span_context.is_sampled(), "exporters see spans as sampled: {span:?}");
        self.0.lock().unwrap().push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Runs `work` with spans that are chosen so; gives what was passed on.
fn passed(sampling: Sampling, work: impl FnOnce(&Passed)) -> Vec<String> {
    let passed = Passed::default();
    let provider = SdkTracerProvider::builder()
        .with_sampler(sampler(Some(sampling)))
        .with_span_processor(KeepErrors::new(vec![Box::new(passed.clone())]))
        .build();
    let subscriber = tracing_subscriber::registry().with(crate::telemetry::span_layer(&provider));
    tracing::subscriber::with_default(subscriber, || work(&passed));
    passed.take()
}

fn rate(per_second: f64) -> Sampling {
    Sampling { kept: Kept::PerSecond(per_second), follow_parent: false }
}

fn span(name: &'static str) -> Span {
    tracing::info_span!(target: "colloquy", "span", otel.name = name, otel.status_code = tracing::field::Empty)
}

/// A request with a statement in it; the statement fails if told so.
fn request(parent: Option<&str>, fails: bool) -> String {
    let request = span("request");
    trace::adopt(&request, parent);
    let sent = trace::of(&request);
    request.in_scope(|| {
        let statement = span("statement");
        if fails {
            statement.record("otel.status_code", "ERROR");
        }
    });
    sent
}

const FOREIGN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn so_many_new_traces_a_second_are_kept_whole() {
    let names = passed(rate(5.0), |_| {
        for _ in 0..200 {
            request(None, false);
        }
    });
    // Five at once, and what a slow machine's time brings along.
    assert!((10..=30).contains(&names.len()), "{names:?}");
    assert_eq!(names.iter().filter(|name| *name == "request").count() * 2, names.len(), "whole ones");
    assert_eq!(passed(rate(0.0), |_| drop(request(None, false))), Vec::<String>::new());
}

#[test]
fn errors_are_kept_with_their_trace_and_only_with_theirs() {
    let names = passed(rate(0.0), |passed| {
        request(None, false);
        assert_eq!(passed.take(), Vec::<String>::new());
        request(None, true);
        assert_eq!(passed.take(), ["request", "statement"]);
        // What had ended before the failure, and what comes after it.
        let request = span("request");
        request.in_scope(|| {
            span("before").in_scope(|| span("below"));
            span("failing").record("otel.status_code", "ERROR");
            assert_eq!(passed.take(), ["before", "below", "failing"]);
            drop(span("after"));
            assert_eq!(passed.take(), ["after"]);
        });
        drop(request);
        assert_eq!(passed.take(), ["request"]);
        // A line at level `error` is an error of its span.
        span("told").in_scope(|| tracing::error!(target: "colloquy", "it failed"));
        assert_eq!(passed.take(), ["told"]);
    });
    assert_eq!(names, Vec::<String>::new());
}

#[test]
fn what_was_decided_where_a_trace_began_holds_in_the_next_process() {
    passed(rate(0.01), |passed| {
        let sent = request(None, false);
        assert!(sent.ends_with("-01"));
        assert_eq!(passed.take().len(), 2);
        let carry_on = |sent: &str| {
            let work = span("work");
            trace::carry_on(&work, Some(sent));
            drop(work);
            passed.take()
        };
        // The rate is used up, and does not matter here.
        for _ in 0..3 {
            assert_eq!(carry_on(&sent), ["work"]);
        }
        assert_eq!(carry_on(&sent.replace("-01", "-00")), Vec::<String>::new());
        // A caller does not decide for us.
        assert!(request(Some(FOREIGN), false).ends_with("-00"));
        assert_eq!(passed.take(), Vec::<String>::new());
    });
}

#[test]
fn a_share_is_the_same_traces_everywhere_and_parents_are_followed_on_demand() {
    let share = |share, follow_parent| Sampling { kept: Kept::Share(share), follow_parent };
    let unsampled = FOREIGN.replace("-01", "-00");
    let kept = |sampling, parent: &str| passed(sampling, |_| drop(request(Some(parent), false))).len();
    assert_eq!(kept(share(1.0, false), &unsampled), 2);
    assert_eq!(kept(share(1.0, true), &unsampled), 0);
    assert_eq!(kept(share(1.0, true), FOREIGN), 2);
    let low = "00-00000000000000010000000000000001-00f067aa0ba902b7-00";
    let high = "00-0000000000000001fffffffffffffff1-00f067aa0ba902b7-00";
    assert_eq!((kept(share(0.5, false), low), kept(share(0.5, false), high)), (2, 0));
    assert_eq!(passed(share(0.5, false), |_| drop(request(Some(high), true))).len(), 2, "an error is kept");
}

#[test]
fn probes_and_calls_that_nobody_asked_for_are_no_traces() {
    passed(rate(100.0), |passed| {
        let probe = tracing::info_span!(target: "colloquy", "probe", otel.kind = "server", url.path = "/health/ready");
        probe.in_scope(|| drop(span("statement")));
        drop(probe);
        let upkeep = || tracing::info_span!(target: "colloquy", "upkeep", otel.kind = "client", otel.status_code = tracing::field::Empty);
        drop(upkeep());
        assert_eq!(passed.take(), Vec::<String>::new());
        upkeep().record("otel.status_code", "ERROR");
        assert_eq!(passed.take(), ["upkeep"]);
    });
    let all = Sampling { kept: Kept::Share(1.0), follow_parent: false };
    let upkeep = || drop(tracing::info_span!(target: "colloquy", "upkeep", otel.kind = "client"));
    assert_eq!(passed(all, |_| upkeep()), ["upkeep"], "where everything is kept, this is too");
}

#[test]
fn what_is_held_is_bounded_and_errors_are_still_told() {
    passed(rate(0.0), |passed| {
        let open: Vec<Span> = (0..MOST_TRACES + 10)
            .map(|_| {
                let request = span("request");
                request.in_scope(|| drop(span("statement")));
                request
            })
            .collect();
        // Beyond the limit a trace is not held together; what fails of it is told alone.
        let last = open.last().unwrap();
        last.in_scope(|| {
            span("failing").record("otel.status_code", "ERROR");
        });
        assert_eq!(passed.take(), ["failing"]);
        drop(open);
        assert_eq!(passed.take(), Vec::<String>::new());
        request(None, true);
        assert_eq!(passed.take(), ["request", "statement"], "there is room again");
    });
}
