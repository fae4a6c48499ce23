//! The one place where background tasks begin: tracked, named, told to stop, and awaited at the end.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

/// The background tasks of a process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
}

/// Tasks were still running when the time to stop was over; they are cut off with the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{running} background tasks did not stop in time; they are cut off, and the work they held is taken over when its lease lapses"
)]
pub struct StillRunning {
    pub running: usize,
}

impl StillRunning {
    /// The stable code by which logs and alerts know this failure.
    pub const CODE: &'static str = "tasks.still_running";
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` in the background, in the present span. A panic is logged and ends that task alone.
    /// The task should watch [`Tasks::stopping`].
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_in(Span::current(), name, task);
    }

    /// The same in another span, or in none: what goes on after its request was answered must not make the request's
    /// span longer.
    pub fn spawn_in<F>(&self, span: Span, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // Adapters, not an async block: that would have room for the task twice, before and after its first poll.
        let guarded = AssertUnwindSafe(task).catch_unwind().map(move |ended| {
            // What it said may quote a payload; where it stood is logged by the panic hook.
            if ended.is_err() {
                tracing::error!(code = "tasks.panicked", task = name, "a background task panicked");
            }
        });
        self.tracker.spawn(guarded.instrument(span));
    }

    /// The same for a task without an end of its own, which may be cut wherever it waits once [`Tasks::stop`] was called.
    pub fn spawn_until_stopped<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stopping, task) = (self.stopping(), Box::pin(task));
        self.spawn(name, async move {
            stopping.run_until_cancelled(task).await;
        });
    }

    /// Calls `look` now and then every `period`, until [`Tasks::stop`] was called.
    pub fn repeat(&self, name: &'static str, period: Duration, look: impl Fn() + Send + 'static) {
        self.spawn_until_stopped(name, async move {
            let mut tick = tokio::time::interval(period);
            loop {
                tick.tick().await;
                look();
            }
        });
    }

    /// Completes, for every holder, once [`Tasks::stop`] was called.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// How many tasks are running.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Tells every task to stop and awaits them for at most `patience`.
    pub async fn stop(&self, patience: Duration) -> Result<(), StillRunning> {
        self.stopping.cancel();
        self.tracker.close();
        tokio::time::timeout(patience, self.tracker.wait())
            .await
            .map_err(|_| StillRunning { running: self.tracker.len() })
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn stopping_reaches_every_task_and_awaits_it() {
        let tasks = Tasks::new();
        let (done, finished) = oneshot::channel();
        let stopping = tasks.stopping();
        tasks.spawn("waits", async move {
            stopping.cancelled().await;
            done.send(()).unwrap();
        });
        assert_eq!(tasks.running(), 1);
        tasks.stop(Duration::from_secs(10)).await.unwrap();
        assert_eq!((finished.await, tasks.running()), (Ok(()), 0));
    }

    #[tokio::test]
    async fn a_task_without_an_end_is_cut() {
        let tasks = Tasks::new();
        tasks.spawn_until_stopped("endless", std::future::pending());
        assert_eq!(tasks.stop(Duration::from_secs(10)).await, Ok(()));
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_task_alone() {
        let tasks = Tasks::new();
        let (done, finished) = oneshot::channel();
        tasks.spawn("panics", async { panic!("on purpose") });
        tasks.spawn("goes on", async move { done.send(()).unwrap() });
        finished.await.unwrap();
        tasks.stop(Duration::from_secs(10)).await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_will_not_stop_is_counted() {
        let tasks = Tasks::new();
        tasks.spawn("stubborn", std::future::pending());
        assert_eq!(tasks.stop(Duration::from_millis(10)).await, Err(StillRunning { running: 1 }));
    }
}
