//! Notes changes that callers make, without making them wait.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;

use super::Principal;
use crate::database::audit::{self, Entry};
use crate::database::{Database, DatabaseError};
use crate::tasks::Tasks;

const BATCH: usize = 500;
/// Entries kept while the database is away. What is dropped beyond is logged, each.
const MOST: usize = 10_000;
const RETRY: Duration = Duration::from_secs(1);

/// Writes audit rows in groups. Cheap to clone.
#[derive(Clone)]
pub struct Auditor(Arc<Inner>);

struct Inner {
    pending: Mutex<Vec<Entry>>,
    wake: Notify,
}

impl Auditor {
    /// Writes in the background until `tasks` stop, and then what is left, once.
    pub fn start(database: Database, tasks: &Tasks) -> Self {
        let auditor = Self(Arc::new(Inner { pending: Mutex::default(), wake: Notify::new() }));
        let (writer, stopping) = (auditor.clone(), tasks.stopping());
        tasks.spawn("audit.writer", async move {
            loop {
                tokio::select! {
                    () = stopping.cancelled() => break,
                    () = writer.0.wake.notified() => {}
                }
                while let Err(error) = writer.write(&database).await {
                    tracing::warn!(code = error.code(), %error, "the audit trail waits for the database");
                    tokio::select! {
                        () = stopping.cancelled() => break,
                        () = tokio::time::sleep(RETRY) => {}
                    }
                }
            }
            if let Err(error) = writer.write(&database).await {
                tracing::error!(code = error.code(), %error, "the end of the audit trail could not be written");
                writer.take().iter().for_each(log);
            }
        });
        auditor
    }

    /// Notes that a caller did `action` (`conversation.delete`) to `subject` (a public id). `detail` holds no prompt,
    /// answer or secret.
    pub fn note(&self, who: &Principal, action: &'static str, subject: &str, detail: Option<Value>) {
        let entry = Entry { actor: who.actor(), action, subject: subject.to_owned(), detail };
        let mut pending = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() < MOST {
            pending.push(entry);
            self.0.wake.notify_one();
        } else {
            log(&entry);
        }
    }

    fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.0.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn write(&self, database: &Database) -> Result<(), DatabaseError> {
        let mut entries = self.take();
        while !entries.is_empty() {
            let rest = entries.split_off(entries.len().min(BATCH));
            let written = async { audit::write(&database.client().await?, &entries).await };
            if let Err(error) = written.await {
                entries.extend(rest);
                let mut pending = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner);
                let newer = std::mem::replace(&mut *pending, entries);
                pending.extend(newer);
                return Err(error);
            }
            entries = rest;
        }
        Ok(())
    }
}

/// What no row takes stands in the log at least.
fn log(entry: &Entry) {
    tracing::error!(
        code = "audit_not_written",
        actor = entry.actor,
        action = entry.action,
        subject = entry.subject,
        "an audit row could not be written"
    );
}
