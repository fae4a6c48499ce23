//! Our own limits of a deployment: tokens and requests a minute, taken before sending, as Azure does it at admission
//! (an estimate of the prompt plus the longest answer), and put right once the answer has told what it took.
//!
//! Processes keep one limit together. Each decides in memory: it may take its *part* of what is left, as of the last
//! exchange with the others (`sharing.rs`), so that together they take no more than there is. Parts follow demand.

mod bucket;
pub(super) mod sharing;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::bucket::Bucket;
use super::clock;

/// How often processes tell each other what they took.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Buckets {
    tokens: Option<Bucket>,
    requests: Option<Bucket>,
    /// Whether the others were heard of with the last exchange.
    shared: bool,
    at: Instant,
}

/// One deployment's limits.
#[derive(Debug)]
pub(crate) struct Quota {
    buckets: Mutex<Buckets>,
}

/// What was taken. Given back whole if nothing was sent; a request once sent stays counted, as the provider counts it.
#[derive(Debug)]
pub(crate) struct Grant {
    quota: Arc<Quota>,
    tokens: f64,
    sent: bool,
}

impl Quota {
    /// 0 is no limit. Tokens may be used up to a minute's worth at once, requests up to ten seconds' worth: in such
    /// windows providers count. `share`: how much of them this process takes as long as it hears of no others.
    pub fn new(tokens_per_minute: u64, requests_per_minute: u64, share: f64) -> Arc<Self> {
        let buckets = Buckets {
            tokens: Bucket::new(tokens_per_minute, 60.0, share),
            requests: Bucket::new(requests_per_minute, 10.0, share),
            shared: false,
            at: clock::now(),
        };
        Arc::new(Self { buckets: Mutex::new(buckets) })
    }

    /// Takes `tokens` and one request if the wait for them is at most `patience`, and returns that wait; else the wait
    /// alone, or the time to the next exchange where others have taken their part of what is left. A request larger than
    /// a minute's tokens counts as a minute's.
    pub fn take(self: &Arc<Self>, tokens: u64, patience: Duration) -> Result<(Grant, Duration), Duration> {
        let mut buckets = self.lock();
        let tokens = buckets.tokens.map_or(0.0, |bucket| bucket.most(tokens as f64));
        let each = [(buckets.tokens, tokens), (buckets.requests, 1.0)];
        let waits = each.map(|(bucket, amount)| {
            bucket.map_or((Duration::ZERO, Duration::ZERO), |bucket| bucket.wait(amount))
        });
        let of_all = waits[0].0.max(waits[1].0);
        let wait = of_all.max(waits[0].1).max(waits[1].1);
        if wait > patience {
            return Err(if buckets.shared && of_all <= patience { wait.min(EVERY) } else { wait });
        }
        buckets.add(-tokens, -1.0);
        drop(buckets);
        Ok((Grant { quota: Arc::clone(self), tokens, sent: false }, wait))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Buckets> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        let passed = now.saturating_duration_since(buckets.at).as_secs_f64();
        buckets.at = now;
        let Buckets { tokens, requests, .. } = &mut *buckets;
        for bucket in [tokens, requests].into_iter().flatten() {
            bucket.refill(passed);
        }
        buckets
    }
}

impl Buckets {
    fn add(&mut self, tokens: f64, requests: f64) {
        for (bucket, amount) in [(&mut self.tokens, tokens), (&mut self.requests, requests)] {
            if let Some(bucket) = bucket {
                bucket.add(amount);
            }
        }
    }
}

impl Grant {
    /// The request goes out: from here on it counts, whatever becomes of it.
    pub fn sent(&mut self) {
        self.sent = true;
    }

    /// What the answer took in truth.
    pub fn settle(&mut self, tokens: u64) {
        let difference = self.tokens - tokens as f64;
        self.tokens = tokens as f64;
        self.quota.lock().add(difference, 0.0);
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if !self.sent {
            self.quota.lock().add(self.tokens, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;
    const MINUTE: Duration = Duration::from_secs(60);

    fn sent(quota: &Arc<Quota>, tokens: u64) -> Result<Duration, Duration> {
        let (mut grant, wait) = quota.take(tokens, MINUTE)?;
        grant.sent();
        Ok(wait)
    }

    #[test]
    fn tokens_are_taken_given_back_and_put_right() {
        clock::advance(Duration::ZERO);
        let quota = Quota::new(600, 0, 1.0);
        assert_eq!(sent(&quota, 500), Ok(NOW));
        // 100 are left; 10 a second come in.
        assert_eq!(quota.take(300, NOW).err(), Some(Duration::from_secs(20)));
        let (grant, wait) = quota.take(300, MINUTE).unwrap();
        assert_eq!(wait, Duration::from_secs(20));
        // Behind whoever waits.
        assert_eq!(quota.take(100, NOW).err(), Some(Duration::from_secs(30)));
        drop(grant);
        let (mut grant, wait) = quota.take(100, NOW).unwrap();
        assert_eq!(wait, NOW);
        grant.sent();
        grant.settle(10);
        drop(grant);
        assert!(quota.take(90, NOW).is_ok());
        clock::advance(MINUTE);
        assert_eq!(sent(&quota, 1_000_000), Ok(NOW), "more than a minute's worth goes alone");
    }

    #[test]
    fn requests_are_counted_in_short_windows() {
        clock::advance(Duration::ZERO);
        let quota = Quota::new(0, 12, 1.0);
        assert_eq!(sent(&quota, 1_000_000), Ok(NOW));
        assert_eq!(sent(&quota, 0), Ok(NOW));
        assert_eq!(quota.take(0, NOW).err(), Some(Duration::from_secs(5)));
        assert!(Quota::new(0, 0, 1.0).take(u64::MAX, NOW).is_ok());
    }

    #[test]
    fn a_share_is_a_smaller_limit() {
        clock::advance(Duration::ZERO);
        let quota = Quota::new(600, 0, 0.5);
        assert_eq!(sent(&quota, 300), Ok(NOW));
        assert_eq!(quota.take(50, NOW).err(), Some(Duration::from_secs(10)), "5 a second come in");
        clock::advance(MINUTE * 10);
        assert_eq!(sent(&quota, 300), Ok(NOW));
        assert!(quota.take(1, NOW).is_err());
    }
}
