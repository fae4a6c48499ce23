//! From settings to clients: the one place where plain configuration meets the modules that use it.
//!
//! Both binaries build the same things from the same settings. Nothing here connects.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

use crate::azure::{Credential, ManagedIdentity, Storage, StorageSettings, TokenSource};
use crate::config::app::BudgetConfig;
use crate::config::{
    Config, CredentialKind, DatabaseAuth as AuthMode, InsightsAuth, LlmConfig, RedisAuth, StorageAccess,
};
use crate::coordination::{Coordination, Memory, Redis, RedisSettings};
use crate::database::migrations::Options;
use crate::database::{DatabaseAuth, DatabaseSettings, ENTRA_SCOPE, TokenError, TokenProvider};
use crate::llm::Router;
use crate::llm::spend::{Budgets, SpendSettings, WithoutDatabase};
use crate::tasks::Tasks;
use crate::telemetry::{self, BlockingToken};
use crate::webhooks::Secrets;
use crate::webhooks::sealing::{SealError, Sealer};

/// Whose tokens are used: the app's identity, or the developer's.
///
/// `None` where the platform gives no identity endpoint and none is needed (connection string, password).
pub fn token_source(config: &Config) -> Option<TokenSource> {
    let identity = &config.identity;
    let credential = match identity.credential {
        CredentialKind::Developer => Credential::Developer,
        CredentialKind::ManagedIdentity => Credential::ManagedIdentity(ManagedIdentity {
            endpoint: identity.endpoint.clone()?,
            header: identity.header.clone()?,
            client_id: identity.client_id.clone(),
        }),
    };
    Some(TokenSource::new(credential))
}

/// Queues and blobs; `None` where none are configured.
pub fn storage(config: &Config, tokens: Option<&TokenSource>) -> Result<Option<Storage>, String> {
    let settings = match &config.storage.access {
        StorageAccess::Absent => return Ok(None),
        StorageAccess::ConnectionString(text) => {
            StorageSettings::from_connection_string(text.expose_secret())
        }
        StorageAccess::Identity { queue_endpoint, blob_endpoint, client_id } => {
            let own = client_id.as_deref().filter(|id| Some(*id) != config.identity.client_id.as_deref());
            let tokens = if own.is_some() { tokens_of(config, own) } else { tokens.cloned() };
            let tokens = tokens.ok_or(
                "AzureWebJobsStorage names an account without a key, and this process has no identity: \
                 IDENTITY_ENDPOINT and IDENTITY_HEADER are not set. On a developer's machine set \
                 AZURE_CREDENTIAL=developer",
            )?;
            StorageSettings::from_service_uris(queue_endpoint.as_str(), blob_endpoint.as_str(), tokens)
        }
    };
    let mut settings = settings.map_err(|error| format!("AzureWebJobsStorage: {error}"))?;
    settings.call_timeout = config.storage.timeout;
    Storage::new(settings).map(Some).map_err(|error| format!("AzureWebJobsStorage: {error}"))
}

/// Tokens of another user-assigned identity than the rest of the app uses, where a setting names one.
fn tokens_of(config: &Config, client_id: Option<&str>) -> Option<TokenSource> {
    let mut config = config.clone();
    if let Some(client_id) = client_id {
        config.identity.client_id = Some(client_id.to_owned());
    }
    token_source(&config)
}

/// How PostgreSQL is reached.
pub fn database_settings(config: &Config) -> DatabaseSettings {
    let database = &config.database;
    DatabaseSettings {
        url: database.url.clone(),
        direct_url: Some(database.direct_url.clone()),
        auth: match database.auth {
            AuthMode::Password => DatabaseAuth::Password(database.password.clone()),
            AuthMode::Entra => DatabaseAuth::Entra,
        },
        ca_file: database.ca_file.clone(),
        pool_size: usize::try_from(database.pool_size).unwrap_or(usize::MAX),
        pool_wait: database.pool_wait,
        max_age: database.max_age,
        connect_timeout: database.connect_timeout,
        statement_timeout: database.statement_timeout,
    }
}

