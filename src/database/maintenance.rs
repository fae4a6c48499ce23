//! What upkeep asks and changes. Every sweep is bounded, and any number of them may run at once.

use jiff::Timestamp;
use uuid::Uuid;

use super::inspect::{awaits, public_id};
use super::{Client, Columns, DatabaseError, Statements, Type};
use crate::ids::DeliveryId;
use crate::jobs::state::WorkKind;

/// The tables with a partition a month.
const PARTITIONED: [&str; 4] = ["deliveries", "events", "api_audit", "usage"];

/// Makes the partitions of the month of `at`, and of the month after it. Gives how many were missing.
pub async fn ensure_partitions(client: &mut Client, at: Timestamp) -> Result<usize, DatabaseError> {
    const SQL: &str = "
        SELECT ensure_month_partition(parent, at) AS made
        FROM unnest($1::text[]) AS parent,
             -- From the month's start: from its end, 32 days may reach over the whole of February.
             unnest(ARRAY[$2, date_trunc('month', $2, 'UTC') + interval '32 days']) AS at";
    let transaction = client.transaction_with("SET LOCAL lock_timeout = '2s'").await?;
    let params = [(&PARTITIONED.as_slice() as _, Type::TEXT_ARRAY), (&at as _, Type::TIMESTAMPTZ)];
    let rows = transaction.query("maintenance.ensure_partitions", SQL, &params).await?;
    transaction.commit().await?;
    let mut made = 0;
    for row in &rows {
        made += usize::from(row.column::<bool>("made")?);
    }
    Ok(made)
}

/// Drops partitions that retention has emptied and that end before `before`.
pub async fn drop_empty_partitions(client: &mut Client, before: Timestamp) -> Result<i32, DatabaseError> {
    const SQL: &str = "SELECT sum(drop_empty_month_partitions(parent, $2))::int4 AS dropped
                       FROM unnest($1::text[]) AS parent";
    let transaction = client.transaction_with("SET LOCAL lock_timeout = '2s'").await?;
    let params = [(&PARTITIONED.as_slice() as _, Type::TEXT_ARRAY), (&before as _, Type::TIMESTAMPTZ)];
    let row = transaction.query_one("maintenance.drop_empty_partitions", SQL, &params).await?;
    transaction.commit().await?;
    row.column("dropped")
}

/// Every source that has a delivery, whether or not it is still configured. One look into the index per source.
pub async fn sources_with_deliveries(client: &impl Statements) -> Result<Vec<String>, DatabaseError> {
    const SQL: &str = "
        WITH RECURSIVE sources AS (
            (SELECT source FROM deliveries ORDER BY source LIMIT 1)
            UNION ALL
            SELECT (SELECT deliveries.source FROM deliveries WHERE deliveries.source > sources.source
                    ORDER BY deliveries.source LIMIT 1)
            FROM sources WHERE sources.source IS NOT NULL
        )
        SELECT source FROM sources WHERE source IS NOT NULL";
    let rows = client.query("maintenance.sources_with_deliveries", SQL, &[]).await?;
    rows.iter().map(|row| row.column("source")).collect()
}

/// A delivery past its time, and the blob its body is in.
#[derive(Debug)]
pub struct ExpiredDelivery {
    pub id: DeliveryId,
    pub body_blob: Option<String>,
}

/// A delivery of the source $1 from before $2 with nothing left to do.
pub(super) const DISPOSABLE: &str = "
    source = $1 AND id < uuid_floor($2)
    AND NOT EXISTS (
        SELECT 1 FROM events
        WHERE events.delivery_id = deliveries.id
          AND (events.state = 'held'
               OR EXISTS (SELECT 1 FROM jobs
                          WHERE jobs.event_id = events.id AND jobs.state IN ('pending', 'leased'))
               OR EXISTS (SELECT 1 FROM callbacks
                          WHERE callbacks.event_id = events.id AND callbacks.state IN ('pending', 'leased'))
               OR EXISTS (SELECT 1 FROM dead_letters
                          WHERE dead_letters.event_id = events.id AND dead_letters.state = 'open')))";

