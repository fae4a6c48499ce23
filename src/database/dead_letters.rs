//! Settling dead letters: replayed or discarded, once each, with an audit row in the same transaction.

use uuid::Uuid;

pub use super::audit::Actor;
use super::{Columns, DatabaseError, Statements, Type};
use crate::ids::DeadLetterId;
use crate::jobs::state::WorkKind;

/// Puts a dead job or callback back to work with all its attempts, and marks its letter as replayed. Gives the row's
/// id; `None` if the letter is settled already or its row is gone.
pub async fn replay(
    client: &impl Statements,
    kind: WorkKind,
    letter: DeadLetterId,
    actor: Actor<'_>,
) -> Result<Option<Uuid>, DatabaseError> {
    let table = match kind {
        WorkKind::Job => "jobs",
        WorkKind::Callback => "callbacks",
    };
    let sql = format!(
        "WITH letter AS (
            SELECT dead_letters.id, subject_id FROM dead_letters
            JOIN {table} ON {table}.id = subject_id AND {table}.state = 'dead'
            WHERE dead_letters.id = $1 AND dead_letters.state = 'open' AND dead_letters.kind = '{kind}'
            FOR UPDATE
        ), settled AS (
            UPDATE dead_letters SET state = 'replayed', resolved_at = now(), resolution = $2
            FROM letter WHERE dead_letters.id = letter.id AND dead_letters.state = 'open'
        ), audited AS (
            INSERT INTO api_audit (id, actor, action, subject, detail)
            SELECT $3, $4, 'dead_letter.replay', 'dl_' || letter.id, jsonb_build_object('reason', $2) FROM letter
        )
        UPDATE {table} SET state = 'pending', claim_id = NULL, attempts = 0, outages = 0, due_at = now(),
               started_at = now(), hinted_at = now(), finished_at = NULL
        FROM letter WHERE {table}.id = letter.subject_id AND {table}.state = 'dead'
        RETURNING {table}.id"
    );
    let audit = Uuid::now_v7();
    let row = client
        .query_opt(
            "dead_letters.replay",
            &sql,
            &[
                (&letter.0, Type::UUID),
                (&actor.reason, Type::TEXT),
                (&audit, Type::UUID),
                (&actor.name, Type::TEXT),
            ],
        )
        .await?;
    row.map(|row| row.column("id")).transpose()
}

/// Marks a letter as settled without touching work: a discarded one, or a message that is back on its queue. `false`
/// if it was settled already.
pub async fn settle(
    client: &impl Statements,
    letter: DeadLetterId,
    state: crate::jobs::state::DeadLetterState,
    actor: Actor<'_>,
) -> Result<bool, DatabaseError> {
    const SQL: &str = "
        WITH settled AS (
            UPDATE dead_letters SET state = $2, resolved_at = now(), resolution = $3
            WHERE id = $1 AND state = 'open'
            RETURNING id
        )
        INSERT INTO api_audit (id, actor, action, subject, detail)
        SELECT $4, $5, 'dead_letter.' || $2, 'dl_' || settled.id, jsonb_build_object('reason', $3) FROM settled";
    let audit = Uuid::now_v7();
    let state = state.as_str();
    let changed = client
        .execute(
            "dead_letters.settle",
            SQL,
            &[
                (&letter.0, Type::UUID),
                (&state, Type::TEXT),
                (&actor.reason, Type::TEXT),
                (&audit, Type::UUID),
                (&actor.name, Type::TEXT),
            ],
        )
        .await?;
    Ok(changed == 1)
}

/// Writes an audit row by itself, for changes outside the database.
pub async fn audit(
    client: &impl Statements,
    actor: Actor<'_>,
    action: &str,
    subject: &str,
) -> Result<(), DatabaseError> {
    const SQL: &str = "INSERT INTO api_audit (id, actor, action, subject, detail)
                       VALUES ($1, $2, $3, $4, jsonb_build_object('reason', $5))";
    let id = Uuid::now_v7();
    client
        .execute(
            "audit.write",
            SQL,
            &[
                (&id, Type::UUID),
                (&actor.name, Type::TEXT),
                (&action, Type::TEXT),
                (&subject, Type::TEXT),
                (&actor.reason, Type::TEXT),
            ],
        )
        .await?;
    Ok(())
}
