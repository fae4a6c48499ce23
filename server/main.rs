//! `conversation-server`: the always-on process for long conversations.

#[macro_use(say)]
extern crate colloquy;

mod admin;
mod app;
mod browser;
mod chat;
mod commands;
mod console;
mod conversations;
mod edge;
mod embeddings;
mod grants;
mod health;
mod http;
mod models;
mod openapi;
mod patience;
mod responses;
mod routes;
mod socket;
mod stream;
mod usage;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use colloquy::config::{Config, ProcessEnvironment};
use colloquy::jobs::kinds::JobKind;
use colloquy::tasks::Tasks;
use colloquy::telemetry::{self, Program, metrics};
use colloquy::wiring;
use hyper::service::{Service, service_fn};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpSocket;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::commands::{Cli, Command};
use crate::edge::{Connections, Limits};

fn main() -> ExitCode {
    let command = Cli::parse().command.unwrap_or(Command::Serve);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return commands::failure(&error.into()),
    };
    let result = match command {
        Command::Serve => runtime.block_on(serve()).map(|()| ExitCode::SUCCESS),
        command => runtime.block_on(commands::run(command)),
    };
    // Whatever still runs must not hold up the end.
    runtime.shutdown_background();
    result.unwrap_or_else(|error| commands::failure(&error))
}

/// The life of the process, from its settings to its last connection.
async fn serve() -> anyhow::Result<()> {
    colloquy::functions::install_panic_hook();
    let (config, llm) = Config::load_with_models(&ProcessEnvironment, &JobKind::names())?;
    let token = wiring::telemetry_token(&config, tokio::runtime::Handle::current());
    let telemetry = telemetry::init(&config.telemetry, Program::ConversationServer, token)?;

    let capacity = config.server.connections.unwrap_or_else(connection_capacity);
    let address = SocketAddr::new(config.server.bind, config.server.port);
    let listener = listen(address, config.server.send_buffer)
        .with_context(|| format!("cannot listen on {address} (BIND_ADDRESS, PORT)"))?;
    let (stopping, cutting) = (CancellationToken::new(), CancellationToken::new());
    let limits = Limits {
        head_max: config.server.head_max,
        head_timeout: config.server.head_timeout,
        write_patience: config.server.write_patience,
    };
    let (drain, tasks, connections) = (config.server.drain, Tasks::new(), Tasks::new());
    let counted = Arc::new(Connections::new(capacity));
    let app =
        Arc::new(App::new(config, llm, &tasks, connections.clone(), Arc::clone(&counted), stopping.clone())?);

    let measured = Arc::clone(&app);
    tasks.repeat("measures", metrics::EVERY, move || measured.measure());
    let routes = TowerToHyperService::new(warp::service(routes::filter(Arc::clone(&app))));
    let sockets = Arc::clone(&app);
    let service = service_fn(move |request| {
        let (routes, app) = (routes.clone(), Arc::clone(&sockets));
        async move {
            if socket::is_upgrade(&request) {
                Ok::<_, Infallible>(Box::pin(socket::accept(app, request)).await)
            } else {
                routes.call(request).await
            }
        }
    });
    let stop = stopping.clone();
    tasks.spawn("signals", async move {
        stopped().await;
        stop.cancel();
    });
    tracing::info!(code = "serving", %address, connections = capacity, "the conversation server serves");
    edge::serve(listener, limits, counted, service, connections.clone(), stopping, cutting.clone()).await?;

    tracing::info!(code = "draining", turns = app.engine.open_turns(), "the conversation server stops");
    app.engine.drain(drain).await;
    if let Err(error) = app.engine.spend().finish().await {
        tracing::warn!(code = error.code(), %error, "slices of budgets return when their lease lapses");
    }
    cutting.cancel();
    for (tasks, patience) in [(connections, 2), (tasks, 2)] {
        if let Err(error) = tasks.stop(Duration::from_secs(patience)).await {
            tracing::warn!(code = colloquy::tasks::StillRunning::CODE, %error, "the end did not wait any longer");
        }
    }
    tracing::info!(code = "stopped", "the conversation server has stopped");
    drop(telemetry);
    Ok(())
}

fn listen(address: SocketAddr, send_buffer: u32) -> std::io::Result<tokio::net::TcpListener> {
    const BACKLOG: u32 = 4_096;
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Connections inherit it.
    socket.set_send_buffer_size(send_buffer)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// How many connections the limit of open files allows, once it is raised as far as it may be.
fn connection_capacity() -> usize {
    /// For the database, providers, storage, logs.
    const RESERVE: u64 = 512;
    const WITHOUT_LIMIT: u64 = 100_000;
    let files = rlimit::increase_nofile_limit(WITHOUT_LIMIT).unwrap_or_else(|error| {
        tracing::warn!(code = "files.limit_unknown", %error, "the limit of open files could not be raised");
        1_024
    });
    usize::try_from(files.saturating_sub(RESERVE).max(files / 2)).unwrap_or(usize::MAX)
}

async fn stopped() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without signals SIGKILL is the end.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
