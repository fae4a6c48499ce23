//! Threads and their items: what a model is shown of the past, and what is left over.
//!
//! A thread is a line of items at positions from 1 on. A fork shares its base's items up to a position and goes on
//! from there. Items are JSON texts here: written as given, never looked into.

use uuid::Uuid;

use super::{Columns, DatabaseError, Row, Statements, Type};
use crate::ids::{ConversationId, ResponseId};
use crate::openresponses::ResponseStatus;

mod trim;

pub use trim::{trim, trim_deleted, trim_flagged, trim_now};

/// An item as it is stored.
#[derive(Clone, Copy, Debug)]
pub struct NewItem<'a> {
    /// The UUID of its public id, `<prefix>_<uuid>`.
    pub id: Uuid,
    /// `message`, `function_call` …
    pub kind: &'a str,
    /// A message's `user`, `assistant` …
    pub role: Option<&'a str>,
    /// How much of a window it takes.
    pub tokens: i32,
    /// The whole item as JSON, its public id included.
    pub data: &'a str,
}

/// An item that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredItem {
    pub id: Uuid,
    pub position: i32,
    pub tokens: i32,
    /// Tokens of everything before it on its thread, inherited and deleted items too. It never changes, so a cut at
    /// steps of it stays where it is while the thread grows.
    pub tokens_before: i64,
    /// The item as JSON.
    pub data: String,
}

/// What a turn goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Nothing.
    New,
    /// The end of that turn (`previous_response_id`).
    Response(ResponseId),
    /// The head of that conversation.
    Conversation(ConversationId),
    /// The end of that turn's own input: what it was given itself. To run it again.
    InputOf(ResponseId),
}

/// Where a turn's items go. Comes from a [`Window`] and says what was true then; [`turns::begin`](super::turns::begin)
/// checks that it still is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A thread of their own.
    New,
    /// Behind the head of a thread.
    Append { thread: Uuid, head_position: i32, head_response: Option<ResponseId>, tokens: i64 },
    /// A new thread that shares another's items up to a position.
    Fork { base: Uuid, base_position: i32, tokens: i64 },
}

impl Place {
    /// The first position behind it.
    pub fn next_position(&self) -> i32 {
        match self {
            Self::New => 1,
            Self::Append { head_position: last, .. } | Self::Fork { base_position: last, .. } => last + 1,
        }
    }

    /// Tokens of all items before it.
    pub fn tokens(&self) -> i64 {
        match self {
            Self::New => 0,
            Self::Append { tokens, .. } | Self::Fork { tokens, .. } => *tokens,
        }
    }
}

/// The past of a turn that is to begin.
#[derive(Debug)]
pub struct Window {
    /// Whose thread it is.
    pub owner: String,
    pub place: Place,
    /// Newest first. Whether there is more before the last one: see [`Window::reaches_start`].
    pub items: Vec<StoredItem>,
    /// Of [`Anchor::Response`] and [`Anchor::InputOf`]: how far that turn has come. One that is not final cannot be
    /// continued.
    pub response_state: Option<ResponseStatus>,
    /// The conversation, if the anchor is one.
    pub conversation: Option<ConversationId>,
    /// Of [`Anchor::Conversation`]: the turn that runs on it now; another cannot begin.
    pub active_response: Option<ResponseId>,
}

impl Window {
    /// The thread that its past ends on; `None` if there is no past.
    pub fn thread(&self) -> Option<Uuid> {
        match self.place {
            Place::New => None,
            Place::Append { thread, .. } => Some(thread),
            Place::Fork { base, .. } => Some(base),
        }
    }

    /// Whether nothing lies before the oldest item given. Says no if all that lies before it was deleted.
    pub fn reaches_start(&self) -> bool {
        self.items.last().is_none_or(|oldest| oldest.tokens_before == 0)
    }
}

