//! W3C trace context in and out of spans (<https://www.w3.org/TR/trace-context/>).

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Says of a context that its span is somebody else's, who does not decide what we keep.
#[derive(Debug)]
pub(super) struct Foreign;

/// Makes `span` a child of the caller's span that `traceparent` names. Whether it is recorded is decided anew: what a
/// caller asks for is not ours to pay. Call before the span is entered. A missing or malformed `traceparent` begins a new
/// trace.
pub fn adopt(span: &Span, traceparent: Option<&str>) {
    if let Some(parent) = traceparent.and_then(parse) {
        set_parent(span, Context::new().with_remote_span_context(parent).with_value(Foreign));
    }
}

/// The same for a `traceparent` that we put into a message or a row ourselves: what was decided there holds.
pub fn carry_on(span: &Span, traceparent: Option<&str>) {
    if let Some(parent) = traceparent.and_then(parse) {
        set_parent(span, Context::new().with_remote_span_context(parent));
    }
}

fn set_parent(span: &Span, parent: Context) {
    if let Err(error) = span.set_parent(parent) {
        tracing::debug!(code = "telemetry.parent_ignored", %error, "a span had begun before its parent was known");
    }
}

/// `traceparent` of `span`, to be stored or sent along. Where `span` is not traced (no [`init`](super::init)), the ids
/// are new.
pub fn of(span: &Span) -> String {
    format(&context_of(span))
}

/// `traceparent` of the present span.
pub fn current() -> String {
    of(&Span::current())
}

/// The trace id (32 hex digits) of a `traceparent`, if it is well-formed.
pub fn trace_id(traceparent: &str) -> Option<String> {
    parse(traceparent).map(|context| context.trace_id().to_string())
}

fn context_of(span: &Span) -> SpanContext {
    let context = span.context().span().span_context().clone();
    if context.is_valid() {
        return context;
    }
    // Zero means "none" in both ids, and is as likely as any other number.
    let trace = TraceId::from(rand::random::<u128>().max(1));
    let span = SpanId::from(rand::random::<u64>().max(1));
    SpanContext::new(trace, span, TraceFlags::default(), false, TraceState::default())
}

fn format(context: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
}

/// Reads a `traceparent`. Later versions may append fields, and are read by their first four.
fn parse(text: &str) -> Option<SpanContext> {
    let text = text.trim();
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let extra = parts.next().is_some();
    if !hex(version, 2) || version == "ff" || (version == "00" && extra) {
        return None;
    }
    if !hex(trace, 32) || !hex(span, 16) || !hex(flags, 2) {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn reads_what_the_recommendation_allows() {
        assert_eq!(parse(PARENT).map(|context| format(&context)).as_deref(), Some(PARENT));
        assert_eq!(trace_id(PARENT).as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert!(parse("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes").is_some());
        for wrong in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_trace_goes_on_through_spans_even_if_nothing_is_exported() {
        let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build();
        let subscriber = tracing_subscriber::registry().with(crate::telemetry::span_layer(&provider));
        tracing::subscriber::with_default(subscriber, || {
            let outer = tracing::info_span!(target: "colloquy", "outer");
            adopt(&outer, Some(PARENT));
            let outer_parent = of(&outer);
            assert_eq!(trace_id(&outer_parent), trace_id(PARENT));
            assert_ne!(outer_parent[36..52], PARENT[36..52], "the span has an id of its own");
            let inner = outer.in_scope(|| tracing::info_span!(target: "colloquy", "inner"));
            assert_eq!(trace_id(&of(&inner)), trace_id(PARENT));
            assert_eq!(of(&outer), outer_parent, "asking again gives the same");
            let invocation = tracing::info_span!(target: "colloquy::functions", parent: None, "invocation");
            let handler = invocation.in_scope(|| tracing::info_span!(target: "colloquy", "handler"));
            assert_eq!(
                of(&handler),
                of(&handler),
                "the SDK's span is none of OpenTelemetry's, its child is one"
            );

            let fresh = tracing::info_span!(target: "colloquy", parent: None, "fresh");
            adopt(&fresh, Some("nonsense"));
            assert_ne!(trace_id(&of(&fresh)), trace_id(PARENT));
            assert_eq!(of(&fresh), of(&fresh));
        });
    }

    #[test]
    fn without_telemetry_there_are_still_ids() {
        assert!(parse(&of(&Span::none())).is_some());
    }
}
