//! How much of a source is taken: its rate of genuine deliveries, and how much work strangers may cause.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long a source stays in its slow lane after the latest forgery beyond the limit.
const SLOW_FOR: Duration = Duration::from_secs(60);

/// What one process remembers of a source's traffic.
///
/// The rate counts verified deliveries alone: whoever cannot sign cannot use up what a sender is allowed. Forgeries
/// beyond their own limit refuse nobody either, since a forged request and a genuine one look alike until they are
/// verified. They only put the source into a slow lane, where its deliveries are verified one at a time, so that they
/// keep at most one processor from everybody else.
pub struct Admission {
    deliveries: Option<DefaultDirectRateLimiter>,
    forgeries: DefaultDirectRateLimiter,
    slow_until: Mutex<Option<Instant>>,
    lane: Semaphore,
}

impl Admission {
    /// Both a minute; no rate is no limit.
    pub fn new(rate: Option<NonZeroU32>, forgeries: NonZeroU32) -> Self {
        Self {
            deliveries: rate.map(|rate| RateLimiter::direct(Quota::per_minute(rate))),
            forgeries: RateLimiter::direct(Quota::per_minute(forgeries)),
            slow_until: Mutex::default(),
            lane: Semaphore::new(1),
        }
    }

    /// Whether the rate allows one more verified delivery now.
    pub fn admits(&self) -> bool {
        self.deliveries.as_ref().is_none_or(|limiter| limiter.check().is_ok())
    }

    /// The turn to verify, at once unless strangers have made the source slow. Held while verifying.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        let slow = self.slow_until().is_some_and(|until| Instant::now() < until);
        if slow { self.lane.acquire().await.ok() } else { None }
    }

    /// A delivery was not genuine.
    pub fn forged(&self, source: &str) {
        if self.forgeries.check().is_ok() {
            return;
        }
        let now = Instant::now();
        let mut slow_until = self.slow_until();
        if slow_until.is_none_or(|until| until < now) {
            tracing::warn!(
                code = "forgeries",
                source,
                "more deliveries fail verification than FORGERIES_PER_MINUTE; they are verified one at a time now"
            );
        }
        *slow_until = Some(now + SLOW_FOR);
    }

    fn slow_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.slow_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn admission(forgeries: u32) -> Admission {
        Admission::new(NonZeroU32::new(2), NonZeroU32::new(forgeries).unwrap())
    }

    #[test]
    fn forgeries_use_up_nothing_of_the_rate() {
        let admission = admission(10);
        (0..1_000).for_each(|_| admission.forged("crm"));
        assert!(admission.admits() && admission.admits());
        assert!(!admission.admits(), "the rate itself holds");
    }

    #[test]
    fn beyond_their_limit_forgeries_make_verifying_a_matter_of_turns() {
        let admission = admission(3);
        (0..3).for_each(|_| admission.forged("crm"));
        let turn = || admission.turn().now_or_never();
        assert!(matches!((turn(), turn()), (Some(None), Some(None))), "nobody waits");
        admission.forged("crm");
        let first = turn().expect("the first need not wait");
        assert!(first.is_some());
        assert!(turn().is_none(), "the second waits for the first");
        drop(first);
        assert!(turn().is_some());
    }
}
