//! `audit list`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use colloquy::commands::output::{self, Output, ago};
use colloquy::commands::{duration, instant_before};
use colloquy::database::inspect::{self, AuditFilter};
use colloquy::database::responses::{Order, PageOf};

use super::Operator;

#[derive(Subcommand)]
pub enum Audit {
    /// Who changed what, the latest first.
    List(List),
}

#[derive(Args)]
pub struct List {
    /// Only by this one: `owner (key)`, `command:NAME`.
    #[arg(long)]
    actor: Option<String>,
    /// Only this change: `key.create`; `key` finds all that begin with `key.`.
    #[arg(long)]
    action: Option<String>,
    /// Only changes of this: an id, a name.
    #[arg(long)]
    subject: Option<String>,
    /// Only what was changed in the last so long: `1h`, `2d`.
    #[arg(long, value_parser = duration)]
    since: Option<Duration>,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

pub async fn run(operator: &Operator, command: Audit) -> anyhow::Result<ExitCode> {
    let Audit::List(list) = command;
    let filter = AuditFilter {
        actor: list.actor,
        action: list.action,
        subject: list.subject,
        since: list.since.map(instant_before).transpose()?,
    };
    let page = PageOf { after: None, limit: list.limit, order: Order::Descending };
    let rows = inspect::audit(&operator.client().await?, &filter, page).await?.entries;
    if list.output.json {
        output::json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::table(
        ["AT", "ACTOR", "ACTION", "SUBJECT", "DETAIL"],
        rows.iter().map(|row| {
            [
                ago(row.at),
                row.actor.clone(),
                row.action.clone(),
                row.subject.clone(),
                row.detail.as_ref().map(ToString::to_string).unwrap_or_default(),
            ]
        }),
        "No changes.",
    );
    Ok(ExitCode::SUCCESS)
}
