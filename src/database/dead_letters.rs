//! Settling dead letters: replayed or discarded, once each, with an audit row in the same transaction.

use jiff::Timestamp;
use uuid::Uuid;

pub use super::audit::Actor;
use super::inspect::{DEAD_LETTERS_THAT_MATCH, DeadLetterFilter, dead_letter_params};
use super::{Columns, DatabaseError, Statements, Type};
use crate::ids::DeadLetterId;
use crate::jobs::state::WorkKind;

/// A row that is back at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    pub letter: DeadLetterId,
    pub kind: WorkKind,
    pub id: Uuid,
    pub due_at: Timestamp,
}

/// Puts dead jobs and callbacks back to work with all their attempts, and marks their open letters as replayed: the
/// oldest first, at most `limit`. They are due one after the other, `rate` a second, so that what they ask of others
/// does not come at once; that stands in their rows, and nobody has to stay to keep the pace. Gives what went back, in
/// the order in which it is due; what was settled already or whose row is gone is not among it.
///
/// A backfill goes back only if it is named: of its kind one may be under way.
pub async fn replay(
    client: &impl Statements,
    filter: &DeadLetterFilter,
    limit: u32,
    rate: u32,
    actor: Actor<'_>,
) -> Result<Vec<Replayed>, DatabaseError> {
    let sql = format!(
        "WITH letter AS (
            SELECT letters.id, letters.kind, letters.subject_id FROM dead_letters AS letters
            WHERE {DEAD_LETTERS_THAT_MATCH} AND letters.state = 'open'
              AND (letters.kind = 'job'
                   AND EXISTS (SELECT 1 FROM jobs WHERE jobs.id = letters.subject_id AND jobs.state = 'dead'
                                 AND (jobs.event_id IS NOT NULL OR $1::uuid IS NOT NULL))
                   OR letters.kind = 'callback'
                   AND EXISTS (SELECT 1 FROM callbacks
                               WHERE callbacks.id = letters.subject_id AND callbacks.state = 'dead'))
            ORDER BY letters.id LIMIT $10 FOR UPDATE SKIP LOCKED
        ), numbered AS (
            SELECT letter.*, row_number() OVER (ORDER BY id) AS number FROM letter
        ), jobs_back AS ({jobs}), callbacks_back AS ({callbacks}), back AS (
            SELECT 'job' AS kind, * FROM jobs_back UNION ALL SELECT 'callback', * FROM callbacks_back
        ), settled AS (
            UPDATE dead_letters SET state = 'replayed', resolved_at = now(), resolution = $13
            FROM back WHERE dead_letters.id = back.letter AND dead_letters.state = 'open'
        ), audited AS (
            INSERT INTO api_audit (id, actor, action, subject, detail)
            SELECT ($12::uuid[])[back.number], $14, 'dead_letter.replay', 'dl_' || back.letter,
                   jsonb_build_object('reason', $13)
            FROM back
        )
        SELECT letter, kind, id, due_at FROM back ORDER BY number",
        jobs = put_back(WorkKind::Job),
        callbacks = put_back(WorkKind::Callback),
    );
    let id = filter.id.map(|id| id.0);
    let limit = i64::from(limit);
    let pause = 1.0 / f64::from(rate.max(1));
    let audits: Vec<Uuid> = (0..limit).map(|_| Uuid::now_v7()).collect();
    let mut params = dead_letter_params(filter, &id);
    params.extend([
        (&limit as _, Type::INT8),
        (&pause as _, Type::FLOAT8),
        (&audits as _, Type::UUID_ARRAY),
        (&actor.reason as _, Type::TEXT),
        (&actor.name as _, Type::TEXT),
    ]);
    let rows = client.query("dead_letters.replay", &sql, &params).await?;
    rows.iter()
        .map(|row| {
            let kind: String = row.column("kind")?;
            Ok(Replayed {
                letter: DeadLetterId(row.column("letter")?),
                kind: if kind == WorkKind::Job.as_str() { WorkKind::Job } else { WorkKind::Callback },
                id: row.column("id")?,
                due_at: row.column("due_at")?,
            })
        })
        .collect()
}

