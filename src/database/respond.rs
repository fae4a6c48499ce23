//! What events that start model work need: a job's turns, the conversations that events share, and the end of such a
//! job with what its target is told.

use std::time::Duration;

use uuid::Uuid;

use super::responses::status;
use super::turns::{COLUMNS, Held, LOST, Taken, taken};
use super::work::Lease;
use super::{Columns, DatabaseError, Row, Statements, Type};
use crate::ids::{CallbackId, ConversationId, EventId, JobId, ResponseId};
use crate::openresponses::ResponseStatus;
use crate::respond::{INTERRUPTED, SeenTurn, TurnState};

/// What a job knows of its event beside what its claim told, and of the turns it has had.
#[derive(Debug)]
pub struct JobHistory {
    pub key: String,
    pub subject: Option<String>,
    /// As stored.
    pub headers: serde_json::Value,
    /// By their numbers.
    pub turns: Vec<SeenTurn>,
}

/// The history of a claimed job. `None`: its event is gone.
pub async fn history(
    client: &impl Statements,
    job: JobId,
    event: EventId,
) -> Result<Option<JobHistory>, DatabaseError> {
    const EVENT: &str = "
        SELECT e.key, e.subject, coalesce(d.headers, '[]') AS headers
        FROM events e LEFT JOIN deliveries d ON d.id = e.delivery_id WHERE e.id = $1";
    const TURNS: &str = "
        SELECT r.id, r.job_turn, r.state, r.background, r.lease_until < now() AS lapsed, r.error::text AS error,
               r.created_at >= j.started_at AS this_round, r.answers_lost,
               coalesce(r.asked_epoch = r.epoch, false) AS asked
        FROM responses r JOIN jobs j ON j.id = r.job_id
        WHERE r.job_id = $1 ORDER BY r.job_turn";
    let Some(row) = client.query_opt("respond.event", EVENT, &[(&event.0, Type::UUID)]).await? else {
        return Ok(None);
    };
    let turns = client.query("respond.turns", TURNS, &[(&job.0, Type::UUID)]).await?;
    Ok(Some(JobHistory {
        key: row.column("key")?,
        subject: row.column("subject")?,
        headers: row.column("headers")?,
        turns: turns.iter().map(seen).collect::<Result<_, _>>()?,
    }))
}

fn seen(row: &Row) -> Result<SeenTurn, DatabaseError> {
    let error: Option<&str> = row.column("error")?;
    let code = || {
        let error: Option<serde_json::Value> = error.and_then(|error| serde_json::from_str(error).ok());
        error.and_then(|error| Some(error["code"].as_str()?.to_owned())).unwrap_or_default()
    };
    let state = match status(row.column("state")?)? {
        ResponseStatus::Queued | ResponseStatus::InProgress => {
            TurnState::Open { lapsed: row.column("lapsed")?, background: row.column("background")? }
        }
        ResponseStatus::Completed => TurnState::Completed,
        ResponseStatus::Failed => TurnState::Failed { code: code() },
        // Of a version that ended such turns so.
        ResponseStatus::Incomplete => TurnState::Failed { code: INTERRUPTED.to_owned() },
        ResponseStatus::Cancelled => TurnState::Cancelled,
    };
    let lost: i16 = row.column("answers_lost")?;
    Ok(SeenTurn {
        id: ResponseId(row.column("id")?),
        number: row.column("job_turn")?,
        state,
        this_round: row.column("this_round")?,
        asked: row.column("asked")?,
        lost: lost.unsigned_abs().into(),
    })
}

/// Takes over a job's own turn whose process is gone: it is the caller's, under a new epoch and lease, with an empty log,
/// to be run again from the start. `None`: it has ended meanwhile, or somebody runs it.
pub async fn take_over(
    client: &impl Statements,
    job: JobId,
    turn: ResponseId,
    holder: Uuid,
    lease: Duration,
) -> Result<Option<Taken>, DatabaseError> {
    let sql = format!(
        "WITH silent AS (
            SELECT id, CASE WHEN cancel_requested_at IS NULL THEN 'run' ELSE 'cancel' END AS next FROM responses
            WHERE id = $1 AND job_id = $2 AND NOT background AND state IN ('queued', 'in_progress')
              AND lease_until < now()
            FOR NO KEY UPDATE
        ), emptied AS (
            DELETE FROM response_events e USING silent WHERE e.response_id = silent.id AND silent.next = 'run'
        )
        UPDATE responses r
        SET epoch = r.epoch + 1, holder = $3, lease_until = now() + make_interval(secs => $4), state = 'in_progress',
            started_at = coalesce(r.started_at, now()), restarts = r.restarts + (silent.next = 'run')::int::int2,
            {LOST}
        FROM silent WHERE r.id = silent.id AND r.state IN ('queued', 'in_progress')
        RETURNING {COLUMNS}, silent.next"
    );
    let params = [
        (&turn.0 as _, Type::UUID),
        (&job.0 as _, Type::UUID),
        (&holder as _, Type::UUID),
        (&lease.as_secs_f64() as _, Type::FLOAT8),
    ];
    client.query_opt("respond.take_over", &sql, &params).await?.as_ref().map(taken).transpose()
}

/// A turn whose job will not ask for it again.
#[derive(Clone, Copy, Debug)]
pub struct Orphan {
    pub held: Held,
    pub in_conversation: bool,
}

