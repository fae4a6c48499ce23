//! Events.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::turns::{TurnOfEvent, turns_of_event};
use super::work::{WorkLine, work_of_event};
use super::{direction, one_more, page_of};
use crate::database::responses::{Page, PageOf};
use crate::database::{Columns, DatabaseError, Statements, Type};
use crate::ids::{DeliveryId, EventId};

/// Which events to list.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    pub source: Option<String>,
    pub event_type: Option<String>,
    pub state: Option<String>,
    pub key: Option<String>,
    /// Received from this instant on.
    pub since: Option<Timestamp>,
    /// Received before this one.
    pub before: Option<Timestamp>,
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

/// Events by the order of their ids, which is that of their arrival.
pub async fn events(
    client: &impl Statements,
    filter: &EventFilter,
    page: PageOf<EventId>,
) -> Result<Page<EventLine>, DatabaseError> {
    let (behind, order) = direction(page.order);
    let sql = format!(
        "SELECT events.id, source, type, key, events.state, received_at, processed_at, run,
                work.total, work.done, work.dead
         FROM (SELECT * FROM events
               WHERE ($1::text IS NULL OR source = $1) AND ($2::text IS NULL OR type LIKE $2)
                 AND ($3::text IS NULL OR state = $3) AND ($4::text IS NULL OR key = $4)
                 AND ($5::uuid IS NULL OR id {behind} $5) AND ($6::timestamptz IS NULL OR id >= uuid_floor($6))
                 AND ($8::timestamptz IS NULL OR id < uuid_floor($8))
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
                (&page.after.map(|id| id.0), Type::UUID),
                (&filter.since, Type::TIMESTAMPTZ),
                (&one_more(&page), Type::INT8),
                (&filter.before, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    let lines = rows.iter().map(|row| {
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
    });
    page_of(lines, page.limit)
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
    /// What its jobs asked models.
    pub turns: Vec<TurnOfEvent>,
    #[serde(skip)]
    pub payload: Option<Vec<u8>>,
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
        work: work_of_event(client, id).await?,
        turns: turns_of_event(client, id).await?,
    }))
}