/// How a process spends, and the budgets it keeps.
pub fn spend_settings(config: &Config) -> SpendSettings {
    let micros = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    let named = |all: &BTreeMap<String, BudgetConfig>| {
        all.iter().map(|(name, budget)| (name.clone(), micros(budget.per_day))).collect()
    };
    let (budgets, spend) = (&config.app.budgets, &config.spend);
    SpendSettings {
        budgets: Budgets {
            total: budgets.total.map(micros),
            each_owner: budgets.each_owner.map(micros),
            each_key: budgets.each_key.map(micros),
            owners: named(&budgets.owners),
            keys: named(&budgets.keys),
        },
        without_database: if spend.allow_without_database {
            WithoutDatabase::Allow
        } else {
            WithoutDatabase::Refuse
        },
        lease: spend.lease,
        heartbeat: spend.heartbeat,
        patience: spend.patience,
        slice_percent: spend.slice_percent,
        answer_percent: spend.answer_percent,
        buffer: usize::try_from(spend.buffer).unwrap_or(usize::MAX),
        spool_after: spend.spool_after,
    }
}

/// What instances share: in Redis with `REDIS_URL`, else in memory. Connects in the background.
pub fn coordination(
    config: &Config,
    identity: Option<&TokenSource>,
    tasks: &Tasks,
) -> Result<Arc<dyn Coordination>, String> {
    let Some(redis) = &config.redis else { return Ok(Arc::new(Memory::default())) };
    let entra = match &redis.auth {
        RedisAuth::Password => None,
        RedisAuth::Entra { username } => {
            let tokens = identity.ok_or("REDIS_AUTH_MODE=entra, and this process has no identity")?;
            Some((username.clone(), tokens.clone()))
        }
    };
    let settings = RedisSettings { url: redis.url.clone(), entra };
    let redis = Redis::start(settings, tasks).map_err(|error| format!("REDIS_URL: {error}"))?;
    Ok(Arc::new(redis))
}

/// How patient migrations are.
pub fn migration_options(config: &Config) -> Options {
    let database = &config.database;
    Options {
        wait: database.migrate_wait,
        lock_timeout: database.migrate_lock_timeout,
        concurrent_lock_timeout: database.migrate_concurrent_lock_timeout,
    }
}

/// Access tokens as PostgreSQL's password.
pub struct DatabaseTokens(pub TokenSource);

impl TokenProvider for DatabaseTokens {
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<SecretString, TokenError>> + Send + '_>> {
        Box::pin(async {
            let token = self.0.token(ENTRA_SCOPE).await.map_err(|error| TokenError(error.to_string()))?;
            Ok(token.secret)
        })
    }
}

/// Entra tokens for telemetry, where `APPLICATIONINSIGHTS_AUTHENTICATION_STRING` asks for them. Exporters run on
/// threads of their own and wait for the token there; `handle` is the runtime it is fetched on.
pub fn telemetry_token(config: &Config, handle: tokio::runtime::Handle) -> Option<BlockingToken> {
    let InsightsAuth::Entra { client_id } = &config.telemetry.insights.as_ref()?.auth else { return None };
    let tokens = tokens_of(config, client_id.as_deref())?;
    Some(Arc::new(move || {
        let token = handle.block_on(tokens.token(telemetry::INSIGHTS_SCOPE));
        token.map(|token| token.secret).map_err(|error| error.to_string())
    }))
}

/// The secrets of a source.
pub fn webhook_secrets(config: &Config, source: &str) -> Secrets {
    Secrets::new(config.webhook_secrets.of(source).to_vec())
}

/// What seals secrets at rest; `None` without `ENCRYPTION_KEY`.
pub fn sealer(config: &Config) -> Result<Option<Sealer>, Vec<SealError>> {
    let keys = config.encryption_keys.all();
    if keys.is_empty() {
        return Ok(None);
    }
    Sealer::new(&Secrets::new(keys.to_vec())).map(Some)
}

/// This machine's own addresses, which callbacks may reach in development.
pub fn loopback_networks() -> [IpNet; 2] {
    [
        IpNet::new_assert(std::net::Ipv4Addr::LOCALHOST.into(), 8),
        IpNet::new_assert(std::net::Ipv6Addr::LOCALHOST.into(), 128),
    ]
}

/// Models and their providers.
pub fn router(config: &Config, llm: LlmConfig, tokens: Option<TokenSource>) -> Result<Router, String> {
    Router::new(&config.app, llm, tokens)
}
