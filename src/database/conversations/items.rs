//! The items of a conversation, those it inherited by a fork included.

use super::*;
use crate::database::Client;
use crate::database::threads::{StoredItem, item};

/// What adding items came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    Added,
    /// A turn runs on the conversation; its output follows its input without anything between.
    Locked,
    /// There is no such conversation.
    NotFound,
}

/// Puts items behind the last one of a conversation of the caller's, or that the caller was granted to write.
pub async fn add_items(
    client: &impl Statements,
    caller: impl Into<Caller<'_>>,
    id: ConversationId,
    items: &[NewItem<'_>],
) -> Result<Added, DatabaseError> {
    let caller = caller.into();
    let sql = format!(
        "WITH conversation AS (
            SELECT c.id, c.thread_id, c.active_response FROM conversations c
            WHERE c.id = $1 AND (c.owner = $2 OR granted(c.id, $2, 'write')) AND c.deleted_at IS NULL
            FOR NO KEY UPDATE OF c
        ), free AS (
            SELECT id, thread_id FROM conversation
            WHERE active_response IS NULL
               OR EXISTS (SELECT FROM responses r
                          WHERE r.id = active_response AND r.state NOT IN ('queued', 'in_progress'))
        ), grown AS (
            UPDATE threads t SET head_position = head_position + $3, head_tokens = head_tokens + $4
            FROM free WHERE t.id = free.thread_id
            RETURNING t.id, t.head_position, t.head_tokens
        ), stored AS (
            INSERT INTO items (thread_id, position, id, kind, role, tokens, tokens_before, data)
            SELECT grown.id, grown.head_position - $3 + i.nth::int4, i.id, i.kind, i.role, i.tokens,
                   grown.head_tokens - $4 + i.tokens_before, i.data
            FROM grown, unnest($5::uuid[], $6::text[], $7::text[], $8::int4[], $9::int8[], $10::text[])
                WITH ORDINALITY AS i (id, kind, role, tokens, tokens_before, data, nth)
        ), touched AS (
            UPDATE conversations c SET updated_at = now() FROM free WHERE c.id = free.id
        ){audited}
        SELECT EXISTS (SELECT FROM conversation) AS found, EXISTS (SELECT FROM free) AS free",
        audited = audited("conversation.item.add", "'conv_' || free.id", "free", 11)
    );
    let row = audit::Row::of(&caller);
    let items = ItemColumns::of(items);
    let count = items.count();
    let own: [Param<'_>; 10] = [
        (&id.0, Type::UUID),
        (&caller.owner, Type::TEXT),
        (&count, Type::INT4),
        (&items.total, Type::INT8),
        (&items.ids, Type::UUID_ARRAY),
        (&items.kinds, Type::TEXT_ARRAY),
        (&items.roles, Type::TEXT_ARRAY),
        (&items.tokens, Type::INT4_ARRAY),
        (&items.tokens_before, Type::INT8_ARRAY),
        (&items.data, Type::TEXT_ARRAY),
    ];
    let params = [&own[..], &row.params()[..]].concat();
    let row = client.query_one("conversations.add_items", &sql, &params).await?;
    Ok(match (row.column("found")?, row.column("free")?) {
        (true, true) => Added::Added,
        (true, false) => Added::Locked,
        (false, _) => Added::NotFound,
    })
}

/// Whoever may read a conversation `c`, in a WHERE.
const READ: &str = "(c.owner = $2 OR granted(c.id, $2, 'read'))";

/// The conversation, if `may` holds of it, and the threads its items are on.
fn lineage(may: &str) -> String {
    format!(
        "conversation AS (
        SELECT t.id, t.head_position, t.hidden
        FROM conversations c JOIN threads t ON t.id = c.thread_id
        WHERE c.id = $1 AND {may} AND c.deleted_at IS NULL
    ), lineage AS (
        SELECT l.thread_id, l.above, l.upto
        FROM conversation CROSS JOIN LATERAL thread_lineage(conversation.id, conversation.head_position) l
    ), named AS (
        SELECT i.id, i.position, i.tokens, i.tokens_before, i.data, i.thread_id
        FROM conversation, lineage l
        JOIN items i ON i.thread_id = l.thread_id AND i.id = $3 AND i.position > l.above AND i.position <= l.upto
        WHERE i.position <> ALL (conversation.hidden)
    )"
    )
}

