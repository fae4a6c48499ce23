//! `sources list|stop|start`: the switches.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, Subcommand};
use colloquy::commands::switches::told;
use colloquy::commands::{Consent, words};
use colloquy::config::app::Stop;
use colloquy::database::dead_letters::Actor;
use colloquy::operations::NewSwitch;
use colloquy::switches::SwitchKind;
use jiff::{SignedDuration, Timestamp};

use super::output::{self, Output, or_empty};
use crate::services::Services;

#[derive(Subcommand)]
pub enum Sources {
    /// Every source, and whether it is stopped.
    List(Output),
    /// Stop a source: hold what it sends (the default), or refuse it.
    Stop(StopSource),
    /// Start a source again; what was held is processed.
    Start(Start),
}

#[derive(Args)]
pub struct StopSource {
    source: String,
    /// Answer 503 instead of keeping deliveries. A sender that never sends again loses them.
    #[arg(long)]
    refuse: bool,
    /// End the stop by itself after this time, such as 2h.
    #[arg(long = "for", value_parser = super::duration)]
    duration: Option<Duration>,
    /// Why; shown in the list and kept in the audit trail.
    #[arg(long, value_parser = words)]
    reason: Option<String>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Start {
    source: String,
    /// Why; kept in the audit trail.
    #[arg(long, value_parser = words)]
    reason: Option<String>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

pub async fn run(services: &Services, command: Sources) -> anyhow::Result<ExitCode> {
    match command {
        Sources::List(output) => self::list(services, output).await,
        Sources::Stop(stop) => self::stop(services, stop).await,
        Sources::Start(start) => self::start(services, start).await,
    }
}

async fn list(services: &Services, output: Output) -> anyhow::Result<ExitCode> {
    let switches = services.switches.read().await?;
    let now = Timestamp::now();
    let rows: Vec<_> = services
        .config
        .app
        .sources
        .iter()
        .map(|(name, config)| {
            let switch = switches.sources.get(name);
            let stop = switches.source(name, config.stopped, now);
            (name, config.kind, stop, switch)
        })
        .collect();
    if output.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, kind, stop, switch)| {
                serde_json::json!({
                    "source": name, "kind": kind.as_str(), "stopped": stop, "switch": switch,
                })
            })
            .collect();
        output::json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::table(
        ["SOURCE", "KIND", "STATE", "UNTIL", "BY", "WHY"],
        rows.iter().map(|(name, kind, stop, switch)| {
            let state = match stop {
                None => "running",
                Some(Stop::Hold) => "held",
                Some(Stop::Refuse) => "refused",
            };
            let switch = switch.filter(|_| stop.is_some());
            [
                (*name).clone(),
                kind.as_str().to_owned(),
                state.to_owned(),
                or_empty(switch.and_then(|switch| switch.until.as_ref())),
                or_empty(switch.map(|switch| &switch.by)),
                or_empty(switch.and_then(|switch| switch.reason.as_ref())),
            ]
        }),
        "No sources in colloquy.toml.",
    );
    Ok(ExitCode::SUCCESS)
}

async fn stop(services: &Services, stop: StopSource) -> anyhow::Result<ExitCode> {
    known(services, &stop.source)?;
    let now = Timestamp::now();
    let until = match stop.duration {
        Some(duration) => Some(now.checked_add(SignedDuration::try_from(duration)?)?),
        None => None,
    };
    let stopped = if stop.refuse { Stop::Refuse } else { Stop::Hold };
    let wanted =
        NewSwitch { kind: SwitchKind::Source, name: stop.source.clone(), stop: Some(stopped), until };
    if !stop.consent.to(&wanted.plan())? {
        return Ok(ExitCode::FAILURE);
    }
    let name = super::actor();
    let actor = Actor { name: &name, reason: stop.reason.as_deref() };
    let set = services.operations.set_switch(&wanted, actor).await?;
    let switch = &set.to.switch;
    if stop.output.json {
        output::json(
            &serde_json::json!({ "source": stop.source, "stopped": switch.stop, "switch": switch }),
        )?;
    } else {
        let what = if stop.refuse { "refused" } else { "held" };
        say!("Deliveries from `{}` are {what} within {:?}.", stop.source, services.config.work.switch_cache);
    }
    told(&set.audited);
    Ok(ExitCode::SUCCESS)
}

async fn start(services: &Services, start: Start) -> anyhow::Result<ExitCode> {
    known(services, &start.source)?;
    let plan = format!("What `{}` sends is processed again, and what was held meanwhile.", start.source);
    if !start.consent.to(&plan)? {
        return Ok(ExitCode::FAILURE);
    }
    let name = super::actor();
    let actor = Actor { name: &name, reason: start.reason.as_deref() };
    let cleared = services.operations.clear_switch(SwitchKind::Source, &start.source, actor).await?;
    let was_stopped = cleared.to;
    let configured = services.config.app.sources.get(&start.source).and_then(|source| source.stopped);
    if start.output.json {
        let started =
            serde_json::json!({ "source": start.source, "started": was_stopped, "stopped": configured });
        output::json(&started)?;
    } else {
        match was_stopped {
            true => say!("`{}` runs; what was held is processed by `maintain`.", start.source),
            false => say!("`{}` is not stopped by a switch.", start.source),
        }
        if configured.is_some() {
            say!("colloquy.toml stops it still: remove `stopped` there.");
        }
    }
    told(&cleared.audited);
    Ok(ExitCode::SUCCESS)
}

fn known(services: &Services, name: &str) -> anyhow::Result<()> {
    let names: Vec<&str> = services.config.app.sources.keys().map(String::as_str).collect();
    ensure!(
        names.contains(&name),
        "there is no source `{name}` in colloquy.toml; there is {}",
        names.join(", ")
    );
    Ok(())
}
