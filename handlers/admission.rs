//! How much of a source is taken: its rate of genuine deliveries, and how much work and memory strangers may cost.

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

/// A body up to so many bytes is small: nearly every event there is.
const SMALL: usize = 64 * 1024;

/// How many bytes of deliveries a process holds at once, from the first one read until the delivery is answered.
///
/// A quarter is for small bodies alone, so that a few large ones, which anybody may begin to send, leave room for what
/// else comes. Nobody waits for room: who finds none is told to come back.
pub struct Room {
    for_small: Semaphore,
    for_all: Semaphore,
}

/// What one delivery holds of it; given back when this is dropped.
pub struct Held<'a> {
    room: &'a Room,
    bytes: usize,
    for_small: Option<SemaphorePermit<'a>>,
    for_all: Option<SemaphorePermit<'a>>,
}

impl Room {
    pub fn new(bytes: usize) -> Self {
        Self { for_small: Semaphore::new(bytes / 4), for_all: Semaphore::new(bytes - bytes / 4) }
    }

    /// The largest body there can ever be room for.
    pub fn largest(bytes: u64) -> u64 {
        bytes - bytes / 4
    }

    pub fn holder(&self) -> Held<'_> {
        Held { room: self, bytes: 0, for_small: None, for_all: None }
    }
}

impl Held<'_> {
    /// Room for so many bytes more, if there is any.
    pub fn take(&mut self, more: usize) -> bool {
        let bytes = self.bytes.saturating_add(more);
        let taken = if bytes <= SMALL {
            grow(&mut self.for_small, &self.room.for_small, more)
                || grow(&mut self.for_all, &self.room.for_all, more)
        } else {
            // No longer small: it has to be among the large ones with all that it holds.
            let moved = self.for_small.as_ref().map_or(0, SemaphorePermit::num_permits);
            let taken = grow(&mut self.for_all, &self.room.for_all, more.saturating_add(moved));
            if taken {
                self.for_small = None;
            }
            taken
        };
        if taken {
            self.bytes = bytes;
        }
        taken
    }
}

fn grow<'a>(held: &mut Option<SemaphorePermit<'a>>, room: &'a Semaphore, more: usize) -> bool {
    let Some(permit) = u32::try_from(more).ok().and_then(|more| room.try_acquire_many(more).ok()) else {
        return false;
    };
    match held {
        Some(held) => held.merge(permit),
        None => *held = Some(permit),
    }
    true
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn admission(forgeries: u32) -> Admission {
        Admission::new(NonZeroU32::new(2), NonZeroU32::new(forgeries).unwrap())
    }

    #[test]
    fn large_bodies_leave_room_for_small_ones_and_everything_comes_back() {
        let room = Room::new(16 * SMALL);
        let mut large: Vec<Held<'_>> = (0..4).map(|_| room.holder()).collect();
        // By pieces, as they come over the wire.
        let filled = large.iter_mut().map(|held| (0..10).take_while(|_| held.take(SMALL / 2)).count());
        assert_eq!(filled.collect::<Vec<_>>(), [10, 10, 4, 2]);
        // The last one is refused at its third piece, and with it goes what it held as a small one.
        large.pop();
        let mut small: Vec<Held<'_>> = (0..5).map(|_| room.holder()).collect();
        let taken = small.iter_mut().filter_map(|held| held.take(SMALL).then_some(())).count();
        assert_eq!(taken, 4, "a quarter of it");
        drop((large, small));
        assert_eq!(room.for_small.available_permits(), 4 * SMALL);
        assert_eq!(room.for_all.available_permits(), 12 * SMALL);
        let mut whole = room.holder();
        assert!(whole.take(12 * SMALL) && !whole.take(1));
        assert_eq!(Room::largest(16 * SMALL as u64), 12 * SMALL as u64);
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
