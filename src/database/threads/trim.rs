//! What nothing stands on any more: deleted items, and the words of deleted turns.

use uuid::Uuid;

use super::super::responses::LIVE;
use super::super::{Client, Columns, DatabaseError, Row, Statements, Transaction, Type};
use crate::ids::ResponseId;

/// Deletes what nothing stands on any more of these threads: items behind the last position that a turn, a
/// conversation or a fork needs, and threads that nothing needs. Bases of threads that went are flagged for
/// [`trim_flagged`]. Of deleted turns that have ended, what was asked and logged goes, too. Gives how many items went.
///
/// Two statements: what the first one locks, the second one must see.
pub async fn trim(transaction: &Transaction<'_>, threads: &[Uuid]) -> Result<i64, DatabaseError> {
    let rows = lock(transaction, threads).await?;
    Ok(trim_locked(transaction, rows).await?.gone)
}

/// [`trim`] for one thread and the bases that it alone stood on, in a transaction of its own: what to do after something
/// was deleted from it, so that its items are gone at once and not with the next sweep.
pub async fn trim_now(client: &mut Client, thread: Uuid) -> Result<i64, DatabaseError> {
    let transaction = client.transaction().await?;
    let rows = lock(&transaction, &[thread]).await?;
    let gone = trim_down(&transaction, rows).await?;
    transaction.commit().await?;
    Ok(gone)
}

async fn lock(transaction: &Transaction<'_>, threads: &[Uuid]) -> Result<Vec<Row>, DatabaseError> {
    const LOCK: &str = "SELECT id FROM threads WHERE id = ANY($1) ORDER BY id FOR UPDATE";
    transaction.query("threads.trim_lock", LOCK, &[(&threads, Type::UUID_ARRAY)]).await
}

/// Trims threads, then the bases of those that went, and so on. A thread is locked before its base.
async fn trim_down(transaction: &Transaction<'_>, locked: Vec<Row>) -> Result<i64, DatabaseError> {
    let Trimmed { mut gone, mut bases } = trim_locked(transaction, locked).await?;
    while !bases.is_empty() {
        let rows = lock(transaction, &bases).await?;
        let below = trim_locked(transaction, rows).await?;
        gone += below.gone;
        bases = below.bases;
    }
    Ok(gone)
}

/// The same for the thread of a turn that has ended, if the turn or its conversation was deleted meanwhile: as long as it
/// ran, nothing of it went.
pub async fn trim_deleted(client: &mut Client, response: ResponseId) -> Result<(), DatabaseError> {
    let sql = format!(
        "SELECT t.id FROM responses r JOIN threads t ON t.id = r.thread_id WHERE r.id = $1 AND NOT ({LIVE})
         FOR UPDATE OF t"
    );
    let transaction = client.transaction().await?;
    let rows = transaction.query("threads.trim_deleted", &sql, &[(&response.0, Type::UUID)]).await?;
    trim_down(&transaction, rows).await?;
    transaction.commit().await
}

/// [`trim`] for threads that something was deleted from, the longest waiting first. Gives how many threads were looked
/// at. Any number of sweeps may run.
pub async fn trim_flagged(transaction: &Transaction<'_>, limit: i64) -> Result<usize, DatabaseError> {
    const LOCK: &str = "
        SELECT id FROM threads WHERE trim_at IS NOT NULL ORDER BY trim_at LIMIT $1 FOR UPDATE SKIP LOCKED";
    let rows = transaction.query("threads.trim_flagged", LOCK, &[(&limit, Type::INT8)]).await?;
    let flagged = rows.len();
    trim_locked(transaction, rows).await?;
    Ok(flagged)
}

/// What one statement did.
struct Trimmed {
    /// Items that went.
    gone: i64,
    /// Threads that were the base of one that went, and are flagged.
    bases: Vec<Uuid>,
}

