//! Deliveries and their events: the inbox.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::audit::Actor;
use super::{Columns, DatabaseError, Param, Row, Statements, Type};
use crate::events::routes::Plan;
use crate::events::state::EventState;
use crate::ids::{CallbackId, DeliveryId, EventId, JobId};

/// A delivery as it is stored.
#[derive(Debug)]
pub struct NewDelivery<'a> {
    pub id: DeliveryId,
    pub source: &'a str,
    pub event_path: Option<&'a str>,
    pub request_id: &'a str,
    pub trace_parent: Option<&'a str>,
    pub received_at: Timestamp,
    pub verdict: &'a str,
    pub secret_label: Option<&'a str>,
    pub signed_at: Option<Timestamp>,
    /// An array of `[name, value]`, redacted.
    pub headers: serde_json::Value,
    pub content_type: Option<&'a str>,
    pub body_bytes: i64,
    /// Only when it is neither in a blob nor the payload of a single event.
    pub body: Option<&'a [u8]>,
    pub body_blob: Option<&'a str>,
    pub event_count: i32,
    pub sealed: Option<serde_json::Value>,
}

/// One event of a delivery.
#[derive(Clone, Debug)]
pub struct NewEvent<'a> {
    pub id: EventId,
    pub position: i32,
    pub event_type: &'a str,
    pub key: &'a str,
    pub fingerprint: &'a [u8],
    pub subject: Option<&'a str>,
    pub payload: Option<&'a [u8]>,
    /// How long the key stays claimed, counted from arrival.
    pub key_lifetime: SignedDuration,
}

/// What storing a chunk of events came to.
#[derive(Debug, Default)]
pub struct Stored {
    /// Events that now exist and did not before.
    pub events: Vec<EventId>,
    /// Work that was written down with them.
    pub jobs: Vec<JobId>,
    pub callbacks: Vec<CallbackId>,
}

/// Who has a key that could not be claimed.
#[derive(Debug)]
pub struct Holder {
    pub key: String,
    pub event: EventId,
    pub fingerprint: Vec<u8>,
}

