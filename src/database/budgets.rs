//! Budgets, and the slices of them that processes hold.
//!
//! Every change of a slice locks the budget first, in the order of the primary key, and then the slice.

use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;
use uuid::Uuid;

use super::{Client, Columns, DatabaseError, Row, Statements, Type};
use crate::llm::spend::{BudgetKey, Micros, Scope};

/// What a process asks of one budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub budget: BudgetKey,
    /// As configured now; it replaces what the row has.
    pub limit: Micros,
    /// The smallest amount of use.
    pub least: Micros,
    /// What its turns need now. Zero when drawing ahead.
    pub need: Micros,
    /// How much it would like.
    pub slice: Micros,
}

/// What it got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    pub budget: BudgetKey,
    pub granted: Micros,
    /// The whole slice now.
    pub amount: Micros,
    /// What nobody holds and nobody spent, after this.
    pub free: Micros,
    /// Whether others may still give something back.
    pub others: Others,
}

/// What other living processes do with a budget that did not grant enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Others {
    /// None holds anything of it, or enough was granted.
    HoldNothing,
    /// What they hold is set aside by turns, or on its way back.
    GiveBack,
    /// One does not know yet that the budget is near its end, and keeps what it does not need.
    Unaware,
}

/// A slice as its holder reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub budget: BudgetKey,
    pub spent: Micros,
    pub scarce: bool,
}

/// How a reported budget stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub budget: BudgetKey,
    /// The holder's whole slice; `None` if it reported none or has none (any more).
    pub amount: Option<Micros>,
    pub limit: Micros,
    /// Spent by everybody, as last reported.
    pub spent: Micros,
    /// Others got less than they needed: give back what is not needed.
    pub wanted: bool,
}

/// Something given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Return {
    pub budget: BudgetKey,
    pub micros: Micros,
    pub scarce: bool,
}

/// Registers a process that spends.
pub async fn register(client: &impl Statements, holder: Uuid, lease: Duration) -> Result<(), DatabaseError> {
    const SQL: &str = "
        INSERT INTO instances (id, lease_until) VALUES ($1, now() + make_interval(secs => $2))
        ON CONFLICT (id) DO UPDATE SET seen_at = now(), lease_until = excluded.lease_until";
    let params = [(&holder as _, Type::UUID), (&lease.as_secs_f64() as _, Type::FLOAT8)];
    client.execute("budgets.register", SQL, &params).await.map(drop)
}

