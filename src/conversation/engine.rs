//! Turns in one process: begun, run, watched, stopped, handed over.
//!
//! A turn belongs to one process at a time, by a lease with an epoch. The process reads the provider, keeps what comes
//! as a log of chunks, and lets any number of viewers follow it. Nobody who watches owns anything: leaving is not
//! stopping.

mod beginning;
mod compact;
mod create;
mod crossing;
mod deleted;
mod embeddings;
mod ends;
mod input;
mod jobs;
mod leases;
mod outliving;
mod past;
mod paying;
mod permitted;
mod read;
mod retries;
mod run;
mod scrub;
mod stored;
mod summary;
mod tail;
mod taken;
mod turn;
mod waiting;
mod watched;
mod writer;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::callbacks::Callbacks;
use crate::azure::Queue;
use crate::config::AppEnvironment;
use crate::config::app::FeaturesConfig;
use crate::coordination::Coordination;
use crate::database::{Client, Database, DatabaseError};
use crate::ids::{CallbackId, ResponseId};
use crate::jobs::retry::Backoff;
use crate::llm::Router;
use crate::llm::spend::Spend;
use crate::openresponses::ApiError;
use crate::respond::Route;
use crate::switches::Switchboard;
use crate::tasks::Tasks;
use crate::webhooks::sealing::Sealer;

pub use compact::CompactionResource;
pub use create::{Call, Local};
pub use input::{Entry, OwnItem, entries, item_uuid};
pub use jobs::ForJob;
pub use read::{Followed, InputItems, has_ended};
pub use stored::stored;
pub use turn::{OnDisconnect, Snapshot, StopReason, Turn};

use watched::Unwatched;
use writer::Writer;

/// Limits of turns.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a turn is held without renewal.
    pub lease: Duration,
    /// How long a stream waits for its log.
    pub log_patience: Duration,
    /// How long a turn without viewers goes on.
    pub disconnect_grace: Duration,
    /// Most turns that go on with nobody watching.
    pub unwatched_max: usize,
    /// Most of them that one owner asked for.
    pub unwatched_of_owner_max: usize,
    /// Most turns at once.
    pub turns_max: usize,
    /// Most bytes of turns that are not stored which one connection remembers.
    pub local_max: usize,
    /// How long a finished turn's chunks stay in memory.
    pub kept: Duration,
    /// How long a finished turn's log stays in the database.
    pub log_retention: Duration,
    /// Whether this process looks for turns whose process fell silent.
    pub takes_over: bool,
    /// How long a background turn with a callback waits for a provider that is out.
    pub background_wait: Duration,
    /// Between its tries.
    pub background_retry: Backoff,
}

/// What an engine is made of.
pub struct Parts {
    pub router: Router,
    pub database: Database,
    pub spend: Spend,
    /// Without one there is no compaction.
    pub sealer: Option<Sealer>,
    pub coordination: Arc<dyn Coordination>,
    /// Where jobs are told that a turn they wait for has ended.
    pub jobs: Option<Queue>,
    pub callbacks: Callbacks,
    pub switches: Switchboard,
    pub features: FeaturesConfig,
    pub environment: AppEnvironment,
    /// Routes whose events models answer, by name.
    pub responding: HashMap<String, Route>,
}

/// The turns of this process.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    /// This process, among those that share the database.
    instance: Uuid,
    router: Router,
    database: Database,
    spend: Spend,
    /// For summaries that callers carry.
    sealer: Option<Sealer>,
    coordination: Arc<dyn Coordination>,
    jobs: Option<Queue>,
    callbacks: Callbacks,
    /// What operators have stopped.
    switches: Switchboard,
    features: FeaturesConfig,
    environment: AppEnvironment,
    /// By which answers to events are judged.
    responding: HashMap<String, Route>,
    limits: Limits,
    tasks: Tasks,
    writer: Writer,
    turns: Mutex<HashMap<ResponseId, Arc<Turn>>>,
    foreign: tail::Tailer,
    recent: retries::Recent,
    /// Places for turns that go on with nobody watching.
    unwatched: Arc<Unwatched>,
    /// Places for looks at whose something is.
    looks: Arc<Semaphore>,
    /// The database did not answer the last times it was asked.
    is_away: AtomicBool,
    /// How many turns are in flight.
    open: tokio::sync::watch::Sender<usize>,
    /// How many requests are worked on that are no turn, or not yet.
    under_way: tokio::sync::watch::Sender<usize>,
    /// This process stops: it takes no turn of others any more.
    draining: AtomicBool,
    /// It has had its time: what it does is cut, and nothing begins.
    cut: CancellationToken,
}

