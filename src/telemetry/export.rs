//! Where traces, metrics and log lines leave the process: an OTLP collector, Application Insights, both, or nowhere.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use opentelemetry::KeyValue;
use opentelemetry_application_insights::HttpClient;
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{LoggerProviderBuilder, SdkLoggerProvider};
use opentelemetry_sdk::metrics::{MeterProviderBuilder, PeriodicReader};
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanProcessor, TracerProviderBuilder};
use secrecy::ExposeSecret;
use url::Url;

use super::sampling::KeepErrors;
use super::{BlockingToken, Program, TelemetryError};
use crate::config::{InsightsAuth, TelemetryConfig};

/// How long one export may take.
const EXPORT: Duration = Duration::from_secs(10);

struct Otlp {
    spans: opentelemetry_otlp::SpanExporter,
    metrics: opentelemetry_otlp::MetricExporter,
    logs: Option<opentelemetry_otlp::LogExporter>,
}

struct ToInsights {
    spans: Insights,
    metrics: Insights,
    logs: Option<Insights>,
}

type Insights = opentelemetry_application_insights::Exporter<LazyClient>;

/// The exporters that are configured. Building them connects to nothing.
pub(super) struct Exporters {
    otlp: Option<Otlp>,
    insights: Option<ToInsights>,
}

/// Adds metric readers to a provider.
pub(super) type Readers = Box<dyn FnOnce(MeterProviderBuilder) -> MeterProviderBuilder + Send>;

impl Exporters {
    pub(super) fn new(
        config: &TelemetryConfig,
        program: Program,
        token: Option<BlockingToken>,
    ) -> Result<Self, TelemetryError> {
        Ok(Self { otlp: otlp(config)?, insights: insights(config, program, token)? })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.otlp.is_none() && self.insights.is_none()
    }

    /// Splits into what spans, metrics and log lines need. Starts the threads that export.
    pub(super) fn install(
        self,
        mut tracer: TracerProviderBuilder,
    ) -> (TracerProviderBuilder, Readers, Option<LoggerProviderBuilder>) {
        let (mut otlp_metrics, mut insights_metrics, mut logger) = (None, None, None);
        let mut processors: Vec<Box<dyn SpanProcessor>> = Vec::new();
        if let Some(Otlp { spans, metrics, logs }) = self.otlp {
            processors.push(Box::new(BatchSpanProcessor::builder(spans).build()));
            otlp_metrics = Some(metrics);
            if let Some(logs) = logs {
                logger = Some(SdkLoggerProvider::builder().with_batch_exporter(logs));
            }
        }
        if let Some(ToInsights { spans, metrics, logs }) = self.insights {
            processors.push(Box::new(BatchSpanProcessor::builder(spans).build()));
            insights_metrics = Some(metrics);
            if let Some(logs) = logs {
                logger = Some(logger.unwrap_or_default().with_batch_exporter(logs));
            }
        }
        if !processors.is_empty() {
            tracer = tracer.with_span_processor(KeepErrors::new(processors));
        }
        let readers: Readers = Box::new(move |mut meters| {
            if let Some(exporter) = otlp_metrics {
                meters = meters.with_reader(PeriodicReader::builder(exporter).build());
            }
            if let Some(exporter) = insights_metrics {
                meters = meters.with_reader(PeriodicReader::builder(exporter).build());
            }
            meters
        });
        (tracer, readers, logger)
    }
}

