//! The models that the function app itself asks. Made with the first event that needs one and given back a while after
//! the last: an instance that answers no events connects to nothing, and keeps no part of a budget.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use colloquy::azure::{Queue, TokenSource};
use colloquy::config::{Config, LlmConfig};
use colloquy::conversation::callbacks::Callbacks;
use colloquy::conversation::engine::{Engine, Limits, Parts};
use colloquy::database::Database;
use colloquy::jobs::retry::Backoff;
use colloquy::llm::spend::{Spend, system_clock};
use colloquy::respond::Route;
use colloquy::switches::Switchboard;
use colloquy::tasks::Tasks;
use colloquy::telemetry::metrics;
use colloquy::wiring;

/// Turns of one process at most; the host gives a process fewer messages at once.
const TURNS_MAX: usize = 1_000;
/// For the last commits of a process that ends.
const LAST_COMMITS: Duration = Duration::from_secs(3);

/// What asks models, once it is needed.
pub struct Models {
    /// `None`: no route asks models here.
    llm: Option<LlmConfig>,
    tokens: Option<TokenSource>,
    switches: Switchboard,
    made: Mutex<Option<Arc<Made>>>,
}

struct Made {
    engine: Engine,
    tasks: Tasks,
    used: Mutex<Instant>,
}

/// An engine in use: it is not given back meanwhile.
pub struct InUse(Arc<Made>);

impl Deref for InUse {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.0.engine
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        *lock(&self.0.used) = Instant::now();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Models {
    pub fn new(llm: Option<LlmConfig>, tokens: Option<TokenSource>, switches: Switchboard) -> Self {
        Self { llm, tokens, switches, made: Mutex::default() }
    }

    /// What asks models. Connects to nothing by itself.
    pub fn engine(
        self: &Arc<Self>,
        config: &Config,
        database: &Database,
        spool: Queue,
    ) -> Result<InUse, String> {
        let mut made = lock(&self.made);
        if let Some(made) = &*made {
            return Ok(InUse(Arc::clone(made)));
        }
        let new = Arc::new(self.make(config, database, spool)?);
        self.give_back_when_idle(&new, config.respond.idle);
        *made = Some(Arc::clone(&new));
        Ok(InUse(new))
    }

    /// Sets the gauges of what only this process knows.
    pub fn measure(&self) {
        let made = lock(&self.made).clone();
        metrics::turns_open(made.as_ref().map_or(0, |made| made.engine.open_turns()));
        if let Some(made) = made {
            made.engine.router().measure();
        }
    }

    fn make(&self, config: &Config, database: &Database, spool: Queue) -> Result<Made, String> {
        let llm = self.llm.clone().ok_or("no route of this app asks models in a job")?;
        let tasks = Tasks::new();
        let tracked = config.database.track_usage.then(|| database.clone());
        let spend = Spend::new(wiring::spend_settings(config), tracked, Some(spool), system_clock());
        spend.start(&tasks);
        let parts = Parts {
            router: wiring::router(config, llm, self.tokens.clone())?,
            database: database.clone(),
            spend,
            // Compaction is the server's.
            sealer: None,
            coordination: wiring::coordination(config, self.tokens.as_ref(), &tasks)?,
            jobs: None,
            callbacks: Callbacks::new(BTreeMap::new(), None),
            switches: self.switches.clone(),
            features: config.app.features.clone(),
            environment: config.environment,
            responding: Route::all(&config.app.routes).0,
        };
        let server = &config.server;
        let limits = Limits {
            lease: server.lease,
            log_patience: server.log_patience,
            disconnect_grace: server.disconnect_grace,
            unwatched_max: TURNS_MAX,
            unwatched_of_owner_max: TURNS_MAX,
            turns_max: TURNS_MAX,
            local_max: 0,
            // Nobody comes back to a function instance.
            kept: Duration::ZERO,
            log_retention: config.work.log_retention,
            takes_over: false,
            background_wait: Duration::ZERO,
            background_retry: Backoff { base: config.work.retry_base, cap: config.work.retry_cap },
        };
        let engine = Engine::new(parts, limits, tasks.clone());
        Ok(Made { engine, tasks, used: Mutex::new(Instant::now()) })
    }

    fn give_back_when_idle(self: &Arc<Self>, made: &Arc<Made>, idle: Duration) {
        let models = Arc::clone(self);
        let stopping = made.tasks.stopping();
        let weak = Arc::downgrade(made);
        made.tasks.spawn("idle models", async move {
            loop {
                let pause = tokio::time::sleep(idle / 4);
                if stopping.run_until_cancelled(pause).await.is_none() {
                    return;
                }
                let taken = {
                    let mut present = lock(&models.made);
                    // Behind the lock nobody gets it meanwhile; one owner is `present` itself.
                    let unused = present.as_ref().is_none_or(|made| {
                        Arc::strong_count(made) == 1
                            && made.engine.open_turns() == 0
                            && lock(&made.used).elapsed() >= idle
                    });
                    if unused { present.take() } else { None }
                };
                if let Some(made) = taken {
                    finish(&made).await;
                    made.tasks.stopping().cancel();
                    return;
                }
                if weak.strong_count() == 0 {
                    return;
                }
            }
        });
    }

    /// Stops turns, which other attempts take up, and gives parts of budgets back.
    pub async fn close(&self) {
        let made = lock(&self.made).take();
        if let Some(made) = made {
            drop(tokio::time::timeout(LAST_COMMITS, made.engine.stop_all()).await);
            drop(tokio::time::timeout(LAST_COMMITS, finish(&made)).await);
            made.tasks.stopping().cancel();
        }
    }
}

async fn finish(made: &Made) {
    made.engine.router().retire();
    if let Err(error) = made.engine.spend().finish().await {
        tracing::warn!(code = error.code(), %error, "parts of budgets return when their lease lapses");
    }
}
