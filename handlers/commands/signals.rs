//! `signals`: what is watched, and when somebody is told.

use std::process::ExitCode;

use clap::Args;
use colloquy::telemetry::metrics::{signals_json, signals_markdown};

use super::output::{self, Output};

#[derive(Args)]
pub struct Signals {
    #[command(flatten)]
    output: Output,
}

pub fn run(command: &Signals) -> anyhow::Result<ExitCode> {
    if command.output.json {
        output::json(&signals_json())?;
    } else {
        say!("{}", signals_markdown().trim_end());
    }
    Ok(ExitCode::SUCCESS)
}
