//! One turn, as the process that runs it sees it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;
use tracing::Span;
use tracing::field::Empty;

use crate::conversation::log::LogParts;
use crate::conversation::{Assembler, Live, Viewer};
use crate::database::turns::Held;
use crate::ids::{ConversationId, JobId, ResponseId};
use crate::openresponses::{ApiError, Form, Item, Response, ResponseStatus};
use crate::telemetry::metrics::{self, ServedTurn};
use crate::telemetry::trace;

/// Why a turn is to stop before its model is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopReason {
    /// Nobody is watching any more.
    Disconnected,
    /// Somebody said so.
    Cancelled,
    /// It has had its time.
    Overdue,
    /// This process stops.
    Draining,
    /// Another process has it: nothing may be written any more.
    LostLease,
}

/// What happens when the last viewer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    Continue,
    /// After a grace.
    Cancel,
}

/// A turn that runs here, or ran here a moment ago.
#[derive(Debug)]
pub struct Turn {
    pub id: ResponseId,
    pub owner: String,
    /// Who asked for it and pays, if not the owner.
    caller: Option<String>,
    /// The name of the caller's key.
    pub key: String,
    /// `None`: not stored.
    pub held: Option<Held>,
    pub conversation: Option<ConversationId>,
    pub live: Arc<Live>,
    /// The response as it was when the turn began.
    pub begun: Response,
    pub show_encrypted: bool,
    pub on_disconnect: OnDisconnect,
    pub background: bool,
    /// The job it answers to.
    pub job: Option<JobId>,
    /// When it is stopped at the latest.
    pub(super) until: Option<Instant>,
    pub(super) started: Instant,
    /// When it was asked for, if that was here.
    asked: OnceLock<Instant>,
    /// When the first piece of the answer was shown.
    first_shown: OnceLock<Instant>,
    stop: watch::Sender<Option<StopReason>>,
    opened: watch::Sender<Option<Result<(), ApiError>>>,
    pub(super) log: LogParts,
    /// Whether the writer knows that there is more to log.
    pub(super) dirty: AtomicBool,
    pub(super) unlogged: AtomicBool,
    /// The log refuses the turn for another reason than an outage; nobody waits for it any more.
    pub(super) unloggable: AtomicBool,
    viewed: AtomicBool,
    /// It was begun by a request that has not been answered yet.
    unanswered: AtomicBool,
    failure: OnceLock<ApiError>,
    /// The service tier that serves it, as its provider says.
    tier: OnceLock<String>,
    /// For its conversation, should that have none yet.
    pub(super) title: Option<String>,
    /// What the model was shown, where only the connection remembers it.
    context: Vec<Arc<Item>>,
    /// How often it was put off because its provider was out. `None`: it does not wait for one.
    pub(super) waits: Option<i16>,
    /// Of the span in which it was asked for, if that was not here and now.
    trace_parent: Option<String>,
}

/// What an operator sees of a turn.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    pub id: ResponseId,
    pub model: String,
    pub stored: bool,
    pub background: bool,
    pub age_seconds: u64,
    pub viewers: usize,
    pub chunks: usize,
    pub logged: usize,
    /// `model`, `log`, or `nothing` once it ended.
    pub awaits: &'static str,
}

/// What a turn is made of.
pub(super) struct NewTurn {
    pub id: ResponseId,
    pub owner: String,
    /// Who asked for it and pays, if not the owner.
    pub caller: Option<String>,
    pub key: String,
    pub held: Option<Held>,
    pub conversation: Option<ConversationId>,
    pub begun: Response,
    pub show_encrypted: bool,
    pub on_disconnect: OnDisconnect,
    pub title: Option<String>,
    /// What the model is shown, if only the connection remembers it.
    pub context: Vec<Arc<Item>>,
    pub job: Option<JobId>,
    pub until: Option<Instant>,
    /// How often it was put off because its provider was out. `None`: it does not wait for one.
    pub waits: Option<i16>,
    /// Of the span in which it was asked for, if that was not here and now.
    pub trace_parent: Option<String>,
}

