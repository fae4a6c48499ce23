//! API keys made at run time. Only hashes are kept.

use jiff::Timestamp;
use jiff::civil::Date;

use super::{Columns, DatabaseError, Row, Statements, Type};
use crate::config::{KeyLimits, Scope};
use crate::ids::KeyId;

/// A key to be made.
#[derive(Debug)]
pub struct NewKey<'a> {
    pub id: KeyId,
    pub name: &'a str,
    pub sha256: &'a [u8; 32],
    pub owner: &'a str,
    pub scopes: &'a [Scope],
    pub limits: KeyLimits,
    pub created_by: &'a str,
    pub expires_at: Option<Timestamp>,
}

/// A key as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    pub id: KeyId,
    pub name: String,
    pub owner: String,
    pub scopes: Vec<Scope>,
    pub limits: KeyLimits,
    pub created_at: Timestamp,
    pub created_by: String,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// Written at most once a day.
    pub last_used_day: Option<Date>,
}

/// Makes a key.
pub async fn create(client: &impl Statements, key: &NewKey<'_>) -> Result<(), DatabaseError> {
    const SQL: &str = "
        INSERT INTO api_keys (id, name, sha256, owner, scopes, limits, created_by, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let scopes: Vec<String> = key.scopes.iter().map(ToString::to_string).collect();
    let limits = serde_json::to_value(&key.limits).unwrap_or_default();
    let hash = key.sha256.as_slice();
    let params = [
        (&key.id.0 as _, Type::UUID),
        (&key.name as _, Type::TEXT),
        (&hash as _, Type::BYTEA),
        (&key.owner as _, Type::TEXT),
        (&scopes as _, Type::TEXT_ARRAY),
        (&limits as _, Type::JSONB),
        (&key.created_by as _, Type::TEXT),
        (&key.expires_at as _, Type::TIMESTAMPTZ),
    ];
    client.execute("api_keys.create", SQL, &params).await.map(drop)
}

/// The key of this hash, in force or not; notes that it was used today.
pub async fn find(client: &impl Statements, sha256: &[u8; 32]) -> Result<Option<StoredKey>, DatabaseError> {
    const SQL: &str = "
        WITH used AS (
            UPDATE api_keys SET last_used_day = (now() AT TIME ZONE 'UTC')::date
            WHERE sha256 = $1 AND revoked_at IS NULL
              AND last_used_day IS DISTINCT FROM (now() AT TIME ZONE 'UTC')::date
        )
        SELECT id, name, owner, scopes, limits, created_at, created_by, expires_at, revoked_at, last_used_day
        FROM api_keys WHERE sha256 = $1";
    let hash = sha256.as_slice();
    let row = client.query_opt("api_keys.find", SQL, &[(&hash, Type::BYTEA)]).await?;
    row.as_ref().map(key).transpose()
}

/// Keys, newest first: those of an owner, or all (for operators).
pub async fn list(
    client: &impl Statements,
    owner: Option<&str>,
    before: Option<KeyId>,
    limit: i64,
) -> Result<Vec<StoredKey>, DatabaseError> {
    const SQL: &str = "
        SELECT id, name, owner, scopes, limits, created_at, created_by, expires_at, revoked_at, last_used_day
        FROM api_keys WHERE ($1::text IS NULL OR owner = $1) AND ($2::uuid IS NULL OR id < $2)
        ORDER BY id DESC LIMIT $3";
    let before = before.map(|id| id.0);
    let params = [(&owner as _, Type::TEXT), (&before as _, Type::UUID), (&limit as _, Type::INT8)];
    client.query("api_keys.list", SQL, &params).await?.iter().map(key).collect()
}

/// Ends a key at an instant (now, to revoke it), unless it ends before. `false`: there is none such of this owner
/// (`None`: of anybody), or it was revoked. Processes remember it for `API_KEY_CACHE`.
pub async fn expire(
    client: &impl Statements,
    owner: Option<&str>,
    id: KeyId,
    at: Timestamp,
) -> Result<bool, DatabaseError> {
    const SQL: &str = "
        UPDATE api_keys SET expires_at = least(expires_at, $3),
               revoked_at = CASE WHEN $3 <= now() THEN now() END
        WHERE id = $1 AND ($2::text IS NULL OR owner = $2) AND revoked_at IS NULL";
    let params = [(&id.0 as _, Type::UUID), (&owner as _, Type::TEXT), (&at as _, Type::TIMESTAMPTZ)];
    Ok(client.execute("api_keys.expire", SQL, &params).await? == 1)
}

fn key(row: &Row) -> Result<StoredKey, DatabaseError> {
    let scopes: Vec<&str> = row.column("scopes")?;
    let limits: serde_json::Value = row.column("limits")?;
    let defect =
        |reason: &str| DatabaseError::Unexpected { statement: "api_keys", reason: reason.to_owned() };
    Ok(StoredKey {
        id: KeyId(row.column("id")?),
        name: row.column("name")?,
        owner: row.column("owner")?,
        // A scope that only a newer program knows permits nothing here.
        scopes: scopes.into_iter().filter_map(Scope::parse).collect(),
        limits: serde_json::from_value(limits)
            .map_err(|_| defect("limits that this program does not know"))?,
        created_at: row.column("created_at")?,
        created_by: row.column("created_by")?,
        expires_at: row.column("expires_at")?,
        revoked_at: row.column("revoked_at")?,
        last_used_day: row.column("last_used_day")?,
    })
}