/// Stores a delivery and a chunk of its events, claims their keys and writes down their work: one statement, so one
/// transaction and one round trip. Running it again changes nothing.
///
/// Keys must be distinct within the chunk. Rows are inserted in the order of their keys, so that two chunks that share
/// keys wait for each other instead of deadlocking.
///
/// # Errors
/// A missing month partition is [`is_missing_partition`]; make it and call again.
pub async fn store(
    client: &impl Statements,
    delivery: &NewDelivery<'_>,
    events: &[NewEvent<'_>],
    state: EventState,
    plan: &Plan,
) -> Result<Stored, DatabaseError> {
    const SQL: &str = "
        WITH delivery AS (
            INSERT INTO deliveries (id, source, event_path, request_id, trace_parent, received_at, verdict,
                                    secret_label, signed_at, headers, content_type, body_bytes, body, body_blob,
                                    event_count, sealed)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
            ON CONFLICT (id) DO NOTHING
        ), incoming AS (
            SELECT * FROM unnest($17::uuid[], $18::int4[], $19::text[], $20::text[], $21::bytea[], $22::text[],
                                 $23::bytea[], $24::timestamptz[])
                AS t (id, position, type, key, fingerprint, subject, payload, expires_at)
        ), claimed AS (
            INSERT INTO event_keys AS held (source, key, event_id, fingerprint, received_at, expires_at)
            SELECT $2, key, id, fingerprint, $6, expires_at FROM incoming ORDER BY key
            ON CONFLICT (source, key) DO UPDATE
                SET event_id = excluded.event_id, fingerprint = excluded.fingerprint,
                    received_at = excluded.received_at,
                    expires_at = greatest(held.expires_at, excluded.expires_at)
                WHERE held.event_id <> excluded.event_id
                  AND (held.expires_at <= excluded.received_at OR excluded.expires_at <= held.received_at)
            RETURNING event_id
        ), stored AS (
            INSERT INTO events (id, delivery_id, position, source, type, key, fingerprint, subject, received_at,
                                processed_at, state, payload)
            SELECT incoming.id, $1, position, $2, type, key, fingerprint, subject, $6,
                   CASE WHEN $25 = 'processed' THEN now() END, $25, payload
            FROM incoming JOIN claimed ON claimed.event_id = incoming.id
            ON CONFLICT (id) DO NOTHING
            RETURNING id
        ), planned_jobs AS (
            INSERT INTO jobs (id, kind, event_id, run, route, trace_parent)
            SELECT job.id, job.kind, job.event_id, 1, job.route, $5
            FROM unnest($26::uuid[], $27::text[], $28::uuid[], $29::text[]) AS job (id, kind, event_id, route)
            JOIN stored ON stored.id = job.event_id
            ON CONFLICT (event_id, run, route) DO NOTHING
            RETURNING id
        ), planned_callbacks AS (
            INSERT INTO callbacks (id, webhook_id, target, event_id, run, route, trace_parent)
            SELECT callback.id, callback.id, callback.target, callback.event_id, 1, callback.route, $5
            FROM unnest($30::uuid[], $31::text[], $32::uuid[], $33::text[]) AS callback (id, target, event_id, route)
            JOIN stored ON stored.id = callback.event_id
            ON CONFLICT (event_id, run, route) DO NOTHING
            RETURNING id
        )
        SELECT 'event' AS what, id FROM stored
        UNION ALL SELECT 'job', id FROM planned_jobs
        UNION ALL SELECT 'callback', id FROM planned_callbacks";

    let ids: Vec<Uuid> = events.iter().map(|event| event.id.0).collect();
    let positions: Vec<i32> = events.iter().map(|event| event.position).collect();
    let types: Vec<&str> = events.iter().map(|event| event.event_type).collect();
    let keys: Vec<&str> = events.iter().map(|event| event.key).collect();
    let fingerprints: Vec<&[u8]> = events.iter().map(|event| event.fingerprint).collect();
    let subjects: Vec<Option<&str>> = events.iter().map(|event| event.subject).collect();
    let payloads: Vec<Option<&[u8]>> = events.iter().map(|event| event.payload).collect();
    let expiries: Vec<Timestamp> = events
        .iter()
        .map(|event| delivery.received_at.saturating_add(event.key_lifetime).unwrap_or(Timestamp::MAX))
        .collect();
    let planned = Planned::of(plan);
    let mut params: Vec<Param<'_>> = vec![
        (&delivery.id.0, Type::UUID),
        (&delivery.source, Type::TEXT),
        (&delivery.event_path, Type::TEXT),
        (&delivery.request_id, Type::TEXT),
        (&delivery.trace_parent, Type::TEXT),
        (&delivery.received_at, Type::TIMESTAMPTZ),
        (&delivery.verdict, Type::TEXT),
        (&delivery.secret_label, Type::TEXT),
        (&delivery.signed_at, Type::TIMESTAMPTZ),
        (&delivery.headers, Type::JSONB),
        (&delivery.content_type, Type::TEXT),
        (&delivery.body_bytes, Type::INT8),
        (&delivery.body, Type::BYTEA),
        (&delivery.body_blob, Type::TEXT),
        (&delivery.event_count, Type::INT4),
        (&delivery.sealed, Type::JSONB),
        (&ids, Type::UUID_ARRAY),
        (&positions, Type::INT4_ARRAY),
        (&types, Type::TEXT_ARRAY),
        (&keys, Type::TEXT_ARRAY),
        (&fingerprints, Type::BYTEA_ARRAY),
        (&subjects, Type::TEXT_ARRAY),
        (&payloads, Type::BYTEA_ARRAY),
        (&expiries, Type::TIMESTAMPTZ_ARRAY),
    ];
    let state = state.as_str();
    params.push((&state, Type::TEXT));
    planned.push_to(&mut params);
    collect(client.query("events.store", SQL, &params).await?)
}

/// Who has these keys now. For keys that [`store`] did not claim.
pub async fn holders(
    client: &impl Statements,
    source: &str,
    keys: &[&str],
) -> Result<Vec<Holder>, DatabaseError> {
    const SQL: &str = "SELECT key, event_id, fingerprint FROM event_keys WHERE source = $1 AND key = ANY($2)";
    let rows =
        client.query("events.holders", SQL, &[(&source, Type::TEXT), (&keys, Type::TEXT_ARRAY)]).await?;
    rows.iter()
        .map(|row| {
            Ok(Holder {
                key: row.column("key")?,
                event: EventId(row.column("event_id")?),
                fingerprint: row.column("fingerprint")?,
            })
        })
        .collect()
}

/// Keeps an event whose key is taken by one with other content. Says whether it was new.
pub async fn store_conflict(
    client: &impl Statements,
    delivery: &NewDelivery<'_>,
    event: &NewEvent<'_>,
    holder: EventId,
) -> Result<bool, DatabaseError> {
    const SQL: &str = "
        INSERT INTO events (id, delivery_id, position, source, type, key, fingerprint, subject, received_at, state,
                            conflicts_with, payload)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'conflict', $10, $11)
        ON CONFLICT (id) DO NOTHING";
    let stored = client
        .execute(
            "events.store_conflict",
            SQL,
            &[
                (&event.id.0, Type::UUID),
                (&delivery.id.0, Type::UUID),
                (&event.position, Type::INT4),
                (&delivery.source, Type::TEXT),
                (&event.event_type, Type::TEXT),
                (&event.key, Type::TEXT),
                (&event.fingerprint, Type::BYTEA),
                (&event.subject, Type::TEXT),
                (&delivery.received_at, Type::TIMESTAMPTZ),
                (&holder.0, Type::UUID),
                (&event.payload, Type::BYTEA),
            ],
        )
        .await?;
    Ok(stored == 1)
}

