//! What every route may need, made from configuration.

use std::sync::Arc;
use std::time::Duration;

use colloquy::access::{AccessError, ApiKeys, Principal};
use colloquy::config::{Config, LlmConfig, Scope};
use colloquy::conversation::engine::{self, Engine, Limits};
use colloquy::database::{Client, Database, DatabaseError, TokenProvider};
use colloquy::openresponses::{ApiError, ErrorType};
use colloquy::tasks::Tasks;
use colloquy::telemetry::metrics;
use colloquy::wiring;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio_util::sync::CancellationToken;

use crate::edge::Connections;

/// The server's parts.
pub struct App {
    pub config: Config,
    pub database: Database,
    pub engine: Engine,
    pub connections: Arc<Connections>,
    /// What serves connections; ends with them.
    pub tasks: Tasks,
    /// The process was told to stop.
    pub stopping: CancellationToken,
    keys: ApiKeys,
}

impl App {
    /// Turns configuration into clients. Nothing here connects.
    pub fn new(
        config: Config,
        llm: LlmConfig,
        turns: Tasks,
        tasks: Tasks,
        connections: Arc<Connections>,
        stopping: CancellationToken,
    ) -> anyhow::Result<Self> {
        let tokens = wiring::token_source(&config);
        let provider =
            tokens.clone().map(|tokens| Arc::new(wiring::DatabaseTokens(tokens)) as Arc<dyn TokenProvider>);
        let database = Database::new(wiring::database_settings(&config), provider)?;
        let server = &config.server;
        let limits = Limits {
            lease: server.lease,
            log_patience: server.log_patience,
            disconnect_grace: server.disconnect_grace,
            unwatched_max: server.unwatched_max,
            turns_max: server.turns_max,
            kept: server.kept,
            log_retention: Duration::from_secs(24 * 3_600),
        };
        let router = wiring::router(&config, llm, tokens).map_err(anyhow::Error::msg)?;
        let engine = Engine::new(router, database.clone(), limits, turns);
        Ok(Self {
            keys: ApiKeys::new(&config.access),
            config,
            database,
            engine,
            connections,
            tasks,
            stopping,
        })
    }

    /// Who sent a request.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, ApiError> {
        self.authenticate_socket(headers, None).await
    }

    /// The same where the key may also come as `token`.
    pub async fn authenticate_socket(
        &self,
        headers: &HeaderMap,
        token: Option<&str>,
    ) -> Result<Principal, ApiError> {
        let now = jiff::Timestamp::now();
        let caller = match token {
            Some(token) => self.keys.verify(token, now),
            None => self.keys.identify(headers, now),
        };
        let caller = caller.map_err(|error| refused(&error))?;
        Ok(Principal::from(caller))
    }

    /// 403 unless the caller may do that.
    pub fn require(&self, who: &Principal, scope: Scope) -> Result<(), ApiError> {
        if who.scopes.contains(&scope) {
            return Ok(());
        }
        Err(refused(&AccessError::Forbidden { key: who.key.clone(), scope }))
    }

    /// Room for one more request of a caller, by its limits.
    pub fn admit(&self, _: &Principal) -> Result<Admitted, ApiError> {
        Ok(Admitted)
    }

    /// Notes a change that a caller made.
    pub fn audit(&self, _: &Principal, _: &'static str, _: &str) {}

    /// A connection to the database.
    pub async fn client(&self) -> Result<Client, ApiError> {
        self.database.client().await.map_err(Self::away)
    }

    /// What a caller is told of a failed database call.
    pub fn away(error: DatabaseError) -> ApiError {
        engine::away(error)
    }

    /// Sets the gauges.
    pub fn measure(&self) {
        metrics::connections(self.connections.open(), self.connections.limit);
        metrics::turns_open(self.engine.open_turns());
        let pool = self.database.pool_status();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let used = pool.size.saturating_sub(pool.available);
        metrics::database_pool(count(pool.max_size), count(pool.size), count(used), count(pool.waiting));
    }
}

fn refused(error: &AccessError) -> ApiError {
    metrics::access_refused(error.code());
    tracing::warn!(code = error.code(), "a caller was refused");
    let (kind, code) = match error.status() {
        StatusCode::FORBIDDEN => (ErrorType::PermissionError, "insufficient_permissions"),
        _ => (ErrorType::AuthenticationError, "invalid_api_key"),
    };
    let refused = ApiError::new(error.status(), kind, code, error.public_message());
    if error.status() == StatusCode::UNAUTHORIZED {
        return refused.header(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    refused
}

/// Room for one more request of a caller, and what to tell it of what is left.
pub struct Admitted;

impl Admitted {
    /// Adds the headers of rate limits.
    pub fn describe(&self, _headers: &mut HeaderMap) {}
}
