//! Turns that change hands: those whose holder fell silent, and what their new holder is to do.

use super::*;
use crate::ids::JobId;

/// A turn that ran in a background and that nobody saw is run again this often at most.
pub const MAX_RESTARTS: i16 = 3;

/// A turn taken over: it is the caller's now, under a new epoch and lease, in progress.
#[derive(Clone, Debug)]
pub struct Taken {
    pub held: Held,
    pub owner: String,
    /// Who asked for it and pays, if not the owner.
    pub caller: Option<String>,
    pub api_key: Option<String>,
    pub thread: Uuid,
    pub conversation: Option<ConversationId>,
    pub previous_response: Option<ResponseId>,
    pub model: String,
    /// The request without its input, as JSON.
    pub request: String,
    pub background: bool,
    pub stream: bool,
    pub on_disconnect: Option<String>,
    pub created_at: Timestamp,
    /// How often it was run again, this time included.
    pub restarts: i16,
    /// How often it was put off because its provider was out. `None`: it does not wait for one.
    pub waits: Option<i16>,
    pub next: Next,
    /// The job that asked for it.
    pub job: Option<JobId>,
    /// Of the span in which it was asked for.
    pub trace_parent: Option<String>,
}

/// What is to be done with a turn that was taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Run it from its start: its log is empty. The past is
    /// [`Anchor::InputOf`](crate::database::threads::Anchor::InputOf).
    Run,
    /// End it with what its log says: somebody asked for it to stop.
    Cancel,
    /// End it with what its log says, incomplete.
    Interrupt,
    /// End it as failed: it was run again [`MAX_RESTARTS`] times, and its process ended each time.
    GiveUp,
}

/// What [`taken`] reads of `responses r` and of an expression called `next`.
pub(in crate::database) const COLUMNS: &str = "r.id, r.epoch, r.owner, r.caller, r.api_key, r.thread_id, r.conversation_id,
    r.previous_response_id, r.model, r.request::text AS request, r.background, r.stream_requested, r.on_disconnect,
    r.created_at, r.restarts, r.job_id, r.trace_parent,
    CASE WHEN r.wait_until IS NOT NULL THEN r.waits END AS waits";

/// What follows for a row `r` whose process died: whether a provider had been asked.
pub(in crate::database) const LOST: &str =
    "answers_lost = r.answers_lost + coalesce(r.asked_epoch = r.epoch, false)::int::int2";

/// Takes over turns whose lease has run out. Any number of sweeps may run. A turn is to be run again if it is a
/// background turn that nobody has viewed, that nobody asked to stop, and that was run again fewer than
/// [`MAX_RESTARTS`] times. Those are left alone unless `runs`: who has no room for them ends the others.
///
/// Only call this after having reached the database without a break for one lease time: while it was away nobody
/// could renew.
pub async fn lapsed(
    client: &impl Statements,
    limit: i64,
    runs: bool,
    holder: Uuid,
    lease: Duration,
) -> Result<Vec<Taken>, DatabaseError> {
    let sql = format!(
        "WITH silent AS (
            SELECT id, next
            FROM responses CROSS JOIN LATERAL (
                SELECT CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancel'
                            WHEN NOT background OR viewed_at IS NOT NULL THEN 'interrupt'
                            WHEN restarts < $4 THEN 'run'
                            ELSE 'give_up' END AS next
            ) follows
            WHERE state IN ('queued', 'in_progress') AND lease_until < now()
              -- What runs inside a job is that job's alone.
              AND (job_id IS NULL OR background)
              AND ($5 OR next <> 'run')
            ORDER BY id LIMIT $1 FOR NO KEY UPDATE OF responses SKIP LOCKED
        ), emptied AS (
            DELETE FROM response_events e USING silent WHERE e.response_id = silent.id AND silent.next = 'run'
        )
        UPDATE responses r
        SET epoch = r.epoch + 1, holder = $2, lease_until = now() + make_interval(secs => $3), state = 'in_progress',
            started_at = coalesce(r.started_at, now()), due_at = NULL,
            restarts = r.restarts + (silent.next = 'run')::int::int2, {LOST}
        FROM silent WHERE r.id = silent.id AND r.state IN ('queued', 'in_progress')
        RETURNING {COLUMNS}, silent.next"
    );
    let params = [
        (&limit as _, Type::INT8),
        (&holder as _, Type::UUID),
        (&lease.as_secs_f64() as _, Type::FLOAT8),
        (&MAX_RESTARTS as _, Type::INT2),
        (&runs as _, Type::BOOL),
    ];
    client.query("turns.lapsed", &sql, &params).await?.iter().map(taken).collect()
}

pub(in crate::database) fn taken(row: &Row) -> Result<Taken, DatabaseError> {
    Ok(Taken {
        held: Held { response: ResponseId(row.column("id")?), epoch: row.column("epoch")? },
        owner: row.column("owner")?,
        caller: row.column("caller")?,
        api_key: row.column("api_key")?,
        thread: row.column("thread_id")?,
        conversation: row.column::<Option<Uuid>>("conversation_id")?.map(ConversationId),
        previous_response: row.column::<Option<Uuid>>("previous_response_id")?.map(ResponseId),
        model: row.column("model")?,
        request: row.column("request")?,
        background: row.column("background")?,
        stream: row.column("stream_requested")?,
        on_disconnect: row.column("on_disconnect")?,
        created_at: row.column("created_at")?,
        restarts: row.column("restarts")?,
        waits: row.column("waits")?,
        next: match row.column::<&str>("next")? {
            "run" => Next::Run,
            "cancel" => Next::Cancel,
            "give_up" => Next::GiveUp,
            _ => Next::Interrupt,
        },
        job: row.column::<Option<Uuid>>("job_id")?.map(JobId),
        trace_parent: row.column("trace_parent")?,
    })
}
