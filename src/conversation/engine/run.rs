//! The life of a turn: the provider's pieces come in, go to the log and to viewers, and there is an end in any case.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{Instrument, Span};

use super::ends::{Outcome, Told, become_stored, describe, why};
use super::input::OwnItem;
use super::jobs::whole_or_failed;
use super::paying::Paying;
use super::scrub::scrub_log;
use super::turn::{StopReason, Turn};
use super::{Engine, away};
use crate::conversation::assembler::{Assembler, End, NoSink, item_uuid};
use crate::conversation::live::Cut;
use crate::database::turns::{self, Ended, Finish};
use crate::llm::spend::{Reason, Settlement};
use crate::llm::{Alias, Chunk, Finish as Stop, ModelRequest, Upstream, estimate_item};
use crate::openresponses::{Item, Response, ResponseStatus};
use crate::telemetry::{metrics, trace};

/// How long pieces that come one right after the other are gathered before they go on.
const TOGETHER: Duration = Duration::from_millis(1);
/// How long a caller waits for the end of a failed turn to be stored before it is told of the failure.
const TOLD_AFTER: Duration = Duration::from_secs(1);

impl Engine {
    /// Runs the turn in the background until its end is stored and shown.
    pub(super) fn run(&self, turn: Arc<Turn>, alias: Arc<Alias>, request: ModelRequest, mut paying: Paying) {
        let engine = self.clone();
        let open = Open::new(self, &turn);
        let span = turn.span();
        self.0.tasks.spawn_in(Span::none(), "turn", async move {
            let life = async {
                let outcome = engine.converse(&turn, &alias, &request, &mut paying).await;
                drop(request);
                let Some(paying) = engine.put_off(&turn, &outcome, paying).await else { return false };
                let failure = match &outcome {
                    Outcome::Failed(error) => Some(error.to_api()),
                    _ => None,
                };
                let mut end = Box::pin(engine.end(&turn, outcome, paying));
                let mut stored = false;
                if let Some(error) = failure.clone() {
                    turn.set_failure(error);
                    // Whoever is told of it and tries again, anywhere, is not to find a turn that still runs.
                    stored = tokio::time::timeout(TOLD_AFTER, end.as_mut()).await.is_ok();
                }
                turn.set_opened(failure.map_or(Ok(()), Err));
                if !stored {
                    end.await;
                }
                true
            };
            if !life.instrument(span).await {
                return;
            }
            drop(open);
            if turn.live.was_cut() != Some(Cut::Deleted) {
                // Viewers that come back a moment later need no log.
                let kept = tokio::time::sleep(engine.0.limits.kept);
                engine.0.tasks.stopping().run_until_cancelled(kept).await;
            }
            engine.forget(&turn);
        });
    }

    /// Reads the provider until it is done, fails, or the turn is to stop.
    async fn converse(
        &self,
        turn: &Arc<Turn>,
        alias: &Arc<Alias>,
        request: &ModelRequest,
        paying: &mut Paying,
    ) -> Outcome {
        let mut stop = std::pin::pin!(self.stop(turn));
        let mut limits = paying.limits(&self.0.spend, turn.held.is_some());
        limits.deadline = turn.until.map(Into::into);
        limits.before_sending = self.before_sending(turn);
        let cancel = limits.cancel.clone();
        // Boxed like the end: a turn that streams has no room for how it began.
        let mut opening = Box::pin(self.0.router.open(alias, request, limits));
        let opened = tokio::select! {
            biased;
            reason = stop.as_mut() => {
                // The attempts are told of in any case: they may have been charged.
                cancel.cancel();
                paying.tried(opening.await.attempts, None);
                return Outcome::Stopped(reason);
            }
            opened = opening.as_mut() => opened,
        };
        drop(opening);
        let mut stream = match opened.result {
            Ok(stream) => stream,
            Err(error) => {
                paying.tried(opened.attempts, None);
                return Outcome::Failed(error);
            }
        };
        paying.tried(opened.attempts, Some(&stream));
        turn.set_opened(Ok(()));
        let mut finish = None;
        let mut said = 0;
        loop {
            let first = tokio::select! {
                biased;
                reason = stop.as_mut() => return Outcome::Stopped(reason),
                next = stream.next() => next,
            };
            let mut chunks = Vec::new();
            let mut end = None;
            let mut next = Some(first);
            let began = Instant::now();
            // What has come already goes on together.
            while let Some(event) = next.take() {
                match event {
                    Some(Ok(Upstream::Chunk(chunk))) => {
                        if matches!(chunk, Chunk::Retract { .. }) {
                            self.pass_on(turn, std::mem::take(&mut chunks));
                            paying.retracted = self.counted(turn).max(paying.retracted);
                        }
                        said += chunk.bytes();
                        chunks.push(chunk);
                    }
                    Some(Ok(Upstream::Usage(tokens))) => paying.usage = Some(tokens),
                    Some(Ok(Upstream::RawUsage(raw))) => paying.raw = Some(raw),
                    Some(Ok(Upstream::Tier(tier))) => turn.set_tier(&tier),
                    Some(Ok(Upstream::Finish(reason))) => finish = Some(reason),
                    Some(Err(error)) => end = Some(Outcome::Failed(error)),
                    None => {
                        paying.whole = true;
                        end = Some(Outcome::Finished(finish.unwrap_or(Stop::Stop)));
                    }
                }
                if end.is_none() && began.elapsed() < TOGETHER {
                    next = stream.ready().await;
                }
            }
            self.pass_on(turn, chunks);
            if let Some(end) = end {
                return end;
            }
            if finish.is_none() && !paying.is_covered(said) {
                let covered = tokio::select! {
                    biased;
                    reason = stop.as_mut() => return Outcome::Stopped(reason),
                    covered = Box::pin(paying.cover(&self.0.spend, said)) => covered,
                };
                if !covered {
                    return Outcome::Finished(Stop::Length);
                }
            }
        }
    }

