//! Rows of usage: opened before an attempt is paid, settled once.
//!
//! A settled row's cost reaches the budgets in one of two ways. While the holder has a slice of every budget that
//! applies, the slices carry it, and closing them sums it up ([`super::budgets::close`]); so settling writes to no row
//! that others write to. Else it is added to the budgets at once, and the row's holder becomes null.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use jiff::Timestamp;
use jiff::civil::Date;
use uuid::Uuid;

use super::{Columns, DatabaseError, Param, Row, Statements, Type};
use crate::llm::TokenUsage;
use crate::llm::spend::{Attempt, Micros, Reason, Settlement};

/// Rows as columns, for `unnest`.
#[derive(Default)]
struct Attempts<'a> {
    ids: Vec<Uuid>,
    responses: Vec<Option<Uuid>>,
    owners: Vec<&'a str>,
    keys: Vec<Option<&'a str>>,
    models: Vec<&'a str>,
    deployments: Vec<&'a str>,
    providers: Vec<&'a str>,
    reserved: Vec<Micros>,
    holders: Vec<Option<Uuid>>,
    days: Vec<Date>,
    started: Vec<Timestamp>,
}

impl<'a> Attempts<'a> {
    fn of(attempts: impl Iterator<Item = &'a Attempt>) -> Self {
        let mut columns = Self::default();
        for attempt in attempts {
            columns.ids.push(attempt.id);
            columns.responses.push(attempt.response);
            columns.owners.push(&attempt.owner);
            columns.keys.push(attempt.key.as_deref());
            columns.models.push(&attempt.model);
            columns.deployments.push(&attempt.deployment);
            columns.providers.push(&attempt.provider);
            columns.reserved.push(attempt.reserved);
            columns.holders.push(attempt.holder);
            columns.days.push(attempt.day);
            columns.started.push(attempt.started_at);
        }
        columns
    }

    /// $1 to $11.
    fn params(&self) -> Vec<Param<'_>> {
        vec![
            (&self.ids, Type::UUID_ARRAY),
            (&self.responses, Type::UUID_ARRAY),
            (&self.owners, Type::TEXT_ARRAY),
            (&self.keys, Type::TEXT_ARRAY),
            (&self.models, Type::TEXT_ARRAY),
            (&self.deployments, Type::TEXT_ARRAY),
            (&self.providers, Type::TEXT_ARRAY),
            (&self.reserved, Type::INT8_ARRAY),
            (&self.holders, Type::UUID_ARRAY),
            (&self.days, Type::DATE_ARRAY),
            (&self.started, Type::TIMESTAMPTZ_ARRAY),
        ]
    }
}

/// Opens rows. Those that are there already stay as they are. One statement.
pub async fn open(client: &impl Statements, attempts: &[Attempt]) -> Result<u64, DatabaseError> {
    const SQL: &str = "
        INSERT INTO usage (id, response_id, owner, api_key, model, deployment, provider, reserved_micros, holder, day,
                           created_at, state)
        SELECT *, 'open' FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[],
                                     $7::text[], $8::int8[], $9::uuid[], $10::date[], $11::timestamptz[])
        ON CONFLICT (id) DO NOTHING";
    if attempts.is_empty() {
        return Ok(0);
    }
    client.execute("usage.open", SQL, &Attempts::of(attempts.iter()).params()).await
}

/// Settles attempts, opened or not, and says how many were not settled before. One statement; settling again changes
/// nothing, except that a row settled as crashed gives way to whoever knows better.
///
/// `budgeted`: whether budgets may apply. Without, the statement is a plain upsert.
pub async fn settle(
    client: &impl Statements,
    settlements: &[Settlement],
    budgeted: bool,
) -> Result<u64, DatabaseError> {
    let rows = Settled::of(settlements);
    if rows.is_empty() {
        return Ok(0);
    }
    let sql = format!("WITH {} SELECT count(*) AS written FROM written", settling(1, budgeted, "true"));
    client
        .query_one("usage.settle", &sql, &rows.params())
        .await?
        .column::<i64>("written")
        .map(i64::unsigned_abs)
}

/// Settlements as columns, for the `unnest` of [`settling`].
pub(super) struct Settled<'a> {
    attempts: Attempts<'a>,
    reasons: Vec<&'a str>,
    /// Input, cached, cache written, output, reasoning.
    tokens: [Vec<i64>; 5],
    costs: Vec<Micros>,
    estimated: Vec<bool>,
    raw: Vec<Option<&'a serde_json::Value>>,
}

