//! Sends envelopes to the handler and settles what becomes of each invocation.

use std::time::{Duration, Instant};

use http::header;
use thiserror::Error;
use tokio::time::timeout;

use crate::answer::{self, Answer, AnswerError};
use crate::functions::Function;
use crate::handler::{Handler, NotReady};
use crate::{log, timespan};

/// The host version that the contract's newer parts describe.
pub const HOST_VERSION: &str = "4.1052.200";
pub const INVOCATION_ID: &str = "x-azure-functions-invocationid";
pub const HOST_VERSION_HEADER: &str = "x-azure-functions-hostversion";

/// After functionTimeout the host lets the invocation finish for this long before it kills the process.
pub const TIMEOUT_GRACE: Duration = Duration::from_secs(5);
/// What the host's HTTP client waits beyond functionTimeout.
const CLIENT_MARGIN: Duration = Duration::from_secs(60);

/// The User-Agent of everything the host itself sends.
pub fn user_agent() -> String {
    format!("Azure-Functions-Host/{HOST_VERSION}")
}

/// A new invocation id.
pub fn invocation_id() -> String {
    uuid::Uuid::from_bytes(rand::random()).to_string()
}

#[derive(Debug, Error)]
pub enum InvocationError {
    #[error(transparent)]
    NotReady(#[from] NotReady),
    #[error("cannot reach the handler, or it broke off: {0}")]
    Connection(String),
    #[error("Timeout value of {} exceeded by function", timespan::format(*.0))]
    Timeout(Duration),
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error("its outputs could not be written: {0}")]
    Outputs(String),
}

/// The handler as the one place to send invocations to; cheap to clone.
#[derive(Clone)]
pub struct Invoker {
    handler: Handler,
    client: reqwest::Client,
    function_timeout: Option<Duration>,
}

impl Invoker {
    pub fn new(handler: Handler, function_timeout: Option<Duration>) -> reqwest::Result<Self> {
        let mut builder = reqwest::Client::builder().no_proxy().http1_only().user_agent(user_agent());
        if let Some(limit) = function_timeout {
            builder = builder.timeout(limit + CLIENT_MARGIN);
        }
        Ok(Invoker { handler, client: builder.build()?, function_timeout })
    }

    pub fn handler(&self) -> &Handler {
        &self.handler
    }

    /// `None` is unlimited.
    pub fn function_timeout(&self) -> Option<Duration> {
        self.function_timeout
    }

    /// Posts one envelope, logs its course, and returns what the handler answered.
    pub async fn invoke(
        &self,
        function: &Function,
        reason: &str,
        envelope: Vec<u8>,
    ) -> Result<Answer, InvocationError> {
        let id = invocation_id();
        let name = &function.name;
        log::information(format!("Executing 'Functions.{name}' (Reason='{reason}', Id={id})"));
        let started = Instant::now();
        let result = self.attempt(name, &id, envelope).await;
        let took = started.elapsed().as_millis();
        match &result {
            Ok(answer) => {
                for line in &answer.logs {
                    log::information(format!("Functions.{name} {id}: {line}"));
                }
                log::information(format!(
                    "Executed 'Functions.{name}' (Succeeded, Id={id}, Duration={took}ms)"
                ));
            }
            Err(cause) => log::error(format!(
                "Executed 'Functions.{name}' (Failed, Id={id}, Duration={took}ms): {cause}"
            )),
        }
        result
    }

    async fn attempt(&self, function: &str, id: &str, envelope: Vec<u8>) -> Result<Answer, InvocationError> {
        let generation = self.handler.ready().await?;
        let exchange = self.exchange(function, id, envelope);
        let Some(limit) = self.function_timeout else { return exchange.await };
        tokio::pin!(exchange);
        if let Ok(result) = timeout(limit, &mut exchange).await {
            return result;
        }
        // Too late either way; the process is spared only if the invocation ends within the grace time.
        if timeout(TIMEOUT_GRACE, exchange).await.is_err() {
            self.time_out(generation, function, id, limit);
        }
        Err(InvocationError::Timeout(limit))
    }

    /// One invocation over functionTimeout kills the process, and with it all others.
    pub fn time_out(&self, generation: u64, function: &str, id: &str, limit: Duration) {
        let limit = timespan::format(limit);
        self.handler.restart(generation, format!("function '{function}' (Id={id}) exceeded functionTimeout {limit}; every other invocation is killed with it"));
    }

    async fn exchange(&self, function: &str, id: &str, envelope: Vec<u8>) -> Result<Answer, InvocationError> {
        let response = self
            .client
            .post(format!("http://{}/{function}", self.handler.address()))
            .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
            .header(INVOCATION_ID, id)
            .header(HOST_VERSION_HEADER, HOST_VERSION)
            .body(envelope)
            .send()
            .await
            .map_err(broken)?;
        let status = response.status();
        let content_type = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let body = response.bytes().await.map_err(broken)?;
        Ok(answer::read(status, content_type.as_deref(), &body)?)
    }
}

/// The whole chain of causes: the first of them says no more than "error sending request".
fn broken(cause: reqwest::Error) -> InvocationError {
    let mut text = cause.to_string();
    let mut source = std::error::Error::source(&cause);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    InvocationError::Connection(text)
}