    /// Shows pieces, once they are durable if the turn is stored.
    pub(super) fn pass_on(&self, turn: &Arc<Turn>, chunks: Vec<Chunk>) {
        if chunks.is_empty() {
            return;
        }
        if turn.held.is_none() || turn.unlogged.load(Ordering::Relaxed) {
            turn.live.keep_and_show(chunks);
            turn.set_shown();
        } else {
            turn.live.keep(chunks);
        }
        if turn.held.is_some() {
            self.0.writer.notify(turn);
        }
    }

    /// Writes the end down and shows it.
    async fn end(&self, turn: &Arc<Turn>, outcome: Outcome, paying: Paying) {
        let unfinished_by_drain = matches!(outcome, Outcome::Stopped(StopReason::Draining));
        if matches!(outcome, Outcome::Stopped(StopReason::LostLease)) {
            self.lost(turn, paying);
            return;
        }
        if unfinished_by_drain && turn.background && !turn.was_viewed() && turn.held.is_some() {
            // Nobody saw anything of it: another process runs it again.
            turn.live.cut(Cut::Draining);
            self.pay(turn, paying, Reason::Interrupted);
            self.release(turn).await;
            metrics::turn_ended("released", "draining");
            return;
        }
        let (end, reason) = describe(turn, &outcome, paying.usage);
        let end = End { service_tier: turn.tier(), ..end };
        let end = if turn.job.is_some() { whole_or_failed(end) } else { end };
        let why = why(&outcome);
        if let Outcome::Failed(error) = &outcome {
            tracing::warn!(code = error.code, response_id = %turn.id, %error, "a turn failed");
        }
        let (response, items) = self.assemble(turn).finish(&end, &mut NoSink);
        let asked = end.status;
        let rows = paying.settlements(&items, why);
        let (end, stored) = if turn.held.is_some() {
            self.store_items(turn, end, &items, &rows).await
        } else {
            self.settle(&rows);
            (end, Stored::Whole)
        };
        if stored == Stored::Lost {
            self.lost(turn, paying);
            return;
        }
        paying.charge(&rows);
        turn.tell(end.status, reason, end.usage.as_ref().map(|usage| usage.output_tokens));
        self.wake_job(turn).await;
        let response = if end.status == asked {
            Response { completed_at: end.completed_at, ..response }
        } else {
            self.assemble(turn).finish(&end, &mut NoSink).0
        };
        if stored == Stored::Deleted {
            // Before its end, which nobody is to see any more.
            turn.live.cut(Cut::Deleted);
        }
        turn.live.end(end, response);
    }

    /// Another process has the turn. What it cost here is paid here.
    fn lost(&self, turn: &Turn, paying: Paying) {
        turn.live.cut(Cut::LostLease);
        self.pay(turn, paying, Reason::Interrupted);
        metrics::turn_ended("lost", "lost_lease");
    }

    /// Writes down what a turn cost, apart from its end.
    pub(super) fn pay(&self, turn: &Turn, paying: Paying, reason: Reason) {
        let (_, items) = self.assemble(turn).finish(&End::cut_short("interrupted"), &mut NoSink);
        let rows = paying.settlements(&items, reason);
        self.settle(&rows);
        paying.charge(&rows);
    }

    fn settle(&self, rows: &[Settlement]) {
        for row in rows {
            self.0.spend.settle(row.clone());
        }
    }

    /// Tokens of everything kept so far, as we count them.
    fn counted(&self, turn: &Turn) -> u64 {
        let (_, items) = self.assemble(turn).finish(&End::cut_short("content_filter"), &mut NoSink);
        items.iter().map(|item| estimate_item(item)).sum()
    }

    /// Everything kept so far, put together.
    pub(super) fn assemble(&self, turn: &Turn) -> Assembler {
        let mut assembler = Assembler::new(turn.begun.clone(), turn.id.0, turn.show_encrypted);
        assembler.begin(&mut NoSink);
        for chunk in turn.live.chunks() {
            assembler.push(&chunk, &mut NoSink);
        }
        assembler
    }

