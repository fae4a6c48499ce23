//! `function-handlers`: the process behind the Functions host, and the operator's commands on the same configuration.

#[macro_use(note, say)]
extern crate colloquy;

mod admission;
mod commands;
mod health;
mod hints;
mod maintain;
mod memory;
mod migrate;
mod models;
mod payload;
mod problems;
mod process_event;
mod receive_webhook;
mod registrations;
mod respond;
mod rotations;
mod run_job;
mod send_callback;
mod services;
mod settlement;
mod work;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context;
use clap::Parser;
use colloquy::config::{Config, ConfigErrors, Environment, LlmConfig, ProcessEnvironment};
use colloquy::functions::{self, HostSettings, ServeOptions};
use colloquy::jobs::kinds::JobKind;
use colloquy::tasks::Tasks;
use colloquy::telemetry::{self, Program, TelemetryError, metrics};
use colloquy::wiring;
use tokio::signal::unix::{SignalKind, signal};

use crate::commands::Cli;
use crate::memory::Trimmer;
use crate::services::{Services, contradictions};
use crate::settlement::QueueSettlement;

/// What the process behind the host ends with when it was told to end. The host starts it again at once and does not count
/// that as an error; after 0 it would go on without a handler, for as long as it lives.
const START_AGAIN: u8 = 200;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.command.is_none() {
        memory::keep_small(&ProcessEnvironment);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return commands::failure(&error.into()),
    };
    let code = match cli.command {
        None => match runtime.block_on(serve()) {
            Ok(()) => ExitCode::from(START_AGAIN),
            Err(fatal) => {
                // The host makes an error of its own of every line on stderr; a log collector reads stdout.
                telemetry::last_words(fatal.code, &format!("{:#}", fatal.error));
                ExitCode::FAILURE
            }
        },
        Some(command) => {
            runtime.block_on(commands::run(command)).unwrap_or_else(|error| commands::failure(&error))
        }
    };
    // Whatever still runs must not hold up the end.
    runtime.shutdown_background();
    code
}

/// Why the process behind the host ends, and the code that its log line has.
struct Fatal {
    code: &'static str,
    error: anyhow::Error,
}

fn fatal<E: Into<anyhow::Error>>(code: &'static str) -> impl FnOnce(E) -> Fatal {
    move |error| Fatal { code, error: error.into() }
}

/// The life of the process behind the host, from bind to stop.
async fn serve() -> Result<(), Fatal> {
    functions::install_panic_hook();
    functions::die_with_parent()
        .context("cannot ask to die with the parent process")
        .map_err(fatal("parent_unwatched"))?;

    let environment = ProcessEnvironment;
    let host =
        HostSettings::from_lookup(|name| environment.get(name)).map_err(fatal("host_settings_invalid"))?;
    let port = host.port().map_err(fatal("host_settings_invalid"))?;
    let listener = functions::bind(port)
        .context("cannot listen on FUNCTIONS_CUSTOMHANDLER_PORT")
        .map_err(fatal("port_not_free"))?;

    let (config, llm) = load_with_models(&environment).map_err(fatal(ConfigErrors::CODE))?;
    let token = wiring::telemetry_token(&config, tokio::runtime::Handle::current());
    let telemetry = telemetry::init(&config.telemetry, Program::FunctionHandlers, token)
        .map_err(fatal(TelemetryError::CODE))?;
    for unused in config
        .webhook_secrets
        .unused(&config.app)
        .into_iter()
        .chain(config.callback_secrets.unused(&config.app))
    {
        tracing::warn!(
            code = "secret_unused",
            variable = unused,
            "a secret fits no source or target of colloquy.toml"
        );
    }

    for mistake in contradictions(&config.app, config.environment) {
        tracing::warn!(code = "config_contradiction", mistake, "a part of colloquy.toml can never work");
    }

    let services = Services::new(config, llm).map_err(fatal(ConfigErrors::CODE))?;
    let app = registrations::app(&Arc::downgrade(&services))
        .settlement(QueueSettlement { services: services.clone() });
    let manifest = app.check(&host.app_root).map_err(fatal("functions_differ"))?;
    for mistake in commands::too_long(&services.config.app, &manifest.host, &services.config.respond) {
        tracing::warn!(code = "config_contradiction", mistake, "a part of colloquy.toml can never work");
    }
    let options = ServeOptions::new(&manifest, &host).stop_when(stopped());
    let (tasks, measured) = (Tasks::new(), Arc::clone(&services));
    tasks.repeat("measures", metrics::EVERY, move || measured.measure());
    let (trimmer, calls) = (Trimmer::default(), Arc::clone(&options.calls));
    tasks.repeat("memory", memory::EVERY, move || trimmer.look(calls.load(Ordering::Relaxed)));
    tracing::info!(code = "serving", functions = manifest.bindings.len(), "the function handlers serve");
    let served = app.serve(listener, options).await.map_err(fatal("serving_failed"));
    services.models.close().await;
    served?;

    tracing::info!(code = "stopped", "the function handlers stop");
    drop(telemetry);
    Ok(())
}

/// What commands need.
fn load(environment: &dyn Environment) -> anyhow::Result<Config> {
    Ok(Config::load(environment, &JobKind::names())?)
}

/// What the process behind the host needs: also what asks models, if a route does so here.
fn load_with_models(environment: &dyn Environment) -> anyhow::Result<(Config, Option<LlmConfig>)> {
    Ok(Config::load_with_models_of_jobs(environment, &JobKind::names())?)
}

async fn stopped() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without signals the host's SIGKILL is the end, as it is anyway.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
