//! Leaves a deployment alone after failures in a row, then lets one request find out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::clock;
use crate::telemetry::metrics::{Metric, count, gauge};

/// The pause grows no further than this many times its first length.
const LONGEST_PAUSE: u32 = 8;

/// One deployment's breaker.
#[derive(Debug)]
pub(crate) struct Breaker {
    deployment: String,
    failures: u32,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
        pause: Duration,
    },
    /// One request is out to see; nobody else goes.
    Probing {
        pause: Duration,
    },
}

/// How a breaker stands, for health reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

/// Leave to try. A probe that ends without a verdict (its caller went away) makes room for the next.
#[derive(Debug)]
pub(crate) struct Pass {
    breaker: Option<Arc<Breaker>>,
}

impl Breaker {
    /// Closed. It opens after so many `failures` in a row, for `pause`.
    pub fn new(deployment: &str, failures: u32, pause: Duration) -> Arc<Self> {
        let state = Mutex::new(State::Closed { failures: 0 });
        Arc::new(Self { deployment: deployment.to_owned(), failures, pause, state })
    }

    /// Leave to try, or how long to wait for it.
    pub fn pass(self: &Arc<Self>) -> Result<Pass, Duration> {
        let now = clock::now();
        let mut state = self.lock();
        match *state {
            State::Closed { .. } => Ok(Pass { breaker: None }),
            State::Open { until, .. } if now < until => Err(until - now),
            State::Open { pause, .. } => {
                *state = State::Probing { pause };
                Ok(Pass { breaker: Some(Arc::clone(self)) })
            }
            State::Probing { .. } => Err(self.pause.min(Duration::from_secs(1))),
        }
    }

    /// An answer was whole.
    pub fn success(&self) {
        let mut state = self.lock();
        if let State::Closed { failures } = &mut *state {
            *failures = 0;
        }
    }

    /// The deployment failed, by its own fault.
    pub fn failure(&self) {
        let mut state = self.lock();
        if let State::Closed { failures } = &mut *state {
            *failures += 1;
            if *failures >= self.failures {
                self.open(&mut state, self.pause);
            }
        }
    }

    /// As health and metrics show it.
    pub fn state(&self) -> BreakerState {
        match *self.lock() {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::Probing { .. } => BreakerState::HalfOpen,
        }
    }

    /// Sets the gauge, so that it is there before the first failure.
    pub fn measure(&self) {
        let closed = self.state() == BreakerState::Closed;
        gauge(Metric::LlmBreakerOpen, if closed { 0.0 } else { 1.0 }, &[&self.deployment]);
    }

    /// Takes back what the gauge says: nobody goes by this breaker any more.
    pub fn retire(&self) {
        gauge(Metric::LlmBreakerOpen, 0.0, &[&self.deployment]);
    }

    fn open(&self, state: &mut State, pause: Duration) {
        *state = State::Open { until: clock::now() + pause, pause };
        gauge(Metric::LlmBreakerOpen, 1.0, &[&self.deployment]);
        count(Metric::LlmBreakerOpened, 1, &[&self.deployment]);
        tracing::warn!(
            code = "llm.breaker_opened",
            deployment = self.deployment,
            pause_s = pause.as_secs(),
            "a model deployment failed again and again and is left alone for a while"
        );
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// The answer has begun.
    pub fn succeeded(mut self) {
        if let Some(breaker) = self.breaker.take() {
            *breaker.lock() = State::Closed { failures: 0 };
            gauge(Metric::LlmBreakerOpen, 0.0, &[&breaker.deployment]);
            tracing::info!(
                code = "llm.breaker_closed",
                deployment = breaker.deployment,
                "a model deployment answers again"
            );
        }
    }

    /// The deployment failed; `breaker` is the one that gave the pass.
    pub fn failed(mut self, breaker: &Breaker) {
        match self.breaker.take() {
            Some(probed) => {
                let mut state = probed.lock();
                if let State::Probing { pause } = *state {
                    probed.open(&mut state, (pause * 2).min(probed.pause * LONGEST_PAUSE));
                }
            }
            None => breaker.failure(),
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(breaker) = self.breaker.take() {
            let mut state = breaker.lock();
            if let State::Probing { pause } = *state {
                *state = State::Open { until: clock::now(), pause };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);

    #[test]
    fn one_that_is_given_up_open_does_not_go_on_to_alert() {
        clock::advance(Duration::ZERO);
        let breaker = Breaker::new("breaker-of-the-past", 1, PAUSE);
        breaker.failure();
        let shows = |open: u8| {
            let text = crate::telemetry::metrics::prometheus_text().unwrap();
            let wanted = format!("colloquy_llm_breaker_open{{deployment=\"breaker-of-the-past\"}} {open}\n");
            assert!(text.contains(&wanted), "{text}");
        };
        shows(1);
        breaker.retire();
        shows(0);
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_one_probe_goes_at_a_time() {
        clock::advance(Duration::ZERO);
        let breaker = Breaker::new("breaker-test", 3, PAUSE);
        for _ in 0..2 {
            breaker.pass().unwrap().failed(&breaker);
        }
        breaker.success();
        for _ in 0..3 {
            breaker.pass().unwrap().failed(&breaker);
        }
        assert_eq!((breaker.pass().err(), breaker.state()), (Some(PAUSE), BreakerState::Open));
        clock::advance(PAUSE);
        let probe = breaker.pass().unwrap();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.pass().is_err());
        // A probe whose caller left says nothing; the next may go.
        drop(probe);
        let probe = breaker.pass().unwrap();
        probe.failed(&breaker);
        assert_eq!(breaker.pass().err(), Some(PAUSE * 2));
        for _ in 0..5 {
            clock::advance(PAUSE * 8);
            breaker.pass().unwrap().failed(&breaker);
        }
        assert_eq!(breaker.pass().err(), Some(PAUSE * 8));
        clock::advance(PAUSE * 8);
        breaker.pass().unwrap().succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
        // Old failures that come in late do not open it again by themselves.
        breaker.failure();
        assert!(breaker.pass().is_ok());
    }
}
