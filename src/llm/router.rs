//! From what callers name as `model` to an answer that has begun: aliases, deployments in order, failover.

mod attempts;
mod call;
mod candidates;
mod embeddings;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ModelRequest;
use super::breaker::BreakerState;
use super::client::Client;
use super::deployment::Deployment;
use super::error::LlmError;
use super::fields;
use super::prices::Price;
use super::quota::sharing::Sharing;
use super::retry::RetryBudget;
use super::stream::OpenStream;
use crate::azure::TokenSource;
use crate::config::LlmConfig;
use crate::config::app::{AppConfig, ModelConfig};
use crate::coordination::Coordination;
use crate::openresponses::{ApiError, CreateResponse, excerpt};
use crate::switches::Switchboard;
use crate::tasks::Tasks;

pub(super) use call::tell_error;
pub use embeddings::{Embedded, Embeddings};

/// All models of a process. Connects to nothing until it is asked for an answer.
#[derive(Debug)]
pub struct Router {
    aliases: BTreeMap<String, Arc<Alias>>,
    deployments: Vec<Arc<Deployment>>,
    config: LlmConfig,
    client: Client,
    tokens: Option<TokenSource>,
    budget: RetryBudget,
    /// Deployments that an operator has stopped.
    switches: Switchboard,
}

/// What callers name as `model`.
#[derive(Debug)]
pub struct Alias {
    name: String,
    config: ModelConfig,
    deployments: Vec<Arc<Deployment>>,
}

/// How long, under which name, and until when.
#[derive(Clone, Debug, Default)]
pub struct OpenLimits {
    /// Until when an answer must have begun. Default, and at the latest: `LLM_OPEN_DEADLINE` or the alias's
    /// `first_event_seconds`, whichever is longer, from now.
    pub deadline: Option<Instant>,
    /// The id of the first attempt, where it was written down before.
    pub first_attempt: Option<Uuid>,
    /// Asked before every further attempt.
    pub next_attempt: Option<NextAttempt>,
    /// Awaited before a request goes out, each time.
    pub before_sending: Option<BeforeSending>,
    /// Ends the waiting: dropping the future would lose the reports of attempts that may have been charged.
    pub cancel: CancellationToken,
}

/// Told of a failed attempt and the id and deployment of the one that is to follow, before that is made: so that a process
/// that dies in it leaves a row for each. Says whether there is money for it.
#[derive(Clone)]
pub struct NextAttempt(Arc<Asked>);

type Asked = dyn Fn(&AttemptReport, &AttemptReport) -> BoxFuture<'static, bool> + Send + Sync;

impl NextAttempt {
    /// `ask` gets the attempt that failed and the one that is to follow.
    pub fn new(
        ask: impl Fn(&AttemptReport, &AttemptReport) -> BoxFuture<'static, bool> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(ask))
    }

    fn ask(&self, failed: &AttemptReport, next: &AttemptReport) -> BoxFuture<'static, bool> {
        (self.0)(failed, next)
    }
}

impl std::fmt::Debug for NextAttempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NextAttempt")
    }
}

/// What has to be done before a provider is asked: a process that dies from then on may have to pay.
#[derive(Clone)]
pub struct BeforeSending(Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>);

impl BeforeSending {
    /// `does` may be awaited more than once: a request may be sent again.
    pub fn new(does: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(does))
    }

    fn done(&self) -> BoxFuture<'static, ()> {
        (self.0)()
    }
}

impl std::fmt::Debug for BeforeSending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BeforeSending")
    }
}

/// An answer that has begun, or why there is none, and every attempt that was made.
#[derive(Debug)]
pub struct Opened {
    pub result: Result<OpenStream, LlmError>,
    /// In order; the last is the one that led to the result.
    pub attempts: Vec<AttemptReport>,
}

/// One call to a provider.
#[derive(Clone, Debug)]
pub struct AttemptReport {
    /// UUIDv7; the id of the usage row.
    pub id: Uuid,
    pub deployment: Arc<str>,
    /// The provider's name for the model.
    pub model: Arc<str>,
    /// OpenTelemetry's `gen_ai.provider.name`.
    pub provider: &'static str,
    pub price: Price,
    pub started: Timestamp,
    /// `begun`, or the error's code.
    pub outcome: &'static str,
    /// Whether it may cost money although it failed. Of one that has begun, the stream will tell.
    pub charged: bool,
    /// Input tokens, estimated.
    pub estimated_input: u64,
}

/// How a deployment stands, for health reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentHealth {
    pub name: Arc<str>,
    pub provider: &'static str,
    pub breaker: BreakerState,
}

impl Router {
    /// `tokens` is needed by deployments with `auth = "entra"`. `Err` names a key of `colloquy.toml`; a checked
    /// configuration has none.
    pub fn new(app: &AppConfig, config: LlmConfig, tokens: Option<TokenSource>) -> Result<Self, String> {
        let mut deployments = BTreeMap::new();
        for (name, deployment) in &app.deployments {
            deployments.insert(name.as_str(), Deployment::new(name, deployment, &config)?);
        }
        let mut aliases = BTreeMap::new();
        for (name, model) in &app.models {
            let of_alias = model.deployments.iter().map(|deployment| {
                let found = deployments.get(deployment.as_str()).cloned();
                found.ok_or_else(|| {
                    format!("models.{name}.deployments: there is no [deployments.{deployment}]")
                })
            });
            let alias = Alias {
                name: name.clone(),
                config: model.clone(),
                deployments: of_alias.collect::<Result<_, _>>()?,
            };
            aliases.insert(name.clone(), Arc::new(alias));
        }
        Ok(Self {
            aliases,
            deployments: deployments.into_values().collect(),
            client: Client::new(config.connect_timeout, config.event_max_bytes),
            budget: RetryBudget::new(&config),
            config,
            tokens,
            switches: Switchboard::empty(),
        })
    }

