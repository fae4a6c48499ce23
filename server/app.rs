//! What every route may need, made from configuration.

use std::sync::Arc;

use anyhow::anyhow;
use colloquy::access::{self, Access, AccessError, Admitted, JwksCache, Principal, RateLimits};
use colloquy::config::{Config, LlmConfig, Scope};
use colloquy::conversation::callbacks::Callbacks;
use colloquy::conversation::engine::{self, Engine, Limits, Parts};
use colloquy::database::{Client, Database, DatabaseError, TokenProvider};
use colloquy::jobs::retry::Backoff;
use colloquy::llm::spend::{Spend, system_clock, today};
use colloquy::openresponses::{ApiError, ErrorType};
use colloquy::operations::Operations;
use colloquy::respond::Route;
use colloquy::switches::Switchboard;
use colloquy::tasks::Tasks;
use colloquy::telemetry::metrics::{self, RuntimeLoad};
use colloquy::wiring;
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::edge::Connections;

/// The server's parts.
pub struct App {
    pub config: Config,
    pub database: Database,
    pub engine: Engine,
    pub operations: Operations,
    pub connections: Arc<Connections>,
    /// What serves connections; ends with them.
    pub tasks: Tasks,
    /// The process was told to stop.
    pub stopping: CancellationToken,
    load: RuntimeLoad,
    access: Access,
    limits: RateLimits,
}

impl App {
    /// Turns configuration into clients. Nothing here waits for a connection. `background`: what goes on until the
    /// last turn has ended; `serving`: what ends with the connections.
    pub fn new(
        config: Config,
        llm: LlmConfig,
        background: &Tasks,
        serving: Tasks,
        connections: Arc<Connections>,
        stopping: CancellationToken,
    ) -> anyhow::Result<Self> {
        let tokens = wiring::token_source(&config);
        let provider =
            tokens.clone().map(|tokens| Arc::new(wiring::DatabaseTokens(tokens)) as Arc<dyn TokenProvider>);
        let database = Database::new(wiring::database_settings(&config), provider)?;
        let storage = wiring::storage(&config, tokens.as_ref()).map_err(|error| anyhow!(error))?;
        let queue = |name: &str| storage.as_ref().map(|storage| storage.queue(name));
        let (spool, hints) = (queue(&config.queues.usage), queue(&config.queues.callbacks));
        let jobs = queue(&config.queues.jobs);
        let switches =
            Switchboard::new(storage.as_ref(), &config.storage.container, config.work.switch_cache);
        switches.keep_fresh(background);
        let coordination =
            wiring::coordination(&config, tokens.as_ref(), background).map_err(|error| anyhow!(error))?;
        let sealer = wiring::sealer(&config).map_err(|errors| {
            anyhow!(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        })?;
        let tracked = config.database.track_usage.then(|| database.clone());
        let spend = Spend::new(wiring::spend_settings(&config), tracked, spool, system_clock());
        spend.start(background);
        let limits = RateLimits::new(config.access.rates, Arc::clone(&coordination));
        limits.start(background);
        let jwks = Arc::new(JwksCache::new(config.storage.timeout));
        let (responding, unusable) = Route::all(&config.app.routes);
        if let Some(unusable) = unusable.first() {
            return Err(anyhow!("{unusable}"));
        }
        let parts = Parts {
            router: wiring::router(&config, llm, tokens).map_err(|error| anyhow!(error))?,
            database: database.clone(),
            spend,
            sealer,
            coordination,
            jobs,
            callbacks: Callbacks::new(config.app.targets.clone(), hints),
            switches: switches.clone(),
            features: config.app.features.clone(),
            environment: config.environment,
            responding,
        };
        let server = &config.server;
        let turns = Limits {
            lease: server.lease,
            log_patience: server.log_patience,
            disconnect_grace: server.disconnect_grace,
            unwatched_max: server.unwatched_max,
            unwatched_of_owner_max: server.unwatched_of_owner_max,
            turns_max: server.turns_max,
            local_max: server.socket_context_max,
            kept: server.kept,
            log_retention: config.work.log_retention,
            takes_over: true,
            background_wait: server.background_wait,
            background_retry: Backoff { base: config.work.retry_base, cap: config.work.outage_retry },
        };
        Ok(Self {
            access: Access::new(&config.access, Some(database.clone()), jwks),
            limits,
            engine: Engine::new(parts, turns, background.clone()),
            operations: Operations::new(&config, database.clone(), storage, switches),
            config,
            database,
            connections,
            tasks: serving,
            stopping,
            load: RuntimeLoad::start(),
        })
    }

    /// Who sent a request.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Principal>, ApiError> {
        self.verify(access::presented(headers)).await
    }

    /// Whose key or token it is.
    pub async fn verify(&self, presented: Option<&str>) -> Result<Arc<Principal>, ApiError> {
        let verified = match presented {
            Some(presented) => self.access.verify(presented, Timestamp::now()).await,
            None => Err(AccessError::Missing),
        };
        verified.map_err(|error| refused(&error))
    }

    /// 403 unless the caller may do that.
    pub fn require(&self, who: &Principal, scope: Scope) -> Result<(), ApiError> {
        if who.may(scope) {
            return Ok(());
        }
        Err(refused(&AccessError::Forbidden { key: who.key.clone(), scope }))
    }

    /// Operators are told if what was not there for this caller is another owner's.
    pub async fn look_whose(&self, presented: &str, id: &str) {
        // Whoever was let in a moment ago is remembered.
        if let Ok(who) = self.access.verify(presented, Timestamp::now()).await {
            self.engine.look_whose(&who.owner, id);
        }
    }

    /// Room for one more request of a caller, by its limits. `bytes` of body: what it may take is judged by it until
    /// it is known.
    pub fn admit(&self, who: &Principal, bytes: usize) -> Result<Admitted, ApiError> {
        const BYTES_PER_TOKEN: usize = 4;
        let tokens = u64::try_from(bytes.div_ceil(BYTES_PER_TOKEN)).unwrap_or(u64::MAX);
        self.limits.admit(who, tokens).map_err(ApiError::from)
    }

    /// A connection to the database.
    pub async fn client(&self) -> Result<Client, ApiError> {
        self.engine.client().await
    }

    /// What a caller is told of a failed database call.
    pub fn away(error: DatabaseError) -> ApiError {
        engine::away(error)
    }

    /// Sets the gauges.
    pub fn measure(&self) {
        metrics::connections(self.connections.open(), self.connections.limit);
        metrics::turns_open(self.engine.open_turns());
        self.engine.router().measure();
        metrics::budget_used_today(today());
        self.database.measure();
        self.load.measure();
    }
}

fn refused(error: &AccessError) -> ApiError {
    metrics::access_refused(error.code());
    tracing::warn!(code = error.code(), "a caller was refused");
    let (kind, code) = match error.status() {
        StatusCode::FORBIDDEN => (ErrorType::PermissionError, "insufficient_permissions"),
        StatusCode::UNAUTHORIZED => (ErrorType::AuthenticationError, "invalid_api_key"),
        _ => return ApiError::unavailable("access_unavailable", error.public_message()),
    };
    let refused = ApiError::new(error.status(), kind, code, error.public_message());
    if error.status() == StatusCode::UNAUTHORIZED {
        return refused.header(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    refused
}