impl<'a> Settled<'a> {
    pub fn of(settlements: &'a [Settlement]) -> Self {
        let once = each_once(settlements);
        let tokens = |of: fn(&TokenUsage) -> u64| -> Vec<i64> {
            once.iter().map(|one| i64::try_from(of(&one.usage)).unwrap_or(i64::MAX)).collect()
        };
        Self {
            attempts: Attempts::of(once.iter().map(|settlement| &settlement.attempt)),
            reasons: once.iter().map(|one| one.reason.as_str()).collect(),
            tokens: [
                tokens(|u| u.input),
                tokens(|u| u.cached),
                tokens(|u| u.cache_written),
                tokens(|u| u.output),
                tokens(|u| u.reasoning),
            ],
            costs: once.iter().map(|one| one.cost.max(0)).collect(),
            estimated: once.iter().map(|one| one.estimated).collect(),
            raw: once.iter().map(|one| one.raw.as_ref()).collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }

    /// As many as [`TYPES`], in their order.
    pub fn params(&self) -> Vec<Param<'_>> {
        let mut params = self.attempts.params();
        params.push((&self.reasons, Type::TEXT_ARRAY));
        params.extend(self.tokens.iter().map(|tokens| (tokens as _, Type::INT8_ARRAY)));
        params.extend::<[Param<'_>; 3]>([
            (&self.costs, Type::INT8_ARRAY),
            (&self.estimated, Type::BOOL_ARRAY),
            (&self.raw, Type::JSON_ARRAY),
        ]);
        params
    }
}

/// One settlement of each attempt, since no statement writes a row twice: the first, or one that knows better.
fn each_once(settlements: &[Settlement]) -> Vec<&Settlement> {
    let mut at = HashMap::with_capacity(settlements.len());
    let mut once: Vec<&Settlement> = Vec::with_capacity(settlements.len());
    for settlement in settlements {
        match at.entry(settlement.attempt.id) {
            Entry::Vacant(entry) => {
                entry.insert(once.len());
                once.push(settlement);
            }
            Entry::Occupied(entry) => {
                let known = &mut once[*entry.get()];
                if known.reason == Reason::Crashed {
                    *known = settlement;
                }
            }
        }
    }
    once
}

/// Of the parameters of a settlement.
const TYPES: [&str; 20] = [
    "uuid",
    "uuid",
    "text",
    "text",
    "text",
    "text",
    "text",
    "int8",
    "uuid",
    "date",
    "timestamptz",
    "text",
    "int8",
    "int8",
    "int8",
    "int8",
    "int8",
    "int8",
    "bool",
    "json",
];

/// The common table expressions that settle, the last of them `written`, with parameters from `$first` on. They change
/// and lock nothing unless `condition` holds, which may refer to expressions before them.
///
/// Settled at the clock's time, not the transaction's beginning: it is compared with the time at which a slice was opened.
pub(super) fn settling(first: usize, budgeted: bool, condition: &str) -> String {
    let arrays: Vec<String> = (first..).zip(TYPES).map(|(nth, kind)| format!("${nth}::{kind}[]")).collect();
    let arrays = arrays.join(", ");
    let given = format!(
        "given AS (
            SELECT * FROM unnest({arrays})
            AS row (id, response_id, owner, api_key, model, deployment, provider, reserved_micros, holder, day,
                    created_at, reason, input_tokens, cached_tokens, cache_written_tokens, output_tokens,
                    reasoning_tokens, cost_micros, estimated, raw)
            WHERE {condition}
        )"
    );
    if !budgeted {
        return format!("{given}, {}", written("holder", "given"));
    }
    let written = written("CASE WHEN id NOT IN (SELECT id FROM uncarried) THEN holder END", "fresh");
    format!(
        "{given}, known AS (
            SELECT id, state, reason, cost_micros, holder FROM usage
            WHERE id = ANY(${first}) AND {condition}
            ORDER BY id FOR UPDATE
        ), fresh AS (
            SELECT given.*, CASE known.state WHEN 'settled' THEN known.cost_micros ELSE 0 END AS counted,
                   -- Its cost is in the budgets already; a slice that carried it too would count it twice.
                   coalesce(known.state = 'settled' AND known.holder IS NULL, false) AS direct
            FROM given LEFT JOIN known ON known.id = given.id
            WHERE known.id IS NULL OR known.state = 'open'
               OR (known.reason = 'crashed' AND given.reason <> 'crashed')
        ), carrying AS (
            SELECT fresh.id, slices.scope
            FROM fresh
            CROSS JOIN LATERAL (VALUES ('owner', fresh.owner), ('key', fresh.api_key), ('total', ''))
                AS of (scope, subject)
            JOIN budget_slices slices ON slices.scope = of.scope AND slices.subject = of.subject
                 AND slices.day = fresh.day AND slices.holder = fresh.holder AND NOT fresh.direct
            FOR KEY SHARE OF slices
        ), due AS (
            SELECT fresh.id, budgets.scope, budgets.subject, budgets.day, fresh.cost_micros - fresh.counted AS cost,
                   carrying.id IS NOT NULL AS carried
            FROM fresh
            CROSS JOIN LATERAL (VALUES ('owner', fresh.owner), ('key', fresh.api_key), ('total', ''))
                AS of (scope, subject)
            JOIN budgets ON budgets.scope = of.scope AND budgets.subject = of.subject AND budgets.day = fresh.day
            LEFT JOIN carrying ON carrying.id = fresh.id AND carrying.scope = budgets.scope
        ), uncarried AS (
            SELECT DISTINCT id FROM due WHERE NOT carried
        ), {written}, paid AS (
            UPDATE budgets SET spent_micros = budgets.spent_micros + added.cost
            FROM (SELECT due.scope, due.subject, due.day, sum(due.cost)::bigint AS cost
                  FROM due JOIN uncarried ON uncarried.id = due.id JOIN written ON written.id = due.id
                  GROUP BY due.scope, due.subject, due.day) AS added
            WHERE budgets.scope = added.scope AND budgets.subject = added.subject AND budgets.day = added.day
        )"
    )
}

