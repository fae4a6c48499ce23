//! How a turn ended, in the words of those who are told: its viewers, its row, its account.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::turn::{StopReason, Turn};
use crate::conversation::assembler::End;
use crate::llm::spend::Reason;
use crate::llm::{Finish as Stop, LlmError, TokenUsage};
use crate::openresponses::{InputTokensDetails, OutputTokensDetails, ResponseError, ResponseStatus, Usage};
use crate::respond::TIME_LIMIT;

/// What ended a turn, before it is written down.
#[derive(Debug)]
pub(super) enum Outcome {
    Finished(Stop),
    Failed(LlmError),
    Stopped(StopReason),
}

/// What ended a turn, as its usage says it.
pub(super) fn why(outcome: &Outcome) -> Reason {
    match outcome {
        Outcome::Finished(Stop::Stop | Stop::ToolCalls) => Reason::Completed,
        Outcome::Finished(Stop::Length | Stop::ContentFilter) => Reason::Incomplete,
        Outcome::Failed(_) => Reason::Failed,
        Outcome::Stopped(StopReason::Cancelled) => Reason::Cancelled,
        Outcome::Stopped(StopReason::Disconnected) => Reason::Disconnected,
        Outcome::Stopped(StopReason::Overdue | StopReason::Draining | StopReason::LostLease) => {
            Reason::Interrupted
        }
    }
}

/// The end of a turn, and what to call its cause.
pub(super) fn describe(turn: &Turn, outcome: &Outcome, usage: Option<TokenUsage>) -> (End, &'static str) {
    let usage = usage.map(shown);
    let end = |status, reason: Option<&str>| End {
        status,
        incomplete_reason: reason.map(str::to_owned),
        error: None,
        usage,
        service_tier: None,
        completed_at: (status == ResponseStatus::Completed).then(|| Timestamp::now().as_second()),
    };
    match outcome {
        Outcome::Finished(Stop::Stop | Stop::ToolCalls) => (end(ResponseStatus::Completed, None), "finished"),
        Outcome::Finished(Stop::Length) => {
            (end(ResponseStatus::Incomplete, Some("max_output_tokens")), "max_output_tokens")
        }
        Outcome::Finished(Stop::ContentFilter) => {
            (end(ResponseStatus::Incomplete, Some("content_filter")), "content_filter")
        }
        Outcome::Failed(error) => {
            let shown = error.to_api();
            let error = ResponseError { code: shown.code.to_owned(), message: shown.message };
            (End { error: Some(error), ..end(ResponseStatus::Failed, None) }, "failed")
        }
        Outcome::Stopped(StopReason::Cancelled) => (end(ResponseStatus::Cancelled, None), "cancelled"),
        Outcome::Stopped(StopReason::Disconnected) => (end(ResponseStatus::Cancelled, None), "disconnected"),
        Outcome::Stopped(StopReason::Overdue) => {
            (end(ResponseStatus::Incomplete, Some(TIME_LIMIT)), TIME_LIMIT)
        }
        Outcome::Stopped(StopReason::Draining | StopReason::LostLease) => {
            debug_assert!(turn.stop_reason().is_some());
            (end(ResponseStatus::Incomplete, Some(turn.why_cut_short())), "draining")
        }
    }
}

/// What its provider told at a turn's end, as it stands in the turn's row under `usage`.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Told {
    #[serde(flatten)]
    pub usage: Option<Usage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
}

impl Told {
    /// What a turn's end says of it.
    pub fn of(end: &End) -> Self {
        Self { usage: end.usage, service_tier: end.service_tier.clone() }
    }

    /// As it is stored. `None`: nothing was told.
    pub fn json(&self) -> Option<String> {
        let told = self.usage.is_some() || self.service_tier.is_some();
        told.then(|| serde_json::to_string(self).ok()).flatten()
    }

    /// As it was stored.
    pub fn read(json: Option<&str>) -> Self {
        json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }
}

/// Makes an end agree with what was stored: a cancel beats a late completion.
pub(super) fn become_stored(end: &mut End, state: ResponseStatus, completed_at: Timestamp) {
    if end.status != state {
        end.incomplete_reason = None;
        end.error = None;
    }
    end.status = state;
    end.completed_at = (state == ResponseStatus::Completed).then(|| completed_at.as_second());
}

pub(super) fn shown(usage: TokenUsage) -> Usage {
    Usage {
        input_tokens: usage.input,
        output_tokens: usage.output,
        total_tokens: usage.input + usage.output,
        input_tokens_details: InputTokensDetails { cached_tokens: usage.cached },
        output_tokens_details: OutputTokensDetails { reasoning_tokens: usage.reasoning },
    }
}