impl Turn {
    pub(super) fn new(new: NewTurn) -> Self {
        let NewTurn {
            id,
            owner,
            caller,
            key,
            held,
            conversation,
            begun,
            show_encrypted,
            on_disconnect,
            title,
            context,
            job,
            until,
            waits,
            trace_parent,
        } = new;
        Self {
            id,
            owner,
            caller,
            key,
            held,
            conversation,
            live: Arc::default(),
            background: begun.background,
            begun,
            show_encrypted,
            on_disconnect,
            job,
            until,
            started: Instant::now(),
            asked: OnceLock::new(),
            first_shown: OnceLock::new(),
            stop: watch::Sender::new(None),
            opened: watch::Sender::new(None),
            log: LogParts::default(),
            dirty: AtomicBool::new(false),
            unlogged: AtomicBool::new(false),
            unloggable: AtomicBool::new(false),
            viewed: AtomicBool::new(false),
            unanswered: AtomicBool::new(false),
            failure: OnceLock::new(),
            tier: OnceLock::new(),
            title,
            context,
            waits,
            trace_parent,
        }
    }

    /// Somebody who follows the turn from the event after number `after`, or from the first.
    pub fn viewer(&self, form: impl Into<Form>, after: Option<u64>) -> Viewer {
        let assembler = Assembler::new(self.begun.clone(), self.id.0, self.show_encrypted);
        Viewer::new(Arc::clone(&self.live), assembler, form, after)
    }

    /// Who asked for it and pays.
    pub(super) fn payer(&self) -> &str {
        self.caller.as_deref().unwrap_or(&self.owner)
    }

    /// Everything up to the turn's end, for the next turn of the same connection.
    pub fn remembered(&self) -> Vec<Arc<Item>> {
        let mut items = self.context.clone();
        items.extend(self.live.result().into_iter().flat_map(|response| response.output.clone()));
        items
    }

    /// The span of the turn's life: a part of the trace in which it was asked for, but longer than the request.
    pub(super) fn span(&self) -> Span {
        let span = tracing::info_span!(
            "turn",
            otel.status_code = Empty,
            response_id = %self.id,
            gen_ai.response.id = %self.id,
            gen_ai.request.model = self.begun.model,
            gen_ai.conversation.id = self.conversation.map(tracing::field::display),
            colloquy.turn.stored = self.held.is_some(),
            colloquy.turn.background = self.background,
            colloquy.turn.status = Empty,
            error.type = Empty,
        );
        trace::carry_on(&span, self.trace_parent.as_deref());
        span
    }

    /// Says when the turn was asked for, a little before it began.
    pub(super) fn set_asked(&self, at: Instant) {
        self.asked.get_or_init(|| at);
        self.unanswered.store(true, Ordering::Relaxed);
    }

    /// Whether this answers the request that began the turn: once, and not where the turn was only found again.
    pub(super) fn take_unanswered(&self) -> bool {
        self.unanswered.swap(false, Ordering::Relaxed)
    }

    /// Says that a piece of the answer is shown.
    pub(super) fn set_shown(&self) {
        self.first_shown.get_or_init(Instant::now);
    }

    /// Tells of the turn's end, as whoever asked for it met it.
    pub(super) fn tell(&self, status: ResponseStatus, reason: &str, output_tokens: Option<u64>) {
        let failed = self.failure().map_or("", |error| error.code);
        let asked = self.asked.get().copied().unwrap_or(self.started);
        metrics::turn_ended(status.as_str(), reason);
        metrics::turn_served(&ServedTurn {
            model: &self.begun.model,
            error: failed,
            elapsed: asked.elapsed(),
            to_first: self.first_shown.get().map(|first| first.duration_since(asked)),
            output_tokens,
        });
        let span = Span::current();
        span.record("colloquy.turn.status", status.as_str());
        if !failed.is_empty() {
            span.record("error.type", failed).record("otel.status_code", "ERROR");
        }
    }

