//! What only callbacks have: the log of attempts, and targets that can be disabled.

use uuid::Uuid;

use super::audit::Actor;
use super::work::Lease;
use super::{Columns, DatabaseError, Statements, Type};

/// One try at a consumer.
#[derive(Debug)]
pub struct Attempt<'a> {
    pub number: i32,
    pub millis: i32,
    /// The HTTP status, if an answer came.
    pub status: Option<i32>,
    /// Why it did not count as delivered.
    pub error_code: Option<&'a str>,
    /// The beginning of the answer.
    pub response: Option<&'a str>,
}

/// Logs an attempt. Written under the lease's epoch, so that writing it twice is writing it once.
pub async fn log_attempt(
    client: &impl Statements,
    lease: Lease,
    attempt: &Attempt<'_>,
) -> Result<(), DatabaseError> {
    const SQL: &str = "
        INSERT INTO callback_attempts (callback_id, epoch, attempt, millis, status, error_code, response)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (callback_id, epoch) DO NOTHING";
    client
        .execute(
            "callbacks.log_attempt",
            SQL,
            &[
                (&lease.id, Type::UUID),
                (&lease.epoch, Type::INT8),
                (&attempt.number, Type::INT4),
                (&attempt.millis, Type::INT4),
                (&attempt.status, Type::INT4),
                (&attempt.error_code, Type::TEXT),
                (&attempt.response, Type::TEXT),
            ],
        )
        .await?;
    Ok(())
}

/// Disables a target: its callbacks wait until somebody enables it. Says whether it was enabled before.
pub async fn disable_target(
    client: &impl Statements,
    name: &str,
    reason: &str,
) -> Result<bool, DatabaseError> {
    const SQL: &str = "
        INSERT INTO callback_targets AS target (name, disabled_at, reason) VALUES ($1, now(), $2)
        ON CONFLICT (name) DO UPDATE SET disabled_at = now(), reason = excluded.reason
            WHERE target.disabled_at IS NULL";
    let params = [(&name as _, Type::TEXT), (&reason as _, Type::TEXT)];
    Ok(client.execute("callbacks.disable_target", SQL, &params).await? == 1)
}

/// Enables a target again. Its waiting callbacks are due at once; the next sweep hints at them. Says whether it was
/// disabled before; if so that is audited in the same statement.
pub async fn enable_target(
    client: &impl Statements,
    name: &str,
    actor: Actor<'_>,
) -> Result<bool, DatabaseError> {
    const SQL: &str = "
        WITH enabled AS (
            UPDATE callback_targets SET disabled_at = NULL, reason = NULL
            WHERE name = $1 AND disabled_at IS NOT NULL
            RETURNING name
        )
        INSERT INTO api_audit (id, actor, action, subject, detail)
        SELECT $2, $3, 'callback_target.enable', name, jsonb_build_object('reason', $4) FROM enabled";
    let audit = Uuid::now_v7();
    let params = [
        (&name as _, Type::TEXT),
        (&audit as _, Type::UUID),
        (&actor.name as _, Type::TEXT),
        (&actor.reason as _, Type::TEXT),
    ];
    Ok(client.execute("callbacks.enable_target", SQL, &params).await? == 1)
}

/// The disabled targets, and why.
pub async fn disabled_targets(
    client: &impl Statements,
) -> Result<Vec<(String, jiff::Timestamp, String)>, DatabaseError> {
    const SQL: &str = "
        SELECT name, disabled_at, coalesce(reason, '') AS reason FROM callback_targets
        WHERE disabled_at IS NOT NULL ORDER BY name";
    let rows = client.query("callbacks.disabled_targets", SQL, &[]).await?;
    rows.iter()
        .map(|row| Ok((row.column("name")?, row.column("disabled_at")?, row.column("reason")?)))
        .collect()
}
