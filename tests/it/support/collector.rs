//! An OpenTelemetry collector: takes traces and log lines over OTLP (HTTP, protobuf) and remembers every one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::StatusCode;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message;
use warp::Filter;

/// A span as it came.
#[derive(Clone, Debug)]
pub struct SeenSpan {
    /// `service.name` of the process that sent it.
    pub service: String,
    pub name: String,
    /// Lower hex; a span without parent has none.
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub kind: SpanKind,
    pub failed: bool,
    pub attributes: BTreeMap<String, String>,
    /// Everything that a reader could find in it, names and values, its events' too.
    pub text: String,
}

/// A log line as it came.
#[derive(Clone, Debug)]
pub struct SeenLine {
    pub service: String,
    /// Lower hex; empty outside of traces.
    pub trace: String,
    pub attributes: BTreeMap<String, String>,
    /// Everything that a reader could find in it.
    pub text: String,
}

/// Takes what it is sent until it is dropped.
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<SeenSpan>>>,
    lines: Arc<Mutex<Vec<SeenLine>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its number");
        let spans = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&spans);
        let traces = warp::path!("v1" / "traces").and(warp::body::bytes()).map(move |body: Bytes| {
            let request = ExportTraceServiceRequest::decode(body).expect("OTLP as protobuf");
            seen.lock().unwrap().extend(spans_of(request));
            StatusCode::OK
        });
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&lines);
        let logs = warp::path!("v1" / "logs").and(warp::body::bytes()).map(move |body: Bytes| {
            let request = ExportLogsServiceRequest::decode(body).expect("OTLP as protobuf");
            seen.lock().unwrap().extend(lines_of(request));
            StatusCode::OK
        });
        let metrics = warp::path!("v1" / "metrics").map(|| StatusCode::OK);
        let serving = tokio::spawn(warp::serve(traces.or(metrics).or(logs)).incoming(listener).run());
        Self { address, spans, lines, serving }
    }

    /// Settings that make a process export to it, at once.
    pub fn settings(&self) -> [(&'static str, String); 3] {
        [
            ("OTEL_BLRP_SCHEDULE_DELAY", "100".to_owned()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", self.address)),
            ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ]
    }

    /// Every span so far.
    pub fn spans(&self) -> Vec<SeenSpan> {
        self.spans.lock().unwrap().clone()
    }

    /// Every log line so far.
    pub fn lines(&self) -> Vec<SeenLine> {
        self.lines.lock().unwrap().clone()
    }

    /// Those of one trace.
    pub fn of(&self, trace: &str) -> Vec<SeenSpan> {
        self.spans().into_iter().filter(|span| span.trace == trace).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn spans_of(request: ExportTraceServiceRequest) -> Vec<SeenSpan> {
    let mut seen = Vec::new();
    for resource in request.resource_spans {
        let of_resource =
            attributes(resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        let service = of_resource.get("service.name").cloned().unwrap_or_default();
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            seen.push(seen_span(&service, span));
        }
    }
    seen
}

fn lines_of(request: ExportLogsServiceRequest) -> Vec<SeenLine> {
    let mut seen = Vec::new();
    for resource in request.resource_logs {
        let of_resource =
            attributes(resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        let service = of_resource.get("service.name").cloned().unwrap_or_default();
        for record in resource.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
            seen.push(SeenLine {
                service: service.clone(),
                trace: hex(&record.trace_id),
                text: format!("{record:?}"),
                attributes: attributes(record.attributes),
            });
        }
    }
    seen
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seen_span(service: &str, span: Span) -> SeenSpan {
    let kind = span.kind();
    let failed = span.status.as_ref().is_some_and(|status| status.code() == SpanStatus::Error);
    let text = format!("{span:?}");
    SeenSpan {
        service: service.to_owned(),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        kind,
        failed,
        attributes: attributes(span.attributes),
        name: span.name,
        text,
    }
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let value = |value: Option<AnyValue>| match value.and_then(|any| any.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(flag)) => flag.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    pairs.into_iter().map(|pair| (pair.key, value(pair.value))).collect()
}
