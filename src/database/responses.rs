//! Turns as their owner sees them: read, stopped, deleted. A conversation's turns belong to its owner, whoever asked for
//! them; who was granted to read it may read them.
//!
//! Another owner's, a deleted one, and one of a deleted conversation are the same as none.

use jiff::Timestamp;
use uuid::Uuid;

use super::audit::{self, Actor, Caller, audited};
use super::threads::{StoredItem, item};
use super::{Columns, DatabaseError, Param, Row, Statements, Type};
use crate::ids::{ConversationId, ResponseId};
use crate::openresponses::ResponseStatus;

/// Whoever may read `responses r`, in a WHERE.
const READ: &str = "(r.owner = $2 OR granted(r.conversation_id, $2, 'read'))";

/// What is wanted of `responses r` to be there for its owner, beside `r.owner`.
pub(super) const LIVE: &str = "r.deleted_at IS NULL AND NOT EXISTS (
    SELECT FROM conversations gone WHERE gone.id = r.conversation_id AND gone.deleted_at IS NOT NULL)";

/// A turn that is stored.
#[derive(Clone, Debug)]
pub struct StoredResponse {
    pub id: ResponseId,
    /// Whose it is; not who asked for it, nor who reads it now.
    pub owner: String,
    pub thread: Uuid,
    pub conversation: Option<ConversationId>,
    pub previous_response: Option<ResponseId>,
    pub state: ResponseStatus,
    pub epoch: i64,
    /// The alias that was asked for.
    pub model: String,
    /// The request without its input, as JSON.
    pub request: String,
    pub background: bool,
    pub stream: bool,
    pub incomplete_reason: Option<String>,
    /// JSON.
    pub error: Option<String>,
    /// JSON.
    pub usage: Option<String>,
    pub created_at: Timestamp,
    pub completed_at: Option<Timestamp>,
    pub cancel_requested: bool,
    /// Whether its log can still be read.
    pub log_kept: bool,
    /// Its output items as JSON, in order. Only [`get_with_output`] fills it, and only once the turn has ended.
    pub output: Vec<String>,
    /// How many output items it ended with.
    pub output_count: i32,
}

impl StoredResponse {
    /// Whether items of its output were deleted since, if [`get_with_output`] gave it.
    pub fn lacks_output(&self) -> bool {
        usize::try_from(self.output_count).is_ok_and(|count| self.output.len() < count)
    }
}

/// The order of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Ascending,
    /// Newest first.
    #[default]
    Descending,
}

/// Which part of a list.
#[derive(Clone, Copy, Debug)]
pub struct PageOf<C> {
    /// Goes on behind this one.
    pub after: Option<C>,
    pub limit: u32,
    pub order: Order,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub entries: Vec<T>,
    pub has_more: bool,
}

/// One turn, without its output, for whoever may read it.
pub async fn get(
    client: &impl Statements,
    caller: &str,
    id: ResponseId,
) -> Result<Option<StoredResponse>, DatabaseError> {
    read(client, "responses.get", "NULL::text[]", caller, id).await
}

/// One turn with its output items, in one round trip, for whoever may read it.
pub async fn get_with_output(
    client: &impl Statements,
    caller: &str,
    id: ResponseId,
) -> Result<Option<StoredResponse>, DatabaseError> {
    const OUTPUT: &str = "(SELECT array_agg(i.data ORDER BY i.position)
        FROM threads t JOIN items i ON i.thread_id = t.id AND i.position BETWEEN r.output_from AND r.output_to
        WHERE t.id = r.thread_id AND i.position <> ALL (t.hidden))";
    read(client, "responses.get_with_output", OUTPUT, caller, id).await
}

/// Whether there is such a turn for its owner.
pub async fn is_there(client: &impl Statements, owner: &str, id: ResponseId) -> Result<bool, DatabaseError> {
    let sql = format!("SELECT FROM responses r WHERE r.id = $1 AND r.owner = $2 AND {LIVE}");
    let params = [(&id.0 as _, Type::UUID), (&owner as _, Type::TEXT)];
    Ok(client.query_opt("responses.is_there", &sql, &params).await?.is_some())
}

