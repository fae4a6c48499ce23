//! Sends one HTTP request to an address somebody configured, with the guard of [`super::address`] in force.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;
use tracing::field::Empty;
use url::Url;

use super::address::{AddressRefused, AddressRule, GuardedResolver};
use crate::telemetry::trace;

/// Limits on one request.
#[derive(Clone, Copy, Debug)]
pub struct SenderLimits {
    /// From the start of the connection to the end of what is read of the answer (`CALLBACK_TIMEOUT`).
    pub timeout: Duration,
    /// How much of the answer is kept, in bytes (`CALLBACK_RESPONSE_MAX_BYTES`).
    pub response_max_bytes: usize,
}

/// Where a request may go.
#[derive(Clone, Debug)]
pub struct Destination {
    pub url: Url,
    pub rule: AddressRule,
    pub allow_http: bool,
}

/// What the other side answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    /// The beginning of the body, as text, as far as it came.
    pub response: String,
    /// What `Retry-After` asks for.
    pub retry_after: Option<Duration>,
}

/// No answer came. The text names no URL: a URL may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Refused(#[from] AddressRefused),
    #[error("the target's URL is plain http; use https, or set `allow_http` for it in colloquy.toml")]
    PlainHttp,
    #[error("no connection: {0}")]
    Connect(String),
    #[error("no answer within {0:?} (CALLBACK_TIMEOUT)")]
    Timeout(Duration),
    #[error("the connection broke before an answer came: {0}")]
    Broken(String),
    #[error("no HTTP client could be made: {0}")]
    Client(String),
}

impl SendError {
    /// Stable, for rows, logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(_) => "address_refused",
            Self::PlainHttp => "plain_http_refused",
            Self::Connect(_) => "connect_failed",
            Self::Timeout(_) => "timeout",
            Self::Broken(_) => "connection_broken",
            Self::Client(_) => "client_failed",
        }
    }
}

/// What the receiver of a request, or the way to it, is to blame for: no answer, or one that says so.
pub fn blame(result: &Result<Answer, SendError>) -> Option<&'static str> {
    match result {
        Ok(answer) if answer.status.is_server_error() => Some("server_error"),
        Ok(_) | Err(SendError::Refused(_) | SendError::PlainHttp | SendError::Client(_)) => None,
        Err(error @ (SendError::Connect(_) | SendError::Timeout(_) | SendError::Broken(_))) => {
            Some(error.code())
        }
    }
}

/// Sends requests; keeps connections open per address rule.
#[derive(Debug)]
pub struct Sender {
    limits: SenderLimits,
    clients: Mutex<HashMap<AddressRule, reqwest::Client>>,
}

impl Sender {
    pub fn new(limits: SenderLimits) -> Arc<Self> {
        Arc::new(Self { limits, clients: Mutex::default() })
    }

    /// Posts JSON, with the present trace. Redirects are answers like any other, and no proxy is used.
    pub async fn post(&self, to: &Destination, headers: HeaderMap, body: Bytes) -> Result<Answer, SendError> {
        to.rule.check_literal(&to.url)?;
        if to.url.scheme() != "https" && !to.allow_http {
            return Err(SendError::PlainHttp);
        }
        let client = self.client(&to.rule)?;
        let deadline = Instant::now() + self.limits.timeout;
        let span = tracing::info_span!(
            "http.post",
            otel.name = "POST",
            otel.kind = "client",
            otel.status_code = Empty,
            http.request.method = "POST",
            http.response.status_code = Empty,
            server.address = to.url.host_str(),
            server.port = to.url.port_or_known_default(),
            error.type = Empty,
        );
        let request = client
            .post(to.url.clone())
            .headers(headers)
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("traceparent", trace::of(&span))
            .body(body);
        let answer = async {
            let response = match timeout_at(deadline, request.send()).await {
                Ok(sent) => sent.map_err(|error| self.failure(&error))?,
                Err(_) => return Err(SendError::Timeout(self.limits.timeout)),
            };
            let status = response.status();
            let retry_after = response
                .headers()
                .get(header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| retry_after(value, Timestamp::now()));
            Ok(Answer { status, response: self.beginning(response, deadline).await, retry_after })
        };
        let result = answer.instrument(span.clone()).await;
        match &result {
            Ok(answer) => {
                span.record("http.response.status_code", answer.status.as_u16());
                if !answer.status.is_success() {
                    span.record("error.type", answer.status.as_str()).record("otel.status_code", "ERROR");
                }
            }
            Err(error) => {
                span.record("error.type", error.code()).record("otel.status_code", "ERROR");
            }
        }
        result
    }