/// The conversation's items, for whoever may read it. `None`: there is no such conversation. An `after` that is not in
/// it gives them from the start.
pub async fn list_items(
    client: &impl Statements,
    caller: &str,
    id: ConversationId,
    page: PageOf<Uuid>,
) -> Result<Option<Page<StoredItem>>, DatabaseError> {
    let (beyond, direction) = match page.order {
        Order::Ascending => (">", "ASC"),
        Order::Descending => ("<", "DESC"),
    };
    let sql = format!(
        "WITH {lineage}
        SELECT entry.* FROM conversation LEFT JOIN LATERAL (
            SELECT near.* FROM lineage l CROSS JOIN LATERAL (
                SELECT i.id, i.position, i.tokens, i.tokens_before, i.data FROM items i
                WHERE i.thread_id = l.thread_id AND i.position > l.above AND i.position <= l.upto
                  AND i.position <> ALL (conversation.hidden)
                  AND coalesce(i.position {beyond} (SELECT position FROM named), true)
                ORDER BY i.position {direction} LIMIT $4
            ) near
            ORDER BY near.position {direction} LIMIT $4
        ) entry ON true ORDER BY entry.position {direction}",
        lineage = lineage(READ)
    );
    let params: [Param<'_>; 4] = [
        (&id.0, Type::UUID),
        (&caller, Type::TEXT),
        (&page.after, Type::UUID),
        (&i64::from(page.limit).saturating_add(1), Type::INT8),
    ];
    let rows = client.query("conversations.list_items", &sql, &params).await?;
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

/// One item of a conversation, for whoever may read that.
pub async fn get_item(
    client: &impl Statements,
    caller: &str,
    id: ConversationId,
    item_id: Uuid,
) -> Result<Option<StoredItem>, DatabaseError> {
    let sql = format!("WITH {} SELECT * FROM named", lineage(READ));
    let params = [(&id.0 as _, Type::UUID), (&caller as _, Type::TEXT), (&item_id as _, Type::UUID)];
    let row = client.query_opt("conversations.get_item", &sql, &params).await?;
    row.as_ref().map(item).transpose()
}

/// Takes an item out of a conversation; forks that were made before keep it. `None`: there is no such conversation or
/// item; else the conversation as it is now. A transaction of two statements: what the first one locks, the second one
/// must see.
pub async fn delete_item(
    client: &mut Client,
    caller: impl Into<Caller<'_>>,
    id: ConversationId,
    item_id: Uuid,
) -> Result<Option<Conversation>, DatabaseError> {
    let caller = caller.into();
    // The conversation before its thread, as everybody else locks them.
    const LOCK: &str = "
        WITH conversation AS (
            SELECT thread_id FROM conversations WHERE id = $1 AND owner = $2 AND deleted_at IS NULL FOR NO KEY UPDATE
        )
        SELECT t.id FROM conversation JOIN threads t ON t.id = conversation.thread_id FOR UPDATE OF t";
    let sql = format!(
        "WITH {lineage}, gone AS (
            DELETE FROM items i USING named, conversation
            WHERE named.thread_id = conversation.id
              AND i.thread_id = named.thread_id AND i.position = named.position
              AND NOT EXISTS (SELECT FROM threads f
                              WHERE f.base_thread = named.thread_id AND f.base_position >= named.position)
            RETURNING i.position
        ), hid AS (
            UPDATE threads t SET hidden = t.hidden || named.position
            FROM named, conversation
            WHERE t.id = conversation.id AND NOT EXISTS (SELECT FROM gone)
        ), unlogged AS (
            -- The log says it too, and is not shown any more of a response that lacks a part of its output.
            DELETE FROM response_events e USING named, conversation, responses r
            WHERE named.thread_id = conversation.id AND r.thread_id = conversation.id
              AND named.position BETWEEN r.output_from AND r.output_to AND e.response_id = r.id
        ){audited}
        UPDATE conversations c SET updated_at = now() FROM named WHERE c.id = $1
        RETURNING {COLUMNS}",
        lineage = lineage("c.owner = $2"),
        // As its public id is made: the first part says of what kind it is.
        audited = audited(
            "conversation.item.delete",
            "coalesce(named.data::json ->> 'id', named.id::text)",
            "named",
            4
        )
    );
    let row = audit::Row::of(&caller);
    let own: [Param<'_>; 3] = [(&id.0, Type::UUID), (&caller.owner, Type::TEXT), (&item_id, Type::UUID)];
    let params = [&own[..], &row.params()[..]].concat();
    let transaction = client.transaction().await?;
    transaction.query("conversations.delete_item_lock", LOCK, &own[..2]).await?;
    let row = transaction.query_opt("conversations.delete_item", &sql, &params).await?;
    transaction.commit().await?;
    row.as_ref().map(conversation).transpose()
}
