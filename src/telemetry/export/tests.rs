use std::sync::Arc;

use opentelemetry::logs::LoggerProvider as _;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use prost::Message;
use secrecy::SecretString;
use tokio::sync::mpsc;
use tracing_subscriber::layer::SubscriberExt;
use warp::Filter;

use super::*;
use crate::config::InsightsConfig;

/// One request as a collector saw it.
struct Received {
    path: String,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Received {
    fn contains(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|window| window == text.as_bytes())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// An HTTP server that takes anything, on a port of its own.
async fn collector() -> (Url, mpsc::UnboundedReceiver<Received>) {
    let (sender, received) = mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let take = warp::path::full().and(warp::header::headers_cloned()).and(warp::body::bytes()).map(
        move |path: warp::path::FullPath, headers, body| {
            let sent = sender.send(Received { path: path.as_str().to_owned(), headers, body });
            if sent.is_ok() { http::StatusCode::OK } else { http::StatusCode::GONE }
        },
    );
    let tasks = crate::tasks::Tasks::new();
    tasks.spawn("collector", warp::serve(take).incoming(listener).run());
    (url, received)
}

/// Ends a span and counts a metric, as a process with this configuration would, and flushes both.
async fn emit(config: TelemetryConfig) {
    let resource = resource(&config, Program::ConversationServer);
    let (tracer, readers, logger) = Exporters::new(&config, Program::ConversationServer, None)
        .unwrap()
        .install(SdkTracerProvider::builder().with_resource(resource.clone()));
    let tracer = tracer.build();
    let meters = readers(SdkMeterProvider::builder().with_resource(resource.clone())).build();
    let logger = logger.map(|logger| logger.with_resource(resource).build());
    tokio::task::spawn_blocking(move || {
        use opentelemetry::metrics::MeterProvider;
        let exported = logger.as_ref().map(|logger| logger.logger("colloquy"));
        let lines = super::super::json_layer(tracing_subscriber::EnvFilter::new("info"), |_| {}, exported);
        let subscriber = tracing_subscriber::registry().with(lines).with(super::super::span_layer(&tracer));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!(target: "colloquy", "a-span-of-ours", request_id = "r-1")
                .in_scope(|| tracing::warn!(code = "a_line_of_ours", age_s = 301, "too old"));
            tracing::info_span!(target: "reqwest", "a-span-of-theirs").in_scope(|| ());
        });
        meters.meter("test").u64_counter("a.metric.of.ours").build().add(1, &[]);
        tracer.shutdown_with_timeout(EXPORT).unwrap();
        meters.shutdown_with_timeout(EXPORT).unwrap();
        if let Some(logger) = logger {
            logger.shutdown_with_timeout(EXPORT).unwrap();
        }
    })
    .await
    .unwrap();
}

