//! What time makes superfluous of conversations and turns. Every sweep is bounded, and any number of them may run.

use jiff::Timestamp;

use super::{Client, Columns, DatabaseError, Statements, Type};

/// Makes the day partitions of the logs from `from` on. Gives how many were missing.
pub async fn ensure_log_partitions(
    client: &impl Statements,
    from: Timestamp,
    days: u32,
) -> Result<usize, DatabaseError> {
    const SQL: &str = "
        SELECT ensure_day_partition('response_events', $1 + make_interval(hours => 24 * day)) AS made
        FROM generate_series(0, $2 - 1) AS day";
    let days = i32::try_from(days).unwrap_or(i32::MAX);
    let params = [(&from as _, Type::TIMESTAMPTZ), (&days as _, Type::INT4)];
    let rows = client.query("retention.ensure_log_partitions", SQL, &params).await?;
    let mut made = 0;
    for row in &rows {
        made += usize::from(row.column::<bool>("made")?);
    }
    Ok(made)
}

/// Drops the day partitions of the logs that end before `before`, except those of which a turn still runs or a log is
/// still to be kept. Gives their number.
pub async fn drop_old_logs(client: &mut Client, before: Timestamp) -> Result<i32, DatabaseError> {
    let transaction = client.transaction_with("SET LOCAL lock_timeout = '2s'").await?;
    let row = transaction
        .query_one(
            "retention.drop_old_logs",
            "SELECT drop_old_response_events($1) AS dropped",
            &[(&before, Type::TIMESTAMPTZ)],
        )
        .await?;
    transaction.commit().await?;
    row.column("dropped")
}

/// What makes a turn's row superfluous. A turn that still runs never is.
#[derive(Clone, Copy, Debug)]
pub enum Superfluous<'a> {
    /// It began before this, and is not of an owner with a time of its own.
    BegunBefore { before: Timestamp, except: &'a [&'a str] },
    /// It is this owner's and began before this.
    OfOwner { owner: &'a str, before: Timestamp },
    /// Its owner deleted it.
    Deleted,
    /// Its conversation was deleted.
    OfDeletedConversations,
}

/// Deletes rows of turns with their logs, oldest first, and flags their threads for
/// [`threads::trim_flagged`](super::threads::trim_flagged). Gives how many went.
pub async fn delete_responses(
    client: &impl Statements,
    which: Superfluous<'_>,
    limit: i64,
) -> Result<u64, DatabaseError> {
    let (from, order) = match which {
        Superfluous::BegunBefore { .. } => {
            ("responses r WHERE r.id < uuid_floor($2) AND r.owner <> ALL ($3)", "r.id")
        }
        Superfluous::OfOwner { .. } => {
            ("responses r WHERE r.id < uuid_floor($2) AND r.owner = ANY ($3)", "r.id")
        }
        Superfluous::Deleted => ("responses r WHERE r.deleted_at IS NOT NULL", "r.deleted_at"),
        Superfluous::OfDeletedConversations => (
            "conversations c JOIN responses r ON r.conversation_id = c.id WHERE c.deleted_at IS NOT NULL",
            "c.deleted_at",
        ),
    };
    let sql = format!(
        "WITH old AS (
            SELECT r.id, r.thread_id FROM {from} AND r.state NOT IN ('queued', 'in_progress')
            ORDER BY {order} LIMIT $1 FOR UPDATE OF r SKIP LOCKED
        ), log AS (
            DELETE FROM response_events e USING old WHERE e.response_id = old.id
        ), touched AS (
            SELECT id FROM threads WHERE id IN (SELECT thread_id FROM old) ORDER BY id FOR NO KEY UPDATE
        ), flagged AS (
            UPDATE threads t SET trim_at = coalesce(t.trim_at, now()) FROM touched WHERE t.id = touched.id
        )
        DELETE FROM responses r USING old WHERE r.id = old.id"
    );
    let (before, owners): (_, Vec<&str>) = match which {
        Superfluous::BegunBefore { before, except } => (Some(before), except.to_vec()),
        Superfluous::OfOwner { owner, before } => (Some(before), vec![owner]),
        Superfluous::Deleted | Superfluous::OfDeletedConversations => (None, Vec::new()),
    };
    let params =
        [(&limit as _, Type::INT8), (&before as _, Type::TIMESTAMPTZ), (&owners as _, Type::TEXT_ARRAY)];
    client.execute("retention.delete_responses", &sql, &params).await
}

/// Whose conversations.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'a> {
    Of(&'a str),
    /// Everybody's but those of owners with a time of their own.
    Except(&'a [&'a str]),
}

