//! Who watches a turn, and what becomes of one that nobody watches.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::turn::{OnDisconnect, StopReason, Turn};
use super::{Engine, away};
use crate::conversation::live::Live;
use crate::database::turns;
use crate::openresponses::{ApiError, CreateResponse, ErrorType};

impl Engine {
    /// A place among the turns that go on with nobody watching. A background turn takes one from its start: it was
    /// promised to go on.
    ///
    /// Errors: 429 if there is none.
    pub(super) fn unwatched(
        &self,
        request: &CreateResponse,
    ) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        if !request.background.unwrap_or(false) {
            return Ok(None);
        }
        Arc::clone(&self.0.unwatched).try_acquire_owned().map(Some).map_err(|_| no_place())
    }

    /// Completes when the turn is to stop: because it was told to, because its time is over, or because nobody has
    /// watched it for the grace.
    pub(super) async fn stop(&self, turn: &Turn) -> StopReason {
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
            () = self.left_alone(turn) => StopReason::Disconnected,
        }
    }

    /// Completes when nobody watches the turn any more, here or elsewhere, and it may not go on without.
    async fn left_alone(&self, turn: &Turn) {
        /// Whoever asked for the turn has a little longer to begin.
        const FIRST: Duration = Duration::from_secs(5);
        if turn.background && turn.on_disconnect == OnDisconnect::Continue {
            return std::future::pending().await;
        }
        let grace = self.0.limits.disconnect_grace;
        let mut patience = grace.max(FIRST);
        loop {
            deserted(&turn.live, patience, grace).await;
            if self.was_watched_elsewhere(turn).await {
                patience = grace;
                continue;
            }
            if turn.on_disconnect == OnDisconnect::Cancel {
                return;
            }
            let Ok(_place) = self.0.unwatched.try_acquire() else {
                tracing::warn!(
                    code = "turn.no_place_unwatched",
                    response_id = %turn.id,
                    "a turn that nobody watches was cancelled: there are UNWATCHED_TURNS_MAX of them"
                );
                return;
            };
            watched(&turn.live).await;
            patience = grace;
        }
    }

    /// Whether a viewer in another process said within the grace that it is watching.
    async fn was_watched_elsewhere(&self, turn: &Turn) -> bool {
        let Some(held) = turn.held else { return false };
        let limits = &self.0.limits;
        // It says so six times in a lease.
        let within = limits.disconnect_grace.max(limits.lease / 2);
        let asked = async {
            let client = self.0.database.client().await?;
            turns::watched_elsewhere(&client, held, within).await
        };
        // While the database is away nobody can watch from another process.
        asked.await.map_err(away).unwrap_or(false)
    }
}

/// Completes once nobody has watched here for a while: at first for `patience`, after a viewer was there for `grace`.
async fn deserted(live: &Live, mut patience: Duration, grace: Duration) {
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

/// Completes once somebody watches here.
async fn watched(live: &Live) {
    let mut changes = live.changes();
    while live.viewers() == 0 && changes.changed().await.is_ok() {
        changes.borrow_and_update();
    }
}

fn no_place() -> ApiError {
    ApiError::new(
        http::StatusCode::TOO_MANY_REQUESTS,
        ErrorType::RateLimitError,
        "unwatched_turns_limit",
        "The server has as many turns that nobody needs to watch as it may (UNWATCHED_TURNS_MAX). Try again later, or ask \
         without 'background'.",
    )
    .on("background")
    .retry_after(Duration::from_secs(5))
}
