//! `devhost`: runs a custom-handler function app on one machine as the Azure Functions host would.
//!
//! Never shipped. It follows the wire contract between the host and custom handlers; docs/devhost.md says how to
//! use it and where it differs on purpose.

mod answer;
mod args;
mod envelope;
mod front;
mod functions;
mod handler;
mod host_json;
mod invoke;
mod invoker;
mod log;
mod outputs;
mod queue;
mod runner;
mod settings;
mod start;
mod storage;
mod timer;
mod timespan;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser;

/// Single-threaded on purpose: the handler's parent-death signal is tied to the thread that started it, and the
/// main thread is the one that lives as long as devhost.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = match Cli::parse().command() {
        Command::Start(args) => start::run(args).await,
        Command::Invoke(args) => invoke::run(args).await,
    };
    match result {
        Ok(code) => code,
        Err(cause) => {
            log::error(format!("{cause:#}"));
            ExitCode::FAILURE
        }
    }
}
