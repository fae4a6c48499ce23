//! `devhost start`, in the order in which things happen.

mod app;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::StartArgs;
use crate::handler::Supervisor;
use crate::log::{self, Event};
use crate::settings::Settings;
use app::{App, Host};

const DEFAULT_PORT: u16 = 7071;
/// How long invocations that fail because the host stops may take to give their messages back.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Runs the app until a signal or a fatal error of the handler.
pub async fn run(args: StartArgs) -> anyhow::Result<ExitCode> {
    let root = args.root.canonicalize().with_context(|| format!("--root {}", args.root.display()))?;
    let settings = Arc::new(Settings::load(&root, args.env_file.as_deref())?);
    refuse_bends_in_production(&args, &settings)?;
    if settings.wants_cors {
        log::warning("Host.CORS of local.settings.json is ignored: devhost lets OPTIONS reach the functions");
    }
    let app = App::load(&root, &settings)?;

    let port = args.port.or(settings.local_port).unwrap_or(DEFAULT_PORT);
    let listener = TcpListener::bind((args.address, port)).await.with_context(|| {
        format!("cannot listen on {}:{port}; stop what does, or choose another --port", args.address)
    })?;
    let address = listener.local_addr()?;
    let handler_address = handler_address(app.config.handler.port).await?;
    app.print_functions(&base(address));
    log::machine(&Event::Listening {
        address: address.ip().to_string(),
        port: address.port(),
        handler_port: handler_address.port(),
        pid: std::process::id(),
    });

    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    let (supervisor, handler) = Supervisor::new(
        root,
        app.config.handler.clone(),
        Arc::clone(&settings),
        handler_address,
        args.bends.crash_limit(),
        args.watch,
        tasks.clone(),
    );
    let supervision = tasks.spawn(supervisor.run(stop.clone()));
    app.start(Host {
        handler,
        listener,
        base: base(address),
        settings: &settings,
        bends: &args.bends,
        tasks: &tasks,
        stop: &stop,
    })?;

    let result = until_end(supervision, &stop).await;
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(STOP_LIMIT, tasks.wait()).await.is_err() {
        log::warning(
            "some invocations could not be settled in time; their messages become visible when their leases lapse",
        );
    }
    log::information("Stopped");
    result
}

/// Ends with the handler's supervision: by a signal, after the handler is dead, or by a fatal error.
async fn until_end(
    mut supervision: tokio::task::JoinHandle<Result<(), crate::handler::Fatal>>,
    stop: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let ended = tokio::select! {
        ended = &mut supervision => ended,
        _ = interrupt.recv() => {
            stop.cancel();
            supervision.await
        }
        _ = terminate.recv() => {
            stop.cancel();
            supervision.await
        }
    };
    ended.context("the supervision of the handler ended badly")??;
    Ok(ExitCode::SUCCESS)
}

fn refuse_bends_in_production(args: &StartArgs, settings: &Settings) -> anyhow::Result<()> {
    let bends = args.bends.in_force();
    if bends.is_empty() {
        return Ok(());
    }
    if settings.get("APP_ENV").is_some_and(|env| env.eq_ignore_ascii_case("production")) {
        bail!(
            "{} bend the host's contract and are refused with APP_ENV=production; leave them out",
            bends.join(" ")
        );
    }
    log::warning(format!("The host's contract is bent: {}", bends.join(" ")));
    Ok(())
}

/// A free port as the host finds one: bound, read, closed, handed over. Somebody may take it in between.
async fn handler_address(fixed: Option<u16>) -> anyhow::Result<SocketAddr> {
    let probe = TcpListener::bind(("127.0.0.1", fixed.unwrap_or(0))).await;
    let probe = probe.with_context(|| format!("cannot bind customHandler.port {}", fixed.unwrap_or(0)))?;
    Ok(probe.local_addr()?)
}

/// The public address, `localhost` standing for loopback as `func` prints it.
fn base(address: SocketAddr) -> String {
    let port = address.port();
    if address.ip().is_loopback() || address.ip().is_unspecified() {
        format!("http://localhost:{port}")
    } else {
        format!("http://{address}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn check(flags: &[&str], env: &str) -> bool {
        let Command::Start(args) = Cli::parse_from([&["devhost", "start"], flags].concat()).command() else {
            panic!("not start")
        };
        refuse_bends_in_production(&args, &Settings::from_pairs(&[("APP_ENV", env)])).is_ok()
    }

    #[test]
    fn bends_are_refused_in_production_only() {
        assert!(!check(&["--speed", "2"], "production"));
        assert!(!check(&["--lease-seconds", "5"], "Production"));
        assert!(check(&["--speed", "2"], "dev"));
        assert!(check(&[], "production"));
    }
}
