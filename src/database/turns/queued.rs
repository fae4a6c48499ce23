//! Turns that wait and are nobody's: queued by somebody who does not run turns, or put off because their provider is
//! out. Any server takes them once they are due.

use super::takeover::{COLUMNS, taken};
use super::*;
use crate::switches::TurnsHeld;

/// Takes queued turns that are due and nobody's, the longest due first; `only`: this one, if it is such a turn. They are
/// the caller's then. What an operator holds stays. Any number of servers may ask at once; each turn goes to one of them.
pub async fn due(
    client: &impl Statements,
    limit: i64,
    only: Option<ResponseId>,
    held: &TurnsHeld,
    holder: Uuid,
    lease: Duration,
) -> Result<Vec<Taken>, DatabaseError> {
    let sql = format!(
        "WITH due AS (
            SELECT id, CASE WHEN cancel_requested_at IS NULL THEN 'run' ELSE 'cancel' END AS next
            FROM responses
            WHERE state = 'queued' AND due_at <= now() AND ($4::uuid IS NULL OR id = $4)
              AND (cancel_requested_at IS NOT NULL
                   OR model <> ALL ($5) AND coalesce(caller, owner) <> ALL ($6))
            ORDER BY due_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE responses r
        SET epoch = r.epoch + 1, holder = $2, lease_until = now() + make_interval(secs => $3), state = 'in_progress',
            started_at = coalesce(r.started_at, now()), due_at = NULL
        FROM due WHERE r.id = due.id AND r.state = 'queued'
        RETURNING {COLUMNS}, due.next"
    );
    let params = [
        (&limit as _, Type::INT8),
        (&holder as _, Type::UUID),
        (&lease.as_secs_f64() as _, Type::FLOAT8),
        (&only.map(|id| id.0) as _, Type::UUID),
        (&held.models as _, Type::TEXT_ARRAY),
        (&held.owners as _, Type::TEXT_ARRAY),
    ];
    client.query("turns.due", &sql, &params).await?.iter().map(taken).collect()
}

/// Puts a turn off that waits for its provider: queued and nobody's, due after a delay, at the latest when its time to
/// wait is over. Gives when that is. `None`, and nothing was changed: it does not wait, its time is over, somebody asked
/// for it to stop, or it is lost.
///
/// Only for a turn of which nothing was logged.
pub async fn put_off(
    client: &impl Statements,
    held: Held,
    delay: Duration,
) -> Result<Option<Timestamp>, DatabaseError> {
    const SQL: &str = "
        UPDATE responses
        SET state = 'queued', epoch = epoch + 1, holder = $4, lease_until = 'infinity', waits = waits + 1,
            due_at = least(now() + make_interval(secs => $3), wait_until)
        WHERE id = $1 AND epoch = $2 AND state = 'in_progress' AND wait_until > now() AND cancel_requested_at IS NULL
        RETURNING due_at";
    let params = [
        (&held.response.0 as _, Type::UUID),
        (&held.epoch as _, Type::INT8),
        (&delay.as_secs_f64() as _, Type::FLOAT8),
        (&Uuid::nil() as _, Type::UUID),
    ];
    let row = client.query_opt("turns.put_off", SQL, &params).await?;
    row.map(|row| row.column("due_at")).transpose()
}

/// Puts a turn that was taken over back into the queue: nobody's, and due. `false`: it is lost, or somebody asked for it to
/// stop.
///
/// Only for a turn of which nothing was logged.
pub async fn set_aside(client: &impl Statements, held: Held) -> Result<bool, DatabaseError> {
    const SQL: &str = "
        UPDATE responses
        SET state = 'queued', epoch = epoch + 1, holder = $3, lease_until = 'infinity', due_at = now()
        WHERE id = $1 AND epoch = $2 AND state = 'in_progress' AND cancel_requested_at IS NULL";
    let params = [
        (&held.response.0 as _, Type::UUID),
        (&held.epoch as _, Type::INT8),
        (&Uuid::nil() as _, Type::UUID),
    ];
    Ok(client.execute("turns.set_aside", SQL, &params).await? == 1)
}
