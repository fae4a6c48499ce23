//! What instances share while it is live: wake-ups and counters. In memory for one instance, in Redis for several.
//!
//! Nothing depends on it. A lost wake-up costs a poll, a lost counter makes a limit count for this instance alone;
//! nothing here is the record of anything, and no request waits for it longer than [`CALL_LIMIT`].

mod breaker;
mod memory;
mod redis;

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::broadcast;
use uuid::Uuid;

pub use memory::Memory;
pub use redis::{Redis, RedisSettings};

/// The longest that a call may take.
pub const CALL_LIMIT: Duration = Duration::from_millis(50);

/// Wake-ups that a slow subscriber may lag behind before it misses some.
const LAG: usize = 4_096;

/// Something happened to a turn that others may be waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wake {
    /// Its log has grown, or it has ended.
    Advanced(Uuid),
    /// Somebody asked for it to be cancelled.
    Cancelled(Uuid),
}

/// An addition to a counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// One prefix for each purpose, such as `rate:`.
    pub key: String,
    pub by: i64,
    /// The counter ends so long after its last addition.
    pub lives: Duration,
}

/// What is shared cannot be reached, or not in time. This instance goes on alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoordinationError {
    #[error("not connected to Redis")]
    Away,
    #[error("Redis gave no answer within {CALL_LIMIT:?}")]
    Timeout,
    #[error("Redis failed: {0}")]
    Failed(String),
}

impl CoordinationError {
    /// Stable, for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Away => "coordination_away",
            Self::Timeout => "coordination_timeout",
            Self::Failed(_) => "coordination_failed",
        }
    }
}

/// What instances share.
pub trait Coordination: Send + Sync {
    /// Tells everybody, this instance too. Never waits; repeated wake-ups may reach others as one, or not at all.
    fn wake(&self, wake: Wake);

    /// Everything that is told from now on. A subscriber that lagged should look at all it waits for.
    fn subscribe(&self) -> broadcast::Receiver<Wake>;

    /// Adds to counters and gives what they come to, in order. Zero reads one.
    fn add<'a>(&'a self, adds: &'a [Add]) -> BoxFuture<'a, Result<Vec<i64>, CoordinationError>>;

    /// Whether wake-ups of other instances arrive now. If not, poll for them.
    fn is_shared(&self) -> bool;

    /// Whether other instances are reached at all, now or in a while.
    fn reaches_others(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
