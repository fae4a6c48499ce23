//! API keys made at run time. Only hashes are kept. Every change is audited in its own statement.

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use uuid::Uuid;

use super::audit::Actor;
use super::responses::{Order, Page, PageOf, paged};
use super::{Columns, DatabaseError, Param, Row, Statements, Type};
use crate::config::{KeyLimits, Scope};
use crate::ids::KeyId;

/// A key to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewKey<'a> {
    pub id: KeyId,
    pub name: &'a str,
    pub sha256: &'a [u8; 32],
    pub owner: &'a str,
    pub scopes: &'a [Scope],
    pub limits: &'a KeyLimits,
    pub expires_at: Option<Timestamp>,
}

/// A key as it is kept, and as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "object", rename = "api_key")]
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
    /// The key that took its place when it was rotated.
    pub replaced_by: Option<KeyId>,
    /// Written at most once a day.
    pub last_used_day: Option<Date>,
}

impl StoredKey {
    /// Whether it is taken at an instant.
    pub fn is_in_force(&self, at: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| at < end)
    }
}

/// Of `api_keys k`.
const COLUMNS: &str =
    "k.id, k.name, k.owner, k.scopes, k.limits, k.created_at, k.created_by, k.expires_at, k.revoked_at,
    k.replaced_by, k.last_used_day";

/// Makes a key.
pub async fn create(
    client: &impl Statements,
    key: &NewKey<'_>,
    actor: Actor<'_>,
) -> Result<StoredKey, DatabaseError> {
    let sql = format!(
        "WITH k AS (
            INSERT INTO api_keys (id, name, sha256, owner, scopes, limits, created_by, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
            RETURNING *
        ), audited AS (
            INSERT INTO api_audit (id, actor, action, subject, detail)
            SELECT $9, $7, 'key.create', 'key_' || id,
                   jsonb_build_object('name', name, 'owner', owner, 'scopes', scopes, 'expires_at', expires_at,
                                      'reason', $10::text)
            FROM k
        )
        SELECT {COLUMNS} FROM k"
    );
    let scopes: Vec<String> = key.scopes.iter().map(ToString::to_string).collect();
    let limits = serde_json::to_value(key.limits).unwrap_or_default();
    let (hash, audit) = (key.sha256.as_slice(), Uuid::now_v7());
    let params: [Param<'_>; 10] = [
        (&key.id.0, Type::UUID),
        (&key.name, Type::TEXT),
        (&hash, Type::BYTEA),
        (&key.owner, Type::TEXT),
        (&scopes, Type::TEXT_ARRAY),
        (&limits, Type::JSONB),
        (&actor.name, Type::TEXT),
        (&key.expires_at, Type::TIMESTAMPTZ),
        (&audit, Type::UUID),
        (&actor.reason, Type::TEXT),
    ];
    self::key(&client.query_one("api_keys.create", &sql, &params).await?)
}

/// The key of this hash, in force or not; notes that it was used today.
pub async fn find(client: &impl Statements, sha256: &[u8; 32]) -> Result<Option<StoredKey>, DatabaseError> {
    let sql = format!(
        "WITH used AS (
            UPDATE api_keys SET last_used_day = (now() AT TIME ZONE 'UTC')::date
            WHERE sha256 = $1 AND revoked_at IS NULL
              AND last_used_day IS DISTINCT FROM (now() AT TIME ZONE 'UTC')::date
        )
        SELECT {COLUMNS} FROM api_keys k WHERE k.sha256 = $1"
    );
    let hash = sha256.as_slice();
    let row = client.query_opt("api_keys.find", &sql, &[(&hash, Type::BYTEA)]).await?;
    row.as_ref().map(key).transpose()
}

/// One key.
pub async fn get(client: &impl Statements, id: KeyId) -> Result<Option<StoredKey>, DatabaseError> {
    let sql = format!("SELECT {COLUMNS} FROM api_keys k WHERE k.id = $1");
    let row = client.query_opt("api_keys.get", &sql, &[(&id.0, Type::UUID)]).await?;
    row.as_ref().map(key).transpose()
}

/// Keys by when they were made: those of an owner, or all.
pub async fn list(
    client: &impl Statements,
    owner: Option<&str>,
    page: PageOf<KeyId>,
) -> Result<Page<StoredKey>, DatabaseError> {
    let (beyond, direction) = match page.order {
        Order::Ascending => (">", "ASC"),
        Order::Descending => ("<", "DESC"),
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM api_keys k
         WHERE ($1::text IS NULL OR k.owner = $1) AND ($2::uuid IS NULL OR k.id {beyond} $2)
         ORDER BY k.id {direction} LIMIT $3"
    );
    let after = page.after.map(|id| id.0);
    let limit = i64::from(page.limit).saturating_add(1);
    let params = [(&owner as _, Type::TEXT), (&after as _, Type::UUID), (&limit as _, Type::INT8)];
    let rows = client.query("api_keys.list", &sql, &params).await?;
    Ok(paged(rows.iter().map(key).collect::<Result<_, _>>()?, page.limit))
}