impl Engine {
    /// An engine without turns. Its background work runs in `tasks` until they are stopped.
    pub fn new(parts: Parts, limits: Limits, tasks: Tasks) -> Self {
        let Parts {
            router,
            database,
            spend,
            sealer,
            coordination,
            jobs,
            callbacks,
            switches,
            features,
            environment,
            responding,
        } = parts;
        let router = router.heeding(switches.clone());
        router.share_quotas(&coordination, &tasks);
        let writer = Writer::start(&database, Arc::clone(&coordination), limits.log_patience, &tasks);
        let foreign = tail::Tailer::start(&database, &coordination, limits.lease, &tasks);
        let inner = Inner {
            instance: Uuid::now_v7(),
            router,
            database,
            spend,
            sealer,
            coordination,
            jobs,
            callbacks,
            switches,
            features,
            environment,
            responding,
            limits,
            tasks,
            writer,
            turns: Mutex::default(),
            foreign,
            recent: retries::Recent::default(),
            unwatched: Arc::new(Unwatched::new(limits.unwatched_max, limits.unwatched_of_owner_max)),
            looks: Arc::new(Semaphore::new(crossing::LOOKS)),
            is_away: AtomicBool::new(false),
            open: tokio::sync::watch::Sender::new(0),
            under_way: tokio::sync::watch::Sender::new(0),
            draining: AtomicBool::new(false),
            cut: CancellationToken::new(),
        };
        let engine = Self(Arc::new(inner));
        engine.keep_leases();
        if limits.takes_over {
            engine.take_up_queued();
        }
        engine.hear_cancels();
        engine
    }

    /// Models and their providers.
    pub fn router(&self) -> &Router {
        &self.0.router
    }

    /// What turns cost.
    pub fn spend(&self) -> &Spend {
        &self.0.spend
    }

    /// How many turns are in flight here.
    pub fn open_turns(&self) -> usize {
        *self.0.open.borrow()
    }

    /// This process, among those that share the database.
    pub fn instance(&self) -> Uuid {
        self.0.instance
    }

    /// Whether wake-ups of other instances arrive now.
    pub fn is_shared(&self) -> bool {
        self.0.coordination.is_shared()
    }

    /// Turns in flight here: id, model, age, viewers, what is awaited.
    pub fn dump(&self) -> Vec<turn::Snapshot> {
        self.turns().values().map(|turn| turn.snapshot()).collect()
    }

    fn turns(&self) -> MutexGuard<'_, HashMap<ResponseId, Arc<Turn>>> {
        // Every change is one insert or remove.
        self.0.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a turn out of memory, unless this process has taken it anew meanwhile.
    fn forget(&self, turn: &Arc<Turn>) {
        let mut turns = self.turns();
        if turns.get(&turn.id).is_some_and(|present| Arc::ptr_eq(present, turn)) {
            turns.remove(&turn.id);
        }
    }

    /// Puts a hint at a callback that was written down. Nobody waits for it.
    fn hint(&self, callback: Option<CallbackId>) {
        let Some(id) = callback else { return };
        let engine = self.clone();
        self.0.tasks.spawn("callback hint", async move { engine.0.callbacks.hint(id).await });
    }

    /// The turn, if this process runs it or ran it a moment ago.
    fn local(&self, owner: &str, id: ResponseId) -> Option<Arc<Turn>> {
        self.turns().get(&id).filter(|turn| turn.owner == owner).cloned()
    }

    fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// A connection to the database for a request. While the database is known to be away, requests are refused at once
    /// instead of each waiting for its own failure.
    pub async fn client(&self) -> Result<Client, ApiError> {
        if self.0.is_away.load(Ordering::Relaxed) {
            return Err(unavailable());
        }
        self.0.database.client().await.map_err(away)
    }
}

/// What a caller is told of a failed database call. Logged here, once.
pub fn away(error: DatabaseError) -> ApiError {
    crate::telemetry::metrics::database_error(error.code());
    if error.is_outage() {
        tracing::warn!(code = error.code(), %error, "the database could not be reached");
        return unavailable();
    }
    tracing::error!(code = error.code(), %error, "a database call failed");
    ApiError::internal()
}

fn unavailable() -> ApiError {
    ApiError::unavailable(
        read::AWAY,
        "Stored conversations cannot be reached at the moment. Requests with 'store': false go on.",
    )
}
