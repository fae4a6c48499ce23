//! The pool: few connections, recycled without a round trip, replaced by age.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use secrecy::ExposeSecret;

use super::auth::TokenProvider;
use super::client::Client;
use super::connect::{Connector, NoTokens};
use super::error::DatabaseError;
use super::settings::{DatabaseAuth, DatabaseSettings, SettingsError, Target};
use crate::telemetry::metrics;

/// A connection unused for this long may have been dropped by something on the way without a word (Azure's load
/// balancer forgets after 4 minutes), so it is asked before it is used. Busy ones are not: no extra round trip.
const ASK_AFTER_IDLE: Duration = Duration::from_secs(60);
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// PostgreSQL through the pooler. Cheap to clone; connects to nothing before it is asked to.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool,
    connector: Arc<Connector>,
    target: Target,
    direct: Option<Target>,
    settings: DatabaseSettings,
}

/// How busy the pool is, for `/status` and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PoolStatus {
    /// Connections it may have.
    pub max_size: usize,
    /// Connections it has.
    pub size: usize,
    /// Connections nobody uses now.
    pub available: usize,
    /// Callers waiting for one.
    pub waiting: usize,
}

impl Database {
    /// `tokens` is needed with [`DatabaseAuth::Entra`] and ignored otherwise.
    ///
    /// # Errors
    /// The first mistake of [`DatabaseSettings::check`].
    pub fn new(
        settings: DatabaseSettings,
        tokens: Option<Arc<dyn TokenProvider>>,
    ) -> Result<Self, DatabaseError> {
        if let Some(mistake) = settings.check().into_iter().next() {
            return Err(mistake.into());
        }
        let tokens = match settings.auth {
            DatabaseAuth::Entra => Some(tokens.unwrap_or_else(|| Arc::new(NoTokens))),
            DatabaseAuth::Password(_) => None,
        };
        let target = prepare(&settings, Target::parse("DATABASE_URL", &settings.url)?);
        let direct = match &settings.direct_url {
            Some(url) => Some(prepare(&settings, Target::parse("DATABASE_DIRECT_URL", url)?)),
            None => None,
        };
        let connector = Arc::new(Connector::new(tokens, settings.ca_file.clone(), settings.connect_timeout));
        let manager = Manager::from_connect(
            target.config.clone(),
            SharedConnector(Arc::clone(&connector)),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager)
            .max_size(settings.pool_size)
            .wait_timeout(Some(settings.pool_wait))
            .runtime(Runtime::Tokio1)
            .pre_recycle(retire(settings.max_age))
            .pre_recycle(ask_if_idle())
            .build()
            .map_err(|error| SettingsError { variable: "DB_POOL_SIZE", problem: error.to_string() })?;
        Ok(Self { inner: Arc::new(Inner { pool, connector, target, direct, settings }) })
    }

    /// A connection, waited for up to `DB_POOL_WAIT` and returned to the pool when dropped.
    ///
    /// # Errors
    /// Always an outage: no free connection in time, no token, or the database cannot be reached.
    pub async fn client(&self) -> Result<Client, DatabaseError> {
        let inner = &self.inner;
        let started = Instant::now();
        match inner.pool.get().await {
            Ok(object) => Ok(Client::new(object, inner.settings.statement_timeout)),
            Err(error) => Err(DatabaseError::of_pool(
                &inner.target.server,
                started.elapsed(),
                inner.settings.pool_size,
                error,
            )),
        }
    }

    /// How busy the pool is.
    pub fn pool_status(&self) -> PoolStatus {
        let status = self.inner.pool.status();
        PoolStatus {
            max_size: status.max_size,
            size: status.size,
            available: status.available,
            waiting: status.waiting,
        }
    }

    /// Sets the pool's gauges.
    pub fn measure(&self) {
        let PoolStatus { max_size, size, available, waiting } = self.pool_status();
        metrics::database_pool(max_size, size, size.saturating_sub(available), waiting);
    }

    /// `host:port/database` of `DATABASE_URL`, for messages.
    pub fn server(&self) -> &str {
        &self.inner.target.server
    }

    /// Where migrations connect, and which variable says so.
    pub(super) fn direct(&self) -> &Target {
        self.inner.direct.as_ref().unwrap_or(&self.inner.target)
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.inner.connector
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("server", &self.inner.target.server)
            .field("pool", &self.pool_status())
            .finish()
    }
}

fn prepare(settings: &DatabaseSettings, mut target: Target) -> Target {
    let config = &mut target.config;
    if let DatabaseAuth::Password(Some(password)) = &settings.auth {
        config.password(password.expose_secret());
    }
    if config.get_application_name().is_none() {
        config.application_name("colloquy");
    }
    // A peer that vanished without a word is noticed within a minute rather than after the system's two hours.
    config
        .connect_timeout(settings.connect_timeout)
        .keepalives_idle(Duration::from_secs(30))
        .keepalives_interval(Duration::from_secs(10))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(30));
    target
}

/// Replaces connections by age. Each lives between nine tenths of `max_age` and all of it, so that those opened
/// together do not end together.
fn retire(max_age: Duration) -> Hook {
    let start = Instant::now();
    Hook::sync_fn(move |_, metrics| {
        let seed = metrics.created.saturating_duration_since(start).subsec_nanos();
        let early = max_age.mul_f64(0.1 * f64::from(seed % 1_000) / 1_000.0);
        if metrics.age() < max_age.saturating_sub(early) {
            Ok(())
        } else {
            Err(HookError::message("reached its age"))
        }
    })
}

fn ask_if_idle() -> Hook {
    Hook::async_fn(|client, metrics| {
        Box::pin(async move {
            if metrics.last_used() < ASK_AFTER_IDLE {
                return Ok(());
            }
            match tokio::time::timeout(ASK_LIMIT, client.check_connection()).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(HookError::Backend(error)),
                Err(_) => Err(HookError::message("silent after being idle")),
            }
        })
    })
}

struct SharedConnector(Arc<Connector>);

impl deadpool_postgres::Connect for SharedConnector {
    fn connect(
        &self,
        config: &tokio_postgres::Config,
    ) -> std::pin::Pin<
        Box<
            dyn Future<
                    Output = Result<
                        (tokio_postgres::Client, tokio::task::JoinHandle<()>),
                        tokio_postgres::Error,
                    >,
                > + Send
                + '_,
        >,
    > {
        self.0.connect(config)
    }
}
