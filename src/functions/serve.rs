//! The listener, its connections, and how they end.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::survive;
use super::app::App;
use super::dispatch::{self, Dispatch};
use super::manifest::{Manifest, ManifestError};
use super::settings::HostSettings;

/// How to serve. The limits are public fields: change them after [`ServeOptions::new`].
pub struct ServeOptions {
    /// The host's timeout; `None` is unlimited. From `host.json`, or its variable.
    pub function_timeout: Option<Duration>,
    /// A quarter of how long an invocation may have waited for this process; see [`budget`](super::budget).
    pub initialization_timeout: Duration,
    /// Before every route, without slashes at its ends.
    pub route_prefix: String,
    /// Largest HTTP body, in bytes. An envelope may be a third larger, for base64, and 4 MiB.
    pub request_body_limit: u64,
    /// The trigger binding's name of each function; one not named takes the only value of its envelope.
    pub bindings: BTreeMap<String, String>,
    /// When the process began, for the allowance to young ones. Default: when this was made.
    pub started: Instant,
    /// Most time a [`Settlement`](super::Settlement) call gets, and never more than a quarter of
    /// `function_timeout`, so that it fits between a handler's deadline and the host's timeout. Default 10 s.
    pub settlement_limit: Duration,
    /// Most time for a request's head, idle time on a kept connection included. Default 120 s: the host drops
    /// idle connections after 60 s, and must be the first to, since a request sent into a closing connection
    /// is lost.
    pub head_timeout: Duration,
    /// Bytes a connection buffers, and so the largest head. Default 128 KiB; the host itself takes 32 KiB.
    pub buffer_limit: usize,
    /// Most connections at once; more wait unaccepted. Default 4,096: the host bounds what it runs, not what
    /// it keeps.
    pub connection_limit: usize,
    /// Most time for reading, and forgetting, what a handler left of a body, before its answer is sent; a
    /// connection that closes on a host still sending loses the answer. Default 5 s.
    pub discard_limit: Duration,
    /// How long running invocations get to finish once stopped. Default 10 s.
    pub drain: Duration,
    /// Counts what was called, the host's pings left out; share it to see whether a burst of work is over.
    pub calls: Arc<AtomicU64>,
    stop: BoxFuture<'static, ()>,
}

impl ServeOptions {
    /// Everything from the folders, overridden by the host's variables; defaults for the rest.
    pub fn new(manifest: &Manifest, settings: &HostSettings) -> Self {
        let host = &manifest.host;
        Self {
            function_timeout: settings.function_timeout.unwrap_or(host.function_timeout),
            initialization_timeout: settings.initialization_timeout.unwrap_or(host.initialization_timeout),
            route_prefix: settings.route_prefix.clone().unwrap_or_else(|| host.route_prefix.clone()),
            request_body_limit: settings.request_body_limit,
            bindings: manifest.bindings.clone(),
            started: Instant::now(),
            settlement_limit: Duration::from_secs(10),
            head_timeout: Duration::from_secs(120),
            buffer_limit: 128 * 1024,
            connection_limit: 4096,
            discard_limit: Duration::from_secs(5),
            drain: Duration::from_secs(10),
            calls: Arc::default(),
            stop: std::future::pending().boxed(),
        }
    }

    /// Stop accepting once `stop` resolves, and finish what runs.
    #[must_use]
    pub fn stop_when(self, stop: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { stop: stop.boxed(), ..self }
    }
}

/// Why serving ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Mistakes in registering that [`App::check`] would have listed.
    #[error(transparent)]
    Registration(#[from] ManifestError),
    #[error("the listening socket failed: {0}; the process must be started again")]
    Accept(io::Error),
    #[error("buffer_limit is {0} bytes; set it to at least 8192")]
    BufferLimit(usize),
}

/// Listens on 127.0.0.1, where alone the host calls. `SO_REUSEADDR`, because a restarted handler gets the
/// same port. Port 0 takes any. Must be called within a Tokio runtime.
pub fn bind(port: u16) -> io::Result<TcpListener> {
    const BACKLOG: u32 = 1024;
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket.bind(address).and_then(|()| socket.listen(BACKLOG)).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot listen on {address}: {error}; is another handler still running?"),
        )
    })
}

pub(super) async fn serve(app: App, listener: TcpListener, options: ServeOptions) -> Result<(), ServeError> {
    if !app.mistakes.is_empty() {
        return Err(ManifestError { differences: app.mistakes }.into());
    }
    if options.buffer_limit < 8192 {
        return Err(ServeError::BufferLimit(options.buffer_limit));
    }
    let dispatch = Arc::new(Dispatch::new(app, &options));
    let service = TowerToHyperService::new(warp::service(dispatch::filter(dispatch)));
    let mut http1 = http1::Builder::new();
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(options.head_timeout)
        .max_buf_size(options.buffer_limit);

    // Every task this module starts is a connection and in here.
    let connections = TaskTracker::new();
    let stopping = CancellationToken::new();
    let cutting = CancellationToken::new();
    let permits = Arc::new(tokio::sync::Semaphore::new(options.connection_limit));
    let mut stop = options.stop;
    loop {
        let accepted = async {
            // The semaphore is never closed, so there is always a permit in the end.
            let permit = Arc::clone(&permits).acquire_owned().await.ok();
            listener.accept().await.map(|(stream, _)| (stream, permit))
        };
        let (stream, permit) = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accepted => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    survive(error).await.map_err(ServeError::Accept)?;
                    continue;
                }
            },
        };
        no_delay(&stream);
        let connection = http1.serve_connection(TokioIo::new(stream), service.clone());
        let (stopping, cutting) = (stopping.clone(), cutting.clone());
        connections.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stopping.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = connection => ended,
                        () = cutting.cancelled() => Ok(()),
                    }
                }
            };
            if let Err(error) = ended {
                // A caller that left, or a port scan: nothing to act on.
                tracing::debug!(code = "connection.broken", %error, "a connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    stopping.cancel();
    connections.close();
    if timeout(options.drain, connections.wait()).await.is_err() {
        tracing::warn!(
            code = "serve.cut",
            connections = connections.len(),
            "invocations still running after the drain were cut; the host runs them again",
        );
        cutting.cancel();
        connections.wait().await;
    }
    Ok(())
}

/// Small answers must not wait for an acknowledgement.
fn no_delay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(code = "connection.delayed", %error, "TCP_NODELAY could not be set");
    }
}
