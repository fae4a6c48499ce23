//! What was spent and how the budgets stand: the views behind `GET /v1/usage` and every chart.

use jiff::civil::Date;

use super::budgets::key;
use super::responses::{Page, paged};
use super::{Columns, DatabaseError, Row, Statements, Type};
use crate::llm::spend::{BudgetKey, Micros, Scope};

/// Most rows that one answer has.
const MOST: u32 = 10_000;
/// Most budgets that one answer has.
pub const MOST_BUDGETS: u32 = 1_000;

/// A day of one owner, model, deployment and key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct UsageDay {
    pub owner: String,
    pub day: Date,
    pub model: String,
    pub deployment: String,
    pub provider: String,
    pub api_key: Option<String>,
    pub attempts: i64,
    pub turns: i64,
    pub input_tokens: i64,
    pub cached_tokens: i64,
    pub cache_written_tokens: i64,
    pub output_tokens: i64,
    pub reasoning_tokens: i64,
    pub cost_micros: Micros,
    /// The part of the cost that nobody but us counted.
    pub estimated_cost_micros: Micros,
    pub estimated_attempts: i64,
}

/// Whose usage of which days, both included. What is left out is everybody's.
#[derive(Clone, Copy, Debug)]
pub struct UsageFilter<'a> {
    pub owner: Option<&'a str>,
    /// The name of a key, or its id.
    pub api_key: Option<&'a str>,
    pub model: Option<&'a str>,
    pub from: Date,
    pub to: Date,
}

/// Usage by day, newest first. Of what is too much for one answer the oldest days are left out.
pub async fn by_day(
    client: &impl Statements,
    filter: &UsageFilter<'_>,
) -> Result<Page<UsageDay>, DatabaseError> {
    // Two statements instead of an OR: the owner's must find its index.
    let owned = if filter.owner.is_some() { "owner = $1" } else { "$1::text IS NULL" };
    let sql = format!(
        "SELECT * FROM usage_by_day
         WHERE {owned} AND day BETWEEN $2 AND $3
           AND ($4::text IS NULL OR api_key = $4) AND ($5::text IS NULL OR model = $5)
         ORDER BY day DESC, owner, model, deployment, api_key LIMIT $6"
    );
    let params = [
        (&filter.owner as _, Type::TEXT),
        (&filter.from as _, Type::DATE),
        (&filter.to as _, Type::DATE),
        (&filter.api_key as _, Type::TEXT),
        (&filter.model as _, Type::TEXT),
        (&(i64::from(MOST) + 1) as _, Type::INT8),
    ];
    let rows = client.query("spending.by_day", &sql, &params).await?;
    let days = rows.iter().map(|row| {
        Ok(UsageDay {
            owner: row.column("owner")?,
            day: row.column("day")?,
            model: row.column("model")?,
            deployment: row.column("deployment")?,
            provider: row.column("provider")?,
            api_key: row.column("api_key")?,
            attempts: row.column("attempts")?,
            turns: row.column("turns")?,
            input_tokens: row.column("input_tokens")?,
            cached_tokens: row.column("cached_tokens")?,
            cache_written_tokens: row.column("cache_written_tokens")?,
            output_tokens: row.column("output_tokens")?,
            reasoning_tokens: row.column("reasoning_tokens")?,
            cost_micros: row.column("cost_micros")?,
            estimated_cost_micros: row.column("estimated_cost_micros")?,
            estimated_attempts: row.column("estimated_attempts")?,
        })
    });
    Ok(paged(days.collect::<Result<_, DatabaseError>>()?, MOST))
}

/// How one budget stands, for `GET /v1/usage`, the console and operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetStatus {
    pub budget: BudgetKey,
    pub limit: Micros,
    pub spent: Micros,
    pub held: Micros,
    pub free: Micros,
}

/// The budgets of a day of an owner, and of a key of theirs.
pub async fn budgets(
    client: &impl Statements,
    day: Date,
    owner: &str,
    api_key: Option<&str>,
) -> Result<Vec<BudgetStatus>, DatabaseError> {
    const SQL: &str = "
        SELECT scope, subject, day, limit_micros, spent_micros, held_micros, free_micros FROM budget_status
        WHERE day = $1 AND ((scope = 'owner' AND subject = $2) OR (scope = 'key' AND subject = $3))
        ORDER BY scope DESC";
    let params = [(&day as _, Type::DATE), (&owner as _, Type::TEXT), (&api_key as _, Type::TEXT)];
    let rows = client.query("spending.budgets", SQL, &params).await?;
    rows.iter().map(status).collect()
}

/// Which budgets of a day. What is left out matches all.
#[derive(Clone, Copy, Debug, Default)]
pub struct BudgetFilter<'a> {
    pub scope: Option<Scope>,
    pub subject: Option<&'a str>,
}

/// Everybody's budgets of a day, for operators: the total, those of owners, those of keys, each by name. At most
/// [`MOST_BUDGETS`].
pub async fn standing(
    client: &impl Statements,
    day: Date,
    filter: BudgetFilter<'_>,
    after: Option<(Scope, &str)>,
    limit: u32,
) -> Result<Page<BudgetStatus>, DatabaseError> {
    const SQL: &str = "
        SELECT scope, subject, day, limit_micros, spent_micros, held_micros, free_micros
        FROM budget_status CROSS JOIN LATERAL array_position(ARRAY['total', 'owner', 'key'], scope) AS rank
        WHERE day = $1 AND ($2::text IS NULL OR scope = $2) AND ($3::text IS NULL OR subject = $3)
          AND ($4::text IS NULL
               OR (rank, subject) > (array_position(ARRAY['total', 'owner', 'key'], $4), $5::text))
        ORDER BY rank, subject LIMIT $6";
    let limit = limit.min(MOST_BUDGETS);
    let scope = filter.scope.map(Scope::as_str);
    let (after_scope, after_subject) = after.map(|(scope, subject)| (scope.as_str(), subject)).unzip();
    let params = [
        (&day as _, Type::DATE),
        (&scope as _, Type::TEXT),
        (&filter.subject as _, Type::TEXT),
        (&after_scope as _, Type::TEXT),
        (&after_subject as _, Type::TEXT),
        (&(i64::from(limit) + 1) as _, Type::INT8),
    ];
    let rows = client.query("spending.standing", SQL, &params).await?;
    Ok(paged(rows.iter().map(status).collect::<Result<_, _>>()?, limit))
}

fn status(row: &Row) -> Result<BudgetStatus, DatabaseError> {
    Ok(BudgetStatus {
        budget: key(row)?,
        limit: row.column("limit_micros")?,
        spent: row.column("spent_micros")?,
        held: row.column("held_micros")?,
        free: row.column("free_micros")?,
    })
}