/// A held event, as far as routes need it.
#[derive(Debug)]
pub struct HeldEvent {
    pub id: EventId,
    pub event_type: String,
}

/// Sources that have held events, whatever their switch says now.
pub async fn sources_with_held(client: &impl Statements) -> Result<Vec<String>, DatabaseError> {
    let rows = client
        .query("events.sources_with_held", "SELECT DISTINCT source FROM events WHERE state = 'held'", &[])
        .await?;
    rows.iter().map(|row| row.column("source")).collect()
}

/// The oldest held events of a source.
pub async fn held(
    client: &impl Statements,
    source: &str,
    limit: i64,
) -> Result<Vec<HeldEvent>, DatabaseError> {
    const SQL: &str = "SELECT id, type FROM events WHERE state = 'held' AND source = $1 ORDER BY id LIMIT $2";
    let rows = client.query("events.held", SQL, &[(&source, Type::TEXT), (&limit, Type::INT8)]).await?;
    rows.iter()
        .map(|row| Ok(HeldEvent { id: EventId(row.column("id")?), event_type: row.column("type")? }))
        .collect()
}

/// Turns held events into processed ones and writes down their work. An event another run released is left alone.
pub async fn release(
    client: &impl Statements,
    events: &[EventId],
    plan: &Plan,
) -> Result<Stored, DatabaseError> {
    const SQL: &str = "
        WITH wanted AS (
            SELECT id FROM events WHERE id = ANY($1) AND state = 'held' ORDER BY id FOR UPDATE SKIP LOCKED
        ), stored AS (
            UPDATE events SET state = 'processed', processed_at = now()
            FROM wanted WHERE events.id = wanted.id AND events.state = 'held'
            RETURNING events.id, events.delivery_id, events.run
        ), planned_jobs AS (
            INSERT INTO jobs (id, kind, event_id, run, route, trace_parent)
            SELECT job.id, job.kind, job.event_id, stored.run, job.route, deliveries.trace_parent
            FROM unnest($2::uuid[], $3::text[], $4::uuid[], $5::text[]) AS job (id, kind, event_id, route)
            JOIN stored ON stored.id = job.event_id
            LEFT JOIN deliveries ON deliveries.id = stored.delivery_id
            ON CONFLICT (event_id, run, route) DO NOTHING
            RETURNING id
        ), planned_callbacks AS (
            INSERT INTO callbacks (id, webhook_id, target, event_id, run, route, trace_parent)
            SELECT callback.id, callback.id, callback.target, callback.event_id, stored.run, callback.route,
                   deliveries.trace_parent
            FROM unnest($6::uuid[], $7::text[], $8::uuid[], $9::text[]) AS callback (id, target, event_id, route)
            JOIN stored ON stored.id = callback.event_id
            LEFT JOIN deliveries ON deliveries.id = stored.delivery_id
            ON CONFLICT (event_id, run, route) DO NOTHING
            RETURNING id
        )
        SELECT 'event' AS what, id FROM stored
        UNION ALL SELECT 'job', id FROM planned_jobs
        UNION ALL SELECT 'callback', id FROM planned_callbacks";
    let ids: Vec<Uuid> = events.iter().map(|event| event.0).collect();
    let planned = Planned::of(plan);
    let mut params: Vec<Param<'_>> = vec![(&ids, Type::UUID_ARRAY)];
    planned.push_to(&mut params);
    collect(client.query("events.release", SQL, &params).await?)
}