/// Draws from all budgets asked of, in one statement. A budget that had no row has one afterwards but is not in the
/// answer: draw again. Nothing is drawn for a process that is not registered (any more).
///
/// `aware_within`: a process that was silent for longer is not waited for.
pub async fn draw(
    client: &impl Statements,
    holder: Uuid,
    asks: &[Ask],
    aware_within: Duration,
) -> Result<Vec<Drawn>, DatabaseError> {
    const SQL: &str = "
        WITH wanted AS (
            SELECT * FROM unnest($2::text[], $3::text[], $4::date[], $5::int8[], $6::int8[], $7::int8[], $8::int8[])
                     AS ask (scope, subject, day, limit_micros, least_micros, need, slice)
            WHERE EXISTS (SELECT FROM instances WHERE id = $1)
        ), made AS (
            -- A budget begun in the middle of a day counts what was spent before it.
            INSERT INTO budgets (scope, subject, day, limit_micros, spent_micros)
            SELECT scope, subject, day, limit_micros,
                   (SELECT coalesce(sum(cost_micros), 0)::bigint FROM usage
                    WHERE usage.day = wanted.day AND usage.state = 'settled'
                      AND usage.id >= uuid_floor(wanted.day::timestamp AT TIME ZONE 'UTC' - interval '24 hours')
                      AND CASE scope WHEN 'owner' THEN usage.owner = subject
                                     WHEN 'key' THEN usage.api_key = subject
                                     ELSE true END)
            FROM wanted
            WHERE NOT EXISTS (SELECT FROM budgets
                              WHERE (budgets.scope, budgets.subject, budgets.day)
                                  = (wanted.scope, wanted.subject, wanted.day))
            ORDER BY scope, subject, day
            ON CONFLICT DO NOTHING
        ), locked AS (
            SELECT scope, subject, day, wanted.limit_micros, need, slice, spent_micros, held_micros,
                   budget_grant(wanted.limit_micros - spent_micros - held_micros, least_micros, need, slice) AS granted
            FROM wanted JOIN budgets USING (scope, subject, day)
            ORDER BY scope, subject, day
            FOR UPDATE OF budgets
        ), held AS (
            UPDATE budgets SET held_micros = budgets.held_micros + granted, limit_micros = locked.limit_micros,
                   wanted_at = CASE WHEN granted < need THEN now() ELSE wanted_at END
            FROM locked
            WHERE budgets.scope = locked.scope AND budgets.subject = locked.subject AND budgets.day = locked.day
        ), sliced AS (
            INSERT INTO budget_slices AS old (scope, subject, day, holder, amount_micros, scarce)
            SELECT scope, subject, day, $1, granted, limit_micros - spent_micros - held_micros - granted < slice
            FROM locked
            ON CONFLICT (scope, subject, day, holder)
            DO UPDATE SET amount_micros = old.amount_micros + excluded.amount_micros, scarce = excluded.scarce
            RETURNING scope, subject, day, amount_micros
        )
        SELECT locked.scope, locked.subject, locked.day, granted, sliced.amount_micros AS amount,
               limit_micros - spent_micros - held_micros - granted AS free,
               (SELECT bool_or(NOT other.scarce)
                FROM budget_slices other JOIN instances ON instances.id = other.holder
                WHERE granted < need
                  AND (other.scope, other.subject, other.day) = (locked.scope, locked.subject, locked.day)
                  AND other.holder <> $1 AND other.amount_micros > 0
                  AND instances.seen_at > now() - make_interval(secs => $9)) AS others_unaware
        FROM locked JOIN sliced USING (scope, subject, day)";
    let (scopes, subjects, days) = columns(asks.iter().map(|ask| &ask.budget));
    let numbers = |of: fn(&Ask) -> Micros| asks.iter().map(of).collect::<Vec<_>>();
    let [limits, least, needs, slices] =
        [numbers(|a| a.limit), numbers(|a| a.least), numbers(|a| a.need), numbers(|a| a.slice)];
    let params = [
        (&holder as _, Type::UUID),
        (&scopes as _, Type::TEXT_ARRAY),
        (&subjects as _, Type::TEXT_ARRAY),
        (&days as _, Type::DATE_ARRAY),
        (&limits as _, Type::INT8_ARRAY),
        (&least as _, Type::INT8_ARRAY),
        (&needs as _, Type::INT8_ARRAY),
        (&slices as _, Type::INT8_ARRAY),
        (&aware_within.as_secs_f64() as _, Type::FLOAT8),
    ];
    let rows = client.query("budgets.draw", SQL, &params).await?;
    let drawn = rows.iter().map(|row| {
        Ok(Drawn {
            budget: key(row)?,
            granted: row.column("granted")?,
            amount: row.column("amount")?,
            free: row.column("free")?,
            others: match row.column::<Option<bool>>("others_unaware")? {
                None => Others::HoldNothing,
                Some(false) => Others::GiveBack,
                Some(true) => Others::Unaware,
            },
        })
    });
    drawn.collect()
}

