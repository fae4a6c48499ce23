//! What operators look at: lists and single rows, shaped for tables and for JSON.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::{Columns, DatabaseError, Row, Statements, Type};
use crate::ids::{DeadLetterId, DeliveryId, EventId, ResponseId};
use crate::jobs::state::WorkKind;

/// Which events to list.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    pub source: Option<String>,
    pub event_type: Option<String>,
    pub state: Option<String>,
    pub key: Option<String>,
    /// Only events younger than this one: what `tail` asks for.
    pub after: Option<EventId>,
    pub since: Option<Timestamp>,
    pub limit: i64,
}

/// A line of `events list`.
#[derive(Debug, Serialize)]
pub struct EventLine {
    pub id: EventId,
    pub source: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub key: String,
    pub state: String,
    pub received_at: Timestamp,
    pub processed_at: Option<Timestamp>,
    pub run: i32,
    /// Finished and all jobs and callbacks of the current run.
    pub work_done: i64,
    pub work: i64,
    pub dead: i64,
}

/// Events, youngest first (with `after`: oldest first).
pub async fn events(client: &impl Statements, filter: &EventFilter) -> Result<Vec<EventLine>, DatabaseError> {
    let order = if filter.after.is_some() { "ASC" } else { "DESC" };
    let sql = format!(
        "SELECT events.id, source, type, key, events.state, received_at, processed_at, run,
                work.total, work.done, work.dead
         FROM (SELECT * FROM events
               WHERE ($1::text IS NULL OR source = $1) AND ($2::text IS NULL OR type LIKE $2)
                 AND ($3::text IS NULL OR state = $3) AND ($4::text IS NULL OR key = $4)
                 AND ($5::uuid IS NULL OR id > $5) AND ($6::timestamptz IS NULL OR id >= uuid_floor($6))
               ORDER BY id {order} LIMIT $7) AS events
         CROSS JOIN LATERAL (
             SELECT count(*) AS total, count(*) FILTER (WHERE state IN ('succeeded', 'delivered')) AS done,
                    count(*) FILTER (WHERE state = 'dead') AS dead
             FROM (SELECT state FROM jobs WHERE event_id = events.id AND jobs.run = events.run
                   UNION ALL
                   SELECT state FROM callbacks WHERE event_id = events.id AND callbacks.run = events.run) AS work
         ) AS work
         ORDER BY events.id {order}"
    );
    let pattern = filter.event_type.as_deref().map(like_pattern);
    let rows = client
        .query(
            "inspect.events",
            &sql,
            &[
                (&filter.source, Type::TEXT),
                (&pattern, Type::TEXT),
                (&filter.state, Type::TEXT),
                (&filter.key, Type::TEXT),
                (&filter.after.map(|id| id.0), Type::UUID),
                (&filter.since, Type::TIMESTAMPTZ),
                (&filter.limit, Type::INT8),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(EventLine {
                id: EventId(row.column("id")?),
                source: row.column("source")?,
                event_type: row.column("type")?,
                key: row.column("key")?,
                state: row.column("state")?,
                received_at: row.column("received_at")?,
                processed_at: row.column("processed_at")?,
                run: row.column("run")?,
                work_done: row.column("done")?,
                work: row.column("total")?,
                dead: row.column("dead")?,
            })
        })
        .collect()
}

/// A pattern with `*` as SQL's LIKE has it.
fn like_pattern(pattern: &str) -> String {
    let mut like = String::with_capacity(pattern.len());
    for c in pattern.chars() {
        match c {
            '*' => like.push('%'),
            '%' | '_' | '\\' => like.extend(['\\', c]),
            _ => like.push(c),
        }
    }
    like
}

/// An event with its delivery and its work: `events show`.
#[derive(Debug, Serialize)]
pub struct EventDetail {
    pub id: EventId,
    pub delivery: DeliveryId,
    pub position: i32,
    pub source: String,
    pub event_path: Option<String>,
    #[serde(rename = "type")]
    pub event_type: String,
    pub key: String,
    /// Lower hex.
    pub fingerprint: String,
    pub subject: Option<String>,
    pub state: String,
    pub conflicts_with: Option<EventId>,
    pub run: i32,
    pub received_at: Timestamp,
    pub stored_at: Option<Timestamp>,
    pub processed_at: Option<Timestamp>,
    pub request_id: Option<String>,
    pub trace_parent: Option<String>,
    pub verdict: Option<String>,
    pub secret_label: Option<String>,
    pub signed_at: Option<Timestamp>,
    pub headers: Option<serde_json::Value>,
    pub content_type: Option<String>,
    pub body_bytes: Option<i64>,
    pub body_blob: Option<String>,
    /// How many events the delivery held.
    pub event_count: Option<i32>,
    pub work: Vec<WorkLine>,
    #[serde(skip)]
    pub payload: Option<Vec<u8>>,
}

