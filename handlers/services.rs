//! What the functions share: configuration turned into clients. Building it connects to nothing.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, anyhow};
use colloquy::access::{ApiKeys, JwksCache};
use colloquy::azure::{Container, Queue, Storage};
use colloquy::config::app::{AppConfig, TargetConfig};
use colloquy::config::{AppEnvironment, Config, LlmConfig};
use colloquy::database::{Database, TokenProvider};
use colloquy::events::routes::Routes;
use colloquy::jobs::address::AddressRule;
use colloquy::jobs::callback::Signer;
use colloquy::jobs::kinds::JobKind;
use colloquy::jobs::retry::{Backoff, Schedule};
use colloquy::jobs::sender::{Destination, Sender, SenderLimits};
use colloquy::llm::spend::today;
use colloquy::operations::Operations;
use colloquy::respond::Route;
use colloquy::switches::Switchboard;
use colloquy::telemetry::metrics::{self, RuntimeLoad};
use colloquy::webhooks::Source;
use colloquy::webhooks::sealing::Sealer;
use colloquy::wiring;

use crate::admission::{Admission, Room};
use crate::models::{InUse, Models};

/// Everything a function may need.
pub struct Services {
    pub config: Config,
    pub database: Database,
    pub storage: Storage,
    pub sources: HashMap<String, SourceService>,
    pub room: Room,
    pub routes: Routes,
    pub targets: HashMap<String, Target>,
    pub switches: Switchboard,
    pub operations: Operations,
    pub entra_keys: JwksCache,
    pub sealer: Option<Sealer>,
    pub api_keys: ApiKeys,
    pub backoff: Backoff,
    pub schedule: Schedule,
    /// Routes that have a model answer, by name.
    pub responding: HashMap<String, Route>,
    pub models: Arc<Models>,
    sender: OnceLock<Arc<Sender>>,
    load: RuntimeLoad,
}

/// A source, and what this process remembers of it.
pub struct SourceService {
    pub source: Source,
    pub admission: Admission,
}

/// A receiver of callbacks.
pub struct Target {
    pub config: TargetConfig,
    pub destination: Destination,
    pub signer: Signer,
}

impl Services {
    /// Turns configuration into clients; every mistake that only shows here is in the error.
    ///
    /// `llm`: what asks models, for routes that do so here.
    pub fn new(config: Config, llm: Option<LlmConfig>) -> anyhow::Result<Arc<Self>> {
        let tokens = wiring::token_source(&config);
        let storage = wiring::storage(&config, tokens.as_ref()).map_err(|error| anyhow!(error))?;
        let storage = storage.context("AzureWebJobsStorage is not set")?;
        let switches = Switchboard::new(Some(&storage), &config.storage.container, config.work.switch_cache);
        let models = Arc::new(Models::new(llm, tokens.clone(), switches.clone()));
        let provider =
            tokens.map(|tokens| Arc::new(wiring::DatabaseTokens(tokens)) as Arc<dyn TokenProvider>);
        let database = Database::new(wiring::database_settings(&config), provider)?;
        let mut mistakes = Vec::new();
        let sealer = wiring::sealer(&config).unwrap_or_else(|errors| {
            mistakes.extend(errors.iter().map(ToString::to_string));
            None
        });
        let sources = sources(&config, &mut mistakes);
        mistakes.extend(without_room(&sources, config.work.ingress_max_bytes));
        let targets = targets(&config, &mut mistakes);
        let (responding, unusable) = Route::all(&config.app.routes);
        mistakes.extend(unusable.iter().map(ToString::to_string));
        if !mistakes.is_empty() {
            return Err(anyhow!(mistakes.join("\n")));
        }
        let work = &config.work;
        Ok(Arc::new(Self {
            room: Room::new(usize::try_from(work.ingress_max_bytes).unwrap_or(usize::MAX)),
            routes: Routes::new(&config.app.routes),
            operations: Operations::new(&config, database.clone(), Some(storage.clone()), switches.clone()),
            switches,
            entra_keys: JwksCache::new(config.storage.timeout),
            sealer,
            api_keys: ApiKeys::new(&config.access),
            backoff: Backoff { base: work.retry_base, cap: work.retry_cap },
            schedule: Schedule::new(work.callback_schedule.clone()),
            responding,
            models,
            sender: OnceLock::new(),
            load: RuntimeLoad::start(),
            sources,
            targets,
            database,
            storage,
            config,
        }))
    }

    /// Sets the gauges of what only this process knows.
    pub fn measure(&self) {
        self.database.measure();
        self.load.measure();
        self.models.measure();
        metrics::budget_used_today(today());
    }

    pub fn events_queue(&self) -> Queue {
        self.storage.queue(&self.config.queues.events)
    }

    pub fn jobs_queue(&self) -> Queue {
        self.storage.queue(&self.config.queues.jobs)
    }

    pub fn callbacks_queue(&self) -> Queue {
        self.storage.queue(&self.config.queues.callbacks)
    }

    /// Where bodies too large for a message lie, and the switches.
    pub fn container(&self) -> Container {
        self.storage.container(&self.config.storage.container)
    }

    /// What asks models; made on first use and given back when it is idle.
    pub fn engine(&self) -> Result<InUse, String> {
        let spool = self.storage.queue(&self.config.queues.usage);
        self.models.engine(&self.config, &self.database, spool)
    }

