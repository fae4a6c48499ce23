//! Conversations: threads with a name, on which one turn at a time may run.
//!
//! Another owner's and a deleted one are the same as none, unless the owner granted access: who was granted to read may
//! get, list items and fork; to write also add items.

use jiff::Timestamp;
use uuid::Uuid;

use super::audit::{self, Caller, audited};
use super::grants::GrantedAccess;
use super::responses::{Order, Page, PageOf, paged};
use super::threads::{ItemColumns, NewItem};
use super::{Columns, DatabaseError, Param, Row, Statements, Type};
use crate::ids::{ConversationId, ResponseId};

mod items;

pub use items::{Added, add_items, delete_item, get_item, list_items};

/// A conversation that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewConversation<'a> {
    pub id: ConversationId,
    pub owner: &'a str,
    pub title: Option<&'a str>,
    /// A JSON object.
    pub metadata: &'a str,
    pub items: &'a [NewItem<'a>],
}

/// A conversation that is stored.
#[derive(Clone, Debug)]
pub struct Conversation {
    pub id: ConversationId,
    pub thread: Uuid,
    pub title: Option<String>,
    /// A JSON object.
    pub metadata: String,
    /// The turn that runs on it, if one does.
    pub active_response: Option<ResponseId>,
    pub created_at: Timestamp,
    /// Of its title, metadata or items.
    pub updated_at: Timestamp,
    pub owner: String,
    /// What whoever asked was granted. Only [`get`] and [`list_shared`] fill it; `None` for the owner.
    pub granted: Option<GrantedAccess>,
}

/// Of `conversations c`.
const COLUMNS: &str = "c.id, c.owner, c.thread_id, c.title, c.metadata::text AS metadata, c.active_response,
    c.created_at, c.updated_at";

/// Makes a conversation, with its first items; audited in the same statement, as is every change here.
pub async fn create(
    client: &impl Statements,
    new: &NewConversation<'_>,
    actor: Option<audit::Actor<'_>>,
) -> Result<Conversation, DatabaseError> {
    let sql = format!(
        "WITH thread AS (
            INSERT INTO threads (id, owner, head_position, head_tokens) VALUES ($1, $2, $3, $4)
        ), stored AS (
            INSERT INTO items (thread_id, position, id, kind, role, tokens, tokens_before, data)
            SELECT $1, i.nth, i.id, i.kind, i.role, i.tokens, i.tokens_before, i.data
            FROM unnest($5::uuid[], $6::text[], $7::text[], $8::int4[], $9::int8[], $10::text[])
                WITH ORDINALITY AS i (id, kind, role, tokens, tokens_before, data, nth)
        ), c AS (
            INSERT INTO conversations (id, owner, thread_id, title, metadata) VALUES ($11, $2, $1, $12, $13::json)
            RETURNING *
        ){audited}
        SELECT {COLUMNS} FROM c",
        audited = audited("conversation.create", "'conv_' || c.id", "c", 14)
    );
    let row = audit::Row::of(&Caller { owner: new.owner, actor });
    let items = ItemColumns::of(new.items);
    let (thread, count) = (Uuid::now_v7(), items.count());
    let title = new.title.map(text);
    let own: [Param<'_>; 13] = [
        (&thread, Type::UUID),
        (&new.owner, Type::TEXT),
        (&count, Type::INT4),
        (&items.total, Type::INT8),
        (&items.ids, Type::UUID_ARRAY),
        (&items.kinds, Type::TEXT_ARRAY),
        (&items.roles, Type::TEXT_ARRAY),
        (&items.tokens, Type::INT4_ARRAY),
        (&items.tokens_before, Type::INT8_ARRAY),
        (&items.data, Type::TEXT_ARRAY),
        (&new.id.0, Type::UUID),
        (&title, Type::TEXT),
        (&new.metadata, Type::TEXT),
    ];
    let params = [&own[..], &row.params()[..]].concat();
    conversation(&client.query_one("conversations.create", &sql, &params).await?)
}

