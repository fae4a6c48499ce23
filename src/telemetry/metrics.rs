//! Every metric there is, and one line to emit each.
//!
//! Names follow OpenTelemetry's conventions; `/health/metrics` shows them as Prometheus spells them. An attribute's
//! values come from configuration or from an enum, never from a request: what an unknown source is called must not
//! become a time series.

mod budget;
mod external;
mod load;
mod signals;
mod table;

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, MeterProvider as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::TextEncoder;

pub use budget::{budget_passed, budget_refused, budget_used, budget_used_today};
pub use external::{System, external};
pub use load::RuntimeLoad;
pub use signals::{
    Channel, Emitter, Level, Measure, SIGNALS, Signal, Source, Unit, signals_json, signals_markdown,
};
pub use table::{Definition, Kind, METRICS, Metric, metrics_markdown};

use super::export::Readers;

/// What stands in the attribute `source` where a request named a source that does not exist.
pub const UNKNOWN: &str = "unknown";

/// How often a process looks at what only it knows: its pool, its threads. Exporters ask less often.
pub const EVERY: Duration = Duration::from_secs(15);

static PIPELINE: OnceLock<Pipeline> = OnceLock::new();

/// The instruments and where their values go: to Prometheus text when asked, and to configured exporters.
pub(super) struct Pipeline {
    provider: SdkMeterProvider,
    registry: prometheus::Registry,
    instruments: Vec<Instrument>,
}

enum Instrument {
    Counter(Counter<u64>),
    Gauge(Gauge<f64>),
    Histogram(Histogram<f64>),
}

/// The pipeline in force; without [`init`](super::init), one that feeds [`prometheus_text`] only.
pub(super) fn pipeline() -> &'static Pipeline {
    PIPELINE.get_or_init(|| Pipeline::new(Resource::builder_empty().build(), None))
}

/// Sets the pipeline up with exporters; an error if values were emitted before.
pub(super) fn install(resource: Resource, readers: Readers) -> Result<(), ()> {
    PIPELINE.set(Pipeline::new(resource, Some(readers))).map_err(|_| ())
}

impl Pipeline {
    fn new(resource: Resource, readers: Option<Readers>) -> Self {
        let registry = prometheus::Registry::new();
        let mut builder = SdkMeterProvider::builder().with_resource(resource);
        match opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()
        {
            Ok(exporter) => builder = builder.with_reader(exporter),
            Err(error) => {
                tracing::warn!(code = "telemetry.prometheus_off", %error, "/health/metrics stays empty")
            }
        }
        if let Some(readers) = readers {
            builder = readers(builder);
        }
        let provider = builder.build();
        let meter = provider.meter("colloquy");
        let instruments = METRICS.iter().map(|definition| Instrument::new(&meter, definition)).collect();
        Self { provider, registry, instruments }
    }

    /// Sends what is pending and ends exporting.
    pub(super) fn shutdown(&self, patience: Duration) -> OTelSdkResult {
        self.provider.shutdown_with_timeout(patience)
    }

    fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    fn emit(&self, metric: Metric, value: f64, attributes: &[&str]) {
        let definition = metric.definition();
        debug_assert_eq!(attributes.len(), definition.attributes.len(), "attributes of {}", definition.name);
        let attributes: Vec<KeyValue> = definition
            .attributes
            .iter()
            .zip(attributes)
            // An attribute that says nothing (`error.type` of a success) is left out, as OpenTelemetry has it.
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| KeyValue::new(*name, (*text).to_owned()))
            .collect();
        match self.instruments.get(metric as usize) {
            // Counts are whole by the public functions' types.
            Some(Instrument::Counter(counter)) => counter.add(value as u64, &attributes),
            Some(Instrument::Gauge(gauge)) => gauge.record(value, &attributes),
            Some(Instrument::Histogram(histogram)) => histogram.record(value, &attributes),
            None => {}
        }
    }
}

impl Instrument {
    fn new(meter: &Meter, definition: &Definition) -> Self {
        let Definition { name, unit, description, kind, .. } = *definition;
        match kind {
            Kind::Counter => {
                Self::Counter(meter.u64_counter(name).with_unit(unit).with_description(description).build())
            }
            Kind::Gauge => {
                Self::Gauge(meter.f64_gauge(name).with_unit(unit).with_description(description).build())
            }
            Kind::Histogram(bounds) => Self::Histogram(
                meter
                    .f64_histogram(name)
                    .with_unit(unit)
                    .with_description(description)
                    .with_boundaries(bounds.to_vec())
                    .build(),
            ),
        }
    }
}

/// All metrics in Prometheus' text format 0.0.4 (`text/plain; version=0.0.4`).
pub fn prometheus_text() -> Result<String, prometheus::Error> {
    pipeline().text()
}

/// Adds to a counter. `attributes` are the values of the metric's attributes, in the table's order.
pub fn count(metric: Metric, n: u64, attributes: &[&str]) {
    pipeline().emit(metric, n as f64, attributes);
}