    /// Sends HTTP to others; made on first use, since its TLS state is not needed for anything else.
    pub fn sender(&self) -> &Sender {
        self.sender.get_or_init(|| {
            Sender::new(SenderLimits {
                timeout: self.config.work.callback_timeout,
                response_max_bytes: usize::try_from(self.config.work.callback_response_max_bytes)
                    .unwrap_or(usize::MAX),
            })
        })
    }
}

fn sources(config: &Config, mistakes: &mut Vec<String>) -> HashMap<String, SourceService> {
    let mut sources = HashMap::new();
    for (name, source_config) in &config.app.sources {
        match Source::new(name, source_config, wiring::webhook_secrets(config, name)) {
            Ok(source) => {
                let admission = Admission::new(
                    NonZeroU32::new(source.rate_per_minute()),
                    NonZeroU32::new(config.work.forgeries_per_minute).unwrap_or(NonZeroU32::MIN),
                );
                sources.insert(name.clone(), SourceService { source, admission });
            }
            Err(errors) => mistakes.extend(errors.iter().map(ToString::to_string)),
        }
    }
    sources
}

/// Sources whose larger deliveries could never be taken.
fn without_room(sources: &HashMap<String, SourceService>, bytes: u64) -> Vec<String> {
    let largest = Room::largest(bytes);
    let limit = |service: &SourceService| service.source.limits().max_body_bytes;
    let mut found: Vec<String> = sources
        .iter()
        .filter(|(_, service)| limit(service) > largest)
        .map(|(name, service)| {
            format!(
                "INGRESS_MAX_BYTES: leaves room for bodies of at most {largest} bytes, and sources.{name}.max_body_bytes is \
                 {}; raise the one or lower the other",
                limit(service)
            )
        })
        .collect();
    found.sort_unstable();
    found
}

fn targets(config: &Config, mistakes: &mut Vec<String>) -> HashMap<String, Target> {
    let named: BTreeMap<&String, &TargetConfig> = config.app.targets.iter().collect();
    let mut targets = HashMap::new();
    for (name, target) in named {
        match self::target(config, name, target) {
            Ok(target) => {
                targets.insert(name.clone(), target);
            }
            Err(error) => mistakes.push(format!("targets.{name}: {error:#}")),
        }
    }
    targets
}

fn target(config: &Config, name: &str, target: &TargetConfig) -> anyhow::Result<Target> {
    let signer = Signer::new(config.callback_secrets.of(name).iter().map(|secret| &secret.value))
        .context("its signing keys")?;
    Ok(Target { config: target.clone(), destination: destination(config.environment, target)?, signer })
}

/// Where a target is, and by which rule it may be reached.
fn destination(environment: AppEnvironment, target: &TargetConfig) -> anyhow::Result<Destination> {
    let mut networks = target.allow_networks.clone();
    // A developer's own machine is not an internal network to protect.
    let own_machine = environment.is_dev() && target.is_on_this_machine();
    if own_machine {
        networks.extend(wiring::loopback_networks());
    }
    let url = target.url.parse().context("the URL")?;
    let rule = AddressRule::new(&networks);
    Ok(Destination { url, rule, allow_http: target.allow_http || own_machine })
}

/// What cannot work in a well-formed `colloquy.toml`: targets that can never be reached, and jobs that can do nothing
/// with a source's events. `check` refuses it; start-up warns, since deliveries are taken all the same.
pub fn contradictions(app: &AppConfig, environment: AppEnvironment) -> Vec<String> {
    let mut found: Vec<String> = app.refused_in(environment).iter().map(ToString::to_string).collect();
    // A URL from the environment is judged when there is one.
    let written = app.targets.iter().filter(|(_, target)| !target.url.contains("${"));
    for (name, target) in written {
        let checked = destination(environment, target)
            .and_then(|destination| Ok(destination.rule.check_literal(&destination.url)?));
        if let Err(error) = checked {
            found.push(format!("targets.{name}: {error:#}"));
        }
    }
    found.extend(misplaced_jobs(app));
    found.extend(open_invocations(app));
    found
}

/// Sources of SailPoint's whose ASYNC invocations are acknowledged, and completed by nothing.
fn open_invocations(app: &AppConfig) -> Vec<String> {
    let mut found = Vec::new();
    for (name, source) in &app.sources {
        let Some(sailpoint) = source.sailpoint.as_ref().filter(|config| !config.callback_hosts.is_empty())
        else {
            continue;
        };
        let place =
            format!("sources.{name}.sailpoint.callback_hosts: ASYNC invocations are acknowledged, and");
        if sailpoint.async_output.is_none() && sailpoint.output.is_none() {
            found.push(format!("{place} neither `async_output` nor `output` says what completes them"));
        }
        let job = JobKind::CompleteInvocation.as_str();
        if !app.routes.iter().any(|route| route.source == *name && route.job.as_deref() == Some(job)) {
            found.push(format!("{place} no route gives them to the job {job}"));
        }
    }
    found
}

fn misplaced_jobs(app: &AppConfig) -> Vec<String> {
    let misplaced = app.routes.iter().filter_map(|route| {
        let job = JobKind::of(route.job.as_deref()?)?;
        let source = app.sources.get(&route.source)?;
        (!job.takes(source.kind)).then(|| {
            format!(
                "route `{}`: the job {} does nothing for the source `{}` of kind {}; it is for kind sailpoint",
                route.name,
                job.as_str(),
                route.source,
                source.kind.as_str()
            )
        })
    });
    misplaced.collect()
}