/// The first requests to have arrived at each of three paths, from the last name to the first.
async fn three(received: &mut mpsc::UnboundedReceiver<Received>) -> [Received; 3] {
    let next = tokio::time::timeout(Duration::from_secs(20), async {
        let mut all = Vec::new();
        while all.len() < 3 {
            all.push(received.recv().await.unwrap());
        }
        all
    });
    let mut all = next.await.expect("all arrive");
    all.sort_by(|a, b| b.path.cmp(&a.path));
    all.try_into().unwrap_or_else(|_| panic!("three"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_gets_spans_metrics_and_log_lines_over_otlp() {
    let (url, mut received) = collector().await;
    let config = TelemetryConfig {
        otlp_endpoint: Some(url.join("base/").unwrap()),
        otlp_headers: vec![("x-key".into(), SecretString::from("s3cret"))],
        ..TelemetryConfig::default()
    };
    emit(config.clone()).await;
    let [traces, metrics, logs] = three(&mut received).await;
    assert_eq!(traces.path, "/base/v1/traces");
    assert!(traces.contains("a-span-of-ours") && traces.contains("conversation-server"));
    assert!(!traces.contains("a-span-of-theirs"));
    assert_eq!(traces.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(traces.header("x-key"), Some("s3cret"));
    assert_eq!(metrics.path, "/base/v1/metrics");
    assert!(metrics.contains("a.metric.of.ours"));
    assert_eq!((logs.path.as_str(), logs.header("x-key")), ("/base/v1/logs", Some("s3cret")));
    let [record] = records(&logs).try_into().unwrap();
    assert_eq!(record.severity_text, "WARN");
    assert_eq!(text(record.body.as_ref()), "too old");
    let attributes: Vec<_> =
        record.attributes.iter().map(|pair| (pair.key.as_str(), text(pair.value.as_ref()))).collect();
    let expected = [("request_id", "r-1"), ("code", "a_line_of_ours"), ("age_s", "301")];
    assert_eq!(attributes, expected.map(|(name, value)| (name, value.to_owned())));
    assert!(record.trace_id.iter().any(|byte| *byte != 0) && record.span_id.len() == 8, "it is in its trace");

    emit(TelemetryConfig { export_logs: false, ..config }).await;
    let paths = [received.recv().await.unwrap().path, received.recv().await.unwrap().path];
    assert!(received.try_recv().is_err() && !paths.iter().any(|path| path.ends_with("logs")), "{paths:?}");
}

fn records(received: &Received) -> Vec<LogRecord> {
    let request = ExportLogsServiceRequest::decode(received.body.clone()).expect("OTLP as protobuf");
    let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
    scopes.flat_map(|scope| scope.log_records).collect()
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|any| any.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn application_insights_is_set_up_by_its_connection_string() {
    let insights = InsightsConfig {
        connection_string: SecretString::from(
            "InstrumentationKey=00000000-0000-0000-0000-000000000000;IngestionEndpoint=https://in.example/",
        ),
        auth: InsightsAuth::Key,
    };
    let mut config = TelemetryConfig { insights: Some(insights), ..TelemetryConfig::default() };
    let exporters = Exporters::new(&config, Program::ConversationServer, None).unwrap();
    assert!(exporters.otlp.is_none() && exporters.insights.unwrap().logs.is_some());
    let handlers = Exporters::new(&config, Program::FunctionHandlers, None).unwrap();
    assert!(handlers.insights.unwrap().logs.is_none(), "the host sends their stdout");

    if let Some(insights) = &mut config.insights {
        insights.auth = InsightsAuth::Entra { client_id: None };
    }
    assert!(matches!(
        Exporters::new(&config, Program::ConversationServer, None),
        Err(TelemetryError::NoToken)
    ));
    assert!(
        Exporters::new(
            &config,
            Program::ConversationServer,
            Some(Arc::new(|| Ok(SecretString::from("t0ken"))))
        )
        .is_ok()
    );
}

// The exporter turns every address into https, so what it sends through is tried by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_carry_a_token_when_an_identity_is_used() {
    let (url, mut received) = collector().await;
    let sends = |token: Option<BlockingToken>| {
        let request = Request::post(url.as_str()).body(Bytes::from_static(b"telemetry")).unwrap();
        tokio::task::spawn_blocking(move || {
            futures_util::FutureExt::now_or_never(LazyClient::new(token).send_bytes(request))
                .unwrap()
                .map(|_| ())
        })
    };
    let told: BlockingToken = Arc::new(|| Ok(SecretString::from("t0ken")));
    sends(Some(told)).await.unwrap().unwrap();
    assert_eq!(received.recv().await.unwrap().header("authorization"), Some("Bearer t0ken"));
    sends(None).await.unwrap().unwrap();
    assert_eq!(received.recv().await.unwrap().header("authorization"), None);

    let refused: BlockingToken = Arc::new(|| Err("no identity".into()));
    let error = sends(Some(refused)).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "no identity");
    assert!(received.try_recv().is_err(), "nothing is sent without the token it needs");
}

#[test]
fn nothing_is_exported_unless_configured() {
    assert!(
        Exporters::new(&TelemetryConfig::default(), Program::ConversationServer, None).unwrap().is_empty()
    );
}

#[test]
fn an_unusable_connection_string_is_refused_without_showing_it() {
    let insights = InsightsConfig {
        connection_string: SecretString::from("InstrumentationKey=abc;IngestionEndpoint"),
        auth: InsightsAuth::Key,
    };
    let config = TelemetryConfig { insights: Some(insights), ..TelemetryConfig::default() };
    let error = Exporters::new(&config, Program::ConversationServer, None)
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(error.contains("APPLICATIONINSIGHTS_CONNECTION_STRING") && !error.contains("abc"), "{error}");
}
