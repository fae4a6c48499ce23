//! Grants: what an owner lets another do with a conversation.
//!
//! A query that also serves those who were granted access has, in place of `owner = $2`:
//! `(owner = $2 OR granted(id, $2, 'read'))`. The function is inlined; `grants_grantee` serves lists.

use jiff::Timestamp;

use super::{Columns, DatabaseError, Statements, Type};
use crate::ids::ConversationId;

/// What is granted. Writing includes reading; neither includes deleting or granting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// A grant in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub grantee: String,
    pub access: GrantedAccess,
    pub created_by: String,
    pub created_at: Timestamp,
}

/// Gives access, or changes what was given; audited in the same statement. `false`: the owner has no such conversation.
pub async fn give(
    client: &impl Statements,
    owner: &str,
    conversation: ConversationId,
    grantee: &str,
    access: GrantedAccess,
) -> Result<bool, DatabaseError> {
    const SQL: &str = "
        WITH given AS (
            INSERT INTO grants AS old (conversation_id, grantee, access, created_by)
            SELECT id, $3, $4, $2 FROM conversations WHERE id = $1 AND owner = $2 AND deleted_at IS NULL
            ON CONFLICT (conversation_id, grantee) DO UPDATE
            SET access = excluded.access, created_by = excluded.created_by, created_at = now(), revoked_at = NULL
            RETURNING conversation_id
        ), audited AS (
            INSERT INTO api_audit (id, actor, action, subject, detail)
            SELECT $5, $2, 'grant.given', 'conv_' || conversation_id,
                   jsonb_build_object('grantee', $3::text, 'access', $4::text)
            FROM given
        )
        SELECT count(*) AS given FROM given";
    let audit = uuid::Uuid::now_v7();
    let access = access.as_str();
    let params = [
        (&conversation.0 as _, Type::UUID),
        (&owner as _, Type::TEXT),
        (&grantee as _, Type::TEXT),
        (&access as _, Type::TEXT),
        (&audit as _, Type::UUID),
    ];
    Ok(client.query_one("grants.give", SQL, &params).await?.column::<i64>("given")? == 1)
}

/// Takes access back; audited in the same statement. `false`: there was none of this owner's giving.
pub async fn revoke(
    client: &impl Statements,
    owner: &str,
    conversation: ConversationId,
    grantee: &str,
) -> Result<bool, DatabaseError> {
    const SQL: &str = "
        WITH revoked AS (
            UPDATE grants SET revoked_at = now()
            FROM conversations
            WHERE conversations.id = $1 AND conversations.owner = $2 AND grants.conversation_id = $1
              AND grants.grantee = $3 AND grants.revoked_at IS NULL
            RETURNING conversation_id
        ), audited AS (
            INSERT INTO api_audit (id, actor, action, subject, detail)
            SELECT $4, $2, 'grant.revoked', 'conv_' || conversation_id, jsonb_build_object('grantee', $3::text)
            FROM revoked
        )
        SELECT count(*) AS revoked FROM revoked";
    let audit = uuid::Uuid::now_v7();
    let params = [
        (&conversation.0 as _, Type::UUID),
        (&owner as _, Type::TEXT),
        (&grantee as _, Type::TEXT),
        (&audit as _, Type::UUID),
    ];
    Ok(client.query_one("grants.revoke", SQL, &params).await?.column::<i64>("revoked")? == 1)
}

/// The grants in force on a conversation; `None` if the owner has no such conversation.
pub async fn list(
    client: &impl Statements,
    owner: &str,
    conversation: ConversationId,
) -> Result<Option<Vec<Grant>>, DatabaseError> {
    const SQL: &str = "
        SELECT grantee, access, created_by, grants.created_at
        FROM conversations LEFT JOIN grants ON conversation_id = conversations.id AND revoked_at IS NULL
        WHERE conversations.id = $1 AND conversations.owner = $2 AND deleted_at IS NULL
        ORDER BY grantee";
    let params = [(&conversation.0 as _, Type::UUID), (&owner as _, Type::TEXT)];
    let rows = client.query("grants.list", SQL, &params).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut grants = Vec::with_capacity(rows.len());
    for row in &rows {
        let Some(grantee) = row.column::<Option<String>>("grantee")? else { continue };
        let access = GrantedAccess::parse(row.column("access")?).unwrap_or(GrantedAccess::Read);
        let (created_by, created_at) = (row.column("created_by")?, row.column("created_at")?);
        grants.push(Grant { grantee, access, created_by, created_at });
    }
    Ok(Some(grants))
}

/// Whose conversation it is, if `who` owns it or was granted this access to it. Queries on its data then name that
/// owner. `None` also when there is no such conversation: the two look alike.
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