/// What puts the rows of one table back that `numbered` names.
fn put_back(kind: WorkKind) -> String {
    let table = match kind {
        WorkKind::Job => "jobs",
        WorkKind::Callback => "callbacks",
    };
    format!(
        "UPDATE {table} SET state = 'pending', claim_id = NULL, attempts = 0, outages = 0,
                due_at = now() + make_interval(secs => $11 * (numbered.number - 1)),
                started_at = now() + make_interval(secs => $11 * (numbered.number - 1)),
                hinted_at = now(), finished_at = NULL
         FROM numbered
         WHERE numbered.kind = '{kind}' AND {table}.id = numbered.subject_id AND {table}.state = 'dead'
         RETURNING numbered.id AS letter, numbered.number, {table}.id, {table}.due_at"
    )
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
        SELECT $4, $5, CASE $2 WHEN 'replayed' THEN 'dead_letter.replay' ELSE 'dead_letter.' || $2 END,
               'dl_' || settled.id, jsonb_build_object('reason', $3) FROM settled";
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

/// Counts that a letter's message is about to be put back. `false`: it was settled already.
///
/// A message can be put on its queue and its letter be settled in no one step. Counted before and settled after, a replay
/// that is cut in between leaves the letter open, to be replayed again, and the row says how many messages of it there may
/// be; the second has no second effect.
pub async fn count_put(client: &impl Statements, letter: DeadLetterId) -> Result<bool, DatabaseError> {
    const SQL: &str = "UPDATE dead_letters SET puts = puts + 1 WHERE id = $1 AND state = 'open'";
    Ok(client.execute("dead_letters.count_put", SQL, &[(&letter.0, Type::UUID)]).await? == 1)
}

/// Discards the open letters that match, the oldest first, at most `limit`. Gives which.
pub async fn discard(
    client: &impl Statements,
    filter: &DeadLetterFilter,
    limit: u32,
    actor: Actor<'_>,
) -> Result<Vec<DeadLetterId>, DatabaseError> {
    let sql = format!(
        "WITH letter AS (
            SELECT letters.id FROM dead_letters AS letters
            WHERE {DEAD_LETTERS_THAT_MATCH} AND letters.state = 'open'
            ORDER BY letters.id LIMIT $10 FOR UPDATE SKIP LOCKED
        ), numbered AS (
            SELECT id, row_number() OVER (ORDER BY id) AS number FROM letter
        ), settled AS (
            UPDATE dead_letters SET state = 'discarded', resolved_at = now(), resolution = $12
            FROM numbered WHERE dead_letters.id = numbered.id AND dead_letters.state = 'open'
            RETURNING dead_letters.id, numbered.number
        ), audited AS (
            INSERT INTO api_audit (id, actor, action, subject, detail)
            SELECT ($11::uuid[])[number], $13, 'dead_letter.discarded', 'dl_' || id, jsonb_build_object('reason', $12)
            FROM settled
        )
        SELECT id FROM settled ORDER BY number"
    );
    let id = filter.id.map(|id| id.0);
    let limit = i64::from(limit);
    let audits: Vec<Uuid> = (0..limit).map(|_| Uuid::now_v7()).collect();
    let mut params = dead_letter_params(filter, &id);
    params.extend([
        (&limit as _, Type::INT8),
        (&audits as _, Type::UUID_ARRAY),
        (&actor.reason as _, Type::TEXT),
        (&actor.name as _, Type::TEXT),
    ]);
    let rows = client.query("dead_letters.discard", &sql, &params).await?;
    rows.iter().map(|row| Ok(DeadLetterId(row.column("id")?))).collect()
}

/// How many open letters match, by kind and code, the most first.
pub async fn count(
    client: &impl Statements,
    filter: &DeadLetterFilter,
) -> Result<Vec<(String, String, i64)>, DatabaseError> {
    let sql = format!(
        "SELECT letters.kind, letters.reason_code, count(*) AS letters FROM dead_letters AS letters
         WHERE {DEAD_LETTERS_THAT_MATCH} AND letters.state = 'open'
         GROUP BY letters.kind, letters.reason_code ORDER BY letters DESC, letters.kind, letters.reason_code"
    );
    let id = filter.id.map(|id| id.0);
    let rows = client.query("dead_letters.count", &sql, &dead_letter_params(filter, &id)).await?;
    rows.iter()
        .map(|row| Ok((row.column("kind")?, row.column("reason_code")?, row.column("letters")?)))
        .collect()
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
