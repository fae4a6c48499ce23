//! What the host says about an invocation, apart from its data.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use uuid::Uuid;

pub(super) const INVOCATION_ID: &str = "x-azure-functions-invocationid";
const HOST_VERSION: &str = "x-azure-functions-hostversion";
const TRACE_PARENT: &str = "traceparent";
const HOST_AGENT: &str = "Azure-Functions-Host/";

/// One call of one function.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The host's id; one of our own (UUIDv7) if a request came without, as it does without a host.
    pub id: String,
    /// What answers and log lines about it carry: the caller's own id, see [`request_id`], else [`Self::id`].
    pub request_id: String,
    /// The function's name: its folder.
    pub function: Arc<str>,
    /// The host's version, e.g. `4.1052.200`.
    pub host_version: Option<String>,
    /// W3C `traceparent`, if a well-formed one came.
    pub trace_parent: Option<String>,
    /// When the request's head had been read.
    pub received: Instant,
    /// When the handler is cut: a queue message counts as [`Outcome::Retry`](super::Outcome::Retry), an HTTP
    /// caller gets 503. Lies before the host's own timeout, by the formula of [`budget`](super::budget). Code
    /// that does not await cannot be cut.
    pub deadline: Instant,
    /// Set when the host retries by a policy of its own, which [`App::check`](super::App::check) refuses in files.
    pub retry: Option<RetryContext>,
}

/// Where the host stands in its own, in-memory retries of this invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryContext {
    /// 0 on the first try.
    pub count: u32,
    /// `None`: for ever.
    pub max: Option<u32>,
}

impl Invocation {
    pub(super) fn new(function: Arc<str>, headers: &HeaderMap, received: Instant, budget: Duration) -> Self {
        let id = last_value(headers, INVOCATION_ID)
            .filter(|id| is_id(id))
            .map_or_else(|| Uuid::now_v7().to_string(), ToOwned::to_owned);
        Self {
            request_id: request_id(headers).unwrap_or(&id).to_owned(),
            id,
            function,
            host_version: last_value(headers, HOST_VERSION).filter(|v| is_id(v)).map(ToOwned::to_owned),
            trace_parent: last_value(headers, TRACE_PARENT)
                .filter(|v| is_trace_parent(v))
                .map(ToOwned::to_owned),
            received,
            deadline: received + budget,
            retry: None,
        }
    }

    /// Time left until the deadline; zero once it has passed.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// The caller's `x-request-id`, where it is fit to be logged and repeated: 8 to 128 letters, digits, `-`, `_` or `.`.
pub fn request_id(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get("x-request-id")?.to_str().ok()?;
    let fit = (8..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    fit.then_some(text)
}

/// The last value of a header that the host appends to: in forwarded mode a client's forged one stays in
/// front, as a line of its own or before a comma.
fn last_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let line = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    line.rsplit(',').next().map(str::trim)
}

/// What an id may hold, since it is logged and returned as a header.
fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+".contains(&b))
}

fn is_trace_parent(text: &str) -> bool {
    text.len() == 55
        && text.bytes().enumerate().all(|(i, b)| match i {
            2 | 35 | 52 => b == b'-',
            _ => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
        })
}

/// Whether a request is the host's own envelope call: its user agent and nothing else's, its invocation id,
/// and no trace of a proxy. The port is on loopback; this keeps a caller whose request the host merely passes
/// on from passing for the host.
pub(super) fn is_host_envelope(headers: &HeaderMap) -> bool {
    let mut agents = headers.get_all(http::header::USER_AGENT).iter();
    let host_agent = match (agents.next(), agents.next()) {
        (Some(agent), None) => agent
            .to_str()
            .ok()
            .and_then(|agent| agent.strip_prefix(HOST_AGENT))
            .is_some_and(|version| !version.contains([' ', ',', '(', '\t'])),
        _ => false,
    };
    host_agent
        && headers.contains_key(INVOCATION_ID)
        && !headers
            .keys()
            .any(|name| name.as_str().starts_with("x-forwarded-") || name.as_str() == "forwarded")
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn id(pairs: &[(&'static str, &'static str)]) -> String {
        Invocation::new("f".into(), &headers(pairs), Instant::now(), Duration::ZERO).id
    }

    #[test]
    fn the_last_invocation_id_is_the_hosts() {
        assert_eq!(id(&[(INVOCATION_ID, "forged"), (INVOCATION_ID, "real")]), "real");
        assert_eq!(id(&[(INVOCATION_ID, "forged, real")]), "real");
        assert_eq!(id(&[(INVOCATION_ID, "a, b"), (INVOCATION_ID, "c , real")]), "real");
    }

    #[test]
    fn an_id_unfit_for_a_log_is_replaced() {
        for bad in
            ["", "a b", "a\"b", "0123456789012345678901234567890123456789012345678901234567890123456789"]
        {
            let id = id(&[(INVOCATION_ID, bad)]);
            assert!(Uuid::parse_str(&id).is_ok(), "{id} for {bad}");
        }
        assert!(Uuid::parse_str(&id(&[])).is_ok());
    }

    #[test]
    fn only_a_well_formed_trace_parent_is_kept() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let of = |value| {
            Invocation::new("f".into(), &headers(&[(TRACE_PARENT, value)]), Instant::now(), Duration::ZERO)
        };
        assert_eq!(of(good).trace_parent.as_deref(), Some(good));
        assert_eq!(of("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01").trace_parent, None);
        assert_eq!(of("nonsense").trace_parent, None);
    }

    #[test]
    fn an_envelope_call_is_known_by_its_headers() {
        let host = ("user-agent", "Azure-Functions-Host/4.1052.200");
        let call = (INVOCATION_ID, "1");
        assert!(is_host_envelope(&headers(&[host, call])));
        for (why, pairs) in [
            ("no invocation id", vec![host]),
            ("no user agent", vec![call]),
            ("a client's user agent", vec![("user-agent", "curl/8.5"), call]),
            (
                "forwarded: the host's token follows the client's",
                vec![("user-agent", "curl/8.5 Azure-Functions-Host/4.1"), call],
            ),
            (
                "forwarded: forged token first",
                vec![("user-agent", "Azure-Functions-Host/4.1 Azure-Functions-Host/4.1"), call],
            ),
            ("two user agents", vec![host, host, call]),
            ("proxied", vec![host, call, ("x-forwarded-for", "10.0.0.1")]),
            ("proxied otherwise", vec![host, call, ("forwarded", "for=10.0.0.1")]),
        ] {
            assert!(!is_host_envelope(&headers(&pairs)), "{why}");
        }
    }
}
