//! The states of a row of work, and the rules between them. Jobs and callbacks share them.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::ids::{CallbackId, JobId};

/// Which table a row of work is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkKind {
    Job,
    Callback,
}

impl WorkKind {
    /// As it stands in SQL, JSON and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Callback => "callback",
        }
    }

    /// A row's id as people write it.
    pub fn public_id(self, id: Uuid) -> String {
        match self {
            Self::Job => JobId(id).to_string(),
            Self::Callback => CallbackId(id).to_string(),
        }
    }

    /// The kind of a word in SQL or JSON.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Job, Self::Callback].into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for WorkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a row of work stands.
///
/// ```text
/// pending ──claim──▶ leased ──finish──▶ succeeded | delivered
///    ▲                 │ │
///    └──retry, lapse───┘ └──give up──▶ dead
///    └──────────────────replay──────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkState {
    /// Waits for its due time.
    Pending,
    /// One process has it, until `lease_until` and under its `epoch`.
    Leased,
    /// A job that is done.
    Succeeded,
    /// A callback its consumer accepted.
    Delivered,
    /// Given up; there is a dead letter.
    Dead,
}

impl WorkState {
    pub const ALL: [Self; 5] = [Self::Pending, Self::Leased, Self::Succeeded, Self::Delivered, Self::Dead];

    /// As it stands in SQL, JSON and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Leased => "leased",
            Self::Succeeded => "succeeded",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }

    /// The good end of a kind of work.
    pub const fn done(kind: WorkKind) -> Self {
        match kind {
            WorkKind::Job => Self::Succeeded,
            WorkKind::Callback => Self::Delivered,
        }
    }

    /// Whether a row may go from this state to another.
    ///
    /// `Pending` to `Dead` is a claim beyond the last attempt: the work is not run again to find out.
    pub const fn may_become(self, next: Self) -> bool {
        use WorkState::{Dead, Delivered, Leased, Pending, Succeeded};
        matches!(
            (self, next),
            (Pending, Leased | Dead) | (Leased, Pending | Succeeded | Delivered | Dead) | (Dead, Pending)
        )
    }
}

impl fmt::Display for WorkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for WorkState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            format!("`{text}` is no state of work: pending, leased, succeeded, delivered or dead")
        })
    }
}

/// The states of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterState {
    Open,
    Replayed,
    Discarded,
}

impl DeadLetterState {
    pub const ALL: [Self; 3] = [Self::Open, Self::Replayed, Self::Discarded];

    /// As it stands in SQL, JSON and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }

    /// Whether a dead letter may go from this state to another: it is settled once.
    pub const fn may_become(self, next: Self) -> bool {
        matches!((self, next), (Self::Open, Self::Replayed | Self::Discarded))
    }
}

/// Why an attempt did not succeed: a stable code, and a sentence for the operator without payload or secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: &'static str,
    pub message: String,
}

impl Failure {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_an_end_except_for_a_replayed_dead_letter() {
        for state in [WorkState::Succeeded, WorkState::Delivered] {
            assert!(WorkState::ALL.iter().all(|next| !state.may_become(*next)), "{state} is final");
        }
        assert!(WorkState::Dead.may_become(WorkState::Pending));
        assert!(!WorkState::Dead.may_become(WorkState::Leased));
    }

    #[test]
    fn names_round_trip() {
        for state in WorkState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!("running".parse::<WorkState>().unwrap_err().contains("leased"));
    }
}