    /// The reason of an end that nobody chose: what was taken back before it counts more than the interruption.
    pub(super) fn why_cut_short(&self) -> &'static str {
        if self.live.is_retracted() { "content_filter" } else { "interrupted" }
    }

    /// Says that somebody sees the turn. `true` the first time.
    pub(super) fn set_viewed(&self) -> bool {
        !self.viewed.swap(true, Ordering::Relaxed)
    }

    pub(super) fn was_viewed(&self) -> bool {
        self.viewed.load(Ordering::Relaxed)
    }

    /// Asks the turn to stop. Of several reasons the strongest stands.
    pub fn stop(&self, reason: StopReason) {
        self.stop.send_if_modified(|present| {
            let stronger = present.is_none_or(|present| present < reason);
            if stronger {
                *present = Some(reason);
            }
            stronger
        });
    }

    /// Completes once the turn is to stop.
    pub(super) async fn stopped(&self) -> StopReason {
        let mut stop = self.stop.subscribe();
        let reason = stop.wait_for(Option::is_some).await.ok().and_then(|reason| *reason);
        match reason {
            Some(reason) => reason,
            // The sender is ours, so this cannot be.
            None => std::future::pending().await,
        }
    }

    /// Completes once another process has the turn.
    pub(super) async fn lost_lease(&self) {
        let mut stop = self.stop.subscribe();
        if stop.wait_for(|reason| *reason == Some(StopReason::LostLease)).await.is_err() {
            std::future::pending().await
        }
    }

    pub(super) fn stop_reason(&self) -> Option<StopReason> {
        *self.stop.borrow()
    }

    /// Says whether the provider began to answer.
    pub(super) fn set_opened(&self, result: Result<(), ApiError>) {
        self.opened.send_if_modified(|present| {
            let first = present.is_none();
            if first {
                *present = Some(result);
            }
            first
        });
    }

    /// Waits until the provider began to answer, and at most so long: a caller can then still be told of a refusal by a
    /// status of its own. `Ok` also if it is not known yet.
    pub async fn opened(&self, patience: Duration) -> Result<(), ApiError> {
        let mut opened = self.opened.subscribe();
        let known = tokio::time::timeout(patience, opened.wait_for(Option::is_some)).await;
        match known {
            Ok(Ok(result)) => result.clone().unwrap_or(Ok(())),
            _ => Ok(()),
        }
    }

    /// Says which service tier serves the turn.
    pub(super) fn set_tier(&self, tier: &str) {
        self.tier.get_or_init(|| tier.to_owned());
    }

    pub(super) fn tier(&self) -> Option<String> {
        self.tier.get().cloned()
    }

    /// Says what the turn failed of, before its end is shown.
    pub(super) fn set_failure(&self, error: ApiError) {
        // A turn has one end.
        drop(self.failure.set(error));
    }

    /// What the turn failed of, as a caller is told who has not been answered yet. `None` also where another process
    /// ran it.
    pub fn failure(&self) -> Option<&ApiError> {
        self.failure.get()
    }

    /// Whether the same request, sent again, deserves another turn: this one failed, or was given up because nobody
    /// watched.
    pub(super) fn is_spoilt(&self) -> bool {
        self.failure().is_some() || self.stop_reason() == Some(StopReason::Disconnected)
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let (chunks, logged) = (self.live.len(), self.log.chunks());
        Snapshot {
            id: self.id,
            model: self.begun.model.clone(),
            stored: self.held.is_some(),
            background: self.background,
            age_seconds: self.started.elapsed().as_secs(),
            viewers: self.live.viewers(),
            chunks,
            logged,
            awaits: if self.live.ended().is_some() {
                "nothing"
            } else if self.held.is_some() && logged < chunks {
                "log"
            } else {
                "model"
            },
        }
    }
}