async fn read(
    client: &impl Statements,
    name: &'static str,
    output: &str,
    caller: &str,
    id: ResponseId,
) -> Result<Option<StoredResponse>, DatabaseError> {
    let sql = format!(
        "SELECT r.id, r.owner, r.thread_id, r.conversation_id, r.previous_response_id, r.state, r.epoch, r.model,
                r.request::text AS request, r.background, r.stream_requested, r.incomplete_reason,
                r.error::text AS error, r.usage::text AS usage, r.created_at, r.completed_at,
                r.cancel_requested_at IS NOT NULL AS cancel, coalesce(r.log_until > now(), true) AS log_kept,
                {output} AS output, coalesce(r.output_to - r.output_from + 1, 0) AS output_count
         FROM responses r WHERE r.id = $1 AND {READ} AND {LIVE}"
    );
    let row = client.query_opt(name, &sql, &[(&id.0, Type::UUID), (&caller, Type::TEXT)]).await?;
    row.as_ref().map(response).transpose()
}

fn response(row: &Row) -> Result<StoredResponse, DatabaseError> {
    Ok(StoredResponse {
        id: ResponseId(row.column("id")?),
        owner: row.column("owner")?,
        thread: row.column("thread_id")?,
        conversation: row.column::<Option<Uuid>>("conversation_id")?.map(ConversationId),
        previous_response: row.column::<Option<Uuid>>("previous_response_id")?.map(ResponseId),
        state: status(row.column("state")?)?,
        epoch: row.column("epoch")?,
        model: row.column("model")?,
        request: row.column("request")?,
        background: row.column("background")?,
        stream: row.column("stream_requested")?,
        incomplete_reason: row.column("incomplete_reason")?,
        error: row.column("error")?,
        usage: row.column("usage")?,
        created_at: row.column("created_at")?,
        completed_at: row.column("completed_at")?,
        cancel_requested: row.column("cancel")?,
        log_kept: row.column("log_kept")?,
        output: row.column::<Option<Vec<String>>>("output")?.unwrap_or_default(),
        output_count: row.column("output_count")?,
    })
}

/// The turn's own input items, for whoever may read it. `None`: there is no such turn. An `after` that is none of them
/// gives them from the start.
pub async fn input_items(
    client: &impl Statements,
    caller: &str,
    id: ResponseId,
    page: PageOf<Uuid>,
) -> Result<Option<Page<StoredItem>>, DatabaseError> {
    let (beyond, direction) = match page.order {
        Order::Ascending => (">", "ASC"),
        Order::Descending => ("<", "DESC"),
    };
    let sql = format!(
        "WITH turn AS (
            SELECT r.thread_id, r.input_from, r.input_to, t.hidden
            FROM responses r JOIN threads t ON t.id = r.thread_id
            WHERE r.id = $1 AND {READ} AND {LIVE}
        ), cursor AS (
            SELECT i.position FROM turn JOIN items i ON i.thread_id = turn.thread_id AND i.id = $3
        )
        SELECT i.* FROM turn LEFT JOIN LATERAL (
            SELECT id, position, tokens, tokens_before, data FROM items
            WHERE thread_id = turn.thread_id AND position BETWEEN turn.input_from AND turn.input_to
              AND position <> ALL (turn.hidden)
              AND coalesce(position {beyond} (SELECT position FROM cursor), true)
            ORDER BY position {direction} LIMIT $4
        ) i ON true ORDER BY i.position {direction}"
    );
    let params = [
        (&id.0 as _, Type::UUID),
        (&caller as _, Type::TEXT),
        (&page.after as _, Type::UUID),
        (&i64::from(page.limit).saturating_add(1) as _, Type::INT8),
    ];
    let rows = client.query("responses.input_items", &sql, &params).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut entries = Vec::new();
    for row in &rows {
        if row.column::<Option<Uuid>>("id")?.is_some() {
            entries.push(item(row)?);
        }
    }
    Ok(Some(paged(entries, page.limit)))
}

