//! Timer `maintain`: brings home whatever a killed process, a lost message or an outage left lying about.
//!
//! Every sweep takes a bounded batch and may run beside any number of others. A sweep that fails is logged and the
//! next one goes on: the timer comes again in seconds.

mod conversations;
mod expiring;
mod measures;
mod poison;
mod retention;
mod spending;
mod work_sweeps;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use colloquy::database::maintenance;
use colloquy::functions::{Invocation, Outcome, Timer};
use colloquy::jobs::state::WorkKind;
use colloquy::telemetry::metrics;
use futures_util::future::{BoxFuture, FutureExt};
use jiff::Timestamp;
use tracing::Instrument;

use crate::services::Services;

pub use expiring::expiring;
pub use measures::{backlogs, measure, queues};
pub use poison::poison_name;

/// Rare sweeps come this often at most.
const HOURLY: Duration = Duration::from_secs(3600);

/// Leases up to this are watched within a tick if ticks are further apart; longer ones from tick to tick (15 s).
const MOST_WATCHED: Duration = Duration::from_secs(30);

/// What one process remembers from tick to tick.
#[derive(Debug, Default)]
pub struct Memory {
    continuity: Mutex<Continuity>,
    last_upkeep: Mutex<Option<Instant>>,
    /// When the queue of deliveries was last seen empty.
    empty_at: Mutex<Option<Timestamp>>,
    /// Days whose bodies were compared with deliveries, by their prefix.
    looked_through: Mutex<BTreeSet<String>>,
}

/// Since when the database has been reached without a break.
///
/// A lease may lapse because its holder died, or because nobody could reach the database to renew it. Only somebody
/// who has reached it for one whole lease time can tell the difference.
#[derive(Debug, Default)]
struct Continuity {
    since: Option<Instant>,
    last: Option<Instant>,
    /// The latest tick came later than one lease time after the one before.
    ticks_are_rare: bool,
}

impl Continuity {
    /// The database was reached now. A longer silence than a lease proves nothing about the time between.
    fn reached(&mut self, now: Instant, lease: Duration) {
        if self.last.is_none_or(|last| now.duration_since(last) > lease) {
            self.since = None;
        }
        self.ticks_are_rare = self.last.is_some() && self.since.is_none();
        self.since.get_or_insert(now);
        self.last = Some(now);
    }

    fn lost(&mut self) {
        *self = Self::default();
    }

    fn covers(&self, now: Instant, lease: Duration) -> bool {
        self.since.is_some_and(|since| now.duration_since(since) >= lease)
    }
}

/// Whether leases that have run out may be taken for lapsed.
///
/// From tick to tick that shows only for leases longer than the time between ticks. For shorter ones a tick itself
/// watches for one lease time; else what a killed process held would stay leased for ever.
async fn leases_may_be_freed(services: &Services, memory: &Memory) -> bool {
    let lease = services.config.work.lease;
    let (covered, watch) = {
        let mut continuity = memory.continuity();
        let now = Instant::now();
        continuity.reached(now, lease);
        (continuity.covers(now, lease), continuity.ticks_are_rare && lease <= MOST_WATCHED)
    };
    if covered || !watch {
        return covered;
    }
    let started = Instant::now();
    while started.elapsed() < lease {
        tokio::time::sleep((lease / 4).min(Duration::from_secs(1))).await;
        if !reached(services, memory).await {
            return false;
        }
        memory.continuity().reached(Instant::now(), lease);
    }
    memory.continuity().covers(Instant::now(), lease)
}

/// Whether the database answers.
async fn reached(services: &Services, memory: &Memory) -> bool {
    let ping = async { maintenance::ping(&services.database.client().await?).await };
    let Err(error) = ping.await else { return true };
    memory.continuity().lost();
    metrics::database_error(error.code());
    tracing::warn!(code = error.code(), %error, "upkeep waits for the database");
    false
}

/// One tick.
pub async fn maintain(services: Arc<Services>, memory: Arc<Memory>, _timer: Timer, _: Invocation) -> Outcome {
    tick(&services, &memory).instrument(tracing::info_span!("maintain")).await
}