/// The oldest deliveries of a source from before an instant, except those with an event that is held, has work that
/// is not done, or an open dead letter.
pub async fn expired_deliveries(
    client: &impl Statements,
    source: &str,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<ExpiredDelivery>, DatabaseError> {
    let sql = format!("SELECT id, body_blob FROM deliveries WHERE {DISPOSABLE} ORDER BY id LIMIT $3");
    let params = [(&source as _, Type::TEXT), (&before as _, Type::TIMESTAMPTZ), (&limit as _, Type::INT8)];
    let rows = client.query("maintenance.expired_deliveries", &sql, &params).await?;
    rows.iter()
        .map(|row| {
            Ok(ExpiredDelivery { id: DeliveryId(row.column("id")?), body_blob: row.column("body_blob")? })
        })
        .collect()
}

/// Deletes deliveries with their events and the work that came of them. Gives how many events went.
pub async fn delete_deliveries(client: &impl Statements, ids: &[DeliveryId]) -> Result<i64, DatabaseError> {
    const SQL: &str = "
        WITH gone AS (DELETE FROM events WHERE delivery_id = ANY($1) RETURNING id),
        jobs_gone AS (DELETE FROM jobs USING gone WHERE jobs.event_id = gone.id),
        callbacks_gone AS (DELETE FROM callbacks USING gone WHERE callbacks.event_id = gone.id RETURNING callbacks.id),
        attempts_gone AS (
            DELETE FROM callback_attempts USING callbacks_gone
            WHERE callback_attempts.callback_id = callbacks_gone.id),
        letters_gone AS (DELETE FROM dead_letters USING gone WHERE dead_letters.event_id = gone.id),
        deliveries_gone AS (DELETE FROM deliveries WHERE id = ANY($1))
        SELECT count(*) AS events FROM gone";
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let row = client.query_one("maintenance.delete_deliveries", SQL, &[(&ids, Type::UUID_ARRAY)]).await?;
    row.column("events")
}

/// Deletes keys that ended before an instant. Late messages are judged by their arrival, so leave them time.
pub async fn delete_expired_keys(
    client: &impl Statements,
    before: Timestamp,
    limit: i64,
) -> Result<u64, DatabaseError> {
    const SQL: &str = "
        DELETE FROM event_keys USING (
            SELECT source, key FROM event_keys WHERE expires_at < $1
            ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
        ) AS expired
        WHERE event_keys.source = expired.source AND event_keys.key = expired.key";
    let params = [(&before as _, Type::TIMESTAMPTZ), (&limit as _, Type::INT8)];
    client.execute("maintenance.delete_expired_keys", SQL, &params).await
}

/// Deletes settled dead letters of messages (those of work go with their event).
pub async fn delete_settled_messages(
    client: &impl Statements,
    before: Timestamp,
    limit: i64,
) -> Result<u64, DatabaseError> {
    const SQL: &str = "
        DELETE FROM dead_letters USING (
            SELECT id FROM dead_letters WHERE kind = 'message' AND state <> 'open' AND resolved_at < $1
            ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
        ) AS settled
        WHERE dead_letters.id = settled.id";
    let params = [(&before as _, Type::TIMESTAMPTZ), (&limit as _, Type::INT8)];
    client.execute("maintenance.delete_settled_messages", SQL, &params).await
}

/// A queue message that was given up.
#[derive(Debug)]
pub struct DeadMessage<'a> {
    /// Derived from the message, so that a second sweep that sees it again changes nothing.
    pub subject: Uuid,
    pub queue: &'a str,
    pub source: Option<&'a str>,
    pub reason_code: &'a str,
    pub reason: &'a str,
    pub text: &'a str,
    pub attempts: i32,
}

/// Writes the dead letter of a message. Says whether it was new.
pub async fn bury_message(
    client: &impl Statements,
    message: &DeadMessage<'_>,
) -> Result<bool, DatabaseError> {
    const SQL: &str = "
        INSERT INTO dead_letters (id, kind, subject_id, source, queue, reason_code, reason, message, attempts)
        VALUES ($1, 'message', $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (kind, subject_id, epoch) DO NOTHING";
    // PostgreSQL takes no NUL in text.
    let text = message.text.replace('\0', "\u{fffd}");
    let id = Uuid::now_v7();
    let written = client
        .execute(
            "maintenance.bury_message",
            SQL,
            &[
                (&id, Type::UUID),
                (&message.subject, Type::UUID),
                (&message.source, Type::TEXT),
                (&message.queue, Type::TEXT),
                (&message.reason_code, Type::TEXT),
                (&message.reason, Type::TEXT),
                (&text, Type::TEXT),
                (&message.attempts, Type::INT4),
            ],
        )
        .await?;
    Ok(written == 1)
}

/// How much work waits, and how long the oldest has been due.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Backlog {
    pub kind: &'static str,
    /// Rows that are due and unleased.
    pub due: i64,
    /// Rows that wait for a later time.
    pub scheduled: i64,
    pub leased: i64,
    /// Callbacks that wait until their target is enabled. They are neither due nor scheduled.
    pub target_disabled: i64,
    /// Seconds the oldest due row has waited.
    pub oldest_due_seconds: f64,
    pub open_dead_letters: i64,
}

