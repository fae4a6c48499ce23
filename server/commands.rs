//! The operator's commands. Tables for people, `--json` for programs; each that changes something says what, and asks.
//! They speak to the database themselves: no server has to run.

mod grants;
mod keys;
mod owners;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use colloquy::azure::Storage;
use colloquy::commands::output;
use colloquy::config::{Config, ProcessEnvironment};
use colloquy::database::{Client, Database, TokenProvider};
use colloquy::jobs::kinds::JobKind;
use colloquy::wiring;

/// The always-on process for long conversations with language models, and its operators' commands. All settings are
/// environment variables; see docs/settings.md.
#[derive(Parser)]
#[command(version, arg_required_else_help = false, subcommand_required = false)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Serve until told to stop: what is done without a command, too.
    Serve,
    /// API keys made at run time.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// What owners let others do with their conversations.
    #[command(subcommand)]
    Grants(grants::Grants),
    /// What is somebody's: counted, exported, deleted.
    #[command(subcommand)]
    Owners(owners::Owners),
}

/// Runs a command.
pub async fn run(command: Command) -> anyhow::Result<ExitCode> {
    let code = match command {
        // What `main` does itself.
        Command::Serve => Ok(ExitCode::SUCCESS),
        Command::Keys(keys) => keys::run(&Operator::new()?, keys).await,
        Command::Grants(grants) => grants::run(&Operator::new()?, grants).await,
        Command::Owners(owners) => owners::run(&Operator::new()?, owners).await,
    }?;
    output::finish()?;
    Ok(code)
}

/// Says on stderr what went wrong, with every cause.
pub fn failure(error: &anyhow::Error) -> ExitCode {
    colloquy::commands::failure("conversation-server", error)
}

/// What commands work with.
pub struct Operator {
    pub config: Config,
    database: Database,
}

impl Operator {
    fn new() -> anyhow::Result<Self> {
        let config = Config::load(&ProcessEnvironment, &JobKind::names())?;
        let tokens = wiring::token_source(&config)
            .map(|tokens| Arc::new(wiring::DatabaseTokens(tokens)) as Arc<dyn TokenProvider>);
        let database = Database::new(wiring::database_settings(&config), tokens)?;
        Ok(Self { config, database })
    }

    /// The pool itself.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Where bodies lie. `None`: no storage is set.
    pub fn storage(&self) -> anyhow::Result<Option<Storage>> {
        let tokens = wiring::token_source(&self.config);
        wiring::storage(&self.config, tokens.as_ref()).map_err(|error| anyhow::anyhow!(error))
    }

    pub async fn client(&self) -> anyhow::Result<Client> {
        Ok(self.database.client().await?)
    }
}