/// Gives parts of slices back, in one statement. What a later change overtook (`sequence`) changes nothing, so that a
/// statement whose answer was lost can be forgotten after the next one.
pub async fn give_back(
    client: &impl Statements,
    holder: Uuid,
    sequence: i64,
    returns: &[Return],
) -> Result<(), DatabaseError> {
    const SQL: &str = "
        WITH given AS (
            SELECT * FROM unnest($3::text[], $4::text[], $5::date[], $6::int8[], $7::bool[])
                     AS given (scope, subject, day, micros, scarce)
        ), locked AS (
            SELECT scope, subject, day, least(micros, amount_micros) AS micros, given.scarce
            FROM given
            JOIN budgets USING (scope, subject, day)
            JOIN budget_slices slices USING (scope, subject, day)
            WHERE slices.holder = $1 AND slices.sequence < $2
            ORDER BY scope, subject, day
            FOR UPDATE OF budgets FOR NO KEY UPDATE OF slices
        ), lessened AS (
            UPDATE budget_slices SET amount_micros = amount_micros - micros, scarce = locked.scarce, sequence = $2
            FROM locked
            WHERE budget_slices.scope = locked.scope AND budget_slices.subject = locked.subject
              AND budget_slices.day = locked.day AND budget_slices.holder = $1
        )
        UPDATE budgets SET held_micros = held_micros - micros
        FROM locked
        WHERE budgets.scope = locked.scope AND budgets.subject = locked.subject AND budgets.day = locked.day";
    let (scopes, subjects, days) = columns(returns.iter().map(|one| &one.budget));
    let micros: Vec<Micros> = returns.iter().map(|one| one.micros).collect();
    let scarce: Vec<bool> = returns.iter().map(|one| one.scarce).collect();
    let params = [
        (&holder as _, Type::UUID),
        (&sequence as _, Type::INT8),
        (&scopes as _, Type::TEXT_ARRAY),
        (&subjects as _, Type::TEXT_ARRAY),
        (&days as _, Type::DATE_ARRAY),
        (&micros as _, Type::INT8_ARRAY),
        (&scarce as _, Type::BOOL_ARRAY),
    ];
    client.execute("budgets.give_back", SQL, &params).await.map(drop)
}

/// Renews a process's lease and reports its slices, in one statement. Answers how the reported budgets stand, and
/// those whose end others are waiting for. `None`: the process was given up as dead; its slices are gone.
pub async fn heartbeat(
    client: &impl Statements,
    holder: Uuid,
    lease: Duration,
    sequence: i64,
    reports: &[Report],
) -> Result<Option<Vec<Standing>>, DatabaseError> {
    const SQL: &str = "
        WITH beat AS (
            UPDATE instances SET seen_at = now(), lease_until = now() + make_interval(secs => $2)
            WHERE id = $1 RETURNING id
        ), given AS (
            SELECT * FROM unnest($4::text[], $5::text[], $6::date[], $7::int8[], $8::bool[])
                     AS given (scope, subject, day, spent, scarce)
        ), reported AS (
            UPDATE budget_slices slices SET spent_micros = spent, scarce = given.scarce, sequence = $3
            FROM given
            WHERE slices.scope = given.scope AND slices.subject = given.subject AND slices.day = given.day
              AND slices.holder = $1
            -- As it is behind the lock, which a statement given up before may have held.
            RETURNING slices.scope, slices.subject, slices.day, slices.amount_micros
        ), told AS (
            SELECT scope, subject, day FROM given
            UNION
            SELECT scope, subject, day
            FROM budget_slices slices JOIN budgets USING (scope, subject, day)
            WHERE slices.holder = $1 AND NOT slices.scarce AND budgets.wanted_at > now() - interval '1 minute'
        )
        SELECT beat.id, told.scope, told.subject, told.day, reported.amount_micros AS amount, budgets.limit_micros AS limit,
               budgets.spent_micros + coalesce(given.spent, mine.spent_micros, 0)
                   + (SELECT coalesce(sum(other.spent_micros), 0)::bigint FROM budget_slices other
                      WHERE (other.scope, other.subject, other.day) = (told.scope, told.subject, told.day)
                        AND other.holder <> $1) AS spent,
               coalesce(budgets.wanted_at > now() - interval '1 minute', false) AS wanted
        FROM beat
        LEFT JOIN told ON true
        LEFT JOIN budgets USING (scope, subject, day)
        LEFT JOIN given USING (scope, subject, day)
        LEFT JOIN reported USING (scope, subject, day)
        LEFT JOIN budget_slices mine ON mine.scope = told.scope AND mine.subject = told.subject
             AND mine.day = told.day AND mine.holder = beat.id";
    let (scopes, subjects, days) = columns(reports.iter().map(|one| &one.budget));
    let spent: Vec<Micros> = reports.iter().map(|one| one.spent).collect();
    let scarce: Vec<bool> = reports.iter().map(|one| one.scarce).collect();
    let params = [
        (&holder as _, Type::UUID),
        (&lease.as_secs_f64() as _, Type::FLOAT8),
        (&sequence as _, Type::INT8),
        (&scopes as _, Type::TEXT_ARRAY),
        (&subjects as _, Type::TEXT_ARRAY),
        (&days as _, Type::DATE_ARRAY),
        (&spent as _, Type::INT8_ARRAY),
        (&scarce as _, Type::BOOL_ARRAY),
    ];
    let rows = client.query("budgets.heartbeat", SQL, &params).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut standings = Vec::with_capacity(rows.len());
    for row in &rows {
        // No limit: there is nothing to tell, or the budget's row is gone.
        if let Some(limit) = row.column::<Option<Micros>>("limit")? {
            standings.push(Standing {
                budget: key(row)?,
                amount: row.column("amount")?,
                limit,
                spent: row.column("spent")?,
                wanted: row.column("wanted")?,
            });
        }
    }
    Ok(Some(standings))
}