    /// The last commit of a stored turn, tried until it lasts or the turn is lost. Gives the end as it was stored.
    pub(super) async fn store_end(&self, turn: &Arc<Turn>, end: End) -> (End, Stored) {
        let (_, items) = self.assemble(turn).finish(&end, &mut NoSink);
        self.store_items(turn, end, &items, &[]).await
    }

    /// The same, of a turn that was put together already, with the ends of its attempts.
    async fn store_items(
        &self,
        turn: &Arc<Turn>,
        mut end: End,
        items: &[Arc<Item>],
        rows: &[Settlement],
    ) -> (End, Stored) {
        const PAUSE: Duration = Duration::from_millis(100);
        const LONGEST_PAUSE: Duration = Duration::from_secs(5);
        let mut pause = PAUSE;
        let Some(held) = turn.held else { return (end, Stored::Whole) };
        self.flush(turn).await;
        let own: Vec<OwnItem> = items
            .iter()
            .zip(0_u32..)
            .filter_map(|(item, index)| OwnItem::of(Arc::clone(item), item_uuid(turn.id.0, index)).ok())
            .collect();
        let output: Vec<_> = own.iter().map(OwnItem::row).collect();
        let error = end.error.as_ref().and_then(|error| serde_json::to_string(error).ok());
        let usage = Told::of(&end).json();
        let finish = Finish {
            held,
            state: end.status,
            output: &output,
            incomplete_reason: end.incomplete_reason.as_deref(),
            error: error.as_deref(),
            usage: usage.as_deref(),
            title: turn.title.as_deref(),
            keep_log: self.0.limits.log_retention,
            // Whoever tries again in a conversation does not say it twice.
            drop_failed_input: turn.conversation.is_some(),
            trace_parent: Some(&trace::current()),
            aside: self.aside(turn, &end, items),
            parts: if turn.unloggable.load(Ordering::Acquire) { 0 } else { turn.log.parts() },
        };
        loop {
            let stored = async {
                let mut client = self.0.database.client().await?;
                let (rows, budgeted) = self.0.spend.settled_with_turn(rows);
                if !turn.live.is_retracted() {
                    return turns::finish_and_settle(&client, &finish, rows, budgeted).await;
                }
                let transaction = client.transaction().await?;
                let ended = turns::finish_and_settle(&transaction, &finish, rows, budgeted).await?;
                if matches!(ended, Ended::As { .. }) {
                    scrub_log(&transaction, turn).await?;
                }
                transaction.commit().await?;
                Ok(ended)
            };
            match stored.await {
                Ok(
                    Ended::As { state, completed_at, callback, deleted }
                    | Ended::Already { state, completed_at, callback, deleted },
                ) => {
                    self.hint(callback);
                    become_stored(&mut end, state, completed_at);
                    if deleted || state == ResponseStatus::Cancelled {
                        self.trim_if_deleted(turn.id);
                    }
                    return (end, if deleted { Stored::Deleted } else { Stored::Whole });
                }
                Ok(Ended::Lost) => return (end, Stored::Lost),
                Ok(Ended::LogShort) => {
                    if let Err(error) = self.log_what_was_lost(std::slice::from_ref(turn)).await {
                        metrics::database_error(error.code());
                    }
                    self.flush(turn).await;
                }
                Err(error) if error.is_retryable() => {
                    metrics::database_error(error.code());
                    tracing::warn!(code = error.code(), %error, response_id = %turn.id, "a turn's end could not be stored yet");
                    if turn.stop_reason() == Some(StopReason::LostLease) {
                        return (end, Stored::Lost);
                    }
                }
                Err(error) => {
                    drop(away(error));
                    // Another process, perhaps another version, will find it when the lease has run out.
                    return (end, Stored::Lost);
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits until the log has everything: what is resumed later is replayed from it and must lead to what is stored.
    /// As long as the database is away, the end could not be stored either.
    async fn flush(&self, turn: &Arc<Turn>) {
        let mut changes = turn.live.changes();
        loop {
            changes.borrow_and_update();
            let done = turn.log.chunks() >= turn.live.len()
                || turn.unloggable.load(Ordering::Acquire)
                || turn.stop_reason() == Some(StopReason::LostLease);
            if done {
                return;
            }
            self.0.writer.notify(turn);
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                _ = turn.lost_lease() => return,
            }
        }
    }
}

/// What storing a turn's end came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Whole,
    /// It had been deleted.
    Deleted,
    /// Another process has it, or will.
    Lost,
}

/// A turn in flight, counted.
struct Open(Engine, Arc<Turn>);

impl Open {
    fn new(engine: &Engine, turn: &Arc<Turn>) -> Self {
        engine.0.open.send_modify(|open| *open += 1);
        Self(engine.clone(), Arc::clone(turn))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Self(engine, turn) = self;
        engine.0.open.send_modify(|open| *open = open.saturating_sub(1));
        if turn.live.ended().is_none() && turn.live.was_cut().is_none() {
            // It panicked: its lease is renewed no more, and another process ends it.
            turn.live.cut(Cut::LostLease);
            engine.turns().remove(&turn.id);
        }
    }
}
