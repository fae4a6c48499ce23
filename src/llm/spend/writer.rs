//! Writes usage in groups: everything pending goes as one statement, as soon as the previous one returned.
//!
//! While the database is away rows wait in memory, and after a while go to the queue `usage`, from which any process
//! brings them home. Opening rows is given up first: it only matters if this process dies too.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Attempt, Settlement, Spend, SpendSettings, Spool};
use crate::azure::Queue;
use crate::database::{Class, Database, DatabaseError, usage};
use crate::telemetry::metrics;

const BATCH: usize = 1_000;
const STATEMENT_LIMIT: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(2);
/// How long a process that ends tries to write before it puts rows on the queue.
const LAST_TRY: Duration = Duration::from_secs(5);

pub(super) struct Writer {
    database: Option<Database>,
    spool: Option<Spool>,
    spool_after: Duration,
    buffer: usize,
    pending: Mutex<Pending>,
    wake: Notify,
    /// One statement at a time, also at the end.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Pending {
    opens: HashMap<Uuid, Attempt>,
    settlements: Vec<Settlement>,
    status: WriterStatus,
}

/// Rows that wait, and what became of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct WriterStatus {
    pub waiting: usize,
    pub written: u64,
    pub spooled: u64,
    /// Rows that nothing would take. Each was logged.
    pub lost: u64,
}

