//! The rows. Thresholds come from the founding documents where they give one.

use super::Channel::{Chat, Mail, Page};
use super::Emitter::{Both, Handlers, Server};
use super::Measure::{Average, Highest, Lowest, P95, Share, Throughout, Total};
use super::Unit::{Percent, Seconds};
use super::{Metric as M, Signal};

const QUEUES: &str = "Queues and work";
const WEBHOOKS: &str = "Webhooks";
const DATABASE: &str = "Database";
const SERVER: &str = "Server";
const MODELS: &str = "Models";
const COST: &str = "Cost";
const OTHERS: &str = "Systems of others";
const MACHINES: &str = "Machines";

const SITE: &str = "Microsoft.Web/sites";
const PLAN: &str = "Microsoft.Web/serverfarms";
const POSTGRES: &str = "Microsoft.DBforPostgreSQL/flexibleServers";
const REDIS: &str = "Microsoft.Cache/redisEnterprise";
const STORAGE: &str = "Microsoft.Storage/storageAccounts";

/// Everything that is watched.
#[rustfmt::skip]
pub const SIGNALS: &[Signal] = &[
    // Queues and work.
    Signal::ours("events-age", (M::QueueOldestAge, Handlers), Highest, QUEUES,
        "Deliveries are accepted and not processed: see `ready`, then the log of `process-event`.")
        .only(&[("queue", "events")]).unit(Seconds).warn(60.0, 5, Chat).critical(600.0, 5, 1, Page),
    Signal::ours("queue-depth", (M::QueueDepth, Handlers), Highest, QUEUES,
        "Lag: scale out, or find the slow consumer.")
        .warn(1_000.0, 5, Chat).critical(10_000.0, 5, 1, Page),
    Signal::ours("due-rows", (M::DueRows, Handlers), Highest, QUEUES,
        "Lag: jobs or callbacks are due and nobody takes them.")
        .warn(1_000.0, 5, Chat).critical(10_000.0, 5, 1, Page),
    Signal::ours("due-age", (M::DueOldestAge, Handlers), Highest, QUEUES,
        "Work is due and nobody takes it: is `maintain` running?")
        .unit(Seconds).warn(120.0, 5, Chat).critical(900.0, 5, 1, Page),
    Signal::ours("dead-letters", (M::DeadLettersOpen, Handlers), Highest, QUEUES, "See *Dead letters*.")
        .warn(1.0, 15, Mail).critical(100.0, 15, 1, Chat),
    Signal::ours("secrets-near-expiry", (M::RotationsOpen, Handlers), Highest, QUEUES, "See *Secrets that expire*.")
        .only(&[("urgency", "near")]).warn(1.0, 60, Mail),
    Signal::ours("secrets-expired", (M::RotationsOpen, Handlers), Highest, QUEUES,
        "A secret has expired and its rotation is not over: see *Secrets that expire*.")
        .only(&[("urgency", "expired")]).critical(1.0, 15, 1, Chat),
    Signal::ours("dead-letters-made", (M::DeadLetters, Handlers), Total, QUEUES, "Work given up."),
    Signal::ours("invocations-cut", (M::Invocations, Handlers), Total, QUEUES,
        "Functions are cut at their deadline or panic: see `handler.overran`, `handler.panicked`.")
        .only(&[("outcome", "cut")]).warn(1.0, 15, Chat),
    Signal::ours("invocation-time", (M::InvocationDuration, Handlers), P95, QUEUES, "Time of functions."),
    Signal::ours("job-attempts", (M::JobAttempts, Handlers), Total, QUEUES, "Attempts at jobs."),
    Signal::ours("job-time", (M::JobDuration, Handlers), P95, QUEUES, "Time of jobs."),
    Signal::ours("swept", (M::Swept, Both), Total, QUEUES, "What upkeep took."),
    // Webhooks.
    Signal::ours("deliveries-refused", (M::WebhookRequests, Handlers), Total, WEBHOOKS,
        "Storage is away; senders that do not send again lose deliveries.")
        .only(&[("outcome", "queue-unavailable")]).warn(1.0, 5, Chat).critical(20.0, 5, 1, Page),
    Signal::ours("forgeries", (M::WebhookRequests, Handlers), Total, WEBHOOKS,
        "A wrong secret, or somebody tries.")
        .only(&[("outcome", "bad-signature")]).warn(10.0, 1, Mail).critical(100.0, 1, 1, Chat),
    Signal::ours("webhook-errors", (M::Invocations, Handlers), Share(&[("outcome", "failed")]), WEBHOOKS,
        "Senders get 5xx: the log of `receive-webhook`.")
        .only(&[("function", "receive-webhook")]).unit(Percent).warn(1.0, 5, Chat).critical(5.0, 5, 1, Page),
    Signal::ours("webhook-time", (M::WebhookDuration, Handlers), P95, WEBHOOKS,
        "Senders wait: storage, or too few instances.")
        .unit(Seconds).warn(5.0, 5, Chat),
    Signal::ours("events", (M::EventsProcessed, Handlers), Total, WEBHOOKS, "Events, by their fate."),
    // Database.
    Signal::ours("pool", (M::DatabasePoolUtilization, Both), Throughout, DATABASE,
        "The connections of one process are used up: slow statements, or too small a `DB_POOL_SIZE`.")
        .unit(Percent).warn(80.0, 5, Chat).critical(90.0, 5, 1, Chat),
    Signal::ours("pool-waiting", (M::DatabasePoolWaiting, Both), Throughout, DATABASE,
        "Callers wait for a connection: as `pool`.")
        .warn(1.0, 5, Chat).critical(10.0, 5, 1, Chat),
    Signal::ours("database-errors", (M::DatabaseErrors, Both), Total, DATABASE,
        "By `class`; see [errors.md](errors.md#dependencies).")
        .warn(1.0, 5, Chat).critical(100.0, 15, 1, Chat),
    Signal::ours("migrations-pending", (M::MigrationsPending, Both), Throughout, DATABASE,
        "See *A stuck migration*.")
        .warn(1.0, 10, Chat).critical(1.0, 30, 1, Chat),
    Signal::ours("pool-connections", (M::DatabasePoolConnections, Both), Highest, DATABASE, "By state."),
    Signal::ours("pool-limit", (M::DatabasePoolLimit, Both), Highest, DATABASE, "`DB_POOL_SIZE`."),
    Signal::ours("schema", (M::SchemaVersion, Both), Highest, DATABASE, "Version of the schema."),
    // Server.
    Signal::ours("server-errors", (M::Requests, Server), Share(&[("status", "5*")]), SERVER,
        "Callers get 5xx: the log by `code`, [errors.md](errors.md#in-answers-of-the-conversation-server).")
        .unit(Percent).warn(1.0, 5, Chat).critical(5.0, 5, 1, Page),
    Signal::ours("response-time", (M::Requests, Server), P95, SERVER,
        "Answers begin late: models, database, or a busy process, by `route`.")
        .unit(Seconds).warn(5.0, 5, Chat),
    Signal::ours("connections", (M::ConnectionsUtilization, Server), Highest, SERVER,
        "Scale out, or raise `CONNECTION_LIMIT` and the limit of open files.")
        .unit(Percent).warn(80.0, 5, Chat).critical(95.0, 5, 1, Page),
    Signal::ours("connections-refused", (M::ConnectionsRefused, Server), Total, SERVER, "There was no room: as `connections`, too late.")
        .critical(1.0, 5, 1, Page),
    Signal::ours("runtime", (M::RuntimeUtilization, Both), Average, MACHINES,
        "The process's threads are busy: scale out; *Profiling* says with what.")
        .unit(Percent).warn(90.0, 5, Chat),
    Signal::ours("turns-taken-over", (M::TurnsTakenOver, Both), Total, SERVER,
        "A process died with turns in flight: look for its last lines.")
        .warn(1.0, 15, Mail),
    Signal::ours("log-append", (M::LogAppend, Both), P95, SERVER,
        "Every piece of a stored turn waits for this: PostgreSQL's disk or the way to it.")
        .unit(Seconds).warn(0.25, 5, Chat),
    Signal::ours("log-stalled", (M::LogStalled, Both), Total, SERVER,
        "Streams go on unlogged: the database hangs.")
        .critical(1.0, 5, 1, Chat),
    Signal::ours("access-refused", (M::AccessRefused, Both), Total, SERVER,
        "Callers with a wrong key, or somebody tries; by `code`.")
        .warn(100.0, 5, Mail),
    Signal::ours("rate-limited", (M::RateLimited, Server), Total, SERVER, "By limit."),
    Signal::ours("connections-open", (M::ConnectionsOpen, Server), Highest, SERVER, "Open connections."),
    Signal::ours("connections-limit", (M::ConnectionsLimit, Server), Highest, SERVER, "Their limit."),
    Signal::ours("turns-open", (M::TurnsOpen, Both), Highest, SERVER, "Turns in flight."),
    Signal::ours("turns-ended", (M::TurnsEnded, Both), Total, SERVER, "By status and reason."),
    Signal::ours("redis", (M::CoordinationConnected, Both), Lowest, SERVER,
        "Redis is away: instances count limits alone and poll for turns of others. Nothing is lost.")
        .warn(0.0, 5, Chat),
    Signal::ours("redis-calls", (M::CoordinationCalls, Both), Total, SERVER, "By outcome."),
    // Models.
    Signal::ours("first-token", (M::GenAiServerFirstToken, Both), P95, MODELS,
        "Callers wait for the first token: the provider, our quota (`colloquy.llm.quota.wait`), or the database.")
        .unit(Seconds).critical(4.0, 5, 1, Page),
    Signal::ours("model-time", (M::GenAiDuration, Both), P95, MODELS,
        "A provider is slow, or answers are long; by model.")
        .unit(Seconds).warn(10.0, 5, Chat),
    Signal::ours("breaker", (M::LlmBreakerOpen, Both), Highest, MODELS,
        "A deployment is left alone after failures: its provider's state; `error.code` in `llm.attempt_failed`.")
        .critical(1.0, 5, 1, Chat),
    Signal::ours("breakers-opened", (M::LlmBreakerOpened, Both), Total, MODELS, "How often."),
    Signal::ours("model-calls", (M::LlmAttempts, Both), Total, MODELS, "By deployment and outcome."),
    Signal::ours("model-retries", (M::LlmRetries, Both), Total, MODELS, "By deployment and reason."),
    Signal::ours("quota-wait", (M::LlmQuotaWait, Both), P95, MODELS, "Waits for our own limits."),
    Signal::ours("first-chunk", (M::GenAiFirstChunk, Both), P95, MODELS, "Of providers."),
    Signal::ours("per-chunk", (M::GenAiPerChunk, Both), P95, MODELS, "Of providers."),
    Signal::ours("turn-time", (M::GenAiServerDuration, Both), P95, MODELS, "Of turns."),
    Signal::ours("per-token", (M::GenAiServerPerToken, Both), P95, MODELS, "Of turns."),
    // Cost.
    Signal::ours("budget", (M::BudgetUsed, Both), Highest, COST,
        "The day's total budget runs out; at 100 % turns are refused until midnight UTC.")
        .unit(Percent).warn(80.0, 15, Mail).critical(100.0, 15, 2, Mail),
    Signal::ours("budget-refused", (M::BudgetRefused, Both), Total, COST,
        "Turns are refused for money: by `code`, [spend.md](spend.md).")
        .warn(1.0, 60, Mail),
    Signal::ours("usage-lost", (M::UsageRows, Both), Total, COST,
        "What turns cost could be written neither to the database nor to the queue.")
        .only(&[("fate", "lost")]).critical(1.0, 5, 1, Chat),
    Signal::ours("cost", (M::Cost, Both), Total, COST, "By deployment."),
    Signal::ours("tokens", (M::GenAiTokens, Both), Total, COST, "By model and type."),
    Signal::ours("budgets-passed", (M::BudgetPassed, Both), Total, COST, "By scope and percent."),
    Signal::platform("subscription-cost", ("Microsoft.Consumption/budgets", "Cost"), Highest, COST,
        "The month's budget in Azure.")
        .warn(80.0, 1_440, Mail).critical(100.0, 1_440, 2, Mail),
    // Systems of others.
    Signal::ours("external-failing", (M::ExternalFailing, Both), Highest, OTHERS,
        "Five calls in a row failed: `system` and `name` say whose; what waits for it waits.")
        .critical(5.0, 5, 1, Chat),
    Signal::ours("external-errors", (M::ExternalErrors, Both), Total, OTHERS,
        "By `system`, `name` and `code`.")
        .warn(5.0, 60, Mail),
    Signal::ours("callback-time", (M::CallbackDuration, Handlers), P95, OTHERS,
        "A consumer is slow to answer callbacks.")
        .unit(Seconds).warn(10.0, 5, Mail),
    Signal::ours("callbacks", (M::CallbackAttempts, Handlers), Total, OTHERS, "By target and outcome."),
    // The platform's own.
    Signal::platform("down", (SITE, "HealthCheckStatus"), Lowest, MACHINES,
        "`ready` fails on every probe of three minutes: its answer says which dependency.")
        .warn(99.0, 3, Chat).critical(0.0, 3, 0, Page),
    Signal::platform("cpu", (PLAN, "CpuPercentage"), Average, MACHINES, "Scale out, or up.")
        .warn(80.0, 10, Chat),
    Signal::platform("memory", (PLAN, "MemoryPercentage"), Average, MACHINES, "Scale out, or up.")
        .warn(85.0, 10, Chat),
    Signal::platform("database-down", (POSTGRES, "is_db_alive"), Lowest, DATABASE,
        "PostgreSQL does not answer: deliveries are still accepted, stored turns are refused.")
        .unit(super::Unit::Number).critical(0.0, 5, 0, Page),
    Signal::platform("database-connections", (POSTGRES, "active_connections"), Highest, DATABASE,
        "Instances × `DB_POOL_SIZE` against what the server takes.")
        .of("max_connections").warn(80.0, 5, Chat).critical(90.0, 5, 1, Chat),
    Signal::platform("database-cpu", (POSTGRES, "cpu_percent"), Average, DATABASE,
        "`pg_stat_statements`, then a larger server.")
        .warn(80.0, 10, Chat),
    Signal::platform("database-memory", (POSTGRES, "memory_percent"), Average, DATABASE, "A larger server.")
        .warn(85.0, 10, Chat),
    Signal::platform("database-storage", (POSTGRES, "storage_percent"), Highest, DATABASE,
        "Retention, or more storage: a full disk makes the server read-only.")
        .warn(80.0, 30, Mail).critical(90.0, 30, 1, Chat),
    Signal::platform("redis-memory", (REDIS, "usedmemorypercentage"), Average, MACHINES, "A larger cache.")
        .warn(80.0, 10, Chat),
    Signal::platform("storage-down", (STORAGE, "Availability"), Lowest, QUEUES,
        "Deliveries cannot be kept; senders get 503.")
        .warn(99.0, 5, Chat).critical(90.0, 5, 1, Page),
    Signal::platform("storage-used", (STORAGE, "UsedCapacity"), Highest, QUEUES, "Bodies and messages."),
];

/// Metrics that no row shows.
#[cfg(test)]
pub(super) fn without_row() -> Vec<M> {
    let shown =
        |metric: M| SIGNALS.iter().any(|signal| signal.metric().is_some_and(|shown| shown.metric == metric));
    super::METRICS.iter().map(|definition| definition.metric).filter(|metric| !shown(*metric)).collect()
}
