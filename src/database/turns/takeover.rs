//! Turns whose holder fell silent.

use super::*;
use crate::ids::JobId;

/// A turn that ran in a background and that nobody saw is run again this often at most.
pub const MAX_RESTARTS: i16 = 3;

/// A turn taken over: it is the caller's now, under a new epoch and lease, in progress.
#[derive(Clone, Debug)]
pub struct Lapsed {
    pub held: Held,
    pub owner: String,
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
    /// Somebody asked for it to stop before its holder fell silent: it ends cancelled.
    pub cancel_requested: bool,
    /// How often it was run again, this time included.
    pub restarts: i16,
    /// `true`: run it again from the start, its log is empty
    /// (the past is [`Anchor::InputOf`](crate::database::threads::Anchor::InputOf)).
    /// `false`: end it with what its log says, incomplete.
    pub run_again: bool,
    /// The job that asked for it.
    pub job: Option<JobId>,
}

/// Takes over turns whose lease has run out. Any number of sweeps may run. A turn is to be run again if it is a
/// background turn that nobody has viewed, that nobody asked to stop, and that was run again fewer than
/// [`MAX_RESTARTS`] times.
///
/// Only call this after having reached the database without a break for one lease time: while it was away nobody
/// could renew.
pub async fn lapsed(
    client: &impl Statements,
    limit: i64,
    holder: Uuid,
    lease: Duration,
) -> Result<Vec<Lapsed>, DatabaseError> {
    const SQL: &str = "
        WITH silent AS (
            SELECT id, background AND viewed_at IS NULL AND cancel_requested_at IS NULL AND restarts < $4 AS run_again
            FROM responses
            WHERE state IN ('queued', 'in_progress') AND lease_until < now()
              -- What runs inside a job is that job's alone.
              AND (job_id IS NULL OR background)
            ORDER BY id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
        ), emptied AS (
            DELETE FROM response_events e USING silent WHERE e.response_id = silent.id AND silent.run_again
        )
        UPDATE responses r
        SET epoch = r.epoch + 1, holder = $2, lease_until = now() + make_interval(secs => $3), state = 'in_progress',
            started_at = coalesce(r.started_at, now()), restarts = r.restarts + silent.run_again::int::int2
        FROM silent WHERE r.id = silent.id AND r.state IN ('queued', 'in_progress')
        RETURNING r.id, r.epoch, r.owner, r.api_key, r.thread_id, r.conversation_id, r.previous_response_id, r.model,
                  r.request::text AS request, r.background, r.stream_requested, r.on_disconnect, r.created_at,
                  r.cancel_requested_at IS NOT NULL AS cancel, r.restarts, silent.run_again, r.job_id";
    let params = [
        (&limit as _, Type::INT8),
        (&holder as _, Type::UUID),
        (&lease.as_secs_f64() as _, Type::FLOAT8),
        (&MAX_RESTARTS as _, Type::INT2),
    ];
    client.query("turns.lapsed", SQL, &params).await?.iter().map(taken_over).collect()
}

pub(in crate::database) fn taken_over(row: &Row) -> Result<Lapsed, DatabaseError> {
    Ok(Lapsed {
        held: Held { response: ResponseId(row.column("id")?), epoch: row.column("epoch")? },
        owner: row.column("owner")?,
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
        cancel_requested: row.column("cancel")?,
        restarts: row.column("restarts")?,
        run_again: row.column("run_again")?,
        job: row.column::<Option<Uuid>>("job_id")?.map(JobId),
    })
}
