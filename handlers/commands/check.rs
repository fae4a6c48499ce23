//! `check`: what start-up would refuse, without starting and without network.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Weak;

use clap::Args;
use colloquy::config::app::AppConfig;
use colloquy::config::{self, AppFile, Environment, ProcessEnvironment, Replaced, RespondLimits};
use colloquy::functions::{HostFile, HostSettings};
use colloquy::jobs::kinds::JobKind;
use colloquy::telemetry::{self, Program};
use colloquy::wiring;
use tokio::runtime::Handle;

use super::rehearse;
use crate::registrations;
use crate::services::{Services, contradictions};

#[derive(Args)]
pub struct Check {
    /// The app's root folder, with host.json and the function folders. Default: FUNCTIONS_APP_ROOT_PATH, else here.
    #[arg(long)]
    root: Option<PathBuf>,
    /// Also check the environment: every variable, every secret. Without it of the environment only COLLOQUY_CONFIG,
    /// FUNCTIONS_APP_ROOT_PATH and APP_ENV count: the last decides which targets may be reached.
    #[arg(long)]
    env: bool,
}

pub fn run(check: &Check) -> anyhow::Result<ExitCode> {
    // As start-up looks it up, with the folder named here in the place of the one it is told.
    match &check.root {
        Some(root) => judge(
            check,
            &Replaced {
                environment: &ProcessEnvironment,
                name: config::host::ROOT_SETTING,
                value: root.display().to_string(),
            },
        ),
        None => judge(check, &ProcessEnvironment),
    }
}

fn judge(check: &Check, environment: &dyn Environment) -> anyhow::Result<ExitCode> {
    let (mut mistakes, mut notes) = (Vec::new(), Vec::new());
    let root = config::host::root(environment);
    let host = match registrations::app(&Weak::new()).check(&root) {
        Ok(manifest) => manifest.host,
        Err(error) => {
            mistakes.push(error.to_string());
            HostFile::default()
        }
    };
    // What the environment says counts as soon as all of it can be read.
    let loaded = check.env.then(|| crate::load_with_models(environment));
    let config = loaded.as_ref().and_then(|loaded| Some(&loaded.as_ref().ok()?.0));
    let limits = config.map_or_else(RespondLimits::default, |config| config.respond.clone());
    let mut checked = "colloquy.toml (compiled in)".to_owned();
    match AppFile::find(environment) {
        Ok(file) => {
            if let Some(path) = &file.path {
                checked = path.display().to_string();
            }
            match AppConfig::parse(&file.text, None, &JobKind::names()) {
                Ok(app) => {
                    mistakes.extend(contradictions(&app, config::host::app_environment(environment)));
                    let (app, read_with) = match config {
                        Some(config) => (&config.app, Some(environment)),
                        None => (&app, None),
                    };
                    let read = rehearse::Read { name: &checked, text: &file.text, environment: read_with };
                    let rehearsed = rehearse::templates(app, read, &root, &limits);
                    mistakes.extend(rehearsed.mistakes);
                    notes.extend(rehearsed.notes);
                    if !check.env {
                        mistakes.extend(rehearse::too_long(app, &host, &limits));
                    }
                }
                Err(found) => mistakes.extend(found.iter().map(|mistake| format!("{checked}: {mistake}"))),
            }
        }
        Err(mistake) => mistakes.push(mistake.to_string()),
    }
    if let Some(loaded) = loaded {
        let settings = HostSettings::from_lookup(|name| environment.get(name));
        mistakes.extend(settings.err().map(|error| error.to_string()));
        match loaded {
            Ok((config, llm)) => {
                // Again, with the values of the environment in their places.
                for mistake in contradictions(&config.app, config.environment) {
                    if !mistakes.contains(&mistake) {
                        mistakes.push(mistake);
                    }
                }
                mistakes.extend(rehearse::too_long(&config.app, &host, &config.respond));
                let token = wiring::telemetry_token(&config, Handle::current());
                mistakes.extend(
                    telemetry::check(&config.telemetry, Program::FunctionHandlers, token)
                        .err()
                        .map(|error| error.to_string()),
                );
                mistakes.extend(Services::new(config, llm).err().map(|error| format!("{error:#}")));
            }
            Err(error) => mistakes.push(format!("{error:#}")),
        }
    }
    for note in &notes {
        note!("{note}");
    }
    if mistakes.is_empty() {
        say!("Registrations, function folders and {checked} agree.");
        return Ok(ExitCode::SUCCESS);
    }
    for mistake in &mistakes {
        note!("{mistake}");
    }
    Ok(ExitCode::FAILURE)
}
