//! When a failed attempt is followed by another: the only place that retries a provider.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::clock;
use crate::config::LlmConfig;

/// The reserve is filled up within this time.
const REFILL: Duration = Duration::from_secs(10);

/// Attempts beyond the first, of the whole process: without a limit, retries multiply the load of a provider that is
/// in trouble already.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    share: f64,
    reserve: f64,
    level: Mutex<(f64, Instant)>,
}

impl RetryBudget {
    /// Full: as many retries as may come in a burst.
    pub fn new(config: &LlmConfig) -> Self {
        let reserve = f64::from(config.retry_reserve);
        Self {
            share: f64::from(config.retry_budget_percent) / 100.0,
            reserve,
            level: Mutex::new((reserve, clock::now())),
        }
    }

    /// A request came.
    pub fn request(&self) {
        self.change(self.share);
    }

    /// Whether one more attempt may be made; it is taken.
    pub fn take(&self) -> bool {
        self.change(-1.0)
    }

    fn change(&self, amount: f64) -> bool {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        let passed = now.saturating_duration_since(level.1).as_secs_f64();
        // What requests saved up beyond the reserve is bounded too: a burst of retries helps nobody.
        let ceiling = self.reserve + 100.0 * self.share;
        let filled = level.0.max((level.0 + passed * self.reserve / REFILL.as_secs_f64()).min(self.reserve));
        let next = (filled + amount).min(ceiling);
        *level = (if next < 0.0 { filled } else { next }, now);
        next >= 0.0
    }
}

/// The wait before the round after `round` (from 0): doubling, jittered by a quarter either way; or what the provider
/// asked for, and a little, so that not everybody comes at once.
pub(crate) fn delay(base: Duration, round: u32, hint: Option<Duration>) -> Duration {
    match hint {
        Some(hint) => hint.mul_f64(1.0 + rand::random::<f64>() * 0.1),
        None => (base * 2u32.saturating_pow(round)).mul_f64(0.75 + rand::random::<f64>() * 0.5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_a_share_of_requests_and_a_reserve() {
        clock::advance(Duration::ZERO);
        let config = LlmConfig { retry_budget_percent: 50, retry_reserve: 2, ..LlmConfig::default() };
        let budget = RetryBudget::new(&config);
        assert_eq!([budget.take(), budget.take(), budget.take()], [true, true, false]);
        budget.request();
        assert!(!budget.take());
        budget.request();
        assert!(budget.take());
        assert!(!budget.take());
        clock::advance(REFILL);
        assert_eq!([budget.take(), budget.take(), budget.take()], [true, true, false]);
    }

    #[test]
    fn delays_double_unless_the_provider_says_otherwise() {
        let base = Duration::from_secs(1);
        for round in 0..3 {
            let seconds = delay(base, round, None).as_secs_f64() / f64::from(1u32 << round);
            assert!((0.75..=1.25).contains(&seconds), "{seconds}");
        }
        let hinted = delay(base, 3, Some(Duration::from_millis(20)));
        assert!((20..=22).contains(&hinted.as_millis()), "{hinted:?}");
    }
}