    /// The same router, passing over deployments that are stopped.
    #[must_use]
    pub fn heeding(self, switches: Switchboard) -> Self {
        Self { switches, ..self }
    }

    /// Keeps the deployments' limits together with other processes, until `tasks` stop. Without others each process
    /// keeps to its share (`LLM_QUOTA_SHARE`).
    pub fn share_quotas(&self, coordination: &Arc<dyn Coordination>, tasks: &Tasks) {
        if coordination.reaches_others() {
            let quotas = self.deployments.iter().map(|of| (Arc::clone(&of.name), Arc::clone(&of.quota)));
            let share = f64::from(self.config.quota_share) / 100.0;
            Sharing::new(quotas.collect(), Arc::clone(coordination), share).start(tasks);
        }
    }

    /// The model that callers call so.
    pub fn alias(&self, name: &str) -> Option<&Arc<Alias>> {
        self.aliases.get(name)
    }

    /// By name.
    pub fn aliases(&self) -> impl Iterator<Item = &Arc<Alias>> {
        self.aliases.values()
    }

    /// The alias that writes summaries for this one: `small`, or itself.
    pub fn small_of<'r>(&'r self, alias: &'r Arc<Alias>) -> &'r Arc<Alias> {
        alias.config.small.as_ref().and_then(|small| self.aliases.get(small)).unwrap_or(alias)
    }

    /// By name.
    pub fn health(&self) -> Vec<DeploymentHealth> {
        let each = self.deployments.iter();
        each.map(|deployment| DeploymentHealth {
            name: Arc::clone(&deployment.name),
            provider: deployment.provider,
            breaker: deployment.breaker.state(),
        })
        .collect()
    }

    /// Sets the gauges of breakers.
    pub fn measure(&self) {
        for deployment in &self.deployments {
            deployment.breaker.measure();
        }
    }

    /// Sets the gauges of breakers for a router that asks nobody any more: what none knows stands in no alert.
    pub fn retire(&self) {
        for deployment in &self.deployments {
            deployment.breaker.retire();
        }
    }

    /// An answer that has begun. Tries the alias's deployments in order; if all of them fail in a way that may pass,
    /// waits and tries again, `LLM_RETRIES` times, all under one deadline and the process's budget of retries. Nothing
    /// is retried once an event has come.
    pub async fn open(&self, alias: &Alias, request: &ModelRequest, limits: OpenLimits) -> Opened {
        let mut attempts = Vec::new();
        let result = Box::pin(self.begin(alias, request, &limits, &mut attempts)).await;
        Opened { result, attempts }
    }
}

/// 404: no alias of that name.
pub fn no_such_model(name: &str) -> ApiError {
    let message =
        format!("The model '{}' does not exist. GET /v1/models lists those there are.", excerpt(name));
    let mut error = ApiError::invalid("model_not_found", "model", message);
    error.status = http::StatusCode::NOT_FOUND;
    error
}

impl Alias {
    /// As callers call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As `colloquy.toml` has it.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Names of the deployments, in order of preference.
    pub fn deployments(&self) -> impl Iterator<Item = &Arc<str>> {
        self.deployments.iter().map(|deployment| &deployment.name)
    }

    /// Input and output together, in tokens: the smallest of its deployments, since any of them may answer.
    pub fn context_window(&self) -> u64 {
        self.deployments.iter().map(|deployment| deployment.config.context_window).min().unwrap_or(0)
    }

    /// Longest answer, in tokens, likewise.
    pub fn max_output_tokens(&self) -> u32 {
        self.deployments.iter().map(|deployment| deployment.config.max_output_tokens).min().unwrap_or(0)
    }

    /// The price of each class, at the dearest deployment: what a reservation must hold.
    pub fn price(&self) -> Price {
        self.deployments.iter().map(|deployment| deployment.price).fold(Price::default(), |most, each| {
            Price {
                input: most.input.max(each.input),
                cached_input: most.cached_input.max(each.cached_input),
                cache_write: most.cache_write.max(each.cache_write),
                output: most.output.max(each.output),
            }
        })
    }

    /// What `GET /v1/models` says.
    pub fn owned_by(&self) -> &str {
        let first = || self.deployments.first().map_or("", |deployment| deployment.provider);
        self.config.owned_by.as_deref().unwrap_or_else(first)
    }

    /// Whether any deployment answers embeddings requests.
    pub fn embeds(&self) -> bool {
        self.deployments.iter().any(|deployment| deployment.embeds())
    }

    /// Whether at least one deployment takes every field of the request; else the first one's refusal.
    pub fn check(&self, params: &CreateResponse) -> Result<(), ApiError> {
        let mut refusal = Ok(());
        for deployment in &self.deployments {
            match fields::check(params, deployment.config.provider) {
                Ok(()) => return Ok(()),
                Err(error) if refusal.is_ok() => refusal = Err(error),
                Err(_) => {}
            }
        }
        refusal
    }
}