/// The past of a turn: where it goes on and the items before, newest first, until their tokens exceed `max_tokens` (the
/// item that exceeds them is given too) or there are `max_items`. One round trip; none for [`Anchor::New`].
///
/// `None`: there is no such response or conversation, it is deleted, or it is another owner's who did not grant the
/// caller to write.
pub async fn load_window(
    client: &impl Statements,
    caller: &str,
    anchor: Anchor,
    max_items: i32,
    max_tokens: i64,
) -> Result<Option<Window>, DatabaseError> {
    let (id, anchored) = match anchor {
        Anchor::New => {
            let window = Window {
                owner: caller.to_owned(),
                place: Place::New,
                items: Vec::new(),
                response_state: None,
                conversation: None,
                active_response: None,
            };
            return Ok(Some(window));
        }
        Anchor::Response(id) => (
            id.0,
            "SELECT r.owner, r.thread_id, coalesce(r.output_to, r.input_to) AS upto, r.id AS response, r.state,
                    NULL::uuid AS conversation, NULL::uuid AS active
             FROM responses r WHERE r.id = $1 AND r.owner = $2 AND r.deleted_at IS NULL
               AND NOT EXISTS (SELECT FROM conversations c
                               WHERE c.id = r.conversation_id AND c.deleted_at IS NOT NULL)",
        ),
        Anchor::InputOf(id) => (
            id.0,
            "SELECT r.owner, r.thread_id, r.input_to AS upto, r.id AS response, r.state,
                    NULL::uuid AS conversation, NULL::uuid AS active
             FROM responses r WHERE r.id = $1 AND r.owner = $2",
        ),
        Anchor::Conversation(id) => (
            id.0,
            "SELECT c.owner, c.thread_id, t.head_position AS upto, NULL::uuid AS response, NULL AS state,
                    c.id AS conversation,
                    CASE WHEN r.state IN ('queued', 'in_progress') THEN r.id END AS active
             FROM conversations c JOIN threads t ON t.id = c.thread_id
             LEFT JOIN responses r ON r.id = c.active_response
             WHERE c.id = $1 AND (c.owner = $2 OR granted(c.id, $2, 'write')) AND c.deleted_at IS NULL",
        ),
    };
    let sql = format!(
        "WITH anchor AS ({anchored})
         SELECT anchor.owner, anchor.thread_id, anchor.upto, anchor.state, anchor.conversation, anchor.active,
                t.head_position, t.head_response, t.head_tokens,
                -- A conversation's thread grows by that conversation alone.
                t.head_response = anchor.response AND t.head_position = anchor.upto
                    AND NOT EXISTS (SELECT FROM conversations c WHERE c.thread_id = t.id) AS at_head,
                past.ids, past.positions, past.tokens, past.tokens_before, past.data
         FROM anchor JOIN threads t ON t.id = anchor.thread_id AND t.owner = anchor.owner
         CROSS JOIN LATERAL (
             SELECT array_agg(w.id ORDER BY w.position DESC) AS ids,
                    array_agg(w.position ORDER BY w.position DESC) AS positions,
                    array_agg(w.tokens ORDER BY w.position DESC) AS tokens,
                    array_agg(w.tokens_before ORDER BY w.position DESC) AS tokens_before,
                    array_agg(w.data ORDER BY w.position DESC) AS data
             FROM thread_window(anchor.thread_id, anchor.upto, $3, $4) w
         ) past"
    );
    let params = [
        (&id as _, Type::UUID),
        (&caller as _, Type::TEXT),
        (&max_items as _, Type::INT4),
        (&max_tokens as _, Type::INT8),
    ];
    let row = client.query_opt("threads.load_window", &sql, &params).await?;
    row.as_ref().map(window).transpose()
}

fn window(row: &Row) -> Result<Window, DatabaseError> {
    let items = item_arrays(row)?;
    let thread = row.column("thread_id")?;
    let conversation: Option<Uuid> = row.column("conversation")?;
    let at_head: Option<bool> = row.column("at_head")?;
    let place = if conversation.is_some() || at_head == Some(true) {
        Place::Append {
            thread,
            head_position: row.column("head_position")?,
            head_response: row.column::<Option<Uuid>>("head_response")?.map(ResponseId),
            tokens: row.column("head_tokens")?,
        }
    } else {
        let tokens = items.first().map_or(0, |newest| newest.tokens_before + i64::from(newest.tokens));
        Place::Fork { base: thread, base_position: row.column("upto")?, tokens }
    };
    let state: Option<&str> = row.column("state")?;
    Ok(Window {
        owner: row.column("owner")?,
        place,
        items,
        response_state: state.map(super::responses::status).transpose()?,
        conversation: conversation.map(ConversationId),
        active_response: row.column::<Option<Uuid>>("active")?.map(ResponseId),
    })
}

