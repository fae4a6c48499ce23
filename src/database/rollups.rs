//! Usage of days that are over, as sums. Any number of processes may do this at once: a day is one process's at a time,
//! and summing it again gives the same.

use jiff::civil::Date;

use super::{Client, Columns, DatabaseError, Statements, Transaction, Type};

/// Days whose rows may still be on their way: they are summed again each hour, all others each day.
const FRESH_DAYS: i32 = 3;

/// A settled row of a day, by its id: an attempt begins on the day it is paid on, or the one after.
const OF_DAY: &str = "
    day = $1 AND state = 'settled'
    AND id >= uuid_floor($1::timestamp AT TIME ZONE 'UTC' - interval '1 day')
    AND id < uuid_floor($1::timestamp AT TIME ZONE 'UTC' + interval '3 days')";

const SUMS: &str = "
    owner, day, model, deployment, provider, api_key, count(*), count(DISTINCT coalesce(response_id, id)),
    sum(input_tokens), sum(cached_tokens), sum(cache_written_tokens), sum(output_tokens), sum(reasoning_tokens),
    sum(cost_micros), coalesce(sum(cost_micros) FILTER (WHERE estimated), 0), count(*) FILTER (WHERE estimated)";

const COLUMNS: &str = "
    owner, day, model, deployment, provider, api_key, attempts, turns, input_tokens, cached_tokens,
    cache_written_tokens, output_tokens, reasoning_tokens, cost_micros, estimated_cost_micros, estimated_attempts";

/// Sums the next day before `today` that is not summed yet. `None`: there is none, or somebody else does it now.
pub async fn roll_next(client: &mut Client, today: Date) -> Result<Option<Date>, DatabaseError> {
    // Without a gap, since a view takes everything up to the last day from here. A row may come of a day before the first.
    const NEXT: &str = "
        INSERT INTO usage_rollups (day, rolled_at)
        SELECT day, now() FROM (
            SELECT CASE WHEN EXISTS (
                       SELECT FROM usage
                       WHERE day < first AND id < uuid_floor(first::timestamp AT TIME ZONE 'UTC')) THEN first - 1
                   ELSE coalesce(last + 1, (SELECT min(day) FROM usage), $1 - 1) END AS day
            FROM (SELECT min(day) AS first, max(day) AS last FROM usage_rollups) known
        ) next
        WHERE day < $1
        ON CONFLICT (day) DO NOTHING
        RETURNING day";
    let transaction = client.transaction().await?;
    let row = transaction.query_opt("rollups.next", NEXT, &[(&today, Type::DATE)]).await?;
    let Some(row) = row else { return Ok(None) };
    let day = row.column("day")?;
    sum(&transaction, day).await?;
    transaction.commit().await?;
    Ok(Some(day))
}

/// Sums a day again whose last time was long ago: rows of it may have come late. `None`: all are fresh enough.
pub async fn roll_again(client: &mut Client, today: Date) -> Result<Option<Date>, DatabaseError> {
    const STALE: &str = "
        SELECT day FROM usage_rollups
        WHERE emptied_at IS NULL
          AND rolled_at < now() - CASE WHEN day >= $1 - $2 THEN interval '50 minutes' ELSE interval '1 day' END
        ORDER BY rolled_at LIMIT 1 FOR UPDATE SKIP LOCKED";
    let transaction = client.transaction().await?;
    let params = [(&today as _, Type::DATE), (&FRESH_DAYS as _, Type::INT4)];
    let row = transaction.query_opt("rollups.stale", STALE, &params).await?;
    let Some(row) = row else { return Ok(None) };
    let day: Date = row.column("day")?;
    sum(&transaction, day).await?;
    let done = "UPDATE usage_rollups SET rolled_at = now() WHERE day = $1 AND emptied_at IS NULL";
    transaction.execute("rollups.rolled", done, &[(&day, Type::DATE)]).await?;
    transaction.commit().await?;
    Ok(Some(day))
}

/// Replaces a day's sums by those of its rows. Two statements: what the first one deletes, the second one writes anew.
async fn sum(transaction: &Transaction<'_>, day: Date) -> Result<(), DatabaseError> {
    let params = [(&day as _, Type::DATE)];
    transaction.execute("rollups.forget", "DELETE FROM usage_days WHERE day = $1", &params).await?;
    let sql = format!(
        "INSERT INTO usage_days ({COLUMNS}) SELECT {SUMS} FROM usage WHERE {OF_DAY}
         GROUP BY owner, day, model, deployment, provider, api_key"
    );
    transaction.execute("rollups.sum", &sql, &params).await.map(drop)
}

