//! `check`: what start-up would refuse, without starting and without network.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Weak;

use clap::Args;
use colloquy::config::app::AppConfig;
use colloquy::config::{AppFile, ProcessEnvironment};
use colloquy::jobs::kinds::JobKind;

use crate::registrations;
use crate::services::Services;

#[derive(Args)]
pub struct Check {
    /// The app's root folder, with host.json and the function folders.
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// Also check the environment: every variable, every secret.
    #[arg(long)]
    env: bool,
}

pub fn run(check: &Check) -> anyhow::Result<ExitCode> {
    let mut mistakes = Vec::new();
    if let Err(error) = registrations::app(&Weak::new()).check(&check.root) {
        mistakes.push(error.to_string());
    }
    match AppFile::in_root(&check.root) {
        Ok(file) => {
            if let Err(found) = AppConfig::parse(&file.text, None, &JobKind::names()) {
                mistakes.extend(found.iter().map(ToString::to_string));
            }
        }
        Err(mistake) => mistakes.push(mistake.to_string()),
    }
    if check.env {
        match crate::load(&ProcessEnvironment) {
            Ok(config) => mistakes.extend(Services::new(config).err().map(|error| format!("{error:#}"))),
            Err(error) => mistakes.push(format!("{error:#}")),
        }
    }
    if mistakes.is_empty() {
        println!("Registrations, function folders and colloquy.toml agree.");
        return Ok(ExitCode::SUCCESS);
    }
    for mistake in &mistakes {
        eprintln!("{mistake}");
    }
    Ok(ExitCode::FAILURE)
}
