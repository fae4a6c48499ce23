//! Turns that come to this process from the database: their holder fell silent, or they were queued and nobody's.

use std::sync::Arc;
use std::time::Instant;

use tracing::Instrument;

use super::jobs::whole_or_failed;
use super::past::{Reach, fitting};
use super::paying::Paying;
use super::run::Stored;
use super::stored::request_of;
use super::turn::{NewTurn, OnDisconnect, Turn};
use super::{Engine, away};
use crate::access::Principal;
use crate::conversation::assembler::End;
use crate::conversation::log;
use crate::database::DatabaseError;
use crate::database::threads::Anchor;
use crate::database::turn_log::{self, LogCursor};
use crate::database::turns::{self, MAX_RESTARTS, Next, Taken};
use crate::ids::ResponseId;
use crate::llm::{Alias, ModelRequest, no_such_model};
use crate::openresponses::{ApiError, ConversationOf, Include, Response, ResponseError, ResponseStatus};
use crate::telemetry::metrics;

/// Turns taken over at a time.
pub(super) const BATCH: i64 = 20;

impl Engine {
    /// Takes over what others left: ended with what they logged, or run again if nobody saw any of it. No more are run
    /// than there is room for (`TURNS_MAX`): the others are left to other processes, or to a later sweep.
    pub(super) async fn take_over(&self) -> Result<(), DatabaseError> {
        let room = self.spare_room();
        let limit = if room == 0 { BATCH } else { BATCH.min(room) };
        let client = self.0.database.client().await?;
        let lapsed = turns::lapsed(&client, limit, room > 0, self.0.instance, self.0.limits.lease).await?;
        drop(client);
        for taken in lapsed {
            let id = taken.held.response;
            let outcome = if taken.next == Next::Run { "restarted" } else { "ended" };
            tracing::info!(
                code = "turn.taken_over",
                response_id = %id,
                outcome,
                "a turn whose process fell silent was taken over",
            );
            if let Err(error) = self.settle_abandoned(id).await {
                tracing::warn!(code = error.code, response_id = %id, "what a lost process spent could not be settled");
                continue;
            }
            if self.carry_on(taken).await {
                metrics::turn_taken_over(outcome);
            }
        }
        Ok(())
    }

    /// What the process before was about to spend on it is known as far as it will be.
    pub(super) async fn settle_abandoned(&self, id: ResponseId) -> Result<(), ApiError> {
        let client = self.client().await?;
        self.0.spend.settle_abandoned(&client, id.0).await.map_err(away).map(drop)
    }

    /// Does with a turn what is to be done. `false`: that failed, its lease lapses, and another sweep tries.
    pub(super) async fn carry_on(&self, taken: Taken) -> bool {
        let id = taken.held.response;
        let done = match taken.next {
            Next::Run if self.is_held(&taken) => self.set_aside(&taken).await,
            Next::Run => self.run_again(taken, None).await,
            Next::Cancel => self.end_as(taken, ended(ResponseStatus::Cancelled)).await,
            Next::Interrupt => self.end_as(taken, End::cut_short("interrupted")).await,
            Next::GiveUp => {
                let message = format!(
                    "The server's process ended {} times before this response was done. It is not run again.",
                    MAX_RESTARTS + 1
                );
                self.end_as(taken, failed("process_lost", &message)).await
            }
        };
        if let Err(error) = &done {
            tracing::warn!(code = error.code, response_id = %id, "a turn that was taken could not be carried on");
        }
        done.is_ok()
    }