/// A page from one entry more than it may have.
pub(super) fn paged<T>(mut entries: Vec<T>, limit: u32) -> Page<T> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    Page { entries, has_more }
}

/// What [`request_cancel`] met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelRequested {
    /// How far the turn had come. A final state stays as it is.
    pub state: ResponseStatus,
    pub background: bool,
    /// It is queued and nobody's, and due at once: take it with [`turns::due`](super::turns::due) to end it.
    pub waiting: bool,
}

/// Asks a turn to stop: its owner may, and who asked for it and may still write. Its holder hears of it with its next
/// append or renewal. Asking again changes nothing. Audited in the same statement. `None`: there is no such turn.
pub async fn request_cancel(
    client: &impl Statements,
    caller: impl Into<Caller<'_>>,
    id: ResponseId,
) -> Result<Option<CancelRequested>, DatabaseError> {
    let caller = caller.into();
    const MAY: &str = "(r.owner = $2 OR r.caller = $2 AND granted(r.conversation_id, $2, 'write'))";
    let sql = format!(
        "WITH asked AS (
            UPDATE responses r SET cancel_requested_at = now(), due_at = CASE WHEN r.due_at IS NOT NULL THEN now() END
            WHERE r.id = $1 AND {MAY} AND r.state IN ('queued', 'in_progress')
              AND r.cancel_requested_at IS NULL AND {LIVE}
            RETURNING r.id
        ){audited}
        SELECT r.state, r.background, r.due_at IS NOT NULL AS waiting FROM responses r
        WHERE r.id = $1 AND {MAY} AND {LIVE} AND (SELECT count(*) FROM asked) >= 0",
        audited = audited("response.cancel", "'resp_' || asked.id", "asked", 3)
    );
    let row = audit::Row::of(&caller);
    let own: [Param<'_>; 2] = [(&id.0, Type::UUID), (&caller.owner, Type::TEXT)];
    let params = [&own[..], &row.params()[..]].concat();
    let Some(row) = client.query_opt("responses.request_cancel", &sql, &params).await? else {
        return Ok(None);
    };
    Ok(Some(CancelRequested {
        state: status(row.column("state")?)?,
        background: row.column("background")?,
        waiting: row.column("waiting")?,
    }))
}

/// The same by an operator, whosever it is, with its audit row in the statement. `None`: there is no such turn; else whose
/// it is, too. What has ended, or was asked to stop before, is not changed and not audited.
pub async fn cancel_by_operator(
    client: &impl Statements,
    id: ResponseId,
    actor: Actor<'_>,
) -> Result<Option<(String, CancelRequested)>, DatabaseError> {
    let sql = format!(
        "WITH asked AS (
            UPDATE responses r SET cancel_requested_at = now(), due_at = CASE WHEN r.due_at IS NOT NULL THEN now() END
            WHERE r.id = $1 AND r.state IN ('queued', 'in_progress') AND r.cancel_requested_at IS NULL AND {LIVE}
            RETURNING r.id, r.owner, r.state, r.background, r.due_at IS NOT NULL AS waiting
        ), audited AS (
            INSERT INTO api_audit (id, actor, action, subject, detail)
            SELECT $2, $3, 'response.cancel', 'resp_' || id, jsonb_build_object('reason', $4::text) FROM asked
        )
        SELECT owner, state, background, waiting FROM asked
        UNION ALL
        SELECT r.owner, r.state, r.background, r.due_at IS NOT NULL FROM responses r
        WHERE r.id = $1 AND {LIVE} AND NOT EXISTS (SELECT FROM asked)"
    );
    let audit = Uuid::now_v7();
    let params = [
        (&id.0 as _, Type::UUID),
        (&audit as _, Type::UUID),
        (&actor.name as _, Type::TEXT),
        (&actor.reason as _, Type::TEXT),
    ];
    let Some(row) = client.query_opt("responses.cancel_by_operator", &sql, &params).await? else {
        return Ok(None);
    };
    let asked = CancelRequested {
        state: status(row.column("state")?)?,
        background: row.column("background")?,
        waiting: row.column("waiting")?,
    };
    Ok(Some((row.column("owner")?, asked)))
}

