//! Backfills: jobs that come of no event and change many rows, a batch a step, each step with its checkpoint.

use serde_json::Value;
use uuid::Uuid;

use super::audit::Actor;
use super::work::Lease;
use super::{Columns, DatabaseError, Statements, Type};
use crate::ids::{DeliveryId, JobId};

/// Begins a backfill, audited in the same statement. `false` if one of its kind is under way.
pub async fn begin(
    client: &impl Statements,
    id: JobId,
    kind: &str,
    actor: Actor<'_>,
) -> Result<bool, DatabaseError> {
    const SQL: &str = "
        WITH begun AS (
            INSERT INTO jobs (id, kind, run, route) VALUES ($1, $2, 1, 'backfill')
            ON CONFLICT (kind) WHERE event_id IS NULL AND state IN ('pending', 'leased') DO NOTHING
            RETURNING id
        )
        INSERT INTO api_audit (id, actor, action, subject, detail)
        SELECT $3, $4, 'backfill.begin', $5, jsonb_build_object('reason', $6) FROM begun";
    let (audit, subject) = (Uuid::now_v7(), id.to_string());
    let params = [
        (&id.0 as _, Type::UUID),
        (&kind as _, Type::TEXT),
        (&audit as _, Type::UUID),
        (&actor.name as _, Type::TEXT),
        (&subject as _, Type::TEXT),
        (&actor.reason as _, Type::TEXT),
    ];
    Ok(client.execute("backfills.begin", SQL, &params).await? == 1)
}

/// How far a backfill has come; `None` at its beginning.
pub async fn checkpoint(client: &impl Statements, id: Uuid) -> Result<Option<Value>, DatabaseError> {
    const SQL: &str = "SELECT checkpoint FROM jobs WHERE id = $1";
    client.query_one("backfills.checkpoint", SQL, &[(&id, Type::UUID)]).await?.column("checkpoint")
}

/// A step is done: the job is due again at once, from its checkpoint, with all its attempts. `false`: the lease is
/// lost.
pub async fn advance(
    client: &impl Statements,
    lease: Lease,
    checkpoint: &Value,
) -> Result<bool, DatabaseError> {
    const SQL: &str = "
        UPDATE jobs SET state = 'pending', lease_until = NULL, claim_id = NULL, attempts = 0, outages = 0,
               due_at = now(), hinted_at = now(), started_at = now(), checkpoint = $3
        WHERE id = $1 AND epoch = $2 AND state = 'leased'";
    let params =
        [(&lease.id as _, Type::UUID), (&lease.epoch as _, Type::INT8), (&checkpoint as _, Type::JSONB)];
    Ok(client.execute("backfills.advance", SQL, &params).await? == 1)
}

/// A delivery with encrypted secrets.
#[derive(Debug)]
pub struct SealedDelivery {
    pub id: DeliveryId,
    pub sealed: Value,
}

/// The next deliveries with encrypted secrets, oldest first.
pub async fn sealed_deliveries(
    client: &impl Statements,
    after: Option<DeliveryId>,
    limit: i64,
) -> Result<Vec<SealedDelivery>, DatabaseError> {
    const SQL: &str = "
        SELECT id, sealed FROM deliveries
        WHERE sealed IS NOT NULL AND ($1::uuid IS NULL OR id > $1)
        ORDER BY id LIMIT $2";
    let params = [(&after.map(|id| id.0) as _, Type::UUID), (&limit as _, Type::INT8)];
    let rows = client.query("backfills.sealed_deliveries", SQL, &params).await?;
    rows.iter()
        .map(|row| Ok(SealedDelivery { id: DeliveryId(row.column("id")?), sealed: row.column("sealed")? }))
        .collect()
}

/// Replaces encrypted secrets, if they are still what they were.
pub async fn reseal(
    client: &impl Statements,
    delivery: &SealedDelivery,
    sealed: &Value,
) -> Result<bool, DatabaseError> {
    const SQL: &str = "UPDATE deliveries SET sealed = $2 WHERE id = $1 AND sealed = $3";
    let params = [
        (&delivery.id.0 as _, Type::UUID),
        (&sealed as _, Type::JSONB),
        (&delivery.sealed as _, Type::JSONB),
    ];
    Ok(client.execute("backfills.reseal", SQL, &params).await? == 1)
}
