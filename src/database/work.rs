//! Rows of work: claim, renew, finish, retry, give up. Jobs and callbacks share the statements.
//!
//! Every change names the state it expects, and under a lease the epoch: a holder that lost its lease changes nothing
//! and is told so (`false`).

mod sweeps;

pub use sweeps::{due_without_hint, free_lapsed, keep_young};

use std::time::Duration;

use uuid::Uuid;

use super::{Columns, DatabaseError, Row, Statements, Type};
use crate::ids::ResponseId;
use crate::jobs::state::{Failure, WorkKind, WorkState};
use crate::switches::HeldWork;

/// Limits on the tries a row of work gets.
#[derive(Clone, Copy, Debug)]
pub struct ClaimLimits {
    pub lease: Duration,
    pub max_attempts: u32,
    /// From the row's start; beyond it the work is given up even if only outages kept it. `None`: no limit.
    pub max_age: Option<Duration>,
}

/// What a claimant brings along.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ticket<'a> {
    /// Names this claim. A claimant that gives up, or never hears whether it got the row, passes it on.
    pub claim: Uuid,
    /// Claims of those who gave up without being able to say so here: their lease is taken over at once, and their
    /// attempt does not count.
    pub abandoned: &'a [Uuid],
    /// What an operator holds: it is not due.
    pub held: Held<'a>,
}

/// Rows that are not due, whatever their time says, since an operator holds them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held<'a> {
    pub routes: &'a [String],
    /// Kinds of jobs, targets of callbacks.
    pub objects: &'a [String],
    pub all: bool,
}

impl<'a> Held<'a> {
    /// What of the held work is of a kind.
    pub fn of(kind: WorkKind, held: &'a HeldWork) -> Self {
        match kind {
            WorkKind::Job => Self { routes: &held.job_routes, ..Self::default() },
            WorkKind::Callback => {
                Self { routes: &held.callback_routes, objects: &held.targets, all: held.all_targets }
            }
        }
    }
}

/// What asking for a row came to.
#[derive(Debug)]
pub enum Claim {
    /// The row is ours until the lease ends.
    Claimed(Box<ClaimedWork>),
    /// It had used up its attempts or its time: it is dead now and has its dead letter.
    Exhausted { reason: String },
    /// Somebody else has it, it is not due, it is done, or it does not exist.
    NotDue,
}

/// A row of work under a lease, with the event it comes from.
#[derive(Debug)]
pub struct ClaimedWork {
    pub id: Uuid,
    /// A job's kind, a callback's target.
    pub object: String,
    /// The route it comes from.
    pub route: String,
    /// What a callback's consumer sees as `webhook-id`; a job's own id.
    pub webhook_id: Uuid,
    pub epoch: i64,
    /// This one included.
    pub attempts: i32,
    pub outages: i32,
    pub trace_parent: Option<String>,
    /// `None` for a backfill.
    pub event_id: Option<Uuid>,
    pub run: i32,
    /// The attempt before this one never wrote its end: its process died, or could not reach the database. What it did
    /// outside is not known.
    pub cut_before: bool,
    /// Why the attempt before was not the last, if its end was written.
    pub last_error: Option<String>,
    /// What a callback says, where it is not its event.
    pub body: Option<Vec<u8>>,
    /// `None` when retention has taken the event away, and for a backfill.
    pub event: Option<ClaimedEvent>,
    /// For a callback that tells of a turn's end.
    pub turn: Option<ClaimedTurn>,
}

/// The turn whose end a callback tells of.
#[derive(Clone, Debug)]
pub struct ClaimedTurn {
    pub response: ResponseId,
    /// `response.completed` and its like.
    pub event_type: String,
    pub ended_at: jiff::Timestamp,
    /// If it goes to another URL than the target's.
    pub url: Option<String>,
}

/// The event of a claimed row.
#[derive(Debug)]
pub struct ClaimedEvent {
    pub delivery_id: Uuid,
    /// Of the request that brought it, for the log.
    pub request_id: Option<String>,
    pub source: String,
    pub event_type: String,
    pub received_at: jiff::Timestamp,
    pub payload: Option<Vec<u8>>,
    /// Where the payload is when it is not in the row.
    pub body_blob: Option<String>,
    pub sealed: Option<serde_json::Value>,
}

