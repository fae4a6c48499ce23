//! Grants: what an owner lets another do with a conversation.
//!
//! A query that also serves those who were granted access has, in place of `owner = $2`:
//! `(owner = $2 OR granted(id, $2, 'read'))`. The function is called for those alone who are not the owner;
//! `grants_grantee` serves lists. A grant is locked before a turn, a conversation and a thread.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::audit::Actor;
use super::responses::{LIVE, Order, Page, PageOf, paged};
use super::{Client, Columns, DatabaseError, Param, Row, Statements, Type};
use crate::ids::{ConversationId, ResponseId};

/// What is granted. Writing includes reading; neither includes deleting or granting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GrantedAccess {
    Read,
    Write,
}

impl GrantedAccess {
    /// As SQL and the API have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    /// What SQL and the API call so.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Read, Self::Write].into_iter().find(|access| access.as_str() == text)
    }
}

/// A grant in force, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "object", rename = "conversation.grant")]
pub struct Grant {
    pub conversation: ConversationId,
    pub owner: String,
    pub grantee: String,
    pub access: GrantedAccess,
    pub created_by: String,
    pub created_at: Timestamp,
}

/// Of `grants g` and its `conversations c`.
const COLUMNS: &str = "g.conversation_id, c.owner, g.grantee, g.access, g.created_by, g.created_at";

/// Gives access, or changes what was given; audited in the same statement. `owner`: whose conversation it must be;
/// `None` (for operators): anybody's. `None`: there is no such conversation, or the grantee owns it.
pub async fn give(
    client: &impl Statements,
    owner: Option<&str>,
    conversation: ConversationId,
    grantee: &str,
    access: GrantedAccess,
    actor: Actor<'_>,
) -> Result<Option<Grant>, DatabaseError> {
    let sql = format!(
        "WITH c AS (
            SELECT id, owner FROM conversations
            WHERE id = $1 AND ($2::text IS NULL OR owner = $2) AND owner <> $3 AND deleted_at IS NULL
        ), g AS (
            INSERT INTO grants AS old (conversation_id, grantee, access, created_by)
            SELECT id, $3, $4, $6 FROM c
            ON CONFLICT (conversation_id, grantee) DO UPDATE
            SET access = excluded.access, created_by = excluded.created_by, created_at = now(), revoked_at = NULL
            RETURNING *
        ), audited AS (
            INSERT INTO api_audit (id, actor, action, subject, detail)
            SELECT $5, $6, 'grant.give', 'conv_' || conversation_id,
                   jsonb_build_object('grantee', grantee, 'access', access, 'reason', $7::text)
            FROM g
        )
        SELECT {COLUMNS} FROM g JOIN c ON c.id = g.conversation_id"
    );
    let (access, audit) = (access.as_str(), Uuid::now_v7());
    let params: [Param<'_>; 7] = [
        (&conversation.0, Type::UUID),
        (&owner, Type::TEXT),
        (&grantee, Type::TEXT),
        (&access, Type::TEXT),
        (&audit, Type::UUID),
        (&actor.name, Type::TEXT),
        (&actor.reason, Type::TEXT),
    ];
    client.query_opt("grants.give", &sql, &params).await?.as_ref().map(grant).transpose()
}

/// What taking access back came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// `stopped`: the grantee's turn that ran on the conversation and was asked to stop.
    Revoked {
        stopped: Option<ResponseId>,
    },
    NoGrant,
    NoConversation,
}

/// Takes access back, audited in the same statement, and asks a turn that the grantee runs on the conversation to stop.
/// `owner` as in [`give`]. A transaction of two statements: a turn whose beginning the first one waited for, the second
/// one must see.
pub async fn revoke(
    client: &mut Client,
    owner: Option<&str>,
    conversation: ConversationId,
    grantee: &str,
    actor: Actor<'_>,
) -> Result<Revoked, DatabaseError> {
    const REVOKE: &str = "
        WITH c AS (
            SELECT id FROM conversations
            WHERE id = $1 AND ($2::text IS NULL OR owner = $2) AND deleted_at IS NULL
        ), revoked AS (
            UPDATE grants g SET revoked_at = now() FROM c
            WHERE g.conversation_id = c.id AND g.grantee = $3 AND g.revoked_at IS NULL
            RETURNING g.conversation_id
        ), audited AS (
            INSERT INTO api_audit (id, actor, action, subject, detail)
            SELECT $4, $5, 'grant.revoke', 'conv_' || conversation_id,
                   jsonb_build_object('grantee', $3::text, 'reason', $6::text)
            FROM revoked
        )
        SELECT EXISTS (SELECT FROM c) AS found, EXISTS (SELECT FROM revoked) AS revoked";
    const STOP: &str = "
        UPDATE responses r SET cancel_requested_at = coalesce(r.cancel_requested_at, now()),
               due_at = CASE WHEN r.due_at IS NOT NULL THEN now() END
        FROM conversations c
        WHERE c.id = $1 AND r.id = c.active_response AND r.caller = $2 AND r.state IN ('queued', 'in_progress')
        RETURNING r.id";
    let audit = Uuid::now_v7();
    let params: [Param<'_>; 6] = [
        (&conversation.0, Type::UUID),
        (&owner, Type::TEXT),
        (&grantee, Type::TEXT),
        (&audit, Type::UUID),
        (&actor.name, Type::TEXT),
        (&actor.reason, Type::TEXT),
    ];
    let transaction = client.transaction().await?;
    let row = transaction.query_one("grants.revoke", REVOKE, &params).await?;
    match (row.column("found")?, row.column("revoked")?) {
        (false, _) => return Ok(Revoked::NoConversation),
        (true, false) => return Ok(Revoked::NoGrant),
        (true, true) => {}
    }
    let params = [(&conversation.0 as _, Type::UUID), (&grantee as _, Type::TEXT)];
    let stopped = transaction.query_opt("grants.stop", STOP, &params).await?;
    transaction.commit().await?;
    let stopped = stopped.map(|row| row.column("id")).transpose()?;
    Ok(Revoked::Revoked { stopped: stopped.map(ResponseId) })
}

