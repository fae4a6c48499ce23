//! The app that was found, and its listeners.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::Bends;
use crate::front::{Front, Parts};
use crate::functions::{self, Function, Trigger};
use crate::handler::Handler;
use crate::host_json::HostConfig;
use crate::invoker::Invoker;
use crate::runner::Runner;
use crate::settings::Settings;
use crate::storage::{Accounts, Messages};
use crate::{log, queue, timer};

const BODY_LIMIT_SETTING: &str = "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT";
/// 100 MiB, the host's own.
const BODY_LIMIT: u64 = 104_857_600;

/// What an app is started in.
pub struct Host<'a> {
    pub handler: Handler,
    pub listener: TcpListener,
    /// The public address, without a slash at the end.
    pub base: String,
    pub settings: &'a Settings,
    pub bends: &'a Bends,
    pub tasks: &'a TaskTracker,
    pub stop: &'a CancellationToken,
}

pub struct App {
    pub config: HostConfig,
    functions: Vec<Arc<Function>>,
    errors: Vec<(String, String)>,
    host_id: String,
    body_limit: u64,
}

impl App {
    /// Reads host.json and the function folders. A function in error is left out, as the host leaves it out.
    pub fn load(root: &Path, settings: &Settings) -> anyhow::Result<Self> {
        let config = HostConfig::load(root, settings)?;
        let (found, errors) =
            functions::load(root, settings).with_context(|| format!("cannot list {}", root.display()))?;
        if found.is_empty() && errors.is_empty() {
            bail!("no function folder (a directory with function.json) in {}", root.display());
        }
        let errors: Vec<_> = errors.into_iter().map(|error| (error.function, error.reason)).collect();
        let mut functions = Vec::new();
        let mut all_errors = errors;
        for function in found {
            match check_schedule(&function) {
                Ok(()) => functions.push(Arc::new(function)),
                Err(reason) => all_errors.push((function.name, reason)),
            }
        }
        let body_limit = match settings.get(BODY_LIMIT_SETTING) {
            Some(text) => text
                .parse()
                .with_context(|| format!("{BODY_LIMIT_SETTING} is {text:?}, expected a number of bytes"))?,
            None => BODY_LIMIT,
        };
        Ok(App { config, functions, errors: all_errors, host_id: host_id(root, settings), body_limit })
    }

    /// The start-up list, as `func start` prints it.
    pub fn print_functions(&self, base: &str) {
        log::plain("\nFunctions:\n");
        for function in &self.functions {
            let state = if function.disabled { " (disabled)" } else { "" };
            log::plain(format!("\t{}{state}\n", function.listing(base, &self.config.route_prefix)));
        }
        for (function, reason) in &self.errors {
            log::error(format!("The '{function}' function is in error: {reason}"));
        }
    }

    /// Starts the HTTP front and a listener for each queue and timer function.
    pub fn start(self, host: Host<'_>) -> anyhow::Result<()> {
        let Host { handler, listener, base, settings, bends, tasks, stop } = host;
        let invoker =
            Invoker::new(handler, self.config.function_timeout).context("cannot make an HTTP client")?;
        let accounts = Accounts::new(settings);
        let runner = Arc::new(Runner::new(
            invoker.clone(),
            self.output_queues(&accounts)?,
            self.config.queues.encoding,
        ));
        for function in self.functions.iter().filter(|function| !function.disabled) {
            match &function.trigger {
                Trigger::Http { .. } => {}
                Trigger::Queue { queue, connection } => {
                    let storage = accounts.open(connection)?;
                    let poison = queue::poison_queue(queue)
                        .map(|name| Arc::new(storage.queue(&name)) as Arc<dyn Messages>);
                    let listener = queue::Listener {
                        function: Arc::clone(function),
                        config: self.config.queues.clone(),
                        lease: bends.message_lease(),
                        speed: bends.speed(),
                        queue: Arc::new(storage.queue(queue)),
                        poison,
                        runner: Arc::clone(&runner) as Arc<dyn queue::RunMessage>,
                        tasks: tasks.clone(),
                    };
                    tasks.spawn(listener.run(stop.clone()));
                }
                Trigger::Timer { schedule, run_on_startup, use_monitor } => {
                    let listener = timer::Listener {
                        function: Arc::clone(function),
                        schedule: timer::Schedule::parse(schedule).map_err(anyhow::Error::msg)?,
                        run_on_startup: *run_on_startup,
                        use_monitor: *use_monitor,
                        host_id: self.host_id.clone(),
                        lease: bends.timer_lease(),
                        speed: bends.speed(),
                        zone: TimeZone::system(),
                        blobs: Arc::new(accounts.open("")?.container(timer::CONTAINER)),
                        runner: Arc::clone(&runner) as Arc<dyn timer::RunTimer>,
                        tasks: tasks.clone(),
                    };
                    tasks.spawn(listener.run(stop.clone()));
                }
            }
        }
        let App { config, functions, errors, host_id, body_limit } = self;
        let parts = Parts {
            functions,
            errors,
            config,
            host_id,
            base,
            body_limit,
            invoker,
            runner,
            tasks: tasks.clone(),
        };
        tasks.spawn(Arc::new(Front::new(parts)).serve(listener, stop.clone()));
        Ok(())
    }

    fn output_queues(
        &self,
        accounts: &Accounts<'_>,
    ) -> anyhow::Result<HashMap<(String, String), Arc<dyn Messages>>> {
        let mut queues = HashMap::new();
        for function in &self.functions {
            for output in function.outputs() {
                if let Some(name) = &output.queue {
                    let queue: Arc<dyn Messages> = Arc::new(accounts.open(&output.connection)?.queue(name));
                    queues.insert((function.name.clone(), output.name.clone()), queue);
                }
            }
        }
        Ok(queues)
    }
}

fn check_schedule(function: &Function) -> Result<(), String> {
    match &function.trigger {
        Trigger::Timer { schedule, .. } => timer::Schedule::parse(schedule).map(drop),
        _ => Ok(()),
    }
}

/// Hosts of one root share timers; `AzureFunctionsWebHost__hostid` makes others share, or keeps these apart.
fn host_id(root: &Path, settings: &Settings) -> String {
    if let Some(id) = settings.get("AzureFunctionsWebHost__hostid").filter(|id| !id.is_empty()) {
        return id.to_owned();
    }
    let digest = Sha256::digest(PathBuf::from(root).as_os_str().as_encoded_bytes());
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_one_root_share_an_id_and_a_setting_overrides_it() {
        let none = Settings::default();
        let id = host_id(Path::new("/app"), &none);
        assert_eq!((id.len(), id == host_id(Path::new("/app"), &none)), (32, true));
        assert_ne!(id, host_id(Path::new("/other"), &none));
        assert_eq!(
            host_id(Path::new("/app"), &Settings::from_pairs(&[("AzureFunctionsWebHost__hostid", "mine")])),
            "mine"
        );
    }
}