/// A job or a callback of an event.
#[derive(Debug, Serialize)]
pub struct WorkLine {
    pub kind: String,
    /// With its prefix.
    pub id: String,
    pub route: String,
    /// A job's kind, a callback's target.
    pub object: String,
    /// For a callback that tells of a turn's end.
    pub response: Option<ResponseId>,
    pub run: i32,
    pub state: String,
    pub attempts: i32,
    pub outages: i32,
    pub due_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub error_code: Option<String>,
    pub error: Option<String>,
    /// For callbacks: every try.
    pub tries: Option<serde_json::Value>,
}

/// One event; `None` if there is none of that id.
pub async fn event(client: &impl Statements, id: EventId) -> Result<Option<EventDetail>, DatabaseError> {
    const SQL: &str = "
        SELECT events.id, events.delivery_id, events.position, events.source, deliveries.event_path, events.type,
               events.key, encode(events.fingerprint, 'hex') AS fingerprint, events.subject, events.state,
               events.conflicts_with, events.run, events.received_at, deliveries.stored_at, events.processed_at,
               deliveries.request_id, deliveries.trace_parent, deliveries.verdict, deliveries.secret_label,
               deliveries.signed_at, deliveries.headers, deliveries.content_type, deliveries.body_bytes,
               deliveries.body_blob, deliveries.event_count, events.payload
        FROM events LEFT JOIN deliveries ON deliveries.id = events.delivery_id
        WHERE events.id = $1";
    let Some(row) = client.query_opt("inspect.event", SQL, &[(&id.0, Type::UUID)]).await? else {
        return Ok(None);
    };
    Ok(Some(EventDetail {
        id,
        delivery: DeliveryId(row.column("delivery_id")?),
        position: row.column("position")?,
        source: row.column("source")?,
        event_path: row.column("event_path")?,
        event_type: row.column("type")?,
        key: row.column("key")?,
        fingerprint: row.column("fingerprint")?,
        subject: row.column("subject")?,
        state: row.column("state")?,
        conflicts_with: row.column::<Option<Uuid>>("conflicts_with")?.map(EventId),
        run: row.column("run")?,
        received_at: row.column("received_at")?,
        stored_at: row.column("stored_at")?,
        processed_at: row.column("processed_at")?,
        request_id: row.column("request_id")?,
        trace_parent: row.column("trace_parent")?,
        verdict: row.column("verdict")?,
        secret_label: row.column("secret_label")?,
        signed_at: row.column("signed_at")?,
        headers: row.column("headers")?,
        content_type: row.column("content_type")?,
        body_bytes: row.column("body_bytes")?,
        body_blob: row.column("body_blob")?,
        event_count: row.column("event_count")?,
        payload: row.column("payload")?,
        work: work(client, Work::Of(id), i64::MAX).await?,
    }))
}

/// A row's id with its prefix; what is neither job nor callback has none.
pub(super) fn public_id(kind: &str, id: Uuid) -> String {
    WorkKind::of(kind).map_or_else(|| id.to_string(), |kind| kind.public_id(id))
}

/// Which work to look at.
enum Work<'a> {
    /// Jobs and callbacks of an event, in the order of their runs.
    Of(EventId),
    /// Callbacks, youngest first.
    Callbacks(&'a CallbackFilter),
    /// One job or callback.
    One(Uuid),
}

async fn work(client: &impl Statements, which: Work<'_>, limit: i64) -> Result<Vec<WorkLine>, DatabaseError> {
    const SQL: &str = "
        SELECT * FROM (
            SELECT 'job' AS work, id, route, kind AS object, NULL::uuid AS response, run, state, attempts, outages, due_at, finished_at,
                   error_code, error, NULL::jsonb AS tries
            FROM jobs WHERE event_id = $1 OR id = $5
            UNION ALL
            SELECT 'callback', id, route, target, response_id, run, state, attempts, outages, due_at, finished_at,
                   error_code, error,
                   (SELECT jsonb_agg(jsonb_build_object('attempt', attempt, 'at', at, 'millis', millis,
                                                        'status', status, 'error_code', error_code,
                                                        'response', response) ORDER BY epoch)
                    FROM callback_attempts WHERE callback_id = callbacks.id)
            FROM callbacks
            WHERE ($1::uuid IS NULL OR event_id = $1) AND ($2::text IS NULL OR target = $2)
              AND ($3::text IS NULL OR state = $3) AND ($5::uuid IS NULL OR id = $5)
        ) AS work
        ORDER BY CASE WHEN $1::uuid IS NULL THEN id END DESC, run, work, id
        LIMIT $4";
    let (event, one, callbacks) = match which {
        Work::Of(event) => (Some(event.0), None, None),
        Work::Callbacks(filter) => (None, None, Some(filter)),
        Work::One(id) => (None, Some(id), None),
    };
    let target = callbacks.and_then(|filter| filter.target.as_deref());
    let state = callbacks.and_then(|filter| filter.state.as_deref());
    let rows = client
        .query(
            "inspect.work",
            SQL,
            &[
                (&event, Type::UUID),
                (&target, Type::TEXT),
                (&state, Type::TEXT),
                (&limit, Type::INT8),
                (&one, Type::UUID),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let kind: String = row.column("work")?;
            Ok(WorkLine {
                id: public_id(&kind, row.column("id")?),
                kind,
                route: row.column("route")?,
                object: row.column("object")?,
                response: row.column::<Option<Uuid>>("response")?.map(ResponseId),
                run: row.column("run")?,
                state: row.column("state")?,
                attempts: row.column("attempts")?,
                outages: row.column("outages")?,
                due_at: row.column("due_at")?,
                finished_at: row.column("finished_at")?,
                error_code: row.column("error_code")?,
                error: row.column("error")?,
                tries: row.column("tries")?,
            })
        })
        .collect()
}

