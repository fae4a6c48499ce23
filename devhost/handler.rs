//! The custom handler's process: started, awaited, restarted, killed. functions-host.md §1.

mod launch;
mod output;
mod readiness;
mod restart;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::host_json::HandlerConfig;
use crate::log::{self, Event};
use crate::settings::Settings;
use restart::{Policy, Verdict};

/// How often the executable is looked at with `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_millis(300);
/// How long the real host waits for a killed process.
const KILL_WAIT: Duration = Duration::from_secs(1);
/// An invocation waits for readiness at most this many initialization timeouts; then the host stops.
const READY_WAITS: u32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    /// Also after exit code 0: the host goes on believing that the handler serves.
    Ready,
}

#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    generation: u64,
}

/// Why the host cannot go on.
#[derive(Debug, Error)]
pub enum Fatal {
    #[error(
        "Exceeded language worker restart retry count for runtime:custom. Shutting down the host: {errors} errors of the handler with less than 30 minutes between them; the last: {last}"
    )]
    CrashLimit { errors: usize, last: String },
    #[error(
        "the handler was not ready after {0:?}; the host stops. Raise customHandler.initializationTimeout if it needs longer"
    )]
    NeverReady(Duration),
}

/// What the rest of the host sees of the handler; cheap to clone.
#[derive(Clone)]
pub struct Handler {
    address: SocketAddr,
    ready_limit: Duration,
    state: watch::Receiver<State>,
    restarts: mpsc::UnboundedSender<Restart>,
    fatal: mpsc::UnboundedSender<Fatal>,
}

struct Restart {
    generation: u64,
    reason: String,
}

impl Handler {
    /// Where the handler listens; the same for all its starts.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the handler is ready and names which start of it that is. Stops the host if it never is.
    pub async fn ready(&self) -> Result<u64, NotReady> {
        let mut state = self.state.clone();
        let wait = state.wait_for(|state| state.phase == Phase::Ready);
        match tokio::time::timeout(self.ready_limit, wait).await {
            Ok(Ok(state)) => Ok(state.generation),
            Ok(Err(_)) => Err(NotReady),
            Err(_) => {
                // The receiver is gone only when the host is stopping anyway.
                self.fatal.send(Fatal::NeverReady(self.ready_limit)).ok();
                Err(NotReady)
            }
        }
    }

    /// Kills this start of the handler and starts it again, uncounted. A later start is left alone.
    pub fn restart(&self, generation: u64, reason: String) {
        // As above.
        self.restarts.send(Restart { generation, reason }).ok();
    }
}

#[derive(Debug, Error)]
#[error("the handler is not running")]
pub struct NotReady;

/// Everything the supervisor needs.
pub struct Supervisor {
    pub root: PathBuf,
    pub config: HandlerConfig,
    pub settings: Arc<Settings>,
    pub crash_limit: Option<usize>,
    pub watch: bool,
    pub tasks: TaskTracker,
    address: SocketAddr,
    state: watch::Sender<State>,
    restarts: mpsc::UnboundedReceiver<Restart>,
    fatal: mpsc::UnboundedReceiver<Fatal>,
    generation: u64,
}

/// How one start of the handler came to its end.
enum End {
    Exited { code: Option<i32>, detail: String },
    Failed(String),
    Requested(String),
    Stopped,
    Fatal(Fatal),
}

impl Supervisor {
    pub fn new(
        root: PathBuf,
        config: HandlerConfig,
        settings: Arc<Settings>,
        address: SocketAddr,
        crash_limit: Option<usize>,
        watch: bool,
        tasks: TaskTracker,
    ) -> (Self, Handler) {
        let (state_sender, state) = watch::channel(State { phase: Phase::Starting, generation: 0 });
        let (restart_sender, restarts) = mpsc::unbounded_channel();
        let (fatal_sender, fatal) = mpsc::unbounded_channel();
        let ready_limit = config.initialization_timeout * READY_WAITS;
        let handler = Handler { address, ready_limit, state, restarts: restart_sender, fatal: fatal_sender };
        (
            Supervisor {
                root,
                config,
                settings,
                crash_limit,
                watch,
                tasks,
                address,
                state: state_sender,
                restarts,
                fatal,
                generation: 0,
            },
            handler,
        )
    }

