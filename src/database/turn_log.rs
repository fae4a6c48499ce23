//! The logs of turns: appended by whoever holds the turn, read by anybody its owner lets.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use uuid::Uuid;

use super::responses::{LIVE, status};
use super::turns::Held;
use super::{Client, Columns, DatabaseError, Row, Statements, Type};
use crate::ids::ResponseId;
use crate::openresponses::ResponseStatus;

/// Parts that one read gives of one turn at most.
pub const READ_PARTS: i64 = 500;

/// One part of a turn's log.
#[derive(Clone, Copy, Debug)]
pub struct Append<'a> {
    pub held: Held,
    /// From 0 on, without gaps.
    pub part: i32,
    /// A packed run of chunks, see [`conversation::log`](crate::conversation::log).
    pub data: &'a str,
}

/// What became of the parts of one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// `false`: the turn is lost, or has ended. Stop its upstream, show nothing.
    pub stored: bool,
    /// Nothing was stored either, because the log has not the part before: it ends before this one. PostgreSQL lost the
    /// rest in a crash, since nothing waits for its disk. Append from here on again, part by part as it was.
    pub ends_before: Option<i32>,
    /// Somebody asked for it to stop.
    pub cancel_requested: bool,
}

/// Appends parts of any number of turns: one statement, not waiting for the disk. A part that is there already counts
/// as stored, so an append whose answer was lost may be sent again. The answer has every turn of the batch.
///
/// A day whose partition is missing gets it, once, and the append is tried again.
pub async fn append(
    client: &Client,
    batch: &[Append<'_>],
) -> Result<HashMap<ResponseId, Appended>, DatabaseError> {
    match try_append(client, batch).await {
        Err(error) if is_missing_partition(&error) => {
            let ids: BTreeSet<Uuid> = batch.iter().map(|append| append.held.response.0).collect();
            ensure_partitions(client, ids).await?;
            try_append(client, batch).await
        }
        answer => answer,
    }
}

async fn try_append(
    client: &Client,
    batch: &[Append<'_>],
) -> Result<HashMap<ResponseId, Appended>, DatabaseError> {
    // The share lock is what fences: a takeover waits for it, and an append waits for a takeover and then sees its
    // epoch. In one order, or two statements over the same turns could wait for each other.
    const SQL: &str = "
        WITH asked AS MATERIALIZED (
            SELECT id, epoch, min(part) AS part FROM unnest($1::uuid[], $2::int8[], $3::int4[]) AS part (id, epoch, part)
            WHERE set_config('synchronous_commit', 'off', true) IS NOT NULL
            GROUP BY id, epoch
        ), held AS MATERIALIZED (
            SELECT r.id, r.epoch, r.cancel_requested_at IS NOT NULL AS cancel, r.deleted_at IS NULL AS kept,
                   r.deleted_at IS NULL AND asked.part > 0 AND NOT EXISTS (
                       SELECT FROM response_events e WHERE e.response_id = r.id AND e.part = asked.part - 1) AS short
            FROM asked JOIN responses r ON r.id = asked.id AND r.epoch = asked.epoch
            WHERE r.state = 'in_progress'
            ORDER BY r.id FOR SHARE OF r
        ), stored AS (
            INSERT INTO response_events (response_id, part, data)
            SELECT part.id, part.part, part.data
            FROM unnest($1::uuid[], $2::int8[], $3::int4[], $4::text[]) AS part (id, epoch, part, data)
            JOIN held ON held.id = part.id AND held.epoch = part.epoch AND held.kept AND NOT held.short
            ON CONFLICT (response_id, part) DO NOTHING
        )
        SELECT id, cancel, CASE WHEN short THEN (
                   SELECT coalesce(max(e.part) + 1, 0) FROM response_events e WHERE e.response_id = held.id) END AS ends
        FROM held";
    let held: Vec<Held> = batch.iter().map(|append| append.held).collect();
    let (ids, epochs) = super::turns::columns(&held);
    let parts: Vec<i32> = batch.iter().map(|append| append.part).collect();
    let data: Vec<&str> = batch.iter().map(|append| append.data).collect();
    let params = [
        (&ids as _, Type::UUID_ARRAY),
        (&epochs as _, Type::INT8_ARRAY),
        (&parts as _, Type::INT4_ARRAY),
        (&data as _, Type::TEXT_ARRAY),
    ];
    let rows = client.query("turn_log.append", SQL, &params).await?;
    let lost = Appended { stored: false, ends_before: None, cancel_requested: false };
    let mut answer: HashMap<ResponseId, Appended> =
        batch.iter().map(|append| (append.held.response, lost)).collect();
    for row in &rows {
        let ends_before: Option<i32> = row.column("ends")?;
        let stored = ends_before.is_none();
        let appended = Appended { stored, ends_before, cancel_requested: row.column("cancel")? };
        answer.insert(ResponseId(row.column("id")?), appended);
    }
    Ok(answer)
}

/// Of these turns in progress, with how many parts each has logged, those whose log is shorter, and before which part it
/// ends.
pub async fn shortened(
    client: &impl Statements,
    logged: &[(ResponseId, i32)],
) -> Result<Vec<(ResponseId, i32)>, DatabaseError> {
    const SQL: &str = "
        SELECT r.id, (SELECT coalesce(max(e.part) + 1, 0) FROM response_events e WHERE e.response_id = r.id) AS ends
        FROM unnest($1::uuid[], $2::int4[]) AS asked (id, parts)
        JOIN responses r ON r.id = asked.id AND r.state = 'in_progress' AND r.deleted_at IS NULL
        WHERE asked.parts > 0
          AND NOT EXISTS (SELECT FROM response_events e WHERE e.response_id = r.id AND e.part = asked.parts - 1)";
    let (ids, parts): (Vec<Uuid>, Vec<i32>) = logged.iter().map(|(id, parts)| (id.0, *parts)).unzip();
    let params = [(&ids as _, Type::UUID_ARRAY), (&parts as _, Type::INT4_ARRAY)];
    let rows = client.query("turn_log.shortened", SQL, &params).await?;
    rows.iter().map(|row| Ok((ResponseId(row.column("id")?), row.column("ends")?))).collect()
}

/// Whether the failure is that a turn's day has no partition yet.
fn is_missing_partition(error: &DatabaseError) -> bool {
    // check_violation without a constraint: nothing but the partition itself was violated.
    error.sql_state() == Some("23514") && error.constraint().is_none()
}

/// Makes the partitions for the days of these turns.
async fn ensure_partitions(
    client: &Client,
    responses: impl IntoIterator<Item = Uuid>,
) -> Result<(), DatabaseError> {
    const SQL: &str = "
        SELECT ensure_day_partition('response_events', day) FROM unnest($1::timestamptz[]) AS day";
    let days: BTreeSet<Timestamp> = responses.into_iter().filter_map(day).collect();
    let days: Vec<Timestamp> = days.into_iter().collect();
    client.query("turn_log.ensure_partitions", SQL, &[(&days, Type::TIMESTAMPTZ_ARRAY)]).await?;
    Ok(())
}

/// The beginning of the UTC day of a UUIDv7.
fn day(id: Uuid) -> Option<Timestamp> {
    const DAY: i64 = 24 * 3_600;
    let (seconds, _) = id.get_timestamp()?.to_unix();
    let seconds = i64::try_from(seconds).ok()?;
    Timestamp::from_second(seconds - seconds % DAY).ok()
}

/// From where a turn's log is wanted.
#[derive(Clone, Copy, Debug)]
pub struct LogCursor<'a> {
    pub owner: &'a str,
    pub response: ResponseId,
    pub from_part: i32,
}

/// A piece of a turn's log, and how far the turn had come at that instant.
#[derive(Clone, Debug)]
pub struct LogSlice {
    pub response: ResponseId,
    pub state: ResponseStatus,
    /// Another one than before: another holder. If `restarts` differs too, the log began anew.
    pub epoch: i64,
    pub restarts: i16,
    /// The part's number and data, in order, [`READ_PARTS`] at most.
    pub parts: Vec<(i32, String)>,
    /// There are more parts behind these. If there are none and the state is final, the log is at its end.
    pub has_more: bool,
    /// Whether the log can still be read; `parts` is empty if not.
    pub log_kept: bool,
    pub cancel_requested: bool,
    pub incomplete_reason: Option<String>,
    /// JSON.
    pub error: Option<String>,
    /// JSON.
    pub usage: Option<String>,
    pub completed_at: Option<Timestamp>,
}

/// The logs of any number of turns from a part on: one round trip, one instant. Turns that are not there for their
/// owner are missing from the answer.
pub async fn read_logs(
    client: &impl Statements,
    cursors: &[LogCursor<'_>],
) -> Result<Vec<LogSlice>, DatabaseError> {
    let sql = format!(
        "SELECT r.id, r.state, r.epoch, r.restarts, r.cancel_requested_at IS NOT NULL AS cancel, r.incomplete_reason,
                r.error::text AS error, r.usage::text AS usage, r.completed_at, kept.kept, log.parts, log.data
         FROM unnest($1::text[], $2::uuid[], $3::int4[]) AS asked (owner, id, from_part)
         JOIN responses r ON r.id = asked.id AND r.owner = asked.owner AND {LIVE}
         CROSS JOIN LATERAL (SELECT coalesce(r.log_until > now(), true) AS kept) kept
         CROSS JOIN LATERAL (
             SELECT array_agg(part ORDER BY part) AS parts, array_agg(data ORDER BY part) AS data
             FROM (SELECT part, data FROM response_events e
                   WHERE e.response_id = r.id AND e.part >= asked.from_part AND kept.kept
                   ORDER BY part LIMIT $4) e
         ) log"
    );
    let owners: Vec<&str> = cursors.iter().map(|cursor| cursor.owner).collect();
    let ids: Vec<Uuid> = cursors.iter().map(|cursor| cursor.response.0).collect();
    let from: Vec<i32> = cursors.iter().map(|cursor| cursor.from_part).collect();
    let params = [
        (&owners as _, Type::TEXT_ARRAY),
        (&ids as _, Type::UUID_ARRAY),
        (&from as _, Type::INT4_ARRAY),
        (&(READ_PARTS + 1) as _, Type::INT8),
    ];
    client.query("turn_log.read", &sql, &params).await?.iter().map(slice).collect()
}

/// The log of one turn from a part on. `None`: there is no such turn.
pub async fn read_log(
    client: &impl Statements,
    cursor: LogCursor<'_>,
) -> Result<Option<LogSlice>, DatabaseError> {
    Ok(read_logs(client, &[cursor]).await?.pop())
}

/// Puts other data in the place of parts of a turn's log. Only in the transaction that ends the turn, behind its
/// [`finish`](super::turns::finish): nobody appends to it then.
pub async fn rewrite(
    client: &impl Statements,
    response: ResponseId,
    parts: &[(i32, String)],
) -> Result<(), DatabaseError> {
    const SQL: &str = "
        UPDATE response_events e SET data = new.data
        FROM unnest($2::int4[], $3::text[]) AS new (part, data)
        WHERE e.response_id = $1 AND e.part = new.part";
    let (numbers, data): (Vec<i32>, Vec<&str>) =
        parts.iter().map(|(part, data)| (*part, data.as_str())).unzip();
    let params =
        [(&response.0 as _, Type::UUID), (&numbers as _, Type::INT4_ARRAY), (&data as _, Type::TEXT_ARRAY)];
    client.execute("turn_log.rewrite", SQL, &params).await?;
    Ok(())
}

fn slice(row: &Row) -> Result<LogSlice, DatabaseError> {
    let numbers: Vec<i32> = row.column::<Option<_>>("parts")?.unwrap_or_default();
    let data: Vec<String> = row.column::<Option<_>>("data")?.unwrap_or_default();
    let mut parts: Vec<(i32, String)> = numbers.into_iter().zip(data).collect();
    let most = usize::try_from(READ_PARTS).unwrap_or(usize::MAX);
    let has_more = parts.len() > most;
    parts.truncate(most);
    Ok(LogSlice {
        response: ResponseId(row.column("id")?),
        state: status(row.column("state")?)?,
        epoch: row.column("epoch")?,
        restarts: row.column("restarts")?,
        parts,
        has_more,
        log_kept: row.column("kept")?,
        cancel_requested: row.column("cancel")?,
        incomplete_reason: row.column("incomplete_reason")?,
        error: row.column("error")?,
        usage: row.column("usage")?,
        completed_at: row.column("completed_at")?,
    })
}
