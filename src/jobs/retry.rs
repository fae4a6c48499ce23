//! When work is tried again.

use std::time::Duration;

use rand::RngExt;

/// A growing, jittered delay: between half and all of `base · 2ⁿ`, never over `cap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub base: Duration,
    pub cap: Duration,
}

impl Backoff {
    /// The delay after `failures` failures in a row (1 or more).
    pub fn delay(&self, failures: u32) -> Duration {
        self.stretched(failures, rand::rng().random_range(0.5..=1.0))
    }

    fn stretched(&self, failures: u32, jitter: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(30);
        self.base.saturating_mul(1 << doublings).min(self.cap).mul_f64(jitter)
    }
}

/// The attempts a callback gets: the delay before each, the first included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Vec<Duration>);

impl Schedule {
    /// `delays[n]` is the wait before attempt `n + 1`; an empty list means one attempt at once.
    pub fn new(delays: Vec<Duration>) -> Self {
        Self(if delays.is_empty() { vec![Duration::ZERO] } else { delays })
    }

    /// How many attempts there are.
    pub fn attempts(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// How long to wait after attempt `attempt` (1 for the first) failed; `None` once it was the last.
    ///
    /// What the consumer asked for (`Retry-After`) can lengthen the wait, up to `longest`, never shorten it.
    pub fn after(&self, attempt: u32, asked: Option<Duration>, longest: Duration) -> Option<Duration> {
        let planned = *self.0.get(usize::try_from(attempt).ok()?)?;
        Some(planned.max(asked.unwrap_or_default().min(longest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn backoff_doubles_from_its_base_and_stops_at_its_cap() {
        let backoff = Backoff { base: Duration::from_secs(1), cap: MINUTE };
        let delays: Vec<u64> = (1..=8).map(|n| backoff.stretched(n, 1.0).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.stretched(u32::MAX, 1.0), MINUTE);
    }

    #[test]
    fn jitter_takes_away_at_most_half() {
        let backoff = Backoff { base: MINUTE, cap: MINUTE };
        assert!((0..100).all(|_| (MINUTE / 2..=MINUTE).contains(&backoff.delay(1))));
    }

    #[test]
    fn a_consumer_may_ask_for_more_time_but_not_for_less() {
        let schedule = Schedule::new(vec![Duration::ZERO, MINUTE, 5 * MINUTE]);
        let day = 24 * 60 * MINUTE;
        assert_eq!(schedule.attempts(), 3);
        assert_eq!(schedule.after(1, None, day), Some(MINUTE));
        assert_eq!(schedule.after(1, Some(Duration::ZERO), day), Some(MINUTE));
        assert_eq!(schedule.after(1, Some(2 * MINUTE), day), Some(2 * MINUTE));
        assert_eq!(schedule.after(1, Some(2 * day), day), Some(day));
        assert_eq!(schedule.after(3, Some(day), day), None);
    }
}
