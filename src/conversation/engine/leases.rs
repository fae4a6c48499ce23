//! Leases: renewed while a turn runs, taken over when their holder fell silent, given up when this process stops.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::run::become_stored;
use super::turn::{StopReason, Turn};
use super::{Engine, away};
use tokio::sync::broadcast;

use crate::conversation::assembler::{End, NoSink};
use crate::coordination::Wake;
use crate::database::turns::{self, Held};
use crate::ids::ResponseId;
use crate::openresponses::{Response, ResponseStatus};

/// Since when the database has answered without a break: while it was away nobody could renew, so no lease counts as
/// lapsed until it has answered for one lease time.
#[derive(Debug, Default)]
struct Continuity(Option<Instant>);

impl Continuity {
    fn answered(&mut self) {
        self.0.get_or_insert_with(Instant::now);
    }

    fn broke(&mut self) {
        self.0 = None;
    }

    fn lasted(&self, lease: Duration) -> bool {
        self.0.is_some_and(|since| since.elapsed() >= lease)
    }
}

impl Engine {
    /// Renews this process's leases and takes over lapsed ones, until the tasks stop.
    pub(super) fn keep_leases(&self) {
        let engine = self.clone();
        let stopping = self.0.tasks.stopping();
        self.0.tasks.spawn("turn leases", async move {
            let lease = engine.0.limits.lease;
            let mut tick = tokio::time::interval(lease / 6);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut continuity = Continuity::default();
            let mut renewed = Instant::now();
            loop {
                tokio::select! {
                    _ = tick.tick() => {}
                    // Draining turns still need their leases; the process ends with this task.
                    () = stopping.cancelled() => return,
                }
                match engine.renew().await {
                    Ok(()) => {
                        renewed = Instant::now();
                        continuity.answered();
                    }
                    Err(error) => {
                        drop(away(error));
                        continuity.broke();
                    }
                }
                if renewed.elapsed() > lease {
                    engine.doubt(renewed);
                }
                if engine.0.limits.takes_over
                    && continuity.lasted(lease)
                    && !engine.is_draining()
                    && let Err(error) = engine.take_over().await
                {
                    drop(away(error));
                    continuity.broke();
                }
            }
        });
    }

    /// Stops turns that another process was asked to cancel. The flag in the database says the same, later.
    pub(super) fn hear_cancels(&self) {
        let (engine, stopping) = (self.clone(), self.0.tasks.stopping());
        let mut wakes = self.0.coordination.subscribe();
        self.0.tasks.spawn("turn cancels", async move {
            loop {
                let heard = tokio::select! {
                    () = stopping.cancelled() => return,
                    heard = wakes.recv() => heard,
                };
                match heard {
                    Ok(Wake::Cancelled(id)) => {
                        if let Some(turn) = engine.turns().get(&ResponseId(id)) {
                            turn.stop(StopReason::Cancelled);
                        }
                    }
                    Ok(Wake::Advanced(_)) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        });
    }

    fn held(&self) -> Vec<(Arc<Turn>, Held)> {
        let turns = self.turns();
        let open = turns.values().filter(|turn| turn.live.ended().is_none());
        open.filter_map(|turn| Some((Arc::clone(turn), turn.held?))).collect()
    }

    async fn renew(&self) -> Result<(), crate::database::DatabaseError> {
        let held = self.held();
        if held.is_empty() && !self.0.limits.takes_over {
            return Ok(());
        }
        let client = self.0.database.client().await?;
        let leases: Vec<Held> = held.iter().map(|(_, held)| *held).collect();
        // Also without turns: it is how this process knows that the database answers.
        let renewed = turns::renew(&client, &leases, self.0.limits.lease).await?;
        for (turn, _) in held {
            match renewed.iter().find(|renewed| renewed.response == turn.id) {
                Some(renewed) if renewed.cancel_requested => turn.stop(StopReason::Cancelled),
                Some(_) => {}
                // It may have ended while the statement ran.
                None if turn.live.ended().is_some() => {}
                None => turn.stop(StopReason::LostLease),
            }
        }
        Ok(())
    }

    /// Leases that could not be renewed for a lease time may be another process's by now. Their turns go on: every
    /// write of theirs is fenced, and an outage of the database is no reason to lose what the provider sends.
    fn doubt(&self, renewed: Instant) {
        tracing::warn!(
            code = "lease.unrenewed",
            seconds = renewed.elapsed().as_secs(),
            turns = self.held().len(),
            "leases of turns could not be renewed; the turns go on and end as far as nobody took them over",
        );
    }

    /// Gives a turn's lease up at once, for another process to run it again.
    pub(super) async fn release(&self, turn: &Turn) {
        let Some(held) = turn.held else { return };
        let released = async {
            let client = self.0.database.client().await?;
            turns::renew(&client, &[held], Duration::ZERO).await
        };
        if let Err(error) = released.await {
            // It lapses by itself.
            drop(away(error));
        }
    }

    /// Lets turns go on for `patience`, then stops those that still run: they end with what they have, or go to another
    /// process.
    pub async fn drain(&self, patience: Duration) {
        /// For the last commits of the turns that are stopped.
        const LAST_COMMITS: Duration = Duration::from_secs(4);
        self.0.draining.store(true, Ordering::Relaxed);
        let mut open = self.0.open.subscribe();
        if tokio::time::timeout(patience, open.wait_for(|open| *open == 0)).await.is_ok() {
            return;
        }
        tracing::info!(
            code = "drain.cut",
            turns = self.open_turns(),
            "turns still running after DRAIN end with what they have"
        );
        for turn in self.turns().values() {
            turn.stop(StopReason::Draining);
        }
        if tokio::time::timeout(LAST_COMMITS, open.wait_for(|open| *open == 0)).await.is_err() {
            tracing::warn!(
                code = "drain.late",
                "turns could not be stored before the end; another process takes them over"
            );
        }
    }
}

/// The response of a turn whose end was stored elsewhere.
pub(super) fn ended_elsewhere(
    turn: &Turn,
    mut end: End,
    state: ResponseStatus,
    at: jiff::Timestamp,
) -> (End, Response) {
    become_stored(&mut end, state, at);
    let mut assembler =
        crate::conversation::Assembler::new(turn.begun.clone(), turn.id.0, turn.show_encrypted);
    assembler.begin(&mut NoSink);
    for chunk in turn.live.chunks() {
        assembler.push(&chunk, &mut NoSink);
    }
    let (response, _) = assembler.finish(&end, &mut NoSink);
    (end, response)
}