/// Which callbacks to list.
#[derive(Clone, Debug, Default)]
pub struct CallbackFilter {
    pub target: Option<String>,
    pub state: Option<String>,
}

/// Callbacks, youngest first.
pub async fn callbacks(
    client: &impl Statements,
    filter: &CallbackFilter,
    limit: i64,
) -> Result<Vec<WorkLine>, DatabaseError> {
    work(client, Work::Callbacks(filter), limit).await
}

/// One job or callback with its tries; `None` if there is none of that id.
pub async fn work_of(client: &impl Statements, id: Uuid) -> Result<Option<WorkLine>, DatabaseError> {
    Ok(work(client, Work::One(id), 1).await?.into_iter().next())
}

/// Which dead letters to list.
#[derive(Clone, Debug, Default)]
pub struct DeadLetterFilter {
    pub id: Option<DeadLetterId>,
    pub kind: Option<String>,
    pub source: Option<String>,
    pub reason_code: Option<String>,
    /// `None`: all states.
    pub state: Option<String>,
    /// For people; whoever settles letters begins with the oldest.
    pub newest_first: bool,
    pub limit: i64,
}

/// A dead letter.
#[derive(Debug, Serialize)]
pub struct DeadLetter {
    pub id: DeadLetterId,
    pub kind: String,
    /// Of a job or callback, with its prefix.
    pub subject: String,
    /// The same as it stands in the row.
    #[serde(skip)]
    pub subject_id: Uuid,
    pub source: Option<String>,
    pub event: Option<EventId>,
    pub queue: Option<String>,
    pub reason_code: String,
    pub reason: String,
    pub attempts: i32,
    pub state: String,
    pub created_at: Timestamp,
    pub resolved_at: Option<Timestamp>,
    pub resolution: Option<String>,
    #[serde(skip)]
    pub message: Option<String>,
}

/// Dead letters, oldest first unless asked otherwise.
pub async fn dead_letters(
    client: &impl Statements,
    filter: &DeadLetterFilter,
) -> Result<Vec<DeadLetter>, DatabaseError> {
    let order = if filter.newest_first { "DESC" } else { "ASC" };
    let sql = format!(
        "SELECT * FROM dead_letters
        WHERE ($1::uuid IS NULL OR id = $1) AND ($2::text IS NULL OR kind = $2)
          AND ($3::text IS NULL OR source = $3) AND ($4::text IS NULL OR reason_code = $4)
          AND ($5::text IS NULL OR state = $5)
        ORDER BY id {order} LIMIT $6"
    );
    let rows = client
        .query(
            "inspect.dead_letters",
            &sql,
            &[
                (&filter.id.map(|id| id.0), Type::UUID),
                (&filter.kind, Type::TEXT),
                (&filter.source, Type::TEXT),
                (&filter.reason_code, Type::TEXT),
                (&filter.state, Type::TEXT),
                (&filter.limit, Type::INT8),
            ],
        )
        .await?;
    rows.iter().map(dead_letter).collect()
}

fn dead_letter(row: &Row) -> Result<DeadLetter, DatabaseError> {
    let (kind, subject_id): (String, Uuid) = (row.column("kind")?, row.column("subject_id")?);
    Ok(DeadLetter {
        id: DeadLetterId(row.column("id")?),
        subject: public_id(&kind, subject_id),
        kind,
        subject_id,
        source: row.column("source")?,
        event: row.column::<Option<Uuid>>("event_id")?.map(EventId),
        queue: row.column("queue")?,
        reason_code: row.column("reason_code")?,
        reason: row.column("reason")?,
        attempts: row.column("attempts")?,
        state: row.column("state")?,
        created_at: row.column("created_at")?,
        resolved_at: row.column("resolved_at")?,
        resolution: row.column("resolution")?,
        message: row.column("message")?,
    })
}