/// `holder` is the row's holder, `from` where the rows come from.
fn written(holder: &str, from: &str) -> String {
    format!(
        "written AS (
            INSERT INTO usage AS old (
                id, response_id, owner, api_key, model, deployment, provider, reserved_micros, holder, day,
                created_at, reason, input_tokens, cached_tokens, cache_written_tokens, output_tokens,
                reasoning_tokens, cost_micros, estimated, raw, state, settled_at)
            SELECT id, response_id, owner, api_key, model, deployment, provider, reserved_micros, {holder}, day,
                created_at, reason, input_tokens, cached_tokens, cache_written_tokens, output_tokens,
                reasoning_tokens, cost_micros, estimated, raw, 'settled', clock_timestamp()
            FROM {from}
            ON CONFLICT (id) DO UPDATE SET
                holder = excluded.holder, deployment = excluded.deployment, provider = excluded.provider,
                reason = excluded.reason, input_tokens = excluded.input_tokens,
                cached_tokens = excluded.cached_tokens, cache_written_tokens = excluded.cache_written_tokens,
                output_tokens = excluded.output_tokens, reasoning_tokens = excluded.reasoning_tokens,
                cost_micros = excluded.cost_micros, estimated = excluded.estimated, raw = excluded.raw,
                state = 'settled', settled_at = excluded.settled_at
            WHERE old.state = 'open' OR (old.reason = 'crashed' AND excluded.reason <> 'crashed')
            RETURNING id
        )"
    )
}

/// Open rows of processes that are no more, as settlements of what was set aside for them.
pub async fn abandoned(
    client: &impl Statements,
    holders: &[Uuid],
    limit: i64,
) -> Result<Vec<Settlement>, DatabaseError> {
    const SQL: &str = "
        SELECT id, response_id, owner, api_key, model, deployment, provider, reserved_micros, holder, day, created_at
        FROM usage WHERE holder = ANY($1) AND state = 'open'
        ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED";
    let params = [(&holders as _, Type::UUID_ARRAY), (&limit as _, Type::INT8)];
    let rows = client.query("usage.abandoned", SQL, &params).await?;
    rows.iter().map(crashed).collect()
}

/// Open rows of a turn whose process fell silent, likewise.
pub async fn abandoned_of(
    client: &impl Statements,
    response: Uuid,
) -> Result<Vec<Settlement>, DatabaseError> {
    const SQL: &str = "
        SELECT id, response_id, owner, api_key, model, deployment, provider, reserved_micros, holder, day, created_at
        FROM usage WHERE response_id = $1 AND state = 'open' ORDER BY id";
    let rows = client.query("usage.abandoned_of", SQL, &[(&response, Type::UUID)]).await?;
    rows.iter().map(crashed).collect()
}

fn crashed(row: &Row) -> Result<Settlement, DatabaseError> {
    let text = |name| row.column::<&str>(name).map(std::sync::Arc::from);
    let reserved = row.column("reserved_micros")?;
    let attempt = Attempt {
        id: row.column("id")?,
        response: row.column("response_id")?,
        owner: text("owner")?,
        key: row.column::<Option<&str>>("api_key")?.map(std::sync::Arc::from),
        model: text("model")?,
        deployment: text("deployment")?,
        provider: text("provider")?,
        reserved,
        holder: row.column("holder")?,
        day: row.column("day")?,
        started_at: row.column("created_at")?,
    };
    let usage = TokenUsage::default();
    Ok(Settlement { attempt, reason: Reason::Crashed, usage, cost: reserved, estimated: true, raw: None })
}

/// Makes the partitions of this month and the next. A server that runs for weeks calls it daily.
pub async fn ensure_partitions(client: &impl Statements) -> Result<(), DatabaseError> {
    const SQL: &str = "
        SELECT ensure_month_partition('usage', at)
        FROM unnest(ARRAY[now(), date_trunc('month', now(), 'UTC') + interval '32 days']) AS at";
    client.query("usage.ensure_partitions", SQL, &[]).await.map(drop)
}