/// One conversation of the caller's, or that the caller was granted to read.
pub async fn get(
    client: &impl Statements,
    caller: &str,
    id: ConversationId,
) -> Result<Option<Conversation>, DatabaseError> {
    let sql = format!(
        "SELECT {COLUMNS}, g.access
         FROM conversations c LEFT JOIN grants g
             ON g.conversation_id = c.id AND g.grantee = $2 AND g.revoked_at IS NULL AND c.owner <> $2
         WHERE c.id = $1 AND c.deleted_at IS NULL AND (c.owner = $2 OR g.access IN ('read', 'write'))"
    );
    let params = [(&id.0 as _, Type::UUID), (&caller as _, Type::TEXT)];
    let row = client.query_opt("conversations.get", &sql, &params).await?;
    row.as_ref().map(shared).transpose()
}

/// What to change of a conversation; `None` leaves it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Update<'a> {
    /// `Some(None)` takes the title away.
    pub title: Option<Option<&'a str>>,
    /// A JSON object, in place of the one before.
    pub metadata: Option<&'a str>,
}

/// Changes a conversation. `None`: there is no such conversation.
pub async fn update(
    client: &impl Statements,
    caller: impl Into<Caller<'_>>,
    id: ConversationId,
    update: Update<'_>,
) -> Result<Option<Conversation>, DatabaseError> {
    let caller = caller.into();
    let sql = format!(
        "WITH changed AS (
            UPDATE conversations c
            SET title = CASE WHEN $3 THEN $4 ELSE c.title END, metadata = coalesce($5::json, c.metadata),
                updated_at = now()
            WHERE c.id = $1 AND c.owner = $2 AND c.deleted_at IS NULL
            RETURNING {COLUMNS}
        ){audited}
        SELECT * FROM changed",
        audited = audited("conversation.update", "'conv_' || changed.id", "changed", 6)
    );
    let row = audit::Row::of(&caller);
    let title = update.title.flatten().map(text);
    let is_titled = update.title.is_some();
    let own: [Param<'_>; 5] = [
        (&id.0, Type::UUID),
        (&caller.owner, Type::TEXT),
        (&is_titled, Type::BOOL),
        (&title, Type::TEXT),
        (&update.metadata, Type::TEXT),
    ];
    let params = [&own[..], &row.params()[..]].concat();
    let row = client.query_opt("conversations.update", &sql, &params).await?;
    row.as_ref().map(conversation).transpose()
}

/// A conversation that is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    pub thread: Uuid,
    /// The turn that ran on it and was asked to stop.
    pub stopped: Option<ResponseId>,
}

/// Deletes a conversation: it and its turns are not there any more from now on, and a running turn is asked to stop.
/// What it was called goes at once, its items and what its turns were asked with the next
/// [`threads::trim`](super::threads::trim), as far as no fork stands on them. `None`: there is no such conversation.
pub async fn delete(
    client: &impl Statements,
    caller: impl Into<Caller<'_>>,
    id: ConversationId,
) -> Result<Option<Deleted>, DatabaseError> {
    let caller = caller.into();
    // The turn before the conversation: whoever finishes it locks them in this order.
    let sql = format!(
        "WITH stopped AS (
            UPDATE responses r SET cancel_requested_at = coalesce(r.cancel_requested_at, now())
            FROM conversations c
            WHERE c.id = $1 AND c.owner = $2 AND c.deleted_at IS NULL AND r.id = c.active_response
              AND r.state IN ('queued', 'in_progress')
            RETURNING r.id
        ), gone AS (
            UPDATE conversations c SET deleted_at = now(), title = NULL, metadata = '{{}}', external_key = NULL
            FROM (SELECT count(*) FROM stopped) first
            WHERE c.id = $1 AND c.owner = $2 AND c.deleted_at IS NULL
            RETURNING c.thread_id
        ), flagged AS (
            UPDATE threads t SET trim_at = now() FROM gone WHERE t.id = gone.thread_id
        ){audited}
        SELECT thread_id, (SELECT id FROM stopped) AS stopped FROM gone",
        audited = audited("conversation.delete", "'conv_' || $1::uuid", "gone", 3)
    );
    let row = audit::Row::of(&caller);
    let own: [Param<'_>; 2] = [(&id.0, Type::UUID), (&caller.owner, Type::TEXT)];
    let params = [&own[..], &row.params()[..]].concat();
    let row = client.query_opt("conversations.delete", &sql, &params).await?;
    let deleted = |row: Row| {
        let stopped = row.column::<Option<Uuid>>("stopped")?.map(ResponseId);
        Ok(Deleted { thread: row.column("thread_id")?, stopped })
    };
    row.map(deleted).transpose()
}

