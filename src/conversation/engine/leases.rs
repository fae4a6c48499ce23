//! Leases: renewed while a turn runs, taken over when their holder fell silent, given up when this process stops.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ends::become_stored;
use super::turn::{StopReason, Turn};
use super::{Engine, away};
use tokio::sync::broadcast;

use crate::conversation::assembler::{End, NoSink};
use crate::coordination::Wake;
use crate::database::turns::{self, Held};
use crate::ids::ResponseId;
use crate::openresponses::{Response, ResponseStatus};

/// Until the database is asked again after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// Since when the database has answered without a break: while it was away nobody could renew, so no lease counts as
/// lapsed until it has answered for one lease time.
#[derive(Debug, Default)]
struct Continuity {
    since: Option<Instant>,
    last: Option<Instant>,
}

impl Continuity {
    /// A process that was frozen for as long as a lease knows nothing of that time.
    fn answered(&mut self, now: Instant, lease: Duration) {
        if self.last.is_some_and(|last| now.duration_since(last) >= lease) {
            self.since = None;
        }
        self.since.get_or_insert(now);
        self.last = Some(now);
    }

    fn broke(&mut self) {
        self.since = None;
    }

    fn lasted(&self, now: Instant, lease: Duration) -> bool {
        self.since.zip(self.last).is_some_and(|(since, last)| {
            last.duration_since(since) >= lease && now.duration_since(last) < lease
        })
    }
}

impl Engine {
    /// Renews this process's leases and takes over lapsed ones, until the tasks stop: beside one another, since ending
    /// what others left may take longer than a lease.
    pub(super) fn keep_leases(&self) {
        let continuity = Arc::<Mutex<Continuity>>::default();
        self.0.tasks.spawn("turn leases", self.clone().keep_renewing(Arc::clone(&continuity)));
        if self.0.limits.takes_over {
            self.0.tasks.spawn_until_stopped("turn takeovers", self.clone().keep_taking_over(continuity));
        }
    }

    async fn keep_renewing(self, continuity: Arc<Mutex<Continuity>>) {
        let (lease, stopping) = (self.0.limits.lease, self.0.tasks.stopping());
        let mut renewed = Instant::now();
        let mut failures = 0_u32;
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Draining turns still need their leases; the process ends with this task.
                () = stopping.cancelled() => return,
            }
            match self.renew().await {
                Ok(()) => {
                    (failures, pause) = (0, lease / 6);
                    self.0.is_away.store(false, Ordering::Relaxed);
                    renewed = Instant::now();
                    known(&continuity).answered(renewed, lease);
                }
                Err(error) => {
                    drop(away(error));
                    known(&continuity).broke();
                    (failures, pause) = (failures.saturating_add(1), AGAIN.min(lease / 6));
                    // One failure may be of one broken connection.
                    self.0.is_away.store(failures > 1, Ordering::Relaxed);
                }
            }
            if renewed.elapsed() > lease {
                self.doubt(renewed);
            }
        }
    }

    async fn keep_taking_over(self, continuity: Arc<Mutex<Continuity>>) {
        let lease = self.0.limits.lease;
        loop {
            tokio::time::sleep(lease / 6).await;
            let lasted = known(&continuity).lasted(Instant::now(), lease);
            if lasted
                && !self.is_draining()
                && let Err(error) = self.take_over().await
            {
                drop(away(error));
                known(&continuity).broke();
            }
        }
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
                        let turn = engine.turns().get(&ResponseId(id)).cloned();
                        match turn {
                            Some(turn) if turn.live.is_running() => turn.stop(StopReason::Cancelled),
                            // Deleted perhaps; whoever may still see it finds it in its log.
                            Some(turn) => engine.forget(&turn),
                            None => {}
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
        let mut client = self.0.database.client().await?;
        client.set_statement_timeout((self.0.limits.lease / 6).max(AGAIN));
        let leases: Vec<Held> = held.iter().map(|(_, held)| *held).collect();
        // Also without turns: it is how this process knows that the database answers.
        let renewed = turns::renew(&client, &leases, self.0.limits.lease).await?;
        drop(client);
        let logged: Vec<_> =
            held.iter().map(|(turn, _)| turn).filter(|turn| turn.log.parts() > 0).cloned().collect();
        if !logged.is_empty() {
            self.log_what_was_lost(&logged).await?;
        }
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
}

fn known(continuity: &Mutex<Continuity>) -> MutexGuard<'_, Continuity> {
    // Every change leaves it whole.
    continuity.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_and_a_freeze_break_continuity() {
        let (lease, start) = (Duration::from_secs(6), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let mut continuity = Continuity::default();
        let mut answers = |seconds: std::ops::RangeInclusive<u64>| {
            let last = *seconds.end();
            seconds.for_each(|second| continuity.answered(at(second), lease));
            [last, last + 5, last + 6].map(|second| continuity.lasted(at(second), lease))
        };
        assert_eq!(answers(0..=5), [false; 3]);
        assert_eq!(answers(6..=6), [true, true, false], "until nothing was heard for a lease");
        // Frozen: others may not have renewed meanwhile either.
        assert_eq!(answers(20..=25), [false; 3]);
        assert_eq!(answers(26..=26), [true, true, false]);
        continuity.broke();
        assert!(!continuity.lasted(at(26), lease));
    }
}
