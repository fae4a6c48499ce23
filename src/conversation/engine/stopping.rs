//! When a turn stops before its model is done.

use std::time::Duration;

use super::turn::{OnDisconnect, StopReason, Turn};
use crate::conversation::live::Live;

/// Completes when the turn is to stop: because it was told to, or because nobody has watched it for `grace`.
pub(super) async fn stop(turn: &Turn, grace: Duration) -> StopReason {
    let left = async {
        match turn.on_disconnect {
            OnDisconnect::Continue => std::future::pending().await,
            OnDisconnect::Cancel => deserted(&turn.live, grace).await,
        }
    };
    let overdue = async {
        match turn.until {
            Some(until) => tokio::time::sleep_until(until.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        reason = turn.stopped() => reason,
        () = overdue => StopReason::Overdue,
        () = left => StopReason::Disconnected,
    }
}

/// Completes once nobody has watched for `grace`. Whoever asked for the turn has a little longer to begin.
async fn deserted(live: &Live, grace: Duration) {
    const FIRST: Duration = Duration::from_secs(5);
    let mut patience = grace.max(FIRST);
    let mut changes = live.changes();
    loop {
        changes.borrow_and_update();
        if live.viewers() > 0 {
            patience = grace;
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        }
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                Err(_) => return,
                Ok(_) if live.viewers() > 0 => break,
                Ok(_) => {}
            }
        }
    }
}