    /// The beginning of the body, as far as it comes. The status has decided already: an accepted request does not become
    /// a refused one because its body is slow or breaks off.
    async fn beginning(&self, mut response: reqwest::Response, deadline: Instant) -> String {
        let limit = self.limits.response_max_bytes;
        let mut kept = Vec::new();
        while kept.len() < limit
            && let Ok(Ok(Some(chunk))) = timeout_at(deadline, response.chunk()).await
        {
            kept.extend_from_slice(&chunk[..chunk.len().min(limit - kept.len())]);
        }
        // PostgreSQL takes no NUL in text.
        String::from_utf8_lossy(&kept).replace('\0', "\u{fffd}")
    }

    fn client(&self, rule: &AddressRule) -> Result<reqwest::Client, SendError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(rule) {
            return Ok(client.clone());
        }
        let client = reqwest::Client::builder()
            .user_agent(concat!("Colloquy/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(GuardedResolver::new(rule.clone())))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(self.limits.timeout)
            .pool_max_idle_per_host(4)
            .build()
            .map_err(|error| SendError::Client(error.without_url().to_string()))?;
        clients.insert(rule.clone(), client.clone());
        Ok(client)
    }

    fn failure(&self, error: &reqwest::Error) -> SendError {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        let mut deepest = String::new();
        while let Some(link) = cause {
            if let Some(refused) = link.downcast_ref::<AddressRefused>() {
                return refused.clone().into();
            }
            deepest = link.to_string();
            cause = link.source();
        }
        if error.is_timeout() {
            SendError::Timeout(self.limits.timeout)
        } else if error.is_connect() {
            SendError::Connect(deepest)
        } else {
            SendError::Broken(deepest)
        }
    }
}

/// `Retry-After` as a delay: seconds, or a date (RFC 9110 §10.2.3). More seconds than can be counted are still many.
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let text = value.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let at = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
    Some(at.duration_since(now).try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sat, 21 Nov 2026 12:01:00 GMT", now), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("Sat, 21 Nov 2026 11:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("99999999999999999999", now), Some(Duration::from_secs(u64::MAX)));
        for nothing in ["soon", "", "-1", "+5", "1.5"] {
            assert_eq!(retry_after(nothing, now), None, "{nothing}");
        }
    }

    /// What comes of an answer whose head and a part of whose body come, and then nothing or the end.
    async fn cut_off(status: &'static str, held_open: bool) -> Result<Answer, SendError> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = Destination {
            url: format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap(),
            rule: AddressRule::new(&["127.0.0.0/8".parse().unwrap()]),
            allow_http: true,
        };
        let sender = Sender::new(SenderLimits { timeout: Duration::from_secs(1), response_max_bytes: 64 });
        let consumer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: 1000\r\n\r\nthe beginn");
            stream.write_all(head.as_bytes()).await.unwrap();
            if held_open {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            answer = sender.post(&to, HeaderMap::new(), Bytes::new()) => answer,
            () = async { consumer.await; std::future::pending().await } => unreachable!(),
        }
    }

    #[tokio::test]
    async fn a_status_counts_whatever_becomes_of_its_body() {
        for (status, code) in [("200 OK", 200), ("410 Gone", 410), ("503 Busy", 503)] {
            for held_open in [false, true] {
                let answer = cut_off(status, held_open).await.unwrap();
                assert_eq!((answer.status.as_u16(), answer.response.as_str()), (code, "the beginn"));
            }
        }
    }

    #[tokio::test]
    async fn a_private_address_is_refused_by_name_and_by_number_before_anything_is_sent() {
        let sender = Sender::new(SenderLimits { timeout: Duration::from_secs(5), response_max_bytes: 64 });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "0x7f.1"] {
            let to = Destination {
                url: format!("http://{host}:{port}/").parse().unwrap(),
                rule: AddressRule::default(),
                allow_http: true,
            };
            let error = sender.post(&to, HeaderMap::new(), Bytes::new()).await.unwrap_err();
            assert_eq!(error.code(), "address_refused", "{host}: {error}");
        }
        let accepted = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(accepted.is_err(), "nothing may reach the listener");
    }
}
