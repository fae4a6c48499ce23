//! `switches list|set|clear`, in both programs.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::output::{self, Output, or_empty};
use super::{Consent, actor, duration, words};
use crate::config::Config;
use crate::config::app::Stop;
use crate::database::audit::Actor;
use crate::operations::{NewSwitch, Operations};
use crate::switches::SwitchKind;
use crate::{note, say};

#[derive(Subcommand)]
pub enum Commands {
    /// Every switch that is set, and every feature.
    List(Output),
    /// Stop something, or set a feature going, everywhere within SWITCH_CACHE and without a deployment.
    Set(Set),
    /// Clear a switch: what it was over goes by its configuration again, and what waited goes on.
    Clear(Clear),
}

#[derive(Args)]
pub struct Set {
    /// What it is over: source, route, model, deployment, owner, target or feature.
    kind: SwitchKind,
    /// Its name; of a target `*` for all callbacks.
    name: String,
    #[command(flatten)]
    how: How,
    /// End it by itself after this time, such as 2h.
    #[arg(long = "for", value_parser = duration, conflicts_with = "until")]
    duration: Option<Duration>,
    /// End it by itself at this instant, such as 2026-12-31T00:00:00Z.
    #[arg(long)]
    until: Option<Timestamp>,
    /// Why; shown in the list and kept in the audit trail.
    #[arg(long, value_parser = words)]
    reason: String,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

/// How it is switched.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct How {
    /// Work waits and is done later; callers are told to come again.
    #[arg(long)]
    hold: bool,
    /// Callers are refused, work is given up.
    #[arg(long)]
    refuse: bool,
    /// Only a feature: it is on, whatever colloquy.toml says.
    #[arg(long)]
    on: bool,
}

#[derive(Args)]
pub struct Clear {
    kind: SwitchKind,
    name: String,
    /// Why; kept in the audit trail.
    #[arg(long, value_parser = words)]
    reason: Option<String>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

/// Runs a command.
pub async fn run(config: &Config, operations: &Operations, command: Commands) -> anyhow::Result<ExitCode> {
    match command {
        Commands::List(output) => list(config, operations, output).await,
        Commands::Set(set) => self::set(config, operations, set).await,
        Commands::Clear(clear) => self::clear(operations, clear).await,
    }
}

async fn list(config: &Config, operations: &Operations, output: Output) -> anyhow::Result<ExitCode> {
    let (switches, now) = (operations.switches().read().await?, Timestamp::now());
    let lines = Operations::switch_lines(&switches, now);
    let features = switches.features(&config.app.features, config.environment, now);
    if output.json {
        output::json(&json!({ "switches": lines, "features": features }))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::table(
        ["WHAT", "NAME", "STATE", "UNTIL", "BY", "WHY"],
        lines.iter().map(|line| {
            let state = match (line.in_force, line.switch.stop) {
                (false, _) => "ended",
                (true, Some(Stop::Hold)) => "held",
                (true, Some(Stop::Refuse)) => "refused",
                (true, None) => "on",
            };
            [
                line.kind.to_string(),
                line.name.clone(),
                state.to_owned(),
                or_empty(line.switch.until.as_ref()),
                line.switch.by.clone(),
                or_empty(line.switch.reason.as_ref()),
            ]
        }),
        "No switch is set.",
    );
    say!("");
    let on = |on: bool| if on { "on" } else { "off" }.to_owned();
    output::table(
        ["FEATURE", "STATE", "IN COLLOQUY.TOML"],
        features.iter().map(|feature| [feature.feature.to_owned(), on(feature.on), on(feature.configured)]),
        "",
    );
    Ok(ExitCode::SUCCESS)
}

async fn set(config: &Config, operations: &Operations, set: Set) -> anyhow::Result<ExitCode> {
    let now = Timestamp::now();
    let until = match set.duration {
        Some(duration) => Some(now.checked_add(SignedDuration::try_from(duration)?)?),
        None => set.until,
    };
    ensure!(until.is_none_or(|until| until > now), "--until is in the past");
    let stop = match (set.how.hold, set.how.refuse) {
        (true, _) => Some(Stop::Hold),
        (_, true) => Some(Stop::Refuse),
        _ => None,
    };
    let wanted = NewSwitch { kind: set.kind, name: set.name, stop, until };
    operations.check_switch(&wanted)?;
    if !set.consent.to(&wanted.plan())? {
        return Ok(ExitCode::FAILURE);
    }
    let name = actor();
    let actor = Actor { name: &name, reason: Some(&set.reason) };
    let set_switch = operations.set_switch(&wanted, actor).await?;
    if set.output.json {
        output::json(&set_switch.to)?;
    } else {
        say!("The switch is set; it is in force everywhere within {:?}.", config.work.switch_cache);
    }
    told(&set_switch.audited);
    Ok(ExitCode::SUCCESS)
}

async fn clear(operations: &Operations, clear: Clear) -> anyhow::Result<ExitCode> {
    let plan =
        format!("The switch over the {} `{}` is cleared; what waited goes on.", clear.kind, clear.name);
    if !clear.consent.to(&plan)? {
        return Ok(ExitCode::FAILURE);
    }
    let name = actor();
    let actor = Actor { name: &name, reason: clear.reason.as_deref() };
    let cleared = operations.clear_switch(clear.kind, &clear.name, actor).await?;
    if clear.output.json {
        output::json(&json!({ "kind": clear.kind, "name": clear.name, "cleared": cleared.to }))?;
    } else if cleared.to {
        say!("The switch is cleared.");
    } else {
        say!("There is no such switch.");
    }
    told(&cleared.audited);
    Ok(ExitCode::SUCCESS)
}

/// Says that an audit row is missing. The switch works without the database.
pub fn told(audited: &Result<(), String>) {
    if let Err(error) = audited {
        note!("The switch is changed, but its audit row could not be written: {error}");
    }
}
