//! The operator's commands. Tables for people, `--json` for programs; each that changes something says what, and asks.
//! They speak to the database themselves: no server has to run.

mod audit;
mod grants;
mod keys;
mod money;
mod owners;
mod turns;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::anyhow;
use clap::{Parser, Subcommand};
use colloquy::commands::{output, switches};
use colloquy::config::{Config, ProcessEnvironment};
use colloquy::database::{Client, Database, TokenProvider};
use colloquy::jobs::kinds::JobKind;
use colloquy::operations::Operations;
use colloquy::switches::Switchboard;
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
    /// Stored turns that run or wait.
    #[command(subcommand)]
    Turns(turns::Turns),
    /// How the day's budgets stand.
    #[command(subcommand)]
    Budgets(money::Budgets),
    /// What was used, by UTC day, of everybody or of one owner, key, model.
    Usage(money::Usage),
    /// Stop sources, routes, models, owners, callbacks or features without a deployment.
    #[command(subcommand)]
    Switches(switches::Commands),
    /// What owners let others do with their conversations.
    #[command(subcommand)]
    Grants(grants::Grants),
    /// Who changed what.
    #[command(subcommand)]
    Audit(audit::Audit),
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
        Command::Turns(turns) => turns::run(&Operator::new()?, turns).await,
        Command::Budgets(budgets) => money::budgets(&Operator::new()?, budgets).await,
        Command::Usage(usage) => money::usage(&Operator::new()?, usage).await,
        Command::Switches(command) => {
            let operator = Operator::new()?;
            switches::run(&operator.config, &operator.operations, command).await
        }
        Command::Grants(grants) => grants::run(&Operator::new()?, grants).await,
        Command::Audit(audit) => audit::run(&Operator::new()?, audit).await,
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
    pub operations: Operations,
    database: Database,
}

impl Operator {
    fn new() -> anyhow::Result<Self> {
        let config = Config::load(&ProcessEnvironment, &JobKind::names())?;
        let tokens = wiring::token_source(&config);
        let storage = wiring::storage(&config, tokens.as_ref()).map_err(|error| anyhow!(error))?;
        let provider =
            tokens.map(|tokens| Arc::new(wiring::DatabaseTokens(tokens)) as Arc<dyn TokenProvider>);
        let database = Database::new(wiring::database_settings(&config), provider)?;
        let switches =
            Switchboard::new(storage.as_ref(), &config.storage.container, config.work.switch_cache);
        let operations = Operations::new(&config, database.clone(), storage, switches);
        Ok(Self { config, operations, database })
    }

    pub async fn client(&self) -> anyhow::Result<Client> {
        Ok(self.database.client().await?)
    }
}
