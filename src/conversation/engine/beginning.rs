//! Stored turns begin in a task of their own: a caller that leaves while a turn is being committed leaves no row behind
//! that nobody runs.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Engine;
use super::create::Call;
use super::turn::Turn;
use crate::access::{Admitted, Principal};
use crate::openresponses::{ApiError, CreateResponse};

/// Whether a turn's first commit is under way, or done.
#[derive(Debug, Default)]
pub(super) struct Committing(AtomicBool);

impl Committing {
    /// From here on the turn may be stored.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Engine {
    /// Begins a turn, or finds the one that an earlier try of the same request began. `admitted`: the caller's room,
    /// which the turn takes up until its end.
    ///
    /// Whoever drops this ends it, until the turn is being committed: from then on it runs, like any turn whose viewer
    /// has left.
    ///
    /// Errors: 400 on the field at fault, 404 for what is not there, 429 and 503 where there is no room.
    pub async fn create(
        &self,
        who: &Arc<Principal>,
        request: CreateResponse,
        call: Call,
        admitted: Admitted,
    ) -> Result<Arc<Turn>, ApiError> {
        let _counted = self.under_way()?;
        if !request.stores() {
            let committing = Committing::default();
            let creating = self.create_admitted(who, request, call, Some(admitted), &committing);
            return self.or_restarting(creating.await);
        }
        let (engine, who, left) = (self.clone(), Arc::clone(who), self.leaving());
        let leaving = left.clone();
        let beginning = self.outlive("turn beginning", left, async move {
            let committing = Committing::default();
            let mut creating = pin!(engine.create_admitted(&who, request, call, Some(admitted), &committing));
            tokio::select! {
                biased;
                outcome = creating.as_mut() => outcome,
                () = leaving.cancelled() => {
                    if committing.has_begun() { creating.await } else { Err(ApiError::internal()) }
                }
            }
        });
        self.or_restarting(beginning.await?)
    }
}
