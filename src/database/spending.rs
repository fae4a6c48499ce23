//! What was spent and how the budgets stand: the views behind `GET /v1/usage` and every chart.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::civil::{Date, date};

use super::budgets::key;
use super::responses::{Order, Page, PageOf, paged};
use super::{Columns, DatabaseError, Row, Statements, Type};
use crate::llm::spend::{BudgetKey, Micros, Scope};

/// Most rows of usage that one answer has.
pub const MOST_DAYS: u32 = 10_000;
/// Nothing was used before, and the database does not know every day that can be written.
pub const FIRST_DAY: Date = date(1970, 1, 1);
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

impl UsageDay {
    /// Where a list goes on behind this row.
    pub fn cursor(&self) -> UsageCursor {
        UsageCursor(
            self.day,
            self.owner.clone(),
            self.model.clone(),
            self.deployment.clone(),
            self.provider.clone(),
            self.api_key.clone(),
        )
    }
}

/// A place in a list of usage: day, owner, model, deployment, provider and key, which name a row. What is used meanwhile
/// moves no other row across it. As text it is opaque.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UsageCursor(Date, String, String, String, String, Option<String>);

impl fmt::Display for UsageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(json))
    }
}

impl FromStr for UsageCursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let json = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(drop)?;
        let cursor: Self = serde_json::from_slice(&json).map_err(drop)?;
        let Self(day, owner, model, deployment, provider, api_key) = &cursor;
        let names = || [owner, model, deployment, provider].into_iter().chain(api_key);
        let known = *day >= FIRST_DAY && !names().any(|name| name.contains(char::is_control));
        if known { Ok(cursor) } else { Err(()) }
    }
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

/// Usage by day, in the page's order, within a day by name. At most [`MOST_DAYS`].
pub async fn by_day(
    client: &impl Statements,
    filter: &UsageFilter<'_>,
    page: PageOf<&UsageCursor>,
) -> Result<Page<UsageDay>, DatabaseError> {
    let (beyond, direction) = match page.order {
        Order::Ascending => (">", "ASC"),
        Order::Descending => ("<", "DESC"),
    };
    // Two statements instead of an OR: the owner's must find its index.
    let owned = if filter.owner.is_some() { "owner = $1" } else { "$1::text IS NULL" };
    let sql = format!(
        "SELECT * FROM usage_by_day
         WHERE {owned} AND day BETWEEN $2 AND $3
           AND ($4::text IS NULL OR api_key = $4) AND ($5::text IS NULL OR model = $5)
           AND ($6::date IS NULL OR day {beyond} $6
                OR (day = $6 AND (owner, model, deployment, provider, api_key IS NULL, coalesce(api_key, ''))
                    > ($7::text, $8::text, $9::text, $10::text, $11::text IS NULL, coalesce($11, ''))))
         ORDER BY day {direction}, owner, model, deployment, provider, api_key IS NULL, coalesce(api_key, '')
         LIMIT $12"
    );
    let UsageFilter { mut from, mut to, .. } = *filter;
    // The days before the cursor's are neither read nor summed again.
    match (page.after, page.order) {
        (Some(after), Order::Ascending) => from = from.max(after.0),
        (Some(after), Order::Descending) => to = to.min(after.0),
        (None, _) => {}
    }
    let limit = page.limit.min(MOST_DAYS);
    let after_day = page.after.map(|after| after.0);
    let name = |of: fn(&UsageCursor) -> &str| page.after.map(of);
    let [owner, model, deployment, provider] =
        [name(|after| &after.1), name(|after| &after.2), name(|after| &after.3), name(|after| &after.4)];
    let api_key = page.after.and_then(|after| after.5.as_deref());
    let params = [
        (&filter.owner as _, Type::TEXT),
        (&from as _, Type::DATE),
        (&to as _, Type::DATE),
        (&filter.api_key as _, Type::TEXT),
        (&filter.model as _, Type::TEXT),
        (&after_day as _, Type::DATE),
        (&owner as _, Type::TEXT),
        (&model as _, Type::TEXT),
        (&deployment as _, Type::TEXT),
        (&provider as _, Type::TEXT),
        (&api_key as _, Type::TEXT),
        (&(i64::from(limit) + 1) as _, Type::INT8),
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
    Ok(paged(days.collect::<Result<_, DatabaseError>>()?, limit))
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