impl Writer {
    /// Writes nothing until [`run`] does; without a database never.
    pub fn new(settings: &SpendSettings, database: Option<Database>, spool: Option<Queue>) -> Self {
        Self {
            database,
            spool: spool.map(Spool::new),
            spool_after: settings.spool_after,
            buffer: settings.buffer,
            pending: Mutex::default(),
            wake: Notify::new(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// Given up when `USAGE_BUFFER` rows wait: it only matters if this process dies.
    pub fn open(&self, attempt: Attempt) {
        let mut pending = self.pending();
        if pending.opens.len() < self.buffer {
            pending.opens.insert(attempt.id, attempt);
            drop(pending);
            self.wake.notify_one();
        }
    }

    /// A settlement that finds no room is lost, and logged.
    pub fn settle(&self, settlement: Settlement) {
        let mut pending = self.pending();
        pending.opens.remove(&settlement.attempt.id);
        if pending.settlements.len() >= self.buffer {
            drop(pending);
            self.lost(&[settlement], "USAGE_BUFFER is full");
            return;
        }
        pending.settlements.push(settlement);
        drop(pending);
        self.wake.notify_one();
    }

    /// For health and metrics.
    pub fn status(&self) -> WriterStatus {
        let pending = self.pending();
        WriterStatus { waiting: pending.opens.len() + pending.settlements.len(), ..pending.status }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        let pending = self.pending();
        pending.opens.is_empty() && pending.settlements.is_empty()
    }

    /// Writes a batch of what is pending. What could not be written is pending again.
    async fn write(&self, budgeted: bool) -> Result<(), DatabaseError> {
        let Some(database) = &self.database else { return Ok(()) };
        let (opens, settlements) = {
            let mut pending = self.pending();
            let opens: Vec<Attempt> = pending.opens.drain().map(|(_, attempt)| attempt).collect();
            let most = pending.settlements.len().min(BATCH);
            (opens, pending.settlements.drain(..most).collect::<Vec<_>>())
        };
        let result = async {
            let mut client = database.client().await?;
            client.set_statement_timeout(STATEMENT_LIMIT);
            usage::open(&client, &opens).await?;
            usage::settle(&client, &settlements, budgeted).await
        };
        match result.await {
            Ok(_) => {
                self.pending().status.written += settlements.len() as u64;
                Ok(())
            }
            Err(error) => {
                let mut pending = self.pending();
                let newer = std::mem::replace(&mut pending.settlements, settlements);
                pending.settlements.extend(newer);
                // Those settled meanwhile need no opening.
                for attempt in opens {
                    if !pending.settlements.iter().any(|one| one.attempt.id == attempt.id) {
                        pending.opens.insert(attempt.id, attempt);
                    }
                }
                Err(error)
            }
        }
    }

    /// Something in the batch is refused: each row alone, and those that are refused are lost.
    async fn write_one_by_one(&self, budgeted: bool) -> Result<(), DatabaseError> {
        let Some(database) = &self.database else { return Ok(()) };
        let (opens, settlements) = {
            let mut pending = self.pending();
            (std::mem::take(&mut pending.opens), std::mem::take(&mut pending.settlements))
        };
        let client = database.client().await?;
        usage::ensure_partitions(&client).await?;
        for attempt in opens.into_values() {
            if let Err(error) = usage::open(&client, &[attempt]).await {
                tracing::warn!(code = error.code(), %error, "a usage row could not be opened");
            }
        }
        let mut left = settlements.into_iter();
        while let Some(settlement) = left.next() {
            let one = [settlement];
            match usage::settle(&client, &one, budgeted).await {
                Ok(_) => self.pending().status.written += 1,
                Err(error) if error.is_retryable() => {
                    let mut pending = self.pending();
                    let newer = std::mem::take(&mut pending.settlements);
                    pending.settlements.extend(one.into_iter().chain(left).chain(newer));
                    return Err(error);
                }
                Err(error) => self.lost(&one, &error.to_string()),
            }
        }
        Ok(())
    }

    /// Puts everything on the queue. What it does not take is pending again.
    async fn spool(&self) -> bool {
        let Some(spool) = &self.spool else { return false };
        let settlements = {
            let mut pending = self.pending();
            pending.opens.clear();
            std::mem::take(&mut pending.settlements)
        };
        let (spooled, kept, error) = spool.put(settlements).await;
        if let Some(error) = &error {
            tracing::error!(
                code = "usage_not_spooled",
                error,
                "usage waits in memory: neither database nor queue takes it"
            );
        }
        metrics::usage_rows("spooled", spooled);
        let mut pending = self.pending();
        pending.status.spooled += spooled;
        let newer = std::mem::replace(&mut pending.settlements, kept);
        pending.settlements.extend(newer);
        error.is_none()
    }

    fn lost(&self, settlements: &[Settlement], reason: &str) {
        self.pending().status.lost += settlements.len() as u64;
        metrics::usage_rows("lost", settlements.len() as u64);
        for one in settlements {
            tracing::error!(
                code = "usage_lost",
                attempt = %one.attempt.id,
                deployment = &*one.attempt.deployment,
                cost_micros = one.cost,
                reason,
                "a usage row is lost"
            );
        }
    }
}

/// Until `stopping`; [`drain`] writes the rest.
pub(super) async fn run(spend: Spend, stopping: CancellationToken) {
    let writer = &spend.inner.writer;
    let mut failing_since: Option<Instant> = None;
    let mut delay = RETRY_FIRST;
    loop {
        if writer.is_empty() {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = writer.wake.notified() => {}
            }
        }
        let result = {
            let _one = writer.writing.lock().await;
            let budgeted = spend.budgeted();
            match writer.write(budgeted).await {
                Err(error) if error.class() == Class::Other => writer.write_one_by_one(budgeted).await,
                result => result,
            }
        };
        let Err(error) = result else {
            (failing_since, delay) = (None, RETRY_FIRST);
            continue;
        };
        if failing_since.is_none() {
            tracing::warn!(code = error.code(), %error, "usage waits for the database");
        }
        metrics::database_error(error.code());
        let since = *failing_since.get_or_insert_with(Instant::now);
        if error.is_outage() && since.elapsed() >= writer.spool_after {
            let _one = writer.writing.lock().await;
            writer.spool().await;
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
        delay = (delay * 2).min(RETRY_MOST);
    }
}

/// Writes everything, or puts it on the queue.
pub(super) async fn drain(spend: &Spend) {
    let writer = &spend.inner.writer;
    let _one = writer.writing.lock().await;
    let budgeted = spend.budgeted();
    let write = async {
        while !writer.is_empty() {
            match writer.write(budgeted).await {
                Ok(()) => {}
                Err(error) if error.class() == Class::Other => {
                    if writer.write_one_by_one(budgeted).await.is_err() {
                        return;
                    }
                }
                Err(error) if error.class() == Class::Conflict => {}
                Err(_) => return,
            }
        }
    };
    if tokio::time::timeout(LAST_TRY, write).await.is_err() || !writer.is_empty() {
        writer.spool().await;
    }
    let left: Vec<Settlement> = std::mem::take(&mut writer.pending().settlements);
    if !left.is_empty() {
        writer.lost(&left, "the process ends, and neither database nor queue took it");
    }
}
