//! The one writer of a process: everything that all turns have to log, as one statement, as soon as the one before has
//! returned. One round trip of delay for each chunk, and no timer.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::Engine;
use super::turn::{StopReason, Turn};
use crate::conversation::log;
use crate::coordination::{Coordination, Wake};
use crate::database::turn_log::{self, Append, Appended};
use crate::database::{Database, DatabaseError};
use crate::ids::ResponseId;
use crate::tasks::Tasks;
use crate::telemetry::metrics;

/// Where turns say that they have something to log.
#[derive(Clone)]
pub struct Writer(mpsc::UnboundedSender<Arc<Turn>>);

/// A run of a turn's chunks on its way into the log.
struct Pending {
    turn: Arc<Turn>,
    part: i32,
    data: String,
    /// Chunks up to here are logged with it.
    upto: usize,
}

impl Writer {
    /// `patience`: how long a stream waits for the log before it goes on without.
    pub fn start(
        database: &Database,
        coordination: Arc<dyn Coordination>,
        patience: Duration,
        tasks: &Tasks,
    ) -> Self {
        // A turn is in it once at most, so it is as bounded as the turns are.
        let (sender, receiver) = mpsc::unbounded_channel();
        // The turns have ended, and with them what there is to log, before the tasks are stopped.
        tasks.spawn_until_stopped("log writer", write(database.clone(), coordination, patience, receiver));
        Self(sender)
    }

    /// The turn has chunks that are not logged.
    pub fn notify(&self, turn: &Arc<Turn>) {
        if !turn.dirty.swap(true, Ordering::AcqRel) && self.0.send(Arc::clone(turn)).is_err() {
            tracing::error!(code = "log.writer_gone", "the log's writer has ended; turns go on unlogged");
        }
    }
}

impl Engine {
    /// Has the logs of these turns written again from where they end, if that is before where they should.
    pub(super) async fn log_what_was_lost(&self, turns: &[Arc<Turn>]) -> Result<(), DatabaseError> {
        let logged: Vec<_> = turns.iter().map(|turn| (turn.id, turn.log.parts())).collect();
        let client = self.0.database.client().await?;
        for (id, ends) in turn_log::shortened(&client, &logged).await? {
            for turn in turns.iter().filter(|turn| turn.id == id) {
                again(turn, ends);
                self.0.writer.notify(turn);
            }
        }
        Ok(())
    }
}

async fn write(
    database: Database,
    coordination: Arc<dyn Coordination>,
    patience: Duration,
    mut dirty: mpsc::UnboundedReceiver<Arc<Turn>>,
) {
    /// Turns of one statement at most.
    const BATCH: usize = 1_000;
    let mut turns: Vec<Arc<Turn>> = Vec::new();
    while dirty.recv_many(&mut turns, BATCH).await > 0 {
        while !turns.is_empty() {
            let batch: Vec<Pending> = turns.iter().cloned().filter_map(pending).collect();
            if batch.is_empty() {
                turns.clear();
            } else {
                let waiting = store(&database, &*coordination, patience, batch, &mut dirty).await;
                turns.retain(|turn| is_behind(turn));
                turns.extend(waiting);
            }
        }
    }
}

/// Whether parts of the turn's log are to be written again.
fn is_behind(turn: &Turn) -> bool {
    turn.log.is_behind()
        && turn.live.ended().is_none()
        && !turn.unloggable.load(Ordering::Acquire)
        && turn.stop_reason() != Some(StopReason::LostLease)
}

/// What of a turn is not logged yet.
fn pending(turn: Arc<Turn>) -> Option<Pending> {
    // Cleared first: what comes from here on notifies again.
    turn.dirty.store(false, Ordering::Release);
    if turn.live.ended().is_some() {
        return None;
    }
    let next = turn.log.next(turn.live.len())?;
    let mut chunks = turn.live.chunks_from(next.chunks.start);
    chunks.truncate(next.chunks.len());
    Some(Pending { part: next.part, data: log::pack(&chunks), upto: next.chunks.end, turn })
}