/// Deletes a turn: it is not there any more from now on, its log goes, and a running one is asked to stop. What
/// it was asked and its items go with the next [`threads::trim`](super::threads::trim), as far as nothing else stands on
/// them; those of a running one with [`threads::trim_deleted`](super::threads::trim_deleted) after its end. `None`: there is no
/// such turn; else its thread. Audited in the same statement.
pub async fn delete(
    client: &impl Statements,
    caller: impl Into<Caller<'_>>,
    id: ResponseId,
) -> Result<Option<Uuid>, DatabaseError> {
    let caller = caller.into();
    let sql = format!(
        "WITH gone AS (
            UPDATE responses r
            SET deleted_at = now(), due_at = CASE WHEN r.due_at IS NOT NULL THEN now() END,
                cancel_requested_at = CASE WHEN r.state IN ('queued', 'in_progress')
                                           THEN coalesce(r.cancel_requested_at, now()) ELSE r.cancel_requested_at END
            WHERE r.id = $1 AND r.owner = $2 AND {LIVE}
            RETURNING r.id, r.thread_id
        ), log AS (
            DELETE FROM response_events e USING gone WHERE e.response_id = gone.id
        ), flagged AS (
            UPDATE threads t SET trim_at = now() FROM gone WHERE t.id = gone.thread_id
        ){audited}
        SELECT thread_id FROM gone",
        audited = audited("response.delete", "'resp_' || gone.id", "gone", 3)
    );
    let row = audit::Row::of(&caller);
    let own: [Param<'_>; 2] = [(&id.0, Type::UUID), (&caller.owner, Type::TEXT)];
    let params = [&own[..], &row.params()[..]].concat();
    let row = client.query_opt("responses.delete", &sql, &params).await?;
    row.map(|row| row.column("thread_id")).transpose()
}

/// Somebody is about to see the turn's events: from now on it is not run again after a crash. Call it before showing
/// any.
pub async fn mark_viewed(client: &impl Statements, owner: &str, id: ResponseId) -> Result<(), DatabaseError> {
    const SQL: &str =
        "UPDATE responses SET viewed_at = now() WHERE id = $1 AND owner = $2 AND viewed_at IS NULL";
    client.execute("responses.mark_viewed", SQL, &[(&id.0, Type::UUID), (&owner, Type::TEXT)]).await?;
    Ok(())
}

/// Says that turns which run in other processes are being watched through this one: they do not go on with nobody
/// watching.
pub async fn mark_watched(
    client: &impl Statements,
    turns: &[(&str, ResponseId)],
) -> Result<(), DatabaseError> {
    // Locked in one order, as for renewals; and nobody waits for the disk because of it.
    const SQL: &str = "
        WITH watched AS (
            SELECT r.id FROM unnest($1::text[], $2::uuid[]) AS asked (owner, id)
            JOIN responses r ON r.id = asked.id AND r.owner = asked.owner
            WHERE r.state IN ('queued', 'in_progress') AND set_config('synchronous_commit', 'off', true) IS NOT NULL
            ORDER BY r.id FOR NO KEY UPDATE OF r
        )
        UPDATE responses r SET watched_at = now() FROM watched WHERE r.id = watched.id";
    let (owners, ids): (Vec<&str>, Vec<Uuid>) = turns.iter().map(|(owner, id)| (*owner, id.0)).unzip();
    let params = [(&owners as _, Type::TEXT_ARRAY), (&ids as _, Type::UUID_ARRAY)];
    client.execute("responses.mark_watched", SQL, &params).await?;
    Ok(())
}

/// A state from its word in SQL.
pub(super) fn status(word: &str) -> Result<ResponseStatus, DatabaseError> {
    ResponseStatus::ALL.into_iter().find(|state| state.as_str() == word).ok_or_else(|| {
        DatabaseError::Unexpected {
            statement: "state",
            reason: "a state this version does not know; a newer one wrote it".to_owned(),
        }
    })
}
