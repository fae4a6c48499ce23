//! Log lines as OpenTelemetry log records: what stdout gets, no more and no less.

use std::time::SystemTime;

use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, Severity};
use opentelemetry::trace::SpanContext;
use opentelemetry_sdk::logs::SdkLogger;
use serde_json::Value;
use tracing::{Level, Metadata};

/// What a record says by itself, and so not as an attribute.
const OWN: [&str; 5] = ["timestamp", "level", "message", "target", "trace_id"];

/// Hands one line on. It is sent later, with others, by a thread of its own.
pub(super) fn emit(
    logger: &SdkLogger,
    metadata: &Metadata<'_>,
    line: &[(&'static str, Value)],
    span: Option<&SpanContext>,
) {
    let mut record = logger.create_log_record();
    let (severity, text) = severity(*metadata.level());
    record.set_severity_number(severity);
    record.set_severity_text(text);
    record.set_timestamp(SystemTime::now());
    record.set_target(metadata.target().to_owned());
    for (name, value) in line {
        if *name == "message" {
            record.set_body(any(value));
        } else if !OWN.contains(name) {
            record.add_attribute(*name, any(value));
        }
    }
    if let Some(span) = span {
        record.set_trace_context(span.trace_id(), span.span_id(), Some(span.trace_flags()));
    }
    logger.emit(record);
}

fn severity(level: Level) -> (Severity, &'static str) {
    let severity = match level {
        Level::ERROR => Severity::Error,
        Level::WARN => Severity::Warn,
        Level::INFO => Severity::Info,
        Level::DEBUG => Severity::Debug,
        _ => Severity::Trace,
    };
    (severity, level.as_str())
}

fn any(value: &Value) -> AnyValue {
    match value {
        Value::String(text) => AnyValue::from(text.clone()),
        Value::Bool(flag) => AnyValue::from(*flag),
        Value::Number(number) => number
            .as_i64()
            .map(AnyValue::from)
            .or_else(|| number.as_f64().map(AnyValue::from))
            .unwrap_or_else(|| number.to_string().into()),
        other => other.to_string().into(),
    }
}
