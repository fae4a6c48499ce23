//! The log of a turn without what was taken back of it.

use super::turn::Turn;
use crate::conversation::log;
use crate::database::turn_log::{self, LogCursor};
use crate::database::{DatabaseError, Statements};
use crate::llm::retraction::redact;

/// Empties in the log what was taken back of the answer. In the transaction that ends the turn, behind its end.
pub async fn scrub_log(client: &impl Statements, turn: &Turn) -> Result<(), DatabaseError> {
    let mut chunks = Vec::new();
    let mut parts = Vec::new();
    let mut from_part = 0;
    loop {
        let cursor = LogCursor { owner: &turn.owner, response: turn.id, from_part };
        // Deleted meanwhile, and its log with it.
        let Some(slice) = turn_log::read_log(client, cursor).await? else { return Ok(()) };
        for (part, data) in slice.parts {
            match log::unpack(&data) {
                Ok(pieces) => chunks.extend(pieces),
                Err(error) => {
                    tracing::error!(code = "log.unreadable", %error, response_id = %turn.id, "a part of a turn's log cannot be read");
                    return Ok(());
                }
            }
            parts.push((part, data, chunks.len()));
            from_part = part + 1;
        }
        if !slice.has_more {
            break;
        }
    }
    redact(&mut chunks);
    let mut begin = 0;
    let mut changed = Vec::new();
    for (part, data, end) in parts {
        let packed = log::pack(chunks.get(begin..end).unwrap_or_default());
        begin = end;
        if packed != data {
            changed.push((part, packed));
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    turn_log::rewrite(client, turn.id, &changed).await
}
