//! What retention would delete, counted: by table, and by source or owner. The conditions are those of the sweeps.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;

use super::maintenance::DISPOSABLE;
use super::retention::Whose;
use super::{Columns, DatabaseError, Param, Statements, Type};

/// Rows whose time is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Expiring {
    /// The table.
    pub what: &'static str,
    /// The source or owner whose they are; empty where they are nobody's.
    pub of: String,
    pub rows: i64,
    pub oldest: Option<Timestamp>,
}

/// Groups of one query are listed up to this; there are more sources or owners than anybody reads.
const MOST: &str = "ORDER BY rows DESC, of LIMIT 1000";

async fn counted(
    client: &impl Statements,
    what: &'static str,
    sql: &str,
    params: &[Param<'_>],
) -> Result<Vec<Expiring>, DatabaseError> {
    let sql = format!("SELECT * FROM ({sql}) AS counted WHERE rows > 0 {MOST}");
    let rows = client.query("expiring.count", &sql, params).await?;
    rows.iter()
        .map(|row| {
            Ok(Expiring {
                what,
                of: row.column("of")?,
                rows: row.column("rows")?,
                oldest: row.column("oldest")?,
            })
        })
        .collect()
}

/// Deliveries of a source, and their events.
pub async fn deliveries(
    client: &impl Statements,
    source: &str,
    before: Timestamp,
) -> Result<Vec<Expiring>, DatabaseError> {
    let params = [(&source as _, Type::TEXT), (&before as _, Type::TIMESTAMPTZ)];
    let sql = format!(
        "SELECT $1::text AS of, count(*) AS rows, min(received_at) AS oldest FROM deliveries WHERE {DISPOSABLE}"
    );
    let mut found = counted(client, "deliveries", &sql, &params).await?;
    let sql = format!(
        "SELECT $1::text AS of, count(*) AS rows, min(received_at) AS oldest FROM events
         WHERE delivery_id IN (SELECT id FROM deliveries WHERE {DISPOSABLE})"
    );
    found.extend(counted(client, "events", &sql, &params).await?);
    Ok(found)
}

/// Keys of events that ended, by source.
pub async fn keys(client: &impl Statements, before: Timestamp) -> Result<Vec<Expiring>, DatabaseError> {
    const SQL: &str = "SELECT source AS of, count(*) AS rows, min(received_at) AS oldest
                       FROM event_keys WHERE expires_at < $1 GROUP BY source";
    counted(client, "event_keys", SQL, &[(&before, Type::TIMESTAMPTZ)]).await
}

/// Settled dead letters of messages, by source.
pub async fn letters(client: &impl Statements, before: Timestamp) -> Result<Vec<Expiring>, DatabaseError> {
    const SQL: &str = "
        SELECT coalesce(source, '') AS of, count(*) AS rows, min(created_at) AS oldest FROM dead_letters
        WHERE kind = 'message' AND state <> 'open' AND resolved_at < $1 GROUP BY source";
    counted(client, "dead_letters", SQL, &[(&before, Type::TIMESTAMPTZ)]).await
}

/// Turns past their time, by owner.
pub async fn responses(
    client: &impl Statements,
    whose: Whose<'_>,
    before: Timestamp,
) -> Result<Vec<Expiring>, DatabaseError> {
    let (owned, owners) = whose.condition("owner", "$2");
    let sql = format!(
        "SELECT owner AS of, count(*) AS rows, min(created_at) AS oldest FROM responses
         WHERE id < uuid_floor($1) AND {owned} AND state NOT IN ('queued', 'in_progress') GROUP BY owner"
    );
    let params = [(&before as _, Type::TIMESTAMPTZ), (&owners as _, Type::TEXT_ARRAY)];
    counted(client, "responses", &sql, &params).await
}

/// Parts of logs in days of which none is kept any more, by owner. What hangs on turns that go is not among them.
pub async fn logs(client: &impl Statements, before: Timestamp) -> Result<Vec<Expiring>, DatabaseError> {
    // As `drop_old_response_events` has it.
    const SQL: &str = "
        WITH days AS (
            SELECT start FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
            CROSS JOIN LATERAL (
                SELECT to_date(right(child.relname, 10), 'YYYY_MM_DD')::timestamp AT TIME ZONE 'UTC' AS start) AS day
            WHERE inhparent = 'response_events'::regclass AND start + interval '24 hours' <= $1
              AND NOT EXISTS (
                  SELECT FROM responses
                  WHERE id >= uuid_floor(start) AND id < uuid_floor(start + interval '24 hours')
                    AND (log_until IS NULL OR log_until > now()))
        )
        SELECT coalesce(r.owner, '') AS of, count(*) AS rows, min(start) AS oldest
        FROM days JOIN response_events e
             ON e.response_id >= uuid_floor(start) AND e.response_id < uuid_floor(start + interval '24 hours')
        LEFT JOIN responses r ON r.id = e.response_id
        GROUP BY r.owner";
    counted(client, "response_events", SQL, &[(&before, Type::TIMESTAMPTZ)]).await
}

/// Conversations past their time, by owner.
pub async fn conversations(
    client: &impl Statements,
    whose: Whose<'_>,
    before: Timestamp,
) -> Result<Vec<Expiring>, DatabaseError> {
    let (owned, owners) = whose.condition("owner", "$2");
    let sql = format!(
        "SELECT owner AS of, count(*) AS rows, min(updated_at) AS oldest FROM conversations
         WHERE deleted_at IS NULL AND active_response IS NULL AND id < uuid_floor($1) AND updated_at < $1 AND {owned}
         GROUP BY owner"
    );
    let params = [(&before as _, Type::TIMESTAMPTZ), (&owners as _, Type::TEXT_ARRAY)];
    counted(client, "conversations", &sql, &params).await
}

/// Rows of what owners deleted that upkeep has not taken yet, by owner.
pub async fn deleted(client: &impl Statements) -> Result<Vec<Expiring>, DatabaseError> {
    const RESPONSES: &str = "
        SELECT owner AS of, count(*) AS rows, min(created_at) AS oldest FROM responses
        WHERE deleted_at IS NOT NULL AND state NOT IN ('queued', 'in_progress') GROUP BY owner";
    const CONVERSATIONS: &str =
        "SELECT owner AS of, count(*) AS rows, min(created_at) AS oldest FROM conversations
                                 WHERE deleted_at IS NOT NULL GROUP BY owner";
    let mut found = counted(client, "responses, deleted", RESPONSES, &[]).await?;
    found.extend(counted(client, "conversations, deleted", CONVERSATIONS, &[]).await?);
    Ok(found)
}

/// Callbacks that told of turns, by owner.
pub async fn turn_callbacks(
    client: &impl Statements,
    whose: Whose<'_>,
    before: Timestamp,
) -> Result<Vec<Expiring>, DatabaseError> {
    let (owned, owners) = whose.condition(whose.callbacks_owner(), "$2");
    let sql = format!(
        "SELECT coalesce(c.owner, '') AS of, count(*) AS rows, min(c.created_at) AS oldest FROM callbacks c
        WHERE c.response_id IS NOT NULL AND c.state IN ('delivered', 'dead') AND c.finished_at < $1 AND {owned}
          AND NOT EXISTS (SELECT FROM dead_letters l
                          WHERE l.kind = 'callback' AND l.subject_id = c.id AND l.state = 'open')
        GROUP BY c.owner"
    );
    let params = [(&before as _, Type::TIMESTAMPTZ), (&owners as _, Type::TEXT_ARRAY)];
    counted(client, "callbacks", &sql, &params).await
}

/// Rows of usage by owner, and budgets by whom they limit, of days before one.
pub async fn usage(client: &impl Statements, before: Date) -> Result<Vec<Expiring>, DatabaseError> {
    const USAGE: &str = "
        SELECT owner AS of, count(*) AS rows, min(created_at) AS oldest FROM usage
        WHERE id < uuid_floor($1::timestamp AT TIME ZONE 'UTC') AND day < $1 AND state = 'settled' GROUP BY owner";
    const BUDGETS: &str = "
        SELECT subject AS of, count(*) AS rows, min(created_at) AS oldest FROM budgets b
        WHERE day < $1 AND held_micros = 0
          AND NOT EXISTS (SELECT FROM budget_slices s
                          WHERE (s.scope, s.subject, s.day) = (b.scope, b.subject, b.day))
        GROUP BY subject";
    let mut found = counted(client, "usage", USAGE, &[(&before, Type::DATE)]).await?;
    found.extend(counted(client, "budgets", BUDGETS, &[(&before, Type::DATE)]).await?);
    Ok(found)
}
