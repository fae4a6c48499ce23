//! Turns that jobs ask for: run inside the job, which waits for their end and is the only one to take them up again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::beginning::Committing;
use super::create::Call;
use super::taken::ended as ended_as;
use super::turn::{StopReason, Turn};
use super::{Engine, away};
use crate::access::Principal;
use crate::conversation::assembler::End;
use crate::conversation::combinations::Transport;
use crate::database::respond;
use crate::database::turns::{self, Aside, Next, OfJob};
use crate::events::message::{self, Hint};
use crate::ids::{JobId, ResponseId};
use crate::llm::BeforeSending;
use crate::openresponses::{ApiError, CreateResponse, Item, Response, ResponseError, ResponseStatus};
use crate::respond::{Answer, INTERRUPTED};
use crate::telemetry::metrics;

/// What a turn that a job asks for has beside its request.
#[derive(Clone, Copy, Debug)]
pub struct ForJob {
    pub of: OfJob,
    /// When the turn is stopped at the latest.
    pub until: Instant,
}

impl Engine {
    /// Begins a turn for a job and waits for its end, which is stored by then.
    ///
    /// The process may have begun to spend a moment ago, so it is made sure first that its death would be noticed.
    ///
    /// Errors: what kept it from beginning, and `turn_lost` where another process has it.
    pub async fn answer(
        &self,
        who: &Principal,
        request: CreateResponse,
        job: ForJob,
    ) -> Result<Response, ApiError> {
        let call = Call {
            transport: Transport::Http,
            idempotency_key: None,
            is_retry: false,
            digest: [0; 32],
            local: None,
            job: Some(job),
        };
        self.0.spend.enrolled().await?;
        let turn = Box::pin(self.create_admitted(who, request, call, None, &Committing::default())).await?;
        ended(&turn).await
    }

    /// Takes up a turn of a job whose process is gone, runs it again from the start, and waits for its end.
    ///
    /// Errors: as [`Engine::answer`]; also if somebody else has it or it has ended.
    pub async fn answer_again(
        &self,
        job: JobId,
        id: ResponseId,
        until: Instant,
    ) -> Result<Response, ApiError> {
        self.0.spend.enrolled().await?;
        let client = self.client().await?;
        let taken = respond::take_over(&client, job, id, self.0.instance, self.0.limits.lease);
        let taken = taken.await.map_err(away)?.ok_or_else(lost)?;
        drop(client);
        let outcome = if taken.next == Next::Run { "restarted" } else { "ended" };
        tracing::warn!(
            code = "turn.taken_over",
            response_id = %id,
            outcome,
            "the process of an event's turn is gone; its model may be paid again",
        );
        metrics::turn_taken_over(outcome);
        self.settle_abandoned(id).await?;
        let owner = taken.owner.clone();
        if taken.next == Next::Run {
            Box::pin(self.run_again(taken, Some(until))).await?;
        } else {
            self.end_as(taken, ended_as(ResponseStatus::Cancelled)).await?;
        }
        match self.local(&owner, id) {
            Some(turn) => ended(&turn).await,
            // It ended before its model was asked.
            None => self.get(&Principal { owner, ..Principal::default() }, &id.to_string(), false).await,
        }
    }

    /// Tells the job that waits for a turn in the background that it has ended. Upkeep finds a job that was not told, later.
    pub(super) async fn wake_job(&self, turn: &Turn) {
        let Some(job) = turn.job.filter(|_| turn.background) else { return };
        let woken = async { respond::wake(&self.0.database.client().await?, job).await };
        match (woken.await, &self.0.jobs) {
            (Ok(true), Some(queue)) => {
                // Our own type: an id and numbers.
                let hint = message::encode(&Hint::new(job)).unwrap_or_default();
                if let Err(error) = queue.put(&hint, Duration::ZERO).await {
                    tracing::warn!(
                        code = "hint_not_sent", %error, id = %job,
                        "a hint could not be sent; `maintain` sends it again"
                    );
                }
            }
            (Ok(_), _) => {}
            (Err(error), _) => drop(away(error)),
        }
    }

    /// Stops what runs here and waits for its end.
    pub async fn stop_all(&self) {
        for turn in self.turns().values() {
            turn.stop(StopReason::Draining);
        }
        let mut open = self.0.open.subscribe();
        // The sender is ours.
        drop(open.wait_for(|open| *open == 0).await);
    }
}

impl Engine {
    /// What of an event's turn the next one of its conversation is not shown: an answer that does not fit, with what it was
    /// an answer to; and of one that fits, what was said about the one before.
    pub(super) fn aside(&self, turn: &Turn, end: &End, items: &[Arc<Item>]) -> Aside {
        if turn.job.is_none() || turn.conversation.is_none() || end.status != ResponseStatus::Completed {
            return Aside::Nothing;
        }
        let route = turn.begun.metadata.get("route").and_then(|name| self.0.responding.get(name));
        let response = Response { output: items.to_vec(), ..turn.begun.clone() };
        // What no route of this process knows, its job judges by its own.
        match route.is_none_or(|route| Answer::of(route, &response).is_ok()) {
            true => Aside::InputBehindFirst,
            false => Aside::Whole,
        }
    }

    /// Of a turn that a job asked for it is written down that a provider is asked, before it is: a job pays for so many
    /// answers in vain only.
    pub(super) fn before_sending(&self, turn: &Turn) -> Option<BeforeSending> {
        let held = turn.held.filter(|_| turn.job.is_some())?;
        let (engine, marked) = (self.clone(), Arc::new(AtomicBool::new(false)));
        Some(BeforeSending::new(move || {
            let (engine, marked) = (engine.clone(), Arc::clone(&marked));
            Box::pin(async move {
                if marked.load(Ordering::Relaxed) {
                    return;
                }
                let mark = async { turns::mark_asked(&engine.0.database.client().await?, held).await };
                match mark.await {
                    Ok(()) => marked.store(true, Ordering::Relaxed),
                    // Should the process die now, one answer more than allowed may be paid for.
                    Err(error) => drop(away(error)),
                }
            })
        }))
    }
}

async fn ended(turn: &Arc<Turn>) -> Result<Response, ApiError> {
    let mut changes = turn.live.changes();
    loop {
        changes.borrow_and_update();
        if let Some(response) = turn.live.result() {
            return Ok((*response).clone());
        }
        if turn.live.was_cut().is_some() || changes.changed().await.is_err() {
            return Err(lost());
        }
    }
}

fn lost() -> ApiError {
    ApiError::unavailable("turn_lost", "The turn has ended elsewhere, or another process runs it.")
}

/// Of what an event asks for half an answer is none: it fails, so that the event is not said twice in its conversation
/// when it is asked again.
pub(super) fn whole_or_failed(end: End) -> End {
    if end.status != ResponseStatus::Incomplete {
        return end;
    }
    let code = end.incomplete_reason.unwrap_or_else(|| INTERRUPTED.to_owned());
    let message = "The answer did not come to its end.".to_owned();
    End {
        status: ResponseStatus::Failed,
        incomplete_reason: None,
        error: Some(ResponseError { code, message }),
        ..end
    }
}