/// Deletes some rows of the oldest day before `before`, whose sums stay. Gives how many rows went; none when there are no
/// more, or a day has to wait.
pub async fn empty(client: &mut Client, before: Date, limit: i64) -> Result<u64, DatabaseError> {
    const OLDEST: &str = "
        SELECT day FROM usage
        WHERE id < uuid_floor($1::timestamp AT TIME ZONE 'UTC') AND day < $1 AND state = 'settled'
        ORDER BY id LIMIT 1";
    let transaction = client.transaction().await?;
    let row = transaction.query_opt("rollups.oldest", OLDEST, &[(&before, Type::DATE)]).await?;
    let Some(row) = row else { return Ok(0) };
    let day: Date = row.column("day")?;
    if !may_be_emptied(&transaction, day).await? {
        return Ok(0);
    }
    // A row that was settled after its day was summed for the last time is added.
    let sql = format!(
        "WITH gone AS (
            DELETE FROM usage WHERE id IN (
                SELECT id FROM usage
                WHERE day = $1 AND state = 'settled' AND id < uuid_floor($3::timestamp AT TIME ZONE 'UTC')
                ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)
            RETURNING *
        ), late AS (
            INSERT INTO usage_days AS sums ({COLUMNS})
            SELECT {SUMS} FROM gone
            WHERE settled_at > (SELECT emptied_at FROM usage_rollups WHERE day = $1)
            GROUP BY owner, day, model, deployment, provider, api_key
            ON CONFLICT (owner, day, model, deployment, provider, api_key) DO UPDATE SET
                attempts = sums.attempts + excluded.attempts, turns = sums.turns + excluded.turns,
                input_tokens = sums.input_tokens + excluded.input_tokens,
                cached_tokens = sums.cached_tokens + excluded.cached_tokens,
                cache_written_tokens = sums.cache_written_tokens + excluded.cache_written_tokens,
                output_tokens = sums.output_tokens + excluded.output_tokens,
                reasoning_tokens = sums.reasoning_tokens + excluded.reasoning_tokens,
                cost_micros = sums.cost_micros + excluded.cost_micros,
                estimated_cost_micros = sums.estimated_cost_micros + excluded.estimated_cost_micros,
                estimated_attempts = sums.estimated_attempts + excluded.estimated_attempts
        )
        SELECT count(*) AS gone FROM gone"
    );
    let params = [(&day as _, Type::DATE), (&limit as _, Type::INT8), (&before as _, Type::DATE)];
    let gone: i64 = transaction.query_one("rollups.empty", &sql, &params).await?.column("gone")?;
    transaction.commit().await?;
    Ok(gone.unsigned_abs())
}

/// Whether a day's rows may go: they are summed for the last time now, or were. Not while one was settled a moment ago,
/// since a commit may be under way that this transaction does not see.
async fn may_be_emptied(transaction: &Transaction<'_>, day: Date) -> Result<bool, DatabaseError> {
    const STATE: &str =
        "SELECT emptied_at IS NOT NULL AS emptied FROM usage_rollups WHERE day = $1 FOR UPDATE";
    let params = [(&day as _, Type::DATE)];
    let row = transaction.query_opt("rollups.state", STATE, &params).await?;
    // Not summed yet: that comes first.
    let Some(row) = row else { return Ok(false) };
    if row.column("emptied")? {
        return Ok(true);
    }
    let sql = format!(
        "SELECT EXISTS (SELECT FROM usage WHERE {OF_DAY} AND settled_at > now() - interval '10 minutes') AS busy"
    );
    if transaction.query_one("rollups.busy", &sql, &params).await?.column("busy")? {
        return Ok(false);
    }
    sum(transaction, day).await?;
    let done = "UPDATE usage_rollups SET rolled_at = now(), emptied_at = now() WHERE day = $1 AND emptied_at IS NULL";
    transaction.execute("rollups.emptied", done, &params).await?;
    Ok(true)
}

/// Deletes budgets of days before `before` of which nobody holds a slice any more. Gives how many went.
pub async fn delete_budgets(
    client: &impl Statements,
    before: Date,
    limit: i64,
) -> Result<u64, DatabaseError> {
    const SQL: &str = "
        DELETE FROM budgets USING (
            SELECT scope, subject, day FROM budgets b
            WHERE day < $1 AND held_micros = 0
              AND NOT EXISTS (SELECT FROM budget_slices s
                              WHERE (s.scope, s.subject, s.day) = (b.scope, b.subject, b.day))
            ORDER BY day LIMIT $2 FOR UPDATE SKIP LOCKED
        ) AS old
        WHERE (budgets.scope, budgets.subject, budgets.day) = (old.scope, old.subject, old.day)";
    client
        .execute("rollups.delete_budgets", SQL, &[(&before as _, Type::DATE), (&limit as _, Type::INT8)])
        .await
}