fn table(kind: WorkKind) -> &'static str {
    match kind {
        WorkKind::Job => "jobs",
        WorkKind::Callback => "callbacks",
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// Claims a row that is due, raising its attempts and its epoch. Beyond its attempts or its age it is not run:
/// the dead letter is written instead, so that work that kills its process ends too.
///
/// A callback whose target is disabled is not due.
pub async fn claim(
    client: &impl Statements,
    kind: WorkKind,
    id: Uuid,
    limits: &ClaimLimits,
    ticket: Ticket<'_>,
) -> Result<Claim, DatabaseError> {
    let (table, object, webhook_id, turn, target_enabled) = match kind {
        WorkKind::Job => {
            ("jobs", "kind", "id", "NULL::uuid, NULL::text, NULL::timestamptz, NULL::text, NULL::bytea", "")
        }
        WorkKind::Callback => (
            "callbacks",
            "target",
            "webhook_id",
            "claimed.response_id, claimed.type, claimed.created_at, claimed.url, claimed.body",
            "AND NOT EXISTS (SELECT 1 FROM callback_targets
                             WHERE name = callbacks.target AND disabled_at IS NOT NULL)",
        ),
    };
    let sql = format!(
        "WITH due AS (
            SELECT id, state, attempts - given_up AS tried, claim_id IS NOT NULL AS cut_before,
                   attempts - given_up >= $4
                       OR coalesce(started_at + make_interval(secs => $5) < now(), false) AS exhausted
            FROM {table},
                 -- Also when a sweep freed the lease first; whoever retries has settled its attempt and left no ticket.
                 LATERAL (SELECT coalesce((claim_id = ANY($2))::int, 0) AS given_up) ticket
            WHERE id = $1
              AND (state = 'pending' AND due_at <= now() OR state = 'leased' AND claim_id = ANY($2))
              {target_enabled}
              AND NOT ($8 OR route = ANY($9) OR {object} = ANY($10))
            FOR UPDATE OF {table} SKIP LOCKED
        ), dead AS (
            -- A death has an epoch of its own: a replayed row may grow too old before anyone claims it.
            UPDATE {table} SET state = 'dead', epoch = epoch + 1, finished_at = now(), lease_until = NULL,
                   error_code = coalesce(error_code, 'process_lost'),
                   error = coalesce(error, 'the process ended in every attempt before it could say why')
            FROM due WHERE {table}.id = due.id AND {table}.state = due.state AND due.exhausted
            RETURNING {table}.id, {table}.epoch, event_id, due.tried, error_code, error
        ), letter AS (
            INSERT INTO dead_letters (id, kind, subject_id, epoch, source, event_id, reason_code, reason, attempts)
            SELECT $6, '{kind}', dead.id, dead.epoch, events.source, dead.event_id, error_code,
                   CASE WHEN dead.tried >= $4 THEN 'after ' || dead.tried || ' attempts: ' ELSE 'too old: ' END
                       || error, dead.tried
            FROM dead LEFT JOIN events ON events.id = dead.event_id
            ON CONFLICT (kind, subject_id, epoch) DO NOTHING
            RETURNING reason
        ), claimed AS (
            UPDATE {table} SET state = 'leased', epoch = epoch + 1, claim_id = $7, attempts = due.tried + 1,
                   lease_until = now() + make_interval(secs => $3)
            FROM due WHERE {table}.id = due.id AND {table}.state = due.state AND NOT due.exhausted
            RETURNING {table}.*, due.cut_before
        )
        SELECT NULL AS reason, claimed.id, claimed.{object} AS object, claimed.{webhook_id} AS webhook_id,
               claimed.epoch, claimed.attempts, claimed.outages, claimed.trace_parent, claimed.event_id, claimed.run,
               claimed.cut_before, claimed.error_code AS last_error, claimed.route,
               events.id IS NOT NULL AS has_event,
               events.delivery_id, events.source, events.type, events.received_at, events.payload,
               deliveries.body_blob, deliveries.sealed, deliveries.request_id, turn.*
        FROM claimed
        CROSS JOIN LATERAL (SELECT {turn}) AS turn (response_id, tells, ended_at, url, body)
        LEFT JOIN events ON events.id = claimed.event_id
        LEFT JOIN deliveries ON deliveries.id = events.delivery_id
        UNION ALL
        SELECT letter.reason, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
               NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
        FROM letter"
    );
    let max_attempts = i32::try_from(limits.max_attempts).unwrap_or(i32::MAX);
    let max_age = limits.max_age.map(seconds);
    let letter_id = Uuid::now_v7();
    let row = client
        .query_opt(
            "work.claim",
            &sql,
            &[
                (&id, Type::UUID),
                (&ticket.abandoned, Type::UUID_ARRAY),
                (&seconds(limits.lease), Type::FLOAT8),
                (&max_attempts, Type::INT4),
                (&max_age, Type::FLOAT8),
                (&letter_id, Type::UUID),
                (&ticket.claim, Type::UUID),
                (&ticket.held.all, Type::BOOL),
                (&ticket.held.routes, Type::TEXT_ARRAY),
                (&ticket.held.objects, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    let Some(row) = row else { return Ok(Claim::NotDue) };
    if let Some(reason) = row.column("reason")? {
        return Ok(Claim::Exhausted { reason });
    }
    Ok(Claim::Claimed(Box::new(claimed(&row)?)))
}

fn claimed(row: &Row) -> Result<ClaimedWork, DatabaseError> {
    let event = if row.column("has_event")? {
        Some(ClaimedEvent {
            delivery_id: row.column("delivery_id")?,
            request_id: row.column("request_id")?,
            source: row.column("source")?,
            event_type: row.column("type")?,
            received_at: row.column("received_at")?,
            payload: row.column("payload")?,
            body_blob: row.column("body_blob")?,
            sealed: row.column("sealed")?,
        })
    } else {
        None
    };
    let turn = match row.column::<Option<Uuid>>("response_id")? {
        Some(response) => Some(ClaimedTurn {
            response: ResponseId(response),
            event_type: row.column("tells")?,
            ended_at: row.column("ended_at")?,
            url: row.column("url")?,
        }),
        None => None,
    };
    Ok(ClaimedWork {
        id: row.column("id")?,
        object: row.column("object")?,
        route: row.column("route")?,
        webhook_id: row.column("webhook_id")?,
        epoch: row.column("epoch")?,
        attempts: row.column("attempts")?,
        outages: row.column("outages")?,
        trace_parent: row.column("trace_parent")?,
        event_id: row.column("event_id")?,
        run: row.column("run")?,
        cut_before: row.column("cut_before")?,
        last_error: row.column("last_error")?,
        body: row.column("body")?,
        event,
        turn,
    })
}

/// A row under one lease: what every change below names.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    pub kind: WorkKind,
    pub id: Uuid,
    pub epoch: i64,
}

/// Lengthens a lease from now. `false`: it is lost, stop working.
pub async fn renew(client: &impl Statements, lease: Lease, length: Duration) -> Result<bool, DatabaseError> {
    let sql = format!(
        "UPDATE {} SET lease_until = now() + make_interval(secs => $3)
         WHERE id = $1 AND epoch = $2 AND state = 'leased'",
        table(lease.kind)
    );
    let params = [
        (&lease.id as _, Type::UUID),
        (&lease.epoch as _, Type::INT8),
        (&seconds(length) as _, Type::FLOAT8),
    ];
    Ok(client.execute("work.renew", &sql, &params).await? == 1)
}

/// The row is done. `false`: the lease is lost, somebody else decides.
pub async fn finish(client: &impl Statements, lease: Lease) -> Result<bool, DatabaseError> {
    let sql = format!(
        "UPDATE {} SET state = '{}', finished_at = now(), lease_until = NULL, error_code = NULL, error = NULL
         WHERE id = $1 AND epoch = $2 AND state = 'leased'",
        table(lease.kind),
        WorkState::done(lease.kind)
    );
    let params = [(&lease.id as _, Type::UUID), (&lease.epoch as _, Type::INT8)];
    Ok(client.execute("work.finish", &sql, &params).await? == 1)
}

/// Finishes a `count-event` job and counts its event, in one statement.
pub async fn finish_counting(client: &impl Statements, lease: Lease) -> Result<bool, DatabaseError> {
    const SQL: &str = "
        WITH finished AS (
            UPDATE jobs SET state = 'succeeded', finished_at = now(), lease_until = NULL, error_code = NULL, error = NULL
            WHERE id = $1 AND epoch = $2 AND state = 'leased'
            RETURNING event_id
        ), counted AS (
            INSERT INTO event_counts AS counts (day, source, type, events)
            SELECT (events.received_at AT TIME ZONE 'UTC')::date, events.source, events.type, 1
            FROM finished JOIN events ON events.id = finished.event_id
            ON CONFLICT (day, source, type) DO UPDATE SET events = counts.events + 1
        )
        SELECT event_id FROM finished";
    let params = [(&lease.id as _, Type::UUID), (&lease.epoch as _, Type::INT8)];
    Ok(client.query_opt("work.finish_counting", SQL, &params).await?.is_some())
}

/// Finishes a job that has used the secrets of its event's delivery, and forgets them, in one statement: whoever finds
/// the job undone finds them too.
pub async fn finish_forgetting(client: &impl Statements, lease: Lease) -> Result<bool, DatabaseError> {
    const SQL: &str = "
        WITH finished AS (
            UPDATE jobs SET state = 'succeeded', finished_at = now(), lease_until = NULL, error_code = NULL, error = NULL
            WHERE id = $1 AND epoch = $2 AND state = 'leased'
            RETURNING event_id
        ), forgotten AS (
            UPDATE deliveries SET sealed = NULL
            FROM finished JOIN events ON events.id = finished.event_id
            WHERE deliveries.id = events.delivery_id AND sealed IS NOT NULL
        )
        SELECT event_id FROM finished";
    let params = [(&lease.id as _, Type::UUID), (&lease.epoch as _, Type::INT8)];
    Ok(client.query_opt("work.finish_forgetting", SQL, &params).await?.is_some())
}

/// Whether a job of this kind has done its work for an event, in whichever run.
pub async fn has_succeeded(client: &impl Statements, event: Uuid, kind: &str) -> Result<bool, DatabaseError> {
    const SQL: &str = "SELECT EXISTS (SELECT 1 FROM jobs WHERE event_id = $1 AND kind = $2 AND state = 'succeeded') AS done";
    let params = [(&event as _, Type::UUID), (&kind as _, Type::TEXT)];
    client.query_one("work.has_succeeded", SQL, &params).await?.column("done")
}

/// Puts the row back, due after a delay. An outage gives the attempt back and is counted apart.
pub async fn retry(
    client: &impl Statements,
    lease: Lease,
    delay: Duration,
    outage: bool,
    failure: &Failure,
) -> Result<bool, DatabaseError> {
    let counted = if outage { "attempts = attempts - 1, outages = outages + 1" } else { "outages = 0" };
    let sql = format!(
        "UPDATE {} SET state = 'pending', lease_until = NULL, claim_id = NULL, {counted}, hinted_at = now(),
                due_at = now() + make_interval(secs => $3), error_code = $4, error = $5
         WHERE id = $1 AND epoch = $2 AND state = 'leased'",
        table(lease.kind)
    );
    let changed = client
        .execute(
            "work.retry",
            &sql,
            &[
                (&lease.id, Type::UUID),
                (&lease.epoch, Type::INT8),
                (&seconds(delay), Type::FLOAT8),
                (&failure.code, Type::TEXT),
                (&failure.message, Type::TEXT),
            ],
        )
        .await?;
    Ok(changed == 1)
}

/// Gives the row up: dead, with its dead letter.
pub async fn give_up(
    client: &impl Statements,
    lease: Lease,
    failure: &Failure,
) -> Result<bool, DatabaseError> {
    let sql = format!(
        "WITH dead AS (
            UPDATE {table} SET state = 'dead', finished_at = now(), lease_until = NULL, error_code = $3, error = $4
            WHERE id = $1 AND epoch = $2 AND state = 'leased'
            RETURNING id, epoch, event_id, attempts
        )
        INSERT INTO dead_letters (id, kind, subject_id, epoch, source, event_id, reason_code, reason, attempts)
        SELECT $5, '{kind}', dead.id, dead.epoch, events.source, dead.event_id, $3, $4, dead.attempts
        FROM dead LEFT JOIN events ON events.id = dead.event_id
        ON CONFLICT (kind, subject_id, epoch) DO NOTHING",
        table = table(lease.kind),
        kind = lease.kind,
    );
    let letter_id = Uuid::now_v7();
    let changed = client
        .execute(
            "work.give_up",
            &sql,
            &[
                (&lease.id, Type::UUID),
                (&lease.epoch, Type::INT8),
                (&failure.code, Type::TEXT),
                (&failure.message, Type::TEXT),
                (&letter_id, Type::UUID),
            ],
        )
        .await?;
    Ok(changed == 1)
}
