//! What spending goes by.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::ledger::Limits;
use super::{Micros, Who};

/// Tells the time. Injected, so that a test can pass midnight.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The machine's clock.
pub fn system_clock() -> Clock {
    Arc::new(Timestamp::now)
}

/// The day that budgets and usage go by, by the machine's clock: UTC.
pub fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

/// What happens to turns while the database is away and what is in hand is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutDatabase {
    Refuse,
    Allow,
}

/// Budgets a UTC day, in micro-units. Absent is unlimited; zero refuses whatever costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    /// Of everybody together.
    pub total: Option<Micros>,
    /// Of each owner that is not named below.
    pub each_owner: Option<Micros>,
    /// Of each key that is not named below and has no budget of its own.
    pub each_key: Option<Micros>,
    pub owners: HashMap<String, Micros>,
    pub keys: HashMap<String, Micros>,
}

impl Budgets {
    /// Whether nothing is limited here.
    pub fn is_empty(&self) -> bool {
        self.total.is_none()
            && self.each_owner.is_none()
            && self.each_key.is_none()
            && self.owners.is_empty()
            && self.keys.is_empty()
    }

    /// Which budgets apply to somebody. A key's own budget comes before the default, a named one before both.
    pub(super) fn limits(&self, who: &Who) -> Limits {
        let key = |key: &str| self.keys.get(key).copied().or(who.key_budget).or(self.each_key);
        Limits {
            owner: self.owners.get(&*who.owner).copied().or(self.each_owner),
            key: who.key.as_deref().and_then(key),
            total: self.total,
        }
    }
}

/// How a process spends. The defaults are those of the settings.
#[derive(Clone, Debug)]
pub struct SpendSettings {
    pub budgets: Budgets,
    /// `SPEND_WITHOUT_DATABASE`.
    pub without_database: WithoutDatabase,
    /// `SPEND_LEASE`: how long slices are held without reaching the database. What a crashed process held returns
    /// after it.
    pub lease: Duration,
    /// `SPEND_HEARTBEAT`: how often a process reports what it spent, and looks whether others need what it holds.
    pub heartbeat: Duration,
    /// `SPEND_PATIENCE`: how long a turn waits for a draw.
    pub patience: Duration,
    /// `SPEND_SLICE_PERCENT`: how much of a budget is drawn at once, while there is plenty.
    pub slice_percent: u32,
    /// `SPEND_ANSWER_PERCENT`: how much of a budget one answer may set aside that its caller did not limit.
    pub answer_percent: u32,
    /// `USAGE_BUFFER`: rows kept in memory while the database is away.
    pub buffer: usize,
    /// `USAGE_SPOOL_AFTER`: how long the database is waited for before rows go to the queue.
    pub spool_after: Duration,
}

impl Default for SpendSettings {
    fn default() -> Self {
        Self {
            budgets: Budgets::default(),
            without_database: WithoutDatabase::Refuse,
            lease: Duration::from_secs(600),
            heartbeat: Duration::from_secs(2),
            patience: Duration::from_secs(10),
            slice_percent: 2,
            answer_percent: 5,
            buffer: 10_000,
            spool_after: Duration::from_secs(10),
        }
    }
}

impl SpendSettings {
    /// How much is drawn at once of a budget of this size.
    pub(super) fn slice(&self, limit: Micros) -> Micros {
        share(limit, self.slice_percent)
    }

    /// How much of it an answer that nobody limited may set aside.
    pub(super) fn answer(&self, limit: Micros) -> Micros {
        share(limit, self.answer_percent)
    }
}

fn share(of: Micros, percent: u32) -> Micros {
    (i128::from(of) * i128::from(percent) / 100)
        .clamp(1, i128::from(Micros::MAX))
        .try_into()
        .unwrap_or(Micros::MAX)
}
