//! Reading out what is an owner's, as lines of JSON.

use uuid::Uuid;

use super::{OWNED, OwnerData};
use crate::database::{Columns, DatabaseError, Statements, Type};

/// A file of an export: its name, what its lines are known by, and its lines behind a key: $4, at most $5 of them.
pub struct Export {
    pub name: &'static str,
    key: Key,
    sql: fn() -> String,
}

/// What the lines of a file are known by.
#[derive(Clone, Copy)]
enum Key {
    Id,
    /// An id and a position: `<uuid>/7`.
    Position,
    Text,
}

impl Export {
    /// The key before the first.
    pub const fn first(&self) -> &'static str {
        match self.key {
            Key::Id => NIL,
            Key::Position => "00000000-0000-0000-0000-000000000000/0",
            Key::Text => "",
        }
    }

    /// Whether it can be the key of one of its lines.
    pub fn has_key(&self, text: &str) -> bool {
        let is_id = |text: &str| Uuid::parse_str(text).is_ok_and(|id| id.to_string() == text);
        match self.key {
            Key::Id => is_id(text),
            Key::Position => text.split_once('/').is_some_and(|(id, position)| {
                is_id(id) && position.parse::<u32>().is_ok_and(|at| i32::try_from(at).is_ok())
            }),
            Key::Text => !text.contains('\0'),
        }
    }
}

const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// Every file.
pub const EXPORTS: &[Export] = &[
    Export { name: "conversations", key: Key::Id, sql: conversations },
    Export { name: "items", key: Key::Position, sql: items },
    Export { name: "turns", key: Key::Id, sql: turns },
    Export { name: "callbacks", key: Key::Id, sql: callbacks },
    Export { name: "events", key: Key::Id, sql: events },
    Export { name: "keys", key: Key::Id, sql: keys },
    Export { name: "grants", key: Key::Text, sql: grants },
    Export { name: "usage", key: Key::Id, sql: usage },
    Export { name: "usage-days", key: Key::Text, sql: usage_days },
];

/// Some lines of a file.
#[derive(Debug, Default)]
pub struct ExportPage {
    /// JSON.
    pub lines: Vec<String>,
    /// The key of the last line: where the next page begins.
    pub last: Option<String>,
}

/// The lines of a file behind a key.
pub async fn page(
    client: &impl Statements,
    data: &OwnerData,
    export: &Export,
    after: &str,
    limit: i64,
) -> Result<ExportPage, DatabaseError> {
    let [owner, source, routes] = data.params();
    let params = [owner, source, routes, (&after as _, Type::TEXT), (&limit as _, Type::INT8)];
    let rows = client.query("owners.export", &(export.sql)(), &params).await?;
    let mut page = ExportPage::default();
    for row in &rows {
        page.lines.push(row.column("line")?);
        page.last = Some(row.column("key")?);
    }
    Ok(page)
}

fn conversations() -> String {
    "SELECT c.id::text AS key, json_build_object('id', 'conv_' || c.id, 'title', c.title, 'metadata', c.metadata,
            'external_key', c.external_key, 'route', c.route, 'created_at', c.created_at, 'updated_at', c.updated_at,
            'thread', c.thread_id)::text AS line
     FROM conversations c WHERE c.owner = $1 AND c.deleted_at IS NULL AND c.id > $4::uuid ORDER BY c.id LIMIT $5"
        .to_owned()
}

fn items() -> String {
    "SELECT i.thread_id || '/' || i.position AS key, json_build_object('thread', i.thread_id, 'position', i.position,
            'turn', 'resp_' || i.response_id, 'created_at', i.created_at, 'item', i.data::json)::text AS line
     FROM threads t JOIN items i ON i.thread_id = t.id
     WHERE t.owner = $1 AND (i.thread_id, i.position) > (split_part($4, '/', 1)::uuid, split_part($4, '/', 2)::integer)
     ORDER BY i.thread_id, i.position LIMIT $5"
        .to_owned()
}

