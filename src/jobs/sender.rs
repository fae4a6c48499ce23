//! Sends one HTTP request to an address somebody configured, with the guard of [`super::address`] in force.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use tracing::Instrument as _;
use tracing::field::Empty;
use url::Url;

use super::address::{AddressRefused, AddressRule, GuardedResolver};
use crate::telemetry::trace;

/// Limits on one request.
#[derive(Clone, Copy, Debug)]
pub struct SenderLimits {
    /// From the start of the connection to the end of the answer (`CALLBACK_TIMEOUT`).
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
    /// The beginning of the body, as text.
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
    #[error("no complete answer within {0:?} (CALLBACK_TIMEOUT)")]
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
        let started = Instant::now();
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
            let response = request.send().await.map_err(|error| self.failure(&error))?;
            let status = response.status();
            let retry_after = response
                .headers()
                .get(header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| retry_after(value, Timestamp::now()));
            let response = self.beginning(response).await?;
            Ok(Answer { status, response, retry_after })
        };
        let result = match tokio::time::timeout(self.limits.timeout, answer.instrument(span.clone())).await {
            Ok(answer) => answer,
            Err(_) => {
                tracing::debug!(elapsed_ms = started.elapsed().as_millis(), "gave up on an answer");
                Err(SendError::Timeout(self.limits.timeout))
            }
        };
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

    async fn beginning(&self, mut response: reqwest::Response) -> Result<String, SendError> {
        let limit = self.limits.response_max_bytes;
        let mut kept = Vec::new();
        while kept.len() < limit {
            match response.chunk().await.map_err(|error| self.failure(&error))? {
                Some(chunk) => kept.extend_from_slice(&chunk[..chunk.len().min(limit - kept.len())]),
                None => break,
            }
        }
        // PostgreSQL takes no NUL in text.
        Ok(String::from_utf8_lossy(&kept).replace('\0', "\u{fffd}"))
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

/// `Retry-After` as a delay: seconds, or a date (RFC 9110 §10.2.3).
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
    Some(at.duration_since(now).try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sat, 21 Nov 2026 12:01:00 GMT", now), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("Sat, 21 Nov 2026 11:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
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
