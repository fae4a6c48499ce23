//! What was spent and how the budgets stand: the views behind `GET /v1/usage` and every chart.

use jiff::civil::Date;

use super::budgets::key;
use super::{Columns, DatabaseError, Statements, Type};
use crate::llm::spend::{BudgetKey, Micros};

/// Most rows that one answer has.
const MOST: i64 = 10_000;

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

/// Usage of the days from `from` to `to`, both included, newest first: an owner's, or everybody's (for operators).
pub async fn by_day(
    client: &impl Statements,
    owner: Option<&str>,
    from: Date,
    to: Date,
) -> Result<Vec<UsageDay>, DatabaseError> {
    // Two statements instead of an OR: the owner's must find its index.
    const OF_OWNER: &str = "
        SELECT * FROM usage_by_day WHERE owner = $1 AND day BETWEEN $2 AND $3
        ORDER BY day DESC, owner, model, deployment, api_key LIMIT $4";
    const OF_ALL: &str = "
        SELECT * FROM usage_by_day WHERE $1::text IS NULL AND day BETWEEN $2 AND $3
        ORDER BY day DESC, owner, model, deployment, api_key LIMIT $4";
    let sql = if owner.is_some() { OF_OWNER } else { OF_ALL };
    let params = [
        (&owner as _, Type::TEXT),
        (&from as _, Type::DATE),
        (&to as _, Type::DATE),
        (&MOST as _, Type::INT8),
    ];
    let rows = client.query("spending.by_day", sql, &params).await?;
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
    days.collect()
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

/// The budgets of a day: that of an owner and of a key of theirs, or all (for operators). Owners see no total.
pub async fn budgets(
    client: &impl Statements,
    day: Date,
    owner: Option<&str>,
    api_key: Option<&str>,
) -> Result<Vec<BudgetStatus>, DatabaseError> {
    const SQL: &str = "
        SELECT scope, subject, day, limit_micros, spent_micros, held_micros, free_micros FROM budget_status
        WHERE day = $1 AND ($2::text IS NULL OR (scope = 'owner' AND subject = $2) OR (scope = 'key' AND subject = $3))
        ORDER BY scope, subject LIMIT 1000";
    let params = [(&day as _, Type::DATE), (&owner as _, Type::TEXT), (&api_key as _, Type::TEXT)];
    let rows = client.query("spending.budgets", SQL, &params).await?;
    let status = rows.iter().map(|row| {
        Ok(BudgetStatus {
            budget: key(row)?,
            limit: row.column("limit_micros")?,
            spent: row.column("spent_micros")?,
            held: row.column("held_micros")?,
            free: row.column("free_micros")?,
        })
    });
    status.collect()
}
