//! Jobs and callbacks.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::{direction, one_more, page_of};
use crate::database::responses::{Page, PageOf};
use crate::database::{Columns, DatabaseError, Row, Statements, Type};
use crate::ids::{EventId, ResponseId};
use crate::jobs::state::WorkKind;

/// A job or a callback.
#[derive(Debug, Serialize)]
pub struct WorkLine {
    pub kind: String,
    /// With its prefix.
    pub id: String,
    /// The same as it stands in the row.
    #[serde(skip)]
    pub row: Uuid,
    /// What it comes of, unless it is a turn's or a backfill.
    pub event: Option<EventId>,
    pub route: String,
    /// A job's kind, a callback's target.
    pub object: String,
    /// For a callback that tells of a turn's end.
    pub response: Option<ResponseId>,
    pub run: i32,
    pub state: String,
    pub attempts: i32,
    pub outages: i32,
    pub created_at: Timestamp,
    pub age_seconds: i64,
    pub due_at: Timestamp,
    /// While some process works on it.
    pub lease_until: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub error_code: Option<String>,
    pub error: Option<String>,
    /// What has to happen next.
    pub awaits: &'static str,
    /// For callbacks: every try.
    pub tries: Option<serde_json::Value>,
}

/// A row's id with its prefix; what is neither job nor callback has none.
pub(in crate::database) fn public_id(kind: &str, id: Uuid) -> String {
    WorkKind::of(kind).map_or_else(|| id.to_string(), |kind| kind.public_id(id))
}

/// What has to happen to a job or callback next. `is_due`: of one that waits, whether it may be taken; `is_silent`: of one
/// that somebody works on, whether its lease is over.
pub(in crate::database) fn awaits(
    state: &str,
    is_due: bool,
    is_silent: bool,
    code: Option<&str>,
) -> &'static str {
    match (state, code) {
        ("leased", _) if is_silent => "maintain: its holder is silent",
        ("leased", _) => "its attempt",
        ("pending", _) if is_due => "whoever takes it",
        ("pending", None) => "its time",
        ("pending", Some("turn_running")) => "the end of its turn on a server",
        ("pending", Some("conversation_locked")) => "the end of another turn of its conversation",
        ("pending", Some("budget_spent")) => "the next day's budget",
        ("pending", Some(_)) => "its next try",
        ("dead", _) => "an operator",
        _ => "nothing",
    }
}

/// Which work to list.
#[derive(Clone, Debug, Default)]
pub struct WorkFilter {
    /// A job's kind, a callback's target.
    pub object: Option<String>,
    pub route: Option<String>,
    pub state: Option<String>,
    pub event: Option<EventId>,
}

const JOBS: &str =
    "SELECT 'job' AS work, id, event_id, route, kind AS object, NULL::uuid AS response, run, state, attempts,
        outages, created_at, due_at, lease_until, finished_at, error_code, error,
        extract(epoch FROM now() - created_at)::bigint AS age, due_at <= now() AS is_due,
        coalesce(lease_until < now(), false) AS is_silent, NULL::jsonb AS tries
    FROM jobs";

const CALLBACKS: &str =
    "SELECT 'callback' AS work, id, event_id, route, target AS object, response_id AS response, run, state,
        attempts, outages, created_at, due_at, lease_until, finished_at, error_code, error,
        extract(epoch FROM now() - created_at)::bigint AS age, due_at <= now() AS is_due,
        coalesce(lease_until < now(), false) AS is_silent,
        (SELECT jsonb_agg(jsonb_build_object('attempt', attempt, 'at', at, 'millis', millis,
                                             'status', status, 'error_code', error_code,
                                             'response', response) ORDER BY epoch)
         FROM callback_attempts WHERE callback_id = callbacks.id) AS tries
    FROM callbacks";

