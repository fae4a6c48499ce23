//! `budgets list` and `usage`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use colloquy::commands::output::{self, Output, or_empty};
use colloquy::database::spending;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
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
    #[command(flatten)]
    output: Output,
}

fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

pub async fn budgets(operator: &Operator, command: Budgets) -> anyhow::Result<ExitCode> {
    let Budgets::List(list) = command;
    let day = list.day.unwrap_or_else(today);
    let budgets = spending::budgets(&operator.client().await?, day, None, None).await?;
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
        "No budget was drawn from on this day.",
    );
    Ok(ExitCode::SUCCESS)
}

pub async fn usage(operator: &Operator, usage: Usage) -> anyhow::Result<ExitCode> {
    let to = usage.to.unwrap_or_else(today);
    let from = usage.from.unwrap_or_else(|| to.saturating_sub(30.days()));
    let mut days = spending::by_day(&operator.client().await?, usage.owner.as_deref(), from, to).await?;
    days.retain(|day| {
        usage.key.as_deref().is_none_or(|key| day.api_key.as_deref() == Some(key))
            && usage.model.as_deref().is_none_or(|model| day.model == model)
    });
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