/// Of budgets that passed a share of their limit, in percent, those of which nobody has told that yet; from now on somebody
/// has.
pub async fn tell(
    client: &impl Statements,
    passed: &[(BudgetKey, u8)],
) -> Result<Vec<(BudgetKey, u8)>, DatabaseError> {
    const SQL: &str = "
        WITH fresh AS (
            SELECT scope, subject, day, percent
            FROM unnest($1::text[], $2::text[], $3::date[], $4::int2[]) AS passed (scope, subject, day, percent)
            JOIN budgets USING (scope, subject, day)
            WHERE told_percent < percent
            ORDER BY scope, subject, day
            FOR UPDATE OF budgets
        )
        UPDATE budgets SET told_percent = percent FROM fresh
        WHERE budgets.scope = fresh.scope AND budgets.subject = fresh.subject AND budgets.day = fresh.day
        RETURNING budgets.scope, budgets.subject, budgets.day";
    let (scopes, subjects, days) = columns(passed.iter().map(|(budget, _)| budget));
    let percent: Vec<i16> = passed.iter().map(|(_, percent)| i16::from(*percent)).collect();
    let params = [
        (&scopes as _, Type::TEXT_ARRAY),
        (&subjects as _, Type::TEXT_ARRAY),
        (&days as _, Type::DATE_ARRAY),
        (&percent as _, Type::INT2_ARRAY),
    ];
    let rows = client.query("budgets.tell", SQL, &params).await?;
    let told: Vec<BudgetKey> = rows.iter().map(key).collect::<Result<_, _>>()?;
    Ok(passed.iter().filter(|(budget, _)| told.contains(budget)).cloned().collect())
}

/// Closes the slices of some processes: what they carried counts as spent, the rest goes back. `before`: only those of
/// earlier days. Says how many there were.
///
/// Two statements, because the sum must be taken by a snapshot that comes after the locks: usage that a slice carries
/// is written under a share of the slice's lock.
pub async fn close(
    client: &impl Statements,
    holders: &[Uuid],
    before: Option<Date>,
) -> Result<usize, DatabaseError> {
    const LOCK: &str = "
        SELECT FROM budgets JOIN budget_slices slices USING (scope, subject, day)
        WHERE slices.holder = ANY($1) AND ($2::date IS NULL OR day < $2)
        ORDER BY scope, subject, day, slices.holder
        FOR UPDATE OF budgets FOR UPDATE OF slices";
    const CLOSE: &str = "
        WITH closing AS (
            SELECT scope, subject, day, holder, amount_micros, opened_at FROM budget_slices
            WHERE holder = ANY($1) AND ($2::date IS NULL OR day < $2)
        ), rows AS (
            SELECT holder, day, owner, api_key, cost_micros, settled_at FROM usage
            WHERE holder = ANY($1) AND state = 'settled' AND cost_micros > 0
              AND day IN (SELECT day FROM closing)
              AND id >= uuid_floor((SELECT min(day) FROM closing)::timestamp AT TIME ZONE 'UTC' - interval '24 hours')
        ), carried AS (
            SELECT scope, subject, day, holder, cost_micros
            FROM closing JOIN rows USING (day, holder)
            WHERE scope = 'owner' AND owner = subject AND settled_at >= opened_at
            UNION ALL
            SELECT scope, subject, day, holder, cost_micros
            FROM closing JOIN rows USING (day, holder)
            WHERE scope = 'key' AND api_key = subject AND settled_at >= opened_at
            UNION ALL
            SELECT scope, subject, day, holder, cost_micros
            FROM closing JOIN rows USING (day, holder)
            WHERE scope = 'total' AND settled_at >= opened_at
        ), gone AS (
            DELETE FROM budget_slices USING closing
            WHERE budget_slices.scope = closing.scope AND budget_slices.subject = closing.subject
              AND budget_slices.day = closing.day AND budget_slices.holder = closing.holder
        ), spent AS (
            SELECT scope, subject, day, sum(cost_micros)::bigint AS micros FROM carried GROUP BY scope, subject, day
        ), freed AS (
            SELECT scope, subject, day, sum(amount_micros)::bigint AS micros, count(*) AS slices
            FROM closing GROUP BY scope, subject, day
        ), closed AS (
            UPDATE budgets SET spent_micros = spent_micros + coalesce(spent.micros, 0),
                   held_micros = held_micros - freed.micros
            FROM freed LEFT JOIN spent USING (scope, subject, day)
            WHERE budgets.scope = freed.scope AND budgets.subject = freed.subject AND budgets.day = freed.day
            RETURNING slices
        )
        SELECT coalesce(sum(slices), 0)::bigint AS closed FROM closed";
    let params = [(&holders as _, Type::UUID_ARRAY), (&before as _, Type::DATE)];
    if client.query("budgets.lock_slices", LOCK, &params).await?.is_empty() {
        return Ok(0);
    }
    let row = client.query_one("budgets.close", CLOSE, &params).await?;
    row.column::<i64>("closed").map(|closed| usize::try_from(closed).unwrap_or_default())
}

