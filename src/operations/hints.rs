//! Hints at rows of work. The row is the truth: where a hint cannot be put, `maintain` puts it.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use uuid::Uuid;

use super::Operations;
use crate::azure::{Queue, StorageError};
use crate::database::dead_letters::Replayed;
use crate::database::events::Stored;
use crate::events::message::{self, Hint};
use crate::ids::{CallbackId, JobId};
use crate::jobs::state::WorkKind;

/// How many puts are under way at once.
const CONCURRENT_PUTS: usize = 16;

/// Hints at one row, after a delay.
pub async fn put_hint(
    queue: &Queue,
    kind: WorkKind,
    id: Uuid,
    abandoned: Vec<Uuid>,
    outages: u32,
    delay: Duration,
) -> Result<(), StorageError> {
    let text = match kind {
        WorkKind::Job => message::encode(&Hint { id: JobId(id), abandoned, outages }),
        WorkKind::Callback => message::encode(&Hint { id: CallbackId(id), abandoned, outages }),
    };
    // Our own types: ids and numbers. They serialise.
    queue.put(&text.unwrap_or_default(), delay).await
}

impl Operations {
    /// Hints at work that was just written down.
    pub(super) async fn hint_at(&self, stored: &Stored) {
        let jobs = stored.jobs.iter().map(|id| (WorkKind::Job, id.0, Duration::ZERO));
        let callbacks = stored.callbacks.iter().map(|id| (WorkKind::Callback, id.0, Duration::ZERO));
        self.hint(jobs.chain(callbacks).collect()).await;
    }

    /// Hints at rows that are back at work, each when it is due.
    pub(super) async fn hint_back(&self, back: &[Replayed]) {
        let now = Timestamp::now();
        let wait = |due: Timestamp| due.duration_since(now).try_into().unwrap_or(Duration::ZERO);
        self.hint(back.iter().map(|row| (row.kind, row.id, wait(row.due_at))).collect()).await;
    }

    async fn hint(&self, rows: Vec<(WorkKind, Uuid, Duration)>) {
        let Some(storage) = &self.storage else { return };
        let (jobs, callbacks) = (storage.queue(&self.queues.jobs), storage.queue(&self.queues.callbacks));
        let puts = rows.into_iter().map(|(kind, id, delay)| {
            let queue = match kind {
                WorkKind::Job => &jobs,
                WorkKind::Callback => &callbacks,
            };
            put_hint(queue, kind, id, Vec::new(), 0, delay)
        });
        let mut puts = stream::iter(puts).buffer_unordered(CONCURRENT_PUTS);
        let mut missed: (usize, Option<StorageError>) = (0, None);
        while let Some(put) = puts.next().await {
            if let Err(error) = put {
                missed = (missed.0 + 1, Some(error));
            }
        }
        if let (count, Some(error)) = missed {
            tracing::warn!(code = "hint_not_sent", %error, count, "hints could not be sent; `maintain` sends them again");
        }
    }
}
