//! For several instances.
//!
//! One task keeps two connections: one for calls, one that listens. It makes both anew when either breaks, and before
//! a Microsoft Entra token ends. (redis' own `ConnectionManager` reconnects within the call that finds it broken, and
//! cannot take a new password without a feature that speaks another version of Azure's SDK.) A call never connects:
//! while there is no connection it fails at once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use redis::aio::{MultiplexedConnection, PubSubStream};
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, Pipeline, RedisError};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use tracing::field::Empty;
use uuid::Uuid;

use super::breaker::Breaker;
use super::{Add, CALL_LIMIT, Coordination, CoordinationError, LAG, Wake};
use crate::azure::TokenSource;
use crate::tasks::Tasks;
use crate::telemetry::metrics;

/// Before every key and channel: the database may be shared with others.
const PREFIX: &str = "clq:";
const CHANNEL: &str = "clq:wake";
/// Source: <https://learn.microsoft.com/azure/redis/entra-for-authentication>.
const ENTRA_SCOPE: &str = "https://redis.azure.com/.default";
/// Tokens live an hour or more, and the server ends a connection with its token.
const RENEW_AFTER: Duration = Duration::from_secs(30 * 60);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(5);
/// Wake-ups sent in one round trip.
const BATCH: usize = 128;

/// How Redis is reached.
pub struct RedisSettings {
    /// `rediss://…`; may hold user and password.
    pub url: SecretString,
    /// The user's name and whose tokens are its passwords.
    pub entra: Option<(String, TokenSource)>,
}

/// What instances share, in Redis. Cheap to clone.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    settings: RedisSettings,
    info: ConnectionInfo,
    /// Tells our own wake-ups from those of others.
    origin: Uuid,
    wakes: broadcast::Sender<Wake>,
    /// To be told to others.
    pending: Mutex<HashSet<Wake>>,
    published: Notify,
    connection: Mutex<Option<MultiplexedConnection>>,
    /// A call found the connection broken.
    broken: Notify,
    breaker: Breaker,
}

impl Redis {
    /// Connects in the background, until `tasks` stop.
    ///
    /// # Errors
    /// The address cannot be used.
    pub fn start(settings: RedisSettings, tasks: &Tasks) -> Result<Self, CoordinationError> {
        let info = settings.url.expose_secret().into_connection_info().map_err(|error| failed(&error))?;
        let inner = Inner {
            settings,
            info,
            origin: Uuid::now_v7(),
            wakes: broadcast::channel(LAG).0,
            pending: Mutex::default(),
            published: Notify::new(),
            connection: Mutex::new(None),
            broken: Notify::new(),
            breaker: Breaker::default(),
        };
        let redis = Self(Arc::new(inner));
        tasks.spawn("coordination.link", redis.clone().keep_connected(tasks.stopping()));
        tasks.spawn("coordination.publish", redis.clone().publish(tasks.stopping()));
        Ok(redis)
    }

    fn connection(&self) -> MutexGuard<'_, Option<MultiplexedConnection>> {
        self.0.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep_connected(self, stopping: CancellationToken) {
        let mut delay = RETRY_FIRST;
        let mut told = false;
        loop {
            let connected = tokio::select! {
                () = stopping.cancelled() => return,
                connected = tokio::time::timeout(CONNECT_LIMIT, self.connect()) => connected,
            };
            let link = connected.unwrap_or(Err(CoordinationError::Timeout));
            match link {
                Ok((connection, listening)) => {
                    if self.0.broken.notified().now_or_never().is_some() {
                        tracing::debug!("that the connection before this one was broken is known");
                    }
                    *self.connection() = Some(connection);
                    self.0.breaker.succeeded();
                    metrics::coordination_connected(true);
                    if told {
                        tracing::info!(code = "coordination_restored", "Redis is reached again");
                    }
                    (told, delay) = (false, RETRY_FIRST);
                    let lost = tokio::select! {
                        () = stopping.cancelled() => return,
                        lost = self.listen(listening) => lost,
                    };
                    if !lost {
                        // Renewed: the old connection serves until the new one is there.
                        continue;
                    }
                }
                Err(error) => {
                    if !told {
                        tracing::warn!(
                            code = error.code(),
                            %error,
                            "Redis is away; this instance counts its limits alone and polls for turns of others"
                        );
                    }
                    told = true;
                }
            }
            *self.connection() = None;
            metrics::coordination_connected(false);
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
            delay = (delay * 2).min(RETRY_MOST);
        }
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, PubSubStream), CoordinationError> {
        let mut info = self.0.info.clone();
        if let Some((user, tokens)) = &self.0.settings.entra {
            let token = tokens
                .token(ENTRA_SCOPE)
                .await
                .map_err(|error| CoordinationError::Failed(error.to_string()))?;
            let login =
                info.redis_settings().clone().set_username(user).set_password(token.secret.expose_secret());
            info = info.set_redis_settings(login);
        }
        let client = Client::open(info).map_err(|error| failed(&error))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(Some(CALL_LIMIT));
        let calls = client.get_multiplexed_async_connection_with_config(&config);
        let calls = calls.await.map_err(|error| failed(&error))?;
        let mut listening = client.get_async_pubsub().await.map_err(|error| failed(&error))?;
        listening.subscribe(CHANNEL).await.map_err(|error| failed(&error))?;
        Ok((calls, listening.into_on_message()))
    }