async fn tick(services: &Services, memory: &Memory) -> Outcome {
    if !reached(services, memory).await {
        return Outcome::Done;
    }
    let may_free = leases_may_be_freed(services, memory).await;
    for kind in [WorkKind::Job, WorkKind::Callback] {
        if may_free {
            run("leases", work_sweeps::free_lapsed(services, kind).boxed()).await;
        }
        run("hints", work_sweeps::hint_again(services, kind).boxed()).await;
    }
    if may_free {
        run("orphaned_turns", conversations::end_orphans(services).boxed()).await;
    }
    run("held", work_sweeps::release_held(services).boxed()).await;
    run("poison", poison::sweep(services).boxed()).await;
    run("usage", bring_usage_home(services).boxed()).await;
    run("emptiness", retention::look_for_emptiness(services, memory).boxed()).await;
    run("blobs", retention::delete_orphaned_blobs(services, memory).boxed()).await;
    run("rotations", crate::rotations::close_done(services).boxed()).await;
    measure(services).await;
    if memory.upkeep_is_due() {
        run("partitions", retention::ensure_partitions(services).boxed()).await;
        run("usage_days", spending::roll_up(services).boxed()).await;
        for (sweep, work) in of_retention(services) {
            run(sweep, work).await;
        }
        run("orphaned_held", work_sweeps::warn_of_orphans(services).boxed()).await;
    }
    Outcome::Done
}

/// What deletes things whose time is over, in the order in which it is done.
fn of_retention(services: &Services) -> [(&'static str, BoxFuture<'_, anyhow::Result<usize>>); 8] {
    [
        ("keys", retention::delete_expired_keys(services).boxed()),
        ("deliveries", retention::delete_expired_deliveries(services).boxed()),
        ("dead_letters", retention::delete_settled_messages(services).boxed()),
        ("turn_logs", conversations::turn_logs(services).boxed()),
        ("conversations", conversations::expire(services).boxed()),
        ("turns", conversations::delete_turns(services).boxed()),
        ("threads", conversations::trim_threads(services).boxed()),
        ("usage_rows", spending::delete_usage(services).boxed()),
    ]
}

/// Deletes everything whose time is over, now: a round of each sweep. Gives what each took.
pub async fn retention_now(services: &Services) -> anyhow::Result<Vec<(&'static str, usize)>> {
    let mut taken = Vec::new();
    for (sweep, work) in of_retention(services) {
        taken.push((sweep, work.await.with_context(|| format!("sweep `{sweep}`"))?));
    }
    Ok(taken)
}

/// Usage that the conversation server could not write.
async fn bring_usage_home(services: &Services) -> anyhow::Result<usize> {
    let queue = services.storage.queue(&services.config.queues.usage);
    Ok(colloquy::llm::spend::bring_home(&queue, &services.database).await?)
}

async fn run(sweep: &'static str, work: BoxFuture<'_, anyhow::Result<usize>>) {
    match work.await {
        Ok(0) => {}
        Ok(taken) => {
            metrics::swept(sweep, taken as u64);
            tracing::info!(code = "swept", sweep, taken, "upkeep");
        }
        Err(error) => tracing::warn!(
            code = "sweep_failed",
            sweep,
            error = format!("{error:#}"),
            "a sweep failed; the next tick tries again"
        ),
    }
}

impl Memory {
    fn continuity(&self) -> std::sync::MutexGuard<'_, Continuity> {
        self.continuity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn upkeep_is_due(&self) -> bool {
        let mut last = self.last_upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|at| at.elapsed() >= HOURLY);
        if due {
            *last = Some(Instant::now());
        }
        due
    }

    fn empty_at(&self) -> Option<Timestamp> {
        *self.empty_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saw_empty(&self, now: Timestamp) {
        *self.empty_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    fn has_looked_through(&self, day: &str) -> bool {
        self.looked_through.lock().unwrap_or_else(PoisonError::into_inner).contains(day)
    }

    fn looked_through(&self, day: String) {
        /// More than are ever looked at.
        const MOST_REMEMBERED: usize = 64;
        let mut days = self.looked_through.lock().unwrap_or_else(PoisonError::into_inner);
        days.insert(day);
        // By date, so the first is the oldest.
        while days.len() > MOST_REMEMBERED {
            days.pop_first();
        }
    }
}

/// The instant so long before now.
fn ago(time: Duration) -> Timestamp {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::now().saturating_sub(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(60);

    #[test]
    fn leases_are_judged_only_after_one_lease_time_without_a_break() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut continuity = Continuity::default();
        for second in [0, 15, 30, 45] {
            continuity.reached(at(second), LEASE);
            assert!(!continuity.covers(at(second), LEASE), "after {second} s");
        }
        continuity.reached(at(60), LEASE);
        assert!(continuity.covers(at(60), LEASE));
        continuity.lost();
        continuity.reached(at(75), LEASE);
        assert!(!continuity.covers(at(75), LEASE), "an outage begins the count anew");
    }

    #[test]
    fn a_silence_longer_than_a_lease_is_a_break() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut continuity = Continuity::default();
        continuity.reached(start, LEASE);
        continuity.reached(at(300), LEASE);
        assert!(!continuity.covers(at(300), LEASE));
        assert!(continuity.ticks_are_rare);
        continuity.reached(at(315), LEASE);
        assert!(!continuity.ticks_are_rare);
    }
}
