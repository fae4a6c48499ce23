//! How busy the threads are that run this process's tasks.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::{Metric, gauge};

/// Measures from one look to the next.
#[derive(Debug)]
pub struct RuntimeLoad {
    runtime: Handle,
    last: Mutex<(Instant, Duration)>,
}

impl RuntimeLoad {
    /// Begins to measure the runtime that this is called in.
    pub fn start() -> Self {
        let runtime = Handle::current();
        let last = Mutex::new((Instant::now(), busy(&runtime)));
        Self { runtime, last }
    }

    /// Sets the gauge to the share since the look before.
    pub fn measure(&self) {
        /// Two scrapes at once would divide by nearly nothing.
        const LEAST: Duration = Duration::from_millis(100);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, busy) = (Instant::now(), busy(&self.runtime));
        let elapsed = now.duration_since(last.0);
        if elapsed < LEAST {
            return;
        }
        let workers = self.runtime.metrics().num_workers().max(1) as f64;
        let share = busy.saturating_sub(last.1).as_secs_f64() / (elapsed.as_secs_f64() * workers);
        *last = (now, busy);
        gauge(Metric::RuntimeUtilization, share.min(1.0), &[]);
    }
}

/// Of all threads together, since they began.
fn busy(runtime: &Handle) -> Duration {
    let metrics = runtime.metrics();
    (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::prometheus_text;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_busy_thread_shows() {
        let load = RuntimeLoad::start();
        // Busy on one worker of two, and back to it now and then: time counts once a poll has ended.
        let spinning = tokio::spawn(async {
            let until = Instant::now() + Duration::from_millis(600);
            while Instant::now() < until {
                let pause = Instant::now() + Duration::from_millis(20);
                while Instant::now() < pause {}
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        spinning.await.unwrap();
        load.measure();
        let text = prometheus_text().unwrap();
        let line = text.lines().find(|line| line.starts_with("colloquy_runtime_utilization")).unwrap();
        let share: f64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        assert!((0.2..=1.0).contains(&share), "{line}");
    }
}
