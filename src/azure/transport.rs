//! The HTTP client underneath the SDK: built on first use, shared by all queues and containers of an account,
//! and the place where a request gets its shared access signature, out of the SDK's sight.

use std::error::Error as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use azure_core::error::{Error, ErrorKind};
use azure_core::http::headers::{HeaderName, HeaderValue, Headers};
use azure_core::http::{AsyncRawResponse, Body, HttpClient, Method, Request};
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use url::Url;

use super::sas::Signer;

/// A connection that takes longer is given up; the call's own time may be shorter.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Idle connections are kept for the next call, which saves it the handshake.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Without TLS the server is Azurite, whose Node closes idle connections after 5 s: we close them before, so
/// that it does not do so under a request.
const IDLE_TIMEOUT_PLAIN: Duration = Duration::from_secs(4);

/// An HTTP client that exists once it is needed.
#[derive(Debug)]
pub(super) struct LazyClient {
    /// Reading the root certificates takes milliseconds and memory, so plain-HTTP endpoints do without.
    tls: bool,
    client: OnceLock<Result<reqwest::Client, String>>,
}

impl LazyClient {
    pub(super) fn new(tls: bool) -> Self {
        Self { tls, client: OnceLock::new() }
    }

    /// The client, or why there is none (no usable root certificates).
    pub(super) fn get(&self) -> Result<&reqwest::Client, &str> {
        let client = self.client.get_or_init(|| build(self.tls).map_err(|error| describe(&error)));
        client.as_ref().map_err(String::as_str)
    }
}

/// No proxy: only `config` reads the environment, and a metadata or loopback address must not go through one.
/// No redirects: the services send none, and a token must not follow one.
fn build(tls: bool) -> reqwest::Result<reqwest::Client> {
    let builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(if tls { IDLE_TIMEOUT } else { IDLE_TIMEOUT_PLAIN })
        .http1_only();
    if tls { builder.https_only(true).build() } else { builder.tls_certs_only([]).build() }
}

/// The SDK's transport.
#[derive(Debug)]
pub(super) struct SignedTransport {
    client: LazyClient,
    signer: Option<Signer>,
}

impl SignedTransport {
    pub(super) fn new(tls: bool, signer: Option<Signer>) -> Self {
        Self { client: LazyClient::new(tls), signer }
    }

    fn signed(&self, url: &Url) -> Url {
        let mut url = url.clone();
        if let Some(signer) = &self.signer {
            let signature = signer.query(Timestamp::now());
            let query = match url.query() {
                Some(query) if !query.is_empty() => format!("{query}&{signature}"),
                _ => signature.to_string(),
            };
            url.set_query(Some(&query));
        }
        url
    }

    async fn execute(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let client = self
            .client
            .get()
            .map_err(|reason| Error::with_message(ErrorKind::Connection, reason.to_owned()))?;
        let mut builder = client.request(method(request.method())?, self.signed(request.url()));
        for (name, value) in request.headers().iter() {
            builder = builder.header(name.as_str(), value.as_str());
        }
        builder = match request.body() {
            Body::Bytes(bytes) => builder.body(bytes.clone()),
            Body::SeekableStream(stream) => builder.body(reqwest::Body::wrap_stream(stream.clone())),
        };
        let response = builder.send().await.map_err(broken)?;
        let status = response.status().as_u16().into();
        let headers = headers(response.headers());
        let body = response.bytes_stream().map_err(broken);
        Ok(AsyncRawResponse::new(status, headers, Box::pin(body)))
    }
}

// What `#[async_trait]` writes, by hand, to do without the dependency.
impl HttpClient for SignedTransport {
    fn execute_request<'transport, 'request, 'call>(
        &'transport self,
        request: &'request Request,
    ) -> Pin<Box<dyn Future<Output = azure_core::Result<AsyncRawResponse>> + Send + 'call>>
    where
        'transport: 'call,
        'request: 'call,
        Self: 'call,
    {
        Box::pin(self.execute(request))
    }
}

fn method(method: Method) -> azure_core::Result<reqwest::Method> {
    Ok(match method {
        Method::Delete => reqwest::Method::DELETE,
        Method::Get => reqwest::Method::GET,
        Method::Head => reqwest::Method::HEAD,
        Method::Patch => reqwest::Method::PATCH,
        Method::Post => reqwest::Method::POST,
        Method::Put => reqwest::Method::PUT,
        _ => return Err(Error::with_message(ErrorKind::Other, "unknown method")),
    })
}

fn headers(map: &reqwest::header::HeaderMap) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in map {
        if let Ok(value) = value.to_str() {
            headers.insert(HeaderName::from(name.as_str().to_owned()), HeaderValue::from(value.to_owned()));
        }
    }
    headers
}

/// reqwest's error carries the URL, and ours carry the signature: only its description goes on.
fn broken(error: reqwest::Error) -> Error {
    let kind = if error.is_connect() { ErrorKind::Connection } else { ErrorKind::Io };
    Error::with_message(kind, describe(&error.without_url()))
}

/// The innermost cause, which is what tells an operator something ("Connection refused").
pub(super) fn describe(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no connection in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The description of an error made by [`broken`]. The SDK's own Io and Connection errors say less, but
/// nothing secret either: it never sees the signature.
pub(super) fn reason_of(error: &Error) -> String {
    let mut reason = error.to_string();
    if let Some(source) = error.source() {
        reason = source.to_string();
    }
    if reason.contains("://") { "connection failed".to_owned() } else { reason }
}
