//! What is written of an attempt at a provider.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::llm::TokenUsage;

/// Money: whole micro-units of the one currency that prices and budgets are in.
pub type Micros = i64;

/// Who spends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    pub owner: Arc<str>,
    /// The API key; `None` for a caller with a token.
    pub key: Option<Arc<str>>,
    /// The key's own budget a day, if it has one (`budget_micros_per_day` among its limits).
    pub key_budget: Option<Micros>,
}

impl Who {
    /// An owner without a key.
    pub fn owner(owner: &str) -> Self {
        Self { owner: owner.into(), key: None, key_budget: None }
    }
}

/// One attempt at a provider, as it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// UUIDv7: the month in it is the month of the row's partition.
    pub id: Uuid,
    /// `None` where there is no response: chat completions, embeddings.
    pub response: Option<Uuid>,
    pub owner: Arc<str>,
    pub key: Option<Arc<str>>,
    /// The alias that was asked for.
    pub model: Arc<str>,
    pub deployment: Arc<str>,
    pub provider: Arc<str>,
    /// What was set aside: what the attempt counts as if this process dies.
    pub reserved: Micros,
    /// The process whose slices carry it; `None` if none do.
    pub holder: Option<Uuid>,
    /// The UTC day it is paid on.
    pub day: Date,
    pub started_at: Timestamp,
}

/// How an attempt ended and what it cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settlement {
    pub attempt: Attempt,
    pub reason: Reason,
    pub usage: TokenUsage,
    pub cost: Micros,
    /// The provider never said: tokens and cost are ours.
    pub estimated: bool,
    /// The provider's own words on usage.
    pub raw: Option<serde_json::Value>,
}

/// Why an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Completed,
    /// Cut by a limit or a filter.
    Incomplete,
    Cancelled,
    /// Nobody listened any more.
    Disconnected,
    /// The provider failed.
    Failed,
    /// Its process lost the turn, which another ended from the log.
    Interrupted,
    /// Its process died. Whoever knows better may still say so.
    Crashed,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Completed,
        Self::Incomplete,
        Self::Cancelled,
        Self::Disconnected,
        Self::Failed,
        Self::Interrupted,
        Self::Crashed,
    ];

    /// As SQL has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Cancelled => "cancelled",
            Self::Disconnected => "disconnected",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Crashed => "crashed",
        }
    }
}

/// The states of a usage row. `open` becomes `settled`, once; only a row settled as [`Reason::Crashed`] may be
/// settled again, by somebody who knows better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageState {
    Open,
    Settled,
}

impl UsageState {
    /// As SQL has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Settled => "settled",
        }
    }

    /// Whether a row in this state, settled for this reason, may be settled as `to`.
    pub fn may_be_settled(self, settled_as: Option<Reason>, to: Reason) -> bool {
        match self {
            Self::Open => true,
            Self::Settled => settled_as == Some(Reason::Crashed) && to != Reason::Crashed,
        }
    }
}

/// What a budget is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Owner,
    Key,
    /// Everybody; its subject is the empty text.
    Total,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::Owner, Self::Key, Self::Total];

    /// As SQL has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Key => "key",
            Self::Total => "total",
        }
    }

    /// The scope that SQL calls so.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One day's budget of one subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BudgetKey {
    pub scope: Scope,
    pub subject: Arc<str>,
    pub day: Date,
}
