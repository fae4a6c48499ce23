//! Which ends of the handler are errors, and how many of those stop the host.

use std::time::{Duration, Instant};

/// Errors further apart than this do not add up.
const ERROR_WINDOW: Duration = Duration::from_secs(30 * 60);
/// Exit code of a deliberate restart.
const RESTART_CODE: i32 = 200;

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Restart,
    LeaveStopped,
    Error,
}

/// `code` is `None` for a process that a signal killed.
pub fn judge_exit(code: Option<i32>) -> Verdict {
    match code {
        Some(0) => Verdict::LeaveStopped,
        Some(RESTART_CODE) => Verdict::Restart,
        _ => Verdict::Error,
    }
}

/// Counts errors; restarts are immediate, without back-off.
pub struct Policy {
    limit: Option<usize>,
    errors: Vec<Instant>,
}

impl Policy {
    /// `limit`: the error with this number stops the host; `None`: none does.
    pub fn new(limit: Option<usize>) -> Self {
        Policy { limit, errors: Vec::new() }
    }

    /// Notes an error; whether to restart.
    pub fn record_error(&mut self, now: Instant) -> bool {
        if self.errors.last().is_some_and(|last| now.duration_since(*last) > ERROR_WINDOW) {
            self.errors.clear();
        }
        self.errors.push(now);
        self.limit.is_none_or(|limit| self.errors.len() < limit)
    }

    pub fn errors(&self) -> usize {
        self.errors.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_mean_what_the_contract_says() {
        assert_eq!(judge_exit(Some(0)), Verdict::LeaveStopped);
        assert_eq!(judge_exit(Some(200)), Verdict::Restart);
        assert_eq!(judge_exit(Some(1)), Verdict::Error);
        assert_eq!(judge_exit(None), Verdict::Error);
    }

    #[test]
    fn the_third_error_stops_the_host() {
        let mut policy = Policy::new(Some(3));
        let start = Instant::now();
        assert!(policy.record_error(start));
        assert!(policy.record_error(start + Duration::from_secs(1)));
        assert!(!policy.record_error(start + Duration::from_secs(2)));
    }

    #[test]
    fn only_a_gap_of_more_than_half_an_hour_forgets() {
        let minute = Duration::from_secs(60);
        let start = Instant::now();
        let mut steady = Policy::new(Some(3));
        assert!(steady.record_error(start));
        assert!(steady.record_error(start + 30 * minute));
        assert!(!steady.record_error(start + 60 * minute));
        let mut sparse = Policy::new(Some(3));
        for n in 0..10 {
            assert!(sparse.record_error(start + n * 31 * minute));
        }
    }

    #[test]
    fn without_a_limit_it_restarts_for_ever() {
        let mut policy = Policy::new(None);
        let now = Instant::now();
        assert!((0..1000).all(|_| policy.record_error(now)));
    }
}
