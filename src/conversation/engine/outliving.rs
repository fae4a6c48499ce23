//! Work that outlives whoever asked for it, and the end of the process that waits for such work.
//!
//! A provider may have charged for what nobody waits for any more, and a commit that was sent lasts: both have to be
//! written down or carried on. So they run in tasks of their own, which are told when their caller has left.

use std::future::Future;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::turn::StopReason;
use crate::openresponses::ApiError;

/// A request that is worked on and is no turn, or not yet. Counted until this is dropped.
pub(super) struct UnderWay(watch::Sender<usize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|under_way| *under_way = under_way.saturating_sub(1));
    }
}

impl Engine {
    /// Counts a request that is worked on from now on.
    ///
    /// Errors: 503 once this process has had its time to end what it does.
    pub(super) fn under_way(&self) -> Result<UnderWay, ApiError> {
        let counted = self.count();
        if self.is_cut() { Err(restarting()) } else { Ok(counted) }
    }

    fn count(&self) -> UnderWay {
        self.0.under_way.send_modify(|under_way| *under_way += 1);
        UnderWay(self.0.under_way.clone())
    }

    /// Told when whoever waits has left, or when this process cuts what it does: for [`Engine::outlive`].
    pub(super) fn leaving(&self) -> CancellationToken {
        self.0.cut.child_token()
    }

    /// Does work in a task of its own, and gives what it comes to. Whoever drops what this gives has left: `left` tells the
    /// work, which ends itself. The end of the process waits for it.
    ///
    /// Errors: 500 if it panicked.
    pub(super) async fn outlive<T, F>(
        &self,
        name: &'static str,
        left: CancellationToken,
        work: F,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let counted = self.count();
        let _leaving = left.drop_guard();
        let (sender, receiver) = oneshot::channel();
        self.0.tasks.spawn(name, async move {
            let done = work.await;
            drop(counted);
            if sender.send(done).is_err() {
                tracing::debug!(work = name, "nobody waits for this any more");
            }
        });
        // It panicked: the hook has said where.
        receiver.await.map_err(|_| ApiError::internal())
    }

    /// What failed because this process ends is told as that, and may be sent again.
    pub(super) fn or_restarting<T>(&self, result: Result<T, ApiError>) -> Result<T, ApiError> {
        result.map_err(|error| if self.is_cut() { restarting() } else { error })
    }

    /// Lets turns and requests go on for `patience`, then stops those that still run: turns end with what they have or go to
    /// another process, requests are told to come again. Nothing begins afterwards.
    pub async fn drain(&self, patience: Duration) {
        /// For the last commits of what is stopped.
        const LAST_COMMITS: Duration = Duration::from_secs(4);
        self.0.draining.store(true, std::sync::atomic::Ordering::Relaxed);
        let in_time = tokio::time::timeout(patience, self.idle()).await.is_ok();
        self.0.cut.cancel();
        if in_time {
            return;
        }
        tracing::info!(
            code = "drain.cut",
            turns = self.open_turns(),
            requests = *self.0.under_way.borrow(),
            "turns still running after DRAIN end with what they have"
        );
        for turn in self.turns().values() {
            turn.stop(StopReason::Draining);
        }
        if tokio::time::timeout(LAST_COMMITS, self.idle()).await.is_err() {
            tracing::warn!(
                code = "drain.late",
                "turns could not be stored before the end; another process takes them over"
            );
        }
    }

    /// Completes once there is neither a turn nor a request that may become one.
    async fn idle(&self) {
        let (mut open, mut under_way) = (self.0.open.subscribe(), self.0.under_way.subscribe());
        // The senders are ours.
        while under_way.wait_for(|count| *count == 0).await.is_ok() {
            if open.wait_for(|count| *count == 0).await.is_err() || *under_way.borrow() == 0 {
                return;
            }
        }
    }

    /// Whether this process has no time left for what it does.
    pub(super) fn is_cut(&self) -> bool {
        self.0.cut.is_cancelled()
    }
}

fn restarting() -> ApiError {
    ApiError::unavailable(
        "server_restarting",
        "This server restarts and could not finish the request. Send it again.",
    )
}
