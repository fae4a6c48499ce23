//! `migrate [--check|--dry-run|--who-holds|--terminate]`.

use std::process::ExitCode;

use clap::Args;
use colloquy::commands::Consent;
use colloquy::database::migrations::{self, Migrations, Progress};
use colloquy::wiring;

use super::output::{self, Output};
use crate::services::Services;

#[derive(Args)]
#[group(id = "mode", multiple = false)]
pub struct Mode {
    /// Compare the database with this program; exit 0 if it is current, else as the answer says.
    #[arg(long)]
    check: bool,
    /// Show what would run, and try it in a transaction that is rolled back.
    #[arg(long)]
    dry_run: bool,
    /// Show who is migrating now.
    #[arg(long)]
    who_holds: bool,
    /// End the backend that is migrating now.
    #[arg(long)]
    terminate: bool,
}

#[derive(Args)]
pub struct Migrate {
    #[command(flatten)]
    mode: Mode,
    /// Of `--terminate`.
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

pub async fn run(services: &Services, command: &Migrate) -> anyhow::Result<ExitCode> {
    let known = Migrations::embedded()?;
    let options = wiring::migration_options(&services.config);
    let database = &services.database;
    let print = |text: String, value: serde_json::Value| -> anyhow::Result<()> {
        if command.output.json {
            return output::json(&value);
        }
        say!("{text}");
        Ok(())
    };
    let mode = &command.mode;
    if mode.check {
        let check = migrations::check(database, &known).await?;
        print(check.to_string(), serde_json::to_value(&check)?)?;
        return Ok(ExitCode::from(check.exit_code()));
    }
    if mode.dry_run {
        let dry_run = migrations::dry_run(database, &known, &options, &progress).await?;
        print(dry_run.to_string(), serde_json::to_value(&dry_run)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if mode.who_holds {
        let holder = migrations::who_holds(database).await?;
        let text = holder.as_ref().map_or_else(|| "Nobody is migrating.".to_owned(), ToString::to_string);
        print(text, serde_json::to_value(&holder)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if mode.terminate {
        if let Some(holder) = migrations::who_holds(database).await? {
            let plan = format!("{holder}\nIts backend is ended; what it has not committed is rolled back.");
            if !command.consent.to(&plan)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        let ended = migrations::terminate(database).await?;
        let nobody = || "Nobody is migrating; nothing was ended.".to_owned();
        let text = ended.as_ref().map_or_else(nobody, ToString::to_string);
        print(text, serde_json::to_value(&ended)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = migrations::run(database, &known, &options, &progress).await?;
    print(report.to_string(), serde_json::to_value(&report)?)?;
    Ok(ExitCode::SUCCESS)
}

/// On stderr, so that `--json` stays one document.
fn progress(progress: &Progress) {
    note!("{progress}");
}
