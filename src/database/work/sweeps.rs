//! What upkeep does with rows of work.

use std::time::Duration;

use uuid::Uuid;

use super::{Held, seconds, table};
use crate::database::{Columns, DatabaseError, Row, Statements, Type};
use crate::jobs::state::WorkKind;

/// Frees leases whose time has run out, oldest first, and gives the rows freed. Any number of sweeps may run.
///
/// Only call this after having reached the database without a break for one lease time: while it was away nobody
/// could renew.
pub async fn free_lapsed(
    client: &impl Statements,
    kind: WorkKind,
    limit: i64,
) -> Result<Vec<Uuid>, DatabaseError> {
    let sql = format!(
        "WITH lapsed AS (
            SELECT id FROM {table} WHERE state = 'leased' AND lease_until < now()
            ORDER BY lease_until LIMIT $1 FOR UPDATE SKIP LOCKED
        )
        UPDATE {table} SET state = 'pending', lease_until = NULL, due_at = now(), hinted_at = now()
        FROM lapsed WHERE {table}.id = lapsed.id AND {table}.state = 'leased'
        RETURNING {table}.id",
        table = table(kind)
    );
    ids(client.query("work.free_lapsed", &sql, &[(&limit, Type::INT8)]).await?)
}

/// Rows that are due, unheld, unleased and whose last hint is older than `unheard_for`: marked as hinted now, and given.
pub async fn due_without_hint(
    client: &impl Statements,
    kind: WorkKind,
    unheard_for: Duration,
    held: Held<'_>,
    limit: i64,
) -> Result<Vec<Uuid>, DatabaseError> {
    let (object, target_enabled) = match kind {
        WorkKind::Job => ("kind", ""),
        WorkKind::Callback => (
            "target",
            "AND NOT EXISTS (SELECT 1 FROM callback_targets WHERE name = callbacks.target AND disabled_at IS NOT NULL)",
        ),
    };
    let sql = format!(
        "WITH unheard AS (
            SELECT id FROM {table}
            WHERE state = 'pending' AND greatest(due_at, hinted_at) < now() - make_interval(secs => $1)
              AND due_at < now() {target_enabled}
              AND NOT ($3 OR route = ANY($4) OR {object} = ANY($5))
            ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
        )
        UPDATE {table} SET hinted_at = now()
        FROM unheard WHERE {table}.id = unheard.id AND {table}.state = 'pending'
        RETURNING {table}.id",
        table = table(kind)
    );
    let params = [
        (&seconds(unheard_for) as _, Type::FLOAT8),
        (&limit as _, Type::INT8),
        (&held.all as _, Type::BOOL),
        (&held.routes as _, Type::TEXT_ARRAY),
        (&held.objects as _, Type::TEXT_ARRAY),
    ];
    ids(client.query("work.due_without_hint", &sql, &params).await?)
}

/// Counts the age of jobs that an operator holds anew once it is over `age`: being held is nobody's failure, and must
/// not make them too old. Gives how many.
pub async fn keep_young(
    client: &impl Statements,
    routes: &[String],
    age: Duration,
    limit: i64,
) -> Result<u64, DatabaseError> {
    if routes.is_empty() {
        return Ok(0);
    }
    const SQL: &str = "
        WITH old AS (
            SELECT id FROM jobs
            WHERE state = 'pending' AND route = ANY($1) AND started_at < now() - make_interval(secs => $2)
            LIMIT $3 FOR UPDATE SKIP LOCKED
        )
        UPDATE jobs SET started_at = now() FROM old WHERE jobs.id = old.id AND jobs.state = 'pending'";
    let params =
        [(&routes as _, Type::TEXT_ARRAY), (&seconds(age) as _, Type::FLOAT8), (&limit as _, Type::INT8)];
    client.execute("work.keep_young", SQL, &params).await
}

fn ids(rows: Vec<Row>) -> Result<Vec<Uuid>, DatabaseError> {
    rows.iter().map(|row| row.column("id")).collect()
}
