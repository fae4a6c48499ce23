//! What an operator sees of a running process: logs, traces, metrics.
//!
//! Logs are JSON lines on stdout. They, traces and metrics leave the process only if an exporter is configured; trace ids
//! are made and passed on in any case, so that what is stored with an event leads to its logs. Nothing here connects
//! before the first export, which happens on a thread of its own: start-up does not wait for telemetry.

mod export;
mod log;
pub mod metrics;
mod records;
mod sampling;
pub mod trace;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::logs::LoggerProvider as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use secrecy::SecretString;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::TelemetryConfig;

pub use log::json_layer;

/// Scope of the Microsoft Entra token that Application Insights takes.
pub const INSIGHTS_SCOPE: &str = "https://monitor.azure.com//.default";

/// Gets a Microsoft Entra token for [`INSIGHTS_SCOPE`], or says why not. Called on a plain thread, may block.
pub type BlockingToken = Arc<dyn Fn() -> Result<SecretString, String> + Send + Sync>;

/// How long each exporter's flush at the end may take.
const FLUSH: Duration = Duration::from_secs(3);

/// Which program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The Functions host sends each line of its stdout to Application Insights, so that no other way must.
    FunctionHandlers,
    ConversationServer,
}

impl Program {
    /// Its name where `OTEL_SERVICE_NAME` gives none.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FunctionHandlers => "function-handlers",
            Self::ConversationServer => "conversation-server",
        }
    }
}

/// Telemetry could not be set up. Code `telemetry.invalid`.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("APP_LOG_LEVEL is not a list of directives such as info,colloquy::jobs=debug")]
    LogLevel,
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT cannot be used: {0}")]
    Otlp(String),
    #[error(
        "APPLICATIONINSIGHTS_CONNECTION_STRING cannot be used; copy it again from the resource's overview page"
    )]
    Insights,
    #[error(
        "APPLICATIONINSIGHTS_AUTHENTICATION_STRING asks for a Microsoft Entra identity, and this process was given none; \
         remove the setting to use the connection string's key"
    )]
    NoToken,
    #[error("telemetry was set up before in this process")]
    Twice,
}

impl TelemetryError {
    /// The stable code by which logs and alerts know this failure.
    pub const CODE: &'static str = "telemetry.invalid";
}

/// Whether [`init`] would take these settings, and why not. Sends nothing and starts nothing.
pub fn check(
    config: &TelemetryConfig,
    program: Program,
    token: Option<BlockingToken>,
) -> Result<(), TelemetryError> {
    export::Exporters::new(config, program, token).map(drop)
}

/// The Azure SDK tells of every failed try at info; what a call came to, our own lines say once.
const QUIET: &str = "typespec_client_core::http::policies::logging=warn";

/// Flushes telemetry when the process ends in order: dropping it blocks, for seconds at most where a collector is away.
/// Keep it in `main`, outside the async runtime.
#[derive(Debug)]
#[must_use = "dropping the guard flushes and ends telemetry"]
pub struct Guard {
    tracer: SdkTracerProvider,
    logger: Option<SdkLoggerProvider>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (tracer, logger) = (&self.tracer, &self.logger);
        // Side by side, so that a collector that is away costs its time once.
        let (traces, logs, metrics) = std::thread::scope(|scope| {
            let traces = scope.spawn(|| tracer.shutdown_with_timeout(FLUSH));
            let logs = scope.spawn(|| logger.as_ref().map_or(Ok(()), |it| it.shutdown_with_timeout(FLUSH)));
            let metrics = metrics::pipeline().shutdown(FLUSH);
            (traces.join(), logs.join(), metrics)
        });
        let panicked = |_| Err(OTelSdkError::InternalFailure("a panic".to_owned()));
        let (traces, logs) = (traces.unwrap_or_else(panicked), logs.unwrap_or_else(panicked));
        for (what, result) in [("traces", traces), ("logs", logs), ("metrics", metrics)] {
            if let Err(error) = result {
                tracing::warn!(code = "telemetry.flush_failed", what, %error, "telemetry was not flushed");
            }
        }
    }
}

/// Starts logging, and exporting where configured. Once per process, before anything is logged.
///
/// `token` is used if Application Insights is to be
/// reached with a Microsoft Entra identity.
pub fn init(
    config: &TelemetryConfig,
    program: Program,
    token: Option<BlockingToken>,
) -> Result<Guard, TelemetryError> {
    let resource = export::resource(config, program);
    let exporters = export::Exporters::new(config, program, token)?;

    let sampler = sampling::sampler((!exporters.is_empty()).then_some(config.sampling));
    let tracer = SdkTracerProvider::builder().with_resource(resource.clone()).with_sampler(sampler);
    let (tracer, readers, logger) = exporters.install(tracer);
    let tracer = tracer.build();
    let logger = logger.map(|logger| logger.with_resource(resource.clone()).build());
    metrics::install(resource, readers).map_err(|()| TelemetryError::Twice)?;

    // First, so that whoever names the target in APP_LOG_LEVEL has the last word.
    let directives = format!("{QUIET},{}", config.log_level);
    let level = EnvFilter::try_new(directives).map_err(|_| TelemetryError::LogLevel)?;
    tracing_subscriber::registry()
        .with(json_layer(level, log::stdout, logger.as_ref().map(|logger| logger.logger("colloquy"))))
        .with(span_layer(&tracer))
        .try_init()
        .map_err(|_| TelemetryError::Twice)?;
    Ok(Guard { tracer, logger })
}

/// Says on stdout, as one line, why the process ends; also where [`init`] was not reached, or was what failed.
pub fn last_words(code: &'static str, error: &str) {
    let plain =
        tracing_subscriber::registry().with(json_layer(EnvFilter::new("info"), log::stdout, None)).try_init();
    // Where logging was set up before, that is used.
    drop(plain);
    tracing::error!(code, error, "the process cannot go on");
}

/// The layer that turns our spans, and nobody else's, into OpenTelemetry spans, whatever the log level. The SDK's span of
/// an invocation is for logs alone: what a handler does belongs to the trace of the message it works on.
fn span_layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a> + Send + Sync,
{
    // An exporter's own HTTP calls must not become spans that are exported in their turn.
    let ours = Targets::new()
        .with_target("colloquy", LevelFilter::INFO)
        .with_target("colloquy::functions", LevelFilter::OFF)
        .with_target("function_handlers", LevelFilter::INFO)
        .with_target("conversation_server", LevelFilter::INFO);
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("colloquy"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        // Nothing here reads OpenTelemetry's own idea of the present span, and keeping it would cost each poll.
        .with_context_activation(false)
        .with_filter(ours)
}
