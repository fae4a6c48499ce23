//! Puts hints and messages on queues. A hint that cannot be put is not an error of the work: the row is the truth, and
//! `maintain` hints again.

use std::time::Duration;

use colloquy::azure::{Queue, StorageError};
use colloquy::database::events::Stored;
use colloquy::events::message::{self, EventMessage};
use colloquy::jobs::state::WorkKind;
pub use colloquy::operations::put_hint;
use futures_util::{StreamExt, stream};
use uuid::Uuid;

use crate::services::Services;

/// How many puts are under way at once for one invocation.
const CONCURRENT_PUTS: usize = 16;

impl Services {
    pub fn work_queue(&self, kind: WorkKind) -> Queue {
        match kind {
            WorkKind::Job => self.jobs_queue(),
            WorkKind::Callback => self.callbacks_queue(),
        }
    }

    /// Hints at work that was just written down.
    pub async fn hint_at(&self, stored: &Stored) {
        let mut jobs = Vec::with_capacity(stored.jobs.len());
        jobs.extend(stored.jobs.iter().map(|id| id.0));
        let mut callbacks = Vec::with_capacity(stored.callbacks.len());
        callbacks.extend(stored.callbacks.iter().map(|id| id.0));
        futures_util::join!(self.hint_all(WorkKind::Job, jobs), self.hint_all(WorkKind::Callback, callbacks));
    }

    /// Hints at rows that are due now. Gives how many hints were put.
    pub async fn hint_all(&self, kind: WorkKind, ids: Vec<Uuid>) -> usize {
        let queue = &self.work_queue(kind);
        let puts = ids.into_iter().map(|id| async move {
            match put_hint(queue, kind, id, Vec::new(), 0, Duration::ZERO).await {
                Ok(()) => 1,
                Err(error) => {
                    tracing::warn!(
                        code = "hint_not_sent", %error, kind = kind.as_str(), id = %id,
                        "a hint could not be sent; `maintain` sends it again"
                    );
                    0
                }
            }
        });
        let put: Vec<usize> = stream::iter(puts).buffer_unordered(CONCURRENT_PUTS).collect().await;
        put.into_iter().sum()
    }
}

/// Puts a delivery back, to be processed after a delay.
pub async fn put_event(queue: &Queue, message: &EventMessage, delay: Duration) -> Result<(), StorageError> {
    // Our own type: ids, numbers, strings. It serialises.
    let text = message::encode(message).unwrap_or_default();
    queue.put(&text, delay).await
}
