//! A token bucket that several instances draw from: each keeps one, and learns from time to time what the others took.

use std::time::Duration;

use tokio::time::Instant;

/// A minute's worth at most; refills steadily. May be below zero: what others took, or what a turn took beyond its
/// estimate, has to be waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    capacity: f64,
    level: f64,
    at: Instant,
    /// Taken here and not yet told to the others.
    untold: i64,
    /// What the shared counter came to the last time.
    told: Option<i64>,
}

impl Bucket {
    pub fn new(per_minute: u64, now: Instant) -> Self {
        let capacity = per_minute as f64;
        Self { capacity, level: capacity, at: now, untold: 0, told: None }
    }

    /// Follows a changed limit.
    pub fn resize(&mut self, per_minute: u64) {
        let capacity = per_minute as f64;
        if (capacity - self.capacity).abs() > f64::EPSILON {
            self.level += capacity - self.capacity;
            self.capacity = capacity;
        }
    }

    pub fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * self.capacity / 60.0).min(self.capacity);
        self.at = now;
    }

    /// How long until `amount` can be taken; zero if now. More than a whole bucket waits for a full one.
    pub fn wait(&self, amount: u64) -> Duration {
        let missing = (amount as f64).min(self.capacity) - self.level;
        if missing <= 0.0 && self.capacity > 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(missing.max(0.001) * 60.0 / self.capacity)
            .unwrap_or(Duration::from_secs(3_600))
    }

    pub fn take(&mut self, amount: i64) {
        self.level -= amount as f64;
        self.untold = self.untold.saturating_add(amount);
    }

    pub fn remaining(&self) -> u64 {
        // Truncation is meant: what is not whole cannot be taken.
        self.level.max(0.0) as u64
    }

    /// Until it is full.
    pub fn reset(&self) -> Duration {
        let missing = (self.capacity - self.level).max(0.0);
        Duration::try_from_secs_f64(missing * 60.0 / self.capacity.max(1.0))
            .unwrap_or(Duration::from_secs(3_600))
    }

    /// What the others are to be told.
    pub fn untold(&self) -> i64 {
        self.untold
    }

    /// They were told `amount`, and the counter came to `total`. What others added is taken from here too.
    pub fn tell(&mut self, amount: i64, total: i64) {
        self.untold = self.untold.saturating_sub(amount);
        // A counter that began anew knows of nobody before.
        let others = match self.told {
            Some(before) if total >= before.saturating_add(amount.min(0)) => {
                total.saturating_sub(before).saturating_sub(amount)
            }
            _ => 0,
        };
        self.level -= others.max(0) as f64;
        self.told = Some(total);
    }
}