/// Jobs or callbacks by the order of their ids, which is that of their making.
pub async fn work(
    client: &impl Statements,
    kind: WorkKind,
    filter: &WorkFilter,
    page: PageOf<Uuid>,
) -> Result<Page<WorkLine>, DatabaseError> {
    let (select, object) = match kind {
        WorkKind::Job => (JOBS, "kind"),
        WorkKind::Callback => (CALLBACKS, "target"),
    };
    let (behind, order) = direction(page.order);
    let sql = format!(
        "{select}
         WHERE ($1::text IS NULL OR {object} = $1) AND ($2::text IS NULL OR route = $2)
           AND ($3::text IS NULL OR state = $3) AND ($4::uuid IS NULL OR event_id = $4)
           AND ($5::uuid IS NULL OR id {behind} $5)
         ORDER BY id {order} LIMIT $6"
    );
    let params = [
        (&filter.object as _, Type::TEXT),
        (&filter.route as _, Type::TEXT),
        (&filter.state as _, Type::TEXT),
        (&filter.event.map(|id| id.0) as _, Type::UUID),
        (&page.after as _, Type::UUID),
        (&one_more(&page) as _, Type::INT8),
    ];
    let rows = client.query("inspect.work", &sql, &params).await?;
    page_of(rows.iter().map(line), page.limit)
}

/// One job or callback with its tries; `None` if there is none of that id.
pub async fn work_of(
    client: &impl Statements,
    kind: WorkKind,
    id: Uuid,
) -> Result<Option<WorkLine>, DatabaseError> {
    let select = match kind {
        WorkKind::Job => JOBS,
        WorkKind::Callback => CALLBACKS,
    };
    let row =
        client.query_opt("inspect.work_of", &format!("{select} WHERE id = $1"), &[(&id, Type::UUID)]).await?;
    row.as_ref().map(line).transpose()
}

/// Jobs and callbacks of an event, in the order of their runs.
pub async fn work_of_event(client: &impl Statements, event: EventId) -> Result<Vec<WorkLine>, DatabaseError> {
    let sql = format!(
        "SELECT * FROM ({JOBS} WHERE event_id = $1 UNION ALL {CALLBACKS} WHERE event_id = $1) AS work
         ORDER BY run, work, id"
    );
    let rows = client.query("inspect.work_of_event", &sql, &[(&event.0, Type::UUID)]).await?;
    rows.iter().map(line).collect()
}

fn line(row: &Row) -> Result<WorkLine, DatabaseError> {
    let (kind, id): (String, Uuid) = (row.column("work")?, row.column("id")?);
    let (state, error_code): (String, Option<String>) = (row.column("state")?, row.column("error_code")?);
    let awaits = awaits(&state, row.column("is_due")?, row.column("is_silent")?, error_code.as_deref());
    Ok(WorkLine {
        id: public_id(&kind, id),
        row: id,
        kind,
        event: row.column::<Option<Uuid>>("event_id")?.map(EventId),
        route: row.column("route")?,
        object: row.column("object")?,
        response: row.column::<Option<Uuid>>("response")?.map(ResponseId),
        run: row.column("run")?,
        state,
        attempts: row.column("attempts")?,
        outages: row.column("outages")?,
        created_at: row.column("created_at")?,
        age_seconds: row.column("age")?,
        due_at: row.column("due_at")?,
        lease_until: row.column("lease_until")?,
        finished_at: row.column("finished_at")?,
        error_code,
        error: row.column("error")?,
        awaits,
        tries: row.column("tries")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_awaited_follows_from_state_time_and_code() {
        assert_eq!(awaits("leased", true, false, None), "its attempt");
        assert_eq!(awaits("leased", true, true, Some("time_limit")), "maintain: its holder is silent");
        assert_eq!(awaits("pending", true, false, Some("budget_spent")), "whoever takes it");
        assert_eq!(awaits("pending", false, false, None), "its time");
        assert_eq!(awaits("pending", false, false, Some("budget_spent")), "the next day's budget");
        assert_eq!(awaits("pending", false, false, Some("provider_unavailable")), "its next try");
        assert_eq!(awaits("dead", true, false, Some("template_failed")), "an operator");
        assert_eq!(awaits("delivered", true, false, None), "nothing");
    }
}
