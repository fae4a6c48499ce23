//! Secrets that have to be replaced: what the vault told, which of a source's secrets its deliveries still prove themselves
//! by, and when that is over.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::audit::Actor;
use super::{Columns, DatabaseError, Row, Statements, Type};
use crate::ids::RotationId;

/// What a vault tells of one version of a secret.
#[derive(Clone, Copy, Debug)]
pub struct Announced<'a> {
    pub vault: &'a str,
    pub secret: &'a str,
    pub version: &'a str,
    pub expires_at: Option<Timestamp>,
    /// The source whose deliveries it proves and its label there, if it is one of those.
    pub source: Option<&'a str>,
    pub label: Option<&'a str>,
    /// It has expired; else it will.
    pub expired: bool,
}

/// Opens a rotation, or adds what is new to the one of this version. Announced again, it stays as it is; one that is closed
/// opens again when its secret has expired and a delivery proved itself by it since. Says whether it was opened.
pub async fn announce(client: &impl Statements, told: &Announced<'_>) -> Result<bool, DatabaseError> {
    const SQL: &str = "
        INSERT INTO rotations AS old (id, vault, secret, secret_version, expires_at, source, label, expired_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, CASE WHEN $8 THEN now() END)
        ON CONFLICT (vault, secret, secret_version) DO UPDATE SET
            expires_at = coalesce(excluded.expires_at, old.expires_at),
            expired_at = coalesce(old.expired_at, excluded.expired_at)
        WHERE old.state = 'open'
        RETURNING id";
    let id = Uuid::now_v7();
    let params = [
        (&id as _, Type::UUID),
        (&told.vault as _, Type::TEXT),
        (&told.secret as _, Type::TEXT),
        (&told.version as _, Type::TEXT),
        (&told.expires_at as _, Type::TIMESTAMPTZ),
        (&told.source as _, Type::TEXT),
        (&told.label as _, Type::TEXT),
        (&told.expired as _, Type::BOOL),
    ];
    let row = client.query_opt("rotations.announce", SQL, &params).await?;
    match row {
        Some(row) => Ok(row.column::<Uuid>("id")? == id),
        None if told.expired => reopen(client, told).await,
        None => Ok(false),
    }
}

/// Opens a closed rotation again whose secret deliveries still use.
async fn reopen(client: &impl Statements, told: &Announced<'_>) -> Result<bool, DatabaseError> {
    const SQL: &str = "
        UPDATE rotations r SET state = 'open', closed_at = NULL, outcome = NULL, expired_at = coalesce(r.expired_at, now())
        WHERE r.vault = $1 AND r.secret = $2 AND r.secret_version = $3 AND r.state = 'closed'
          AND EXISTS (SELECT FROM deliveries d
                      WHERE d.source = r.source AND d.secret_label = r.label
                        AND d.id >= uuid_floor(r.closed_at) AND d.received_at > r.closed_at)";
    let params =
        [(&told.vault as _, Type::TEXT), (&told.secret as _, Type::TEXT), (&told.version as _, Type::TEXT)];
    Ok(client.execute("rotations.reopen", SQL, &params).await? == 1)
}

/// Notes that a secret has another version now. Gives how many rotations of older ones heard of it for the first time.
pub async fn renewed(
    client: &impl Statements,
    vault: &str,
    secret: &str,
    version: &str,
) -> Result<u64, DatabaseError> {
    const SQL: &str = "
        UPDATE rotations SET renewed_at = now()
        WHERE vault = $1 AND secret = $2 AND secret_version <> $3 AND state = 'open' AND renewed_at IS NULL";
    let params = [(&vault as _, Type::TEXT), (&secret as _, Type::TEXT), (&version as _, Type::TEXT)];
    client.execute("rotations.renewed", SQL, &params).await
}