/// Appends a batch, however long that takes, and shows it when it is durable, or when patience ends. From then on, turns
/// that have more to log meanwhile do not wait either; they are given back, for the next batch.
async fn store(
    database: &Database,
    coordination: &dyn Coordination,
    patience: Duration,
    mut batch: Vec<Pending>,
    dirty: &mut mpsc::UnboundedReceiver<Arc<Turn>>,
) -> Vec<Arc<Turn>> {
    const PAUSE: Duration = Duration::from_millis(50);
    const LONGEST_PAUSE: Duration = Duration::from_secs(2);
    /// Patience is counted in short steps: a process that was frozen has not waited, and when it wakes its turns may be
    /// another's, who stores nothing of what is shown here.
    const STEP: Duration = Duration::from_millis(100);
    let started = Instant::now();
    let mut left = patience;
    let mut pause = PAUSE;
    let mut told = false;
    let mut waiting = Vec::new();
    loop {
        let result = {
            let mut appending = std::pin::pin!(append(database, &batch));
            loop {
                let step = left.min(STEP);
                match tokio::time::timeout(step, appending.as_mut()).await {
                    Ok(result) => break result,
                    Err(_) => left = left.saturating_sub(step),
                }
                if left.is_zero() {
                    go_unlogged(&batch, &mut told);
                    break meanwhile(appending, dirty, &mut waiting).await;
                }
            }
        };
        match result {
            Ok(appended) => {
                metrics::log_append(started.elapsed());
                for pending in batch.drain(..) {
                    coordination.wake(Wake::Advanced(pending.turn.id.0));
                    settle(pending, &appended);
                }
                return waiting;
            }
            Err(error) if error.is_retryable() => {
                metrics::database_error(error.code());
                tracing::debug!(code = error.code(), %error, "an append to the log is tried again");
            }
            Err(error) => {
                metrics::database_error(error.code());
                tracing::error!(code = error.code(), %error, "turns could not be logged; they go on unlogged");
                batch.iter().for_each(|pending| pending.turn.unloggable.store(true, Ordering::Release));
                go_unlogged(&batch, &mut told);
                return waiting;
            }
        }
        if left.is_zero() {
            go_unlogged(&batch, &mut told);
        }
        // Turns that have ended meanwhile were stored whole by their finish, or have lost their lease.
        batch.retain(|pending| pending.turn.live.ended().is_none());
        if batch.is_empty() {
            return waiting;
        }
        let pausing = tokio::time::sleep(pause);
        if left.is_zero() {
            meanwhile(pausing, dirty, &mut waiting).await;
        } else {
            pausing.await;
        }
        left = left.saturating_sub(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn append(
    database: &Database,
    batch: &[Pending],
) -> Result<std::collections::HashMap<ResponseId, Appended>, DatabaseError> {
    let client = database.client().await?;
    let parts: Vec<Append<'_>> = batch
        .iter()
        .filter_map(|pending| {
            Some(Append { held: pending.turn.held?, part: pending.part, data: &pending.data })
        })
        .collect();
    turn_log::append(&client, &parts).await
}

fn settle(pending: Pending, appended: &std::collections::HashMap<ResponseId, Appended>) {
    let Pending { turn, part, upto, .. } = pending;
    match appended.get(&turn.id) {
        Some(Appended { stored: true, cancel_requested, .. }) => {
            turn.log.stored(part, upto);
            turn.live.show(upto);
            turn.set_shown();
            if turn.live.len() <= upto {
                turn.unlogged.store(false, Ordering::Relaxed);
            }
            if *cancel_requested {
                turn.stop(StopReason::Cancelled);
            }
        }
        _ if turn.live.ended().is_some() => {}
        Some(Appended { ends_before: Some(part), .. }) => again(&turn, *part),
        _ => turn.stop(StopReason::LostLease),
    }
}

/// PostgreSQL has crashed and lost the end of the turn's log, for which nobody waited. It is still here.
fn again(turn: &Turn, from: i32) {
    tracing::warn!(code = "log.shortened", response_id = %turn.id, part = from, "a turn's log lost its end and is written again");
    turn.log.again(from);
}

/// Waits for `what`, and lets turns that come meanwhile go on unlogged.
async fn meanwhile<T>(
    what: impl Future<Output = T>,
    dirty: &mut mpsc::UnboundedReceiver<Arc<Turn>>,
    waiting: &mut Vec<Arc<Turn>>,
) -> T {
    let mut what = std::pin::pin!(what);
    loop {
        tokio::select! {
            biased;
            done = what.as_mut() => return done,
            Some(turn) = dirty.recv() => {
                unlogged(&turn);
                waiting.push(turn);
            }
        }
    }
}

/// Lets the streams go on although the log hangs.
fn go_unlogged(batch: &[Pending], told: &mut bool) {
    if !std::mem::replace(told, true) {
        metrics::log_stalled();
        let turns: HashSet<_> = batch.iter().map(|pending| pending.turn.id).collect();
        tracing::warn!(
            code = "log.stalled",
            turns = turns.len(),
            "the log of turns hangs for longer than LOG_PATIENCE; their streams go on and cannot be resumed elsewhere \
             until it has caught up",
        );
    }
    batch.iter().for_each(|pending| unlogged(&pending.turn));
}

fn unlogged(turn: &Turn) {
    turn.unlogged.store(true, Ordering::Relaxed);
    turn.live.set_unlogged();
    turn.live.show(usize::MAX);
    turn.set_shown();
}