    fn adopted(&self, taken: &Taken) -> Result<Turn, ApiError> {
        let request = request_of(&taken.request)?;
        let begun = Response {
            background: taken.background,
            previous_response_id: taken.previous_response.map(|id| id.to_string()),
            conversation: taken.conversation.map(|id| ConversationOf { id: id.to_string() }),
            ..Response::begun(
                &request,
                taken.held.response.to_string(),
                taken.model.clone(),
                taken.created_at.as_second(),
            )
        };
        Ok(Turn::new(NewTurn {
            id: taken.held.response,
            owner: taken.owner.clone(),
            caller: taken.caller.clone(),
            key: taken.api_key.clone().unwrap_or_default(),
            held: Some(taken.held),
            conversation: taken.conversation,
            begun,
            show_encrypted: request.includes(Include::ReasoningEncryptedContent),
            on_disconnect: OnDisconnect::Continue,
            title: None,
            context: Vec::new(),
            waits: taken.waits,
            job: taken.job,
            until: None,
            trace_parent: taken.trace_parent.clone(),
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
    pub(super) async fn end_as(&self, taken: Taken, mut end: End) -> Result<(), ApiError> {
        if taken.job.is_some() {
            end = whole_or_failed(end);
        }
        let turn = Arc::new(self.adopted(&taken)?);
        let ending = async {
            self.read_whole_log(&turn).await?;
            if let Some(reason) = &mut end.incomplete_reason {
                turn.why_cut_short().clone_into(reason);
            }
            turn.log.was_read(turn.live.len());
            let (end, stored) = self.store_end(&turn, end).await;
            if stored != Stored::Lost {
                metrics::turn_ended(end.status.as_str(), "taken_over");
                self.wake_job(&turn).await;
            }
            Ok(())
        };
        ending.instrument(turn.span()).await
    }

    /// Runs a turn from its start. Nobody has seen any of it.
    pub(super) async fn run_again(&self, taken: Taken, until: Option<Instant>) -> Result<(), ApiError> {
        let mut turn = self.adopted(&taken)?;
        turn.until = until;
        let turn = Arc::new(turn);
        match self.prepare(&taken).await {
            Ok(Some((alias, request, paying))) => {
                self.0.spend.open_before_asking(&paying.first).await;
                self.turns().insert(turn.id, Arc::clone(&turn));
                self.run(turn, alias, request, paying);
                Ok(())
            }
            // It is gone, or its conversation is.
            Ok(None) => {
                self.store_end(&turn, ended(ResponseStatus::Cancelled)).instrument(turn.span()).await;
                Ok(())
            }
            Err(error) if error.status.is_server_error() => Err(error),
            // Nothing gets better by trying again.
            Err(error) => {
                let ending = async {
                    self.store_end(&turn, failed(error.code, &error.message)).await;
                    self.wake_job(&turn).await;
                };
                ending.instrument(turn.span()).await;
                Ok(())
            }
        }
    }

    /// What a turn needs to run from its start.
    async fn prepare(&self, taken: &Taken) -> Result<Option<(Arc<Alias>, ModelRequest, Paying)>, ApiError> {
        let request = Arc::new(request_of(&taken.request)?);
        let alias = self.0.router.alias(&taken.model).cloned().ok_or_else(|| no_such_model(&taken.model))?;
        let anchor = Anchor::InputOf(taken.held.response);
        // A summary is made before a turn begins, and not again.
        let reach = Reach::without_summary(&request);
        let window = self.window(&taken.owner, anchor, &alias, reach).await?;
        let Some(window) = window else { return Ok(None) };
        let items = fitting(&window, &request, &alias, reach, &[])?.items;
        // Who asked for it pays, on whosever conversation it is.
        let who = Principal {
            owner: taken.caller.clone().unwrap_or_else(|| taken.owner.clone()),
            is_token: taken.api_key.is_none(),
            key: taken.api_key.clone().unwrap_or_default(),
            ..Principal::default()
        };
        self.permit(&who, &alias).await?;
        let all = items.len();
        let items = self.opened(&who, Some(&window), items, all).await?;
        let mut paying = self.reserve_for(&who, taken.held.response.0, &alias, &request, &items).await?;
        // It was taken in once: where there is no place it goes on all the same.
        paying.unwatched = Some(self.0.unwatched.take_anyway(&who.owner));
        Ok(Some((alias, ModelRequest { params: paying.limited(&request), items }, paying)))
    }
}

pub(super) fn ended(status: ResponseStatus) -> End {
    End { status, incomplete_reason: None, error: None, usage: None, service_tier: None, completed_at: None }
}

fn failed(code: &str, message: &str) -> End {
    let error = ResponseError { code: code.to_owned(), message: message.to_owned() };
    End { error: Some(error), ..ended(ResponseStatus::Failed) }
}
