//! `budgets list` and `usage`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use colloquy::commands::output::{self, Output, or_empty};
use colloquy::config::app::BudgetsConfig;
use colloquy::database::responses::{Order, PageOf};
use colloquy::database::spending::{self, BudgetFilter, MOST_BUDGETS, MOST_DAYS, UsageFilter};
use colloquy::llm::spend::{Scope, today};
use jiff::ToSpan;
use jiff::civil::Date;
use serde_json::json;

use super::Operator;

#[derive(Subcommand)]
pub enum Budgets {
    /// How a day's budgets stand: those that were drawn from. Limits are in colloquy.toml, and of keys `keys show`.
    List(List),
}

#[derive(Args)]
pub struct List {
    /// A UTC day, such as 2026-01-31; default: today.
    #[arg(long)]
    day: Option<Date>,
    /// Only budgets of everybody (total), of owners or of keys.
    #[arg(long, value_parser = scope)]
    scope: Option<Scope>,
    /// Only this owner's or key's.
    #[arg(long)]
    subject: Option<String>,
    /// At most so many.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_BUDGETS)))]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Usage {
    /// The first UTC day; default: 30 days ago.
    #[arg(long)]
    from: Option<Date>,
    /// The last UTC day; default: today.
    #[arg(long)]
    to: Option<Date>,
    #[arg(long)]
    owner: Option<String>,
    /// The name of a key, or its id.
    #[arg(long)]
    key: Option<String>,
    #[arg(long)]
    model: Option<String>,
    /// At most so many rows, of the newest days.
    #[arg(long, default_value_t = MOST_DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_DAYS)))]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

fn scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).ok_or_else(|| "there is total, owner and key".to_owned())
}

pub async fn budgets(operator: &Operator, command: Budgets) -> anyhow::Result<ExitCode> {
    let Budgets::List(list) = command;
    let day = list.day.unwrap_or_else(today);
    let filter = BudgetFilter { scope: list.scope, subject: list.subject.as_deref() };
    let found = spending::standing(&operator.client().await?, day, filter, None, list.limit).await?;
    let budgets = &found.entries;
    if found.has_more {
        colloquy::note!(
            "There are more than {}; name a --scope or a --subject, or raise --limit.",
            list.limit
        );
    }
    if list.output.json {
        let budgets: Vec<_> = budgets
            .iter()
            .map(|status| {
                json!({
                    "scope": status.budget.scope.as_str(), "subject": &*status.budget.subject, "day": day,
                    "limit_micros": status.limit, "spent_micros": status.spent, "held_micros": status.held,
                    "free_micros": status.free,
                })
            })
            .collect();
        output::json(&budgets)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::table(
        ["BUDGET", "OF", "LIMIT", "SPENT", "HELD", "FREE"],
        budgets.iter().map(|status| {
            [
                status.budget.scope.as_str().to_owned(),
                status.budget.subject.to_string(),
                money(status.limit),
                money(status.spent),
                money(status.held),
                money(status.free),
            ]
        }),
        "No such budget was drawn from on this day.",
    );
    say!("\n{}", configured(&operator.config.app.budgets));
    Ok(ExitCode::SUCCESS)
}

pub async fn usage(operator: &Operator, usage: Usage) -> anyhow::Result<ExitCode> {
    let to = usage.to.unwrap_or_else(today);
    let from = usage.from.unwrap_or_else(|| to.saturating_sub(30.days()));
    let (owner, api_key) = (usage.owner.as_deref(), usage.key.as_deref());
    let filter = UsageFilter { owner, api_key, model: usage.model.as_deref(), from, to };
    let page = PageOf { after: None, limit: usage.limit, order: Order::Descending };
    let found = spending::by_day(&operator.client().await?, &filter, page).await?;
    let days = &found.entries;
    if found.has_more {
        colloquy::note!(
            "There are more than {}, of older days; ask for fewer days, or for one --owner, --key or --model.",
            usage.limit
        );
    }
    if usage.output.json {
        output::json(&days)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::table(
        ["DAY", "OWNER", "MODEL", "DEPLOYMENT", "KEY", "TURNS", "INPUT", "OUTPUT", "COST"],
        days.iter().map(|day| {
            [
                day.day.to_string(),
                day.owner.clone(),
                day.model.clone(),
                day.deployment.clone(),
                or_empty(day.api_key.as_ref()),
                day.turns.to_string(),
                day.input_tokens.to_string(),
                day.output_tokens.to_string(),
                money(day.cost_micros),
            ]
        }),
        "Nothing was used in these days.",
    );
    Ok(ExitCode::SUCCESS)
}

/// What `colloquy.toml` says of a day's budgets, which only a deployment changes.
fn configured(budgets: &BudgetsConfig) -> String {
    let of = |limit: Option<u64>| {
        limit.map_or("none".to_owned(), |limit| money(i64::try_from(limit).unwrap_or(i64::MAX)))
    };
    let own = budgets.owners.len() + budgets.keys.len();
    let (total, owner, key) = (of(budgets.total), of(budgets.each_owner), of(budgets.each_key));
    format!(
        "Limits of colloquy.toml: total {total}, each owner {owner}, each key {key}; {own} owners and keys have their own."
    )
}

/// An amount in the currency that prices are in.
fn money(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let micros = micros.unsigned_abs();
    format!("{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micro_units_are_shown_whole() {
        assert_eq!(money(1_250_000), "1.250000");
        assert_eq!(money(-1), "-0.000001");
    }
}