/// The grants in force on a conversation by their grantees' names; `None` if the owner has no such conversation.
pub async fn list(
    client: &impl Statements,
    owner: &str,
    conversation: ConversationId,
    page: PageOf<&str>,
) -> Result<Option<Page<Grant>>, DatabaseError> {
    let (beyond, direction) = beyond(page.order);
    let sql = format!(
        "SELECT {COLUMNS}
         FROM conversations c LEFT JOIN grants g ON g.conversation_id = c.id AND g.revoked_at IS NULL
             AND ($3::text IS NULL OR g.grantee {beyond} $3)
         WHERE c.id = $1 AND c.owner = $2 AND c.deleted_at IS NULL
         ORDER BY g.grantee {direction} LIMIT $4"
    );
    let params: [Param<'_>; 4] = [
        (&conversation.0, Type::UUID),
        (&owner, Type::TEXT),
        (&page.after, Type::TEXT),
        (&i64::from(page.limit).saturating_add(1), Type::INT8),
    ];
    let rows = client.query("grants.list", &sql, &params).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut grants = Vec::with_capacity(rows.len());
    for row in &rows {
        if row.column::<Option<&str>>("grantee")?.is_some() {
            grants.push(grant(row)?);
        }
    }
    Ok(Some(paged(grants, page.limit)))
}

/// Which grants operators want to see; `None` is any.
#[derive(Clone, Copy, Debug, Default)]
pub struct GrantFilter<'a> {
    pub owner: Option<&'a str>,
    pub grantee: Option<&'a str>,
    pub conversation: Option<ConversationId>,
}

/// Everybody's grants in force, by conversation and grantee.
pub async fn list_all(
    client: &impl Statements,
    filter: GrantFilter<'_>,
    page: PageOf<(ConversationId, &str)>,
) -> Result<Page<Grant>, DatabaseError> {
    let (beyond, direction) = beyond(page.order);
    let sql = format!(
        "SELECT {COLUMNS} FROM grants g JOIN conversations c ON c.id = g.conversation_id AND c.deleted_at IS NULL
         WHERE g.revoked_at IS NULL AND ($1::text IS NULL OR c.owner = $1) AND ($2::text IS NULL OR g.grantee = $2)
           AND ($3::uuid IS NULL OR g.conversation_id = $3)
           AND ($4::uuid IS NULL OR (g.conversation_id, g.grantee) {beyond} ($4, $5))
         ORDER BY g.conversation_id {direction}, g.grantee {direction} LIMIT $6"
    );
    let conversation = filter.conversation.map(|id| id.0);
    let (after, after_grantee) = page.after.map(|(id, grantee)| (id.0, grantee)).unzip();
    let params: [Param<'_>; 6] = [
        (&filter.owner, Type::TEXT),
        (&filter.grantee, Type::TEXT),
        (&conversation, Type::UUID),
        (&after, Type::UUID),
        (&after_grantee, Type::TEXT),
        (&i64::from(page.limit).saturating_add(1), Type::INT8),
    ];
    let rows = client.query("grants.list_all", &sql, &params).await?;
    Ok(paged(rows.iter().map(grant).collect::<Result<_, _>>()?, page.limit))
}

/// Whose conversation it is, if `who` owns it or was granted this access to it. `None` also when there is no such
/// conversation: the two look alike.
pub async fn may(
    client: &impl Statements,
    who: &str,
    conversation: ConversationId,
    access: GrantedAccess,
) -> Result<Option<String>, DatabaseError> {
    const SQL: &str = "
        SELECT owner FROM conversations
        WHERE id = $1 AND deleted_at IS NULL AND (owner = $2 OR granted(id, $2, $3))";
    let access = access.as_str();
    let params = [(&conversation.0 as _, Type::UUID), (&who as _, Type::TEXT), (&access as _, Type::TEXT)];
    let row = client.query_opt("grants.may", SQL, &params).await?;
    row.map(|row| row.column("owner")).transpose()
}

fn beyond(order: Order) -> (&'static str, &'static str) {
    match order {
        Order::Ascending => (">", "ASC"),
        Order::Descending => ("<", "DESC"),
    }
}

fn grant(row: &Row) -> Result<Grant, DatabaseError> {
    Ok(Grant {
        conversation: ConversationId(row.column("conversation_id")?),
        owner: row.column("owner")?,
        grantee: row.column("grantee")?,
        // A word that only a newer program knows permits the least here.
        access: GrantedAccess::parse(row.column("access")?).unwrap_or(GrantedAccess::Read),
        created_by: row.column("created_by")?,
        created_at: row.column("created_at")?,
    })
}

/// Whether a conversation or a response is there and another owner's.
pub async fn is_anothers(client: &impl Statements, caller: &str, id: Uuid) -> Result<bool, DatabaseError> {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM conversations WHERE id = $1 AND owner <> $2 AND deleted_at IS NULL)
             OR EXISTS (SELECT FROM responses r WHERE r.id = $1 AND r.owner <> $2 AND {LIVE}) AS anothers"
    );
    let params = [(&id as _, Type::UUID), (&caller as _, Type::TEXT)];
    client.query_one("grants.is_anothers", &sql, &params).await?.column("anothers")
}