/// Items from the columns `ids`, `positions`, `tokens`, `tokens_before`, `data`: arrays, or null if there are none.
pub(super) fn item_arrays(row: &Row) -> Result<Vec<StoredItem>, DatabaseError> {
    let Some(ids) = row.column::<Option<Vec<Uuid>>>("ids")? else { return Ok(Vec::new()) };
    let positions: Vec<i32> = row.column("positions")?;
    let tokens: Vec<i32> = row.column("tokens")?;
    let tokens_before: Vec<i64> = row.column("tokens_before")?;
    let data: Vec<String> = row.column("data")?;
    let counts = positions.into_iter().zip(tokens).zip(tokens_before);
    Ok(ids
        .into_iter()
        .zip(data)
        .zip(counts)
        .map(|((id, data), ((position, tokens), tokens_before))| StoredItem {
            id,
            position,
            tokens,
            tokens_before,
            data,
        })
        .collect())
}

/// An item from the columns `id`, `position`, `tokens`, `tokens_before`, `data`.
pub(super) fn item(row: &Row) -> Result<StoredItem, DatabaseError> {
    Ok(StoredItem {
        id: row.column("id")?,
        position: row.column("position")?,
        tokens: row.column("tokens")?,
        tokens_before: row.column("tokens_before")?,
        data: row.column("data")?,
    })
}

/// Items by their ids, wherever the caller sees them: what `item_reference` names. In no order; ids of items that no
/// thread of the caller's shows, and no conversation the caller was granted to read, are left out.
pub async fn items_by_id(
    client: &impl Statements,
    caller: &str,
    ids: &[Uuid],
) -> Result<Vec<StoredItem>, DatabaseError> {
    const SQL: &str = "
        WITH RECURSIVE wanted AS (
            SELECT i.id, i.thread_id, i.position, i.tokens, i.tokens_before, i.data,
                   t.owner = $1 AND i.position <> ALL (t.hidden) AS own
            FROM items i JOIN threads t ON t.id = i.thread_id
            WHERE i.id = ANY($2)
        ), showing AS (
            -- Of what is not on a thread of the caller's: the thread it is on, and those forked from that behind it.
            SELECT w.id AS item, w.thread_id AS thread, w.position FROM wanted w WHERE NOT w.own
            UNION
            SELECT s.item, f.id, s.position
            FROM showing s JOIN threads f ON f.base_thread = s.thread AND f.base_position >= s.position
        )
        SELECT w.id, w.position, w.tokens, w.tokens_before, w.data
        FROM wanted w
        WHERE w.own OR EXISTS (
            SELECT FROM showing s
            JOIN threads t ON t.id = s.thread
            LEFT JOIN conversations c ON c.thread_id = t.id AND c.deleted_at IS NULL
            WHERE s.item = w.id AND s.position <> ALL (t.hidden) AND (t.owner = $1 OR granted(c.id, $1, 'read')))";
    let params = [(&caller as _, Type::TEXT), (&ids as _, Type::UUID_ARRAY)];
    let rows = client.query("threads.items_by_id", SQL, &params).await?;
    rows.iter().map(item).collect()
}

/// The owners of the threads that a thread's past is on, its own included: a fork of what somebody else granted has
/// several.
pub async fn owners_of_past(client: &impl Statements, thread: Uuid) -> Result<Vec<String>, DatabaseError> {
    const SQL: &str = "
        SELECT DISTINCT t.owner
        FROM threads viewed CROSS JOIN LATERAL thread_lineage(viewed.id, viewed.head_position) l
        JOIN threads t ON t.id = l.thread_id
        WHERE viewed.id = $1";
    let rows = client.query("threads.owners_of_past", SQL, &[(&thread, Type::UUID)]).await?;
    rows.iter().map(|row| row.column("owner")).collect()
}

/// New items in columns, as statements take them.
#[derive(Default)]
pub(super) struct ItemColumns<'a> {
    pub ids: Vec<Uuid>,
    pub kinds: Vec<&'a str>,
    pub roles: Vec<Option<&'a str>>,
    pub tokens: Vec<i32>,
    /// Counted from the first of them.
    pub tokens_before: Vec<i64>,
    pub data: Vec<&'a str>,
    /// Of all of them.
    pub total: i64,
}

impl<'a> ItemColumns<'a> {
    pub(super) fn of(items: &[NewItem<'a>]) -> Self {
        let mut columns = Self::default();
        for item in items {
            columns.ids.push(item.id);
            columns.kinds.push(item.kind);
            columns.roles.push(item.role);
            columns.tokens.push(item.tokens);
            columns.tokens_before.push(columns.total);
            columns.data.push(item.data);
            columns.total += i64::from(item.tokens);
        }
        columns
    }

    /// How many, as positions count.
    pub(super) fn count(&self) -> i32 {
        i32::try_from(self.ids.len()).unwrap_or(i32::MAX)
    }
}
