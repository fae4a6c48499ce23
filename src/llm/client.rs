//! The HTTP client of all deployments.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use jiff::Timestamp;
use url::Url;

use super::error::{ErrorClass, LlmError, from_answer};

/// Idle connections are kept for the next turn, which saves it the handshake. App Service's outbound NAT forgets
/// connections after 4 minutes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long the body of an error may take.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Made on first use: it reads root certificates.
#[derive(Debug)]
pub(crate) struct Client {
    connect_timeout: Duration,
    body_max_bytes: usize,
    client: OnceLock<Result<reqwest::Client, String>>,
}

impl Client {
    /// `body_max_bytes`: of an answer that is no stream.
    pub fn new(connect_timeout: Duration, body_max_bytes: usize) -> Self {
        Self { connect_timeout, body_max_bytes, client: OnceLock::new() }
    }

    /// No proxy: only `config` reads the environment. No redirects: a key must not follow one. HTTP/2 where TLS
    /// agrees on it.
    fn get(&self) -> Result<&reqwest::Client, LlmError> {
        let client = self.client.get_or_init(|| {
            reqwest::Client::builder()
                .user_agent(concat!("Colloquy/", env!("CARGO_PKG_VERSION")))
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(self.connect_timeout)
                .tcp_nodelay(true)
                .tcp_keepalive(Duration::from_secs(30))
                .http2_adaptive_window(true)
                .http2_keep_alive_interval(Duration::from_secs(20))
                .http2_keep_alive_timeout(Duration::from_secs(10))
                .pool_idle_timeout(IDLE_TIMEOUT)
                .build()
                .map_err(|error| error.without_url().to_string())
        });
        client.as_ref().map_err(|reason| {
            tracing::error!(
                code = "llm.no_client",
                reason,
                "no HTTP client for model providers could be made"
            );
            LlmError::new(ErrorClass::Connect)
        })
    }

    /// Posts JSON; the answer's head, if it is a success, else what the error body says. Sets no limit of time.
    pub async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<reqwest::Response, LlmError> {
        let request = self.get()?.post(url.clone()).headers(headers);
        let request = request
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ACCEPT, HeaderValue::from_static("text/event-stream, application/json"))
            .body(body);
        let response = request.send().await.map_err(broken)?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(response);
        }
        let headers = response.headers().clone();
        let body = tokio::time::timeout(ERROR_BODY_TIMEOUT, limited(response, self.body_max_bytes)).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        Err(from_answer(status, &headers, &body, Timestamp::now()))
    }
}

/// A body up to a limit.
pub(crate) async fn limited(mut response: reqwest::Response, most: usize) -> Result<Vec<u8>, LlmError> {
    let mut kept = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(interrupted)? {
        if kept.len() + chunk.len() > most {
            return Err(LlmError::new(ErrorClass::Protocol).charged(true));
        }
        kept.extend_from_slice(&chunk);
    }
    Ok(kept)
}

/// No answer came. What was sent may have been worked on, unless there was no connection to send it on.
fn broken(error: reqwest::Error) -> LlmError {
    LlmError::new(ErrorClass::Connect).charged(!error.is_connect())
}

/// An answer broke off.
pub(crate) fn interrupted(_: reqwest::Error) -> LlmError {
    LlmError::new(ErrorClass::Interrupted).charged(true)
}
