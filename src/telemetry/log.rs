//! Log lines: one JSON object each, on stdout.

use std::fmt;
use std::io::Write;
use std::sync::OnceLock;

use jiff::Timestamp;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use opentelemetry_sdk::logs::SdkLogger;
use serde::{Serialize, Serializer};
use serde_json::Value;
use tracing::dispatcher::WeakDispatch;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};

use super::records;

/// Writes one line, its newline included, to stdout.
pub(super) fn stdout(line: &[u8]) {
    let written = std::io::stdout().lock().write_all(line);
    // A closed stdout means that the host is gone; there is nobody left to tell.
    drop(written);
}

/// The layer that writes each event `filter` lets pass as one JSON object with `timestamp` (RFC 3339, UTC), `level`,
/// `target`, `message`, its trace's id, its own fields, and those of the spans around it; of equal names the innermost
/// wins. With a logger, it is exported as well.
pub fn json_layer<S, W>(filter: EnvFilter, write: W, exported: Option<SdkLogger>) -> impl Layer<S> + use<S, W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(&[u8]) + Send + Sync + 'static,
{
    let process = uuid::Uuid::now_v7().to_string();
    JsonLayer { write, exported, process, dispatch: OnceLock::new() }.with_filter(SpansPass(filter))
}

struct JsonLayer<W> {
    write: W,
    exported: Option<SdkLogger>,
    /// The `request_id` of lines that belong to no request: all of one process's starting and stopping.
    process: String,
    /// By which the layer that knows trace ids is asked.
    dispatch: OnceLock<WeakDispatch>,
}

impl<W> JsonLayer<W> {
    fn span_context(&self, span: &Id) -> Option<SpanContext> {
        let dispatch = self.dispatch.get()?.upgrade()?;
        let context = tracing_opentelemetry::get_otel_context(span, &dispatch)?;
        let span = context.span();
        Some(span.span_context().clone()).filter(SpanContext::is_valid)
    }
}

/// Fields in the order they came.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        let value = value.into();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, held)) => *held = value,
            None => self.0.push((name, value)),
        }
    }

    /// Some libraries speak in fields alone; their line is then known by their event's name.
    fn name_if_silent(&mut self, event: &'static str) {
        let named = |wanted: &str| self.0.iter().find(|(name, value)| *name == wanted && !value.is_null());
        if named("message").is_none() {
            let name = named("name").map_or_else(|| event.into(), |(_, value)| value.clone());
            self.set("message", name);
        }
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<S, W> Layer<S> for JsonLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(&[u8]) + Send + Sync + 'static,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        // One subscriber has one layer.
        drop(self.dispatch.set(dispatch.downgrade()));
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Fields::default();
        line.set("timestamp", format!("{:.6}", Timestamp::now()));
        line.set("level", metadata.level().as_str());
        line.set("message", Value::Null);
        line.set("target", metadata.target());
        if let Some(scope) = context.event_scope(event) {
            for span in scope.from_root() {
                if let Some(fields) = span.extensions().get::<Fields>() {
                    fields.0.iter().for_each(|(name, value)| line.set(name, value.clone()));
                }
            }
        }
        let traced = context.event_span(event).and_then(|span| self.span_context(&span.id()));
        if let Some(traced) = &traced {
            line.set("trace_id", traced.trace_id().to_string());
        }
        event.record(&mut line);
        line.name_if_silent(metadata.name());
        if !line.0.iter().any(|(name, _)| *name == "request_id") {
            line.set("request_id", self.process.as_str());
        }
        if let Some(logger) = &self.exported {
            records::emit(logger, metadata, &line.0, traced.as_ref());
        }
        if let Ok(mut text) = serde_json::to_vec(&line) {
            text.push(b'\n');
            (self.write)(&text);
        }
    }
}

