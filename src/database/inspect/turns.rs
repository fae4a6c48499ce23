//! Turns that run or wait.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::{direction, one_more, page_of};
use crate::database::responses::{Page, PageOf};
use crate::database::{Columns, DatabaseError, Row, Statements, Type};
use crate::ids::{ConversationId, EventId, JobId, ResponseId};
use crate::telemetry::trace;

/// Which turns to list.
#[derive(Clone, Debug, Default)]
pub struct TurnFilter {
    /// Whose it is, or who asked for it.
    pub owner: Option<String>,
    pub model: Option<String>,
    /// `queued` or `in_progress`.
    pub state: Option<String>,
}

/// A turn that has not ended.
#[derive(Debug, Serialize)]
pub struct TurnLine {
    pub id: ResponseId,
    pub state: String,
    pub owner: String,
    /// Who asked for it and pays, if not the owner.
    pub caller: Option<String>,
    pub api_key: Option<String>,
    pub model: String,
    pub background: bool,
    pub conversation: Option<ConversationId>,
    /// What asked for it, if an event did.
    pub job: Option<JobId>,
    pub created_at: Timestamp,
    pub age_seconds: i64,
    /// The process that runs it; of a turn that waits, none.
    pub holder: Option<Uuid>,
    pub lease_until: Option<Timestamp>,
    /// When a turn that waits is taken up.
    pub due_at: Option<Timestamp>,
    /// How often it was put off because its provider was out.
    pub waits: i16,
    /// How often it was run again because its process had ended.
    pub restarts: i16,
    pub cancel_requested_at: Option<Timestamp>,
    /// How much of its answer is in its log, in bytes as they are written there.
    pub logged_bytes: i64,
    /// What has to happen next.
    pub awaits: &'static str,
}

/// A turn that an event asked for.
#[derive(Debug, Serialize)]
pub struct TurnOfEvent {
    pub id: ResponseId,
    pub job: JobId,
    /// Which turn of its job, from 1 on.
    pub number: i32,
    pub state: String,
    /// Why it failed.
    pub error_code: Option<String>,
    pub model: String,
    /// On a server, not in its job.
    pub background: bool,
    pub conversation: Option<ConversationId>,
    pub created_at: Timestamp,
    pub completed_at: Option<Timestamp>,
    /// How often it was run again because its process had ended.
    pub restarts: i16,
    /// No later turn of its conversation is shown it: its answer did not fit.
    pub aside: bool,
    pub trace_id: Option<String>,
}

/// The turns of an event's jobs, in their order.
pub async fn turns_of_event(
    client: &impl Statements,
    event: EventId,
) -> Result<Vec<TurnOfEvent>, DatabaseError> {
    const SQL: &str = "
        SELECT r.id, r.job_id, r.job_turn, r.state, r.error->>'code' AS error_code, r.model, r.background,
               r.conversation_id, r.created_at, r.completed_at, r.restarts, r.trace_parent,
               coalesce(r.input_from = ANY (t.aside), false) AS aside
        FROM jobs j JOIN responses r ON r.job_id = j.id LEFT JOIN threads t ON t.id = r.thread_id
        WHERE j.event_id = $1 ORDER BY j.id, r.job_turn";
    let rows = client.query("inspect.turns_of_event", SQL, &[(&event.0, Type::UUID)]).await?;
    let turn = |row: &Row| {
        let trace_parent: Option<&str> = row.column("trace_parent")?;
        Ok(TurnOfEvent {
            id: ResponseId(row.column("id")?),
            job: JobId(row.column("job_id")?),
            number: row.column("job_turn")?,
            state: row.column("state")?,
            error_code: row.column("error_code")?,
            model: row.column("model")?,
            background: row.column("background")?,
            conversation: row.column::<Option<Uuid>>("conversation_id")?.map(ConversationId),
            created_at: row.column("created_at")?,
            completed_at: row.column("completed_at")?,
            restarts: row.column("restarts")?,
            aside: row.column("aside")?,
            trace_id: trace_parent.and_then(trace::trace_id),
        })
    };
    rows.iter().map(turn).collect()
}