/// Ends a key at an instant, unless it ends before; `None` revokes it now. Gives the key as it is then; `None` if there
/// is none that could be ended: it is not there, or it was revoked. Processes remember a key for `API_KEY_CACHE`.
pub async fn expire(
    client: &impl Statements,
    id: KeyId,
    at: Option<Timestamp>,
    actor: Actor<'_>,
) -> Result<Option<StoredKey>, DatabaseError> {
    let sql = format!(
        "WITH k AS (
            UPDATE api_keys SET expires_at = least(expires_at, coalesce($2, now())),
                   revoked_at = CASE WHEN coalesce($2, now()) <= now() THEN now() END
            WHERE id = $1 AND revoked_at IS NULL
            RETURNING *
        ), audited AS (
            INSERT INTO api_audit (id, actor, action, subject, detail)
            SELECT $3, $4, CASE WHEN revoked_at IS NULL THEN 'key.expire' ELSE 'key.revoke' END, 'key_' || id,
                   jsonb_build_object('expires_at', expires_at, 'reason', $5::text)
            FROM k
        )
        SELECT {COLUMNS} FROM k"
    );
    let audit = Uuid::now_v7();
    let params: [Param<'_>; 5] = [
        (&id.0, Type::UUID),
        (&at, Type::TIMESTAMPTZ),
        (&audit, Type::UUID),
        (&actor.name, Type::TEXT),
        (&actor.reason, Type::TEXT),
    ];
    let row = client.query_opt("api_keys.expire", &sql, &params).await?;
    row.as_ref().map(key).transpose()
}

/// A key that is to take another's place.
#[derive(Clone, Copy, Debug)]
pub struct Rotation<'a> {
    pub old: KeyId,
    /// How long the old one goes on.
    pub overlap: SignedDuration,
    pub id: KeyId,
    pub sha256: &'a [u8; 32],
    /// When the new one ends. `None`: it lives as long as the old one was made to.
    pub expires_at: Option<Timestamp>,
}

/// The two keys of a rotation, as they are after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    pub old: StoredKey,
    pub new: StoredKey,
}

/// Makes a key with the name, owner, scopes and limits of another, which ends after the overlap. `None` if there is none
/// that could be rotated: it is not there, it has ended, or it was rotated before.
pub async fn rotate(
    client: &impl Statements,
    rotation: &Rotation<'_>,
    actor: Actor<'_>,
) -> Result<Option<Rotated>, DatabaseError> {
    let sql = format!(
        "WITH before AS (
            SELECT id, expires_at - created_at AS life FROM api_keys
            WHERE id = $1 AND revoked_at IS NULL AND replaced_by IS NULL AND coalesce(expires_at > now(), true)
            FOR UPDATE
        ), old AS (
            UPDATE api_keys k SET replaced_by = $2, expires_at = least(k.expires_at, now() + make_interval(secs => $3))
            FROM before WHERE k.id = before.id AND k.replaced_by IS NULL
            RETURNING k.*, before.life
        ), new AS (
            INSERT INTO api_keys (id, name, sha256, owner, scopes, limits, created_by, expires_at)
            SELECT $2, name, $4, owner, scopes, limits, $5, coalesce($6, now() + life) FROM old
            RETURNING *
        ), audited AS (
            INSERT INTO api_audit (id, actor, action, subject, detail)
            SELECT $7, $5, 'key.rotate', 'key_' || id,
                   jsonb_build_object('replaced_by', 'key_' || replaced_by, 'expires_at', expires_at, 'reason', $8::text)
            FROM old
        )
        SELECT {COLUMNS} FROM new k
        UNION ALL
        SELECT {COLUMNS} FROM old k"
    );
    let (hash, overlap, audit) = (rotation.sha256.as_slice(), rotation.overlap.as_secs_f64(), Uuid::now_v7());
    let params: [Param<'_>; 8] = [
        (&rotation.old.0, Type::UUID),
        (&rotation.id.0, Type::UUID),
        (&overlap, Type::FLOAT8),
        (&hash, Type::BYTEA),
        (&actor.name, Type::TEXT),
        (&rotation.expires_at, Type::TIMESTAMPTZ),
        (&audit, Type::UUID),
        (&actor.reason, Type::TEXT),
    ];
    let rows = client.query("api_keys.rotate", &sql, &params).await?;
    let [first, second] = rows.as_slice() else { return Ok(None) };
    let (first, second) = (key(first)?, key(second)?);
    let (new, old) = if first.id == rotation.id { (first, second) } else { (second, first) };
    Ok(Some(Rotated { old, new }))
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
        replaced_by: row.column::<Option<Uuid>>("replaced_by")?.map(KeyId),
        last_used_day: row.column("last_used_day")?,
    })
}