fn turns() -> String {
    "SELECT r.id::text AS key, json_build_object('id', 'resp_' || r.id, 'conversation', 'conv_' || r.conversation_id,
            'thread', r.thread_id, 'input_from', r.input_from, 'input_to', r.input_to, 'output_from', r.output_from,
            'output_to', r.output_to, 'model', r.model, 'status', r.state, 'request', r.request, 'error', r.error,
            'usage', r.usage, 'api_key', r.api_key, 'asked_for_by', r.caller, 'created_at', r.created_at,
            'completed_at', r.completed_at)::text AS line
     FROM responses r WHERE r.owner = $1 AND r.deleted_at IS NULL AND r.id > $4::uuid ORDER BY r.id LIMIT $5"
        .to_owned()
}

fn callbacks() -> String {
    "SELECT c.id::text AS key, json_build_object('id', 'cb_' || c.id, 'turn', 'resp_' || c.response_id, 'type', c.type,
            'target', c.target, 'state', c.state, 'created_at', c.created_at, 'finished_at', c.finished_at)::text AS line
     FROM callbacks c WHERE c.owner = $1 AND c.id > $4::uuid ORDER BY c.id LIMIT $5"
        .to_owned()
}

fn events() -> String {
    format!(
        "SELECT e.id::text AS key, json_build_object('id', 'evt_' || e.id, 'delivery', 'dlv_' || e.delivery_id,
                'source', e.source, 'type', e.type, 'key', e.key, 'subject', e.subject, 'state', e.state,
                'received_at', e.received_at, 'payload_base64', translate(encode(e.payload, 'base64'), E'\\n', ''),
                'payload_blob', CASE WHEN e.payload IS NULL THEN d.body_blob END)::text AS line
         FROM events e LEFT JOIN deliveries d ON d.id = e.delivery_id
         WHERE {OWNED} AND e.id > $4::uuid ORDER BY e.id LIMIT $5"
    )
}

/// Without hashes: what proves a key is nobody's to take away.
fn keys() -> String {
    "SELECT k.id::text AS key, json_build_object('id', 'key_' || k.id, 'name', k.name, 'scopes', k.scopes,
            'limits', k.limits, 'created_at', k.created_at, 'created_by', k.created_by, 'expires_at', k.expires_at,
            'revoked_at', k.revoked_at, 'last_used_day', k.last_used_day)::text AS line
     FROM api_keys k WHERE k.owner = $1 AND k.id > $4::uuid ORDER BY k.id LIMIT $5"
        .to_owned()
}

fn grants() -> String {
    "SELECT g.conversation_id || '/' || g.grantee AS key, json_build_object('conversation', 'conv_' || g.conversation_id,
            'grantee', g.grantee, 'access', g.access, 'created_at', g.created_at, 'revoked_at', g.revoked_at)::text AS line
     FROM grants g LEFT JOIN conversations c ON c.id = g.conversation_id
     WHERE (g.grantee = $1 OR c.owner = $1) AND g.conversation_id || '/' || g.grantee > $4
     ORDER BY key LIMIT $5"
        .to_owned()
}

fn usage() -> String {
    "SELECT u.id::text AS key, row_to_json(u)::text AS line
     FROM usage u WHERE u.owner = $1 AND u.id > $4::uuid ORDER BY u.id LIMIT $5"
        .to_owned()
}

fn usage_days() -> String {
    "SELECT key, line FROM (
        SELECT concat_ws('/', u.day, u.model, u.deployment, u.provider, u.api_key) AS key, row_to_json(u)::text AS line
        FROM usage_days u WHERE u.owner = $1) AS sums
     WHERE key > $4 ORDER BY key LIMIT $5"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_the_keys_that_its_lines_have() {
        let id = "0193aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee";
        let of = |name: &str| EXPORTS.iter().find(|export| export.name == name).expect("a file");
        for export in EXPORTS {
            assert!(export.has_key(export.first()), "{}", export.name);
            assert!(!export.has_key("a\0b"), "{}", export.name);
        }
        assert!(
            of("turns").has_key(id) && !of("turns").has_key("") && !of("turns").has_key(&id.to_uppercase())
        );
        let items = of("items");
        assert!(items.has_key(&format!("{id}/2147483647")));
        for wrong in
            [id.to_owned(), format!("{id}/"), format!("{id}/x"), format!("{id}/2147483648"), "x/1".to_owned()]
        {
            assert!(!items.has_key(&wrong), "{wrong}");
        }
        assert!(of("usage-days").has_key("2026-01-31/demo/d/openai"));
    }
}