/// Processes whose lease lapsed `grace` ago, and holders of slices that are no process's, at most `limit`. They stay
/// locked until the transaction ends; those that another sweep holds are passed over.
pub async fn dead(client: &impl Statements, grace: Duration, limit: i64) -> Result<Vec<Uuid>, DatabaseError> {
    const SQL: &str = "
        WITH lapsed AS (
            DELETE FROM instances WHERE id IN (
                SELECT id FROM instances WHERE lease_until < now() - make_interval(secs => $1)
                ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)
            RETURNING id
        )
        SELECT id FROM lapsed
        UNION
        (SELECT holder FROM budget_slices
         WHERE NOT EXISTS (SELECT FROM instances WHERE instances.id = holder) LIMIT $2)";
    let params = [(&grace.as_secs_f64() as _, Type::FLOAT8), (&limit as _, Type::INT8)];
    let rows = client.query("budgets.dead", SQL, &params).await?;
    rows.iter().map(|row| row.column("id")).collect()
}

/// Takes a process off the list, after its slices were closed.
pub async fn retire(client: &impl Statements, holder: Uuid) -> Result<(), DatabaseError> {
    const SQL: &str = "DELETE FROM instances WHERE id = $1";
    client.execute("budgets.retire", SQL, &[(&holder, Type::UUID)]).await.map(drop)
}

/// Closes a process's slices of days before this one, in a transaction of its own.
pub async fn close_past(client: &mut Client, holder: Uuid, today: Date) -> Result<usize, DatabaseError> {
    let transaction = client.transaction().await?;
    let closed = close(&transaction, &[holder], Some(today)).await?;
    transaction.commit().await?;
    Ok(closed)
}

type KeyColumns<'a> = (Vec<&'a str>, Vec<&'a str>, Vec<Date>);

fn columns<'a>(keys: impl Iterator<Item = &'a BudgetKey>) -> KeyColumns<'a> {
    let mut columns = KeyColumns::default();
    for key in keys {
        columns.0.push(key.scope.as_str());
        columns.1.push(&key.subject);
        columns.2.push(key.day);
    }
    columns
}

pub(super) fn key(row: &Row) -> Result<BudgetKey, DatabaseError> {
    let scope: &str = row.column("scope")?;
    let scope = Scope::parse(scope).ok_or_else(|| DatabaseError::Unexpected {
        statement: "budgets",
        reason: "a scope that this program does not know".to_owned(),
    })?;
    Ok(BudgetKey { scope, subject: Arc::from(row.column::<&str>("subject")?), day: row.column("day")? })
}
