//! How long an invocation may take, so that the host's own timeout is never reached.

use std::time::Duration;

/// What an app without a host timeout gets: an invocation that takes longer is lost, not working.
const UNLIMITED: Duration = Duration::from_secs(24 * 60 * 60);

/// The least the host's timeout is undercut by: time to settle, answer and be late.
const MARGIN: Duration = Duration::from_secs(30);

/// The time from receipt to deadline, for an invocation received `age` after this process began.
///
/// `timeout` is the host's `functionTimeout` (`None`: unlimited). Its clock starts when the host takes the
/// invocation, which may be long before we see it: while a custom handler starts, invocations wait for it, up
/// to 4 × `initialization`. The nearer to the start one arrives, the longer it may have waited:
///
/// ```text
/// usual  = max(timeout − max(30 s, timeout / 10), timeout / 2)
/// waited = max(4 × initialization − age, 0)
/// budget = max(usual − waited, timeout / 4)
/// ```
///
/// With the defaults (5 min, 30 s) that is 150 s at the very start, 270 s from the third minute on. The two
/// floors keep short timeouts usable: half the timeout, a quarter while young.
pub fn budget(timeout: Option<Duration>, initialization: Duration, age: Duration) -> Duration {
    let Some(timeout) = timeout else { return UNLIMITED };
    let usual = timeout.saturating_sub(MARGIN.max(timeout / 10)).max(timeout / 2);
    let waited = initialization.saturating_mul(4).saturating_sub(age);
    usual.saturating_sub(waited).max(timeout / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn an_old_process_gives_all_but_the_margin() {
        let old = secs(3600);
        assert_eq!(budget(Some(secs(300)), secs(30), old), secs(270));
        assert_eq!(budget(Some(secs(600)), secs(30), old), secs(540), "a tenth, once that is more than 30 s");
        assert_eq!(budget(Some(secs(40)), secs(30), old), secs(20), "half, when the margin would eat more");
        assert_eq!(budget(None, secs(30), old), secs(86_400));
    }

    #[test]
    fn a_young_process_allows_for_the_wait() {
        let five = Some(secs(300));
        assert_eq!(budget(five, secs(30), secs(0)), secs(150));
        assert_eq!(budget(five, secs(30), secs(60)), secs(210));
        assert_eq!(budget(five, secs(30), secs(120)), secs(270));
        assert_eq!(budget(five, secs(600), secs(0)), secs(75), "never below a quarter");
        assert_eq!(budget(five, Duration::MAX, secs(0)), secs(75), "no overflow");
    }

    #[test]
    fn wait_plus_budget_never_reaches_the_host_timeout() {
        for timeout in [120_u64, 300, 600, 1800] {
            for age in 0..200 {
                let waited = 120_u64.saturating_sub(age).min(timeout / 2);
                let given = budget(Some(secs(timeout)), secs(30), secs(age));
                assert!(secs(waited) + given < secs(timeout), "timeout {timeout} s, age {age} s: {given:?}");
            }
        }
    }
}
