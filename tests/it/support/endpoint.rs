//! The HTTP side of an app, whether `devhost` stands before it or not.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::sign_stripe;

/// Where an app listens, with the secrets it was given.
pub struct Endpoint {
    port: u16,
    client: reqwest::Client,
    settings: BTreeMap<String, String>,
}

impl Endpoint {
    pub fn new(port: u16, settings: BTreeMap<String, String>) -> Self {
        // Without redirects and proxies: what the app answers is what a test sees.
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
        let client = client.timeout(Duration::from_secs(30)).build().expect("a client");
        Self { port, client, settings }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The address of a path such as `/api/health`.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        let answer = self.client.get(self.url(path)).send().await;
        answer.unwrap_or_else(|error| panic!("GET {path}: {error:?}"))
    }

    /// A delivery to `/api/webhooks/{source}`, with these headers and `application/json`.
    pub async fn deliver(
        &self,
        source: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> reqwest::Response {
        let answer = self.try_deliver(source, headers, body).await;
        answer.unwrap_or_else(|error| panic!("POST to {source}: {error:?}"))
    }

    /// The same where the app may be down.
    pub async fn try_deliver(
        &self,
        source: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> reqwest::Result<reqwest::Response> {
        let mut request = self.client.post(self.url(&format!("/api/webhooks/{source}"))).body(body);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await
    }

    /// An event signed as Stripe signs it, now.
    pub async fn deliver_stripe(&self, body: &str) -> reqwest::Response {
        let signature = self.stripe_signature(body);
        self.deliver("stripe", &[("stripe-signature", &signature)], body.to_owned()).await
    }

    /// The value of `stripe-signature` for a body, made now.
    pub fn stripe_signature(&self, body: &str) -> String {
        self.stripe_signature_at(jiff::Timestamp::now().as_second(), body)
    }

    /// The same, made at a Unix time in seconds.
    pub fn stripe_signature_at(&self, at: i64, body: &str) -> String {
        sign_stripe(self.setting("WEBHOOK_SECRET_STRIPE"), at, body.as_bytes())
    }

    /// The value of a setting the app was given.
    pub fn setting(&self, name: &str) -> &str {
        self.settings.get(name).unwrap_or_else(|| panic!("the app has no setting {name}"))
    }

    /// Bytes on a connection of their own, and everything that came back until its end: for requests that no client
    /// would send. Say `connection: close`.
    pub async fn raw(&self, request: &str) -> String {
        let exchange = async {
            let mut connection = TcpStream::connect(("127.0.0.1", self.port)).await.expect("a connection");
            connection.write_all(request.as_bytes()).await.expect("a request");
            let mut answer = Vec::new();
            connection.read_to_end(&mut answer).await.expect("an answer");
            String::from_utf8_lossy(&answer).into_owned()
        };
        tokio::time::timeout(Duration::from_secs(10), exchange).await.expect("an answer within 10 s")
    }
}
