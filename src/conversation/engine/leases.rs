//! Leases: renewed while a turn runs, taken over when their holder fell silent, given up when this process stops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::read::request_of;
use super::jobs::whole_or_failed;
use super::run::become_stored;
use super::turn::{NewTurn, OnDisconnect, StopReason, Turn};
use super::{Engine, away};
use tokio::sync::broadcast;

use crate::access::Principal;
use crate::conversation::assembler::{End, NoSink};
use crate::conversation::log;
use crate::coordination::Wake;
use crate::database::threads::{self, Anchor};
use crate::database::turn_log::{self, LogCursor};
use crate::database::turns::{self, Held, Lapsed};
use crate::ids::ResponseId;
use crate::llm::ModelRequest;
use crate::openresponses::{ApiError, Include, Response, ResponseError, ResponseStatus};
use crate::telemetry::metrics;

/// Turns taken over at a time.
const BATCH: i64 = 20;

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

    /// Takes over what others left: ended with what they logged, or run again if nobody saw any of it.
    async fn take_over(&self) -> Result<(), crate::database::DatabaseError> {
        let client = self.0.database.client().await?;
        let lapsed = turns::lapsed(&client, BATCH, self.0.instance, self.0.limits.lease).await?;
        drop(client);
        for turn in lapsed {
            let outcome = if turn.run_again { "restarted" } else { "ended" };
            tracing::info!(
                code = "turn.taken_over",
                response_id = %turn.held.response,
                outcome,
                "a turn whose process fell silent was taken over",
            );
            let id = turn.held.response;
            let done = if turn.run_again { self.run_again(turn, None).await } else { self.end_lapsed(turn).await };
            match done {
                Ok(()) => metrics::turn_taken_over(outcome),
                // The lease lapses again, and another sweep tries.
                Err(error) => {
                    tracing::warn!(code = error.code, response_id = %id, "a turn could not be taken over")
                }
            }
        }
        Ok(())
    }

    fn adopted(&self, lapsed: &Lapsed) -> Result<Turn, ApiError> {
        let request = request_of(&lapsed.request)?;
        let begun = Response {
            background: lapsed.background,
            previous_response_id: lapsed.previous_response.map(|id| id.to_string()),
            conversation: lapsed
                .conversation
                .map(|id| crate::openresponses::ConversationOf { id: id.to_string() }),
            ..Response::begun(
                &request,
                lapsed.held.response.to_string(),
                lapsed.model.clone(),
                lapsed.created_at.as_second(),
            )
        };
        Ok(Turn::new(NewTurn {
            id: lapsed.held.response,
            owner: lapsed.owner.clone(),
            key: lapsed.api_key.clone().unwrap_or_default(),
            held: Some(lapsed.held),
            conversation: lapsed.conversation,
            begun,
            show_encrypted: request.includes(Include::ReasoningEncryptedContent),
            on_disconnect: OnDisconnect::Continue,
            title: None,
            context: Vec::new(),
            job: lapsed.job,
            until: None,
        }))
    }

    /// Keeps everything that a turn has in its log.
    pub(super) async fn read_whole_log(&self, turn: &Turn) -> Result<(), ApiError> {
        let mut from_part = 0;
        let client = self.client().await?;
        loop {
            let cursor = LogCursor { owner: &turn.owner, response: turn.id, from_part };
            // Deleted meanwhile: nothing of it is wanted any more.
            let Some(slice) = turn_log::read_log(&client, cursor).await.map_err(away)? else { return Ok(()) };
            for (part, data) in &slice.parts {
                turn.live.keep(log::unpack(data).map_err(|error| {
                    tracing::error!(code = "log.unreadable", %error, response_id = %turn.id, "a part of a turn's log cannot be read");
                    ApiError::internal()
                })?);
                from_part = part + 1;
            }
            if !slice.has_more {
                return Ok(());
            }
        }
    }

    /// Ends a turn with what its log says.
    pub(super) async fn end_lapsed(&self, lapsed: Lapsed) -> Result<(), ApiError> {
        let turn = Arc::new(self.adopted(&lapsed)?);
        self.read_whole_log(&turn).await?;
        turn.logged.store(turn.live.len(), std::sync::atomic::Ordering::Release);
        let status =
            if lapsed.cancel_requested { ResponseStatus::Cancelled } else { ResponseStatus::Incomplete };
        let end = End {
            status,
            incomplete_reason: (status == ResponseStatus::Incomplete).then(|| "interrupted".to_owned()),
            error: None,
            usage: None,
            completed_at: None,
        };
        let end = if turn.job.is_some() { whole_or_failed(end) } else { end };
        let (end, lost) = self.store_end(&turn, end, &[]).await;
        if !lost {
            metrics::turn_ended(end.status.as_str(), "taken_over");
            self.wake_job(&turn).await;
        }
        Ok(())
    }

    /// Runs a turn again from its start. Nobody has seen any of it.
    pub(super) async fn run_again(&self, lapsed: Lapsed, until: Option<Instant>) -> Result<(), ApiError> {
        let mut turn = self.adopted(&lapsed)?;
        turn.until = until;
        let turn = Arc::new(turn);
        let request = Arc::new(request_of(&lapsed.request)?);
        let Some(alias) = self.0.router.alias(&lapsed.model).cloned() else {
            return self.fail_lapsed(&turn, "model_not_found", "The model is no longer configured.").await;
        };
        let client = self.client().await?;
        let anchor = Anchor::InputOf(turn.id);
        let most = i64::try_from(alias.context_window()).unwrap_or(i64::MAX);
        let window = threads::load_window(&client, &lapsed.owner, anchor, super::create::WINDOW_ITEMS, most);
        let window = window.await.map_err(away)?;
        drop(client);
        let Some(window) = window else { return Ok(()) };
        let past = super::create::past(&window)?;
        let fixed = crate::llm::estimate_params(&request);
        let answer = super::create::kept_for_answer(&request, &alias);
        let truncation = crate::openresponses::Truncation::Auto;
        let start =
            crate::conversation::window::fit(&past, fixed, answer, alias.context_window(), truncation)?;
        let items: Vec<_> = past[start..].iter().map(|past| Arc::clone(&past.item)).collect();
        let who = Principal {
            owner: lapsed.owner.clone(),
            is_token: lapsed.api_key.is_none(),
            key: lapsed.api_key.clone().unwrap_or_default(),
            ..Principal::default()
        };
        let paying = match self.reserve_for(&who, turn.id.0, &alias, &request, &items).await {
            Ok(paying) => paying,
            Err(error) => return self.fail_lapsed(&turn, error.code, &error.message).await,
        };
        self.0.spend.open(&paying.first);
        self.turns().insert(turn.id, Arc::clone(&turn));
        self.run(turn, alias, ModelRequest { params: request, items }, paying);
        Ok(())
    }

    async fn fail_lapsed(&self, turn: &Arc<Turn>, code: &str, message: &str) -> Result<(), ApiError> {
        let end = End {
            status: ResponseStatus::Failed,
            incomplete_reason: None,
            error: Some(ResponseError { code: code.to_owned(), message: message.to_owned() }),
            usage: None,
            completed_at: None,
        };
        self.store_end(turn, end, &[]).await;
        self.wake_job(turn).await;
        Ok(())
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