/// What only a trace needs of a span.
fn is_internal(name: &str) -> bool {
    ["otel.", "messaging.", "db.", "az.", "gen_ai.", "colloquy."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !is_internal(field.name()) {
            self.set(field.name(), format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if !is_internal(field.name()) {
            self.set(field.name(), value);
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), value);
    }
}

/// Filters events as told but lets our spans through, so that an error logged at level `warn` still says which
/// request it belongs to.
struct SpansPass(EnvFilter);

impl SpansPass {
    fn passes(metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && *metadata.level() <= Level::INFO
    }
}

impl<S> Filter<S> for SpansPass
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        Self::passes(metadata) || Filter::enabled(&self.0, metadata, context)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        let told = Filter::<S>::callsite_enabled(&self.0, metadata);
        if Self::passes(metadata) { Interest::always() } else { told }
    }

    fn event_enabled(&self, event: &Event<'_>, context: &Context<'_, S>) -> bool {
        Filter::event_enabled(&self.0, event, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Filter::<S>::max_level_hint(&self.0).map(|told| told.max(LevelFilter::INFO))
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        Filter::on_new_span(&self.0, attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        Filter::on_record(&self.0, id, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        Filter::on_enter(&self.0, id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        Filter::on_exit(&self.0, id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        Filter::on_close(&self.0, id, context);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn logged(level: &str, emit: impl FnOnce()) -> Vec<Value> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let layer =
            json_layer(EnvFilter::new(level), move |line| sink.lock().unwrap().push(line.to_vec()), None);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), emit);
        let lines = lines.lock().unwrap();
        lines
            .iter()
            .map(|line| {
                assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "one line per event");
                assert!(line.ends_with(b"\n") && line.starts_with(b"{\"timestamp\":\""));
                serde_json::from_slice(line).unwrap()
            })
            .collect()
    }

    #[test]
    fn a_line_carries_its_own_and_its_spans_fields() {
        let lines = logged("info", || {
            let request = tracing::info_span!("request", request_id = "r-1", source = tracing::field::Empty);
            request.record("source", "stripe");
            let _request = request.entered();
            let _inner = tracing::info_span!("inner", request_id = "r-2", "otel.kind" = "server").entered();
            tracing::warn!(code = "webhook.stale", age_s = 301, forced = true, "too old:\nrefused");
            tracing::debug!("not shown");
        });
        assert_eq!(lines.len(), 1);
        let line = &lines[0];
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "too old:\nrefused");
        assert_eq!(line["code"], "webhook.stale");
        assert_eq!(line["age_s"], 301);
        assert_eq!(line["forced"], true);
        assert_eq!(line["source"], "stripe");
        assert_eq!(line["request_id"], "r-2", "the innermost wins");
        assert_eq!(line.get("otel.kind"), None);
        assert!(line["timestamp"].as_str().unwrap().parse::<Timestamp>().is_ok());
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn a_line_without_a_message_goes_by_its_name() {
        let lines = logged("info", || {
            tracing::info!(name = "Exporter.Failed", error = "refused");
            tracing::event!(name: "named.event", Level::INFO, answer = 42);
        });
        assert_eq!(lines[0]["message"], "Exporter.Failed");
        assert_eq!(lines[1]["message"], "named.event");
    }

    #[test]
    fn a_line_within_a_trace_says_which() {
        const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let layer =
            json_layer(EnvFilter::new("info"), move |line| sink.lock().unwrap().push(line.to_vec()), None);
        let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder()
            .with_sampler(opentelemetry_sdk::trace::Sampler::AlwaysOff)
            .build();
        let traced = crate::telemetry::span_layer(&provider);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer).with(traced), || {
            tracing::info!("outside");
            let request = tracing::info_span!(target: "colloquy", "request");
            crate::telemetry::trace::adopt(&request, Some(PARENT));
            request.in_scope(|| {
                tracing::info_span!(target: "colloquy", "inner").in_scope(|| tracing::info!("inside"))
            });
        });
        let lines = lines.lock().unwrap();
        let line = |at: usize| serde_json::from_slice::<Value>(&lines[at]).unwrap();
        assert_eq!(line(0).get("trace_id"), None);
        assert_eq!(line(1)["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn a_line_outside_every_request_carries_the_processs_own_id() {
        let lines = logged("info", || {
            tracing::info!("starting");
            tracing::info_span!("request", request_id = "r-1").in_scope(|| tracing::info!("working"));
            tracing::info!("stopping");
        });
        assert_eq!(lines[1]["request_id"], "r-1");
        assert!(lines[0]["request_id"].as_str().is_some_and(|id| id.len() == 36), "{}", lines[0]);
        assert_eq!(lines[0]["request_id"], lines[2]["request_id"]);
    }

    #[test]
    fn a_stricter_level_keeps_the_spans_fields() {
        let lines = logged("error,colloquy::telemetry::log=error", || {
            let _request = tracing::info_span!("request", request_id = "r-1").entered();
            tracing::warn!("not shown");
            tracing::error!("shown");
        });
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["request_id"], "r-1");
    }
}
