//! Turns while they run: begun, queued, held under a lease, finished, taken over.
//!
//! Every change names the epoch and the state it expects. A holder that lost its lease changes nothing and is told so.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::responses::{LIVE, status};
use super::threads::{ItemColumns, NewItem, Place};
use super::{Columns, DatabaseError, Param, Row, Statements, Type};
use crate::ids::{ConversationId, ResponseId};
use crate::openresponses::ResponseStatus;

mod begin;
mod finish;
mod queued;
mod takeover;

pub use begin::{Begun, Callback, FirstTry, Idempotency, NewTurn, OfJob, Runner, begin, first_try};
pub use finish::{Aside, Ended, Finish, finish, finish_and_settle};
pub use queued::{due, put_off, set_aside};
pub(super) use takeover::{COLUMNS, LOST, taken};
pub use takeover::{MAX_RESTARTS, Next, Taken, lapsed};

/// A turn under one lease: what every change names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    pub response: ResponseId,
    pub epoch: i64,
}

/// A turn whose lease was renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    pub response: ResponseId,
    /// Somebody asked for it to stop, or deleted it.
    pub cancel_requested: bool,
}

/// Lengthens the leases of all these turns from now, in one statement. A turn that is missing from the answer is lost:
/// stop its upstream and cut its viewers.
pub async fn renew(
    client: &impl Statements,
    held: &[Held],
    lease: Duration,
) -> Result<Vec<Renewed>, DatabaseError> {
    // Locked in one order, or two statements over the same turns could wait for each other.
    const SQL: &str = "
        WITH held AS (
            SELECT r.id FROM unnest($1::uuid[], $2::int8[]) AS asked (id, epoch)
            JOIN responses r ON r.id = asked.id AND r.epoch = asked.epoch
            WHERE r.state IN ('queued', 'in_progress')
            ORDER BY r.id FOR NO KEY UPDATE OF r
        )
        UPDATE responses r SET lease_until = now() + make_interval(secs => $3)
        FROM held WHERE r.id = held.id
        RETURNING r.id, r.cancel_requested_at IS NOT NULL AS cancel";
    let (ids, epochs) = columns(held);
    let params = [
        (&ids as _, Type::UUID_ARRAY),
        (&epochs as _, Type::INT8_ARRAY),
        (&lease.as_secs_f64() as _, Type::FLOAT8),
    ];
    let rows = client.query("turns.renew", SQL, &params).await?;
    rows.iter()
        .map(|row| {
            Ok(Renewed { response: ResponseId(row.column("id")?), cancel_requested: row.column("cancel")? })
        })
        .collect()
}

/// Says that a provider is about to be asked, under this epoch: should its holder die, an answer may have been paid for.
pub async fn mark_asked(client: &impl Statements, held: Held) -> Result<(), DatabaseError> {
    const SQL: &str =
        "UPDATE responses SET asked_epoch = epoch WHERE id = $1 AND epoch = $2 AND state = 'in_progress'";
    let params = [(&held.response.0 as _, Type::UUID), (&held.epoch as _, Type::INT8)];
    client.execute("turns.mark_asked", SQL, &params).await.map(drop)
}

/// Whether somebody watches the turn through another process: it said so within this time
/// ([`mark_watched`](super::responses::mark_watched)).
pub async fn watched_elsewhere(
    client: &impl Statements,
    held: Held,
    within: Duration,
) -> Result<bool, DatabaseError> {
    const SQL: &str = "
        SELECT FROM responses WHERE id = $1 AND epoch = $2 AND watched_at > now() - make_interval(secs => $3)";
    let params = [
        (&held.response.0 as _, Type::UUID),
        (&held.epoch as _, Type::INT8),
        (&within.as_secs_f64() as _, Type::FLOAT8),
    ];
    Ok(client.query_opt("turns.watched_elsewhere", SQL, &params).await?.is_some())
}

pub(super) fn columns(held: &[Held]) -> (Vec<Uuid>, Vec<i64>) {
    held.iter().map(|held| (held.response.0, held.epoch)).unzip()
}