    /// Keeps the handler running until `stop`; the process is dead when this returns.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Fatal> {
        let mut policy = Policy::new(self.crash_limit);
        loop {
            self.generation += 1;
            self.state.send_replace(State { phase: Phase::Starting, generation: self.generation });
            let end = self.run_once(&stop).await;
            let error = match end {
                End::Stopped => return Ok(()),
                End::Fatal(fatal) => return Err(fatal),
                End::Requested(reason) => {
                    log::warning(format!("Restarting the handler: {reason}"));
                    continue;
                }
                End::Exited { code, detail } => match restart::judge_exit(code) {
                    Verdict::Restart => {
                        log::information(
                            "The handler exited with code 200: restarting it, not counted as an error",
                        );
                        continue;
                    }
                    Verdict::LeaveStopped => {
                        log::warning(
                            "The handler exited with code 0: the host takes this for success and does not restart it. Invocations fail from here on (connection refused)",
                        );
                        match self.stay_stopped(&stop).await {
                            End::Stopped => return Ok(()),
                            End::Fatal(fatal) => return Err(fatal),
                            _ => continue,
                        }
                    }
                    Verdict::Error => detail,
                },
                End::Failed(reason) => reason,
            };
            log::error(format!("The handler failed: {error}"));
            if !policy.record_error(Instant::now()) {
                return Err(Fatal::CrashLimit { errors: policy.errors(), last: error });
            }
            if self.watch && !launch::find_executable(&self.root, &self.config, &self.settings).exists() {
                log::warning("The executable is not there; waiting for it (--watch)");
                match self.stay_stopped(&stop).await {
                    End::Stopped => return Ok(()),
                    End::Fatal(fatal) => return Err(fatal),
                    _ => continue,
                }
            }
        }
    }

    async fn run_once(&mut self, stop: &CancellationToken) -> End {
        let started = Instant::now();
        let spawned = launch::command(&self.root, &self.config, &self.settings, self.address.port()).spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(cause) => {
                let path = launch::find_executable(&self.root, &self.config, &self.settings);
                return End::Failed(format!(
                    "cannot start {}: {cause}. Build it, or correct customHandler.description.defaultExecutablePath",
                    path.display()
                ));
            }
        };
        let pid = child.id().unwrap_or_default();
        log::information(format!("Started the handler, process {pid}, port {}", self.address.port()));
        let output = output::Output::follow(&mut child, self.config.stderr_for_errors_only, &self.tasks);
        let limit = self.config.initialization_timeout;
        let ready = tokio::select! {
            exit = child.wait() => Err(exited(exit)),
            ready = tokio::time::timeout(limit, readiness::wait(self.address, &self.tasks)) => ready.map_err(|_| {
                End::Failed(format!("it did not listen on {} within {limit:?} (customHandler.initializationTimeout)", self.address))
            }),
            () = stop.cancelled() => Err(End::Stopped),
            Some(fatal) = self.fatal.recv() => Err(End::Fatal(fatal)),
        };
        let end = match ready {
            Ok(()) => {
                let after_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                log::machine(&Event::HandlerReady { pid, generation: self.generation, after_ms });
                self.state.send_replace(State { phase: Phase::Ready, generation: self.generation });
                self.while_ready(&mut child, stop).await
            }
            Err(end) => end,
        };
        if !matches!(end, End::Exited { code: Some(0), .. }) {
            self.state.send_replace(State { phase: Phase::Starting, generation: self.generation });
        }
        kill(&mut child).await;
        output.drain(KILL_WAIT).await;
        let end = match end {
            End::Exited { code, .. } => End::Exited { code, detail: output.describe_exit(code) },
            end => end,
        };
        log::machine(&Event::HandlerStopped { generation: self.generation, reason: describe(&end) });
        end
    }

    async fn while_ready(&mut self, child: &mut Child, stop: &CancellationToken) -> End {
        let executable = self.watched();
        tokio::select! {
            exit = child.wait() => exited(exit),
            () = stop.cancelled() => End::Stopped,
            request = next_restart(&mut self.restarts, self.generation) => End::Requested(request),
            Some(fatal) = self.fatal.recv() => End::Fatal(fatal),
            () = changed(executable) => End::Requested("its executable changed".to_owned()),
        }
    }

    /// Nothing runs, nothing restarts by itself.
    async fn stay_stopped(&mut self, stop: &CancellationToken) -> End {
        let executable = self.watched();
        tokio::select! {
            () = stop.cancelled() => End::Stopped,
            request = next_restart(&mut self.restarts, self.generation) => End::Requested(request),
            Some(fatal) = self.fatal.recv() => End::Fatal(fatal),
            () = changed(executable) => End::Requested("its executable changed".to_owned()),
        }
    }

    fn watched(&self) -> Option<PathBuf> {
        self.watch.then(|| launch::find_executable(&self.root, &self.config, &self.settings))
    }
}

async fn next_restart(restarts: &mut mpsc::UnboundedReceiver<Restart>, generation: u64) -> String {
    loop {
        match restarts.recv().await {
            Some(restart) if restart.generation == generation => return restart.reason,
            // Meant for a start that is over.
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

/// Ends once the file differs from what it was and has stopped changing.
async fn changed(path: Option<PathBuf>) {
    let Some(path) = path else { return std::future::pending().await };
    let stamp = || -> Option<(SystemTime, u64)> {
        let metadata = std::fs::metadata(&path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    let first = stamp();
    let mut previous = first;
    loop {
        sleep(WATCH_INTERVAL).await;
        let now = stamp();
        if now.is_some() && now != first && now == previous {
            return;
        }
        previous = now;
    }
}

fn exited(exit: std::io::Result<std::process::ExitStatus>) -> End {
    match exit {
        Ok(status) => End::Exited { code: status.code(), detail: String::new() },
        Err(cause) => End::Failed(format!("cannot wait for it: {cause}")),
    }
}

fn describe(end: &End) -> String {
    match end {
        End::Exited { code: Some(code), .. } => format!("exited with code {code}"),
        End::Exited { code: None, .. } => "killed by a signal".to_owned(),
        End::Failed(reason) | End::Requested(reason) => reason.clone(),
        End::Stopped => "the host stops".to_owned(),
        End::Fatal(fatal) => fatal.to_string(),
    }
}

async fn kill(child: &mut Child) {
    // An already ended process is no failure to kill it.
    child.start_kill().ok();
    match tokio::time::timeout(KILL_WAIT, child.wait()).await {
        Ok(Ok(_)) => {}
        Ok(Err(cause)) => log::error(format!("cannot wait for the killed handler: {cause}")),
        Err(_) => log::error("the killed handler did not end within 1 s"),
    }
}