/// The backlog of one kind of work.
pub async fn backlog(client: &impl Statements, kind: WorkKind) -> Result<Backlog, DatabaseError> {
    let (table, disabled) = match kind {
        WorkKind::Job => ("jobs", "false"),
        WorkKind::Callback => (
            "callbacks",
            "EXISTS (SELECT 1 FROM callback_targets WHERE name = callbacks.target AND disabled_at IS NOT NULL)",
        ),
    };
    let sql = format!(
        "SELECT count(*) FILTER (WHERE NOT disabled AND due_at <= now()) AS due,
                count(*) FILTER (WHERE NOT disabled AND due_at > now()) AS scheduled,
                count(*) FILTER (WHERE state = 'leased') AS leased,
                count(*) FILTER (WHERE disabled) AS target_disabled,
                coalesce(extract(epoch FROM now() - min(due_at) FILTER (WHERE NOT disabled AND due_at <= now())), 0)::float8
                    AS oldest,
                (SELECT count(*) FROM dead_letters WHERE kind = '{kind}' AND state = 'open') AS dead
         FROM (SELECT state, due_at, CASE state WHEN 'pending' THEN {disabled} END AS disabled
               FROM {table} WHERE state IN ('pending', 'leased')) AS work"
    );
    let row = client.query_one("maintenance.backlog", &sql, &[]).await?;
    Ok(Backlog {
        kind: kind.as_str(),
        due: row.column("due")?,
        scheduled: row.column("scheduled")?,
        leased: row.column("leased")?,
        target_disabled: row.column("target_disabled")?,
        oldest_due_seconds: row.column("oldest")?,
        open_dead_letters: row.column("dead")?,
    })
}

/// A job or callback that somebody works on, for `/status`.
#[derive(Debug, serde::Serialize)]
pub struct Leased {
    pub kind: String,
    /// With its prefix.
    pub id: String,
    /// A job's kind, a callback's target.
    pub object: String,
    pub attempts: i32,
    /// Since it was due, which it was when the attempt began.
    pub age_seconds: f64,
    /// What has to happen next.
    pub awaits: &'static str,
}

/// Work under a lease, in whatever process, the oldest first.
pub async fn leased(client: &impl Statements, limit: i64) -> Result<Vec<Leased>, DatabaseError> {
    const SQL: &str = "
        SELECT work, id, object, attempts, extract(epoch FROM now() - due_at)::float8 AS age,
               lease_until < now() AS lapsed
        FROM (SELECT 'job' AS work, id, kind AS object, attempts, due_at, lease_until FROM jobs WHERE state = 'leased'
              UNION ALL
              SELECT 'callback', id, target, attempts, due_at, lease_until FROM callbacks WHERE state = 'leased') AS work
        ORDER BY due_at LIMIT $1";
    let rows = client.query("maintenance.leased", SQL, &[(&limit, Type::INT8)]).await?;
    rows.iter()
        .map(|row| {
            let kind: String = row.column("work")?;
            let lapsed: bool = row.column("lapsed")?;
            Ok(Leased {
                id: public_id(&kind, row.column("id")?),
                kind,
                object: row.column("object")?,
                attempts: row.column("attempts")?,
                age_seconds: row.column("age")?,
                awaits: awaits("leased", true, lapsed, None),
            })
        })
        .collect()
}

/// The shortest question there is: can the database be reached, and what is its clock.
pub async fn ping(client: &impl Statements) -> Result<Timestamp, DatabaseError> {
    client.query_one("maintenance.ping", "SELECT now() AS now", &[]).await?.column("now")
}

/// How many messages were given up and not settled yet.
pub async fn open_message_letters(client: &impl Statements) -> Result<i64, DatabaseError> {
    const SQL: &str = "SELECT count(*) AS open FROM dead_letters WHERE kind = 'message' AND state = 'open'";
    client.query_one("maintenance.open_message_letters", SQL, &[]).await?.column("open")
}

/// Which of these deliveries are stored, or stand in a dead letter that may still be replayed.
pub async fn known_deliveries(
    client: &impl Statements,
    ids: &[DeliveryId],
) -> Result<Vec<DeliveryId>, DatabaseError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    const SQL: &str = "
        SELECT id FROM deliveries WHERE id = ANY($1)
        UNION
        SELECT wanted.id FROM unnest($1) AS wanted (id)
        JOIN dead_letters ON dead_letters.kind = 'message' AND dead_letters.state <> 'discarded'
                         AND position('dlv_' || wanted.id::text IN dead_letters.message) > 0";
    let rows = client.query("maintenance.known_deliveries", SQL, &[(&ids, Type::UUID_ARRAY)]).await?;
    rows.iter().map(|row| row.column("id").map(DeliveryId)).collect()
}