/// Sets a gauge.
pub fn gauge(metric: Metric, value: f64, attributes: &[&str]) {
    pipeline().emit(metric, value, attributes);
}

/// Records a time in a histogram of seconds.
pub fn time(metric: Metric, elapsed: Duration, attributes: &[&str]) {
    pipeline().emit(metric, elapsed.as_secs_f64(), attributes);
}

/// Records a number of tokens, or of anything else, in a histogram.
pub fn record(metric: Metric, value: u64, attributes: &[&str]) {
    pipeline().emit(metric, value as f64, attributes);
}

/// A webhook request was answered. `source` is a configured name or [`UNKNOWN`]; `outcome` is `accepted` or the stable
/// code of the refusal.
pub fn webhook_request(source: &str, outcome: &str, elapsed: Duration) {
    count(Metric::WebhookRequests, 1, &[source, outcome]);
    time(Metric::WebhookDuration, elapsed, &[source]);
}

/// Events met their fate: `processed`, `held`, `duplicate` or `conflict`.
pub fn events_processed(source: &str, fate: &str, n: u64) {
    count(Metric::EventsProcessed, n, &[source, fate]);
}

/// How many messages wait in a queue, and how long the oldest has waited, if there is one.
pub fn queue(queue: &str, depth: u64, oldest: Duration) {
    gauge(Metric::QueueDepth, depth as f64, &[queue]);
    gauge(Metric::QueueOldestAge, oldest.as_secs_f64(), &[queue]);
}

/// One attempt at a job ended: `succeeded`, `failed`, `outage`, `lost_lease` …
pub fn job_attempt(kind: &str, outcome: &str, elapsed: Duration) {
    count(Metric::JobAttempts, 1, &[kind, outcome]);
    time(Metric::JobDuration, elapsed, &[kind]);
}

/// One attempt at a callback ended: `delivered`, `failed`, `refused`, `gone`, `outage` …
pub fn callback_attempt(target: &str, outcome: &str, elapsed: Duration) {
    count(Metric::CallbackAttempts, 1, &[target, outcome]);
    time(Metric::CallbackDuration, elapsed, &[target]);
}

/// Work was given up: what it was (`delivery`, `job`, `callback`, `message`) and the stable code of the reason.
pub fn dead_letter(subject: &str, code: &str) {
    count(Metric::DeadLetters, 1, &[subject, code]);
}

/// Dead letters that nobody has settled.
pub fn open_dead_letters(subject: &str, n: u64) {
    gauge(Metric::DeadLettersOpen, n as f64, &[subject]);
}

/// Secrets that have to be replaced, by urgency: `near`, `expired`.
pub fn open_rotations(urgency: &str, n: u64) {
    gauge(Metric::RotationsOpen, n as f64, &[urgency]);
}

/// Rows (`job`, `callback`) that are due and unclaimed, and how long the oldest has been due.
pub fn lag(subject: &str, due: u64, oldest: Duration) {
    gauge(Metric::DueRows, due as f64, &[subject]);
    gauge(Metric::DueOldestAge, oldest.as_secs_f64(), &[subject]);
}

/// The database pool: its limit, connections open and in use, callers waiting for one.
pub fn database_pool(limit: usize, open: usize, in_use: usize, waiting: usize) {
    gauge(Metric::DatabasePoolLimit, limit as f64, &[]);
    gauge(Metric::DatabasePoolConnections, in_use as f64, &["used"]);
    gauge(Metric::DatabasePoolConnections, open.saturating_sub(in_use) as f64, &["idle"]);
    gauge(Metric::DatabasePoolWaiting, waiting as f64, &[]);
    gauge(Metric::DatabasePoolUtilization, share(in_use, limit), &[]);
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A database call failed; `class` is the error's stable code.
pub fn database_error(class: &str) {
    count(Metric::DatabaseErrors, 1, &[class]);
}

/// Version of the schema in the database, and how many migrations this build has beyond it.
pub fn migrations(version: u64, pending: u64) {
    gauge(Metric::SchemaVersion, version as f64, &[]);
    gauge(Metric::MigrationsPending, pending as f64, &[]);
}

/// A sweep of `maintain` took `n` rows or messages.
pub fn swept(sweep: &str, n: u64) {
    count(Metric::Swept, n, &[sweep]);
}

/// An invocation of a function ended: `done`, `retry`, `dead_letter`, `failed`, `panicked` …
pub fn invocation(function: &str, outcome: &str, elapsed: Duration) {
    count(Metric::Invocations, 1, &[function, outcome]);
    time(Metric::InvocationDuration, elapsed, &[function]);
}

/// A caller was refused; `code` is the refusal's stable code.
pub fn access_refused(code: &str) {
    count(Metric::AccessRefused, 1, &[code]);
}

/// A request to the conversation server was answered, or its answer begun.
pub fn request(route: &str, status: u16, elapsed: Duration) {
    time(Metric::Requests, elapsed, &[route, &status.to_string()]);
}

/// Connections to the conversation server: open ones, and how many may be.
pub fn connections(open: usize, limit: usize) {
    gauge(Metric::ConnectionsOpen, open as f64, &[]);
    gauge(Metric::ConnectionsLimit, limit as f64, &[]);
    gauge(Metric::ConnectionsUtilization, share(open, limit), &[]);
}

/// A connection was refused because there were too many.
pub fn connection_refused() {
    count(Metric::ConnectionsRefused, 1, &[]);
}

/// Turns in flight.
pub fn turns_open(n: usize) {
    gauge(Metric::TurnsOpen, n as f64, &[]);
}

/// A turn ended: its final status, and what ended it.
pub fn turn_ended(status: &str, reason: &str) {
    count(Metric::TurnsEnded, 1, &[status, reason]);
}

/// A turn as whoever asked for it met it.
#[derive(Clone, Copy, Debug)]
pub struct ServedTurn<'t> {
    /// The alias asked for.
    pub model: &'t str,
    /// What it failed of; empty if it did not.
    pub error: &'t str,
    /// From the request to the end.
    pub elapsed: Duration,
    /// From the request to the first piece shown, if there was one.
    pub to_first: Option<Duration>,
    /// As the provider counts them, if it told.
    pub output_tokens: Option<u64>,
}