/// Runs a stored event again, as the next run: its work anew, under the routes of now.
///
/// A callback of the new run carries the `webhook-id` of the first one of its route, so that the consumer can tell,
/// unless `new_webhook_ids`. Gives the number of the run; `None` if there is no such event, or it is not `processed`,
/// or another replay came first. Audited in the same statement.
pub async fn replay(
    client: &impl Statements,
    event: EventId,
    run: i32,
    plan: &Plan,
    new_webhook_ids: bool,
    actor: Actor<'_>,
) -> Result<Option<Stored>, DatabaseError> {
    const SQL: &str = "
        WITH stored AS (
            UPDATE events SET run = run + 1 WHERE id = $1 AND state = 'processed' AND run = $2
            RETURNING id, run, delivery_id
        ), planned_jobs AS (
            INSERT INTO jobs (id, kind, event_id, run, route, trace_parent)
            SELECT job.id, job.kind, job.event_id, stored.run, job.route, deliveries.trace_parent
            FROM unnest($3::uuid[], $4::text[], $5::uuid[], $6::text[]) AS job (id, kind, event_id, route)
            JOIN stored ON stored.id = job.event_id
            LEFT JOIN deliveries ON deliveries.id = stored.delivery_id
            RETURNING id
        ), planned_callbacks AS (
            INSERT INTO callbacks (id, webhook_id, target, event_id, run, route, trace_parent)
            SELECT callback.id,
                   coalesce((SELECT earlier.webhook_id FROM callbacks earlier
                             WHERE NOT $11 AND earlier.event_id = callback.event_id
                               AND earlier.route = callback.route AND earlier.target = callback.target
                             ORDER BY earlier.run LIMIT 1), callback.id),
                   callback.target, callback.event_id, stored.run, callback.route, deliveries.trace_parent
            FROM unnest($7::uuid[], $8::text[], $9::uuid[], $10::text[]) AS callback (id, target, event_id, route)
            JOIN stored ON stored.id = callback.event_id
            LEFT JOIN deliveries ON deliveries.id = stored.delivery_id
            RETURNING id
        ), audited AS (
            INSERT INTO api_audit (id, actor, action, subject, detail)
            SELECT $12, $13, 'event.replay', $14, jsonb_build_object('reason', $15) FROM stored
        )
        SELECT 'event' AS what, id FROM stored
        UNION ALL SELECT 'job', id FROM planned_jobs
        UNION ALL SELECT 'callback', id FROM planned_callbacks";
    let planned = Planned::of(plan);
    let mut params: Vec<Param<'_>> = vec![(&event.0, Type::UUID), (&run, Type::INT4)];
    planned.push_to(&mut params);
    let (audit, subject) = (Uuid::now_v7(), event.to_string());
    params.extend([
        (&new_webhook_ids as _, Type::BOOL),
        (&audit as _, Type::UUID),
        (&actor.name as _, Type::TEXT),
        (&subject as _, Type::TEXT),
        (&actor.reason as _, Type::TEXT),
    ]);
    let stored = collect(client.query("events.replay", SQL, &params).await?)?;
    Ok((!stored.events.is_empty()).then_some(stored))
}

/// Whether a statement failed because a month has no partition yet.
pub fn is_missing_partition(error: &DatabaseError) -> bool {
    matches!(error, DatabaseError::Statement { state, constraint: None, .. } if state == "23514")
}

struct Planned<'a> {
    job_ids: Vec<Uuid>,
    job_kinds: Vec<&'a str>,
    job_events: Vec<Uuid>,
    job_routes: Vec<&'a str>,
    callback_ids: Vec<Uuid>,
    callback_targets: Vec<&'a str>,
    callback_events: Vec<Uuid>,
    callback_routes: Vec<&'a str>,
}

impl<'a> Planned<'a> {
    fn of(plan: &'a Plan) -> Self {
        Self {
            job_ids: plan.jobs.iter().map(|job| job.id.0).collect(),
            job_kinds: plan.jobs.iter().map(|job| job.kind.as_str()).collect(),
            job_events: plan.jobs.iter().map(|job| job.event.0).collect(),
            job_routes: plan.jobs.iter().map(|job| job.route.as_str()).collect(),
            callback_ids: plan.callbacks.iter().map(|callback| callback.id.0).collect(),
            callback_targets: plan.callbacks.iter().map(|callback| callback.target.as_str()).collect(),
            callback_events: plan.callbacks.iter().map(|callback| callback.event.0).collect(),
            callback_routes: plan.callbacks.iter().map(|callback| callback.route.as_str()).collect(),
        }
    }

    fn push_to<'p>(&'p self, params: &mut Vec<Param<'p>>) {
        params.extend([
            (&self.job_ids as _, Type::UUID_ARRAY),
            (&self.job_kinds as _, Type::TEXT_ARRAY),
            (&self.job_events as _, Type::UUID_ARRAY),
            (&self.job_routes as _, Type::TEXT_ARRAY),
            (&self.callback_ids as _, Type::UUID_ARRAY),
            (&self.callback_targets as _, Type::TEXT_ARRAY),
            (&self.callback_events as _, Type::UUID_ARRAY),
            (&self.callback_routes as _, Type::TEXT_ARRAY),
        ]);
    }
}

fn collect(rows: Vec<Row>) -> Result<Stored, DatabaseError> {
    let mut stored = Stored::default();
    for row in &rows {
        let id = row.column("id")?;
        match row.column::<&str>("what")? {
            "event" => stored.events.push(EventId(id)),
            "job" => stored.jobs.push(JobId(id)),
            _ => stored.callbacks.push(CallbackId(id)),
        }
    }
    Ok(stored)
}