/// The owner's conversations by when they were made; with `search`, those whose title contains it in any case.
pub async fn list(
    client: &impl Statements,
    owner: &str,
    page: PageOf<ConversationId>,
    search: Option<&str>,
) -> Result<Page<Conversation>, DatabaseError> {
    let from = format!("{COLUMNS}, NULL::text AS access FROM conversations c WHERE c.owner = $1");
    list_from(client, "conversations.list", &from, owner, page, search).await
}

/// The same for conversations of others that were granted to the caller.
pub async fn list_shared(
    client: &impl Statements,
    caller: &str,
    page: PageOf<ConversationId>,
    search: Option<&str>,
) -> Result<Page<Conversation>, DatabaseError> {
    let from = format!(
        "{COLUMNS}, g.access FROM grants g JOIN conversations c ON c.id = g.conversation_id
         WHERE g.grantee = $1 AND g.revoked_at IS NULL AND c.owner <> $1"
    );
    list_from(client, "conversations.list_shared", &from, caller, page, search).await
}

async fn list_from(
    client: &impl Statements,
    name: &'static str,
    from: &str,
    caller: &str,
    page: PageOf<ConversationId>,
    search: Option<&str>,
) -> Result<Page<Conversation>, DatabaseError> {
    let (beyond, direction) = match page.order {
        Order::Ascending => (">", "ASC"),
        Order::Descending => ("<", "DESC"),
    };
    let sql = format!(
        "SELECT {from}
           AND c.deleted_at IS NULL AND ($2::uuid IS NULL OR c.id {beyond} $2)
           AND ($3::text IS NULL OR position(lower($3) IN lower(c.title)) > 0)
         ORDER BY c.id {direction} LIMIT $4"
    );
    let after = page.after.map(|id| id.0);
    let search = search.map(text);
    let params: [Param<'_>; 4] = [
        (&caller, Type::TEXT),
        (&after, Type::UUID),
        (&search, Type::TEXT),
        (&i64::from(page.limit).saturating_add(1), Type::INT8),
    ];
    let rows = client.query(name, &sql, &params).await?;
    Ok(paged(rows.iter().map(shared).collect::<Result<_, _>>()?, page.limit))
}

/// A fork that is to be made of a conversation.
#[derive(Clone, Copy, Debug)]
pub struct Fork<'a> {
    pub source: ConversationId,
    /// The last item that both have. `None`: the last one. The input of a turn that still runs counts as not there.
    pub at: Option<Uuid>,
    pub id: ConversationId,
    /// `None`: the source's.
    pub title: Option<&'a str>,
    /// A JSON object. `None`: the source's.
    pub metadata: Option<&'a str>,
}