/// Turns of jobs that nobody runs and whose job will not ask for them again: it is dead, done or gone. They are the
/// caller's under a new epoch, to be ended.
pub async fn orphans(
    client: &impl Statements,
    limit: i64,
    holder: Uuid,
    lease: Duration,
) -> Result<Vec<Orphan>, DatabaseError> {
    const SQL: &str = "
        WITH orphaned AS (
            SELECT r.id FROM responses r
            WHERE r.state IN ('queued', 'in_progress') AND r.job_id IS NOT NULL AND NOT r.background
              AND r.lease_until < now()
              AND NOT EXISTS (SELECT FROM jobs j WHERE j.id = r.job_id AND j.state IN ('pending', 'leased'))
            ORDER BY r.id LIMIT $1 FOR NO KEY UPDATE OF r SKIP LOCKED
        )
        UPDATE responses r SET epoch = r.epoch + 1, holder = $2, lease_until = now() + make_interval(secs => $3)
        FROM orphaned WHERE r.id = orphaned.id AND r.state IN ('queued', 'in_progress')
        RETURNING r.id, r.epoch, r.conversation_id IS NOT NULL AS in_conversation";
    let params =
        [(&limit as _, Type::INT8), (&holder as _, Type::UUID), (&lease.as_secs_f64() as _, Type::FLOAT8)];
    let rows = client.query("respond.orphans", SQL, &params).await?;
    rows.iter()
        .map(|row| {
            let held = Held { response: ResponseId(row.column("id")?), epoch: row.column("epoch")? };
            Ok(Orphan { held, in_conversation: row.column("in_conversation")? })
        })
        .collect()
}

/// The conversation that events of a route share under a key; made if there is none. Two that come at once get the same.
pub async fn conversation(
    client: &impl Statements,
    owner: &str,
    route: &str,
    key: &str,
) -> Result<ConversationId, DatabaseError> {
    const SQL: &str = "
        WITH found AS (
            SELECT id FROM conversations
            WHERE owner = $1 AND route = $2 AND external_key = $3 AND deleted_at IS NULL
        ), made AS (
            INSERT INTO conversations (id, owner, thread_id, route, external_key, title)
            SELECT $4, $1, $5, $2, $3, left($2 || ': ' || $3, 80)
            WHERE NOT EXISTS (SELECT FROM found)
            ON CONFLICT (owner, route, external_key) WHERE external_key IS NOT NULL AND deleted_at IS NULL
            DO NOTHING
            RETURNING id, thread_id
        ), thread AS (
            INSERT INTO threads (id, owner, head_position, head_tokens) SELECT thread_id, $1, 0, 0 FROM made
        )
        SELECT id FROM found UNION ALL SELECT id FROM made";
    let (id, thread) = (Uuid::now_v7(), Uuid::now_v7());
    let params = [
        (&owner as _, Type::TEXT),
        (&route as _, Type::TEXT),
        (&key as _, Type::TEXT),
        (&id as _, Type::UUID),
        (&thread as _, Type::UUID),
    ];
    loop {
        // No row: somebody made it between our look and our insert, and it is there now.
        if let Some(row) = client.query_opt("respond.conversation", SQL, &params).await? {
            return Ok(ConversationId(row.column("id")?));
        }
    }
}

/// Lets a turn count in its conversation that was put aside, all but what was said about an answer before it.
pub async fn let_count(client: &impl Statements, turn: ResponseId) -> Result<(), DatabaseError> {
    const SQL: &str = "
        UPDATE threads t
        SET aside = ARRAY(SELECT a FROM unnest(t.aside) a
                          WHERE a <> r.input_from AND a NOT BETWEEN r.output_from AND r.output_to)
        FROM responses r
        WHERE r.id = $1 AND r.state = 'completed' AND r.conversation_id IS NOT NULL AND t.id = r.thread_id
          AND r.input_from = ANY (t.aside)";
    client.execute("respond.let_count", SQL, &[(&turn.0, Type::UUID)]).await.map(drop)
}

/// Makes a job due that waits for a turn: the turn has ended. `false`: it does not wait.
pub async fn wake(client: &impl Statements, job: JobId) -> Result<bool, DatabaseError> {
    const SQL: &str = "UPDATE jobs SET due_at = now(), hinted_at = now() WHERE id = $1 AND state = 'pending'";
    Ok(client.execute("respond.wake", SQL, &[(&job.0, Type::UUID)]).await? == 1)
}

/// What a target is to be told.
#[derive(Clone, Copy, Debug)]
pub struct NewCallback<'a> {
    pub id: CallbackId,
    pub target: &'a str,
    pub body: &'a [u8],
}

/// Finishes a job and writes down what its target is told, in one statement: told once, or not at all. `false`: the lease
/// is lost, somebody else decides.
pub async fn finish_telling(
    client: &impl Statements,
    lease: Lease,
    callback: NewCallback<'_>,
) -> Result<bool, DatabaseError> {
    const SQL: &str = "
        WITH finished AS (
            UPDATE jobs SET state = 'succeeded', finished_at = now(), lease_until = NULL, error_code = NULL, error = NULL
            WHERE id = $1 AND epoch = $2 AND state = 'leased'
            RETURNING event_id, run, route, trace_parent
        ), told AS (
            INSERT INTO callbacks (id, webhook_id, target, event_id, run, route, trace_parent, body)
            SELECT $3, $3, $4, event_id, run, route, trace_parent, $5 FROM finished
            ON CONFLICT (event_id, run, route) DO NOTHING
        )
        SELECT event_id FROM finished";
    let params = [
        (&lease.id as _, Type::UUID),
        (&lease.epoch as _, Type::INT8),
        (&callback.id.0 as _, Type::UUID),
        (&callback.target as _, Type::TEXT),
        (&callback.body as _, Type::BYTEA),
    ];
    Ok(client.query_opt("respond.finish_telling", SQL, &params).await?.is_some())
}
