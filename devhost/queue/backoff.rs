//! How long an idle queue is left alone: from 100 ms, growing to maxPollingInterval.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(100);

pub struct Backoff {
    longest: Duration,
    exponent: u32,
}

impl Backoff {
    pub fn new(longest: Duration) -> Self {
        Backoff { longest, exponent: 0 }
    }

    /// The pause after a poll that found messages, or did not.
    pub fn after(&mut self, found: bool) -> Duration {
        if found {
            self.exponent = 0;
            return Duration::ZERO;
        }
        let jitter = rand::random_range(0.8..1.2);
        let growth = SHORTEST.mul_f64((2_f64.powi(self.exponent.min(30).cast_signed()) - 1.0) * jitter);
        self.exponent += 1;
        (SHORTEST + growth).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_the_limit_and_a_message_resets_it() {
        let mut backoff = Backoff::new(Duration::from_secs(2));
        assert_eq!(backoff.after(false), SHORTEST);
        let second = backoff.after(false);
        assert!(second > SHORTEST && second < Duration::from_millis(250), "{second:?}");
        for _ in 0..50 {
            backoff.after(false);
        }
        assert_eq!(backoff.after(false), Duration::from_secs(2));
        assert_eq!(backoff.after(true), Duration::ZERO);
        assert_eq!(backoff.after(false), SHORTEST);
    }
}
