//! Usage on a storage queue, while the database does not take it, and its way home.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::Settlement;
use crate::azure::{MAX_ENCODED_BYTES, Queue, StorageError};
use crate::database::maintenance::{self, DeadMessage};
use crate::database::{Client, Database, DatabaseError, usage};

const VERSION: &str = "v1 ";
/// How long a message stays invisible to others; an interrupted one shows again.
const INVISIBLE: Duration = Duration::from_secs(60);
const BATCH: u8 = 32;

/// The queue `usage`.
pub struct Spool {
    queue: Queue,
}

impl Spool {
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue }
    }

    /// Puts rows on the queue, as many to a message as it holds. Says how many it took, which are left, and why.
    pub(super) async fn put(&self, settlements: Vec<Settlement>) -> (u64, Vec<Settlement>, Option<String>) {
        let mut spooled = 0;
        let mut chunks: Vec<Vec<Settlement>> =
            if settlements.is_empty() { Vec::new() } else { vec![settlements] };
        while let Some(mut chunk) = chunks.pop() {
            let text = match encode(&chunk) {
                Some(text) if Queue::encoded_len(text.len()) <= MAX_ENCODED_BYTES => text,
                // A single row is too large by the provider's own words alone.
                _ if chunk.len() == 1 => {
                    if let Some(one) = chunk.iter_mut().find(|one| one.raw.is_some()) {
                        one.raw = None;
                        chunks.push(chunk);
                        continue;
                    }
                    return (
                        spooled,
                        rest(chunk, chunks),
                        Some("a row does not fit in a message".to_owned()),
                    );
                }
                _ => {
                    let second = chunk.split_off(chunk.len() / 2);
                    chunks.push(second);
                    chunks.push(chunk);
                    continue;
                }
            };
            if let Err(error) = self.queue.put(&text, Duration::ZERO).await {
                return (spooled, rest(chunk, chunks), Some(error.to_string()));
            }
            spooled += chunk.len() as u64;
        }
        (spooled, Vec::new(), None)
    }
}

fn rest(chunk: Vec<Settlement>, chunks: Vec<Vec<Settlement>>) -> Vec<Settlement> {
    chunk.into_iter().chain(chunks.into_iter().rev().flatten()).collect()
}

fn encode(settlements: &[Settlement]) -> Option<String> {
    serde_json::to_string(settlements).ok().map(|json| format!("{VERSION}{json}"))
}

fn decode(text: &str) -> Option<Vec<Settlement>> {
    serde_json::from_str(text.strip_prefix(VERSION)?).ok()
}

/// Why bringing home stopped. What was left stays on the queue.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error(transparent)]
    Queue(#[from] StorageError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Writes a batch of spooled rows to the database. Any number may run at once, and a row twice there is one row. Says
/// how many messages were taken; unreadable ones become dead letters.
pub async fn bring_home(queue: &Queue, database: &Database) -> Result<usize, SpoolError> {
    if queue.properties().await?.approximate_count == 0 {
        return Ok(0);
    }
    // Asked first: a message received while the database is away would only be hidden.
    let client = database.client().await?;
    maintenance::ping(&client).await?;
    let mut taken = 0;
    for message in queue.receive(BATCH, INVISIBLE).await? {
        let settlements = message.text.as_deref().ok().and_then(decode);
        match settlements {
            Some(settlements) => drop(usage::settle(&client, &settlements, true).await?),
            None => bury(&client, queue, &message.receipt.id, &message.raw, message.dequeue_count).await?,
        }
        queue.delete(&message.receipt).await?;
        taken += 1;
    }
    Ok(taken)
}

async fn bury(client: &Client, queue: &Queue, id: &str, raw: &str, count: u32) -> Result<(), DatabaseError> {
    // The same for the same message, so that it is buried once.
    let digest = Sha256::new().chain_update(queue.name()).chain_update(id).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    let dead = DeadMessage {
        subject: uuid::Builder::from_custom_bytes(bytes).into_uuid(),
        queue: queue.name(),
        source: None,
        reason_code: "message_malformed",
        reason: "is not usage that this version can read",
        text: raw,
        attempts: i32::try_from(count).unwrap_or(i32::MAX),
    };
    maintenance::bury_message(client, &dead).await.map(drop)
}
