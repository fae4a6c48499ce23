//! Turns that wait: put off while their provider is out, and taken up once they are due, by any server.

use std::sync::Arc;
use std::time::Duration;

use super::create::Start;
use super::ends::Outcome;
use super::paying::Paying;
use super::taken::BATCH;
use super::turn::{StopReason, Turn};
use super::{Engine, away};
use crate::conversation::live::Cut;
use crate::database::DatabaseError;
use crate::database::turns;
use crate::ids::ResponseId;
use crate::llm::LlmError;
use crate::llm::spend::Reason;
use crate::telemetry::metrics;

/// How often a process looks for queued turns.
const PERIOD: Duration = Duration::from_secs(1);

impl Engine {
    /// How long a new turn waits for its provider: only if its end is told, and nobody watches from the start.
    pub(super) fn patience(&self, start: &Start<'_>) -> Option<Duration> {
        let wait = self.0.limits.background_wait;
        (start.callback.is_some() && start.request.stream != Some(true) && !wait.is_zero()).then_some(wait)
    }

    /// Takes up queued turns that are due, until the tasks stop. In a task of its own: renewing leases must not wait.
    pub(super) fn take_up_queued(&self) {
        let engine = self.clone();
        self.0.tasks.spawn_until_stopped("queued turns", async move {
            let mut tick = tokio::time::interval(PERIOD);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                while !engine.is_draining() {
                    match engine.take_up_due(None).await {
                        // There may be more.
                        Ok(taken) if taken == BATCH => {}
                        Ok(_) => break,
                        Err(error) => {
                            drop(away(error));
                            break;
                        }
                    }
                }
            }
        });
    }

    /// Takes queued turns that are due and nobody's, as many as there is room for, and runs them; `only`: this one. One
    /// that somebody asked to stop is ended instead. Gives how many it took.
    pub(super) async fn take_up_due(&self, only: Option<ResponseId>) -> Result<i64, DatabaseError> {
        let limit = if only.is_some() { 1 } else { BATCH.min(self.spare_room()) };
        if limit == 0 {
            return Ok(0);
        }
        let held = self.held_turns();
        let client = self.0.database.client().await?;
        let due = turns::due(&client, limit, only, &held, self.0.instance, self.0.limits.lease).await?;
        drop(client);
        let mut count = 0;
        for taken in due {
            count += 1;
            self.carry_on(taken).await;
        }
        Ok(count)
    }

    /// Puts a turn off whose provider is out, if it waits and nothing of it has come yet. Else gives its account back, to
    /// be ended.
    pub(super) async fn put_off(
        &self,
        turn: &Arc<Turn>,
        outcome: &Outcome,
        paying: Paying,
    ) -> Option<Paying> {
        let (Some(held), Some(waits), Outcome::Failed(error)) = (turn.held, turn.waits, outcome) else {
            return Some(paying);
        };
        // Whoever watches is told at once.
        if !error.class.is_outage() || !turn.live.is_empty() || turn.live.viewers() > 0 {
            return Some(paying);
        }
        let delay = self.delay(waits, error);
        const PAUSE: Duration = Duration::from_millis(500);
        let due_at = loop {
            let put_off = async { turns::put_off(&self.0.database.client().await?, held, delay).await };
            match put_off.await {
                Ok(Some(due_at)) => break due_at,
                Ok(None) => return Some(paying),
                Err(error) if error.is_outage() && turn.stop_reason() != Some(StopReason::LostLease) => {
                    metrics::database_error(error.code());
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    drop(away(error));
                    return Some(paying);
                }
            }
        };
        tracing::info!(
            code = "turn.put_off",
            response_id = %turn.id,
            reason = error.code,
            waits = waits + 1,
            %due_at,
            "a turn waits for its provider",
        );
        self.forget(turn);
        turn.set_opened(Ok(()));
        turn.live.cut(Cut::LostLease);
        self.pay(turn, paying, Reason::Failed);
        metrics::turn_ended("put_off", error.code);
        None
    }

    fn delay(&self, waits: i16, error: &LlmError) -> Duration {
        let failures = u32::from(waits.unsigned_abs()).saturating_add(1);
        self.0.limits.background_retry.delay(failures).max(error.retry_after.unwrap_or_default())
    }
}