    /// Passes on what others tell, until the connection is lost (`true`) or is to be renewed.
    async fn listen(&self, mut listening: PubSubStream) -> bool {
        let renew = tokio::time::sleep(RENEW_AFTER);
        tokio::pin!(renew);
        loop {
            tokio::select! {
                message = listening.next() => {
                    let Some(message) = message else { return true };
                    if let Some(wake) = decode(message.get_payload_bytes(), self.0.origin) {
                        drop(self.0.wakes.send(wake));
                    }
                }
                () = self.0.broken.notified() => return true,
                () = &mut renew, if self.0.settings.entra.is_some() => return false,
            }
        }
    }

    /// Tells others what is pending, all of it in one round trip, as soon as the one before it returned.
    async fn publish(self, stopping: CancellationToken) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.0.published.notified() => {}
            }
            loop {
                let batch: Vec<Wake> = {
                    let mut pending = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner);
                    let batch: Vec<Wake> = pending.iter().take(BATCH).copied().collect();
                    for wake in &batch {
                        pending.remove(wake);
                    }
                    batch
                };
                if batch.is_empty() {
                    break;
                }
                let mut pipeline = redis::pipe();
                for wake in &batch {
                    pipeline.publish(CHANNEL, encode(*wake, self.0.origin).as_slice()).ignore();
                }
                // Others poll for what they were not told.
                drop(self.call::<()>("publish", &pipeline).await);
            }
        }
    }

    async fn call<T: redis::FromRedisValue>(
        &self,
        name: &'static str,
        pipeline: &Pipeline,
    ) -> Result<T, CoordinationError> {
        let Some(mut connection) = self.connection().clone() else {
            metrics::coordination_call(name, "away");
            return Err(CoordinationError::Away);
        };
        if !self.0.breaker.allows() {
            metrics::coordination_call(name, "open");
            return Err(CoordinationError::Away);
        }
        let span = tracing::info_span!(
            "redis",
            otel.name = name,
            otel.kind = "client",
            otel.status_code = Empty,
            db.system.name = "redis",
            db.operation.name = name,
            db.operation.batch.size = pipeline.len(),
            error.type = Empty,
        );
        let query = pipeline.query_async::<T>(&mut connection).instrument(span.clone());
        let answer = tokio::time::timeout(CALL_LIMIT, query).await;
        let result = match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if error.is_timeout() => Err(CoordinationError::Timeout),
            Ok(Err(error)) => {
                if error.is_connection_dropped() || error.is_io_error() {
                    self.0.broken.notify_one();
                }
                Err(failed(&error))
            }
            Err(_) => Err(CoordinationError::Timeout),
        };
        match &result {
            Ok(_) => self.0.breaker.succeeded(),
            // A connection that is silent for so long counts as lost: until there is another, nobody waits for it, and
            // this instance polls.
            Err(error) => {
                if self.0.breaker.failed() {
                    self.0.broken.notify_one();
                }
                span.record("error.type", error.code()).record("otel.status_code", "ERROR");
            }
        }
        metrics::coordination_call(
            name,
            match &result {
                Ok(_) => "ok",
                Err(CoordinationError::Timeout) => "timeout",
                Err(_) => "failed",
            },
        );
        result
    }
}

impl Coordination for Redis {
    fn wake(&self, wake: Wake) {
        drop(self.0.wakes.send(wake));
        let connected = self.connection().is_some();
        let mut pending = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a connection nobody would hear of it; those who wait poll.
        if connected && pending.len() < LAG {
            pending.insert(wake);
            drop(pending);
            self.0.published.notify_one();
        }
    }

    fn subscribe(&self) -> broadcast::Receiver<Wake> {
        self.0.wakes.subscribe()
    }

    fn add<'a>(&'a self, adds: &'a [Add]) -> BoxFuture<'a, Result<Vec<i64>, CoordinationError>> {
        async move {
            if adds.is_empty() {
                return Ok(Vec::new());
            }
            let mut pipeline = redis::pipe();
            for add in adds {
                let key = format!("{PREFIX}{}", add.key);
                let lives = i64::try_from(add.lives.as_millis()).unwrap_or(i64::MAX);
                pipeline.incr(&key, add.by).pexpire(&key, lives).ignore();
            }
            self.call("add", &pipeline).await
        }
        .boxed()
    }

    fn is_shared(&self) -> bool {
        self.connection().is_some()
    }
}

/// Only the kind: a server's own words might quote a command.
fn failed(error: &RedisError) -> CoordinationError {
    CoordinationError::Failed(format!("{:?}", error.kind()))
}

fn encode(wake: Wake, origin: Uuid) -> Vec<u8> {
    let (kind, turn) = match wake {
        Wake::Advanced(turn) => (b'a', turn),
        Wake::Cancelled(turn) => (b'c', turn),
    };
    [origin.as_bytes().as_slice(), &[kind], turn.as_bytes()].concat()
}

/// `None`: our own, or of a kind that this version does not know.
fn decode(bytes: &[u8], origin: Uuid) -> Option<Wake> {
    let (from, rest) = bytes.split_at_checked(16)?;
    let (kind, turn) = rest.split_first()?;
    let turn = Uuid::from_slice(turn).ok()?;
    match kind {
        _ if from == origin.as_bytes() => None,
        b'a' => Some(Wake::Advanced(turn)),
        b'c' => Some(Wake::Cancelled(turn)),
        _ => None,
    }
}