fn otlp(config: &TelemetryConfig) -> Result<Option<Otlp>, TelemetryError> {
    let Some(endpoint) = &config.otlp_endpoint else { return Ok(None) };
    let headers: HashMap<String, String> = config
        .otlp_headers
        .iter()
        .map(|(name, value)| (name.clone(), value.expose_secret().to_owned()))
        .collect();
    let invalid = |error: opentelemetry_otlp::ExporterBuildError| TelemetryError::Otlp(error.to_string());
    let spans = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(LazyClient::new(None))
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(signal(endpoint, "traces"))
        .with_headers(headers.clone())
        .with_timeout(EXPORT)
        .build()
        .map_err(invalid)?;
    let metrics = opentelemetry_otlp::MetricExporter::builder()
        .with_http()
        .with_http_client(LazyClient::new(None))
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(signal(endpoint, "metrics"))
        .with_headers(headers.clone())
        .with_timeout(EXPORT)
        .build()
        .map_err(invalid)?;
    let logs = || {
        opentelemetry_otlp::LogExporter::builder()
            .with_http()
            .with_http_client(LazyClient::new(None))
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(signal(endpoint, "logs"))
            .with_headers(headers)
            .with_timeout(EXPORT)
            .build()
            .map_err(invalid)
    };
    let logs = config.export_logs.then(logs).transpose()?;
    Ok(Some(Otlp { spans, metrics, logs }))
}

/// The address of one signal below the collector's base address (OTLP exporter specification, "Endpoint URLs").
fn signal(base: &Url, signal: &str) -> String {
    format!("{}/v1/{signal}", base.as_str().trim_end_matches('/'))
}

fn insights(
    config: &TelemetryConfig,
    program: Program,
    token: Option<BlockingToken>,
) -> Result<Option<ToInsights>, TelemetryError> {
    let Some(insights) = &config.insights else { return Ok(None) };
    let token = match insights.auth {
        InsightsAuth::Key => None,
        // Without its token every export would be refused, hours after the mistake was made.
        InsightsAuth::Entra { .. } => Some(token.ok_or(TelemetryError::NoToken)?),
    };
    let exporter = || {
        let client = LazyClient::new(token.clone());
        Insights::new_from_connection_string(insights.connection_string.expose_secret(), client)
            .map_err(|_| TelemetryError::Insights)
    };
    let logs = config.export_logs && program == Program::ConversationServer;
    let logs = logs.then(exporter).transpose()?;
    Ok(Some(ToInsights { spans: exporter()?, metrics: exporter()?, logs }))
}

/// Who is sending: service name and version, instance, environment.
pub(super) fn resource(config: &TelemetryConfig, program: Program) -> Resource {
    let name = config.service_name.clone().unwrap_or_else(|| program.as_str().to_owned());
    let instance = config.instance_id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    Resource::builder_empty()
        .with_service_name(name)
        .with_attributes([
            KeyValue::new("service.namespace", "colloquy"),
            KeyValue::new("service.version", crate::version::VERSION),
            KeyValue::new("service.instance.id", instance),
            KeyValue::new("deployment.environment.name", config.environment),
        ])
        .build()
}

/// An HTTP client that is built at the first export, on the exporting thread: loading certificates takes longer than
/// start-up may, and the blocking client must not be made inside the async runtime.
struct LazyClient {
    client: OnceLock<reqwest::blocking::Client>,
    token: Option<BlockingToken>,
}

impl LazyClient {
    fn new(token: Option<BlockingToken>) -> Self {
        Self { client: OnceLock::new(), token }
    }

    fn client(&self) -> Result<&reqwest::blocking::Client, reqwest::Error> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = reqwest::blocking::Client::builder()
            .timeout(EXPORT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(self.client.get_or_init(|| client))
    }

    fn authorize(
        &self,
        request: &mut Request<Bytes>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if let Some(token) = &self.token {
            let token = token()?;
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(())
    }
}

impl fmt::Debug for LazyClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyClient").field("entra", &self.token.is_some()).finish_non_exhaustive()
    }
}

type Sent<'a> = Pin<
    Box<dyn Future<Output = Result<Response<Bytes>, Box<dyn std::error::Error + Send + Sync>>> + Send + 'a>,
>;

impl HttpClient for LazyClient {
    fn send_bytes<'a, 'b>(&'a self, mut request: Request<Bytes>) -> Sent<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            self.authorize(&mut request)?;
            HttpClient::send_bytes(self.client()?, request).await
        })
    }
}

#[cfg(test)]
mod tests;
