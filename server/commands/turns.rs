//! `turns list|cancel`.

use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand, ValueEnum};
use colloquy::commands::output::{self, Output, ago, or_empty};
use colloquy::commands::{Consent, actor, words};
use colloquy::database::audit::Actor;
use colloquy::database::inspect::{self, TurnFilter, TurnLine};
use colloquy::database::responses::{self, Order, PageOf};
use colloquy::ids::ResponseId;

use super::Operator;

#[derive(Subcommand)]
pub enum Turns {
    /// Stored turns that run or wait, oldest first. Turns that nobody stores are in their process's `/health/status`.
    List(List),
    /// Stop a turn. Whoever runs it hears of it with its next write; one that waits is ended by any server.
    Cancel(Cancel),
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum State {
    Queued,
    InProgress,
}

#[derive(Args)]
pub struct List {
    /// Only turns of this owner, or asked for by it.
    #[arg(long)]
    owner: Option<String>,
    /// Only turns of this model.
    #[arg(long)]
    model: Option<String>,
    /// Only this state.
    #[arg(long)]
    state: Option<State>,
    /// At most so many.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Cancel {
    id: ResponseId,
    /// Why; kept in the audit trail.
    #[arg(long, value_parser = words)]
    reason: Option<String>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

pub async fn run(operator: &Operator, command: Turns) -> anyhow::Result<ExitCode> {
    match command {
        Turns::List(list) => self::list(operator, list).await,
        Turns::Cancel(cancel) => self::cancel(operator, cancel).await,
    }
}

async fn list(operator: &Operator, list: List) -> anyhow::Result<ExitCode> {
    let state = list.state.map(|state| match state {
        State::Queued => "queued".to_owned(),
        State::InProgress => "in_progress".to_owned(),
    });
    let filter = TurnFilter { owner: list.owner, model: list.model, state };
    let page = PageOf { after: None, limit: list.limit, order: Order::Ascending };
    let turns = inspect::turns(&operator.client().await?, &filter, page).await?.entries;
    if list.output.json {
        output::json(&turns)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::table(
        ["TURN", "BEGAN", "STATE", "MODEL", "OWNER", "AWAITS", "HOLDER", "LEASE", "DUE", "LOGGED"],
        turns.iter().map(|turn| {
            [
                turn.id.to_string(),
                ago(turn.created_at),
                state_of(turn),
                turn.model.clone(),
                turn.caller.clone().unwrap_or_else(|| turn.owner.clone()),
                turn.awaits.to_owned(),
                or_empty(turn.holder.as_ref()),
                turn.lease_until.map(ago).unwrap_or_default(),
                turn.due_at.map(ago).unwrap_or_default(),
                format!("{} B", turn.logged_bytes),
            ]
        }),
        "No stored turn runs or waits.",
    );
    Ok(ExitCode::SUCCESS)
}

fn state_of(turn: &TurnLine) -> String {
    if turn.cancel_requested_at.is_some() { "cancelling".to_owned() } else { turn.state.clone() }
}

async fn cancel(operator: &Operator, cancel: Cancel) -> anyhow::Result<ExitCode> {
    let id = cancel.id;
    let client = operator.client().await?;
    let owner = inspect::owner_of_turn(&client, id).await?;
    let owner = owner.with_context(|| format!("there is no stored turn {id}"))?;
    if !cancel.consent.to(&format!("The turn {id} of `{owner}` is stopped; what it has said is kept."))? {
        return Ok(ExitCode::FAILURE);
    }
    let name = actor();
    let actor = Actor { name: &name, reason: cancel.reason.as_deref() };
    let asked = responses::cancel_by_operator(&client, id, actor).await?;
    let (_, asked) = asked.with_context(|| format!("there is no stored turn {id}"))?;
    ensure!(!asked.state.is_final(), "{id} has ended already: {}", asked.state.as_str());
    if cancel.output.json {
        output::json(&serde_json::json!({ "id": id, "state": asked.state, "cancel_requested": true }))?;
    } else {
        say!("{id} is asked to stop.");
    }
    Ok(ExitCode::SUCCESS)
}