impl<'a> Whose<'a> {
    /// The condition on a column, with the owners as a parameter.
    pub(super) fn condition(self, column: &str, parameter: &str) -> (String, Vec<&'a str>) {
        match self {
            Self::Of(owner) => (format!("{column} = ANY ({parameter})"), vec![owner]),
            Self::Except(owners) => (format!("{column} <> ALL ({parameter})"), owners.to_vec()),
        }
    }

    /// The column of a callback `c`. One without an owner is among everybody's.
    pub(super) const fn callbacks_owner(self) -> &'static str {
        match self {
            Self::Of(_) => "c.owner",
            Self::Except(_) => "coalesce(c.owner, '')",
        }
    }
}

/// Deletes conversations in which nothing has happened since an instant, as their owner would. Gives how many.
pub async fn expire_conversations(
    client: &impl Statements,
    whose: Whose<'_>,
    before: Timestamp,
    limit: i64,
) -> Result<u64, DatabaseError> {
    let (owned, owners) = whose.condition("c.owner", "$3");
    let sql = format!(
        "WITH old AS (
            SELECT c.id FROM conversations c
            WHERE c.deleted_at IS NULL AND c.active_response IS NULL AND c.id < uuid_floor($1) AND c.updated_at < $1
              AND {owned}
            ORDER BY c.id LIMIT $2 FOR UPDATE SKIP LOCKED
        ), gone AS (
            UPDATE conversations c SET deleted_at = now(), title = NULL, metadata = '{{}}', external_key = NULL
            FROM old
            WHERE c.id = old.id AND c.deleted_at IS NULL AND c.active_response IS NULL
            RETURNING c.thread_id
        ), flagged AS (
            UPDATE threads t SET trim_at = now() FROM gone WHERE t.id = gone.thread_id
        )
        SELECT count(*) AS gone FROM gone"
    );
    let params =
        [(&before as _, Type::TIMESTAMPTZ), (&limit as _, Type::INT8), (&owners as _, Type::TEXT_ARRAY)];
    let row = client.query_one("retention.expire_conversations", &sql, &params).await?;
    row.column::<i64>("gone").map(i64::unsigned_abs)
}

/// Deletes rows of deleted conversations that have no turns left, with what was granted on them. Gives how many went.
pub async fn delete_conversations(client: &impl Statements, limit: i64) -> Result<u64, DatabaseError> {
    const SQL: &str = "
        WITH old AS (
            SELECT c.id, c.thread_id FROM conversations c
            WHERE c.deleted_at IS NOT NULL AND NOT EXISTS (SELECT FROM responses r WHERE r.conversation_id = c.id)
            ORDER BY c.deleted_at LIMIT $1 FOR UPDATE OF c SKIP LOCKED
        ), touched AS (
            SELECT id FROM threads WHERE id IN (SELECT thread_id FROM old) ORDER BY id FOR NO KEY UPDATE
        ), flagged AS (
            UPDATE threads t SET trim_at = coalesce(t.trim_at, now()) FROM touched WHERE t.id = touched.id
        ), ungranted AS (
            DELETE FROM grants g USING old WHERE g.conversation_id = old.id
        )
        DELETE FROM conversations c USING old WHERE c.id = old.id";
    client.execute("retention.delete_conversations", SQL, &[(&limit, Type::INT8)]).await
}

/// Deletes callbacks of turns that were settled before an instant, with their attempts and their dead letters. One with
/// an open dead letter stays. Gives how many went.
pub async fn delete_turn_callbacks(
    client: &impl Statements,
    whose: Whose<'_>,
    before: Timestamp,
    limit: i64,
) -> Result<u64, DatabaseError> {
    let (owned, owners) = whose.condition(whose.callbacks_owner(), "$3");
    let sql = format!(
        "WITH old AS (
            SELECT c.id FROM callbacks c
            WHERE c.response_id IS NOT NULL AND c.state IN ('delivered', 'dead') AND c.finished_at < $1 AND {owned}
              AND NOT EXISTS (SELECT FROM dead_letters l
                              WHERE l.kind = 'callback' AND l.subject_id = c.id AND l.state = 'open')
            ORDER BY c.id LIMIT $2 FOR UPDATE OF c SKIP LOCKED
        ), attempts AS (
            DELETE FROM callback_attempts a USING old WHERE a.callback_id = old.id
        ), letters AS (
            DELETE FROM dead_letters l USING old WHERE l.kind = 'callback' AND l.subject_id = old.id
        )
        DELETE FROM callbacks c USING old WHERE c.id = old.id"
    );
    let params =
        [(&before as _, Type::TIMESTAMPTZ), (&limit as _, Type::INT8), (&owners as _, Type::TEXT_ARRAY)];
    client.execute("retention.delete_turn_callbacks", &sql, &params).await
}