/// A turn came to its end.
pub fn turn_served(turn: &ServedTurn<'_>) {
    const PROVIDER: &str = "colloquy";
    let of = ["chat", PROVIDER, turn.model];
    time(Metric::GenAiServerDuration, turn.elapsed, &["chat", PROVIDER, turn.model, turn.error]);
    let Some(to_first) = turn.to_first else { return };
    time(Metric::GenAiServerFirstToken, to_first, &of);
    if let Some(rest @ 1..) = turn.output_tokens.and_then(|tokens| u32::try_from(tokens).ok()?.checked_sub(1))
    {
        time(Metric::GenAiServerPerToken, turn.elapsed.saturating_sub(to_first) / rest, &of);
    }
}

/// A call to a model cost so much, in millionths of the currency that prices are in.
pub fn spent(deployment: &str, micros: i64) {
    if let Ok(cost @ 1..) = u64::try_from(micros) {
        count(Metric::Cost, cost, &[deployment]);
    }
}

/// A turn of a dead process was taken over: `ended`, or `restarted`.
pub fn turn_taken_over(outcome: &str) {
    count(Metric::TurnsTakenOver, 1, &[outcome]);
}

/// One grouped append returned.
pub fn log_append(elapsed: Duration) {
    time(Metric::LogAppend, elapsed, &[]);
}

/// An append took longer than `LOG_PATIENCE`.
pub fn log_stalled() {
    count(Metric::LogStalled, 1, &[]);
}

/// Usage rows went another way than to the database: `spooled`, `lost`.
pub fn usage_rows(fate: &str, n: u64) {
    if n > 0 {
        count(Metric::UsageRows, n, &[fate]);
    }
}

/// A request was refused by a rate limit: `requests`, `tokens`, `turns`.
pub fn rate_limited(limit: &str) {
    count(Metric::RateLimited, 1, &[limit]);
}

/// A call to what instances share ended: `ok`, `failed`, `timeout`, `open` (the breaker's).
pub fn coordination_call(call: &str, outcome: &str) {
    count(Metric::CoordinationCalls, 1, &[call, outcome]);
}

/// Whether what instances share can be reached.
pub fn coordination_connected(yes: bool) {
    gauge(Metric::CoordinationConnected, f64::from(u8::from(yes)), &[]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_reaches_prometheus_under_its_name() {
        let pipeline = Pipeline::new(Resource::builder_empty().build(), None);
        for definition in METRICS {
            let attributes = vec!["x"; definition.attributes.len()];
            pipeline.emit(definition.metric, 1.0, &attributes);
        }
        let text = pipeline.text().unwrap();
        for definition in METRICS {
            let name = definition.name.replace('.', "_");
            assert!(text.contains(&format!("# HELP {name}")), "{name} is missing from:\n{text}");
            assert!(text.contains(definition.description), "{name}");
        }
        assert!(text.contains("colloquy_webhook_requests_total{outcome=\"x\",source=\"x\"} 1"), "{text}");
        assert!(
            text.contains("colloquy_webhook_duration_seconds_bucket{source=\"x\",le=\"0.005\"} 0"),
            "{text}"
        );
    }

    #[test]
    fn helpers_emit_without_telemetry_being_set_up() {
        webhook_request("metrics-test", "accepted", Duration::from_millis(3));
        database_pool(5, 3, 1, 0);
        let text = prometheus_text().unwrap();
        assert!(text.contains("source=\"metrics-test\""), "{text}");
        assert!(text.contains("colloquy_database_pool_connections{state=\"idle\"} 2"), "{text}");
        assert!(text.contains("colloquy_database_pool_utilization_ratio 0.2"), "{text}");
    }
}
