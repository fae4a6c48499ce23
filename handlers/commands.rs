//! The operator's commands. Tables for people, `--json` for programs; each says what it changed.

mod backfill;
mod callbacks;
mod check;
mod dead_letters;
mod events;
mod jobs;
mod migrate;
mod rehearse;
mod retention;
mod rotations;
mod samples;
mod settings;
mod signals;
mod sources;
mod webhooks;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use colloquy::commands::{actor, duration, output, switches};
use colloquy::config::ProcessEnvironment;

use crate::services::Services;

pub use rehearse::too_long;

/// Colloquy's function handlers. Without a command: serve the Functions host that started this process.
#[derive(Parser)]
#[command(name = "function-handlers", version, arg_required_else_help = false, subcommand_required = false)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Compare registrations with the function folders and check colloquy.toml; no network, for CI.
    Check(check::Check),
    /// Bring the database's schema up to date, or look at what would happen.
    Migrate(migrate::Migrate),
    /// Sign and send deliveries as a sender would.
    #[command(subcommand)]
    Webhooks(webhooks::Webhooks),
    /// Look at events, follow them, run them again.
    #[command(subcommand)]
    Events(events::Events),
    /// Look at jobs: what is done, waits or runs.
    #[command(subcommand)]
    Jobs(jobs::Jobs),
    /// Look at work that was given up; replay or discard it.
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLetters),
    /// Look at callbacks; test or enable their targets.
    #[command(subcommand)]
    Callbacks(callbacks::Callbacks),
    /// Stop and start sources without a deployment.
    #[command(subcommand)]
    Sources(sources::Sources),
    /// Stop sources, routes, models, owners, callbacks or features without a deployment.
    #[command(subcommand)]
    Switches(switches::Commands),
    /// Begin a backfill: a job that changes many rows in steps and goes on where it was cut.
    Backfill(backfill::Backfill),
    /// Delete what is past its time, or look at what that would be.
    Retention(retention::Retention),
    /// Secrets that have to be replaced, and who still uses the old ones.
    #[command(subcommand)]
    Rotations(rotations::Rotations),
    /// Every setting there is, with its default.
    Settings(settings::Settings),
    /// What is watched: metrics, the levels at which somebody is told, and the panels that show them.
    Signals(signals::Signals),
}

/// Runs a command.
pub async fn run(command: Command) -> anyhow::Result<ExitCode> {
    let code = match command {
        Command::Check(check) => check::run(&check),
        Command::Migrate(migrate) => migrate::run(&*services()?, &migrate).await,
        Command::Webhooks(webhooks) => webhooks::run(webhooks).await,
        Command::Events(events) => events::run(&*services()?, events).await,
        Command::Jobs(jobs) => jobs::run(&*services()?, jobs).await,
        Command::DeadLetters(letters) => dead_letters::run(&*services()?, letters).await,
        Command::Callbacks(callbacks) => callbacks::run(&*services()?, callbacks).await,
        Command::Sources(sources) => sources::run(&*services()?, sources).await,
        Command::Switches(command) => {
            let services = services()?;
            switches::run(&services.config, &services.operations, command).await
        }
        Command::Backfill(backfill) => backfill::run(&*services()?, backfill).await,
        Command::Retention(retention) => retention::run(&*services()?, retention).await,
        Command::Rotations(rotations) => rotations::run(&*services()?, rotations).await,
        Command::Settings(settings) => Ok(settings::run(&settings)),
        Command::Signals(signals) => signals::run(&signals),
    }?;
    output::finish()?;
    Ok(code)
}

/// Says on stderr what went wrong, with every cause.
pub fn failure(error: &anyhow::Error) -> ExitCode {
    colloquy::commands::failure("function-handlers", error)
}

fn services() -> anyhow::Result<Arc<Services>> {
    Services::new(crate::load(&ProcessEnvironment)?, None)
}
