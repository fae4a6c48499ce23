use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
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
            // What Application Insights answers, and would be asked again for; other collectors' answers are not read.
            let answer = r#"{"itemsReceived":1,"itemsAccepted":1,"errors":[]}"#;
            let sent = sender.send(Received { path: path.as_str().to_owned(), headers, body });
            let status = if sent.is_ok() { http::StatusCode::OK } else { http::StatusCode::GONE };
            warp::reply::with_status(answer, status)
        },
    );
    let tasks = crate::tasks::Tasks::new();
    tasks.spawn("collector", warp::serve(take).incoming(listener).run());
    (url, received)
}

/// Ends a span and counts a metric, as a process with this configuration would, and flushes both.
async fn emit(config: TelemetryConfig, token: Option<BlockingToken>) {
    let resource = resource(&config, "test-service");
    let (tracer, readers) = Exporters::new(&config, token)
        .unwrap()
        .install(SdkTracerProvider::builder().with_resource(resource.clone()));
    let tracer = tracer.build();
    let meters = readers(SdkMeterProvider::builder().with_resource(resource)).build();
    tokio::task::spawn_blocking(move || {
        use opentelemetry::metrics::MeterProvider;
        let subscriber = tracing_subscriber::registry().with(super::super::span_layer(&tracer));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!(target: "colloquy", "a-span-of-ours").in_scope(|| ());
            tracing::info_span!(target: "reqwest", "a-span-of-theirs").in_scope(|| ());
        });
        meters.meter("test").u64_counter("a.metric.of.ours").build().add(1, &[]);
        tracer.shutdown_with_timeout(EXPORT).unwrap();
        meters.shutdown_with_timeout(EXPORT).unwrap();
    })
    .await
    .unwrap();
}

/// The first requests to have arrived at each of two paths.
async fn two(received: &mut mpsc::UnboundedReceiver<Received>) -> [Received; 2] {
    let next = tokio::time::timeout(Duration::from_secs(20), async {
        [received.recv().await.unwrap(), received.recv().await.unwrap()]
    });
    let mut both = next.await.expect("both arrive");
    both.sort_by(|a, b| b.path.cmp(&a.path));
    both
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_gets_spans_and_metrics_over_otlp() {
    let (url, mut received) = collector().await;
    let config = TelemetryConfig {
        otlp_endpoint: Some(url.join("base/").unwrap()),
        otlp_headers: vec![("x-key".into(), SecretString::from("s3cret"))],
        ..TelemetryConfig::default()
    };
    emit(config, None).await;
    let [traces, metrics] = two(&mut received).await;
    assert_eq!(traces.path, "/base/v1/traces");
    assert!(traces.contains("a-span-of-ours") && traces.contains("test-service"));
    assert!(!traces.contains("a-span-of-theirs"));
    assert_eq!(traces.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(traces.header("x-key"), Some("s3cret"));
    assert_eq!(metrics.path, "/base/v1/metrics");
    assert!(metrics.contains("a.metric.of.ours"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn application_insights_gets_spans_and_metrics_with_a_token() {
    let (url, mut received) = collector().await;
    let insights = InsightsConfig {
        connection_string: SecretString::from(format!(
            "InstrumentationKey=00000000-0000-0000-0000-000000000000;IngestionEndpoint={url}"
        )),
        auth: InsightsAuth::Entra { client_id: None },
    };
    let asked = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&asked);
    let token: BlockingToken = Arc::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(SecretString::from("t0ken"))
    });
    emit(TelemetryConfig { insights: Some(insights), ..TelemetryConfig::default() }, Some(token)).await;
    for request in two(&mut received).await {
        assert_eq!(request.path, "/v2/track");
        assert_eq!(request.header("authorization"), Some("Bearer t0ken"));
        assert!(!request.body.is_empty());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn nothing_is_exported_unless_configured() {
    assert!(Exporters::new(&TelemetryConfig::default(), None).unwrap().is_empty());
}

#[test]
fn an_unusable_connection_string_is_refused_without_showing_it() {
    let insights = InsightsConfig {
        connection_string: SecretString::from("InstrumentationKey=abc;IngestionEndpoint"),
        auth: InsightsAuth::Key,
    };
    let config = TelemetryConfig { insights: Some(insights), ..TelemetryConfig::default() };
    let error = Exporters::new(&config, None).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("APPLICATIONINSIGHTS_CONNECTION_STRING") && !error.contains("abc"), "{error}");
}