/// Closes rotations whose old secret nobody uses any more: since the last delivery that it proved, others have been proved
/// by a new secret for `alone`. Of a secret that no delivery shows, its new version is that old. Each has an audit row of
/// the same statement. Any number may do this.
///
/// A label that deliveries had in the 30 days before the rotation was opened is not new: senders of one source may each
/// have a secret, and one of another says nothing of this one.
pub async fn close_done(
    client: &impl Statements,
    alone: Duration,
    limit: i64,
) -> Result<Vec<Rotation>, DatabaseError> {
    // The labels before are an aggregate, so that they are looked up once for a rotation, not for each delivery.
    let sql = format!(
        "WITH done AS (
            SELECT r.id, CASE WHEN r.source IS NULL THEN 'new-version' ELSE 'new-secret-alone' END AS outcome
            FROM rotations r
            CROSS JOIN LATERAL (
                SELECT coalesce(array_agg(DISTINCT p.secret_label) FILTER (WHERE p.secret_label IS NOT NULL), '{{}}')
                       || r.label AS labels
                FROM deliveries p
                WHERE p.source = r.source AND p.id >= uuid_floor(r.opened_at - interval '30 days')
                  AND p.id < uuid_floor(r.opened_at)
            ) AS known
            WHERE r.state = 'open' AND now() - make_interval(secs => $1) >= CASE
                WHEN r.source IS NULL THEN r.renewed_at
                ELSE (SELECT min(d.received_at) FROM deliveries d
                      WHERE d.source = r.source AND d.id >= uuid_floor(r.opened_at)
                        AND d.secret_label <> ALL (known.labels)
                        AND d.received_at > coalesce(
                            (SELECT max(o.received_at) FROM deliveries o
                             WHERE o.source = r.source AND o.id >= uuid_floor(r.opened_at) AND o.secret_label = r.label),
                            r.opened_at)) END
            ORDER BY r.id LIMIT $2 FOR UPDATE OF r SKIP LOCKED
        ), closed AS (
            UPDATE rotations SET state = 'closed', closed_at = now(), outcome = done.outcome
            FROM done WHERE rotations.id = done.id AND rotations.state = 'open'
            RETURNING {}
        ), audited AS (
            INSERT INTO api_audit (id, actor, action, subject, detail)
            SELECT ($3::uuid[])[row_number() OVER (ORDER BY id)], 'maintain', 'rotation.close', 'rot_' || id,
                   jsonb_build_object('outcome', outcome)
            FROM closed
        )
        SELECT * FROM closed ORDER BY id",
        columns("rotations")
    );
    let audits: Vec<Uuid> = (0..limit).map(|_| Uuid::now_v7()).collect();
    let params = [
        (&alone.as_secs_f64() as _, Type::FLOAT8),
        (&limit as _, Type::INT8),
        (&audits as _, Type::UUID_ARRAY),
    ];
    client.query("rotations.close_done", &sql, &params).await?.iter().map(rotation).collect()
}

/// Closes a rotation by hand, with an audit row in the same statement. `false`: it is closed already, or there is none.
pub async fn close(
    client: &impl Statements,
    id: RotationId,
    actor: Actor<'_>,
) -> Result<bool, DatabaseError> {
    const SQL: &str = "
        WITH closed AS (
            UPDATE rotations SET state = 'closed', closed_at = now(), outcome = 'by-hand'
            WHERE id = $1 AND state = 'open' RETURNING id
        )
        INSERT INTO api_audit (id, actor, action, subject, detail)
        SELECT $2, $3, 'rotation.close', 'rot_' || closed.id, jsonb_build_object('reason', $4) FROM closed";
    let audit = Uuid::now_v7();
    let params = [
        (&id.0 as _, Type::UUID),
        (&audit as _, Type::UUID),
        (&actor.name as _, Type::TEXT),
        (&actor.reason as _, Type::TEXT),
    ];
    Ok(client.execute("rotations.close", SQL, &params).await? == 1)
}

/// A rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rotation {
    pub id: RotationId,
    pub vault: String,
    pub secret: String,
    pub secret_version: String,
    pub expires_at: Option<Timestamp>,
    pub source: Option<String>,
    pub label: Option<String>,
    /// `open`, `closed`.
    pub state: String,
    pub opened_at: Timestamp,
    pub expired_at: Option<Timestamp>,
    pub renewed_at: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
    pub outcome: Option<String>,
}

