//! Headers of any request.

use super::header_lines;
use crate::{access, request_id, telemetry};

/// What of a request's headers is logged, answered or stored holds nothing that means something there.
pub fn headers(data: &[u8]) {
    let headers = header_lines(data);
    let id = request_id::of(&headers).to_string();
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    assert!((8..=128).contains(&id.len()) && id.chars().all(safe), "{id:?}");
    if let Some(key) = access::presented(&headers) {
        assert!(!key.is_empty() && key.trim() == key);
    }
    let parent = headers.get("traceparent").and_then(|value| value.to_str().ok());
    if let Some(trace) = parent.and_then(telemetry::trace::trace_id) {
        assert!(trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_hexdigit()), "{trace:?}");
    }
}