/// Turns that run or wait, by the order of their ids.
pub async fn turns(
    client: &impl Statements,
    filter: &TurnFilter,
    page: PageOf<ResponseId>,
) -> Result<Page<TurnLine>, DatabaseError> {
    let (behind, order) = direction(page.order);
    let sql = format!(
        "SELECT id, state, owner, caller, api_key, model, background, conversation_id, job_id, created_at,
                extract(epoch FROM now() - created_at)::bigint AS age_seconds,
                CASE WHEN state = 'in_progress' THEN holder END AS holder,
                CASE WHEN isfinite(lease_until) THEN lease_until END AS lease_until,
                due_at, waits, restarts, cancel_requested_at, coalesce(due_at <= now(), true) AS is_due,
                coalesce(lease_until < now(), false) AS is_silent,
                (SELECT coalesce(sum(octet_length(data)), 0)::bigint FROM response_events
                 WHERE response_id = responses.id) AS logged_bytes
         FROM responses
         WHERE state IN ('queued', 'in_progress') AND deleted_at IS NULL
           AND ($1::text IS NULL OR owner = $1 OR caller = $1) AND ($2::text IS NULL OR model = $2)
           AND ($3::text IS NULL OR state = $3) AND ($4::uuid IS NULL OR id {behind} $4)
         ORDER BY id {order} LIMIT $5"
    );
    let params = [
        (&filter.owner as _, Type::TEXT),
        (&filter.model as _, Type::TEXT),
        (&filter.state as _, Type::TEXT),
        (&page.after.map(|id| id.0) as _, Type::UUID),
        (&one_more(&page) as _, Type::INT8),
    ];
    let rows = client.query("inspect.turns", &sql, &params).await?;
    page_of(rows.iter().map(line), page.limit)
}

fn awaits(state: &str, is_due: bool, is_silent: bool, waits: i16) -> &'static str {
    match state {
        "in_progress" if is_silent => "a server: its holder is silent",
        "in_progress" => "its attempt",
        _ if is_due => "a server that takes it",
        _ if waits > 0 => "its next try",
        _ => "its time",
    }
}

fn line(row: &Row) -> Result<TurnLine, DatabaseError> {
    let (state, waits): (String, i16) = (row.column("state")?, row.column("waits")?);
    Ok(TurnLine {
        id: ResponseId(row.column("id")?),
        awaits: awaits(&state, row.column("is_due")?, row.column("is_silent")?, waits),
        state,
        owner: row.column("owner")?,
        caller: row.column("caller")?,
        api_key: row.column("api_key")?,
        model: row.column("model")?,
        background: row.column("background")?,
        conversation: row.column::<Option<Uuid>>("conversation_id")?.map(ConversationId),
        job: row.column::<Option<Uuid>>("job_id")?.map(JobId),
        created_at: row.column("created_at")?,
        age_seconds: row.column("age_seconds")?,
        holder: row.column("holder")?,
        lease_until: row.column("lease_until")?,
        due_at: row.column("due_at")?,
        waits,
        restarts: row.column("restarts")?,
        cancel_requested_at: row.column("cancel_requested_at")?,
        logged_bytes: row.column("logged_bytes")?,
    })
}

/// Whose a turn is, whether or not it has ended. `None`: there is none of that id.
pub async fn owner_of_turn(
    client: &impl Statements,
    id: ResponseId,
) -> Result<Option<String>, DatabaseError> {
    const SQL: &str = "SELECT owner FROM responses WHERE id = $1 AND deleted_at IS NULL";
    let row = client.query_opt("inspect.owner_of_turn", SQL, &[(&id.0, Type::UUID)]).await?;
    row.map(|row| row.column("owner")).transpose()
}