fn columns(table: &str) -> String {
    let names = [
        "id",
        "vault",
        "secret",
        "secret_version",
        "expires_at",
        "source",
        "label",
        "state",
        "opened_at",
        "expired_at",
        "renewed_at",
        "closed_at",
        "outcome",
    ];
    names.map(|name| format!("{table}.{name}")).join(", ")
}

fn rotation(row: &Row) -> Result<Rotation, DatabaseError> {
    Ok(Rotation {
        id: RotationId(row.column("id")?),
        vault: row.column("vault")?,
        secret: row.column("secret")?,
        secret_version: row.column("secret_version")?,
        expires_at: row.column("expires_at")?,
        source: row.column("source")?,
        label: row.column("label")?,
        state: row.column("state")?,
        opened_at: row.column("opened_at")?,
        expired_at: row.column("expired_at")?,
        renewed_at: row.column("renewed_at")?,
        closed_at: row.column("closed_at")?,
        outcome: row.column("outcome")?,
    })
}

/// Rotations, the latest first: the open ones, or all.
pub async fn list(client: &impl Statements, all: bool, limit: i64) -> Result<Vec<Rotation>, DatabaseError> {
    let sql = format!(
        "SELECT {} FROM rotations WHERE $1 OR state = 'open' ORDER BY id DESC LIMIT $2",
        columns("rotations")
    );
    let params = [(&all as _, Type::BOOL), (&limit as _, Type::INT8)];
    client.query("rotations.list", &sql, &params).await?.iter().map(rotation).collect()
}

/// One rotation.
pub async fn get(client: &impl Statements, id: RotationId) -> Result<Option<Rotation>, DatabaseError> {
    let sql = format!("SELECT {} FROM rotations WHERE id = $1", columns("rotations"));
    let row = client.query_opt("rotations.get", &sql, &[(&id.0, Type::UUID)]).await?;
    row.as_ref().map(rotation).transpose()
}

/// Which secret deliveries of a source proved themselves by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LabelUse {
    pub source: String,
    pub label: String,
    pub deliveries: i64,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
}

/// The labels of deliveries that came since an instant, by source (`None`: all) and when each was last seen.
pub async fn labels(
    client: &impl Statements,
    source: Option<&str>,
    since: Timestamp,
) -> Result<Vec<LabelUse>, DatabaseError> {
    const SQL: &str = "
        SELECT source, secret_label, count(*) AS deliveries, min(received_at) AS first_at, max(received_at) AS last_at
        FROM deliveries
        WHERE id >= uuid_floor($2) AND ($1::text IS NULL OR source = $1) AND secret_label IS NOT NULL
        GROUP BY source, secret_label ORDER BY source, last_at DESC";
    let params = [(&source as _, Type::TEXT), (&since as _, Type::TIMESTAMPTZ)];
    let rows = client.query("rotations.labels", SQL, &params).await?;
    rows.iter()
        .map(|row| {
            Ok(LabelUse {
                source: row.column("source")?,
                label: row.column("secret_label")?,
                deliveries: row.column("deliveries")?,
                first_at: row.column("first_at")?,
                last_at: row.column("last_at")?,
            })
        })
        .collect()
}

/// How many rotations are open: of secrets that will expire, and of those that have.
pub async fn open(client: &impl Statements) -> Result<(i64, i64), DatabaseError> {
    const SQL: &str = "
        SELECT count(*) FILTER (WHERE NOT over) AS near, count(*) FILTER (WHERE over) AS over
        FROM (SELECT expired_at IS NOT NULL OR coalesce(expires_at <= now(), false) AS over
              FROM rotations WHERE state = 'open') AS open";
    let row = client.query_one("rotations.open", SQL, &[]).await?;
    Ok((row.column("near")?, row.column("over")?))
}