/// Makes a conversation of the caller's that shares another's items up to one of them and goes on by itself. The other
/// is the caller's, too, or one the caller was granted to read: then the items stay its owner's. `None`: there is no such
/// conversation, or no such item in it.
pub async fn fork(
    client: &impl Statements,
    caller: impl Into<Caller<'_>>,
    fork: &Fork<'_>,
) -> Result<Option<Conversation>, DatabaseError> {
    let caller = caller.into();
    // What is deleted from the source afterwards stays here, and the other way about.
    let place = match fork.at {
        Some(_) => {
            "SELECT source.*, i.position AS at, i.tokens_before + i.tokens AS tokens
             FROM source CROSS JOIN LATERAL thread_lineage(source.thread, source.head_position) l
             JOIN items i ON i.thread_id = l.thread_id AND i.position > l.above AND i.position <= l.upto
             WHERE i.id = $4 AND i.position <> ALL (source.hidden) AND i.position <= source.idle_position"
        }
        None => {
            "SELECT source.*, source.idle_position AS at, coalesce(last.tokens_before + last.tokens, 0) AS tokens
             FROM source LEFT JOIN LATERAL thread_window(source.thread, source.idle_position, 1, 0) last ON true"
        }
    };
    let sql = format!(
        "WITH source AS (
            SELECT s.title, s.metadata, t.id AS thread, t.hidden, t.aside, t.head_position,
                   coalesce(r.input_from - 1, t.head_position) AS idle_position
            FROM conversations s JOIN threads t ON t.id = s.thread_id
            LEFT JOIN responses r ON r.id = s.active_response AND r.state IN ('queued', 'in_progress')
            WHERE s.id = $1 AND (s.owner = $2 OR granted(s.id, $2, 'read')) AND s.deleted_at IS NULL
            FOR SHARE OF t
        ), place AS (
            {place}
        ), thread AS (
            INSERT INTO threads (id, owner, base_thread, base_position, head_position, head_tokens, hidden, aside)
            SELECT $3, $2, place.thread, place.at, place.at, place.tokens,
                   ARRAY(SELECT h FROM unnest(place.hidden) h WHERE h <= place.at),
                   ARRAY(SELECT a FROM unnest(place.aside) a WHERE a <= place.at)
            FROM place
            RETURNING id
        ), c AS (
            INSERT INTO conversations (id, owner, thread_id, title, metadata)
            SELECT $5, $2, thread.id, coalesce($6, place.title), coalesce($7::json, place.metadata) FROM thread, place
            RETURNING *
        ){audited}
        SELECT {COLUMNS} FROM c",
        audited = audited("conversation.fork", "'conv_' || $1::uuid", "c", 8)
    );
    let row = audit::Row::of(&caller);
    let (thread, title) = (Uuid::now_v7(), fork.title.map(text));
    let own: [Param<'_>; 7] = [
        (&fork.source.0, Type::UUID),
        (&caller.owner, Type::TEXT),
        (&thread, Type::UUID),
        (&fork.at, Type::UUID),
        (&fork.id.0, Type::UUID),
        (&title, Type::TEXT),
        (&fork.metadata, Type::TEXT),
    ];
    let params = [&own[..], &row.params()[..]].concat();
    let row = client.query_opt("conversations.fork", &sql, &params).await?;
    row.as_ref().map(conversation).transpose()
}

fn conversation(row: &Row) -> Result<Conversation, DatabaseError> {
    Ok(Conversation {
        id: ConversationId(row.column("id")?),
        thread: row.column("thread_id")?,
        title: row.column("title")?,
        metadata: row.column("metadata")?,
        active_response: row.column::<Option<Uuid>>("active_response")?.map(ResponseId),
        created_at: row.column("created_at")?,
        updated_at: row.column("updated_at")?,
        owner: row.column("owner")?,
        granted: None,
    })
}

/// The same with the column `access`.
fn shared(row: &Row) -> Result<Conversation, DatabaseError> {
    let access: Option<&str> = row.column("access")?;
    Ok(Conversation { granted: access.and_then(GrantedAccess::parse), ..conversation(row)? })
}

/// PostgreSQL takes no NUL in text.
fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