async fn trim_locked(transaction: &Transaction<'_>, locked: Vec<Row>) -> Result<Trimmed, DatabaseError> {
    let sql = format!(
        "WITH needed AS (
            SELECT t.id, t.base_position, t.hidden,
                   EXISTS (SELECT FROM conversations c WHERE c.thread_id = t.id AND c.deleted_at IS NULL) AS whole,
                   (SELECT max(f.base_position) FROM threads f WHERE f.base_thread = t.id) AS forked,
                   (SELECT max(greatest(r.input_to, r.output_to)) FROM responses r
                    WHERE r.thread_id = t.id AND (r.state IN ('queued', 'in_progress') OR {LIVE})) AS shown
            FROM threads t WHERE t.id = ANY($1)
        ), gone AS (
            DELETE FROM items i USING needed
            WHERE i.thread_id = needed.id
              AND (NOT whole AND i.position > greatest(forked, shown, 0)
                   OR i.position = ANY (hidden) AND i.position > coalesce(forked, 0))
            RETURNING i.thread_id, i.position, i.tokens_before
        ), removed AS (
            DELETE FROM threads t USING needed
            WHERE t.id = needed.id AND NOT whole AND forked IS NULL AND shown IS NULL
            RETURNING t.base_thread
        ), kept AS (
            UPDATE threads t
            SET trim_at = CASE WHEN t.id IN (SELECT base_thread FROM removed) THEN now() END,
                head_position = cut.head, aside = ARRAY(SELECT a FROM unnest(t.aside) a WHERE a <= cut.head),
                head_tokens = coalesce(cut.tokens, t.head_tokens),
                head_response = CASE WHEN cut.head = t.head_position THEN t.head_response ELSE cut.response END
            FROM needed CROSS JOIN LATERAL (
                SELECT greatest(needed.forked, needed.shown, needed.base_position) AS upto
            ) last CROSS JOIN LATERAL (
                SELECT CASE WHEN needed.whole OR last.upto >= now_head.head_position THEN now_head.head_position
                            ELSE last.upto END AS head,
                       (SELECT min(gone.tokens_before) FROM gone
                        WHERE gone.thread_id = needed.id AND NOT needed.whole AND gone.position > last.upto) AS tokens,
                       (SELECT r.id FROM responses r
                        WHERE r.thread_id = needed.id AND coalesce(r.output_to, r.input_to) = last.upto AND {LIVE}
                        ORDER BY r.id DESC LIMIT 1) AS response
                FROM threads now_head WHERE now_head.id = needed.id
            ) cut
            WHERE t.id = needed.id AND (needed.whole OR needed.forked IS NOT NULL OR needed.shown IS NOT NULL)
        ), bases AS (
            UPDATE threads t SET trim_at = now()
            FROM removed WHERE t.id = removed.base_thread AND t.id <> ALL ($1)
            RETURNING t.id
        ), deleted AS (
            -- Their rows stay for upkeep, which tells by them what a repeated request meant. Whoever has one locked is
            -- upkeep, and deletes it.
            SELECT r.id FROM responses r
            WHERE r.thread_id = ANY($1) AND r.state NOT IN ('queued', 'in_progress') AND NOT ({LIVE})
            ORDER BY r.id FOR NO KEY UPDATE OF r SKIP LOCKED
        ), logs AS (
            DELETE FROM response_events e USING deleted WHERE e.response_id = deleted.id
        ), wordless AS (
            UPDATE responses r SET request = '{{}}', error = NULL
            FROM deleted WHERE r.id = deleted.id AND (r.request::text <> '{{}}' OR r.error IS NOT NULL)
        )
        SELECT (SELECT count(*) FROM gone) AS gone, ARRAY(SELECT id FROM bases) AS bases"
    );
    let ids = locked.iter().map(|row| row.column("id")).collect::<Result<Vec<Uuid>, _>>()?;
    if ids.is_empty() {
        return Ok(Trimmed { gone: 0, bases: Vec::new() });
    }
    let row = transaction.query_one("threads.trim", &sql, &[(&ids, Type::UUID_ARRAY)]).await?;
    Ok(Trimmed { gone: row.column("gone")?, bases: row.column("bases")? })
}
